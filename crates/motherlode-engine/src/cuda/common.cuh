// What all kernels share. Every sum runs in an order that depends on nothing but the sizes, and no number on an atomic
// operation. The same text is compiled by NVRTC for a graphics card and, for the tests, by a C++ compiler
// (twin.h), which does not define __CUDA_ARCH__.
//
// Kernels whose names end in _bfloat16 do what their namesakes do, and read and write activations in bfloat16.

// Threads of a block, in kernels that do not say otherwise.
#define THREADS 256

// The sum of `value` over a warp, for all of its threads.
__device__ inline float warp_sum(float value) {
    for (int distance = 16; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, distance);
    }
    return value;
}

// The sums of two values over a block of whole warps, for all of its threads.
__device__ inline void block_sums(float& first, float& second) {
    __shared__ float sums[2][32];
    const int lane = threadIdx.x % 32;
    first = warp_sum(first);
    second = warp_sum(second);
    __syncthreads();
    if (lane == 0) {
        sums[0][threadIdx.x / 32] = first;
        sums[1][threadIdx.x / 32] = second;
    }
    __syncthreads();
    const bool inside = lane < (int)blockDim.x / 32;
    first = warp_sum(inside ? sums[0][lane] : 0.0f);
    second = warp_sum(inside ? sums[1][lane] : 0.0f);
}

// The sum of `value` over a block of whole warps, for all of its threads.
__device__ inline float block_sum(float value) {
    float nothing = 0.0f;
    block_sums(value, nothing);
    return value;
}

// The place of this thread among all threads of a launch.
__device__ inline long long global_place() {
    return (long long)blockIdx.x * blockDim.x + threadIdx.x;
}

struct bfloat16 {
    unsigned short bits;
};

// Two numbers, each the bfloat16 nearest to its argument, the even one of two; the first one has the lower bits. What
// is no number stays none.
__device__ inline unsigned int nearest_pair(float first, float second) {
#ifdef __CUDA_ARCH__
    unsigned int pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
#else
    return twin::nearest(first) | twin::nearest(second) << 16;
#endif
}

__device__ inline float single(float value) {
    return value;
}

__device__ inline float single(bfloat16 value) {
    return __uint_as_float((unsigned int)value.bits << 16);
}

__device__ inline void assign(float& out, float value) {
    out = value;
}

__device__ inline void assign(bfloat16& out, float value) {
    out.bits = (unsigned short)nearest_pair(value, 0.0f);
}

// Neighbours, which one thread reads and writes at once.
struct Four {
    float at[4];
};

__device__ inline Four whole_four(const float* values) {
    const float4 four = *(const float4*)values;
    return {{four.x, four.y, four.z, four.w}};
}

__device__ inline Four whole_four(const bfloat16* values) {
    const uint2 pairs = *(const uint2*)values;
    return {{
        __uint_as_float(pairs.x << 16),
        __uint_as_float(pairs.x & 0xffff0000u),
        __uint_as_float(pairs.y << 16),
        __uint_as_float(pairs.y & 0xffff0000u),
    }};
}

__device__ inline void write_whole_four(float* values, const Four& four) {
    *(float4*)values = make_float4(four.at[0], four.at[1], four.at[2], four.at[3]);
}

__device__ inline void write_whole_four(bfloat16* values, const Four& four) {
    *(uint2*)values = make_uint2(nearest_pair(four.at[0], four.at[1]), nearest_pair(four.at[2], four.at[3]));
}

// Whether there are four values from `index` on that can be read and written at once.
template <typename T>
__device__ inline bool is_whole_four(const T* values, long long index, long long count) {
    return index + 4 <= count && (unsigned long long)(values + index) % (4 * sizeof(T)) == 0;
}

// The values from `index` on; zeros beyond `count`.
template <typename T>
__device__ inline Four read_four(const T* values, long long index, long long count) {
    if (is_whole_four(values, index, count)) {
        return whole_four(values + index);
    }
    Four four;
    for (int place = 0; place < 4; place++) {
        four.at[place] = index + place < count ? single(values[index + place]) : 0.0f;
    }
    return four;
}

// Writes those of the values from `index` on that are not beyond `count`.
template <typename T>
__device__ inline void write_four(T* values, long long index, long long count, const Four& four) {
    if (is_whole_four(values, index, count)) {
        write_whole_four(values + index, four);
        return;
    }
    for (int place = 0; place < 4 && index + place < count; place++) {
        assign(values[index + place], four.at[place]);
    }
}
