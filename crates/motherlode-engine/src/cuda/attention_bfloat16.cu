// The attention of attention.cu on tensor cores: operands in bfloat16, sums and the softmax in f32.
//
// A block has four warps and takes BLOCK_ROWS queries (or keys) of one sequence and head, 16 by a warp, past all keys
// (or queries), BLOCK_ROWS at a time. Matrices lie in a warp's registers as the instruction mma.m16n8k16 wants them
// ("Matrix fragments for mma.m16n8k16", PTX ISA): thread 4 · g + t has of the sums of a piece of 16 × 8 the places
// (g, 2t), (g, 2t + 1), (g + 8, 2t) and (g + 8, 2t + 1). Heads have at most MOST_WIDTH values, a multiple of 8.

#define BLOCK_ROWS 64
// Pieces of a tile of scores, and of the columns of a head.
#define PIECES (BLOCK_ROWS / 8)
// Steps of 16 over the columns of a head, or over the rows of a tile.
#define STEPS (BLOCK_ROWS / 16)
#define LOG2_E 1.44269504088896341f

// Rows of a tile in shared memory; eight more values a row let the rows begin in different banks.
struct __align__(16) Tile {
    bfloat16 at[BLOCK_ROWS][MOST_WIDTH + 8];
};

// The sums of 16 rows.
typedef float Sums[PIECES][4];

// Where the rows of this thread's sums stand in the tile: this one, and 8 further.
__device__ inline int own_row() {
    return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4;
}

// Whether any of the warp's own rows is one of the sequence.
__device__ inline bool has_own_row(const AttentionPlace& place) {
    return place.first + (int)threadIdx.x / 32 * 16 < place.length;
}

// The columns of this thread's sums in a piece: this one, and the next.
__device__ inline int own_column() {
    return threadIdx.x % 4 * 2;
}

// Begins to copy 16 bytes to shared memory, or to fill them with zeros.
__device__ inline void copy_sixteen(bfloat16* target, const bfloat16* source, bool inside) {
#ifdef __CUDA_ARCH__
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"((unsigned int)__cvta_generic_to_shared(target)), "l"(source), "r"(inside ? 16 : 0)
                 : "memory");
#else
    *(uint4*)target = inside ? *(const uint4*)source : make_uint4(0, 0, 0, 0);
#endif
}

// Waits until all threads have ended what they began to copy.
__device__ inline void wait_for_copies() {
#ifdef __CUDA_ARCH__
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
    __syncthreads();
}

// Begins to read the rows from `first` of a sequence on, `width` columns from `column` on; zeros beyond the sequence
// and the width.
__device__ inline void read_tile(
    Tile& tile, const bfloat16* values, const AttentionPlace& place, int first, int stride, int column, int width
) {
    for (int index = threadIdx.x; index < BLOCK_ROWS * MOST_WIDTH / 8; index += ATTENTION_THREADS) {
        const int row = index / (MOST_WIDTH / 8), offset = index % (MOST_WIDTH / 8) * 8;
        const bool inside = first + row < place.length && offset < width;
        const long long token = place.start + (inside ? first + row : 0);
        copy_sixteen(&tile.at[row][offset], values + token * stride + column + (inside ? offset : 0), inside);
    }
}

// The four quarters of 8 × 8 of the 16 × 16 values from `row` and `column` on: upper left, lower left, upper right,
// lower right; each transposed if so asked. Thread 4 · g + t has of a quarter the places (g, 2t) and (g, 2t + 1).
template <bool transposed>
__device__ inline void read_quarters(const Tile& tile, int row, int column, unsigned int out[4]) {
    const int lane = threadIdx.x % 32;
#ifdef __CUDA_ARCH__
    const bfloat16* source = &tile.at[row + lane % 16][column + lane / 16 * 8];
    const unsigned int address = (unsigned int)__cvta_generic_to_shared(source);
    if (transposed) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                     : "r"(address)
                     : "memory");
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                     : "r"(address)
                     : "memory");
    }
