// Layer normalisation of the rows of a matrix, forward and backward. A block works on one row at a time, which it
// holds in registers.

// Four values of a row that a thread has, at most this many times; so rows have at most ROW_VALUES · THREADS values.
#define ROW_FOURS 2
#define ROW_VALUES (4 * ROW_FOURS)
// Rows of a block in the backward pass.
#define SLOPE_ROWS 32

// A thread's part of a row: four neighbours, the four that are 4 · blockDim.x further, and so on.
struct Row {
    Four fours[ROW_FOURS];

    __device__ float& at(int index) {
        return fours[index / 4].at[index % 4];
    }

    __device__ float at(int index) const {
        return fours[index / 4].at[index % 4];
    }
};

// Where a thread's fours of a row begin.
__device__ inline int row_place(int four) {
    return 4 * (threadIdx.x + four * blockDim.x);
}

template <typename T>
__device__ inline Row read_row(const T* values, int width) {
    Row row;
#pragma unroll
    for (int four = 0; four < ROW_FOURS; four++) {
        row.fours[four] = read_four(values, row_place(four), width);
    }
    return row;
}

template <typename T>
__device__ inline void write_row(T* values, int width, const Row& row) {
#pragma unroll
    for (int four = 0; four < ROW_FOURS; four++) {
        write_four(values, row_place(four), width, row.fours[four]);
    }
}

template <typename T>
__device__ inline void normalise(
    const T* input, const float* bias, const float* residual, const float* gamma, const float* beta, float epsilon,
    int width, float* values, float* factors, float* out, T* rounded
) {
    const long long start = (long long)blockIdx.x * width;
    Row row = read_row(residual + start, width);
    float sum = 0.0f, square = 0.0f;
    if (input) {
        const Row added = read_row(input + start, width), biases = read_row(bias, width);
#pragma unroll
        for (int index = 0; index < ROW_VALUES; index++) {
            row.at(index) += added.at(index) + biases.at(index);
        }
    }
#pragma unroll
    for (int index = 0; index < ROW_VALUES; index++) {
        sum += row.at(index);
    }
    const float mean = block_sum(sum) / width;
#pragma unroll
    for (int index = 0; index < ROW_VALUES; index++) {
        float& value = row.at(index);
        value = row_place(index / 4) + index % 4 < width ? value - mean : 0.0f;
        square += value * value;
    }
    const float factor = 1.0f / sqrtf(block_sum(square) / width + epsilon);
#pragma unroll
    for (int index = 0; index < ROW_VALUES; index++) {
        row.at(index) *= factor;
    }
    if (values) {
        write_row(values + start, width, row);
        if (threadIdx.x == 0) {
            factors[blockIdx.x] = factor;
        }
    }
    const Row weights = read_row(gamma, width), biases = read_row(beta, width);
#pragma unroll
    for (int index = 0; index < ROW_VALUES; index++) {
        float& value = row.at(index);
        value = value * weights.at(index) + biases.at(index);
    }
    write_row(out + start, width, row);
    if (rounded) {
        write_row(rounded + start, width, row);
    }
}

// out = γ · (x − mean) / √(variance + ε) + β, where x is `residual`, plus `input` and `bias` unless `input` is null.
// `values` becomes the normalised row before γ and β, `factors` 1 / √(variance + ε), unless both are null; `rounded`
// the same as `out` unless it is null.
extern "C" __global__ void normalise_forward(
    const float* input, const float* bias, const float* residual, const float* gamma, const float* beta,
    float epsilon, int width, float* values, float* factors, float* out, float* rounded
) {
    normalise(input, bias, residual, gamma, beta, epsilon, width, values, factors, out, rounded);
}

extern "C" __global__ void normalise_forward_bfloat16(
    const bfloat16* input, const float* bias, const float* residual, const float* gamma, const float* beta,
    float epsilon, int width, float* values, float* factors, float* out, bfloat16* rounded
) {
    normalise(input, bias, residual, gamma, beta, epsilon, width, values, factors, out, rounded);
}

template <typename T>
__device__ inline void normalise_slope(
    float* gradient, const float* values, const float* factors, const float* gamma, int rows, int width, T* rounded,
    float* parts
) {
    const Row weights = read_row(gamma, width);
    Row of_weight = {}, of_bias = {};
    const int end = min(rows, (int)(blockIdx.x + 1) * SLOPE_ROWS);
    for (int index = blockIdx.x * SLOPE_ROWS; index < end; index++) {
        const long long start = (long long)index * width;
        Row slopes = read_row(gradient + start, width);
        const Row normal = read_row(values + start, width);
        float sum = 0.0f, along = 0.0f;
#pragma unroll
        for (int place = 0; place < ROW_VALUES; place++) {
            float& slope = slopes.at(place);
            const float value = normal.at(place);
            of_weight.at(place) += slope * value;
            of_bias.at(place) += slope;
            slope *= weights.at(place);
            sum += slope;
            along += slope * value;
        }
        block_sums(sum, along);
        const float mean = sum / width, share = along / width;
#pragma unroll
        for (int place = 0; place < ROW_VALUES; place++) {
            float& slope = slopes.at(place);
            slope = factors[index] * (slope - mean - normal.at(place) * share);
        }
        write_row(gradient + start, width, slopes);
        if (rounded) {
            write_row(rounded + start, width, slopes);
        }
    }
    write_row(parts + (long long)blockIdx.x * width, width, of_weight);
    write_row(parts + (long long)(gridDim.x + blockIdx.x) * width, width, of_bias);
}

// Turns ∂loss/∂out into ∂loss/∂x in place, and writes it to `rounded`, too, unless this is null. `parts` becomes the
// sums over the rows of each block of what makes the gradients of γ, and below them those of β.
extern "C" __global__ void normalise_backward(
    float* gradient, const float* values, const float* factors, const float* gamma, int rows, int width,
    float* rounded, float* parts
) {
    normalise_slope(gradient, values, factors, gamma, rows, width, rounded, parts);
}

extern "C" __global__ void normalise_backward_bfloat16(
    float* gradient, const float* values, const float* factors, const float* gamma, int rows, int width,
    bfloat16* rounded, float* parts
) {
    normalise_slope(gradient, values, factors, gamma, rows, width, rounded, parts);
}
