"""Operations are written down as PyTorch's own tracer writes them, on real tensors."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import map_arg
from torch.fx.experimental.proxy_tensor import make_fx

from latente.inference.execution.graphs import IDENTITIES
from latente.inference.execution.recorder import CannotRecord, Recorder
from latente.inference.execution.recording import record
from latente.inference.execution.replaying import Replay

torch.manual_seed(0)
NET = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def with_gradient(x):
    normal = torch.distributions.Normal(0.0, 1.0, validate_args=False)
    loss = NET(x).square().sum() + normal.log_prob(x).sum()
    return (loss, *torch.autograd.grad(loss, list(NET.parameters())))


def in_place(x):
    y = x.exp()
    y.mul_(2).add_(x)
    y[0] = 1.0
    return y, y.t_().sum()


def in_parts(x):
    first, second = x.split([1, 2], dim=-1)
    values, places = x.sort(-1)
    return torch.cat([second, first], -1), [part + 1 for part in x.unbind()], values, places


def numbers(x):
    two = torch.tensor(1.0)
    two.add_(1.0)
    return (x * torch.eye(int(two) + 1),) if bool(two > 1) else (x,)


def in_inference_mode(x):
    with torch.inference_mode():
        return (F.linear(x, torch.ones(2, 3)).reshape(-1), x.matmul(x))


def mapped(x):
    return (torch.func.vmap(lambda row: F.softplus(row).cumsum(0))(x),)


def draws(x):
    return torch.randn_like(x), torch.rand(3), F.dropout(x, 0.5), torch.full((2,), 3.0), None


FUNCTIONS = [with_gradient, in_place, in_parts, numbers, in_inference_mode, mapped, draws]


def written(graph, kept):
    """Each operation with its arguments: numbers of operations, and tensors kept as objects."""
    nodes = [node for node in graph.nodes if node.op != "get_attr"]
    index = {node: number for number, node in enumerate(nodes)}

    def name(node):
        return f"%{index[node]}" if node in index else repr(kept(node.target).tolist())

    lines = []
    for node in nodes:
        target = "identity" if node.target in IDENTITIES else str(node.target)
        if node.op == "output":
            target = "output"
        given = repr(map_arg((node.args, node.kwargs), name)).replace("(", "[").replace(")", "]")
        lines.append((node.op, "" if node.op == "placeholder" else target, given))
    return lines


def layouts(graph, key):
    found = [node.meta.get(key) for node in graph.nodes if node.op == "call_function"]
    return [value for value in found if value is not None]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_it_writes_what_pytorchs_tracer_writes(function):
    x = torch.linspace(-1.0, 1.0, 9).reshape(3, 3)
    traced = make_fx(function)(x)
    with Recorder((x,)) as recorder:
        result = function(x)
    ours = recorder.finish(result)
    theirs = written(traced.graph, lambda name: getattr(traced, name))
    assert written(ours.graph, ours.tensors.get) == theirs
    values = [v for v in layouts(traced.graph, "val") if isinstance(v, torch.Tensor)]
    assert [(v.shape, v.stride(), v.dtype) for v in values] == [
        (v.shape, v.stride, v.dtype) for v in layouts(ours.graph, "layout")
    ]


def test_numbers_that_follow_from_written_numbers_alone_may_be_read():
    """And no longer once something of the arguments is added to them."""
    x = torch.ones(3, 3)
    assert torch.equal(Replay(record(numbers, (x,)), (x,))(2 * x)[0], 2 * torch.eye(3))

    def added(x):
        number = torch.tensor(1.0)
        number.add_(x.sum())
        return (x * int(number),)

    with pytest.raises(CannotRecord, match="depends on values"):
        record(added, (x,))


def test_a_write_on_what_is_made_of_numbers_is_made_anew_each_time():
    def function(x):
        start = torch.tensor([1.0, 2.0])
        start += x
        return (start,)

    replay = Replay(record(function, (torch.zeros(2),)), (torch.zeros(2),))
    assert [replay(torch.ones(2))[0].tolist() for _ in range(2)] == [[2.0, 3.0]] * 2


class Tagged(torch.Tensor):
    pass


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x: (torch.randn(3, generator=torch.Generator()),), "a Generator of its own"),
        (lambda x: (x + torch.ones(3).as_subclass(Tagged),), "TypeError"),
    ],
)
def test_what_cannot_be_written_down_is_named(function, why):
    with pytest.raises(CannotRecord, match=why):
        record(function, (torch.ones(3),))
