"""How far each posterior family is from the truth, on data without a closed form.

    python benchmarks/posterior_families.py [--study four-gaussians] [--out runs/families]

The same VAE is fitted with each family from each seed, and held to importance-sampled evidence
on test data; in two latent dimensions also to log p(x) by quadrature over the latent plane,
which no posterior enters. ``--split`` says what of the gap the family leaves, and what the
encoder does. A fit that is in the folder already is not done again, so the study
can be stopped and gone on with. Four Gaussians take some ten minutes, all studies two hours on
2 cores.
"""

import argparse
import json
import math
from pathlib import Path

import torch
from pyro.infer import TraceMeanField_ELBO
from rich.console import Console
from rich.table import Table
from sklearn.datasets import make_blobs
from torch import nn
from torch.distributions import kl_divergence

from latente.guides import DiagonalNormal
from latente.inference import (
    POSTERIORS,
    fit,
    hold_then_fall,
    load_data,
    log_evidence,
)
from latente.inference.recipes.build import build_pair, planned_sizes
from latente.inference.recipes.plan import Plan, compose
from latente.inference.recipes.train import train
from latente.models import Normal

FAMILIES = ("diagonal", "full-rank", "spline", "iaf")
STUDIES = ("four-gaussians", "mnist-2", "mnist-20")
SAMPLES = 2500  # from 2,155 on, k̂ has its full threshold of 0.7
COLUMNS = {
    "elbo": "ELBO",
    "log_evidence": "log evidence",
    "gap": "gap",
    "log_px": "log p(x), quadrature",
    "gap_by_quadrature": "gap to it",
}

FORMS = {"khat_median": ".2f", "khat_bad_fraction": ".0%", "seconds": ".0f"}


def four_gaussians(num_data=1000, seed=0):
    """The course's data: N = 1000 points in the plane, around four centres."""
    centers = [[-2.0, -2.0], [-2.0, 2.0], [2.0, -2.0], [2.0, 2.0]]
    points, _ = make_blobs(num_data, centers=centers, cluster_std=0.5, random_state=seed)
    return torch.from_numpy(points).float()


def fit_four_gaussians(family, seed, out):
    """A VAE of K = 2 on the plane, with one learned noise scale; test data are 1000 more."""
    plan = Plan(recipe="vae-normal", likelihood="normal:scale=shared", posterior=family,
                hidden=(64, 64))  # fmt: skip
    torch.manual_seed(seed)
    pair = build_pair(compose(plan), planned_sizes(plan, (2,)))
    epochs = 500
    schedule = hold_then_fall(epochs)
    run = fit(*pair, four_gaussians(), epochs=epochs, batch_size=100, learning_rate=2e-3,
              schedule=schedule, seed=seed, out=out, resume=out.exists())  # fmt: skip
    return run, four_gaussians(seed=1)


def fit_mnist(latent_dim, family, seed, out):
    """The recipe of docs/results.md, 20 epochs; the first 2,000 test images."""
    plan = Plan(recipe="vae", data="mnist", posterior=family, latent_dim=latent_dim, epochs=20,
                seed=seed)  # fmt: skip
    run = train(plan, out, resume=out.exists())
    return run, load_data("mnist", binarize="dynamic", seed=seed).test[:2000]


def log_px_by_quadrature(model, x, reach=6.0, size=801):
    """log ∫ p(x|z) p(z) dz of each datum, by the trapezoidal rule on a grid of the plane."""
    side = torch.linspace(-reach, reach, size)
    total = torch.full((len(x),), -math.inf, dtype=torch.float64)
    with torch.no_grad():
        for z in torch.cartesian_prod(side, side).split(4000):
            features, prior = model.decoder(z), model.prior().log_prob(z)
            for start in range(0, len(x), 500):  # the densities of a few data at every point
                part = slice(start, start + 500)
                log_joint = grid_log_likelihood(model, features, x[part]) + prior[:, None]
                total[part] = torch.logaddexp(total[part], log_joint.double().logsumexp(0))
    return total + 2 * math.log((side[1] - side[0]).item())


def grid_log_likelihood(model, features, x):
    """log p(x|z) at G points for N data, (G, N); for bits as one matrix product."""
    if isinstance(model.likelihood, Normal):
        return model.likelihood(features[:, None]).log_prob(x)
    return features @ x.flatten(1).T - nn.functional.softplus(features).sum(-1, keepdim=True)


