"""Labels of 100 of MNIST's images: M1+M2 of Kingma et al. 2014 (arXiv 1406.5298), by enumeration.

M1 is a VAE of all training images without labels. M2 is fitted to the means of its posteriors in
those of its 50 dimensions that are in use, standardized, for three draws of the 100 labels. (The
paper takes draws in place of means; with those the accuracy was 86 %.) Prints the accuracy on the
10,000 test images, and the bounds of M2 in nats per datum, which are of the features and not of
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

LATENT_DIM, CLASSES = 50, 10
"""Dimensions of z of M1; digits."""
IN_USE = 0.3
"""Standard deviation of a posterior mean over the images from which on a dimension is a feature."""


def fit_m1(out: Path, epochs: int) -> DiagonalNormal:
    """The guide of a VAE of MNIST, fitted, or read from its folder."""
    data = load_data("mnist", binarize="dynamic", seed=0)
    torch.manual_seed(0)
    vae = VAE(StandardNormal(LATENT_DIM), mlp(LATENT_DIM, 600, 600, out=784), Bernoulli((28, 28)))
    guide = DiagonalNormal(mlp(784, 600, 600, out=2 * LATENT_DIM), LATENT_DIM)
    if (out / "checkpoint.safetensors").exists():
        load_run(out, model=vae, guide=guide)
        return guide
    schedule = hold_then_fall(epochs)
    options = {"batch_size": 500, "learning_rate": 2e-3, "schedule": schedule, "out": out}
    run = fit(vae, guide, data, epochs=epochs, seed=0, **options)
    print("M1:", {name: round(run.history[-1][name], 2) for name in ("elbo", "validation_elbo")})
    return guide


@torch.no_grad()
def features_of(guide: DiagonalNormal, train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """The posterior means of images in the dimensions that are in use, standardized."""
    means, others = guide.posterior(train).mean, guide.posterior(test).mean
    centre, scale = means.mean(0), means.std(0)
    used = scale > IN_USE
    return ((means - centre) / scale)[:, used], ((others - centre) / scale)[:, used]


def make_m2(features: int, latent_dim: int, width: int) -> tuple[HalfLabelled, Classifying]:
    """M2 of vectors of features."""
    likelihood = Normal((features,), scale=None)
    decoder = Conditional(
        mlp(latent_dim + CLASSES, width, out=likelihood.num_features),
        FlattenEvent(latent_dim),
        OneHot(CLASSES),
    )
    encoder = Conditional(
        mlp(features + CLASSES, width, out=2 * latent_dim), FlattenEvent(features), OneHot(CLASSES)
    )
    model = HalfLabelled(VAE(StandardNormal(latent_dim), decoder, likelihood), CLASSES)
    guide = Classifying(DiagonalNormal(encoder, latent_dim), mlp(features, width, out=CLASSES))
    return model, guide


def run_draw(data: Data, guide: DiagonalNormal, args: argparse.Namespace, seed: int) -> float:
    """Fit M2 with one draw of the known labels; returns the accuracy on the test images."""
    (labels,) = data.train_context
    assert isinstance(data.train, Tensor)
    assert isinstance(data.test, Tensor)
    assert isinstance(labels, Tensor)
    torch.manual_seed(seed)
    train, test = features_of(guide, data.train, data.test)
    start = time.process_time()
    model, own = make_m2(train.shape[1], args.latent_dim, args.width)
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
    unknown = torch.full((len(test),), -1)
    right = own.classify(test).logits.argmax(1) == data.test_labels
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
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--m1-epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=500)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    parser.add_argument("--latent-dim", type=int, default=3)
    parser.add_argument("--width", type=int, default=300)
    parser.add_argument("--weight", type=float, default=1.0)
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
