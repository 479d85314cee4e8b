"""A VAE, a PixelCNN and both in one on binary 8 × 8 digits: log p(x), and whether z is in use.

    python benchmarks/pixel_vae.py [--field 1] [--epochs 80] [--seeds 1]

All are fitted from the same seeds, and keep the weights of the epoch with the best validation ELBO.
The PixelVAE has the VAE's encoder and prior, and the PixelCNN with z in each layer. With a z the KL
is warmed up over the first quarter of the epochs, and 0.1 nat for each unit is free. The VAE, whose
epochs are short, has five times as many. log p(x) of the models with z is importance-sampled, with
1,000 samples. A seed takes a few minutes on one core.
``--draws`` measures instead how long 16 draws take, beside passes through the whole network.
"""

import argparse
import itertools
import time

import torch
from rich.console import Console
from rich.table import Table

from latente.guides import DiagonalNormal
from latente.inference import (
    Beta_ELBO,
    Warmup,
    evaluate,
    fit,
    hold_then_fall,
    load_data,
    log_evidence,
)
from latente.models import (
    VAE,
    Autoregressive,
    AutoregressiveLikelihood,
    AutoregressiveNetwork,
    Bernoulli,
    DiscretizedLogistic,
    PixelCNN,
    StandardNormal,
    mlp,
)

LATENT, FEATURES, IMAGE = 5, 32, (8, 8)


def pixel_cnn(field, latent_features=0):
    return PixelCNN(IMAGE, 16, receptive_field=field, layers=3, latent_features=latent_features)


def build(case, field):
    """The pair of a case; the PixelCNN without z has no latent site, so its guide is empty."""
    if case == "PixelCNN":
        return Autoregressive(Bernoulli(IMAGE), network=pixel_cnn(field)), lambda x: None
    likelihood = Bernoulli(IMAGE)
    if case == "PixelVAE":
        network = pixel_cnn(field, latent_features=FEATURES)
        likelihood = AutoregressiveLikelihood(likelihood, network=network)
    decoder = mlp(LATENT, 200, out=likelihood.num_features)
    model = VAE(StandardNormal(LATENT), decoder, likelihood)
    return model, DiagonalNormal(mlp(64, 200, out=2 * LATENT), LATENT)


def study(case, data, field, epochs, seed):
    """Fit a case: log p(x) of each test digit, active units, and seconds."""
    began = time.perf_counter()
    torch.manual_seed(seed)
    model, guide = build(case, field)
    epochs *= 5 if case == "VAE" else 1
    objective = None if case == "PixelCNN" else Beta_ELBO(Warmup(epochs / 4), free_bits=0.1)
    fit(model, guide, data, objective=objective, epochs=epochs, patience=epochs, batch_size=64,
        learning_rate=3e-3, schedule=hold_then_fall(epochs), seed=seed,
        show_progress=False)  # fmt: skip
    seconds = time.perf_counter() - began
    if case == "PixelCNN":
        return model.log_prob(data.test).detach(), "–", seconds
    evidence = log_evidence(model, guide, data.test, num_samples=1000)
    active = evaluate(model, guide, data.test, num_samples=100)["active_units"]
    return evidence.log_px, str(active), seconds


@torch.no_grad()
def seconds_of_draws(likelihood, field, num=16, passes=20):
    """The time of draws, and that of a pass through the whole network for each pixel."""
    shape, per_element = tuple(likelihood.event_shape), likelihood.features_per_element
    network = PixelCNN(
        shape, receptive_field=field, features_per_element=per_element, latent_features=16
    )
    latent = torch.randn(num, 16)
    distribution = AutoregressiveLikelihood(likelihood, network=network)(latent)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        distribution.sample()
        times.append(time.perf_counter() - began)
    began = time.perf_counter()
    naive = AutoregressiveNetwork.features_in_order(network, torch.zeros(num, *shape), latent)
    for _, features in itertools.islice(naive, passes):
        likelihood(features).sample()
    return sorted(times)[1], (time.perf_counter() - began) / passes * shape[0] * shape[1]


def time_draws(field):
    table = Table("pixels", "bits", "10 logistics", title=f"receptive field {field}")
    for size in (8, 14, 28):
        shape = (size, size)
        cells = []
        for likelihood in (Bernoulli(shape), DiscretizedLogistic(shape, 10)):
            ours, naive = seconds_of_draws(likelihood, field)
            cells.append(f"{ours:.2f} s of {naive:.2f} s: 1/{naive / ours:.1f}")
        table.add_row(f"{size} × {size}", *cells)
    Console().print(table)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--field", type=int, default=3, help="the PixelCNN's receptive field")
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--draws", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.draws:
        time_draws(args.field)
        return
    table = Table("", "log p(x), each seed", "PixelVAE − this", "active units", "seconds")
    cases = "PixelVAE", "PixelCNN", "VAE"
    found = {case: [] for case in cases}
    for seed in range(args.seeds):
        data = load_data("digits", binarize="dynamic", seed=seed)
        for case in cases:
            found[case].append(study(case, data, args.field, args.epochs, seed))
            log_px, active, seconds = found[case][-1]
            print(
                f"{case}, seed {seed}: {log_px.mean():.2f} nats, {active} active, {seconds:.0f} s"
            )
    for case in cases:
        log_px = torch.stack([torch.as_tensor(each[0]).cpu() for each in found[case]])
        best = torch.stack([torch.as_tensor(each[0]).cpu() for each in found["PixelVAE"]])
        better = (best - log_px).flatten()  # digit by digit
        table.add_row(
            case,
            ", ".join(f"{value:.2f}" for value in log_px.mean(1).tolist()),
            f"{better.mean():.2f} ± {better.std() / len(better) ** 0.5:.2f}",
            ", ".join(each[1] for each in found[case]),
            ", ".join(f"{each[2]:.0f}" for each in found[case]),
        )
    Console().print(table)


if __name__ == "__main__":
    main()
