// A driver of one graphics card that is the processor: what the engine calls of CUDA's driver, by its documentation.
// The kernels are those of the engine, compiled for the processor (twin.h); `pretend.py` puts them before this text.
// Machine code of a card is taken and not looked at.

namespace pretend {

const int SUCCESS = 0, OUT_OF_MEMORY = 2, INVALID_DEVICE = 101, NOT_FOUND = 500;
static thread_local void* current;

}  // namespace pretend

extern "C" {

int cuInit(unsigned) {
    return pretend::SUCCESS;
}

int cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return ordinal == 0 ? pretend::SUCCESS : pretend::INVALID_DEVICE;
}

int cuDeviceGetName(char* name, int length, int) {
    snprintf(name, length, "a processor that pretends");
    return pretend::SUCCESS;
}

// 75 and 76 are the compute capability, here that of the compile check: 8.0. Everything else is 0.
int cuDeviceGetAttribute(int* value, int attribute, int) {
    *value = attribute == 75 ? 8 : 0;
    return pretend::SUCCESS;
}

int cuDevicePrimaryCtxRetain(void** context, int) {
    static int only;
    *context = &only;
    return pretend::SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int) {
    return pretend::SUCCESS;
}

int cuCtxSetCurrent(void* context) {
    pretend::current = context;
    return pretend::SUCCESS;
}

int cuCtxGetCurrent(void** context) {
    *context = pretend::current;
    return pretend::SUCCESS;
}

int cuMemGetInfo_v2(size_t* free, size_t* total) {
    *free = *total = (size_t)1 << 30;
    return pretend::SUCCESS;
}

int cuMemAlloc_v2(unsigned long long* address, size_t bytes) {
    void* memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (!memory || !pretend::current) {
        return pretend::OUT_OF_MEMORY;
    }
    // Bits of no number: what is read before it is written shows.
    memset(memory, 0xff, bytes);
    *address = (unsigned long long)memory;
    return pretend::SUCCESS;
}

int cuMemFree_v2(unsigned long long address) {
    free((void*)address);
    return pretend::SUCCESS;
}

int cuMemcpyHtoD_v2(unsigned long long address, const void* values, size_t bytes) {
    memcpy((void*)address, values, bytes);
    return pretend::SUCCESS;
}

int cuMemcpyDtoH_v2(void* values, unsigned long long address, size_t bytes) {
    memcpy(values, (const void*)address, bytes);
    return pretend::SUCCESS;
}

int cuMemsetD8Async(unsigned long long address, unsigned char value, size_t bytes, void*) {
    memset((void*)address, value, bytes);
    return pretend::SUCCESS;
}

// A card's machine code is an ELF file.
int cuModuleLoadData(void** module, const void* image) {
    *module = const_cast<void*>(image);
    return memcmp(image, "\x7f"
                         "ELF",
                  4) == 0
        ? pretend::SUCCESS
        : 200;
}

int cuModuleUnload(void*) {
    return pretend::SUCCESS;
}

int cuModuleGetFunction(void** function, void*, const char* name) {
    for (const Launcher& launcher : LAUNCHERS) {
        if (strcmp(launcher.name, name) == 0) {
            *function = (void*)launcher.launch;
            return pretend::SUCCESS;
        }
    }
    return pretend::NOT_FOUND;
}

int cuLaunchKernel(
    void* function, unsigned grid_x, unsigned grid_y, unsigned, unsigned block_x, unsigned, unsigned, unsigned, void*,
    void** arguments, void**
) {
    const unsigned grid[2] = {grid_x, grid_y};
    ((void (*)(const unsigned*, unsigned, void**))function)(grid, block_x, arguments);
    return pretend::SUCCESS;
}

int cuGetErrorName(int, const char** name) {
    *name = "an error of the driver that pretends";
    return pretend::SUCCESS;
}

int cuGetErrorString(int, const char** text) {
    *text = "an error of the driver that pretends";
    return pretend::SUCCESS;
}
}