#else
    for (int quarter = 0; quarter < 4; quarter++) {
        const int top = row + quarter % 2 * 8, left = column + quarter / 2 * 8, near = lane / 4, far = lane % 4 * 2;
        const bfloat16 first = transposed ? tile.at[top + far][left + near] : tile.at[top + near][left + far];
        const bfloat16 next = transposed ? tile.at[top + far + 1][left + near] : tile.at[top + near][left + far + 1];
        out[quarter] = first.bits | (unsigned int)next.bits << 16;
    }
#endif
}

// Adds a product of 16 × 16 and 16 × 8 values to the sums of a piece.
__device__ inline void add_product(const unsigned int left[4], unsigned int upper, unsigned int lower, float sums[4]) {
#ifdef __CUDA_ARCH__
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
                 : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(upper), "r"(lower));
#else
    twin::add_product(left, upper, lower, sums);
#endif
}

// sums = the warp's own 16 rows · rowsᵀ, over the columns of a head; of those of `rows` that are further than `count`,
// sums are zeros.
__device__ inline void multiply_rows(const Tile& own, const Tile& rows, int width, int count, Sums sums) {
#pragma unroll
    for (int index = 0; index < 4 * PIECES; index++) {
        sums[index / 4][index % 4] = 0.0f;
    }
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        if (16 * step < width) {
            unsigned int left[4];
            read_quarters<false>(own, threadIdx.x / 32 * 16, 16 * step, left);
#pragma unroll
            for (int piece = 0; piece < PIECES; piece += 2) {
                if (8 * piece < count) {
                    unsigned int quarters[4];
                    read_quarters<false>(rows, 8 * piece, 16 * step, quarters);
                    add_product(left, quarters[0], quarters[2], sums[piece]);
                    add_product(left, quarters[1], quarters[3], sums[piece + 1]);
                }
            }
        }
    }
}

// sums += weights · rows, over the first `count` rows of a tile; the weights are rounded first.
__device__ inline void add_weighted_rows(const Sums weights, const Tile& rows, int width, int count, Sums sums) {
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        if (16 * step < count) {
            const float *near = weights[2 * step], *far = weights[2 * step + 1];
            const unsigned int left[4] = {
                nearest_pair(near[0], near[1]),
                nearest_pair(near[2], near[3]),
                nearest_pair(far[0], far[1]),
                nearest_pair(far[2], far[3]),
            };
#pragma unroll
            for (int piece = 0; piece < PIECES; piece += 2) {
                if (8 * piece < width) {
                    unsigned int quarters[4];
                    read_quarters<true>(rows, 16 * step, 8 * piece, quarters);
                    add_product(left, quarters[0], quarters[1], sums[piece]);
                    add_product(left, quarters[2], quarters[3], sums[piece + 1]);
                }
            }
        }
    }
}

// Writes this thread's sums, each row times its factor, to the rows from `place.first` on.
__device__ inline void write_sums(
    bfloat16* values, const AttentionPlace& place, const Sums sums, const float factors[2], int stride, int column,
    int width
) {
#pragma unroll
    for (int piece = 0; piece < PIECES; piece++) {
        for (int half = 0; half < 2; half++) {
            const int row = place.first + own_row() + 8 * half;
            if (row < place.length && 8 * piece < width) {
                const long long index = (long long)(place.start + row) * stride + column + 8 * piece + own_column();
                const float *pair = &sums[piece][2 * half], factor = factors[half];
                *(unsigned int*)(values + index) = nearest_pair(pair[0] * factor, pair[1] * factor);
            }
        }
    }
}

// The greatest of `value` over the 4 threads of a row.
__device__ inline float greatest_of_four(float value) {
    value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
    return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}

__device__ inline float sum_of_four(float value) {
    value += __shfl_xor_sync(0xffffffffu, value, 1);
    return value + __shfl_xor_sync(0xffffffffu, value, 2);
}

