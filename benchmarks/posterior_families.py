"""How far each posterior family is from the truth, on data without a closed form.

The same VAE is fitted with each family from each seed, and held to importance-sampled evidence
on test data: ``python benchmarks/posterior_families.py --out runs/families`` prints a table.
A fit that is in the folder already is not done again, so the study can be stopped and gone on
with. With ``--study four-gaussians`` it takes ten minutes, for all some two hours on 2 cores.
"""

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from sklearn.datasets import make_blobs
from torch import nn

from latente.inference import POSTERIORS, RECIPES, fit, hold_then_fall, log_evidence
from latente.inference.plans import Plan, load_plan_data, train
from latente.models import Normal

FAMILIES = ("diagonal", "full-rank", "spline", "iaf")
STUDIES = ("four-gaussians", "mnist-2", "mnist-20")
SAMPLES = 2500  # from 2,155 on, k̂ has its full threshold of 0.7


def four_gaussians(num_data=1000, seed=0):
    """The course's data: N = 1000 points in the plane, around four centres."""
    centers = [[-2.0, -2.0], [-2.0, 2.0], [2.0, -2.0], [2.0, 2.0]]
    points, _ = make_blobs(num_data, centers=centers, cluster_std=0.5, random_state=seed)
    return torch.from_numpy(points).float()


def fit_four_gaussians(family, seed, out):
    """A VAE of K = 2 on the plane, with one learned noise scale; test data are 1000 more."""
    recipe = replace(
        RECIPES["vae-normal"],
        likelihood=lambda shape: Normal(shape, scale=nn.Parameter(torch.tensor(0.5))),
    )
    torch.manual_seed(seed)
    model, guide = recipe.build((2,), 2, (64, 64), family)
    epochs = 500
    schedule = hold_then_fall(epochs)
    run = fit(model, guide, four_gaussians(), epochs=epochs, batch_size=100, seed=seed,
              learning_rate=2e-3, schedule=schedule, out=out)  # fmt: skip
    return run, four_gaussians(seed=1)


def fit_mnist(latent_dim, family, seed, out):
    """The recipe of the README, 20 epochs; the first 2,000 test images."""
    plan = Plan(recipe="vae", data="mnist", posterior=family, latent_dim=latent_dim, epochs=20,
                seed=seed)  # fmt: skip
    return train(plan, out), load_plan_data(plan).test[:2000]


def measure(study, family, seed, folder):
    """Fit and evaluate once; what was measured before is read back."""
    out = folder / f"{study}-{family}-{seed}"
    if not (out / "study.json").exists():
        if study == "four-gaussians":
            run, test = fit_four_gaussians(family, seed, out)
        else:
            run, test = fit_mnist(int(study.split("-")[1]), family, seed, out)
        evidence = log_evidence(
            run.model, run.guide, test, num_samples=SAMPLES, seed=seed, show_progress=True
        )
        figures = {
            "elbo": evidence.elbo,
            "log_evidence": evidence.mean,
            "gap": evidence.mean - evidence.elbo,
            "khat_bad_fraction": evidence.khat_bad_fraction,
            "khat_median": evidence.khat.median().item(),
            "seconds": sum(row["seconds"] for row in run.history),
        }
        (out / "study.json").write_text(json.dumps(figures, indent=1))
    return json.loads((out / "study.json").read_text())


def show(study, results):
    """Means over the seeds with their standard errors."""
    table = Table(
        title=f"{study}: means over {len(next(iter(results.values())))} seeds", title_justify="left"
    )
    for column in ("posterior", "ELBO", "log evidence", "gap", "k̂, median", "k̂ > 0.7", "seconds"):
        table.add_column(column, justify="left" if column == "posterior" else "right")
    for family, rows in results.items():
        cells = [family]
        for name in ("elbo", "log_evidence", "gap"):
            values = torch.tensor([row[name] for row in rows])
            error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
            cells.append(f"{values.mean().item():.3f} ± {error:.3f}")
        for name, form in (
            ("khat_median", ".2f"),
            ("khat_bad_fraction", ".1%"),
            ("seconds", ".0f"),
        ):
            cells.append(format(sum(row[name] for row in rows) / len(rows), form))
        table.add_row(*cells)
    Console(width=120).print(table)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--study", choices=STUDIES, action="append", help="which; all, if not given"
    )
    parser.add_argument("--family", choices=list(POSTERIORS), action="append", help="which")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/families"))
    options = parser.parse_args()
    for study in options.study or STUDIES:
        results = {
            family: [measure(study, family, seed, options.out) for seed in range(options.seeds)]
            for family in options.family or FAMILIES
        }
        show(study, results)


if __name__ == "__main__":
    main()
