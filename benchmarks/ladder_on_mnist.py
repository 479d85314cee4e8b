"""The ladder VAE of five dense levels on MNIST: log p(x), and which levels are in use.

    python benchmarks/ladder_on_mnist.py [--epochs 150] [--out runs/ladder-on-mnist]

Levels of 64, 32, 16, 8 and 4 dimensions, networks of 512 to 32 with leaky ReLU and batch
normalization, as in Sønderby et al. (2016, arXiv 1602.02282), dynamic binarization, batches of 256,
Adam. For the first 40 epochs the KL is warmed up, over 20, and 0.1 nats of each dimension are free,
so that all levels come into use; then the plain ELBO is maximized, at a rate of 1e-3 that falls to
zero over the last 40 % of the epochs. log p(x) is of 2,000 test images with 5,000 samples each, and
by annealed importance sampling of 64, with 8 chains. The curve has a row every 20 epochs. A run
that was cut off goes on.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import torch
from torch import nn

from latente.guides import DiagonalNormal, PrecisionWeighted, TopDown
from latente.inference import (
    Beta_ELBO,
    Warmup,
    annealed_evidence,
    fit,
    hold_then_fall,
    latent_information,
    load_data,
    log_evidence,
)
from latente.models import (
    Bernoulli,
    ConditionalNormal,
    Hierarchy,
    Stages,
    StandardNormal,
    mlp,
)
from latente.models.networks.batch_norm import BatchNorm

DIMS, WIDTHS, PIXELS = (64, 32, 16, 8, 4), (512, 256, 128, 64, 32), 784
NAMES = [f"z{level}" for level in range(1, len(DIMS) + 1)]
OPENING = 40
"""Epochs with free bits and a warm-up."""


leaky = partial(nn.LeakyReLU, 0.1)
network = partial(mlp, activation=leaky, batch_norm=True)


def ladder():
    """The model and its guide."""
    above = dict(zip(NAMES, zip(DIMS[1:], WIDTHS[1:], strict=True), strict=False))
    levels = {NAMES[-1]: StandardNormal(DIMS[-1])}
    for name, dim in reversed([*zip(NAMES, DIMS, strict=True)][:-1]):
        seen, width = above[name]
        levels[name] = ConditionalNormal(network(seen, width, width, out=2 * dim), dim)
    decoder = network(DIMS[0], WIDTHS[0], WIDTHS[0], out=PIXELS)
    model = Hierarchy(levels, decoder, Bernoulli((28, 28)))
    stages, posteriors, below = {}, {}, (28, 28)
    for name, dim, width in zip(NAMES, DIMS, WIDTHS, strict=True):
        layers = network(below, width, out=width), BatchNorm(width), leaky()
        stages[name] = nn.Sequential(*layers)
        family = DiagonalNormal if name == NAMES[-1] else PrecisionWeighted
        posteriors[name] = family(network(width, width, out=2 * dim), dim)
        below = width
    posteriors = dict(reversed(posteriors.items()))
    return model, TopDown(posteriors, levels, Stages(stages))


def evidence_of(model, guide, images):
    """log p(x) in float32; in float64 where the scale of one of the many draws overflows."""
    try:
        return log_evidence(model, guide, images, num_samples=5000)
    except ValueError as error:
        print(f"once more in float64, for {error}", flush=True)
    model.double(), guide.double()
    try:
        return log_evidence(model, guide, images.double(), num_samples=5000)
    finally:
        model.float(), guide.float()


def report(model, guide, test):
    """Evidence by two ways, and each level's KL, as they are found."""
    began = time.perf_counter()

    def tell(measure, value):
        print(f"{measure}: {value} ({time.perf_counter() - began:.0f} s)", flush=True)

    information = latent_information(model, guide, test[:2000])
    for site, kl in information.kl_by_site.items():
        parts = information.parts_of(site)
        used = sum(information.names[part] not in information.idle for part in parts)
        tell(f"KL of {site}", f"{kl:.2f}, {used} of {len(parts)} in use")
    blocks = [evidence_of(model, guide, block) for block in test[:2000].split(100)]
    log_px = torch.cat([block.log_px.double() for block in blocks])
    error = log_px.std() / len(log_px) ** 0.5
    tell("log p(x), 2,000 images, 5,000 samples", f"{log_px.mean():.2f} ± {error:.2f} over images")
    elbo = sum(block.elbo for block in blocks) / len(blocks)
    bad = sum(block.khat_bad_fraction for block in blocks) / len(blocks)
    tell("ELBO, and share of bad k̂", f"{elbo:.2f}, {bad:.1%}")
    tell("log p(x) of the first 64 images", f"{log_px[:64].mean():.2f}")
    for start, temperatures in {"guide": 100, "prior": 200}.items():
        annealed = annealed_evidence(
            model, guide, test[:64], start=guide if start == "guide" else None,
            num_temperatures=temperatures, num_chains=8,
        )  # fmt: skip
        tell(f"AIS from the {start}, {temperatures} temperatures", f"{annealed.mean:.2f}")


def main():
    """Fit, print the curve and the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--out", default="runs/ladder-on-mnist")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data("mnist", binarize="dynamic", validation=0.02, seed=0)
    torch.manual_seed(0)
    model, guide = ladder()
    model.start_at_mean(data.train)
    began = time.perf_counter()

    def run(part, **settings):
        out = Path(args.out) / part
        settings |= {"out": out, "resume": out.exists(), "batch_size": 256, "seed": 0}
        return fit(model, guide, data, learning_rate=1e-3, **settings)

    opening = Beta_ELBO(Warmup(OPENING / 2), free_bits=0.1)
    rest = args.epochs - OPENING
    first = run("opening", objective=opening, epochs=OPENING)
    second = run("rest", epochs=rest, schedule=hold_then_fall(rest))
    print(f"{time.perf_counter() - began:.0f} s of training")
    for done, part in ((0, first), (OPENING, second)):
        for row in part.history[19::20]:
            print(done + row["epoch"], f"{row['elbo']:.2f}", f"{row['validation_elbo']:.2f}")
    report(second.model, second.guide, data.test)


if __name__ == "__main__":
    main()
