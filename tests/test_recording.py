"""Recordings hold what a function does, and replays of them give what it gives, bit for bit."""

import ctypes
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from latente.inference.execution.recorded import Recorded
from latente.inference.execution.recording import CannotRecord, difference, operations, record
from latente.inference.execution.replaying import Replay

aten = torch.ops.aten


def arguments(*shape, seed=0, count=1):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(*shape, generator=generator) for _ in range(count))


def replayed(function, *args):
    """A replay made at other numbers than these, run at these."""
    replay = Replay(record(function, args), tuple(torch.ones_like(arg) for arg in args))
    return replay, replay(*args)


def name_of(op):
    return getattr(op, "__name__", str(op)).split(".")[0]


def count_of(replay, name):
    """How often it calls an operation, whether itself or within a call that copies."""
    found = 0
    for call in replay.calls:
        parts = [getattr(call, "func", call), *getattr(call, "args", ())[:1]]
        found += any(callable(part) and name_of(part) == name for part in parts)
    return found


def test_what_is_computed_twice_is_computed_once():
    (x,) = arguments(4)
    replay, (once, twice) = replayed(lambda x: (x.exp() + 1, x.exp() * (x.exp() + 1)), x)
    assert count_of(replay, "exp") == 1
    assert count_of(replay, "add") == 1
    assert torch.equal(once, x.exp() + 1)
    assert torch.equal(twice, x.exp() * (x.exp() + 1))


def test_the_same_operation_with_other_arguments_is_another():
    (x,) = arguments(4, 4)
    function = lambda x: (x.sum(0), x.sum(1), x.sum(0, keepdim=True), x + 1, x + 1.5)  # noqa: E731
    replay, outcomes = replayed(function, x)
    assert (count_of(replay, "sum"), count_of(replay, "add")) == (3, 2)
    assert all(torch.equal(a, b) for a, b in zip(outcomes, function(x), strict=True))


