"""How fast a step of a recurrent pair is beside Pyro's SVI: sequences of up to 129 steps.

    python benchmarks/chain_steps.py [chorales | gru | lstm] [--rounds 8]

``chorales``: a deep Markov model, with a gated transition of 32 dimensions, a backward GRU and a
combiner of 64, on the 20 longest training chorales. ``gru`` and ``lstm``: a text VAE with such an
encoder and decoder of 64, and z of 32 dimensions, on 20 pieces of 128 characters of Shakespeare's.
Both step the same pair; ``SVI.step`` takes Pyro's Trace_ELBO, latente its default objective,
recorded if it can be. Times are medians of processor time, taken in turn.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

from latente.guides import DiagonalNormal, SequencePosterior
from latente.inference import Beta_ELBO, load_data
from latente.inference.training.step import Step
from latente.models import (
    VAE,
    Bernoulli,
    Categorical,
    Combiner,
    GatedTransition,
    RecurrentLikelihood,
    RecurrentReader,
    SequenceEncoder,
    StandardNormal,
    StateSpaceModel,
    mlp,
)

KEYS, DIM, WIDTH = 88, 32, 64


def chorales():
    """The 20 longest chorales, how many there are, and a deep Markov model."""
    x, lengths = load_data("jsb-chorales").rows("train")[:2]
    longest = lengths.argsort(descending=True)[:20]
    batch = x[longest][:, : lengths.max()].contiguous(), lengths[longest]
    return batch, len(x), markov_pair


def text(cell):
    """Pieces of a text, how many there are, and a VAE with a recurrent decoder."""
    folder = os.environ.get("LATENTE_DATA", "../shared/data")
    whole = (Path(folder) / "tinyshakespeare.txt").read_text(encoding="utf-8").replace("\n", " ")
    pieces = [whole[start : start + 128] for start in range(0, len(whole), 128)]
    data = load_data(pieces[:-1], tokens="characters")
    batch = tuple(part[:20] for part in data.rows("train"))
    num_tokens = len(data.transform.vocabulary)
    return batch, len(data.train), lambda: text_pair(num_tokens, cell)


def text_pair(num_tokens, cell):
    torch.manual_seed(0)
    reader = RecurrentReader((), WIDTH, cell=cell, embed=nn.Embedding(num_tokens, WIDTH))
    encoder = SequenceEncoder(reader, nn.Linear(WIDTH, 2 * DIM), end=0)
    likelihood = RecurrentLikelihood(
        Categorical((), num_tokens), WIDTH, latent_features=DIM, cell=cell, end=0
    )
    return VAE(StandardNormal(DIM), nn.Identity(), likelihood), DiagonalNormal(encoder, DIM)


def markov_pair():
    torch.manual_seed(0)
    emission = mlp(DIM, WIDTH, WIDTH, out=KEYS, activation=nn.ReLU)
    model = StateSpaceModel(GatedTransition(DIM, WIDTH), emission, Bernoulli((KEYS,)))
    combiner = Combiner(WIDTH, DIM, out=2 * DIM)
    return model, SequencePosterior(RecurrentReader(KEYS, WIDTH), DiagonalNormal(combiner, DIM))


def latente(pair, batch, num_data):
    model, guide = pair()
    values = [*model.parameters(), *guide.parameters()]
    named = {str(number): value for number, value in enumerate(values)}
    optimizer = torch.optim.Adam(values, lr=1e-3, fused=True)
    step = Step(
        model, guide, Beta_ELBO(), named, optimizer, num_data=num_data, record_after=0.0
    )  # fmt: skip
    began = time.process_time()
    for _ in range(4):  # plain steps, the recording, and its check
        step(batch)
    print(f"until recorded: {time.process_time() - began:.0f} s {step.note}")
    return lambda: step(batch)


def pyro_svi(pair, batch):
    svi = SVI(*pair(), pyro.optim.ClippedAdam({"lr": 1e-3}), Trace_ELBO())
    svi.step(*batch)
    return lambda: svi.step(*batch)


KINDS = {"chorales": chorales, "gru": lambda: text(nn.GRU), "lstm": lambda: text(nn.LSTM)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", nargs="?", default="chorales", choices=KINDS)
    parser.add_argument("--rounds", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    batch, num_data, pair = KINDS[args.kind]()
    with pyro.validation_enabled(False):
        steps = {"latente": latente(pair, batch, num_data), "Pyro": pyro_svi(pair, batch)}
        times = {name: [] for name in steps}
        for _ in range(args.rounds):
            for name, step in steps.items():
                began = time.process_time()
                step()
                times[name].append(time.process_time() - began)
    for name, taken in times.items():
        print(f"{name}: {1000 * statistics.median(taken):.0f} ms a step of T = {batch[0].shape[1]}")
    ratios = [ours / theirs for ours, theirs in zip(times["latente"], times["Pyro"], strict=True)]
    print(f"latente ÷ Pyro: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
