"""Optimizers by name and parameter groups: contents, steps, schedules, clipping, and resuming."""

import copy
import json
from functools import partial

import pyro
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR, OneCycleLR

from latente.guides import DiagonalNormal
from latente.inference import (
    GroupedOptimizer,
    decay_weights,
    fit,
    named_optimizer,
    rate_by_prefix,
)
from latente.inference.training.optimizers import OPTIMIZERS, make_optimizer
from latente.inference.training.step import _fused_update
from latente.models import VAE, Bernoulli, VampPrior, mlp

from .oracles import GlobalMean
from .test_callbacks import At, Own, numbers, raising
from .test_fit import same, weights

quiet = partial(fit, show_progress=False, batch_size=40)
RATES = {"guide": 1e-3, "model": 3e-4}


def by_role(pair):
    return {
        f"{role}.{name}": value
        for role, part in zip(("model", "guide"), pair, strict=True)
        for name, value in part.named_parameters()
    }


def options_by_name(optimizer, named):
    names = {id(value): name for name, value in named.items()}
    return {
        names[id(value)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for value in group["params"]
    }


class Kept:
    """An optimizer factory that keeps what it made."""

    def __init__(self, optimizer):
        self.optimizer, self.made = optimizer, []

    def __call__(self, parameters, *, lr):
        self.made.append(self.optimizer(parameters, lr=lr))
        return self.made[-1]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_every_named_optimizer_fits_and_decays_weights_alone(
    name, weight_decay, make_pair, binary_images
):
    pair = make_pair()
    before = weights(*pair)
    rate = 1e-6 if name == "sgd" else 1e-4
    optimizer = named_optimizer(name, weight_decay=weight_decay)
    run = quiet(*pair, binary_images, epochs=1, optimizer=optimizer, learning_rate=rate)
    assert run.history[0]["learning_rate"] == rate
    assert not same(weights(*pair), before)
    named = by_role(pair)
    made = make_optimizer(optimizer, named, rate)
    assert options_by_name(made, named) == {
        parameter: (rate, weight_decay if parameter.endswith("weight") else 0.0)
        for parameter in named
    }


def test_the_default_is_the_fused_adam(make_pair, binary_images):
    runs = [
        quiet(*make_pair(), binary_images, epochs=2, optimizer=optimizer)
        for optimizer in (None, named_optimizer("adam"), partial(torch.optim.Adam, fused=True))
    ]
    assert numbers(runs[0]) == numbers(runs[1]) == numbers(runs[2])


def test_only_weights_of_networks_decay():
    """Not biases, normalization, mixture means, log-scales, or the pseudo-inputs of a prior."""
    parts = nn.ModuleDict(
        {
            "conv": nn.Conv2d(3, 4, 2),
            "norm": nn.BatchNorm2d(4),
            "recurrent": nn.GRU(3, 2),
            "normed": nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)),
            "attention": nn.PReLU(),
        }
    )
    guide = DiagonalNormal(mlp(16, 4, out=4), 2)
    vae = VAE(VampPrior(guide, torch.rand(5, 4, 4)), mlp(2, 3, out=16), Bernoulli((4, 4)))
    named = {**dict(parts.named_parameters()), **by_role((vae, guide))}
    named["model.prior.log_scales"] = torch.zeros(5, 2)
    options = decay_weights(0.2)(named)
    decayed = {name for name, given in options.items() if given["weight_decay"]}
    assert decayed == {
        "conv.weight", "recurrent.weight_ih_l0", "recurrent.weight_hh_l0",
        "normed.parametrizations.weight.original0", "normed.parametrizations.weight.original1",
        "model.decoder.1.weight", "model.decoder.3.weight",
        "guide.encoder.1.weight", "guide.encoder.3.weight",
        "model.prior.guide.encoder.1.weight", "model.prior.guide.encoder.3.weight",
    }  # fmt: skip
    assert any("pseudo_inputs" in name for name in named)


