"""What cannot be recorded runs plainly, and says why; what is recorded leaks no memory."""

import gc
import random
import sys
import tracemalloc
from functools import partial
from types import SimpleNamespace

import numpy as np
import psutil
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import RenyiELBO, Trace_ELBO
from torch import nn
from torch.optim import SGD, Adam

from latente.guides import DiagonalNormal
from latente.inference.pairs.parameters import parameters
from latente.inference.pairs.programs import private_store
from latente.inference.training.step import Step
from latente.models import VAE, Bernoulli, StandardNormal, mlp

from .test_recorded_steps import WAYS, blocks, equal, run_steps

X = torch.randn(120, generator=torch.Generator().manual_seed(4))


class Trick(nn.Module):
    """xₙ ~ N(f(zₙ), 1), where f does what a user's program might."""

    def __init__(self, function):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 0.3]))
        self.slope = nn.Parameter(torch.tensor([0.5, -0.3]))
        self.function = function
        self.own = SimpleNamespace(count=0, beta=1.0, generator=np.random.default_rng(0))

    def model(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            loc = self.function(x, z, self.weight, self.own)
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    def guide(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(self.slope[0] * x, self.slope[1].exp()))


def run(function, compile, *, x=X, before=None, lr=1e-3, objective=Trace_ELBO):
    """Eight steps on batches of 15."""
    random.seed(0), np.random.seed(0)  # noqa: NPY002
    pair = Trick(function).to(x.dtype)
    hook = None if before is None else partial(before, pair.own, compile)
    return run_steps(
        (pair.model, pair.guide), objective(), blocks(x, size=15, num=8), compile=compile,
        before=hook, optimizer=partial(Adam, lr=lr, fused=True),
    )  # fmt: skip


def branch(x, z, weight, own):
    return z * weight[0] if z.sum() > 0 else -z * weight[1]


def python_draw(x, z, weight, own):
    return z * weight[0] * random.random()


def numpy_draw(x, z, weight, own):
    return z * weight[0] * np.random.rand()  # noqa: NPY002


def boolean_mask(x, z, weight, own):
    return z * weight[0] + weight[1] * x[x > 0].mean()


def numbers_of_places(x, z, weight, own):
    return z * weight[0] + weight[1] * x[torch.nonzero(x > 0)[:, 0]].mean()


def number_of_data(x, z, weight, own):
    return z * weight[0] + weight[1] * float(x.numpy().mean())


def number_of_draw(x, z, weight, own):
    return z * weight[0] + weight[1] * float(z.detach().sum())


@pytest.mark.parametrize(
    ("function", "note"),
    [
        (branch, "what it does depends on values of tensors"),
        (python_draw, "it draws random numbers that are not PyTorch's"),
        (numpy_draw, "it draws random numbers that are not PyTorch's"),
        (boolean_mask, "the shape of what index.Tensor gives depends on values"),
        (numbers_of_places, "the shape of what nonzero.default gives depends on values"),
        (number_of_data, "it takes numbers out of tensors"),
        (number_of_draw, "what it does depends on values of tensors"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_be_recorded_runs_plainly(function, note):
    plain, recorded = (run(function, way) for way in WAYS)
    assert recorded[3].note == note
    assert not recorded[3].loss_and_gradients.stays
    assert equal(recorded, plain)


def counted(x, z, weight, own):
    own.count += 1
    return z * weight[0] * (1 + own.count / 10)


def drawn_by_its_own_generator(x, z, weight, own):
    return z * weight[0] * own.generator.random()


def tensor_made_anew(x, z, weight, own):
    return z * weight[0] + torch.as_tensor(own.generator.random(len(x)), dtype=x.dtype)


def _count_the_recordings(own, way, number):
    """The two recordings of the second step run the program too, and what it counts goes on."""
    if way == "plain" and number == 2:
        own.count += 2
        own.generator.random(2)


def _draw_the_recordings(own, way, number):
    if way == "plain" and number == 2:
        own.generator.random((2, 15))


@pytest.mark.parametrize(
    ("function", "before", "note"),
    [
        (counted, _count_the_recordings, "mul.Tensor is called with other numbers each time"),
        (
            drawn_by_its_own_generator,
            _count_the_recordings,
            "mul.Tensor is called with other numbers each time",
        ),
        (tensor_made_anew, _draw_the_recordings, "it makes a tensor of other values each time"),
    ],
    ids=lambda value: getattr(value, "__name__", "").strip("_"),
)
def test_a_program_with_a_state_of_its_own_runs_plainly(function, before, note):
    plain, recorded = (run(function, way, before=before) for way in WAYS)
    assert recorded[3].note == note
    assert equal(recorded, plain)


def constant_of_numpy(x, z, weight, own):
    return z * weight[0] + torch.as_tensor(np.linspace(0, 1, len(x)), dtype=x.dtype)


def cached_at_first(x, z, weight, own):
    if not hasattr(own, "scale"):
        with torch.no_grad():
            own.scale = weight.norm()
    return z * weight[0] * own.scale


def item_of_weights(x, z, weight, own):
    return z * weight[0] + weight[1] * weight.detach().std().item()


def item_of_data(x, z, weight, own):
    return z * weight[0] + weight[1] * x.mean().item()


@pytest.mark.parametrize(
    "function", [constant_of_numpy, cached_at_first, item_of_weights, item_of_data],
    ids=lambda value: value.__name__,
)  # fmt: skip
def test_what_stays_the_same_or_is_computed_is_recorded(function):
    plain, recorded = (run(function, way) for way in WAYS)
    assert recorded[3].note == ""
    assert recorded[3].loss_and_gradients.stays
    assert equal(recorded, plain)


def numpy_of_weights(x, z, weight, own):
    return z * weight[0] + weight[1] * float(weight.detach().numpy().std())


def tensor_of_numpy_of_weights(x, z, weight, own):
    return z * weight[0] + weight[1] * torch.from_numpy(weight.detach().numpy().copy()).std()


def list_of_weights(x, z, weight, own):
    return z * weight[0] + weight[1] * max(weight.tolist())


@pytest.mark.parametrize(
    ("function", "dtype", "lr"),
    [
        (numpy_of_weights, torch.float32, 1e-3),
        (numpy_of_weights, torch.float64, 1e-5),
        (tensor_of_numpy_of_weights, torch.float32, 1e-3),
        (list_of_weights, torch.float32, 1e-5),
    ],
)
def test_a_number_read_off_the_weights_does_not_go_stale(function, dtype, lr):
    """Both recordings are at the same weights: only other weights show that it moves."""
    plain, recorded = (run(function, way, x=X.to(dtype), lr=lr) for way in WAYS)
    assert equal(recorded, plain)


def annealed(x, z, weight, own):
    return z * weight[0] * own.beta


@pytest.mark.parametrize(
    ("dtype", "step"),
    [(torch.float32, 0.1), (torch.float32, 1e-5), (torch.float64, 1e-5)],
)
def test_a_number_that_the_user_moves_between_steps_does_not_go_stale(dtype, step):
    """As in an annealing of one's own: what is recorded at one step is of one value."""

    def before(own, way, number):
        own.beta = 1.0 + step * number

    plain, recorded = (run(annealed, way, x=X.to(dtype), before=before) for way in WAYS)
    assert equal(recorded, plain)


def test_an_objective_without_a_differentiable_loss_runs_plainly():
    def line(x, z, weight, own):
        return z * weight[0]

    plain, recorded = (
        run(line, way, objective=partial(RenyiELBO, num_particles=2)) for way in WAYS
    )
    assert recorded[3].note == "RenyiELBO has no differentiable loss"
    assert plain[3].note == ""
    assert equal(recorded, plain)


def big_pair():
    """With 2,640 weights: 10 kB of gradients each step."""
    torch.manual_seed(0)
    vae = VAE(StandardNormal(2), mlp(2, 64, out=16), Bernoulli((4, 4)))
    return vae, DiagonalNormal(mlp(16, 64, out=4), 2)


@pytest.fixture
def step(binary_images):
    """A step whose next call is a replay, by an optimizer that moves."""
    *_, step = run_steps(big_pair(), None, blocks(binary_images, num=5), compile="recorded",
                         optimizer=partial(SGD, lr=1e-6))  # fmt: skip
    assert step.loss_and_gradients.stays
    return step


def test_a_replay_runs_nothing_of_the_pair(step, binary_images):
    def refuse(*args):
        raise AssertionError("the pair was run")

    for part in (step.model, step.guide):
        part.forward = refuse
    losses = [step((binary_images[:20],)).item() for _ in range(3)]
    assert len(set(losses)) == 3
    with pytest.raises(AssertionError, match="the pair was run"):
        step((binary_images[:30],))


def test_gradients_stay_where_they_are_and_losses_are_ones_own(step, binary_images):
    places, losses, values = [], [], []
    for k in range(5):
        losses.append(step((binary_images[k * 20 : (k + 1) * 20],)))
        values.append(losses[-1].item())
        places.append([value.grad.data_ptr() for value in step.parameters])
    assert all(place == places[0] for place in places)
    assert len(set(places[0])) == len(places[0])
    assert [loss.item() for loss in losses] == values
    assert len(set(values)) == 5


def test_a_thousand_replays_take_no_memory(step, binary_images):
    """Bounds: one Python object kept each step would be 48,000 bytes or more, one copy of the
    gradients 10 MB, one loss with its storage some 400 kB of resident memory and a traced object.
    """
    batch, process = (binary_images[:20],), psutil.Process()
    for _ in range(200):
        step(batch)
    gc.collect()
    tracemalloc.start()
    try:
        traced, resident = tracemalloc.get_traced_memory()[0], process.memory_info().rss
        for _ in range(1000):
            step(batch)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - traced < 40_000
        if sys.platform == "linux":
            assert process.memory_info().rss - resident < 4e6
    finally:
        tracemalloc.stop()


def test_a_change_that_comes_later_is_found_by_a_plain_step(make_pair, binary_images):
    """A Python number that a program begins to use differently after some calls: from the next
    check on it is used as plain steps use it, and the note says since when it may not have been."""
    scale = {"of": 1.0}

    def run(compile, change):
        scale["of"] = 1.0
        vae, guide = make_pair()

        def model(x):
            with pyro.poutine.scale(scale=scale["of"]):
                return vae(x)

        with private_store():
            named = parameters(model, guide, (binary_images,))
        optimizer = torch.optim.Adam(list(named.values()), lr=1e-3, fused=True)
        step = Step(model, guide, Trace_ELBO(), named, optimizer, num_data=len(binary_images),
                    compile=compile, record_after=0.0)  # fmt: skip
        torch.manual_seed(0)
        losses = []
        with private_store():
            for number in range(60):
                scale["of"] = 2.0 if number >= change else 1.0
                losses.append(step((binary_images,)).item())
        return losses, step.note

    plain, recorded = run("plain", 30), run("recorded", 30)
    assert plain[0][:30] == recorded[0][:30]
    assert "did something else" in recorded[1]
    assert "keep what changes in tensors" in recorded[1]
    assert run("recorded", 100)[1] == ""
