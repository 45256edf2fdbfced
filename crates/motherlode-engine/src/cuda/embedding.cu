// Token embeddings: gather rows of the tables, and scatter gradients to them. A block has one row.

// out = word + position + kind for the token of each block.
extern "C" __global__ void embedding_gather(
    const float* word, const float* position, const float* kind, const int* ids, const int* positions, int width,
    float* out
) {
    const long long of_word = (long long)ids[blockIdx.x] * width, of_position = (long long)positions[blockIdx.x] * width;
    for (int column = threadIdx.x; column < width; column += blockDim.x) {
        out[(long long)blockIdx.x * width + column] =
            word[of_word + column] + position[of_position + column] + kind[column];
    }
}

// Adds to row rows[block] of `table` the gradients of its tokens, order[starts[block]] to order[starts[block + 1] −
// 1], in this order.
extern "C" __global__ void embedding_scatter(
    const float* gradient, const int* rows, const int* starts, const int* order, int width, float* table
) {
    const int first = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    for (int column = threadIdx.x; column < width; column += blockDim.x) {
        float sum = 0.0f;
        for (int index = first; index < end; index++) {
            sum += gradient[(long long)order[index] * width + column];
        }
        table[(long long)rows[blockIdx.x] * width + column] += sum;
    }
}