def test_the_longest_prefix_gives_the_rate_and_prefixes_end_at_dots(make_pair):
    named = by_role(make_pair())
    named["modelled.weight"] = named["param.loc"] = torch.zeros(1)
    rule = rate_by_prefix({"model": 0.3, "model.decoder.1": 0.2, "model.decoder.1.bias": 0.1})
    given = {name: options["lr"] for name, options in rule(named).items()}
    assert given == {
        "model.decoder.1.weight": 0.2,
        "model.decoder.1.bias": 0.1,
        "model.decoder.3.weight": 0.3,
        "model.decoder.3.bias": 0.3,
    }


def test_rules_are_joined_and_the_later_counts(make_pair):
    named = by_role(make_pair())
    inner = named_optimizer("adamw", weight_decay=0.01)
    slow = [rate_by_prefix(RATES), lambda named: {"guide.encoder.1.bias": {"lr": 5e-5}}]
    made = GroupedOptimizer(inner, slow)(named, lr=1.0)
    assert type(made) is torch.optim.AdamW
    expected = {
        name: (RATES[name.split(".")[0]], 0.01 if name.endswith("weight") else 0.0)
        for name in named
    }
    expected["guide.encoder.1.bias"] = (5e-5, 0.0)
    assert options_by_name(made, named) == expected
    assert len(made.param_groups) == 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: named_optimizer("adamq"), "there is no optimizer 'adamq': did you mean 'adam"),
        (lambda: named_optimizer("AdamW"), "there is no optimizer 'AdamW': did you mean 'adamw'"),
        (lambda: named_optimizer("lbfgs9"), "there are adam, adamw, adamax, "),
        (lambda: named_optimizer("sgd", weight_decay=-1.0), "weight_decay must be a number of at"),
        (lambda: decay_weights(float("nan")), "weight_decay must be a number of at least 0, got n"),
        (lambda: rate_by_prefix({"guide": 0.0}), "rate of 'guide' must be positive, got 0.0"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (rate_by_prefix({"gide": 0.1}), r"name begins with 'gide': there are model.decoder.1.wei"),
        (lambda named: {"prior.means": {"lr": 0.1}}, "no parameter is named 'prior.means': there"),
    ],
)
def test_a_rule_for_parameters_that_are_not_there_is_refused(
    rule, message, make_pair, binary_images, tmp_path
):
    optimizer = GroupedOptimizer(torch.optim.SGD, [rule])
    with pytest.raises(ValueError, match=message) as caught:
        quiet(*make_pair(), binary_images, epochs=1, optimizer=optimizer, out=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_groups_move_at_their_own_rates_under_one_norm(make_pair, binary_images):
    """Plain gradient descent, one step: each group's part of the clipped gradient, times its rate.

    The gradient of the loss per datum is clipped to 0.01 in all, so that the moves, each over its
    rate, make up that norm times the number of data.
    """
    pair = make_pair()
    before = {name: value.detach().clone() for name, value in by_role(pair).items()}
    optimizer = GroupedOptimizer(torch.optim.SGD, [rate_by_prefix({"guide": 1e-3, "model": 4e-3})])
    quiet(*pair, binary_images, epochs=1, batch_size=200, optimizer=optimizer, clip_norm=0.01)
    rates = {"guide": 1e-3, "model": 4e-3}
    moves = {n: (v - before[n]) / rates[n.split(".")[0]] for n, v in by_role(pair).items()}
    assert sum(v.square().sum() for v in moves.values()).sqrt().item() == pytest.approx(2, rel=1e-3)
    free, rate = make_pair(), 1e-3
    quiet(
        *free, binary_images, epochs=1, batch_size=200, optimizer=torch.optim.SGD, clip_norm=0.01,
        learning_rate=rate,
    )  # fmt: skip
    for name, value in by_role(free).items():
        assert torch.allclose((value - before[name]) / rate, moves[name], rtol=1e-2, atol=1e-4)


def test_parameters_of_pyros_store_have_names_too():
    x, pair = torch.randn(60), GlobalMean()
    frozen = GroupedOptimizer(torch.optim.SGD, [lambda named: {"param.loc": {"lr": 0.0}}])
    run = quiet(pair.model, pair.guide, x, epochs=2, batch_size=30, optimizer=frozen)
    stored = run.model.store["params"]
    assert stored["loc"].item() == torch.tensor(0.3).item()
    assert stored["slope"].item() != torch.tensor(0.2).item()
    assert not pyro.get_param_store()


def test_a_schedule_multiplies_the_rate_of_each_group(make_pair, binary_images):
    kept = Kept(torch.optim.SGD)
    run = quiet(
        *make_pair(), binary_images, epochs=3, schedule=partial(ExponentialLR, gamma=0.5),
        optimizer=GroupedOptimizer(kept, [rate_by_prefix({"guide": 4e-5})]), learning_rate=1e-5,
    )  # fmt: skip
    assert [row["learning_rate"] for row in run.history] == [1e-5, 5e-6, 2.5e-6]
    assert [group["lr"] for group in kept.made[0].param_groups] == [1.25e-6, 5e-6]


FUSED = {
    "adam": partial(torch.optim.Adam, fused=True),
    "adam, decayed": GroupedOptimizer(partial(torch.optim.Adam, fused=True), [decay_weights(0.1)]),
    "adamw": partial(torch.optim.AdamW, fused=True),
    "adamw, decayed": named_optimizer("adamw", weight_decay=0.1),
    "rates": GroupedOptimizer(named_optimizer("adamw"), [rate_by_prefix(RATES)]),
    "decoupled": partial(torch.optim.Adam, fused=True, decoupled_weight_decay=True, weight_decay=1),
}


@pytest.mark.parametrize("name", FUSED)
def test_the_fused_move_is_the_optimizers_own_step(name, make_pair, monkeypatch):
    ours, theirs = by_role(make_pair()), by_role(make_pair())
    optimizers = [make_optimizer(FUSED[name], named, 1e-2) for named in (ours, theirs)]
    plain, steps = type(optimizers[0]).step, []
    monkeypatch.setattr(type(optimizers[0]), "step", lambda self: steps.append(self) or plain(self))
    for number in range(5):
        torch.manual_seed(number)
        for a, b in zip(ours.values(), theirs.values(), strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        _fused_update(optimizers[0])
        optimizers[1].step()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert [step is optimizers[0] for step in steps].count(True) == 1  # the first makes the state


def test_a_group_without_gradients_is_passed_over(make_pair):
    named = by_role(make_pair())
    made = make_optimizer(FUSED["rates"], named, 1e-2)
    for _ in range(2):
        for name, value in named.items():
            value.grad = torch.ones_like(value) if name.startswith("guide") else None
        before = {name: value.detach().clone() for name, value in named.items()}
        _fused_update(made)
        moved = {name for name, value in named.items() if not torch.equal(value, before[name])}
        assert moved == {name for name in named if name.startswith("guide")}


GROUPS = {
    "default": None,
    "adamw, decayed": named_optimizer("adamw", weight_decay=0.01),
    "rates": GroupedOptimizer(
        partial(torch.optim.SGD, momentum=0.9), [rate_by_prefix({"guide": 1e-5})]
    ),
}


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("schedule", [None, partial(ExponentialLR, gamma=0.8)])
def test_a_fit_with_groups_is_resumed_bit_for_bit(
    name, schedule, make_pair, binary_images, tmp_path
):
    options = {"epochs": 4, "optimizer": GROUPS[name], "schedule": schedule, "learning_rate": 1e-4}
    whole, pair = make_pair(), make_pair(seed=9)
    expected = quiet(*whole, binary_images, **options)
    with pytest.raises(Own):
        quiet(
            *make_pair(), binary_images, out=tmp_path, callbacks=[At(2, raising(Own()))], **options
        )
    run = quiet(*pair, binary_images, out=tmp_path, resume=True, **options)
    assert numbers(run) == numbers(expected)
    assert same(weights(*pair), weights(*whole))


def test_a_schedule_that_moves_other_options_is_resumed(make_pair, binary_images, tmp_path):
    """One cycle of the rate moves the momenta of Adam too, away from what the fit began with."""
    options = {"schedule": partial(OneCycleLR, max_lr=1e-3, total_steps=9), "epochs": 4}
    with pytest.raises(Own):
        quiet(
            *make_pair(), binary_images, out=tmp_path, callbacks=[At(2, raising(Own()))], **options
        )
    run = quiet(*make_pair(seed=9), binary_images, out=tmp_path, resume=True, **options)
    assert numbers(run) == numbers(quiet(*make_pair(), binary_images, **options))


def as_written_by_0_1(path):
    """Leave out of a checkpoint what version 0.1 did not write."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        facts = json.loads(file.metadata()["latente"])
    del facts["optimizer_groups"]
    save_file(tensors, path, {"latente": json.dumps(facts)})


@pytest.mark.parametrize("optimizer", [None, partial(torch.optim.AdamW, weight_decay=0.1)])
def test_a_run_of_version_0_1_is_resumed(optimizer, make_pair, binary_images, tmp_path):
    options = {"optimizer": optimizer, "schedule": partial(ExponentialLR, gamma=0.8)}
    quiet(*make_pair(), binary_images, epochs=2, out=tmp_path, **options)
    as_written_by_0_1(tmp_path / "checkpoint.safetensors")
    run = quiet(*make_pair(seed=9), binary_images, epochs=4, out=tmp_path, resume=True, **options)
    assert numbers(run) == numbers(quiet(*make_pair(), binary_images, epochs=4, **options))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (named_optimizer("adamw", weight_decay=0.02), "weight_decay=0.01 in parameter group 0"),
        (named_optimizer("adamw"), r"with parameter groups of \[4, 4\], not \[8\]"),
        (named_optimizer("adam", weight_decay=0.01), "optimizer=AdamW, not Adam"),
        (
            GroupedOptimizer(partial(torch.optim.AdamW, betas=(0.8, 0.9)), [decay_weights(0.01)]),
            r"with betas=\[0.9, 0.999\] in parameter group 0, not \[0.8, 0.9\]",
        ),
        (
            GroupedOptimizer(torch.optim.AdamW, [rate_by_prefix(RATES)]),
            "with lr=0.001 in parameter group 0, not 0.0003",
        ),
    ],
)
def test_a_run_is_not_resumed_with_other_groups(other, message, make_pair, binary_images, tmp_path):
    options = {"out": tmp_path, "schedule": partial(ExponentialLR, gamma=0.8)}
    mine = named_optimizer("adamw", weight_decay=0.01)
    quiet(*make_pair(), binary_images, epochs=1, optimizer=mine, **options)
    pair = make_pair(seed=5)
    before = copy.deepcopy(weights(*pair))
    with pytest.raises(ValueError, match=message) as caught:
        quiet(*pair, binary_images, epochs=2, optimizer=other, resume=True, **options)
    assert "\n" not in str(caught.value)
    assert same(weights(*pair), before)


def test_how_steps_are_computed_may_change_over_an_interruption(make_pair, binary_images, tmp_path):
    quiet(*make_pair(), binary_images, epochs=1, out=tmp_path)
    slow = partial(torch.optim.Adam, foreach=False, fused=False)
    run = quiet(*make_pair(), binary_images, epochs=2, out=tmp_path, resume=True, optimizer=slow)
    assert run.epoch == 2


def test_an_option_that_the_optimizer_does_not_have_is_refused(make_pair, binary_images):
    misspelt = GroupedOptimizer(
        torch.optim.AdamW, [lambda named: {name: {"weight_decy": 10.0} for name in named}]
    )
    with pytest.raises(
        ValueError, match=r"has no option 'weight_decy': did you mean 'weight_decay'"
    ):
        fit(*make_pair(), binary_images, optimizer=misspelt, epochs=1, show_progress=False)
