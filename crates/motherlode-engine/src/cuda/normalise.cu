// Layer normalisation of the rows of a matrix, forward and backward. A block has one row.

// out = γ · (x − mean) / √(variance + ε) + β, where x is `input`, plus `bias` and `residual` unless these are null.
// `values` becomes the normalised row before γ and β, `factors` 1 / √(variance + ε).
extern "C" __global__ void normalise_forward(
    const float* input, const float* bias, const float* residual, const float* gamma, const float* beta,
    float epsilon, int width, float* values, float* factors, float* out
) {
    const long long start = (long long)blockIdx.x * width;
    float sum = 0.0f, square = 0.0f;
    for (int column = threadIdx.x; column < width; column += blockDim.x) {
        float value = input[start + column];
        value += bias ? bias[column] : 0.0f;
        value += residual ? residual[start + column] : 0.0f;
        values[start + column] = value;
        sum += value;
    }
    const float mean = block_sum(sum) / width;
    for (int column = threadIdx.x; column < width; column += blockDim.x) {
        const float value = values[start + column] - mean;
        square += value * value;
    }
    const float factor = 1.0f / sqrtf(block_sum(square) / width + epsilon);
    for (int column = threadIdx.x; column < width; column += blockDim.x) {
        const float value = (values[start + column] - mean) * factor;
        values[start + column] = value;
        out[start + column] = value * gamma[column] + beta[column];
    }
    if (threadIdx.x == 0) {
        factors[blockIdx.x] = factor;
    }
}

// Turns ∂loss/∂out into ∂loss/∂x in place; the gradients of γ and β are column sums of what stood there before.
extern "C" __global__ void normalise_backward(
    float* gradient, const float* values, const float* factors, const float* gamma, int width
) {
    const long long start = (long long)blockIdx.x * width;
    float sum = 0.0f, along = 0.0f;
    for (int column = threadIdx.x; column < width; column += blockDim.x) {
        const float scaled = gradient[start + column] * gamma[column];
        sum += scaled;
        along += scaled * values[start + column];
    }
    const float mean = block_sum(sum) / width;
    along = block_sum(along) / width;
    for (int column = threadIdx.x; column < width; column += blockDim.x) {
        const float scaled = gradient[start + column] * gamma[column];
        gradient[start + column] = factors[blockIdx.x] * (scaled - mean - values[start + column] * along);
    }
}
