"""Pyro's optimizers and schedulers in a fit: the losses of Pyro's own SVI, and what is refused."""

from functools import partial

import pyro
import pyro.distributions as dist
import pyro.optim
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.optim.multi import Newton
from torch import nn
from torch.distributions import constraints
from torch.optim.lr_scheduler import ExponentialLR

from latente.inference import GroupedOptimizer, decay_weights, fit, load_run, log_evidence

quiet = partial(fit, show_progress=False)
X = torch.randn(40, 3, generator=torch.Generator().manual_seed(3)).double() @ torch.diag(
    torch.tensor([3.0, 1.0, 0.3], dtype=torch.float64)
)


def make_pair():
    """A pair as Pyro's tutorials write one: plain functions, pyro.module and pyro.param."""
    torch.manual_seed(5)
    decoder, encoder = nn.Linear(2, 3).double(), nn.Linear(3, 4).double()

    def model(x):
        pyro.module("decoder", decoder)
        scale = pyro.param("scale", torch.ones(3).double(), constraint=constraints.positive)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), scale).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            loc, log_scale = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))

    return model, guide


def by_name(name):
    """Options by Pyro's names of parameters."""
    assert name in {"scale", "decoder.weight", "decoder.bias", "encoder.weight", "encoder.bias"}
    return {"lr": 0.1 if name == "scale" else 0.02, "betas": (0.8 if "bias" in name else 0.9, 0.99)}


def by_module_and_name(module, name):
    return {"lr": 0.05 if module == "encoder" or name == "scale" else 0.01}


def scheduled(name, **options):
    return getattr(pyro.optim, name)(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": 0.05}, **options}
    )


