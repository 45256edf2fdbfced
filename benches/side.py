"""Runs two or more programs in turns and compares their medians.

A *side* is a process that loads what it needs, prints one line of JSON, and then answers every line on its standard
input with one measurement, again a line of JSON with at least `seconds`. Sides stay loaded while the others measure,
unless memory is too short for that.
"""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
WORK = ROOT / "target" / "benches"


def serve(ready, repeat):
    """The peer's part: says that it is ready, then measures whenever it is asked."""
    print(json.dumps(ready), flush=True)
    for _ in sys.stdin:
        print(json.dumps(repeat()), flush=True)


def environment(threads, blas):
    """The environment of every side: so many threads, and OpenBLAS's kernels by name or as it chooses itself."""
    variables = dict(os.environ)
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        variables.pop(name, None)
    if blas:
        variables["OPENBLAS_CORETYPE"] = blas
    for name in ("RAYON", "OMP", "MKL", "OPENBLAS"):
        variables[f"{name}_NUM_THREADS"] = str(threads)
    return variables | {"TOKENIZERS_PARALLELISM": "true", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}


def widest_blas():
    """The OpenBLAS kernels of this processor's widest vectors.

    The OpenBLAS inside the faiss-cpu wheels does not know newer processors and falls back to kernels for SSE3.
    """
    flags = Path("/proc/cpuinfo").read_text()
    return "SkylakeX" if "avx512f" in flags else "Haswell" if "avx2" in flags else None


def ours(example):
    """The command of a Rust side, built by `benches/run`."""
    return [str(TARGET / "release" / "examples" / example)]


def theirs(file, *arguments):
    """The command of a peer, which is `file` itself."""
    return [sys.executable, file, "--peer", *arguments]


class Side:
    """A running side."""

    def __init__(self, name, command, threads, blas=None):
        self.name = name
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([str(part) for part in command], env=environment(threads, blas), **pipes)
        self.ready = self._answer()
        self.answers = []

    def _answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended without an answer, with status {self.process.wait()}")
        return json.loads(line)

    def repeat(self):
        """One measurement, with the process's CPU seconds, and of its own (not mapped) memory the growth and the most in bytes."""
        before, memory = self._cpu_seconds(), PeakMemory(self.process.pid)
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        answer = self._answer()
        answer |= {"cpu_seconds": self._cpu_seconds() - before, "memory": memory.growth(), "most_memory": memory.most}
        self.answers.append(answer)

    def _cpu_seconds(self):
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(map(int, stat[11:13])) / os.sysconf("SC_CLK_TCK")

    def median(self, key="seconds"):
        return statistics.median(answer[key] for answer in self.answers)

    def close(self):
        self.process.stdin.close()
        if self.process.wait() != 0:
            sys.exit(f"{self.name} failed with status {self.process.returncode}")


class PeakMemory:
    """Watches the anonymous memory of a process."""

    def __init__(self, process):
        self.process, self.done = process, threading.Event()
        self.first = self.most = self._now()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def _now(self):
        for line in Path(f"/proc/{self.process}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
        sys.exit("expected a Linux whose /proc/PID/status has RssAnon")

    def _watch(self):
        while not self.done.wait(0.02):
            self.most = max(self.most, self._now())

    def growth(self):
        self.done.set()
        self.thread.join()
        return self.most - self.first


def interleave(sides, repeats):
    """Lets each side warm up once, then measures them in turns."""
    for side in sides:
        side.repeat()
        side.answers.clear()
    for number in range(repeats):
        # Every other round backwards, so that no side always follows the same one.
        for side in sides if number % 2 == 0 else reversed(sides):
            side.repeat()
        seconds = "  ".join(f"{side.name} {side.answers[-1]['seconds']:.3f} s" for side in sides)
        print(f"round {number + 1}: {seconds}", flush=True)
    for side in sides:
        side.close()
        spread = [answer["seconds"] for answer in side.answers]
        print(
            f"{side.name}: median {side.median():.3f} s ({min(spread):.3f} to {max(spread):.3f}), "
            f"CPU {side.median('cpu_seconds'):.2f} s, memory grew by {side.median('memory') / 1e6:.0f} MB",
            flush=True,
        )


def measure(starts, repeats, together=True):
    """Starts sides and measures them in turns; or, where memory is short, each from start to end before the next."""
    if together:
        sides = [start() for start in starts]
        interleave(sides, repeats)
        return sides
    return [one for start in starts for one in measure([start], repeats)]


def line(bench, peer, ours, theirs, unit, threads, lower_is_better=False, **more):
    """Prints the one line of JSON for a peer."""
    ratio = theirs / ours if lower_is_better else ours / theirs
    rounded = {key: float(f"{value:.4g}") for key, value in {"ratio": ratio, "ours": ours, "theirs": theirs}.items()}
    more = {key: float(f"{value:.3g}") for key, value in more.items()}
    print(json.dumps({"bench": bench, "peer": peer} | rounded | {"unit": unit, "threads": threads} | more), flush=True)


def limit_share(one):
    """The side's rate of floating-point operations as a share of the processor's, which it measured before."""
    return one.ready["flop"] / one.median() / one.ready["peak"]
