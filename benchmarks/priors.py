"""Priors and networks side by side on MNIST, dynamic binarization, for equal budgets.

    python benchmarks/priors.py [--only vamp] [--epochs 100] [--out runs/priors]

The same VAE, K = 40, is fitted from the same seed with each prior (dense networks, 784–300–300),
and with convolutional networks; then held to importance-sampled evidence on test images. The KL is
warmed up over the first fifth of the epochs, and the decoder starts at the mean image: without that
the VampPrior collapses. A fit that is in the folder already is not done again, so the study can be
stopped and gone on with. All of it takes some two hours on 2 cores. ``--time`` measures
instead how long an epoch of each takes, in turns.
"""

import argparse
import json
import time
from pathlib import Path

import torch
import zuko
from rich.console import Console
from rich.table import Table

from latente.guides import DiagonalNormal
from latente.inference import Beta_ELBO, Warmup, evaluate, fit, hold_then_fall, load_data
from latente.models import (
    VAE,
    Bernoulli,
    FlowPrior,
    NormalMixture,
    StandardNormal,
    VampPrior,
    conv_decoder,
    conv_encoder,
    mlp,
)

LATENT, COMPONENTS = 40, 500
IMAGE = (28, 28)
CASES = {
    "standard": "standard normal",
    "mixture": f"mixture of {COMPONENTS} normals",
    "vamp": f"VampPrior, {COMPONENTS} pseudo-inputs",
    "flow": "masked autoregressive flow, 3 transformations",
    "conv": "standard normal, convolutional networks",
}


def build(case, data, seed):
    """The pair of a case, its weights from the seed."""
    torch.manual_seed(seed)
    if case == "conv":
        encoder = conv_encoder(IMAGE, out=2 * LATENT)
        decoder = conv_decoder(LATENT, IMAGE)
    else:
        encoder = mlp(784, 300, 300, out=2 * LATENT)
        decoder = mlp(LATENT, 300, 300, out=784)
    guide = DiagonalNormal(encoder, LATENT)
    if case == "mixture":
        prior = NormalMixture(LATENT, COMPONENTS)
    elif case == "vamp":
        prior = VampPrior(guide, data.train[:COMPONENTS])
    elif case == "flow":
        flow = zuko.flows.MAF(LATENT, transforms=3, hidden_features=(128, 128))
        prior = FlowPrior(flow)
    else:
        prior = StandardNormal(LATENT)
    model = VAE(prior, decoder, Bernoulli(IMAGE)).start_at_mean(data.train[:4096])
    return model, guide


def study(case, data, seed, epochs, folder):
    """Fit a case, or go on with its fit, and evaluate it; the figures, kept in its folder."""
    kept = folder / "figures.json"
    if kept.exists():
        return json.loads(kept.read_text())
    model, guide = build(case, data, seed)
    resume = (folder / "checkpoint.safetensors").exists()
    run = fit(model, guide, data, objective=Beta_ELBO(Warmup(epochs / 5)), epochs=epochs,
              schedule=hold_then_fall(epochs), seed=seed, out=folder, resume=resume)  # fmt: skip
    figures = evaluate(model, guide, data.test[:2000], num_samples=1000)
    figures["seconds"] = sum(row["seconds"] for row in run.history)
    kept.write_text(json.dumps(figures, indent=2))
    return figures


def seconds_an_epoch(data, cases, rounds=3):
    """The median time of an epoch of training of each case, taken in turns."""
    pairs = {case: build(case, data, 0) for case in cases}
    times = {case: [] for case in cases}
    for _ in range(rounds):
        for case, pair in pairs.items():
            began = time.perf_counter()
            fit(*pair, data, epochs=1, show_progress=False)
            times[case].append(time.perf_counter() - began)
    return {case: sorted(taken)[rounds // 2] for case, taken in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=CASES, action="append")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/priors"))
    parser.add_argument("--time", action="store_true")
    args = parser.parse_args()
    data, cases = load_data("mnist", binarize="dynamic", seed=args.seed), args.only or list(CASES)
    table = Table("", "ELBO", "log evidence", "active units", "k̂ bad", "seconds")
    if args.time:
        for case, seconds in seconds_an_epoch(data, cases).items():
            table.add_row(CASES[case], "", "", "", "", f"{seconds:.1f} an epoch")
        Console().print(table)
        return
    for case in cases:
        folder = args.out / f"{case}-{args.epochs}-{args.seed}"
        found = study(case, data, args.seed, args.epochs, folder)
        table.add_row(
            CASES[case],
            f"{found['elbo']:.2f}",
            f"{found['log_evidence']:.2f} ± {found['log_evidence_se']:.2f}",
            f"{found['active_units']} of {LATENT}",
            f"{found['khat_bad_fraction']:.0%}",
            f"{found['seconds']:.0f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