// Replaces the scores of `count` keys by 2 to the power of factor · score − the greatest so far, those of no keys by
// 0, and brings what was summed before to the new greatest.
__device__ inline void weigh_rows(
    Sums scores, int count, float factor, float greatest[2], float sum[2], Sums out
) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float highest = LOWEST;
#pragma unroll
        for (int piece = 0; piece < PIECES; piece++) {
            for (int next = 0; next < 2; next++) {
                float& score = scores[piece][2 * half + next];
                score = 8 * piece + own_column() + next < count ? score * factor : LOWEST;
                highest = fmaxf(highest, score);
            }
        }
        highest = fmaxf(greatest[half], greatest_of_four(highest));
        const float shrink = exp2f(greatest[half] - highest);
        float added = 0.0f;
#pragma unroll
        for (int piece = 0; piece < PIECES; piece++) {
            for (int next = 0; next < 2; next++) {
                float& score = scores[piece][2 * half + next];
                score = exp2f(score - highest);
                added += score;
                out[piece][2 * half + next] *= shrink;
            }
        }
        sum[half] = sum[half] * shrink + sum_of_four(added);
        greatest[half] = highest;
    }
}

extern "C" __launch_bounds__(ATTENTION_THREADS, 4) __global__ void attention_forward_bfloat16(
    const bfloat16* projected, const int* starts, const int* tiles, int width, bfloat16* context, float* logarithms
) {
    __shared__ Tile queries, keys, values;
    const AttentionPlace place(starts, tiles);
    const int heads = gridDim.y, stride = 3 * heads * width, column = place.head * width;
    const float factor = LOG2_E / sqrtf((float)width);
    float greatest[2] = {LOWEST, LOWEST}, sum[2] = {0.0f, 0.0f};
    Sums scores, out = {};
    read_tile(queries, projected, place, place.first, stride, column, width);
    for (int first = 0; first < place.length; first += BLOCK_ROWS) {
        const int count = place.length - first;
        read_tile(keys, projected, place, first, stride, heads * width + column, width);
        read_tile(values, projected, place, first, stride, 2 * heads * width + column, width);
        wait_for_copies();
        if (has_own_row(place)) {
            multiply_rows(queries, keys, width, count, scores);
            weigh_rows(scores, count, factor, greatest, sum, out);
            add_weighted_rows(scores, values, width, count, out);
        }
        __syncthreads();
    }
    const float factors[2] = {1.0f / sum[0], 1.0f / sum[1]};
    write_sums(context, place, out, factors, heads * width, column, width);
    for (int half = 0; half < 2; half++) {
        const int query = place.first + own_row() + 8 * half;
        if (own_column() == 0 && query < place.length) {
            const long long index = (long long)(place.start + query) * heads + place.head;
            logarithms[index] = greatest[half] / LOG2_E + logf(sum[half]);
        }
    }
}

// The logarithms (to base 2) and the means of the queries from `first` on; of no query, what makes probabilities 0.
struct Numbers {
    float logarithms[BLOCK_ROWS], means[BLOCK_ROWS];
};

__device__ inline void read_numbers(
    Numbers& numbers, const AttentionPlace& place, int first, int heads, const float* logarithms, const float* means
) {
    if (threadIdx.x < BLOCK_ROWS) {
        const int query = first + threadIdx.x;
        const long long index = (long long)(place.start + query) * heads + place.head;
        numbers.logarithms[threadIdx.x] = query < place.length ? logarithms[index] * LOG2_E : -LOWEST;
        numbers.means[threadIdx.x] = query < place.length ? means[index] : 0.0f;
    }
}

