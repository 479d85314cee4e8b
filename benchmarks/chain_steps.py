"""How fast a step of a deep Markov model is beside Pyro's SVI: chorales of up to 129 steps.

    python benchmarks/chain_steps.py [--rounds 8]

A gated transition of 32 dimensions, a backward GRU and a combiner of 64, on the 20 longest training
chorales. Both step the same pair; ``SVI.step`` takes Pyro's Trace_ELBO, latente its default
objective, recorded. Times are medians of processor time, taken in turn.
"""

import argparse
import statistics
import time

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO

from latente.guides import DiagonalNormal, SequencePosterior
from latente.inference import Beta_ELBO, load_data
from latente.inference.training.step import Step
from latente.models import (
    Bernoulli,
    Combiner,
    GatedTransition,
    RecurrentReader,
    StateSpaceModel,
    mlp,
)

KEYS, DIM, WIDTH = 88, 32, 64


def pair():
    torch.manual_seed(0)
    emission = mlp(DIM, WIDTH, WIDTH, out=KEYS, activation=torch.nn.ReLU)
    model = StateSpaceModel(GatedTransition(DIM, WIDTH), emission, Bernoulli((KEYS,)))
    combiner = Combiner(WIDTH, DIM, out=2 * DIM)
    return model, SequencePosterior(RecurrentReader(KEYS, WIDTH), DiagonalNormal(combiner, DIM))


def latente(batch, num_data):
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


def pyro_svi(batch):
    svi = SVI(*pair(), pyro.optim.ClippedAdam({"lr": 1e-3}), Trace_ELBO())
    svi.step(*batch)
    return lambda: svi.step(*batch)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(1)
    x, lengths = load_data("jsb-chorales").rows("train")[:2]
    longest = lengths.argsort(descending=True)[:20]
    batch = x[longest][:, : lengths.max()].contiguous(), lengths[longest]
    with pyro.validation_enabled(False):
        steps = {"latente": latente(batch, len(x)), "Pyro": pyro_svi(batch)}
        times = {name: [] for name in steps}
        for _ in range(args.rounds):
            for name, step in steps.items():
                began = time.process_time()
                step()
                times[name].append(time.process_time() - began)
    for name, taken in times.items():
        print(f"{name}: {1000 * statistics.median(taken):.0f} ms a step of T = {lengths.max()}")
    ratios = [ours / theirs for ours, theirs in zip(times["latente"], times["Pyro"], strict=True)]
    print(f"latente ÷ Pyro: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
