"""Samples of a fitted table beside the data: marginals and correlations of 12 mixed columns.

    python benchmarks/mixed_table.py [--epochs 300] [--latent-dim 4] [--seed 0]

2,000 rows are made from three latent factors, by maps that are not linear: three normal columns,
two log-normal ones, two of counts, two binary, two categorical and an ordinal one. The kinds are
inferred, a VAE with a ColumnLikelihood is fitted, and 2,000 rows are drawn from it and decoded.

The same figures of 2,000 new rows of the true process say how far two samples of that size differ
by chance. Correlations are of numbers (of logarithms for log-normal columns), of bits and levels,
and of indicators of classes. A minute on one core.
"""

import argparse

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from latente.guides import DiagonalNormal
from latente.inference import (
    column_families,
    decode_columns,
    describe_columns,
    encode_columns,
    evaluate,
    fit,
    hold_then_fall,
    infer_columns,
    sample_prior,
)
from latente.models import VAE, ColumnFeatures, ColumnLikelihood, StandardNormal, mlp

ROWS, WIDTH = 2000, 64


def make_table(seed):
    """A table of people: three factors (wealth, age, health) and what follows from them."""
    rng = np.random.default_rng(seed)
    wealth, years, health = rng.normal(size=(3, ROWS))
    noise = rng.normal(size=(5, ROWS))

    def bits(log_odds):
        return rng.random(ROWS) < 1 / (1 + np.exp(-log_odds))

    def classes(names, *logits):
        gumbel = rng.gumbel(size=(len(names), ROWS))
        return np.array(names)[(np.stack(np.broadcast_arrays(*logits)) + gumbel).argmax(0)]

    grade = np.digitize(1.3 * wealth + rng.logistic(size=ROWS), [-2.0, -0.5, 0.5, 2.5])
    levels = ["none", "school", "college", "master", "doctor"]
    return pd.DataFrame(
        {
            "age": 45 + 12 * years + 3 * noise[0],
            "pressure": 125 + 8 * years - 6 * health + 3 * years * health + 5 * noise[1],
            "height": 171 + 3 * health + 8 * noise[2],
            "income": np.exp(10 + 0.6 * wealth + 0.3 * np.tanh(years) + 0.3 * noise[3]),
            "rent": np.exp(6.5 + 0.4 * wealth + 0.2 * noise[4]),
            "visits": rng.poisson(np.exp(0.6 - 0.7 * health + 0.3 * years)),
            "children": rng.negative_binomial(3, 3 / (3 + np.exp(0.4 + 0.3 * years))),
            "smoker": bits(-1 - health - 0.5 * wealth),
            "owner": bits(-0.3 + 1.5 * wealth + 1.0 * years),
            "work": classes(["none", "office", "manual", "retired"],
                            -1.0, 0.5 + wealth, 0.5 - wealth, -1.0 + 2.5 * years),
            "town": classes(["north", "south", "coast"], 0.0, 0.5 * health, 0.7 * wealth),
            "grade": pd.Categorical.from_codes(grade, levels, ordered=True),
        }
    )  # fmt: skip


def fit_table(values, columns, epochs, latent_dim, seed):
    """The pair fitted to an encoded table."""
    torch.manual_seed(seed)
    x = torch.from_numpy(values).float()
    families = column_families(columns, x)
    features, likelihood = ColumnFeatures(families), ColumnLikelihood(families)
    decoder = mlp(latent_dim, WIDTH, out=likelihood.num_features)
    model = VAE(StandardNormal(latent_dim), decoder, likelihood).start_at_mean(x)
    encoder = mlp(features.num_features, WIDTH, out=2 * latent_dim)
    guide = DiagonalNormal(nn.Sequential(features, encoder), latent_dim)
    run = fit(
        model,
        guide,
        x,
        epochs=epochs,
        batch_size=100,
        learning_rate=3e-3,
        schedule=hold_then_fall(epochs),
        seed=seed,
    )
    return run, x


def numbers(frame):
    """Numbers that are compared: logarithms, bits, levels, and indicators of classes."""
    found = {}
    for name, column in frame.items():
        if isinstance(column.dtype, pd.CategoricalDtype):
            found[name] = column.cat.codes.astype(float)
        elif column.dtype.kind == "O":
            for word in sorted(set(column))[1:]:
                found[f"{name} {word}"] = (column == word).astype(float)
        else:
            is_positive = name in ("income", "rent")
            found[f"log {name}" if is_positive else name] = (
                np.log(column) if is_positive else column.astype(float)
            )
    return pd.DataFrame(found)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--latent-dim", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    console = Console(width=120)
    frame, fresh = make_table(options.seed), make_table(options.seed + 1)
    columns = infer_columns(frame)
    console.print(describe_columns(columns), highlight=False)
    values = encode_columns(frame, columns)
    run, x = fit_table(values, columns, options.epochs, options.latent_dim, options.seed)
    figures = evaluate(run.model, run.guide, x[:500], num_samples=200)
    shown = ("log_evidence", "elbo", "kl", "active_units")
    console.print({name: round(figures[name], 3) for name in shown})
    draws = sample_prior(run.model, run.guide, ROWS, x, seed=options.seed)[1]
    tables = [numbers(one) for one in (frame, decode_columns(draws, columns), fresh)]
    table = Table("", "mean: data", "samples", "new rows", "sd: data", "samples", "new rows")
    for name in tables[0]:
        means = [f"{one[name].mean():.3f}" for one in tables]
        spreads = [f"{one[name].std():.3f}" for one in tables]
        table.add_row(name, *means, *spreads)
    console.print(table)
    data, samples, new = (one.corr().to_numpy() for one in tables)
    pairs = np.triu_indices(len(data), 1)
    for what, other in (("samples", samples), ("new rows", new)):
        gaps = np.abs(other - data)[pairs]
        near = np.corrcoef(other[pairs], data[pairs])[0, 1]
        console.print(
            f"correlations of {what} and of the data: apart by {gaps.mean():.3f} on average, "
            f"{gaps.max():.3f} at most, of {len(gaps)}; their own correlation {near:.3f}"
        )


if __name__ == "__main__":
    main()
