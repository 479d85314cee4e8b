"""Deep Markov models of Bach's chorales: −ELBO and log p(x) in nats per step, by three averages.

    python benchmarks/chorales.py [--emission bernoulli] [--epochs 600] [--out runs/chorales]
    python benchmarks/chorales.py --emission autoregressive --epochs 300

z of 64 dimensions with a gated transition, a backward GRU as encoder with Krishnan's combiner;
emissions are independent keys, or each key given those below it. Adam, batches of 20 sequences of
like lengths, the KL warmed up over the first sixth of the epochs; the weights are those of the
epoch with the best validation ELBO. log p(x) is estimated by importance sampling and by a particle
filter. A run that was cut off goes on.

The literature averages in three ways: Σ log p / Σ T (per step), the mean over sequences of
log p / T, and the mean over minibatches of Σ log p / Σ T; here the last is of batches of 20 in
order.
"""

import argparse
import time
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from latente.guides import DiagonalNormal, SequencePosterior
from latente.inference import (
    Beta_ELBO,
    Warmup,
    fit,
    hold_then_fall,
    load_data,
    log_evidence,
    particle_filter,
)
from latente.models import (
    AutoregressiveLikelihood,
    Bernoulli,
    Combiner,
    GatedTransition,
    RecurrentReader,
    StateSpaceModel,
    mlp,
)

KEYS, DIM, WIDTH, HIDDEN = 88, 64, 128, 200
BATCH = 20


def build(emission):
    """The deep Markov model and its guide."""
    likelihood = Bernoulli((KEYS,))
    if emission == "autoregressive":
        likelihood = AutoregressiveLikelihood(likelihood, hidden=(WIDTH,))
    features = mlp(DIM, WIDTH, out=likelihood.num_features)
    model = StateSpaceModel(GatedTransition(DIM, WIDTH), emission=features, likelihood=likelihood)
    combiner = Combiner(HIDDEN, DIM, out=2 * DIM)
    return model, SequencePosterior(RecurrentReader(KEYS, HIDDEN), DiagonalNormal(combiner, DIM))


def averages(log_px, lengths):
    """The three averages of the literature, in nats per step."""
    log_px, steps = log_px.double(), lengths.double()
    batches = zip(log_px.split(BATCH), steps.split(BATCH), strict=True)
    of_batches = torch.stack([a.sum() / b.sum() for a, b in batches])
    return log_px.sum() / steps.sum(), (log_px / steps).mean(), of_batches.mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--emission", choices=("bernoulli", "autoregressive"), default="bernoulli")
    parser.add_argument("--epochs", type=int, default=600)
    parser.add_argument("--out", default="runs/chorales")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data("jsb-chorales")
    torch.manual_seed(0)
    model, guide = build(args.emission)
    began = time.perf_counter()
    out = Path(args.out) / args.emission
    run = fit(
        model, guide, data, objective=Beta_ELBO(Warmup(args.epochs / 6)), epochs=args.epochs,
        batch_size=BATCH, learning_rate=1e-3, schedule=hold_then_fall(args.epochs), clip_norm=10.0,
        patience=args.epochs, like_lengths=True, seed=0, out=out, resume=out.exists(),
    )  # fmt: skip
    print(f"{time.perf_counter() - began:.0f} s of training")
    x, lengths = data.rows("test")[:2]
    evidence = log_evidence(run.model, run.guide, (x, lengths), num_samples=1000)
    filtered = particle_filter(
        run.model, run.guide, (x, lengths), num_particles=100, num_filters=10
    )
    table = Table("nats per step", "Σ / Σ", "mean over sequences", "mean over batches")
    for name, log_px in {
        "ELBO": evidence.reconstruction - evidence.kl,
        "importance sampling, 1,000 draws": evidence.log_px,
        "particle filter, 10 of 100": filtered.log_px,
    }.items():
        table.add_row(name, *(f"{value:.3f}" for value in averages(log_px, lengths)))
    Console().print(table)


if __name__ == "__main__":
    main()