class OneByOne(nn.Module):
    """An encoder for the data it was made of: features of each, to be fitted by themselves."""

    def __init__(self, features):
        super().__init__()
        self.features = nn.Parameter(features.detach().clone())

    def forward(self, x):
        return self.features


def split_gap(model, guide, x):
    """Of a diagonal guide's gap at each x: what the family leaves, and what the encoder does.

    The model held fixed, a diagonal normal is fitted to each datum by itself (Cremer, Li and
    Duvenaud 2018), from where the encoder puts it.
    """
    model.requires_grad_(False)
    best = DiagonalNormal(OneByOne(guide.encoder(x)), guide.latent_dim)
    steps = 1500
    fit(model, best, x, epochs=steps, batch_size=len(x), learning_rate=0.02,
        objective=TraceMeanField_ELBO(num_particles=8, vectorize_particles=True,
                                      max_plate_nesting=1),
        schedule=hold_then_fall(steps, hold=0.2))  # fmt: skip
    bounds = []
    with torch.no_grad():
        for q in (guide.posterior(x), best.posterior(x)):
            z = q.sample((500,))
            reconstruction = model.likelihood(model.decoder(z)).log_prob(x).mean(0)
            bounds.append(reconstruction - kl_divergence(q, model.prior()))
    approximation, amortization = log_px_by_quadrature(model, x) - bounds[1], bounds[1] - bounds[0]
    for name, gap in (("family", approximation), ("encoder", amortization)):
        error = gap.std().item() / math.sqrt(len(gap))
        print(f"left by the {name}: {gap.mean().item():.2f} ± {error:.2f} nats, {len(x)} data")


def measure(study, family, seed, folder):
    """Fit and evaluate once; what was measured before is read back."""
    out = folder / f"{study}-{family}-{seed}"
    path = out / "study.json"
    figures = json.loads(path.read_text()) if path.exists() else {}
    plane = not study.endswith("20")
    if figures and (not plane or "log_px" in figures):
        return figures
    if study == "four-gaussians":
        run, test = fit_four_gaussians(family, seed, out)
    else:
        run, test = fit_mnist(int(study.split("-")[1]), family, seed, out)
    if not figures:
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
    if plane:
        figures["log_px"] = log_px_by_quadrature(run.model, test).mean().item()
        figures["gap_by_quadrature"] = figures["log_px"] - figures["elbo"]
    path.write_text(json.dumps(figures, indent=1))
    return figures


def mean_and_error(values):
    """A mean over seeds and its standard error, in words."""
    values = torch.tensor(values)
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{values.mean().item():.2f} ± {error:.2f}"


def show(study, results):
    """Means over the seeds with their standard errors; then gaps less the first family's."""
    first, *others = results
    seeds = len(results[first])
    columns = {name: title for name, title in COLUMNS.items() if name in results[first][0]}
    heads = ("posterior", *columns.values(), "k̂, median", "k̂ > 0.7", "seconds")
    table = Table(*heads, title=f"{study}: means over {seeds} seeds", title_justify="left")
    for family, rows in results.items():
        cells = [mean_and_error([row[name] for row in rows]) for name in columns]
        for name, form in (
            ("khat_median", ".2f"),
            ("khat_bad_fraction", ".0%"),
            ("seconds", ".0f"),
        ):
            cells.append(format(sum(row[name] for row in rows) / len(rows), form))
        table.add_row(family, *cells)
    console = Console(width=140)
    console.print(table)
    for family in others:
        pairs = list(zip(results[family], results[first], strict=True))
        gaps = {
            title: mean_and_error([own[name] - other[name] for own, other in pairs])
            for name, title in columns.items()
            if name in ("elbo", "gap", "gap_by_quadrature")
        }
        said = ", ".join(f"{title} {figure}" for title, figure in gaps.items())
        console.print(f"{family} less {first}, seed by seed: {said}", highlight=False)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--study", choices=STUDIES, action="append", help="which; default: all")
    parser.add_argument("--family", choices=list(POSTERIORS), action="append", help="which")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--split", action="store_true", help="split the gap of mnist-2, seed 0")
    parser.add_argument("--out", type=Path, default=Path("runs/families"))
    options = parser.parse_args()
    if options.split:
        run, test = fit_mnist(2, "diagonal", 0, options.out / "mnist-2-diagonal-0")
        split_gap(run.model, run.guide, test[:200])
        return
    for study in options.study or STUDIES:
        results = {
            family: [measure(study, family, seed, options.out) for seed in range(options.seeds)]
            for family in options.family or FAMILIES
        }
        show(study, results)


if __name__ == "__main__":
    main()
