"""Predicting the other quadrants of MNIST digits from one, two or three of them.

    python benchmarks/quadrants.py [--given 1] [--out runs/quadrants]

The task of Sohn, Lee and Yan (2015) with the settings of Pyro's tutorial: networks of 500–500
units, K = 200, batches of 128, Adam from 1e-3, at most 101 epochs, stopped once the validation ELBO
has not risen for three. What is given is grey, what is predicted binary, drawn anew each epoch;
figures are of the 10,000 test images, −log p(y|x) by importance sampling. Some half an hour on 2
cores.
"""

import argparse
import json
from pathlib import Path

import pyro
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from latente.guides import DiagonalNormal
from latente.inference import fit, load_data, log_evidence, quadrants
from latente.models import (
    VAE,
    Bernoulli,
    Conditional,
    ConditionalNormal,
    FlattenEvent,
    mlp,
)

LATENT, HIDDEN = 200, (500, 500)
PUBLISHED = {1: (100.4, 71.8), 2: (61.9, 51.0), 3: (25.4, 24.2)}


def network(*sizes, out):
    """The tutorial's: two hidden layers of rectified linear units."""
    return mlp(*sizes, *HIDDEN, out=out, activation=nn.ReLU)


class Baseline(nn.Module):
    """p(y|x) without a latent variable: each pixel by itself, given x."""

    def __init__(self, num_given, num_left):
        super().__init__()
        self.network, self.likelihood = network(num_given, out=num_left), Bernoulli((num_left,))

    def forward(self, y, x):
        with pyro.plate("data", len(y), dim=-1):
            pyro.sample("x", self.likelihood(self.network(x)), obs=y)


def nothing(y, x):
    """The guide of a model without latent variables."""


def conditional_vae(num_given, num_left):
    """q(z|x, y), p(z|x) and p(y|x, z)."""
    joined = FlattenEvent(num_left), FlattenEvent(num_given)
    guide = DiagonalNormal(Conditional(network(784, out=2 * LATENT), *joined), LATENT)
    prior = ConditionalNormal(network(num_given, out=2 * LATENT), LATENT)
    decoder = network(LATENT + num_given, out=num_left)
    readers = FlattenEvent(LATENT), FlattenEvent(num_given)
    return VAE(prior, Conditional(decoder, *readers), Bernoulli((num_left,))), guide


def study(num, seed, folder):
    """Fit baseline and conditional VAE, unless they are in the folder; their test figures."""
    kept = folder / f"{num}-{seed}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    mask = quadrants((28, 28), num)
    data = load_data("mnist", binarize="dynamic", given=mask, seed=seed)
    sizes = int(mask.sum()), int((~mask).sum())
    found = {}
    for name in ("baseline", "cvae"):
        torch.manual_seed(seed)
        pair = (Baseline(*sizes), nothing) if name == "baseline" else conditional_vae(*sizes)
        run = fit(*pair, data, epochs=101, patience=3, seed=seed)
        if name == "baseline":
            found[name] = log_evidence(*pair, data, num_samples=2).mean
        else:
            evidence = log_evidence(*pair, data, num_samples=500)
            found |= {name: evidence.mean, "se": evidence.mean_standard_error}
            found |= {"elbo": evidence.elbo, "khat": evidence.khat_bad_fraction}
        found[f"{name}_epochs"] = run.best_epoch
    folder.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(found, indent=2))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--given", type=int, choices=(1, 2, 3), action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/quadrants"))
    args = parser.parse_args()
    table = Table("given", "", "−log p(y|x)", "−ELBO", "Pyro's tutorial", "epochs", "k̂ bad")
    for num in args.given or (1, 2, 3):
        found, published = study(num, args.seed, args.out), PUBLISHED[num]
        of_baseline = f"{-found['baseline']:.1f}", "", f"{published[0]}"
        of_cvae = f"{-found['cvae']:.1f}", f"{-found['elbo']:.1f}", f"{published[1]}"
        table.add_row(str(num), "baseline", *of_baseline, f"{found['baseline_epochs']}", "")
        table.add_row("", "CVAE", *of_cvae, f"{found['cvae_epochs']}", f"{found['khat']:.0%}")
    Console().print(table)


if __name__ == "__main__":
    main()
