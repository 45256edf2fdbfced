// What is done value by value, four of them by a thread: GELU with the exact error function, and rounding to bfloat16.

// Φ(x), the distribution function of the standard normal.
__device__ inline float normal(float x) {
    return 0.5f * erff(x * 0.70710678118654752f) + 0.5f;
}

template <typename T>
__device__ inline void gelu(const T* expanded, long long count, T* activated) {
    const long long index = 4 * global_place();
    Four values = read_four(expanded, index, count);
    for (int place = 0; place < 4; place++) {
        values.at[place] *= normal(values.at[place]);
    }
    write_four(activated, index, count, values);
}

// activated = x · Φ(x), x being `expanded`.
extern "C" __global__ void gelu_forward(const float* expanded, long long count, float* activated) {
    gelu(expanded, count, activated);
}

extern "C" __global__ void gelu_forward_bfloat16(const bfloat16* expanded, long long count, bfloat16* activated) {
    gelu(expanded, count, activated);
}

template <typename T>
__device__ inline void gelu_slope(const T* expanded, long long count, T* gradient, T* activated) {
    const long long index = 4 * global_place();
    Four values = read_four(expanded, index, count), slopes = read_four(gradient, index, count);
    for (int place = 0; place < 4; place++) {
        const float x = values.at[place], share = normal(x);
        values.at[place] = x * share;
        slopes.at[place] *= x * 0.39894228040143268f * expf(-0.5f * x * x) + share;
    }
    write_four(activated, index, count, values);
    write_four(gradient, index, count, slopes);
}

// Multiplies `gradient` by the slope of GELU at `expanded`, and writes GELU itself to `activated`.
extern "C" __global__ void gelu_backward(const float* expanded, long long count, float* gradient, float* activated) {
    gelu_slope(expanded, count, gradient, activated);
}

extern "C" __global__ void gelu_backward_bfloat16(
    const bfloat16* expanded, long long count, bfloat16* gradient, bfloat16* activated
) {
    gelu_slope(expanded, count, gradient, activated);
}

// Rounds `values` to bfloat16.
extern "C" __global__ void round_to_bfloat16(const float* values, long long count, bfloat16* out) {
    const long long index = 4 * global_place();
    write_four(out, index, count, read_four(values, index, count));
}
