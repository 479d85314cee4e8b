"""Pyro's other objectives, and loss functions, in a fit: Pyro's own losses, or a sentence."""

from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.contrib.gp.kernels import RBF
from pyro.infer import (
    CSIS,
    SVGD,
    SVI,
    EnergyDistance,
    JitTrace_ELBO,
    RBFSteinKernel,
    RenyiELBO,
    ReweightedWakeSleep,
    Trace_ELBO,
    Trace_MMD,
    TraceGraph_ELBO,
    TraceTailAdaptive_ELBO,
)
from torch import nn
from torch.distributions import constraints

from latente.inference import fit
from latente.inference.training.step import Step

quiet = partial(fit, show_progress=False, compile="plain")
X = torch.randn(30, 3, generator=torch.Generator().manual_seed(3)).double()


def make_pair():
    torch.manual_seed(5)
    decoder, encoder = nn.Linear(2, 3).double(), nn.Linear(3, 4).double()

    def model(x, observations=None):
        pyro.module("decoder", decoder)
        scale = pyro.param("scale", torch.ones(3).double(), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), scale).to_event(1), obs=x)

    def guide(x, observations=None):
        pyro.module("encoder", encoder)
        seen = x if observations is None else observations["x"]
        with pyro.plate("data", len(x)):
            loc, log_scale = encoder(seen).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return model, guide


def by_hand(model, guide, *args):
    """The loss of Pyro's tutorial on own objectives."""
    guide_trace = poutine.trace(guide).get_trace(*args)
    model_trace = poutine.trace(poutine.replay(model, trace=guide_trace)).get_trace(*args)
    return -(model_trace.log_prob_sum() - guide_trace.log_prob_sum())


def wake_sleep(**options):
    return ReweightedWakeSleep(max_plate_nesting=1, **options)


OBJECTIVES = {
    "wake-theta, wake-phi": lambda: wake_sleep(num_particles=4),
    "sleep-phi": lambda: wake_sleep(num_particles=3, insomnia=0.0, num_sleep_particles=5),
    "wake and sleep, one by one": lambda: wake_sleep(
        num_particles=3, insomnia=0.3, vectorize_particles=False
    ),
    "Renyi": lambda: RenyiELBO(
        alpha=0.5, num_particles=3, vectorize_particles=True, max_plate_nesting=1
    ),
    "graph": TraceGraph_ELBO,
    "MMD": lambda: Trace_MMD(RBF(2), mmd_scale=10, num_particles=4, max_plate_nesting=1),
    "energy distance": lambda: EnergyDistance(num_particles=4, max_plate_nesting=2),
    "function": lambda: by_hand,
    "method": lambda: Trace_ELBO().differentiable_loss,
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_are_those_of_pyro_svi(name):
    """The same pair, seed, optimizer and full batch, float64: each loss to 1e-9 of it."""
    adam = {"lr": 0.02}
    run = quiet(
        *make_pair(), X, epochs=8, batch_size=len(X), seed=7, objective=OBJECTIVES[name](),
        optimizer=pyro.optim.Adam(adam),
    )  # fmt: skip
    svi = SVI(*make_pair(), pyro.optim.Adam(adam), OBJECTIVES[name]())
    pyro.set_rng_seed(7)
    losses = [svi.step(X) for _ in range(8)]
    if isinstance(losses[0], tuple):
        theta, phi = (torch.tensor(part) / len(X) for part in zip(*losses, strict=True))
        losses = (theta + phi).tolist()
        assert [row["wake_theta_loss"] for row in run.history] == pytest.approx(theta.tolist())
        assert [row["phi_loss"] for row in run.history] == pytest.approx(phi.tolist())
        assert list(run.history[0])[:4] == ["epoch", "loss", "wake_theta_loss", "phi_loss"]
    else:
        losses = [loss / len(X) for loss in losses]
    assert [row["loss"] for row in run.history] == pytest.approx(losses, rel=1e-6)
    assert losses[-1] != losses[0]


def test_gradients_of_wake_sleep_are_pyros():
    """Those of the sum of both losses, as ``loss_and_grads`` gives them, to 1e-12."""
    ours, theirs = ((nn.Linear(1, 1).double(), nn.Linear(1, 2).double()) for _ in range(2))
    for one, other in zip(ours, theirs, strict=True):
        other.load_state_dict(one.state_dict())

    def pair(parts):
        def model(x):
            pyro.module("decoder", parts[0])
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(x.new_zeros(1), 1.0).to_event(1))
                pyro.sample("x", dist.Normal(parts[0](z), 0.5).to_event(1), obs=x)

        def guide(x):
            pyro.module("encoder", parts[1])
            with pyro.plate("data", len(x)):
                loc, log_scale = parts[1](x).chunk(2, -1)
                pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

        return model, guide

    x, objective = X[:, :1], wake_sleep(num_particles=5)
    named = {f"{i}.{n}": p for i, part in enumerate(ours) for n, p in part.named_parameters()}
    optimizer = torch.optim.SGD(named.values(), lr=0.0)
    torch.manual_seed(0)
    step = Step(*pair(ours), objective, named, optimizer, num_data=len(x), compile="plain")
    losses = step((x,))
    torch.manual_seed(0)
    expected = objective.loss_and_grads(*pair(theirs), x)
    assert losses.tolist() == pytest.approx(expected)
    for mine, its in zip(ours, theirs, strict=True):
        for a, b in zip(mine.parameters(), its.parameters(), strict=True):
            assert torch.allclose(a.grad, b.grad, atol=1e-12)
            assert a.grad.abs().sum() > 0