OPTIMIZERS = {
    "Adam": lambda: pyro.optim.Adam({"lr": 0.05}),
    "ClippedAdam": lambda: pyro.optim.ClippedAdam({"lr": 0.05, "clip_norm": 2.0, "lrd": 0.9}),
    "AdagradRMSProp": lambda: pyro.optim.AdagradRMSProp({"eta": 0.1}),
    "SGD with clip_args": lambda: pyro.optim.SGD({"lr": 0.05}, {"clip_norm": 3.0}),
    "by name": lambda: pyro.optim.Adam(by_name),
    "by module and name": lambda: pyro.optim.PyroOptim(
        torch.optim.RMSprop,
        by_module_and_name,
        lambda module, name: {"clip_value": 0.5} if module == "decoder" else {},
    ),
    "ExponentialLR": lambda: scheduled("ExponentialLR", gamma=0.7),
    "MultiStepLR": lambda: scheduled("MultiStepLR", milestones=[2, 5], gamma=0.2),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_losses_are_those_of_pyro_svi(name):
    """The same pair, seed and full batch, float64: each loss to 1e-9 of it."""
    run = quiet(
        *make_pair(), X, epochs=12, batch_size=len(X), seed=7, objective=Trace_ELBO(),
        optimizer=OPTIMIZERS[name](),
    )  # fmt: skip
    optimizer = OPTIMIZERS[name]()
    svi = SVI(*make_pair(), optimizer, Trace_ELBO())
    pyro.set_rng_seed(7)
    losses = []
    for _ in range(12):
        losses.append(svi.step(X) / len(X))
        if isinstance(optimizer, pyro.optim.PyroLRScheduler):
            optimizer.step()
    assert [row["loss"] for row in run.history] == pytest.approx(losses, rel=1e-9)
    assert abs(losses[-1] - losses[0]) > 0.1
    assert run.config == {}


@pytest.mark.parametrize("name", ["ClippedAdam", "by module and name", "MultiStepLR"])
def test_a_fit_with_a_pyro_optimizer_is_resumed_bit_for_bit(name, tmp_path):
    options = {"batch_size": 16, "seed": 2}
    whole = quiet(*make_pair(), X, epochs=7, optimizer=OPTIMIZERS[name](), **options)
    quiet(*make_pair(), X, epochs=3, optimizer=OPTIMIZERS[name](), out=tmp_path, **options)
    model, guide = make_pair()
    run = quiet(
        model, guide, X, epochs=7, optimizer=OPTIMIZERS[name](), out=tmp_path, resume=True,
        **options,
    )  # fmt: skip
    for column in ("loss", "elbo", "learning_rate"):
        assert [row[column] for row in run.history] == [row[column] for row in whole.history]
    assert run.config["fit"]["learning_rate"] is None
    loaded = load_run(tmp_path, model=make_pair()[0], guide=guide)
    found = [
        log_evidence(each.model, each.guide, X, num_samples=20, seed=0).log_px
        for each in (run, loaded)
    ]
    # The guide's encoder was fitted in place; decoder and scale come from the file.
    assert torch.equal(*found)


def test_a_resumed_fit_keeps_the_options_of_a_pyro_optimizer(tmp_path):
    quiet(*make_pair(), X, epochs=1, optimizer=pyro.optim.SGD({"lr": 1e-4}), out=tmp_path)
    resume = partial(quiet, *make_pair(), X, epochs=2, out=tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"was run with lr=0.0001 in parameter group 0, not 0.1"):
        resume(optimizer=pyro.optim.SGD({"lr": 0.1}))
    with pytest.raises(ValueError, match="was run with optimizer=SGD, not Adam"):
        resume(optimizer=pyro.optim.Adam({"lr": 1e-4}))


def used():
    optimizer = pyro.optim.Adam({"lr": 1e-3})
    SVI(*make_pair(), optimizer, Trace_ELBO()).step(X)
    return optimizer


class OwnSteps(pyro.optim.PyroOptim):
    """A Pyro optimizer of a class that Pyro does not have."""


REFUSED = {
    "rate twice": (
        lambda: {"optimizer": pyro.optim.Adam({"lr": 0.1}), "learning_rate": 0.1},
        r'leave learning_rate out, and give "lr": 0.1 to the optimizer',
    ),
    "schedule twice": (
        lambda: {
            "optimizer": scheduled("ExponentialLR", gamma=0.9),
            "schedule": partial(ExponentialLR, gamma=0.9),
        },
        "has a schedule of its own: leave schedule out",
    ),
    "used": (lambda: {"optimizer": used()}, "has the state of a former fit.* give a new one"),
    "own steps": (
        lambda: {"optimizer": OwnSteps(torch.optim.Adam, {"lr": 0.1})},
        "optimizer is a OwnSteps, whose steps are its own: give a PyroOptim",
    ),
    "grouped": (
        lambda: {"optimizer": GroupedOptimizer(pyro.optim.Adam({}), [decay_weights(0.1)])},
        "a GroupedOptimizer takes no Pyro optimizer.*give a class of torch.optim",
    ),
    "multi": (
        lambda: {"optimizer": Newton()},
        "optimizer is a Newton, and a fit makes its own from the pair's parameters: give a class",
    ),
    "Pyro's function": (
        lambda: {"optimizer": pyro.optim.Adam},
        r"cannot be made from parameters and lr .*such as pyro.optim.Adam\(\{",
    ),
    "made": (
        lambda: {"optimizer": torch.optim.Adam([torch.zeros(1, requires_grad=True)])},
        "optimizer is a Adam, and a fit makes its own",
    ),
    "no optimizer": (
        lambda: {"optimizer": lambda parameters, lr: parameters},
        "optimizer made a list: give a class of torch.optim",
    ),
    "LBFGS": (
        lambda: {"optimizer": torch.optim.LBFGS},
        "LBFGS evaluates the loss several times in a step.*use Adam",
    ),
    "Pyro's LBFGS": (
        lambda: {"optimizer": pyro.optim.PyroOptim(torch.optim.LBFGS, {"lr": 0.1})},
        "LBFGS evaluates the loss several times in a step",
    ),
    "sparse": (
        lambda: {"optimizer": torch.optim.SparseAdam},
        "SparseAdam needs sparse gradients.*use Adam",
    ),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_taken_is_refused_before_a_folder_is_made(options, message, tmp_path):
    given = options()
    with pytest.raises(ValueError, match=message) as caught:
        quiet(*make_pair(), X, epochs=1, out=tmp_path / "run", **given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
