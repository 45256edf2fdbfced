"""Compiles the CUDA kernels of the engine with NVRTC, as the engine does at its start; no graphics card is needed.

Usage: pip install nvidia-cuda-nvrtc-cu12==12.9.86, then python tests/cuda/compile.py. Prints the registers and shared
memory of every kernel. Fails with NVRTC's messages; warnings fail, too.
"""

import ctypes
import re
import sys
from importlib.util import find_spec
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "crates/motherlode-engine/src/cuda"
ARCHITECTURES = ["sm_80", "sm_90a"]
USED = re.compile(r"entry function '(\w+)'.*?(\d+) bytes spill stores.*?Used (\d+) registers([^\n]*)", re.S)


def folder():
    """Where NVRTC's package has its library."""
    return Path(next(iter(find_spec("nvidia.cuda_nvrtc").submodule_search_locations))) / "lib"


def sources():
    """The one text that is compiled: what all share, then every file; the order is that of `cuda::kernels::SOURCE`."""
    files = [SOURCES / "common.cuh", *sorted(SOURCES.glob("*.cu"))]
    return "".join(f'#line 1 "{file.name}"\n{file.read_text()}' for file in files)


def text(nvrtc, program, kind):
    """The log or the binary of a program."""
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{kind}Size")(program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{kind}")(program, buffer)
    return buffer.raw[: size.value]


def compile_for(nvrtc, source, architecture):
    """NVRTC's messages and the size of the binary; ends the process if there are errors or warnings."""
    program = ctypes.c_void_p()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None)
    options = [f"--gpu-architecture={architecture}", "--std=c++17", "--ptxas-options=-v"]
    failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * 3)(*(o.encode() for o in options)))
    log = text(nvrtc, program, "ProgramLog").rstrip(b"\0").decode()
    if failed or "warning" in log:
        sys.exit(f"{architecture}:\n{log}")
    return log, len(text(nvrtc, program, "CUBIN"))


def main():
    nvrtc, source = ctypes.CDLL(str(next(folder().glob("libnvrtc.so.*")))), sources()
    kernels = re.findall(r"__global__ void (\w+)", source)
    for architecture in ARCHITECTURES:
        log, size = compile_for(nvrtc, source, architecture)
        used = USED.findall(log)
        for name, spilled, registers, rest in used:
            shared = re.search(r"(\d+) bytes smem", rest)
            memory = f"{shared[1] if shared else 0} bytes shared, {spilled} spilled"
            print(f"{architecture} {name}: {registers} registers, {memory}")
        if sorted(name for name, *_ in used) != sorted(kernels):
            sys.exit(f"{architecture}: not every kernel was compiled")
        print(f"{architecture}: {len(kernels)} kernels, {size} bytes")


if __name__ == "__main__":
    main()