DRAWS = {
    "randn_like": torch.randn_like,
    "rand": lambda x: torch.rand(x.shape),
    "bernoulli": lambda x: torch.bernoulli(x.sigmoid()),
    "normal_": lambda x: torch.empty_like(x).normal_(),
    "exponential_": lambda x: torch.empty_like(x).exponential_(),
    "dropout": lambda x: F.dropout(x, 0.5),
    "gamma": lambda x: torch._standard_gamma(x.exp()),
    "multinomial": lambda x: torch.multinomial(x.softmax(-1), 3).to(x.dtype),
    "randperm": lambda x: torch.randperm(5).to(x.dtype),
    "poisson": lambda x: torch.poisson(x.exp()),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_never_merged_nor_dropped(name):
    """Two draws of one distribution are two, and one that is not used moves the random state."""
    draw = DRAWS[name]

    def function(x):
        first = draw(x)
        draw(x)
        return first, draw(x)

    x = arguments(4, 5)[0] if name != "randperm" else torch.zeros(5)
    replay = Replay(record(function, (x,)), (x,))
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        ours, state = [value.clone() for value in replay(x)], torch.get_rng_state()
        torch.manual_seed(seed)
        theirs = function(x)
        assert torch.equal(state, torch.get_rng_state())
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert not torch.equal(*ours)


def test_what_is_not_used_is_not_computed():
    def function(x):
        x.exp().sin().cos()
        return (x.tanh(),)

    replay, (y,) = replayed(function, arguments(3)[0])
    assert len(replay.calls) == 1
    assert torch.equal(y, arguments(3)[0].tanh())


def test_what_is_the_same_each_time_is_not_computed_again():
    (x,) = arguments(3)
    replay, (y,) = replayed(lambda x: (x * (torch.arange(3.0).exp() + torch.ones(3)).log(),), x)
    assert len(replay.calls) == 1
    assert torch.equal(y, x * (torch.arange(3.0).exp() + torch.ones(3)).log())


def test_weights_and_buffers_stand_as_themselves():
    """What is no argument may change between two runs."""
    weight, buffer = nn.Parameter(torch.ones(3)), torch.zeros(3)
    replay = Replay(record(lambda x: (x * weight + buffer,), (torch.ones(3),)), (torch.ones(3),))
    with torch.no_grad():
        weight.fill_(2.0), buffer.fill_(5.0)
    assert replay(torch.ones(3))[0].tolist() == [7.0, 7.0, 7.0]


def test_a_buffer_is_written_once_each_run():
    """Read before and after; neither read may be taken for the other."""
    buffer = torch.zeros(3)

    def function(x):
        before = buffer * 1.5
        buffer.mul_(0.5).add_(x)
        return before, buffer * 1.5, buffer.exp()

    recording = record(function, (torch.zeros(3),))
    buffer.zero_()
    replay = Replay(recording, (torch.zeros(3),))
    buffer.zero_()
    mine = torch.zeros(3)
    for (x,) in (arguments(3, seed=seed) for seed in range(4)):
        before = mine * 1.5
        mine.mul_(0.5).add_(x)
        ours = replay(x)
        assert torch.equal(ours[0], before)
        assert torch.equal(ours[1], mine * 1.5)
        assert torch.equal(ours[2], mine.exp())
        assert torch.equal(buffer, mine)


def test_expanded_arguments_are_computed_once_for_all():
    (x,) = arguments(1, 6)
    seen = []

    def function(x):
        wide = x.expand(1000, 6)
        return (wide * 2).exp() + x, (wide.sigmoid() - wide).sum(0), wide.clone()

    replay, outcomes = replayed(function, x)
    assert all(torch.equal(a, b) for a, b in zip(outcomes, function(x), strict=True))
    assert outcomes[0].shape == (1000, 6)
    for call in replay.calls:
        if name_of(getattr(call, "func", call)) in ("exp", "sigmoid"):
            seen.append(call.keywords["out"].untyped_storage().nbytes())
    assert len(seen) == 2
    assert max(seen) <= 6 * 4


def test_an_expanded_result_may_be_written_on():
    """Where it is, its memory must be whole."""
    (x,) = arguments(1, 3)

    def function(x):
        wide = x.expand(4, 3).exp()
        wide[0] = 0.0
        return wide, wide.sum(0)

    _, outcomes = replayed(function, x)
    assert all(torch.equal(a, b) for a, b in zip(outcomes, function(x), strict=True))


AFTER_EXPANDED = {
    "reshape": lambda y: y.reshape(6, 8),
    "transposed": lambda y: y.t().reshape(48),
    "flattened": lambda y: y.flatten(),
    "sum": lambda y: y.sum(),
    "sum of rows": lambda y: y.sum(0),
    "mean": lambda y: y.mean(1),
    "logsumexp": lambda y: y.logsumexp(0),
    "product": lambda y: y @ y.t(),
    "draw": lambda y: torch.randn_like(y),
    "draw after more": lambda y: torch.rand_like(y.t() * torch.arange(8.0).expand(6, 8)),
    "cumsum": lambda y: y.cumsum(0),
    "cat": lambda y: torch.cat([y, y * 2]),
    "clone": lambda y: y.clone(),
    "index": lambda y: y[torch.tensor([3, 0, 7])],
}


@pytest.mark.parametrize("name", AFTER_EXPANDED)
def test_what_follows_an_expanded_result_finds_it_as_if_it_were_whole(name):
    """Strides decide which views there are, in what order sums go, and where draws are put."""
    (x,) = arguments(1, 6)
    function = lambda x: (AFTER_EXPANDED[name](x.expand(8, 6).exp() / 2),)  # noqa: E731
    replay = Replay(record(function, (x,)), (x,))
    torch.manual_seed(0)
    (ours,) = replay(x)
    torch.manual_seed(0)
    (theirs,) = function(x)
    assert torch.equal(ours, theirs)


def test_results_lie_in_the_same_memory_each_time():
    (x,) = arguments(8)
    replay = Replay(record(lambda x: (x.exp() * 2, (x + 1, None)), (x,)), (x,))
    first = replay(x)
    assert first[1][1] is None
    assert replay(x + 1) is first
    assert torch.equal(first[0], (x + 1).exp() * 2)
    assert torch.equal(first[1][0], x + 1 + 1)


def test_memory_is_used_again_but_never_too_early():
    """A long chain takes few tensors; a value used at its end outlives all of it."""
    (x,) = arguments(50)

    def function(x):
        first = x.sin()
        y = first
        for _ in range(30):
            y = (y * 1.5).tanh() + x
        return (y + first,)

    replay, (y,) = replayed(function, x)
    assert torch.equal(y, function(x)[0])
    places = {
        call.keywords["out"].data_ptr()
        for call in replay.calls
        if "out" in getattr(call, "keywords", {})
    }
    assert 2 <= len(places) < 10


def test_arguments_are_copied_and_left_alone():
    (x,) = arguments(3)
    kept = x.clone()
    replay, _ = replayed(lambda x: (x.mul(2).add_(1), x), x)
    y = torch.full((3,), 7.0)
    assert replay(y)[0].tolist() == [15.0, 15.0, 15.0]
    assert torch.equal(x, kept)
    assert y.tolist() == [7.0, 7.0, 7.0]


def test_recording_leaves_the_random_state_and_runs_under_no_seed():
    state = torch.get_rng_state()
    record(lambda x: (torch.randn_like(x),), (torch.zeros(3),))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (lambda x: (x if x.sum() > 0 else -x,), "what it does depends on values of tensors"),
        (lambda x: (x * float(x[0]),), "what it does depends on values of tensors"),
        (lambda x: (x[x > 0],), "the shape of what index.Tensor gives depends on values"),
        (lambda x: (x.unique(),), "depends on values"),
        (lambda x: (x * random.random(),), "it draws random numbers that are not PyTorch's"),
        (lambda x: (x * np.random.rand(),), "it draws random numbers that are not PyTorch's"),  # noqa: NPY002
        (lambda x: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda x: (x @ x.expand(7, 3),), "RuntimeError: "),
    ],
)
def test_what_cannot_be_recorded_says_why_in_one_line(function, why):
    with pytest.raises(CannotRecord) as caught:
        record(function, (torch.ones(3),))
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_number_taken_as_a_tensor_stays_exact():
    """The item of a float32 is one of float64, as Python's number is."""
    (x,) = arguments(3)
    _, (y,) = replayed(lambda x: (x * x.sum().item() + x.mean().item(),), x)
    assert torch.equal(y, x * x.sum().item() + x.mean().item())


