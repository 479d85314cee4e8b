"""Replays of random programs of tensors: what each gives by itself, bit for bit."""

import random

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from latente.inference.execution.recording import record
from latente.inference.execution.replaying import Replay

from .test_recording import arguments

OPERATIONS = [
    lambda a, b, s: a + b,
    lambda a, b, s: a * a - b,
    lambda a, b, s: torch.maximum(a, b) / (1 + b.abs()),
    lambda a, b, s: torch.where(a > b, a, b.sin()),
    lambda a, b, s: (a.t() * b.t().contiguous()).t(),
    lambda a, b, s: a - b.logsumexp(-1, keepdim=True),
    lambda a, b, s: a.sum(0).expand(4, 3) * b,
    lambda a, b, s: a[:1].expand(4, 3).exp() - b[1:2].expand(4, 3).sigmoid(),
    lambda a, b, s: torch.cat([a[2:], b[:2]]),
    lambda a, b, s: a[torch.tensor([3, 1, 0, 2])] + b[:, [2, 0, 1]],
    lambda a, b, s: a.reshape(3, 4).t() + b.flip(0),
    lambda a, b, s: (a.expand(5, 4, 3) + b).tanh().mean(0),
    lambda a, b, s: a.softmax(-1) + b.log_softmax(0) + a.cumsum(1),
    lambda a, b, s: a.sort(-1).values - b.max(-1, keepdim=True).values,
    lambda a, b, s: F.linear(a, s.weight @ s.weight, s.weight[0]) + a @ b.t() @ a,
    lambda a, b, s: a * s.weight.sum() + torch.ones_like(b) * torch.arange(3.0),
    lambda a, b, s: (a.unsqueeze(0) * b.unsqueeze(1)).sum((0, 2))[:, None] * a,
    lambda a, b, s: a.tanh().amax(-1, keepdim=True) + torch.gather(b, 1, a.argsort(1)),
    lambda a, b, s: a.masked_fill(b > 0, 0.5).clamp(-1, 1),
    lambda a, b, s: a + torch.randn_like(b),
    lambda a, b, s: a * torch.rand(4, 3) + torch.rand(3),
    lambda a, b, s: F.dropout(a, 0.4) + b,
    lambda a, b, s: F.relu(a, inplace=False).detach() + F.softplus(b),
    lambda a, b, s: _write_on_part(a, b),
    lambda a, b, s: _write_on_view(a, b),
    lambda a, b, s: _read_before_and_after(a, b),
    lambda a, b, s: _through_a_view(a, b),
    lambda a, b, s: _write_on_buffer(a, b, s),
]


def _write_on_part(a, b):
    c = a.clone()
    c[1:3].mul_(b[:2])
    c[:, 0] = b[:, 1]
    return c


def _write_on_view(a, b):
    c = torch.zeros(4, 3)
    c[::2].add_(a[::2])
    return c.sub_(b).relu_()


def _read_before_and_after(a, b):
    c = a * 2
    d = c + b
    c.add_(1)
    return c + d - (a * 2)


def _through_a_view(a, b):
    c = a + b
    view = c.t()
    c.mul_(0.5)
    view[0].add_(1.0)
    return view.t() - a


def _write_on_buffer(a, b, state):
    before = state.buffer + b
    state.buffer.mul_(0.5).add_(a.detach().tanh())
    return before - state.buffer


class Program:
    """Some operations in a row, each of two results before, now and then the same one twice."""

    def __init__(self, seed):
        self.seed = seed
        generator = random.Random(seed)
        self.weight = nn.Parameter(arguments(3, 3, seed=seed)[0])
        self.buffer = torch.zeros(4, 3)
        self.lines = []
        for count in range(2, 2 + generator.randint(4, 16)):
            places = [max(0, count - 1 - int(generator.expovariate(0.5))) for _ in range(2)]
            self.lines.append((generator.choice(OPERATIONS), *places))
        self.slopes = generator.random() < 0.5

    def __call__(self, x, y):
        values = [x, y]
        for operation, first, second in self.lines:
            value = operation(values[first], values[second], self)
            # Far from overflow, where all would be NaN.
            values.append(value if value.requires_grad else value / 2)
        total = sum(value.tanh().sum() for value in values[2:])
        slopes = ()
        if self.slopes and total.requires_grad:
            slopes = torch.autograd.grad(total, [self.weight])
        return values[-1].detach(), values[len(values) // 2].detach(), total.detach(), slopes


@pytest.mark.parametrize(
    "seed", [pytest.param(seed, marks=[pytest.mark.slow] * (seed >= 24)) for seed in range(40)]
)
def test_a_replay_of_any_program_gives_what_it_gives(seed):
    """At numbers, weights and random states that it was not made at."""
    program, twin = Program(seed), Program(seed)
    x, y = arguments(4, 3, seed=100, count=2)
    replay = Replay(record(program, (x, y)), (x, y))
    program.buffer.zero_()
    for run in (1, 2, 3):
        x, y = arguments(4, 3, seed=run, count=2)
        for each in (program, twin):
            each.weight.data.mul_(0.9)
        torch.manual_seed(run)
        ours = replay(x, y)
        state = torch.get_rng_state()
        torch.manual_seed(run)
        theirs = twin(x, y)
        assert torch.equal(state, torch.get_rng_state())
        leaves = [torch.utils._pytree.tree_leaves(part) for part in (ours, theirs)]
        for a, b in zip(*leaves, strict=True):
            assert a.shape == b.shape
            assert torch.equal(a.nan_to_num(), b.nan_to_num())
        assert torch.equal(program.buffer, twin.buffer)


def test_random_programs_are_mostly_finite():
    """Else the test above would compare little."""
    finite = [Program(seed)(*arguments(4, 3, count=2))[2].isfinite().item() for seed in range(40)]
    assert sum(finite) >= 30