// Writes ∂loss/∂queries.
extern "C" __launch_bounds__(ATTENTION_THREADS, 4) __global__ void attention_queries_backward_bfloat16(
    const bfloat16* projected, const int* starts, const int* tiles, int width, const bfloat16* gradient,
    const float* logarithms, const float* means, bfloat16* out_gradient
) {
    __shared__ Tile queries, upstream, keys, values;
    __shared__ Numbers numbers;
    const AttentionPlace place(starts, tiles);
    const int heads = gridDim.y, stride = 3 * heads * width, column = place.head * width;
    const float scale = 1.0f / sqrtf((float)width);
    Sums scores, slopes, out = {};
    read_tile(queries, projected, place, place.first, stride, column, width);
    read_tile(upstream, gradient, place, place.first, heads * width, column, width);
    read_numbers(numbers, place, place.first, heads, logarithms, means);
    for (int first = 0; first < place.length; first += BLOCK_ROWS) {
        const int count = place.length - first;
        read_tile(keys, projected, place, first, stride, heads * width + column, width);
        read_tile(values, projected, place, first, stride, 2 * heads * width + column, width);
        wait_for_copies();
        if (has_own_row(place)) {
            multiply_rows(queries, keys, width, count, scores);
            multiply_rows(upstream, values, width, count, slopes);
#pragma unroll
            for (int index = 0; index < 4 * PIECES; index++) {
                const int key = index / 4 * 8 + own_column() + index % 2, row = own_row() + index % 4 / 2 * 8;
                const float exponent = scores[index / 4][index % 4] * scale * LOG2_E - numbers.logarithms[row];
                const float probability = key < count ? exp2f(exponent) : 0.0f;
                float& slope = slopes[index / 4][index % 4];
                slope = probability * (slope - numbers.means[row]);
            }
            add_weighted_rows(slopes, keys, width, count, out);
        }
        __syncthreads();
    }
    const float factors[2] = {scale, scale};
    write_sums(out_gradient, place, out, factors, stride, column, width);
}

// Writes ∂loss/∂keys and ∂loss/∂values; here the rows of a tile are keys, and its columns queries.
extern "C" __launch_bounds__(ATTENTION_THREADS, 3) __global__ void attention_keys_backward_bfloat16(
    const bfloat16* projected, const int* starts, const int* tiles, int width, const bfloat16* gradient,
    const float* logarithms, const float* means, bfloat16* out_gradient
) {
    __shared__ Tile keys, values, queries, upstream;
    __shared__ Numbers numbers;
    const AttentionPlace place(starts, tiles);
    const int heads = gridDim.y, stride = 3 * heads * width, column = place.head * width;
    const float scale = 1.0f / sqrtf((float)width);
    Sums scores, slopes, of_keys = {}, of_values = {};
    read_tile(keys, projected, place, place.first, stride, heads * width + column, width);
    read_tile(values, projected, place, place.first, stride, 2 * heads * width + column, width);
    for (int first = 0; first < place.length; first += BLOCK_ROWS) {
        const int count = place.length - first;
        read_tile(queries, projected, place, first, stride, column, width);
        read_tile(upstream, gradient, place, first, heads * width, column, width);
        read_numbers(numbers, place, first, heads, logarithms, means);
        wait_for_copies();
        if (has_own_row(place)) {
            multiply_rows(keys, queries, width, count, scores);
            multiply_rows(values, upstream, width, count, slopes);
#pragma unroll
            for (int index = 0; index < 4 * PIECES; index++) {
                const int query = index / 4 * 8 + own_column() + index % 2;
                float &score = scores[index / 4][index % 4], &slope = slopes[index / 4][index % 4];
                score = exp2f(score * scale * LOG2_E - numbers.logarithms[query]);
                slope = score * (slope - numbers.means[query]);
            }
            add_weighted_rows(scores, upstream, width, count, of_values);
            add_weighted_rows(slopes, queries, width, count, of_keys);
        }
        __syncthreads();
    }
    const float scales[2] = {scale, scale}, ones[2] = {1.0f, 1.0f};
    write_sums(out_gradient, place, of_keys, scales, stride, heads * width + column, width);
    write_sums(out_gradient, place, of_values, ones, stride, 2 * heads * width + column, width);
}