@pytest.mark.parametrize(
    ("second", "differs"),
    [
        (lambda x: (x * 2 + 1,), ""),
        (lambda x: (x * 3 + 1,), "mul.Tensor is called with other numbers each time"),
        (lambda x: (x / 2 + 1,), "it calls mul.Tensor in one call and div.Tensor in the next"),
        (lambda x: (x * 2,), "it calls add.Tensor in one call and the end in the next"),
        (lambda x: (x * 2 + x,), "add.Tensor is called with other numbers each time"),
    ],
)
def test_what_two_recordings_do_not_have_in_common(second, differs):
    x = torch.ones(3)
    first = record(lambda x: (x * 2 + 1,), (x,))
    assert difference(first, record(second, (x,))) == differs


@pytest.mark.parametrize(("other", "differs"), [(1.0, False), (1.5, True)])
def test_tensors_made_anew_are_compared_by_value(other, differs):
    x = torch.ones(3)
    one, two = (
        record(lambda x, v=v: (x * torch.tensor([v, 2.0, 3.0]),), (x,)) for v in (1.0, other)
    )
    expected = "it makes a tensor of other values each time" if differs else ""
    assert difference(one, two) == expected
    assert len(operations(one)) >= 1


def past_pytorch(tensor):
    """A tensor's number, read as a C extension would, which nothing notices."""
    return ctypes.c_float.from_address(tensor.data_ptr()).value


def test_a_function_is_confirmed_at_other_numbers_before_it_is_trusted():
    """What is read off a tensor once is found stale at the first numbers it was not made at."""
    scale = torch.ones(())
    made = Recorded(lambda x: (x * past_pytorch(scale),), record_after=0.0)
    for k in range(5):
        scale.fill_(1.0 if k < 2 else 2.0)
        assert made(torch.full((2,), float(k + 1)))[0].tolist() == [(k + 1) * scale.item()] * 2
    assert made.note == "a recording of it gave other numbers than it gave itself"
    assert not made.stays


def test_results_that_are_not_finite_are_compared_too():
    """A log weight of −∞ among others does not make them trusted unseen."""
    scale = torch.ones(())

    def function(x):
        return (torch.stack([x.sum() * past_pytorch(scale), x.min().log()]),)

    made = Recorded(function, record_after=0.0)
    for k in range(5):
        scale.fill_(1.0 if k < 2 else 2.0)
        x = torch.tensor([0.0, k + 1.0])
        ours, theirs = made(x), function(x)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_a_whole_number_that_is_looked_up_is_not_recorded():
    def function(x):
        return ({2: x}.get(x.long().item(), -x),)

    with pytest.raises(CannotRecord, match="takes numbers out of tensors"):
        record(function, (torch.tensor(1.0),))
