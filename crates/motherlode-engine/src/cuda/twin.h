// Runs CUDA kernels on a processor, for tests: the threads of a block are fibers that take turns, its barriers wait
// for all of them, and blocks follow one another. What a kernel computes is the same as on a graphics card but for
// the functions of the C library and for multiplications that a card fuses with additions.

#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <utility>
#include <vector>

#include <ucontext.h>

#define __global__
#define __device__
#define __launch_bounds__(threads, blocks)
#define __align__(bytes) __attribute__((aligned(bytes)))
// One block runs at a time on a thread of the tests.
#define __shared__ static thread_local
#define threadIdx (twin::running->thread)

using std::min;

struct Dimensions {
    unsigned x, y, z;
};

static thread_local Dimensions blockIdx, blockDim, gridDim;

struct __align__(16) float4 {
    float x, y, z, w;
};

struct __align__(8) uint2 {
    unsigned x, y;
};

struct __align__(16) uint4 {
    unsigned x, y, z, w;
};

static inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}

static inline uint2 make_uint2(unsigned x, unsigned y) {
    return {x, y};
}

static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}

static inline unsigned __float_as_uint(float value) {
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float __uint_as_float(unsigned bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

namespace twin {

const size_t STACK = 1 << 16, WARP = 32;

// Counts those who have come to it; the last one opens it for all.
struct Barrier {
    unsigned arrived = 0, opened = 0;
};

struct Fiber {
    Dimensions thread;
    // Whether it has begun its first block, and has ended its last one.
    bool entered = false, finished = false;
    // What it offers to its warp.
    unsigned offer[6] = {};
    ucontext_t start;
    jmp_buf place;
    std::vector<char> stack = std::vector<char>(STACK);
};

static thread_local std::vector<Fiber> fibers;
static thread_local Fiber* running;
static thread_local jmp_buf scheduler;
static thread_local std::function<void()> kernel;
static thread_local Barrier of_block;
static thread_local std::vector<Barrier> of_warps;
// Whether a barrier was opened or a fiber finished in this round.
static thread_local bool moved;

// Lets the other fibers run. Jumps between stacks, which the C library allows where it is not told to forbid it.
static void pause() {
    if (_setjmp(running->place) == 0) {
        _longjmp(scheduler, 1);
    }
}

static void wait(Barrier& barrier, unsigned count) {
    const unsigned before = barrier.opened;
    if (++barrier.arrived == count) {
        barrier.arrived = 0;
        barrier.opened++;
        moved = true;
        return;
    }
    while (barrier.opened == before) {
        pause();
    }
}

static void wait_for_warp() {
    const unsigned first = running->thread.x / WARP * WARP;
    wait(of_warps[first / WARP], min((unsigned)WARP, blockDim.x - first));
}

// Runs its thread of one block after the other.
static void enter() {
    for (;;) {
        kernel();
        running->finished = true;
        moved = true;
        pause();
    }
}

// Lets a fiber run until it waits or ends.
static void resume(Fiber& fiber) {
    running = &fiber;
    if (_setjmp(scheduler) != 0) {
        return;
    }
    if (fiber.entered) {
        _longjmp(fiber.place, 1);
    }
    fiber.entered = true;
    setcontext(&fiber.start);
}

static void run_block() {
    of_block = Barrier();
    of_warps.assign(blockDim.x / WARP + 1, Barrier());
    for (unsigned index = 0; index < blockDim.x; index++) {
        fibers[index].finished = false;
    }
    do {
        moved = false;
        for (unsigned index = 0; index < blockDim.x; index++) {
            if (!fibers[index].finished) {
                resume(fibers[index]);
            }
        }
    } while (moved);
    for (unsigned index = 0; index < blockDim.x; index++) {
        if (!fibers[index].finished) {
            fprintf(stderr, "thread %u of block %u waits at a barrier that others never reach\n", index, blockIdx.x);
            abort();
        }
    }
}

static void make_fibers(unsigned count) {
    fibers = std::vector<Fiber>(count);
    for (unsigned index = 0; index < count; index++) {
        Fiber& fiber = fibers[index];
        fiber.thread = {index, 0, 0};
        getcontext(&fiber.start);
        fiber.start.uc_stack.ss_sp = fiber.stack.data();
        fiber.start.uc_stack.ss_size = STACK;
        makecontext(&fiber.start, enter, 0);
    }
}

static void run(const unsigned* grid, unsigned threads, std::function<void()> call) {
    gridDim = {grid[0], grid[1], 1};
    blockDim = {threads, 1, 1};
    kernel = call;
    if (fibers.size() < threads) {
        make_fibers(threads);
    }
    for (unsigned y = 0; y < grid[1]; y++) {
        for (unsigned x = 0; x < grid[0]; x++) {
            blockIdx = {x, y, 0};
            run_block();
        }
    }
}

// Calls a kernel with arguments that are given by their addresses, as the driver of a card does.
template <typename... Types, size_t... Places>
void call(void (*function)(Types...), void** arguments, std::index_sequence<Places...>) {
    function(*static_cast<Types*>(arguments[Places])...);
}

template <typename... Types>
void launch(void (*function)(Types...), const unsigned* grid, unsigned threads, void** arguments) {
    run(grid, threads, [=] { call(function, arguments, std::index_sequence_for<Types...>()); });
}

}  // namespace twin

// What the tests call to launch a kernel.
#define LAUNCHER(name)                                                                                   \
    extern "C" void launch_##name(const unsigned* grid, unsigned threads, void** arguments) {            \
        twin::launch(name, grid, threads, arguments);                                                    \
    }

static inline void __syncthreads() {
    twin::wait(twin::of_block, blockDim.x);
}

static inline int atomicAdd(int* address, int value) {
    const int before = *address;
    *address += value;
    return before;
}

static inline float __shfl_xor_sync(unsigned, float value, int distance) {
    twin::running->offer[0] = __float_as_uint(value);
    twin::wait_for_warp();
    const unsigned other = twin::fibers[threadIdx.x ^ (unsigned)distance].offer[0];
    twin::wait_for_warp();
    return __uint_as_float(other);
}

namespace twin {

// The bits of the bfloat16 nearest to `value`, the even one of two; what is no number stays none.
static unsigned nearest(float value) {
    const unsigned bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return bits >> 16 | 0x40u;
    }
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

// What a thread of this warp offers: one of the two bfloat16 of a register.
static float offered(unsigned lane, unsigned place, unsigned half) {
    const unsigned first = running->thread.x / WARP * WARP;
    return __uint_as_float(fibers[first + lane].offer[place] >> 16 * half << 16);
}

// The instruction mma.m16n8k16 for bfloat16 ("Matrix fragments for mma.m16n8k16", PTX ISA).
static void add_product(const unsigned left[4], unsigned upper, unsigned lower, float sums[4]) {
    const unsigned lane = running->thread.x % WARP, offers[6] = {left[0], left[1], left[2], left[3], upper, lower};
    std::copy(offers, offers + 6, running->offer);
    wait_for_warp();
    for (unsigned index = 0; index < 4; index++) {
        const unsigned row = lane / 4 + index / 2 * 8, column = lane % 4 * 2 + index % 2;
        for (unsigned inner = 0; inner < 16; inner++) {
            const unsigned holder = inner % 8 / 2;
            const float of_left = offered(row % 8 * 4 + holder, row / 8 + inner / 8 * 2, inner % 2);
            sums[index] += of_left * offered(column * 4 + holder, 4 + inner / 8, inner % 2);
        }
    }
    wait_for_warp();
}

}  // namespace twin
