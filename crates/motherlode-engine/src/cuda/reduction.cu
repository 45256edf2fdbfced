// Sums of columns and of squares, in two steps: parts of fixed size, then their sum in order.

// Rows of a part of a column sum; a block has 128 columns of one part.
#define PART_ROWS 256
// Values of a part of a sum of squares; a block has one.
#define PART_VALUES 4096

template <typename T>
__device__ inline void column_sums(const T* values, int rows, int columns, float* parts) {
    __shared__ Four sums[8][32];
    const int lane = threadIdx.x % 32, group = threadIdx.x / 32, column = 4 * (blockIdx.x * 32 + lane);
    const int first = blockIdx.y * PART_ROWS, end = min(rows, first + PART_ROWS);
    Four sum = {};
#pragma unroll 4
    for (int row = first + group; row < end; row += 8) {
        const Four four = read_four(values + (long long)row * columns, column, columns);
        for (int place = 0; place < 4; place++) {
            sum.at[place] += four.at[place];
        }
    }
    sums[group][lane] = sum;
    __syncthreads();
    if (group == 0) {
        for (int other = 1; other < 8; other++) {
            for (int place = 0; place < 4; place++) {
                sum.at[place] += sums[other][lane].at[place];
            }
        }
        write_four(parts + (long long)blockIdx.y * columns, column, columns, sum);
    }
}

// parts (⌈rows / PART_ROWS⌉ × columns): sums of the columns of `values`.
extern "C" __global__ void column_parts(const float* values, int rows, int columns, float* parts) {
    column_sums(values, rows, columns, parts);
}

extern "C" __global__ void column_parts_bfloat16(const bfloat16* values, int rows, int columns, float* parts) {
    column_sums(values, rows, columns, parts);
}

// Adds the rows of `parts` to `target`.
extern "C" __global__ void add_parts(const float* parts, int rows, int columns, float* target) {
    const long long column = global_place();
    if (column >= columns) {
        return;
    }
    float sum = 0.0f;
    for (int row = 0; row < rows; row++) {
        sum += parts[(long long)row * columns + column];
    }
    target[column] += sum;
}

// parts (⌈count / PART_VALUES⌉): sums of squares.
extern "C" __global__ void square_parts(const float* values, long long count, double* parts) {
    __shared__ double sums[THREADS];
    const long long first = (long long)blockIdx.x * PART_VALUES;
    double sum = 0.0;
    for (int place = threadIdx.x; place < PART_VALUES && first + place < count; place += THREADS) {
        sum += (double)values[first + place] * values[first + place];
    }
    sums[threadIdx.x] = sum;
    for (int distance = THREADS / 2; distance > 0; distance /= 2) {
        __syncthreads();
        if (threadIdx.x < distance) {
            sums[threadIdx.x] += sums[threadIdx.x + distance];
        }
    }
    if (threadIdx.x == 0) {
        parts[blockIdx.x] = sums[0];
    }
}
