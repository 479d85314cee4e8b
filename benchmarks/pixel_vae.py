"""A VAE, a PixelCNN and both in one on small binary digits: log p(x), and whether z is in use.

    python benchmarks/pixel_vae.py [--epochs 120] [--seeds 3]
    python benchmarks/pixel_vae.py --size 14 --epochs 20 --seeds 1
    python benchmarks/pixel_vae.py --choose --epochs 40
    python benchmarks/pixel_vae.py --draws

The PixelVAE has the encoder, prior and dense decoder of the VAE, whose last layer gives maps of
features in place of logits, and the PixelCNN, into each of whose layers these maps enter. All are
fitted to the same digits, from several seeds, and keep the weights of the epoch with the best
validation ELBO. With a z the KL is warmed up over the first quarter of the epochs. The VAE, whose
epochs are short, has five times as many. log p(x) of the models with z is importance-sampled.
Differences are those of a test digit, averaged over the seeds: their errors are over test digits.
The digits are the 8 × 8 ones, one in five for the test, or with ``--size 14`` 20,000 training and
2,000 test images of MNIST, of which each 2 × 2 pixels are averaged.
``--choose`` fits with one seed what may be chosen, and shows log p(x) of validation digits alone:
:data:`CHOSEN` is the best.
``--draws`` measures how long 16 draws take, beside passes through the whole network.
"""

import argparse
import itertools
import time
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from rich.table import Table
from torch.nn.functional import avg_pool2d

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

CHANNELS, LAYERS, MAPS, WIDTH = 16, 3, 8, 200
NUM_SAMPLES = {"PixelVAE": 100, "VAE": 5000}
"""Importance samples of a digit: few put log p(x) too low, which must not make the VAE worse."""


@dataclass(frozen=True)
class Settings:
    """What is chosen on validation digits."""

    size: int = 8
    latent: int = 10
    field: int = 2
    free_bits: float = 0.1

    @property
    def image(self):
        return self.size, self.size


CHOSEN = {8: Settings(), 14: Settings(size=14, latent=20)}
"""The settings for each size of image."""
CASES = "PixelVAE", "VAE", "PixelCNN"


def pixel_cnn(settings, latent_features=0):
    return PixelCNN(
        settings.image, CHANNELS, receptive_field=settings.field, layers=LAYERS,
        latent_features=latent_features,
    )  # fmt: skip


def build(case, settings):
    """The pair of a case; the PixelCNN without z has no latent site, so its guide is empty."""
    likelihood, latent = Bernoulli(settings.image), settings.latent
    if case == "PixelCNN":
        return Autoregressive(likelihood, network=pixel_cnn(settings)), lambda x: None
    if case == "PixelVAE":
        network = pixel_cnn(settings, latent_features=(MAPS, *settings.image))
        likelihood = AutoregressiveLikelihood(likelihood, network=network)
    model = VAE(StandardNormal(latent), mlp(latent, WIDTH, out=likelihood.num_features), likelihood)
    return model, DiagonalNormal(mlp(settings.size**2, WIDTH, out=2 * latent), latent)


def fitted(case, settings, data, epochs, seed):
    """A pair at its best epoch, by the validation ELBO."""
    torch.manual_seed(seed)
    model, guide = build(case, settings)
    epochs *= 5 if case == "VAE" else 1
    objective = Beta_ELBO(Warmup(epochs / 4), free_bits=settings.free_bits)
    fit(model, guide, data, objective=None if case == "PixelCNN" else objective, epochs=epochs,
        patience=epochs, batch_size=64, learning_rate=3e-3, schedule=hold_then_fall(epochs),
        seed=seed, show_progress=False)  # fmt: skip
    return model, guide


def judge(case, model, guide, x):
    """log p(x) of each digit, and the active units."""
    if case == "PixelCNN":
        return model.log_prob(x).detach(), "–"
    log_px = log_evidence(model, guide, x, num_samples=NUM_SAMPLES[case]).log_px
    active = evaluate(model, guide, x, num_samples=20)["active_units"]
    return torch.as_tensor(log_px).cpu(), str(active)


def digits_of(size):
    """Binary digits, drawn anew in each epoch of training."""
    if size == 8:
        return load_data("digits", binarize="dynamic", test=0.2, seed=0)
    mnist = load_data("mnist", validation=0.02, seed=0)
    train, test = (avg_pool2d(x, 2) for x in (mnist.train[:20000], mnist.test[:2000]))
    return load_data(train, test=test, binarize="dynamic", seed=0)


def choose(data, epochs, chosen):
    """Show log p(x) of validation digits for each of the settings that are tried."""
    x = torch.as_tensor(data.validation[:])
    tried = {
        "VAE": [replace(chosen, latent=k, free_bits=f) for k in (5, 10) for f in (0.0, 0.1)],
        "PixelCNN": [replace(chosen, field=field) for field in (1, 2, 3)],
        "PixelVAE": [
            *[replace(chosen, field=field) for field in (1, 2, 3)],
            *[replace(chosen, free_bits=free_bits) for free_bits in (0.0,)],
            *[replace(chosen, latent=latent) for latent in (5,)],
        ],
    }
    for case, several in tried.items():
        for settings in several:
            began = time.perf_counter()
            log_px, active = judge(case, *fitted(case, settings, data, epochs, 0), x)
            seconds = time.perf_counter() - began
            said = f"{log_px.mean():.2f} ± {log_px.std() / len(x) ** 0.5:.2f} nats"
            print(f"{case}, {settings}: {said}, {active} active, {seconds:.0f} s", flush=True)


def compare(data, epochs, seeds, settings):
    """Show log p(x) of test digits for each case, and what the PixelVAE gains on it."""
    x = torch.as_tensor(data.test[:])
    found = {case: [] for case in CASES}
    for seed, case in itertools.product(range(seeds), CASES):
        began = time.perf_counter()
        log_px, active = judge(case, *fitted(case, settings, data, epochs, seed), x)
        found[case].append((log_px, active, f"{time.perf_counter() - began:.0f}"))
        print(f"{case}, seed {seed}: {log_px.mean():.2f} nats, {active} active", flush=True)
    table = Table("", "log p(x), each seed", "PixelVAE − this", "active units", "seconds")
    best = torch.stack([log_px for log_px, _, _ in found["PixelVAE"]])
    for case, each in found.items():
        log_px = torch.stack([log_px for log_px, _, _ in each])
        better = (best - log_px).mean(0)  # digit by digit
        gain = f"{better.mean():.2f} ± {better.std() / len(better) ** 0.5:.2f}"
        table.add_row(
            case,
            ", ".join(f"{value:.2f}" for value in log_px.mean(1).tolist()),
            "" if case == "PixelVAE" else gain,
            ", ".join(active for _, active, _ in each),
            ", ".join(seconds for *_, seconds in each),
        )
    Console().print(table)


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
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", type=int, choices=CHOSEN, default=8)
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--draws", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.draws:
        time_draws(field=3)
        return
    data, settings = digits_of(args.size), CHOSEN[args.size]
    if args.choose:
        choose(data, args.epochs, settings)
    else:
        compare(data, args.epochs, args.seeds, settings)


if __name__ == "__main__":
    main()
