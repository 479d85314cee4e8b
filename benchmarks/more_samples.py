"""Go on with a run on MNIST by the bound of 50 samples: log p(x) before and after.

    python benchmarks/more_samples.py runs/two-layers [--epochs 36] [--out runs/two-layers-50]

The run, fitted by the ELBO, is the start: an epoch with 50 samples takes some 30 times as long as
one with a single sample. Batches of 200, a rate of 5e-4 that falls to zero over the last 40 % of
the epochs. Figures are of the first 2,000 test images, with 5,000 importance samples each. A run
that was cut off goes on.
"""

import argparse
from pathlib import Path

import torch

from latente.inference import (
    ImportanceWeighted_ELBO,
    fit,
    hold_then_fall,
    latent_information,
    load_data,
    load_run,
    log_evidence,
)


def report(name, model, guide, x, objective):
    """Evidence, bound and KL by level."""
    evidence = log_evidence(model, guide, x, num_samples=5000)
    error = evidence.log_px.std().item() / len(x) ** 0.5
    torch.manual_seed(0)
    bound = -sum(objective.loss(model, guide, batch) for batch in x.split(100)) / len(x)
    information = latent_information(model, guide, x)
    print(
        f"{name}: log p(x) {evidence.mean:.2f} ± {error:.2f} over images, ELBO "
        f"{evidence.elbo:.2f}, bound of 50 samples {bound:.2f}, k̂ bad for "
        f"{evidence.khat_bad_fraction:.0%}, KL {information.kl_by_site}, "
        f"{information.active_units} active units",
        flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--epochs", type=int, default=36)
    parser.add_argument("--out", default="runs/two-layers-50")
    args = parser.parse_args()
    torch.set_num_threads(1)
    objective = ImportanceWeighted_ELBO(50)
    run = load_run(args.run)
    data = load_data("mnist", binarize="dynamic", validation=0.02, seed=0)
    report("before", run.model, run.guide, data.test[:2000], objective)
    run = fit(
        run.model, run.guide, data, objective=objective, epochs=args.epochs, batch_size=200,
        learning_rate=5e-4, schedule=hold_then_fall(args.epochs), seed=1, out=args.out,
        resume=Path(args.out).exists(),
    )  # fmt: skip
    report("after", run.model, run.guide, data.test[:2000], objective)


if __name__ == "__main__":
    main()