def test_wake_sleep_finds_the_posterior_and_is_resumed_bit_for_bit(tmp_path):
    """x = z + ε of unit variances has p(z|x) = N(x/2, 1/2), and the guide holds it."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        slope = pyro.param("slope", torch.tensor(0.0))
        scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(slope * x, scale))

    x = torch.tensor([2.0])  # one datum: the weights of wake-sleep are of all data together
    options = {"objective": wake_sleep(num_particles=100), "learning_rate": 0.05, "seed": 1}
    run = quiet(model, guide, x, epochs=60, **options)
    store = run.guide.store["params"]
    assert store["slope"].item() == pytest.approx(0.5, abs=0.1)
    assert store["scale"].exp().item() == pytest.approx(0.5**0.5, abs=0.15)
    quiet(model, guide, x, epochs=20, out=tmp_path, **options)
    again = quiet(model, guide, x, epochs=60, out=tmp_path, resume=True, **options)
    assert [row["phi_loss"] for row in again.history] == [row["phi_loss"] for row in run.history]
    other = wake_sleep(num_particles=100, model_has_params=False)
    with pytest.raises(ValueError, match="objective of model_has_params=True, not False"):
        quiet(
            model, guide, x, epochs=61, out=tmp_path, resume=True, **options | {"objective": other}
        )


def plain_guide(x):
    scale = pyro.param("q", torch.tensor(1.0).double(), constraint=constraints.positive)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x[:, :2], scale).to_event(1))


def bits(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Bernoulli(logits=z.sum(-1)), obs=(x[:, 0] > 0).double())


REFUSED = {
    "minibatches": (
        {"objective": ReweightedWakeSleep(), "batch_size": 10},
        "ReweightedWakeSleep takes one average over all data.*set batch_size to 30",
    ),
    "minibatch distance": (
        {"objective": EnergyDistance(), "batch_size": 10},
        "EnergyDistance takes one distance over all data.*set batch_size to 30",
    ),
    "tail": (
        {"objective": TraceTailAdaptive_ELBO(num_particles=3)},
        "has a gradient and no loss.*use RenyiELBO or ImportanceWeighted_ELBO",
    ),
    "jit": ({"objective": JitTrace_ELBO()}, "compiles what a fit already records: use Trace_ELBO"),
    "class": ({"objective": ReweightedWakeSleep}, r"class ReweightedWakeSleep: give Reweighted"),
    "Stein": (
        {"objective": SVGD(bits, RBFSteinKernel(), pyro.optim.Adam({}), 3, 1)},
        "objective is a SVGD, which is no loss of a model and a guide: give a pyro.infer.ELBO",
    ),
    "CSIS": (
        {"objective": CSIS(bits, plain_guide, pyro.optim.Adam({}))},
        "objective is a CSIS, which is no loss of a model and a guide",
    ),
    "number": (
        {"objective": lambda model, guide, x: 3.0},
        "the objective is a function that returned a float: it must return the loss",
    ),
    "sleep": (
        {"objective": wake_sleep(insomnia=0.5)},
        "the sleep phase.*argument observations=None: add it, or use insomnia=1.0",
    ),
    "bits": (
        {"objective": EnergyDistance()},
        "'x' cannot be drawn with a gradient to its parameters, which EnergyDistance needs",
    ),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_objective_is_refused_at_the_start(options, message, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(ValueError, match=message) as caught:
        quiet(bits, plain_guide, X, epochs=1, out=out, **options)
    assert "\n" not in str(caught.value)
    assert not out.exists()
