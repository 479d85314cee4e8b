"""Codes on MNIST: the bound, the exact evidence, the use of the codes, and what a prior is worth.

    python benchmarks/codebooks.py [--epochs 10] [--train 10000] [--only vq-2x2]

VQ, with a codebook moved by averages or by the gradient, and FSQ, on a grid of 2 × 2 positions with
16 codes each and of 4 × 4 positions with 64; with them a VAE of Gumbel–softmax indicators, whose
decoder sees the hard ones. All have dense networks of one hidden layer, are fitted to the first
images, binarized anew in each epoch, and judged on 2,000 test images. The prior is uniform; then
encoder and decoder are frozen, and a learned autoregressive prior takes its place. Where there are
65,536 values, log p(x) of some test images is exact, and held against the sum over all values in
one piece, in float64.
"""

import argparse
import time
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table

from latente.guides import FiniteScalar, GumbelSoftmax, VectorQuantized
from latente.inference import (
    AuxiliaryLoss,
    Beta_ELBO,
    enumerated_evidence,
    evaluate,
    fit,
    hold_then_fall,
    load_data,
    log_evidence,
)
from latente.models import (
    VAE,
    AutoregressiveCodes,
    Bernoulli,
    Codebook,
    StraightThrough,
    UniformCodes,
    UniformConcrete,
    mlp,
)

WIDTH, DIM = 200, 8
COMMITMENT = 0.25
SMALL, LARGE = ((2, 2), 16, (4, 4)), ((4, 4), 64, (8, 8))
"""Positions, number of codes, and the levels of FSQ that make as many."""


@dataclass(frozen=True)
class Case:
    """One way to have codes."""

    kind: str
    grid: tuple

    def build(self):
        """Model, guide and objective."""
        positions, num_codes, levels = self.grid
        if self.kind == "gumbel":
            shape = (*positions, num_codes)
            guide = GumbelSoftmax(encoder(shape), num_codes, positions)
            network = torch.nn.Sequential(StraightThrough(), decoder(shape))
            prior = UniformConcrete(num_codes, positions)
            return VAE(prior, network, likelihood()), guide, None
        if self.kind == "fsq":
            guide = FiniteScalar(encoder((len(levels), *positions)), levels, positions)
            prior, shape, objective = UniformCodes(levels, positions), guide.event_shape, None
        else:
            decay = None if self.kind == "vq by gradient" else 0.99
            codebook = Codebook(num_codes, DIM, positions, decay=decay)
            prior, shape = UniformCodes(codebook), codebook.event_shape
            guide = VectorQuantized(encoder(shape), codebook)
            terms = {"commitment": COMMITMENT} | ({"codebook": 1.0} if decay is None else {})
            objective = AuxiliaryLoss(Beta_ELBO(), terms)
        return VAE(prior, decoder(shape), likelihood()), guide, objective


CASES = {
    "vq-2x2": Case("vq", SMALL),
    "vq-gradient-2x2": Case("vq by gradient", SMALL),
    "fsq-2x2": Case("fsq", SMALL),
    "gumbel-2x2": Case("gumbel", SMALL),
    "vq-4x4": Case("vq", LARGE),
    "fsq-4x4": Case("fsq", LARGE),
}


def encoder(shape):
    return mlp((28, 28), WIDTH, out=torch.Size(shape).numel())


def decoder(shape):
    return mlp(tuple(shape), WIDTH, out=784)


def likelihood():
    return Bernoulli((28, 28))


def learn_prior(model, guide, data, epochs):
    """The same pair with an autoregressive prior, fitted while all else is frozen."""
    model.requires_grad_(False)
    guide.requires_grad_(False)
    model.prior = AutoregressiveCodes(guide.codebook, hidden=(256,))
    fit(model, guide, data, epochs=epochs, batch_size=128, schedule=hold_then_fall(epochs), seed=0,
        show_progress=False)  # fmt: skip


@torch.no_grad()
def summed(model, x):
    """log p(x) of data, by the sum over all values at once."""
    prior = model.prior()
    values = prior.values_at(torch.arange(prior.num_values))
    terms = []
    for part in values.split(4096):
        likelihood = model.likelihood(model.decoder(part))
        log_px = torch.stack([likelihood.log_prob(row) for row in x])
        terms.append(log_px + prior.log_prob(part))
    return torch.cat(terms, 1).logsumexp(1)


def judge_exactly(model, guide, x):
    """Exact evidence in float64, and how far it is from the direct sum."""
    model.double()
    guide.double()
    exact = enumerated_evidence(model, guide, x.double())
    off = (exact.log_px - summed(model, x.double())).abs().max().item()
    model.float()
    guide.float()
    return exact, off


def run(name, case, data, epochs, num_exact, table):
    began = time.perf_counter()
    torch.manual_seed(0)
    model, guide, objective = case.build()
    model.start_at_mean(data.train[:1000])
    fit(model, guide, data, objective=objective, epochs=epochs, batch_size=128,
        schedule=hold_then_fall(epochs), seed=0, show_progress=False)  # fmt: skip
    seconds = time.perf_counter() - began
    x = torch.as_tensor(data.test[:num_exact])
    say = {"": name, "seconds": f"{seconds:.0f}"}
    if case.kind == "gumbel":
        figures = evaluate(model, guide, data.test[:500], num_samples=100)
        say |= {"bound": f"{figures['elbo']:.2f}", "learned prior": "–"}
        ev = log_evidence(model, guide, data.test[:500], num_samples=1000)
        say["log p(x), 2 × 2"] = f"≥ {ev.mean:.2f} (500 draws)"
    else:
        figures = evaluate(model, guide, data.test)
        say["bound"] = f"{figures['elbo']:.2f}"
        small = case.grid is SMALL
        if small:
            exact, off = judge_exactly(model, guide, x)
            say["log p(x), 2 × 2"] = f"{exact.mean:.2f}, gap {exact.gap:.2f}, off {off:.0e}"
        learn_prior(model, guide, data, epochs // 2)
        learned = evaluate(model, guide, data.test)
        say["learned prior"] = f"{learned['elbo']:.2f}, + {learned['prior_gain']:.2f}"
        if small:
            exact, off = judge_exactly(model, guide, x)
            say["log p(x), 2 × 2"] += (
                f"; learned prior {exact.mean:.2f}, gap {exact.gap:.2f}, off {off:.0e}"
            )
    say["use"] = (
        f"{figures['codebook_share']:.1%}, perplexity {figures['codebook_perplexity']:.1f} of "
        f"{figures['num_codes']}"
    )
    print(say, flush=True)
    table.add_row(*[say.get(column.header, "") for column in table.columns])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--train", type=int, default=10_000, help="images to fit to")
    parser.add_argument("--exact", type=int, default=4, help="images with exact evidence")
    parser.add_argument("--only", choices=CASES)
    args = parser.parse_args()
    torch.set_num_threads(1)
    mnist = load_data("mnist", validation=0.02, seed=0)
    data = load_data(mnist.train[: args.train], test=mnist.test[:2000], validation=0.02,
                     binarize="dynamic", seed=0)  # fmt: skip
    table = Table("", "bound", "learned prior", "use", "log p(x), 2 × 2", "seconds")
    for name, case in CASES.items():
        if args.only in (None, name):
            run(name, case, data, args.epochs, args.exact, table)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
