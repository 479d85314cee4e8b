"""Labels of 100 of MNIST's images: M1+M2 of Kingma et al. 2014 (arXiv 1406.5298), by enumeration.

M1 is a VAE of all training images without labels, and M2 is fitted to one draw of its posterior for
each image, for three draws of the 100 labels. Prints the accuracy on the 10,000 test images at the
posterior means, and the bounds of M2 in nats per datum, which are of the 50 features and not of
images: E[log p(f, y)] of the labelled rows, E[log p(f)] of test rows.

    python benchmarks/half_known_labels.py --out runs/half-known
"""

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from latente.guides import Classifying, DiagonalNormal
from latente.inference import (
    AuxiliaryLoss,
    Beta_ELBO,
    Data,
    SomeLabels,
    evaluate,
    fit,
    hold_then_fall,
    load_data,
    load_run,
)
from latente.models import (
    VAE,
    Bernoulli,
    Conditional,
    FlattenEvent,
    HalfLabelled,
    Normal,
    OneHot,
    StandardNormal,
    mlp,
)

FEATURES, CLASSES = 50, 10
"""Dimensions of z of M1, which M2 takes for data; digits."""


def fit_m1(out: Path, epochs: int) -> DiagonalNormal:
    """The guide of a VAE of MNIST, fitted, or read from its folder."""
    data = load_data("mnist", binarize="dynamic", seed=0)
    torch.manual_seed(0)
    vae = VAE(StandardNormal(FEATURES), mlp(FEATURES, 600, 600, out=784), Bernoulli((28, 28)))
    guide = DiagonalNormal(mlp(784, 600, 600, out=2 * FEATURES), FEATURES)
    if (out / "checkpoint.safetensors").exists():
        load_run(out, model=vae, guide=guide)
        return guide
    schedule = hold_then_fall(epochs)
    options = {"batch_size": 500, "learning_rate": 2e-3, "schedule": schedule, "out": out}
    run = fit(vae, guide, data, epochs=epochs, seed=0, **options)
    print("M1:", {name: round(run.history[-1][name], 2) for name in ("elbo", "validation_elbo")})
    return guide


@torch.no_grad()
def features_of(guide: DiagonalNormal, x: Tensor) -> tuple[Tensor, Tensor]:
    """Means of the posterior of each image, and one draw of it: (N, 50) each."""
    posterior = guide.posterior(x)
    return posterior.mean, posterior.sample()


def make_m2(latent_dim: int, width: int) -> tuple[HalfLabelled, Classifying]:
    """M2 of vectors of features."""
    likelihood = Normal((FEATURES,), scale=None)
    decoder = Conditional(
        mlp(latent_dim + CLASSES, width, out=likelihood.num_features),
        FlattenEvent(latent_dim),
        OneHot(CLASSES),
    )
    encoder = Conditional(
        mlp(FEATURES + CLASSES, width, out=2 * latent_dim), FlattenEvent(FEATURES), OneHot(CLASSES)
    )
    model = HalfLabelled(VAE(StandardNormal(latent_dim), decoder, likelihood), CLASSES)
    guide = Classifying(DiagonalNormal(encoder, latent_dim), mlp(FEATURES, width, out=CLASSES))
    return model, guide


def run_draw(data: Data, guide: DiagonalNormal, args: argparse.Namespace, seed: int) -> float:
    """Fit M2 with one draw of the known labels; returns the accuracy on the test images."""
    (labels,) = data.train_context
    assert isinstance(data.train, Tensor)
    assert isinstance(data.test, Tensor)
    assert isinstance(labels, Tensor)
    torch.manual_seed(seed)
    (_, train), (means, test) = features_of(guide, data.train), features_of(guide, data.test)
    start = time.process_time()
    model, own = make_m2(args.latent_dim, args.width)
    known = labels >= 0
    weight = args.weight * len(labels) / int(known.sum())
    run = fit(
        model,
        own,
        (train, labels),
        objective=AuxiliaryLoss(Beta_ELBO(), {"classifier_loss": weight}),
        epochs=args.epochs,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        schedule=hold_then_fall(args.epochs),
        seed=seed,
    )
    seconds = time.process_time() - start
    unknown = torch.full((len(means),), -1)
    right = own.classify(means).logits.argmax(1) == data.test_labels
    share = right.double().mean().item()
    some = slice(0, 1000)
    of_test = evaluate(run.model, run.guide, (test[some], unknown[some]), num_samples=100)
    of_known = evaluate(run.model, run.guide, (train[known], labels[known]), num_samples=100)
    print(
        f"labels {seed}: accuracy {share:.2%}; ELBO of test features {of_test['elbo']:.2f} "
        f"(log p(f) {of_test['log_evidence']:.2f}), of labelled ones with their label "
        f"{of_known['elbo']:.2f} (log p(f, y) {of_known['log_evidence']:.2f}); "
        f"{seconds:.0f} s of processor time; {run.note}",
        flush=True,
    )
    return share


def main() -> None:
    """Run all draws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/half-known"))
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--known", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--m1-epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=200)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--latent-dim", type=int, default=5)
    parser.add_argument("--width", type=int, default=200)
    parser.add_argument("--weight", type=float, default=0.1)
    args = parser.parse_args()
    guide = fit_m1(args.out, args.m1_epochs)
    found = []
    for seed in range(args.draws):
        data = load_data("mnist", given=SomeLabels(args.known), seed=0)
        data = SomeLabels(args.known).hide(data, seed)
        found.append(run_draw(data, guide, args, seed))
    shares = torch.tensor(found, dtype=torch.float64)
    print(f"mean of {args.draws} draws of the labels: {shares.mean().item():.2%}")


if __name__ == "__main__":
    main()
