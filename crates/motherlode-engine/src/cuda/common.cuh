// What all kernels share. Every sum runs in an order that depends on nothing but the sizes, and no result on an
// atomic operation. The same text is compiled by NVRTC for a graphics card and, for the tests, by a C++ compiler
// (twin.h).

// Threads of a block, in kernels that do not say otherwise.
#define THREADS 256

// The sum of `value` over a warp, for all of its threads.
__device__ inline float warp_sum(float value) {
    for (int distance = 16; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(0xffffffffu, value, distance);
    }
    return value;
}

// The sum of `value` over a block of whole warps, for all of its threads.
__device__ inline float block_sum(float value) {
    __shared__ float sums[32];
    const int lane = threadIdx.x % 32;
    value = warp_sum(value);
    __syncthreads();
    if (lane == 0) {
        sums[threadIdx.x / 32] = value;
    }
    __syncthreads();
    return warp_sum(lane < (int)blockDim.x / 32 ? sums[lane] : 0.0f);
}

// The place of this thread among all threads of a launch.
__device__ inline long long global_place() {
    return (long long)blockIdx.x * blockDim.x + threadIdx.x;
}
