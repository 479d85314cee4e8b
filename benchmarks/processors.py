"""Whether the tests hold on other processors: the suite under other kernels and more threads.

Sums are taken in another order by each kernel (PyTorch's own, those of MKL, oneDNN and OpenBLAS)
and by each number of threads, so that last digits differ. This runs the tests as an older or newer
processor would, and prints a line for each::

    python benchmarks/processors.py                         # all tests: some minutes a line
    python benchmarks/processors.py tests/test_exact_models.py --kernels AVX2 --threads 1

MKL obeys ``MKL_ENABLE_INSTRUCTIONS`` on Intel's processors only. On another, where there is a C
compiler, a library of two functions that is loaded first lets it take this one for Intel's. The
column of digits is a fingerprint of some products, factors and sums: two lines that have the same
one were computed by the same kernels, so that one of the settings did nothing.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
KERNELS = {
    "as it is": {},
    "SSE4.2": {
        "ATEN_CPU_CAPABILITY": "default",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "OPENBLAS_CORETYPE": "Nehalem",
    },
    "AVX2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
    "AVX-512": {
        "ATEN_CPU_CAPABILITY": "avx512",
        "MKL_ENABLE_INSTRUCTIONS": "AVX512",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
        "OPENBLAS_CORETYPE": "SkylakeX",
    },
}
FINGERPRINT = """
import hashlib, os, torch
torch.set_num_threads(int(os.environ["LATENTE_TEST_THREADS"]))
torch.manual_seed(0)
x = torch.randn(300, 200)
results = [
    x.mT @ x, x.double().mT @ x.double(), torch.linalg.qr(x).R, torch.linalg.svdvals(x),
    x.sum(), x.exp().logsumexp(1), torch.nn.functional.conv2d(x[None, None], x[None, None, :5, :5]),
]
print(hashlib.sha256(b"".join(part.numpy().tobytes() for part in results)).hexdigest()[:6])
"""
AS_INTEL = (
    "int mkl_serv_intel_cpu(void) { return 1; } int mkl_serv_intel_cpu_true(void) { return 1; }"
)


def as_intel(folder: Path) -> dict[str, str]:
    """The setting that lets MKL take the processor for Intel's; none where it is, or cannot be."""
    processor = Path("/proc/cpuinfo")
    compiler = shutil.which("cc")
    if compiler is None or not processor.exists() or "GenuineIntel" in processor.read_text():
        return {}
    library = folder / "as_intel.so"
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=AS_INTEL, text=True, check=True)
    return {"LD_PRELOAD": str(library)}


def run(settings: dict[str, str], threads: int, arguments: list[str]) -> tuple[str, list[str]]:
    """The cells of one line from the fingerprint on, and the tests that failed."""
    number = {"LATENTE_TEST_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    environment = os.environ | settings | number
    digits = subprocess.run(
        [sys.executable, "-c", FINGERPRINT], env=environment, capture_output=True, text=True,
        check=True,
    ).stdout.strip()  # fmt: skip
    workers = max(1, (os.cpu_count() or 1) // threads)
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "--dist=worksteal"]
    begin = time.monotonic()
    output = subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=False,
    ).stdout  # fmt: skip
    minutes = (time.monotonic() - begin) / 60
    lines = output.splitlines()
    outcome = re.sub(r" in [\d.]+s.*", "", lines[-1]) if lines else "no tests ran"
    failures = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return f"{digits} | {outcome} | {minutes:.1f}", failures


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, default=list(KERNELS))
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    options, arguments = parser.parse_known_args()
    print("| kernels | threads | digits | tests | minutes |\n|---|---|---|---|---|")
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        intel = as_intel(Path(folder))
        for name in options.kernels:
            settings = KERNELS[name] and KERNELS[name] | intel
            for threads in options.threads:
                cells, failures = run(settings, threads, arguments)
                print(f"| {name} | {threads} | {cells} |", flush=True)
                failed += [f"{name}, {threads} threads: {line}" for line in failures]
    print(*failed, sep="\n", end="\n" if failed else "")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
