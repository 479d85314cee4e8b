"""What once made a recorded step differ from a plain one, or both from the truth."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from latente.inference.execution.recorded import Recorded
from latente.inference.pairs.parameters import parameters
from latente.inference.pairs.programs import private_store
from latente.inference.training.step import Step

X = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))


class Pair(nn.Module):
    """x ~ N(W z + b, 1) with z ~ N(0, I) of two dimensions, and a function that bends the mean."""

    def __init__(self, bend=None, factor=None):
        super().__init__()
        torch.manual_seed(1)
        self.weight = nn.Parameter(torch.randn(3, 2))
        self.bias, self.shift = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
        self.encoder = nn.Linear(3, 2)
        self.unused = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3, momentum=0.3)
        self.calls, self.mean = 0, torch.zeros(3)
        self.bend, self.factor = bend, factor

    def model(self, x):
        if self.factor is not None:
            pyro.factor("outside", self.factor(self))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            mean = z @ self.weight.T + self.bias
            mean = mean if self.bend is None else self.bend(self, z, mean, x)
            pyro.sample("x", dist.Normal(mean, 1.0).to_event(1), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.encoder(x), 0.3).to_event(1))


def take_steps(compile, bend=None, factor=None, optimizer=None, particles=1, **options):
    """All weights, buffers and attributes after some steps, and the step."""
    pair = Pair(bend, factor)
    make = optimizer or partial(torch.optim.Adam, lr=0.05, fused=True)
    with private_store(), pyro.validation_enabled(False):
        named = {
            name: value
            for name, value in pair.named_parameters()
            if not name.startswith("norm") or bend is normalized_twice
        }
        assert named.keys() <= {
            n.split(".", 1)[1] for n in parameters(pair.model, pair.guide, (X,))
        }
        optimizer = make(list(named.values()))
        step = Step(pair.model, pair.guide, Trace_ELBO(num_particles=particles), named, optimizer,
                    num_data=24, compile=compile, record_after=0.0, **options)  # fmt: skip
        torch.manual_seed(3)
        pair.calls, pair.mean = 0, torch.zeros(3)
        for _ in range(12):
            step((X,))
    return [*pair.state_dict().values(), pair.mean, torch.tensor(pair.calls)], step


def two_biases(pair, z, mean, x):
    return mean + pair.shift


def normalized_twice(pair, z, mean, x):
    return pair.norm(mean) + pair.norm(mean)


def split_without_saying(pair, z, mean, x):
    halves = torch.unsafe_split(torch.cat([mean, 2 * mean], -1), 3, -1)
    return halves[0].tanh() + halves[1]


def transposed_in_place(pair, z, mean, x):
    return (mean * 2).t_().t_() + (mean + 1).unsqueeze_(0).squeeze_(0)


def counted(pair, z, mean, x):
    pair.calls += 1
    return mean + 0.01 * pair.calls


def averaged(pair, z, mean, x):
    pair.mean = 0.9 * pair.mean + 0.1 * mean.detach().mean(0)
    return mean - pair.mean


def looked_at(pair, z, mean, x):
    normed = pair.norm(mean)
    return normed if bool((mean < 1e9).all()) else mean


def drawn_by_its_own(pair, z, mean, x):
    generator = torch.Generator().manual_seed(5)
    return mean + torch.randn(3, generator=generator)


def steep(pair):
    return -(200 * pair.shift).sum()


CASES = {
    "unused parameter": ({}, ""),
    "gradients shared and clipped": ({"bend": two_biases, "clip_norm": 0.05}, ""),
    "constant gradient, clipped": ({"factor": steep, "clip_norm": 0.5}, ""),
    "batch norm twice": ({"bend": normalized_twice}, ""),
    "batch norm, three particles": ({"bend": normalized_twice, "particles": 3}, ""),
    "unsafe split": ({"bend": split_without_saying}, ""),
    "views in place": ({"bend": transposed_in_place}, ""),
    "counter": ({"bend": counted}, "is called with other numbers"),
    "moving average": ({"bend": averaged}, "it makes a tensor of other values each time"),
    "look after a write": ({"bend": looked_at}, "depends on values of tensors"),
    "generator": ({"bend": drawn_by_its_own}, "Generator"),
}


@pytest.mark.parametrize(("options", "note"), CASES.values(), ids=CASES)
def test_a_recorded_step_is_the_plain_one(options, note):
    """Weights, buffers and attributes in the end are those of plain steps."""
    plain, recorded = (take_steps(compile, **options) for compile in ("plain", "recorded"))
    assert note in recorded[1].note
    assert bool(note) == bool(recorded[1].note)
    assert recorded[1].loss_and_gradients.stays == (not note)
    for ours, theirs in zip(recorded[0], plain[0], strict=True):
        assert torch.equal(ours, theirs)


LAYOUTS = {
    "transposed": lambda pair, z, mean, x: nn.functional.linear(z, pair.weight.T.contiguous().T),
    "einsum": lambda pair, z, mean, x: torch.einsum("nk,dk->nd", z, pair.weight),
    "expanded": lambda pair, z, mean, x: mean + pair.weight.sum(),
}


@pytest.mark.parametrize("bend", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("compile", ["plain", "recorded"])
def test_a_fused_optimizer_gets_gradients_in_the_layout_of_their_parameters(bend, compile):
    """Its arithmetic reads both flat: it is held against one that does not."""
    plain = partial(torch.optim.Adam, lr=0.05, foreach=False, fused=False)
    fused, expected = take_steps(compile, bend), take_steps("plain", bend, optimizer=plain)
    for ours, theirs in zip(fused[0], expected[0], strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-4)


def test_hooks_of_an_optimizer_are_called_at_each_step():
    calls = []

    def hooked(parameters):
        optimizer = torch.optim.Adam(parameters, lr=0.05, fused=True)
        optimizer.register_step_post_hook(lambda *_: calls.append(1))
        return optimizer

    assert take_steps("recorded", optimizer=hooked)[1].loss_and_gradients.stays
    assert len(calls) == 12


def test_hooks_of_all_optimizers_are_called_at_each_step():
    calls = []
    hook = register_optimizer_step_post_hook(lambda *_: calls.append(1))
    try:
        assert take_steps("recorded")[1].loss_and_gradients.stays
    finally:
        hook.remove()
    assert len(calls) == 12


def test_a_step_replaced_on_the_optimizer_is_taken():
    calls = []

    def replaced(parameters):
        optimizer = torch.optim.Adam(parameters, lr=0.05, fused=True)
        optimizer.step = lambda: calls.append(1)
        return optimizer

    take_steps("recorded", optimizer=replaced)
    assert len(calls) == 12


def test_only_so_many_shapes_are_recorded():
    function = Recorded(lambda x: (2 * x,), record_after=0.0)
    for size in range(1, 20):
        for _ in range(4):
            function(torch.ones(size))
    shapes = function._shapes.values()
    assert sum(shape.recorded is not None for shape in shapes) == 8
    assert function.note == ""


def test_the_results_of_a_recording_can_be_written_on():
    """Constants, arguments and what is given twice come in memory of their own."""
    constant = torch.ones(2)
    function = Recorded(lambda x: (x, x + 1, x + 1, constant, torch.zeros(2)), record_after=0.0)
    for _ in range(6):
        x = torch.arange(2.0)
        results = function(x)
        for value, expected in zip(results, (x, x + 1, x + 1, constant, 0 * x), strict=True):
            assert torch.equal(value, expected)
        if function.stays:
            assert len({value.data_ptr() for value in (*results, x, constant)}) == 7
            for value in results:
                value.fill_(-1.0)
    assert function.stays
