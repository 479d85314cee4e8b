"""Where importance sampling of log p(x) stops being usable: latent dimensions against samples.

    python benchmarks/importance_limits.py [--num-data 50] [--out docs/importance_limits.png]

Probabilistic PCA, whose log p(x) is known exactly, with D = 100, σ = 1, and K directions W drawn at
random, so that posteriors are correlated a little. W is scaled so that, whatever K, the posterior
of a latent dimension has standard deviation 0.3 (root mean square), the prior's being 1: about what
the dimensions have that a VAE makes use of. All data are the model's own. Three proposals:

    prior    p(z)
    oracle   a diagonal normal with the posterior's own means and standard deviations
    narrow   the same, standard deviations × 0.8

and annealed importance sampling from the prior, by T temperatures, C chains and L leapfrog steps,
at a cost of T · (L + 1) · C gradients a datum, and a quarter more to find temperatures and step
sizes; with the upper bound that is to be had on data whose z is known.

The shortfall is exact log p(x) − log p̂(x), in nats: a mean over the data, with its standard error.
Float64; some nine minutes on one core.
"""

import argparse
import math
import time
from pathlib import Path

import pyro
import pyro.distributions as dist
import torch
from rich.console import Console
from rich.table import Table

from latente.inference import bidirectional_evidence, log_evidence, simulate
from latente.models import PPCA

OBSERVED, POSTERIOR_SD, NARROW = 100, 0.3, 0.8
DIMENSIONS = (1, 2, 3, 5, 8, 10, 12, 20, 32, 50)
SAMPLES = (10, 100, 1000, 5000, 50_000)
PROPOSALS = ("prior", "oracle", "narrow")
ANNEALED = (2, 5, 10, 20, 50)
"""Latent dimensions for which log p(x) is annealed too."""
USABLE, CLAIMED = 0.1, 5.0
"""Nats: a shortfall that is let pass, and one that is not to be had by annealing."""


def linear_model(latent_dim):
    """PPCA whose posterior standard deviations are POSTERIOR_SD, as their root mean square."""
    directions = torch.randn(OBSERVED, max(DIMENSIONS), generator=torch.Generator().manual_seed(0))
    directions = directions[:, :latent_dim] / math.sqrt(OBSERVED)
    low, high = 0.1, 100.0
    for _ in range(60):
        scale = math.sqrt(low * high)
        precision = torch.eye(latent_dim) + scale**2 * directions.T @ directions
        wide = precision.inverse().diagonal().mean() > POSTERIOR_SD**2
        low, high = (scale, high) if wide else (low, scale)
    model = PPCA(OBSERVED, latent_dim).requires_grad_(False)
    model.weight.copy_(scale * directions)
    model.bias.zero_()  # and σ = 1, as it comes
    return model


class Proposal:
    """A diagonal normal about a mean, as a guide."""

    def __init__(self, model, name):
        self.model, self.name = model, name

    def __call__(self, x):
        with pyro.plate("data", len(x), dim=-1):
            posterior = self.model.posterior(x)
            mean, sd = posterior.mean, posterior.variance.sqrt()
            if self.name == "prior":
                mean, sd = torch.zeros_like(mean), torch.ones_like(sd)
            elif self.name == "narrow":
                sd = NARROW * sd
            pyro.sample("z", dist.Normal(mean, sd).to_event(1))


def shortfall(exact, estimate):
    """Mean of exact − estimate, and its standard error over the data."""
    missing = exact - estimate
    return missing.mean().item(), missing.std().item() / math.sqrt(len(missing))


def study(latent_dim, num_data, settings):
    """The figures of one K: shortfall, error and mean k̂ by proposal and S, and annealing's."""
    model = linear_model(latent_dim)
    x, found = torch.zeros(num_data, OBSERVED), {}
    guide = Proposal(model, "prior")  # in annealing it has no part
    if latent_dim in ANNEALED:
        both = bidirectional_evidence(model, guide, x, num_data=num_data, **settings)
        x = both.data[0]
        exact = model.log_prob(x)
        found["annealing"] = shortfall(exact, both.lower.log_px)
        found["upper"] = shortfall(exact, both.upper.log_px)
        found["acceptance"] = both.lower.acceptance.mean().item()
    else:
        (x,), _ = simulate(model, guide, x, num_data)
        exact = model.log_prob(x)
    for name in PROPOSALS:
        for samples in SAMPLES:
            evidence = log_evidence(model, Proposal(model, name), x, num_samples=samples)
            found[name, samples] = *shortfall(exact, evidence.log_px), evidence.khat.mean().item()
    return found


def tell(value, error):
    """A figure and its error, as short as they can be."""
    text = f"{value:.2f} ± {error:.2f}" if error >= 0.005 else f"{value:.3f} ± {error:.3f}"
    return text.replace("-", "−").replace("−0.000", "0.000").replace("−0.00 ", "0.00 ")


