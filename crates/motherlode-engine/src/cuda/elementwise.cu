// What is done value by value: biases, GELU with the exact error function, rounding to bfloat16.

// Adds `bias` to every row of `columns` values.
extern "C" __global__ void add_bias(float* values, const float* bias, int columns, long long count) {
    const long long index = global_place();
    if (index < count) {
        values[index] += bias[index % columns];
    }
}

// Φ(x), the distribution function of the standard normal.
__device__ inline float normal(float x) {
    return 0.5f * erff(x * 0.70710678118654752f) + 0.5f;
}

// Adds `bias` to every row of `expanded`, and writes x · Φ(x) of it to `activated`.
extern "C" __global__ void gelu_forward(
    float* expanded, const float* bias, int columns, long long count, float* activated
) {
    const long long index = global_place();
    if (index < count) {
        const float x = expanded[index] + bias[index % columns];
        expanded[index] = x;
        activated[index] = x * normal(x);
    }
}

// Multiplies `gradient` by the slope of GELU at `expanded`, and writes GELU itself to `activated`.
extern "C" __global__ void gelu_backward(const float* expanded, long long count, float* gradient, float* activated) {
    const long long index = global_place();
    if (index < count) {
        const float x = expanded[index], share = normal(x);
        activated[index] = x * share;
        gradient[index] *= x * 0.39894228040143268f * expf(-0.5f * x * x) + share;
    }
}

// The bits of the bfloat16 nearest to `value`, the even one of two; what is no number stays none.
__device__ inline unsigned short bfloat16_bits(float value) {
    const unsigned int bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return (unsigned short)((bits >> 16) | 0x40u);
    }
    return (unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// Rounds `values` to bfloat16.
extern "C" __global__ void round_to_bfloat16(const float* values, long long count, unsigned short* out) {
    const long long index = global_place();
    if (index < count) {
        out[index] = bfloat16_bits(values[index]);
    }
}
