// Attention of the tokens of each sequence to one another, forward and backward, with memory that does not grow with
// the square of the length: Dao, "FlashAttention-2" (2023). This is the one in f32; attention_bfloat16.cu has the one
// that is fast.
//
// A row of `projected` has the queries of all heads, then the keys, then the values. A block takes TILE queries (or
// keys) of one sequence and head past all keys (or queries), TILE at a time. `tiles` has for each block the sequence
// and the first row in it; `starts` the first token of each sequence, and the number of all tokens.

#define TILE 32
// The widest head.
#define MOST_WIDTH 64
// A block has 16 rows of 8 threads; a thread has 2 rows and 4 columns of a tile of scores, and 8 columns of its
// output.
#define ATTENTION_THREADS 128
#define LOWEST -3.402823466e38f

typedef float Part[TILE][MOST_WIDTH + 1];
typedef float Scores[TILE][TILE + 1];

// What a block works on.
struct AttentionPlace {
    int start, length, first, head;

    __device__ AttentionPlace(const int* starts, const int* tiles)
        : start(starts[tiles[2 * blockIdx.x]]),
          length(starts[tiles[2 * blockIdx.x] + 1] - start),
          first(tiles[2 * blockIdx.x + 1]),
          head(blockIdx.y) {}
};

// Reads the rows from `first` of a sequence on, `width` columns from `column` on; zeros beyond the sequence and the
// width.
__device__ inline void read_part(
    Part part, const float* values, const AttentionPlace& place, int first, int stride, int column, int width
) {
    for (int index = threadIdx.x; index < TILE * MOST_WIDTH; index += ATTENTION_THREADS) {
        const int row = index / MOST_WIDTH, offset = index % MOST_WIDTH;
        const bool inside = first + row < place.length && offset < width;
        const long long token = place.start + first + row;
        part[row][offset] = inside ? values[token * stride + column + offset] : 0.0f;
    }
}

// This thread's part of left · rightᵀ.
__device__ inline void products(const Part left, const Part right, int width, float out[2][4]) {
    const int row = threadIdx.x / 8, column = threadIdx.x % 8;
    for (int place = 0; place < 8; place++) {
        out[place / 4][place % 4] = 0.0f;
    }
    for (int inner = 0; inner < width; inner++) {
        const float first = left[row][inner], second = left[row + 16][inner];
#pragma unroll
        for (int place = 0; place < 4; place++) {
            const float other = right[column + 8 * place][inner];
            out[0][place] += first * other;
            out[1][place] += second * other;
        }
    }
}

// Adds weights · right to this thread's part of the output.
__device__ inline void add_products(const Scores weights, const Part right, float out[2][MOST_WIDTH / 8]) {
    const int row = threadIdx.x / 8, column = threadIdx.x % 8;
    for (int inner = 0; inner < TILE; inner++) {
        const float first = weights[row][inner], second = weights[row + 16][inner];
#pragma unroll
        for (int place = 0; place < MOST_WIDTH / 8; place++) {
            const float other = right[inner][column + 8 * place];
            out[0][place] += first * other;
            out[1][place] += second * other;
        }
    }
}

// Writes this thread's part of the rows from `place.first` on.
__device__ inline void write_part(
    float* values, const AttentionPlace& place, const float out[2][MOST_WIDTH / 8], int stride, int column, int width
) {
    for (int index = 0; index < 2 * (MOST_WIDTH / 8); index++) {
        const int row = place.first + threadIdx.x / 8 + 16 * (index / (MOST_WIDTH / 8));
        const int offset = threadIdx.x % 8 + 8 * (index % (MOST_WIDTH / 8));
        if (row < place.length && offset < width) {
            const long long token = place.start + row;
            values[token * stride + column + offset] = out[index / (MOST_WIDTH / 8)][index % (MOST_WIDTH / 8)];
        }
    }
}

// The greatest and the sum of `value` over the 8 threads of a row.
__device__ inline float row_greatest(float value) {
    for (int distance = 4; distance > 0; distance /= 2) {
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, distance));
    }
    return value;
}

__device__ inline float row_sum(float value) {
    for (int distance = 4; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, distance);
    }
    return value;
}

