"""DRAW beside a VAE with as many parameters: log p(x), and the time that each takes.

    python benchmarks/draw.py                      # 8 × 8 digits, with attention
    python benchmarks/draw.py --data mnist         # MNIST, without attention, T = 10
    python benchmarks/draw.py --steps              # a recorded step beside Pyro's SVI.step

Both are fitted to images that are binarized anew each epoch, with Adam at 2e-3 that falls to zero,
the KL warmed up over the first quarter of the epochs, and keep the weights of the epoch with the
best validation ELBO. The VAE has two hidden layers each way, as wide as the number of DRAW's
parameters allows, and latent variables of as many dimensions, T · D; its epochs are short, and it
has more of them. log p(x) is importance-sampled on test images; differences are those of an image.
With ``--out`` the runs are kept, and one that was cut off goes on.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO

from latente.guides import DiagonalNormal, DrawPosterior
from latente.inference import (
    Beta_ELBO,
    Warmup,
    fit,
    hold_then_fall,
    load_data,
    log_evidence,
    plot_canvases,
)
from latente.inference.training.step import Step
from latente.models import VAE, Bernoulli, DrawDecoder, StandardNormal, mlp


@dataclass(frozen=True)
class Settings:
    """What is fitted to a data set, and for how long."""

    image: tuple[int, int]
    num_steps: int
    dim: int
    hidden: int
    window: int | None
    batch: int
    epochs: dict[str, int]
    num_test: int
    num_samples: dict[str, int]


SETTINGS = {
    "digits": Settings(
        (8, 8), 8, 4, 64, 3, 64, {"DRAW": 150, "VAE": 1000}, 360, {"DRAW": 1000, "VAE": 5000}
    ),
    "mnist": Settings(
        (28, 28), 10, 10, 64, None, 100, {"DRAW": 6, "VAE": 40}, 500, {"DRAW": 200, "VAE": 1000}
    ),
}


def draw(settings):
    """The model of DRAW and its guide."""
    likelihood, hidden, dim = Bernoulli(settings.image), settings.hidden, settings.dim
    latent = settings.num_steps, dim
    decoder = DrawDecoder(settings.image, latent, hidden, window=settings.window)
    family = DiagonalNormal(mlp(hidden, out=2 * dim), dim)
    guide = DrawPosterior(family, decoder, likelihood, hidden=hidden, window=settings.window)
    return VAE(StandardNormal(latent), decoder, likelihood), guide


def vae(settings, width):
    """A VAE whose networks have two hidden layers."""
    pixels, latent = settings.image[0] * settings.image[1], settings.num_steps * settings.dim
    decoder = mlp(latent, width, width, out=pixels)
    model = VAE(StandardNormal(latent), decoder, Bernoulli(settings.image))
    return model, DiagonalNormal(mlp(pixels, width, width, out=2 * latent), latent)


def num_parameters(pair):
    """Those of model and guide, each counted once."""
    return sum(value.numel() for value in {p for part in pair for p in part.parameters()})


def build(case, settings):
    """A pair; the VAE is as wide as DRAW's number of parameters allows."""
    if case == "DRAW":
        return draw(settings)
    most, width = num_parameters(draw(settings)), 1
    while num_parameters(vae(settings, width + 1)) <= most:
        width += 1
    return vae(settings, width)


def fitted(case, settings, data, seed, out):
    """A pair at its best epoch, with the seconds that the fit took."""
    torch.manual_seed(seed)
    pair, epochs, began = build(case, settings), settings.epochs[case], time.process_time()
    pair[0].start_at_mean(data.train)
    folder = Path(out) / f"{case}-{seed}" if out else None
    run = fit(*pair, data, objective=Beta_ELBO(Warmup(epochs / 4)), epochs=epochs, patience=epochs,
              batch_size=settings.batch, learning_rate=2e-3, clip_norm=10.0,
              schedule=hold_then_fall(epochs), seed=seed, show_progress=False,
              out=folder, resume=folder is not None and folder.exists())  # fmt: skip
    for row in run.history[:: max(1, epochs // 10)]:
        told = {name: round(row[name], 2) for name in ("elbo", "kl", "validation_elbo")}
        print(f"{case}: epoch {row['epoch']}, {told}", flush=True)
    print(f"{case}: {run.note or 'recorded'}", flush=True)
    return run, time.process_time() - began


def compare(settings, data, seeds, out):
    """Print log p(x) of test images for both, and what DRAW gains."""
    x = torch.as_tensor(data.test[: settings.num_test])
    for seed in range(seeds):
        found = {}
        for case in ("VAE", "DRAW"):
            run, seconds = fitted(case, settings, data, seed, out)
            evidence = log_evidence(run.model, run.guide, x, num_samples=settings.num_samples[case])
            found[case] = evidence.log_px
            print(
                f"{case}, seed {seed}, {num_parameters((run.model, run.guide))} parameters: "
                f"log p(x) {evidence.mean:.2f}, ELBO {evidence.elbo:.2f}, bad k̂ "
                f"{evidence.khat_bad_fraction:.1%}, {seconds:.0f} s", flush=True,
            )  # fmt: skip
            if case == "DRAW" and out:
                figure = plot_canvases(run.model, run.guide, x)
                figure.savefig(f"{out}/canvases-{seed}.png", dpi=150)
        better = found["DRAW"] - found["VAE"]
        error = better.std() / len(better) ** 0.5
        print(f"DRAW − VAE, seed {seed}: {better.mean():.2f} ± {error:.2f} nats", flush=True)


def load_images(name):
    """The digits, one in five for the test; of MNIST, 20,000 images to fit and to validate."""
    if name == "digits":
        return load_data(name, binarize="dynamic", test=0.2, seed=0)
    mnist = load_data(name, validation=0.02, seed=0)
    return load_data(mnist.train[:20000], test=mnist.test[:2000], binarize="dynamic", seed=0)


def time_steps(settings, x, rounds=8):
    """Print processor time of a recorded step beside that of Pyro's SVI, taken in turn."""
    model, guide = build("DRAW", settings)
    values = [*{p for part in (model, guide) for p in part.parameters()}]
    named = {str(number): value for number, value in enumerate(values)}
    optimizer = torch.optim.Adam(values, lr=1e-3, fused=True)
    step = Step(
        model, guide, Beta_ELBO(), named, optimizer, num_data=len(x), record_after=0.0
    )  # fmt: skip
    for _ in range(4):  # plain steps, the recording, and its check
        step((x,))
    svi = SVI(*build("DRAW", settings), pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    svi.step(x)
    times = []
    for _ in range(rounds):
        taken = []
        for run in (lambda: step((x,)), lambda: svi.step(x)):
            began = time.process_time()
            run()
            taken.append(time.process_time() - began)
        times.append(taken)
    ours, theirs = torch.tensor(times).median(0).values.tolist()
    print(f"recorded: {step.note or 'yes'}; {1000 * ours:.0f} ms, SVI.step {1000 * theirs:.0f} ms")
    ratio = torch.tensor([ours / theirs for ours, theirs in times]).median()
    print(f"latente ÷ Pyro: {ratio:.2f}")


def main():
    """Fit both and compare, or time a step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=SETTINGS, default="digits")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", default=None, help="folder of the runs and the picture")
    parser.add_argument("--steps", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    settings = SETTINGS[args.data]
    data = load_images(args.data)
    if args.steps:
        time_steps(settings, torch.as_tensor(data.train[: settings.batch]).round())
    else:
        compare(settings, data, args.seeds, args.out)


if __name__ == "__main__":
    main()
