"""Two models at half a GPU each: how many requests and which latency alone, by time-slicing, and by MPS, on one card.

``python -m benchmarks.gpu`` runs each model as a process that answers one request after the other, as busy as it can
be: alone, then two at a time as time-slicing has them (two processes, nothing else: what the device plugin makes of
`fraction: 0.5` on one card), then two as clients of MPS with the limits that the device plugin sets for two parts. It
prints requests a second and P50 and P99 of each, and what of them is left beside a neighbour.

It needs an NVIDIA GPU that nobody else uses, its driver, and PyTorch with CUDA; for MPS also nvidia-cuda-mps-control,
which comes with the driver. The control daemon is one of its own, in a folder of its own: no compute mode, no MIG and
no other setting of the card is changed. ``--workload cpu`` takes the processor in the GPU's place, to try the program
itself; its figures say nothing of GPUs.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.serving.load import percentile

CONTROL: Final = "nvidia-cuda-mps-control"
#: Parts that the card is divided in.
PARTS: Final = 2
#: Seconds before both measure, in which CUDA starts and the clocks rise.
WARM_UP: Final = 5.0


@dataclass(frozen=True)
class Figures:
    """What one model did."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


# ---------------------------------------------------------------- the model


def workload(name: str, size: int) -> Callable[[], None]:
    """One request: four layers of a perceptron in half precision, and their answer is waited for."""
    if name == "cpu":
        import numpy

        weights = numpy.full((size // 8, size // 8), 1e-3, dtype=numpy.float32)

        def on_processor() -> None:
            answer = weights
            for _ in range(4):
                answer = numpy.maximum(answer @ weights, 0)

        return on_processor
    torch: Any = importlib.import_module("torch")  # not a dependency: the machine with the card brings it
    layers = [torch.randn(size, size, device="cuda", dtype=torch.float16) for _ in range(4)]
    batch = torch.randn(32, size, device="cuda", dtype=torch.float16)

    def on_gpu() -> None:
        with torch.inference_mode():
            answer = batch
            for layer in layers:
                answer = torch.relu(answer @ layer)
            answer.sum().item()

    return on_gpu


def serve(name: str, size: int, start: float, seconds: float) -> Figures:
    """Answer one request after the other, and measure from *start* on, a moment of time.time()."""
    request = workload(name, size)
    while time.time() < start:
        request()
    taken: list[float] = []
    began = time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        request()
        taken.append(time.perf_counter() - now)
    return Figures(
        len(taken), time.perf_counter() - began, 1000 * statistics.median(taken), 1000 * percentile(taken, 0.99)
    )


# ---------------------------------------------------------------- the settings


def together(count: int, arguments: argparse.Namespace, environment: Mapping[str, str]) -> list[Figures]:
    """So many models at once, each a process of its own."""
    start = time.time() + WARM_UP * (0.2 if arguments.workload == "cpu" else 1)
    command = [sys.executable, "-m", "benchmarks.gpu", "--serve", str(start)]
    command += ["--workload", arguments.workload, "--size", str(arguments.size), "--seconds", str(arguments.seconds)]
    models = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
        for _ in range(count)
    ]
    try:
        answers = [model.communicate(timeout=arguments.seconds + 120)[0] for model in models]
    finally:
        for model in models:
            model.kill()
    if any(model.returncode for model in models):
        raise SystemExit("a model ended before its time: its words are above")
    return [Figures(**json.loads(answer)) for answer in answers]


@contextmanager
def mps(memory_mib: int) -> Iterator[dict[str, str]]:
    """A control daemon of our own, and what a client needs to come to it.

    The limits are those that the device plugin gives a daemon for so many parts (k8s-device-plugin,
    cmd/mps-control-daemon/mps/daemon.go): an equal part of the memory, and of the threads.
    """
    with tempfile.TemporaryDirectory(prefix="mps-") as folder:
        own = {
            "CUDA_MPS_PIPE_DIRECTORY": str(Path(folder) / "pipe"),
            "CUDA_MPS_LOG_DIRECTORY": str(Path(folder) / "log"),
        }
        for path in own.values():
            Path(path).mkdir()
        environment = {**os.environ, **own}
        subprocess.run([CONTROL, "-d"], env=environment, check=True, timeout=30)
        try:
            limits = [f"set_default_device_pinned_mem_limit 0 {memory_mib // PARTS}M"]
            limits.append(f"set_default_active_thread_percentage {100 // PARTS}")
            for line in limits:
                subprocess.run([CONTROL], input=line, env=environment, check=True, text=True, timeout=30)
            yield own
        finally:
            subprocess.run([CONTROL], input="quit", env=environment, check=False, text=True, timeout=60)


def memory_of_card() -> int:
    """In MiB, as the driver says."""
    asked = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits", "--id=0"]
    return int(subprocess.run(asked, capture_output=True, text=True, check=True, timeout=60).stdout)


def missing(name: str) -> str:
    """What this machine lacks for it; empty where nothing."""
    if name == "cpu":
        return ""
    if not shutil.which("nvidia-smi"):
        return "an NVIDIA GPU and its driver: there is no nvidia-smi here"
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError:
        return "PyTorch with CUDA (pip install torch)"
    return "" if torch.cuda.is_available() else "a GPU that PyTorch can use: torch.cuda.is_available() is false"


# ---------------------------------------------------------------- the report


def lines_of(found: Mapping[str, Sequence[Figures]]) -> Iterator[str]:
    """A table, with what is left of the model that has the card alone."""
    yield "| setting | model | requests/s | P50 ms | P99 ms | requests/s to alone | P99 to alone | both to alone |"
    yield "|---|---|---|---|---|---|---|---|"
    (alone,) = found["alone"]
    for setting, models in found.items():
        both = sum(one.rate for one in models) / alone.rate
        for number, one in enumerate(models, 1):
            yield (
                f"| {setting} | {number} | {one.rate:.1f} | {one.p50_ms:.2f} | {one.p99_ms:.2f} | "
                f"{one.rate / alone.rate:.2f} | {one.p99_ms / alone.p99_ms:.2f} | {both:.2f} |"
            )


def main(given: Sequence[str] | None = None) -> int:
    """Run it as the command line says."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=str(__doc__).partition("\n")[0])
    parser.add_argument("--workload", choices=["torch", "cpu"], default="torch")
    parser.add_argument("--size", type=int, default=4096, help="width of the layers")
    parser.add_argument("--seconds", type=float, default=30.0, help="measured, of each setting")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    if arguments.serve is not None:
        figures = serve(arguments.workload, arguments.size, arguments.serve, arguments.seconds)
        print(json.dumps(figures.__dict__))
        return 0
    if lack := missing(arguments.workload):
        print(f"this needs {lack}; --workload cpu tries the program without", file=sys.stderr)
        return 2
    found: dict[str, Sequence[Figures]] = {
        "alone": together(1, arguments, {}),
        "time-slicing": together(PARTS, arguments, {}),
    }
    if arguments.workload == "cpu":
        print("MPS is left out: it is a matter of a GPU", file=sys.stderr)
    elif not shutil.which(CONTROL):
        print(f"MPS is left out: {CONTROL} is not here, which comes with the driver", file=sys.stderr)
    else:
        with mps(memory_of_card()) as environment:
            found["mps"] = together(PARTS, arguments, environment)
    for line in lines_of(found):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
