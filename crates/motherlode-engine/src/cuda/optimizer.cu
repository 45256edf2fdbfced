// One AdamW step: Loshchilov and Hutter, "Decoupled weight decay regularization" (2019), in the order of operations
// of PyTorch's AdamW.

// `rate` is the learning rate / (1 − β₁ᵗ), `correction` √(1 − β₂ᵗ), `decay` what weights are multiplied by first,
// `clip` what gradients are multiplied by first. The gradient is cleared.
extern "C" __global__ void adamw(
    float* weights, float* first, float* second, float* gradient, long long count, float beta1, float beta2,
    float epsilon, float rate, float correction, float decay, float clip
) {
    const long long index = global_place();
    if (index >= count) {
        return;
    }
    const float slope = gradient[index] * clip;
    const float mean = first[index] + (1.0f - beta1) * (slope - first[index]);
    const float square = second[index] * beta2 + (1.0f - beta2) * slope * slope;
    first[index] = mean;
    second[index] = square;
    weights[index] = weights[index] * decay - rate * (mean / (sqrtf(square) / correction + epsilon));
    gradient[index] = 0.0f;
}
