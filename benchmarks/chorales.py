"""Deep Markov models of Bach's chorales: −ELBO and log p(x) in nats per step, by three averages.

    python benchmarks/chorales.py [--emission bernoulli] [--epochs 300] [--out runs/chorales]
    python benchmarks/chorales.py --emission autoregressive

z of 64 dimensions with a gated transition, a backward GRU as encoder with Krishnan's combiner;
emissions are independent keys, or each key given those below it. Adam from 3e-3 with a weight decay
of 0.2, batches of 20 sequences of like lengths, the KL warmed up from 0.2 over the first 80 epochs,
the rate falling over the last 30 % of them. log p(x) is estimated by importance sampling and by a
particle filter. A run that was cut off goes on.

The literature averages in three ways: Σ log p / Σ T (per step), the mean over sequences of
log p / T, and the mean over minibatches of Σ log p / Σ T; here the last is of batches of 20 in
order.
"""

import argparse
import time
from functools import partial
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
BATCH, WARMUP = 20, 80


def build(emission):
    """The deep Markov model and its guide."""
    likelihood = Bernoulli((KEYS,))
    if emission == "autoregressive":
        likelihood = AutoregressiveLikelihood(likelihood, hidden=(WIDTH,))
    features = mlp(DIM, WIDTH, WIDTH, out=likelihood.num_features)
    model = StateSpaceModel(GatedTransition(DIM, WIDTH), emission=features, likelihood=likelihood)
    family = DiagonalNormal(Combiner(HIDDEN, DIM, out=2 * DIM), DIM)
    return model, SequencePosterior(RecurrentReader(KEYS, HIDDEN), family)


def averages(log_px, lengths):
    """The three averages of the literature, in nats per step."""
    log_px, steps = log_px.double(), lengths.double()
    batches = zip(log_px.split(BATCH), steps.split(BATCH), strict=True)
    of_batches = torch.stack([a.sum() / b.sum() for a, b in batches])
    return log_px.sum() / steps.sum(), (log_px / steps).mean(), of_batches.mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--emission", choices=("bernoulli", "autoregressive"), default="bernoulli")
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--out", default="runs/chorales")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = load_data("jsb-chorales")
    torch.manual_seed(0)
    model, guide = build(args.emission)
    if args.emission == "bernoulli":
        model.start_at_mean(*data.rows("train")[:2])
    began = time.perf_counter()
    out = Path(args.out) / args.emission
    run = fit(
        model, guide, data, objective=Beta_ELBO(Warmup(WARMUP, 0.2)), epochs=args.epochs,
        batch_size=BATCH, learning_rate=3e-3, optimizer=partial(torch.optim.Adam, weight_decay=0.2),
        schedule=hold_then_fall(args.epochs, 0.7), clip_norm=10.0, like_lengths=True, seed=0,
        out=out, resume=out.exists(),
    )  # fmt: skip
    print(f"{time.perf_counter() - began:.0f} s of training")
    x, lengths = data.rows("test")[:2]
    evidence = log_evidence(run.model, run.guide, (x, lengths), num_samples=1000)
    filtered = particle_filter(run.model, run.guide, (x, lengths), num_particles=100, num_filters=5)
    table = Table("nats per step", "Σ / Σ", "mean over sequences", "mean over batches")
    for name, log_px in {
        "ELBO": evidence.reconstruction - evidence.kl,
        "importance sampling, 1,000 draws": evidence.log_px,
        "particle filter, 5 of 100": filtered.log_px,
    }.items():
        table.add_row(name, *(f"{value:.3f}" for value in averages(log_px, lengths)))
    Console().print(table)


if __name__ == "__main__":
    main()
