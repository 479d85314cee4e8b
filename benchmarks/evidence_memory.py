"""Peak memory of ``log_evidence`` against the number of samples S.

    python benchmarks/evidence_memory.py [--data mnist] [--num-data 1000] [--latent-dim 50]

Each S runs in a process of its own, so each peak is its own; S = 0 is the process with the
data and the pair in memory, before any evidence. Weights are untrained: they cost the same.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from latente.inference import load_data, log_evidence
from latente.inference.recipes.build import build_pair, planned_sizes
from latente.inference.recipes.plan import Plan, compose


def measure(path: Path, latent_dim: int, num_samples: int) -> None:
    x = torch.from_numpy(np.load(path))
    torch.manual_seed(0)
    plan = Plan(recipe="vae", latent_dim=latent_dim, hidden=(200, 200))
    pair = build_pair(compose(plan), planned_sizes(plan, tuple(x.shape[1:])))
    began = time.perf_counter()
    if num_samples:
        log_evidence(*pair, x, num_samples=num_samples)
    seconds = time.perf_counter() - began
    print(f"{num_samples:>8,} {len(x):>8,} {peak() / 1e9:>10.2f} {seconds:>10.1f}", flush=True)


def peak() -> float:
    """Largest resident memory of this process so far, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux; its ru_maxrss would count the parent's memory before exec
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--num-data", type=int, default=1000)
    parser.add_argument("--latent-dim", type=int, default=50)
    parser.add_argument("--measure", nargs=2, metavar=("FILE", "S"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(Path(options.measure[0]), options.latent_dim, int(options.measure[1]))
        return
    print(f"{'S':>8} {'data':>8} {'peak GB':>10} {'seconds':>10}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        np.save(path, load_data(options.data, binarize="static").test[: options.num_data].numpy())
        for num_samples in (0, 50, 500, 5000, 20_000):
            command = [sys.executable, __file__, "--latent-dim", str(options.latent_dim)]
            subprocess.run([*command, "--measure", str(path), str(num_samples)], check=True)


if __name__ == "__main__":
    main()
