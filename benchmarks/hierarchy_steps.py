"""How fast a step of a ladder VAE is beside PyTorch by hand and Pyro's SVI, and against its depth.

    python benchmarks/hierarchy_steps.py [--threads 1] [--rounds 5]

The ladder of 5 dense levels (64 to 4 dimensions, networks of 512 to 32) on 128 images of binarized
MNIST, ``TraceMeanField_ELBO``, fused Adam. By hand is one ``nn.Module``: the network of each prior
runs once, KLs are in closed form, logits go to the fused cross-entropy. Pyro is ``SVI.step`` of the
same model and guide, all validation off. Contestants run in one process, in turns; ratios are
medians over rounds. Then the step of ladders of 2 to 10 levels of one size, and the straight line
through their times.
"""

import argparse
import contextlib
import statistics
from collections.abc import Sequence

import pyro
import torch
from peers import NUM_DATA, RATE, Contestant
from pyro import infer
from speed_steps import approach, ratio, step_batches, straight_line, take_turn
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.functional import softplus

from latente.inference.pairs.parameters import parameters
from latente.inference.pairs.programs import private_store
from latente.inference.recipes.build import build_planned, planned_sizes
from latente.inference.recipes.map_levels import MAX_LOG_SCALE
from latente.inference.recipes.plan import Plan
from latente.inference.training.step import Step

DIMS, WIDTHS = (64, 32, 16, 8, 4), (512, 256, 128, 64, 32)
BATCH = 128


def pair(dims: Sequence[int], widths: Sequence[int]):
    """Latente's model and guide."""
    listed = "-".join(map(str, dims)), "-".join(map(str, widths))
    # Batch normalization would take the same time in all, and hide what they differ by.
    plan = Plan(
        recipe="ladder", levels=f"ladder:dims={listed[0]},widths={listed[1]},batch_norm=false"
    )
    return build_planned(plan, planned_sizes(plan, (28, 28)))


@contextlib.contextmanager
def apart():
    """Parameters of its own, and no validation."""
    with private_store(), pyro.validation_enabled(False):
        yield


def latente(dims: Sequence[int], widths: Sequence[int], batches: Sequence[Tensor]) -> Contestant:
    """Latente's recorded step."""
    model, guide = pair(dims, widths)
    with apart():
        named = parameters(model, guide, (batches[0],))
        optimizer = torch.optim.Adam(list(named.values()), lr=RATE, fused=True)
        objective = infer.TraceMeanField_ELBO()
        step = Step(
            model, guide, objective, named, optimizer, num_data=NUM_DATA, record_after=0.0
        )  # fmt: skip
    return Contestant(
        lambda i: step((batches[i % len(batches)],)), NUM_DATA, apart, lambda: step.note
    )


def pyro_svi(dims: Sequence[int], widths: Sequence[int], batches: Sequence[Tensor]) -> Contestant:
    """``SVI.step`` of the same pair."""
    model, guide = pair(dims, widths)
    svi = infer.SVI(model, guide, pyro.optim.Adam({"lr": RATE}), infer.TraceMeanField_ELBO())
    return Contestant(
        lambda i: svi.step(batches[i % len(batches)]),
        BATCH,
        lambda: pyro.validation_enabled(False),
    )


class Ladder(nn.Module):
    """The ladder without any library; its weights are those of latente's pair."""

    def __init__(self, dims: Sequence[int], widths: Sequence[int]):
        super().__init__()
        model, guide = pair(dims, widths)
        # From the bottom up, but for the priors; networks flatten nothing here.
        names = [f"z{level + 1}" for level in range(len(dims))]
        self.stages = nn.ModuleList(
            nn.Sequential(*guide.encoder.stages[name][0][1:], guide.encoder.stages[name][1])
            for name in names
        )
        self.heads = nn.ModuleList(guide.posteriors[name].encoder[1] for name in names)
        self.priors = nn.ModuleList(model.levels[name].prior.network[1:] for name in names[:-1])
        self.decoder = model.decoder[1:]

    def forward(self, x: Tensor) -> Tensor:
        """The loss, summed over the batch."""
        d = x = x.flatten(1)
        evidence = []
        for stage, head in zip(self.stages, self.heads, strict=True):
            d = stage(d)
            evidence.append(head(d).chunk(2, -1))
        mean, log_scale = evidence[-1]
        kl = 0.5 * ((2 * log_scale).exp() + mean.square() - 1).sum() - log_scale.sum()
        z = mean + log_scale.exp() * torch.randn_like(mean)
        for level in reversed(range(len(self.priors))):
            prior_mean, prior_log_scale = self.priors[level](z).chunk(2, -1)
            seen, log_seen = evidence[level]
            prior_log_scale, log_seen = (
                MAX_LOG_SCALE * (raw / MAX_LOG_SCALE).tanh() for raw in (prior_log_scale, log_seen)
            )
            log_ratio = 2 * (prior_log_scale - log_seen)
            moved = log_ratio.sigmoid() * (seen - prior_mean)
            shrunk = -0.5 * softplus(log_ratio)  # log σ − log σ of the prior
            inverse = (-prior_log_scale).exp()
            kl = kl + 0.5 * ((2 * shrunk).exp() + (moved * inverse).square() - 1).sum()
            kl = kl - shrunk.sum()
            noise = torch.randn_like(moved)
            z = prior_mean + moved + (shrunk + prior_log_scale).exp() * noise
        return kl + cross_entropy(self.decoder(z), x, reduction="sum")


def by_hand(dims: Sequence[int], widths: Sequence[int], batches: Sequence[Tensor]) -> Contestant:
    """Zero, forward, backward, step."""
    module = Ladder(dims, widths)
    optimizer = torch.optim.Adam(module.parameters(), lr=RATE, fused=True)

    def step(i: int) -> Tensor:
        optimizer.zero_grad()
        loss = module(batches[i % len(batches)])
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Contestant(step, BATCH)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    batches = step_batches(BATCH, "cpu")
    builders = {"latente": latente, "by hand": by_hand, "Pyro": pyro_svi}
    contestants = {name: build(DIMS, WIDTHS, batches) for name, build in builders.items()}
    expected = {}
    for name, contestant in contestants.items():
        loss, expected[name] = approach(contestant, 100)
        print(f"{name}: loss {loss:.2f} nats after 100 steps {contestant.note()}")
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(options.rounds):
        for name, contestant in contestants.items():
            times[name].append(take_turn(contestant, expected[name], 6))
    for name in contestants:
        print(f"{name}: {1000 * statistics.median(times[name]):.2f} ms a step")
    for name in ("by hand", "Pyro"):
        print(f"latente ÷ {name}: {ratio(times, 'latente', name):.2f}")
    depths, seconds = (2, 3, 5, 7, 10), []
    for depth in depths:
        contestant = latente((16,) * depth, (128,) * depth, batches)
        _, about = approach(contestant, 60)
        seconds.append(min(take_turn(contestant, about, 6) for _ in range(options.rounds)))
        print(f"{depth} levels: {1000 * seconds[-1]:.2f} ms")
    line = straight_line(depths, seconds)
    print(
        f"{1000 * line['fixed']:.2f} ms + {1000 * line['rate']:.3f} ms a level, "
        f"at most {line['off']:.0%} off"
    )


if __name__ == "__main__":
    main()