def show(console, results, settings):
    """All tables."""
    for name in PROPOSALS:
        heads = ("K", *(f"S = {samples:,}" for samples in SAMPLES))
        table = Table(*heads, title=f"{name}: shortfall in nats; mean k̂", title_justify="left")
        for latent_dim, found in results.items():
            cells = []
            for samples in SAMPLES:
                *missing, khat = found[name, samples]
                khat = "" if math.isnan(khat) else f"; {khat:.2f}"
                cells.append(tell(*missing) + khat.replace("-", "−").replace("inf", "∞"))
            table.add_row(str(latent_dim), *cells)
        console.print(table)
    temperatures, chains, leapfrog = settings.values()
    cost = temperatures * (leapfrog + 1) * chains
    title = f"annealing, T = {temperatures:,}, C = {chains}, L = {leapfrog}: {cost:,} gradients"
    heads = ("K", "shortfall", "upper bound − exact", "accepted")
    table = Table(*heads, title=title, title_justify="left")
    for latent_dim in ANNEALED:
        found = results[latent_dim]
        above, error = found["upper"]
        accepted = f"{found['acceptance']:.0%}"
        table.add_row(str(latent_dim), tell(*found["annealing"]), tell(-above, error), accepted)
    console.print(table)


def conclude(results):
    """Where importance sampling stops, and from where on annealing does what it cannot."""
    last = {}
    for name in PROPOSALS:
        usable = 0
        for latent_dim, found in results.items():
            if found[name, 5000][0] >= USABLE:
                break
            usable = latent_dim
        last[name] = f"K = {usable} with the {name}"
    apart = [
        latent_dim
        for latent_dim, found in results.items()
        if latent_dim in ANNEALED
        and abs(found["annealing"][0]) < USABLE
        and found["prior", 5000][0] > CLAIMED
    ]
    claim = ", ".join(map(str, apart)) or "none"
    return (
        f"Annealing within {USABLE} nat where S = 5,000 of the prior are off by more than "
        f"{CLAIMED:g}: K = {claim}.\n"
        f"With S = 5,000 the shortfall is below {USABLE} nat up to {'; '.join(last.values())}."
    )


def draw(results, settings, path):
    """Shortfall against K, one panel for each proposal, a line for each S, annealing beside it."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullLocator

    colours = plt.get_cmap("viridis_r")(torch.linspace(0.1, 0.95, len(SAMPLES)).numpy())
    style = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with plt.rc_context(style):
        figure, axes = plt.subplots(1, 3, figsize=(9, 3.6), sharey=True, layout="constrained")
        titles = {
            "prior": "proposal: the prior",
            "oracle": "right means and sds, no correlations",
            "narrow": f"the same, sds × {NARROW}",
        }
        place = list(results)
        for ax, name in zip(axes, PROPOSALS, strict=True):
            for colour, samples in zip(colours, SAMPLES, strict=True):
                values = [found[name, samples][0] for found in results.values()]
                label = f"importance sampling, S = {samples:,}"
                ax.plot(place, values, "o-", color=colour, markersize=3, label=label)
            label = "annealing, T = {num_temperatures:,}, C = {num_chains}".format(**settings)
            values = [results[latent_dim]["annealing"][0] for latent_dim in ANNEALED]
            ax.plot(ANNEALED, values, "k--", marker="^", markersize=4, label=label)
            ax.axhline(USABLE, color="#D55E00", linewidth=1)
            ax.set(title=titles[name], xlabel="latent dimensions K", xscale="log")
            ax.set_xticks([1, 2, 5, 10, 20, 50], ["1", "2", "5", "10", "20", "50"])
            ax.minorticks_off()
        # Linear up to what is let pass, so that noise about zero can be drawn.
        axes[0].set_yscale("symlog", linthresh=USABLE)
        axes[0].set_yticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
        axes[0].set_ylim(-USABLE, 1000)
        axes[0].yaxis.set_minor_locator(NullLocator())
        axes[0].set_ylabel("shortfall of log p(x), nats")
        axes[2].annotate(
            "0.1 nat", (1, USABLE), (0, 3), textcoords="offset points", color="#D55E00"
        )
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--num-data", type=int, default=50)
    parser.add_argument("--temperatures", type=int, default=2000)
    parser.add_argument("--chains", type=int, default=16)
    parser.add_argument("--leapfrog", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("docs/importance_limits.png"))
    args = parser.parse_args()
    settings = {
        "num_temperatures": args.temperatures,
        "num_chains": args.chains,
        "num_leapfrog": args.leapfrog,
    }
    torch.set_default_dtype(torch.float64)
    console, results = Console(width=140), {}
    for latent_dim in DIMENSIONS:
        began = time.perf_counter()
        results[latent_dim] = study(latent_dim, args.num_data, settings)
        console.print(f"K = {latent_dim}: {time.perf_counter() - began:.0f} seconds")
    show(console, results, settings)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    draw(results, settings, args.out)
    console.print(conclude(results), highlight=False)


if __name__ == "__main__":
    main()