// Replaces the scores of a row, of which `count` are of keys, by e to the power of score − the greatest so far, and
// brings what was summed before to the new greatest.
__device__ inline void weigh(
    float scores[4], int count, float scale, float& greatest, float& sum, float out[MOST_WIDTH / 8]
) {
    float highest = LOWEST;
    for (int place = 0; place < 4; place++) {
        const bool inside = (int)threadIdx.x % 8 + 8 * place < count;
        scores[place] = inside ? scores[place] * scale : LOWEST;
        highest = fmaxf(highest, scores[place]);
    }
    highest = fmaxf(greatest, row_greatest(highest));
    const float shrink = expf(greatest - highest);
    float added = 0.0f;
    for (int place = 0; place < 4; place++) {
        scores[place] = expf(scores[place] - highest);
        added += scores[place];
    }
    sum = sum * shrink + row_sum(added);
    for (int place = 0; place < MOST_WIDTH / 8; place++) {
        out[place] *= shrink;
    }
    greatest = highest;
}

// context = softmax(queries · keysᵀ / √width) · values; `logarithms` (tokens × heads) becomes ln of the sum of the
// exponentials of each query's scores, by which the backward pass finds the probabilities again.
extern "C" __global__ void attention_forward(
    const float* projected, const int* starts, const int* tiles, int width, float* context, float* logarithms
) {
    __shared__ Part queries, keys, values;
    __shared__ Scores weights;
    const AttentionPlace place(starts, tiles);
    const int heads = gridDim.y, stride = 3 * heads * width, column = place.head * width;
    const int row = threadIdx.x / 8;
    const float scale = 1.0f / sqrtf((float)width);
    float greatest[2] = {LOWEST, LOWEST}, sum[2] = {0.0f, 0.0f}, out[2][MOST_WIDTH / 8] = {};
    read_part(queries, projected, place, place.first, stride, column, width);
    for (int first = 0; first < place.length; first += TILE) {
        __syncthreads();
        read_part(keys, projected, place, first, stride, heads * width + column, width);
        read_part(values, projected, place, first, stride, 2 * heads * width + column, width);
        __syncthreads();
        float scores[2][4];
        products(queries, keys, width, scores);
        for (int half = 0; half < 2; half++) {
            weigh(scores[half], place.length - first, scale, greatest[half], sum[half], out[half]);
            for (int index = 0; index < 4; index++) {
                weights[row + 16 * half][threadIdx.x % 8 + 8 * index] = scores[half][index];
            }
        }
        __syncthreads();
        add_products(weights, values, out);
    }
    for (int half = 0; half < 2; half++) {
        for (int index = 0; index < MOST_WIDTH / 8; index++) {
            out[half][index] /= sum[half];
        }
        const int query = place.first + row + 16 * half;
        if (threadIdx.x % 8 == 0 && query < place.length) {
            logarithms[(long long)(place.start + query) * heads + place.head] = greatest[half] + logf(sum[half]);
        }
    }
    write_part(context, place, out, heads * width, column, width);
}

template <typename T>
__device__ inline void means_of(const T* gradient, const T* context, int width, long long count, float* means) {
    const long long index = global_place() / 8;
    float sum = 0.0f;
    for (int column = threadIdx.x % 8; index < count && column < width; column += 8) {
        sum += single(gradient[index * width + column]) * single(context[index * width + column]);
    }
    sum = row_sum(sum);
    if (threadIdx.x % 8 == 0 && index < count) {
        means[index] = sum;
    }
}

// means (tokens × heads): gradient · context of each token and head, by 8 threads each, which is the mean of
// ∂loss/∂probabilities under the probabilities.
extern "C" __global__ void attention_means(
    const float* gradient, const float* context, int width, long long count, float* means
) {
    means_of(gradient, context, width, count, means);
}

extern "C" __global__ void attention_means_bfloat16(
    const bfloat16* gradient, const bfloat16* context, int width, long long count, float* means
) {
    means_of(gradient, context, width, count, means);
}

// From scores of a query and a key, and ∂loss/∂probability: the probability, and ∂loss/∂score.
__device__ inline void slope(float& score, float& gradient, float scale, float logarithm, float mean, bool inside) {
    const float probability = inside ? expf(score * scale - logarithm) : 0.0f;
    score = probability;
    gradient = probability * (gradient - mean) * scale;
}

