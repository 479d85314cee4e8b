"""Peak memory of ``log_evidence`` against the number of samples S.

    python benchmarks/evidence_memory.py [--data mnist] [--num-data 1000] [--latent-dim 50]

Each S runs in a process of its own, so each peak is its own; S = 0 is the process with the
data and the pair in memory, before any evidence. Weights are untrained: they cost the same.
"""

import argparse
import resource
import subprocess
import sys
import time

import torch

from latente.inference import load_data, log_evidence
from latente.inference.recipes import RECIPES


def measure(data_name: str, num_data: int, latent_dim: int, num_samples: int) -> None:
    data = load_data(data_name, binarize="static")
    torch.manual_seed(0)
    pair = RECIPES["vae"].build(tuple(data.event_shape), latent_dim, (200, 200))
    x = data.test[:num_data]
    began = time.perf_counter()
    if num_samples:
        log_evidence(*pair, x, num_samples=num_samples)
    seconds = time.perf_counter() - began
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(f"{num_samples:>8,} {len(x):>8,} {peak / 1e9:>10.2f} {seconds:>10.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--num-data", type=int, default=1000)
    parser.add_argument("--latent-dim", type=int, default=50)
    parser.add_argument("--num-samples", type=int, help="measure this S only, in this process")
    arguments = parser.parse_args()
    if arguments.num_samples is not None:
        measure(arguments.data, arguments.num_data, arguments.latent_dim, arguments.num_samples)
        return
    print(f"{'S':>8} {'data':>8} {'peak GB':>10} {'seconds':>10}", flush=True)
    for num_samples in (0, 50, 500, 5000, 20_000):
        subprocess.run([sys.executable, *sys.argv, "--num-samples", str(num_samples)], check=True)


if __name__ == "__main__":
    main()
