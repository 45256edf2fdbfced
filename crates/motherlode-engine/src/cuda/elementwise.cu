// What is done value by value, four of them by a thread: GELU by the normal distribution, and rounding to bfloat16.

// Φ(x) and its slope φ(x), the distribution function and the density of the standard normal; both to 2e-7, by formula
// 7.1.26 of Abramowitz and Stegun, whose exponential is that of the density.
struct Normal {
    float share, density;

    __device__ explicit Normal(float x) {
        const float distance = fabsf(x) * 0.70710678118654752f, inverse = 1.0f / (1.0f + 0.3275911f * distance);
        const float power = exp2f(x * x * -0.72134752044448170f);
        float tail = 1.061405429f * inverse - 1.453152027f;
        tail = tail * inverse + 1.421413741f;
        tail = tail * inverse - 0.284496736f;
        tail = (tail * inverse + 0.254829592f) * inverse * power * 0.5f;
        share = x < 0.0f ? tail : 1.0f - tail;
        density = power * 0.39894228040143268f;
    }
};

template <typename T>
__device__ inline void gelu(const T* expanded, long long count, T* activated) {
    const long long index = 4 * global_place();
    Four values = read_four(expanded, index, count);
    for (int place = 0; place < 4; place++) {
        values.at[place] *= Normal(values.at[place]).share;
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
        const float x = values.at[place];
        const Normal normal(x);
        values.at[place] = x * normal.share;
        slopes.at[place] *= x * normal.density + normal.share;
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