// Writes ∂loss/∂queries; `gradient` is ∂loss/∂context.
extern "C" __global__ void attention_queries_backward(
    const float* projected, const int* starts, const int* tiles, int width, const float* gradient,
    const float* logarithms, const float* means, float* out_gradient
) {
    __shared__ Part queries, upstream, keys, values;
    __shared__ Scores slopes;
    const AttentionPlace place(starts, tiles);
    const int heads = gridDim.y, stride = 3 * heads * width, column = place.head * width;
    const int row = threadIdx.x / 8;
    const float scale = 1.0f / sqrtf((float)width);
    float out[2][MOST_WIDTH / 8] = {}, logarithm[2], mean[2];
    for (int half = 0; half < 2; half++) {
        const int query = place.first + row + 16 * half;
        const long long index = (long long)(place.start + query) * heads + place.head;
        logarithm[half] = query < place.length ? logarithms[index] : 0.0f;
        mean[half] = query < place.length ? means[index] : 0.0f;
    }
    read_part(queries, projected, place, place.first, stride, column, width);
    read_part(upstream, gradient, place, place.first, heads * width, column, width);
    for (int first = 0; first < place.length; first += TILE) {
        __syncthreads();
        read_part(keys, projected, place, first, stride, heads * width + column, width);
        read_part(values, projected, place, first, stride, 2 * heads * width + column, width);
        __syncthreads();
        float scores[2][4], gradients[2][4];
        products(queries, keys, width, scores);
        products(upstream, values, width, gradients);
        for (int index = 0; index < 8; index++) {
            const int half = index / 4, offset = threadIdx.x % 8 + 8 * (index % 4);
            const bool inside = first + offset < place.length && place.first + row + 16 * half < place.length;
            slope(scores[half][index % 4], gradients[half][index % 4], scale, logarithm[half], mean[half], inside);
            slopes[row + 16 * half][offset] = gradients[half][index % 4];
        }
        __syncthreads();
        add_products(slopes, keys, out);
    }
    write_part(out_gradient, place, out, stride, column, width);
}

// Writes ∂loss/∂keys and ∂loss/∂values; here the rows of a tile are keys, and its columns queries.
extern "C" __global__ void attention_keys_backward(
    const float* projected, const int* starts, const int* tiles, int width, const float* gradient,
    const float* logarithms, const float* means, float* out_gradient
) {
    __shared__ Part keys, values, queries, upstream;
    __shared__ Scores probabilities, slopes;
    const AttentionPlace place(starts, tiles);
    const int heads = gridDim.y, stride = 3 * heads * width, column = place.head * width;
    const int row = threadIdx.x / 8;
    const float scale = 1.0f / sqrtf((float)width);
    float of_keys[2][MOST_WIDTH / 8] = {}, of_values[2][MOST_WIDTH / 8] = {};
    read_part(keys, projected, place, place.first, stride, heads * width + column, width);
    read_part(values, projected, place, place.first, stride, 2 * heads * width + column, width);
    for (int first = 0; first < place.length; first += TILE) {
        __syncthreads();
        read_part(queries, projected, place, first, stride, column, width);
        read_part(upstream, gradient, place, first, heads * width, column, width);
        __syncthreads();
        float scores[2][4], gradients[2][4];
        products(keys, queries, width, scores);
        products(values, upstream, width, gradients);
        for (int index = 0; index < 8; index++) {
            const int half = index / 4, offset = threadIdx.x % 8 + 8 * (index % 4), query = first + offset;
            const bool inside = query < place.length && place.first + row + 16 * half < place.length;
            const long long token = (long long)(place.start + query) * heads + place.head;
            const float logarithm = inside ? logarithms[token] : 0.0f, mean = inside ? means[token] : 0.0f;
            slope(scores[half][index % 4], gradients[half][index % 4], scale, logarithm, mean, inside);
            probabilities[row + 16 * half][offset] = scores[half][index % 4];
            slopes[row + 16 * half][offset] = gradients[half][index % 4];
        }
        __syncthreads();
        add_products(probabilities, upstream, of_values);
        add_products(slopes, queries, of_keys);
    }
    write_part(out_gradient, place, of_keys, stride, heads * width + column, width);
    write_part(out_gradient, place, of_values, stride, 2 * heads * width + column, width);
}
