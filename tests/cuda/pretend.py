"""Runs a command on a machine that seems to have a graphics card, so that the engine's calls of the driver, NVRTC and
cuBLASLt are tested where there is none: NVRTC is the real one, the other two are driver.cpp and cublaslt.cpp.

Usage: pip install nvidia-cuda-nvrtc-cu12==12.9.86, then python tests/cuda/pretend.py COMMAND.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import compile as kernels

HERE = Path(__file__).parent


def driver():
    """The text of the driver: the twin, the kernels, their launchers, and the functions of the driver."""
    text = kernels.sources()
    names = re.findall(r"__global__ void (\w+)", text)
    launchers = "".join(f"LAUNCHER({name})\n" for name in names)
    table = ", ".join(f'{{"{name}", launch_{name}}}' for name in names)
    kind = "struct Launcher { const char* name; void (*launch)(const unsigned*, unsigned, void**); };\n"
    twin = (kernels.SOURCES / "twin.h").read_text()
    table = f"static const Launcher LAUNCHERS[] = {{{table}}};\n"
    return "\n".join([twin, text, launchers, kind, table, (HERE / "driver.cpp").read_text()])


def build(folder, name, text):
    """Compiles a library."""
    source = folder / f"{name}.cpp"
    source.write_text(text)
    options = ["-std=c++17", "-O2", "-U_FORTIFY_SOURCE", "-Wno-unknown-pragmas", "-fPIC", "-shared"]
    compiler = os.environ.get("CXX", "c++")
    subprocess.run([compiler, *options, "-o", folder / f"{name}.so", source], check=True)


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder, "libcuda", driver())
        build(folder, "libcublasLt", (HERE / "cublaslt.cpp").read_text())
        libraries = [name, str(kernels.folder()), os.environ.get("LD_LIBRARY_PATH", "")]
        environment = os.environ | {"LD_LIBRARY_PATH": ":".join(filter(None, libraries))}
        sys.exit(subprocess.run(sys.argv[1:], env=environment).returncode)


if __name__ == "__main__":
    main()
