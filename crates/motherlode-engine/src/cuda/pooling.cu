// From the vectors of the tokens to the vector of the sequence, forward and backward. A block has one sequence.

// Lengths below this count as this, as in PyTorch's `normalize`.
#define LEAST_LENGTH 1e-12f

// The tokens of a block's sequence, those of them that are pooled, and the share of each.
struct Pooled {
    int start, end, first, last;
    float share;

    // `pooling`: 0 the first token, 1 the last, 2 the mean.
    __device__ Pooled(const int* starts, int pooling)
        : start(starts[blockIdx.x]),
          end(starts[blockIdx.x + 1]),
          first(pooling == 1 ? end - 1 : start),
          last(pooling == 0 ? start : end - 1),
          share(1.0f / (float)(last - first + 1)) {}

    __device__ float value(const float* tokens, int width, int column) const {
        float sum = 0.0f;
        for (int token = first; token <= last; token++) {
            sum += share * tokens[(long long)token * width + column];
        }
        return sum;
    }
};

// out: the pooled vectors, of unit length if `normalise`.
extern "C" __global__ void pooling_forward(
    const float* tokens, const int* starts, int pooling, int normalise, int width, float* out
) {
    const Pooled pooled(starts, pooling);
    const long long row = (long long)blockIdx.x * width;
    float square = 0.0f;
    for (int column = threadIdx.x; column < width; column += blockDim.x) {
        const float value = pooled.value(tokens, width, column);
        out[row + column] = value;
        square += value * value;
    }
    const float factor = 1.0f / fmaxf(sqrtf(block_sum(square)), LEAST_LENGTH);
    for (int column = threadIdx.x; normalise && column < width; column += blockDim.x) {
        out[row + column] *= factor;
    }
}

// Turns ∂loss/∂out in `gradient`, which is overwritten, into ∂loss/∂tokens in `out`.
extern "C" __global__ void pooling_backward(
    const float* tokens, const int* starts, int pooling, int normalise, int width, float* gradient, float* out
) {
    const Pooled pooled(starts, pooling);
    const long long row = (long long)blockIdx.x * width;
    float square = 0.0f, along = 0.0f;
    for (int column = threadIdx.x; column < width; column += blockDim.x) {
        const float value = pooled.value(tokens, width, column);
        square += value * value;
        along += value * gradient[row + column];
    }
    const float factor = 1.0f / fmaxf(sqrtf(block_sum(square)), LEAST_LENGTH);
    along = block_sum(along) * factor * factor;
    for (int column = threadIdx.x; column < width; column += blockDim.x) {
        float slope = gradient[row + column];
        if (normalise) {
            slope = (slope - pooled.value(tokens, width, column) * along) * factor;
        }
        for (int token = pooled.start; token < pooled.end; token++) {
            const bool counts = token >= pooled.first && token <= pooled.last;
            out[(long long)token * width + column] = counts ? pooled.share * slope : 0.0f;
        }
    }
}
