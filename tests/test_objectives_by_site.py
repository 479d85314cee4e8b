"""β and free bits of each latent site, and the balance of their KLs: values computed by hand."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from latente.guides import DiagonalNormal
from latente.inference import Beta_ELBO, Warmup, fit
from latente.inference.objectives.beta import balance_kls
from latente.inference.objectives.consistency import claims_elbo
from latente.inference.training import preparation
from latente.inference.training.step import Step
from latente.models import VAE, Bernoulli, StandardNormal, mlp

from .test_checkpoints import interrupted
from .test_checkpoints import quiet as scheduled
from .test_fit import same, weights
from .test_levels import small

quiet = partial(fit, show_progress=False, batch_size=50, seed=0)

# Two data, one draw. z2 has two dimensions, z1 three; KLs by datum and dimension.
TOP = torch.tensor([[[0.1, 1.0], [0.3, 2.0]]], requires_grad=True)  # means 0.2, 1.5
LOW = torch.tensor([[[1.0, 2.0, 0.0], [3.0, 2.0, 0.2]]], requires_grad=True)  # 2.0, 2.0, 0.1
RECONSTRUCTION = torch.tensor([[-10.0, -20.0]])


def reading():
    sites = {"z2": torch.zeros(1, 2, 2), "z1": torch.zeros(1, 2, 3)}
    return SimpleNamespace(
        log_likelihood=RECONSTRUCTION,
        kl=TOP.sum(-1) + LOW.sum(-1),
        average=lambda term: term.mean(0),
        average_over_data=lambda term: term.mean((0, 1)),
        kl_by_dimension=lambda: [TOP, LOW],
        local_sites=lambda: {name: ({"value": value}, None) for name, value in sites.items()},
    )


def bound(objective, epoch=0.0):
    objective.move_to(epoch)
    return objective.bound(reading())


def test_beta_of_each_site():
    """KLs of the data: z2 1.1, 2.3; z1 3.0, 5.2. A site that is not named has β = 1."""
    assert bound(Beta_ELBO({"z2": 0.5, "z1": 2.0})).tolist() == pytest.approx([-16.55, -31.55])
    assert bound(Beta_ELBO({"z2": 0.5})).tolist() == pytest.approx([-13.55, -26.35])
    objective = Beta_ELBO({"z2": Warmup(10), "z1": Warmup(5, 1.0, 2.0)})
    assert bound(objective, 5.0).tolist() == pytest.approx([-16.55, -31.55])
    assert bound(objective, 40.0).tolist() == pytest.approx([-17.1, -32.7])


@pytest.mark.parametrize(
    ("options", "paid"),
    [
        ({"free_bits": 0.5}, 0.5 + 1.5 + 2 + 2 + 0.5),
        ({"free_bits": 0.5, "free_bits_per": "site"}, 1.7 + 4.1),
        ({"free_bits": 2.0, "free_bits_per": "site"}, 2.0 + 4.1),
        ({"free_bits": {"z2": 3.0, "z1": 1.0}, "free_bits_per": "site"}, 3.0 + 4.1),
        ({"free_bits": {"z1": 1.0}}, 1.7 + 2 + 2 + 1.0),
        ({"free_bits": {"z1": Warmup(10, 5.0, 0.0)}, "free_bits_per": "site"}, 1.7 + 5.0),
    ],
)
def test_free_bits_of_dimensions_and_of_sites(options, paid):
    assert bound(Beta_ELBO(**options)).item() == pytest.approx(-15 - paid)
    assert bound(Beta_ELBO(2.0, **options)).item() == pytest.approx(-15 - 2 * paid)


def test_a_site_below_its_free_bits_has_no_gradient():
    objective = Beta_ELBO(free_bits=2.0, free_bits_per="site")
    top, low = torch.autograd.grad(-bound(objective), [TOP, LOW])
    assert not top.any()
    assert torch.equal(low, torch.full_like(low, 0.5))  # one of two data


def test_balance_of_the_kls():
    """γ ∝ (0.01 + KL) / K: z2 (1.71 / 2), z1 (4.11 / 3), with mean 1; none after the warm-up."""
    top, low = 1.71 / 2, 4.11 / 3
    gammas = [2 * top / (top + low), 2 * low / (top + low)]
    found = balance_kls([torch.tensor(1.7), torch.tensor(4.1)], [2, 3])
    assert torch.stack(found).tolist() == pytest.approx(gammas)
    objective = Beta_ELBO(Warmup(10), balance=True)
    by_hand = [
        -10 - 0.5 * (gammas[0] * 1.1 + gammas[1] * 3.0),
        -20 - 0.5 * (gammas[0] * 2.3 + gammas[1] * 5.2),
    ]
    assert bound(objective, 5.0).tolist() == pytest.approx(by_hand)
    assert bound(objective, 10.0).tolist() == pytest.approx([-14.1, -27.5])
    # No gradient through the coefficients: that of z1 is β γ for each datum and dimension.
    grad = torch.autograd.grad(-bound(objective, 5.0).sum(), LOW)[0]
    assert torch.allclose(grad, torch.full_like(grad, 0.5 * gammas[1]))


def test_balance_with_free_bits():
    objective = Beta_ELBO(Warmup(10), free_bits=2.0, free_bits_per="site", balance=True)
    gammas = [one.item() for one in balance_kls([torch.tensor(1.7), torch.tensor(4.1)], [2, 3])]
    paid = gammas[0] * 2.0 + gammas[1] * 4.1
    assert bound(objective, 5.0).item() == pytest.approx(-15 - 0.5 * paid)


OBJECTIVES = {
    "beta": lambda: Beta_ELBO({"z2": Warmup(2), "z1": Warmup(3, 0.5, 1.0)}),
    "free bits": lambda: Beta_ELBO(free_bits={"z2": Warmup(2, 1.0, 0.2)}, free_bits_per="site"),
    "balance": lambda: Beta_ELBO(Warmup(2), balance=True),
}


@pytest.mark.parametrize("make", OBJECTIVES.values(), ids=OBJECTIVES)
def test_recorded_steps_follow_the_schedule_of_each_site(make, binary_images, monkeypatch):
    """Recorded at once and plain: the same numbers bit for bit, through the end of each warm-up."""
    steps = []

    def step_recorded_at_once(*args, **options):
        steps.append(Step(*args, **{**options, "record_after": 0.0}))
        return steps[-1]

    monkeypatch.setattr(preparation, "Step", step_recorded_at_once)
    runs = []
    for compile in ("recorded", "plain"):
        torch.manual_seed(0)
        pair = small()
        runs.append(quiet(*pair, binary_images, objective=make(), epochs=4, compile=compile))
        runs[-1] = runs[-1].note, runs[-1].history, weights(*pair)
    (note, recorded, ours), (_, plain, theirs) = runs
    assert note == ""
    assert steps[0].loss_and_gradients.find(binary_images[:50]) is not None
    assert same(ours, theirs)
    assert [row["loss"] for row in recorded] == [row["loss"] for row in plain]


def test_the_history_has_the_weights_of_each_site(binary_images):
    """Four steps an epoch: the last of epoch 1 is at 0.75."""
    row = quiet(*small(), binary_images, objective=OBJECTIVES["beta"](), epochs=3).history[0]
    assert row["beta_z2"] == pytest.approx(0.375)
    assert row["beta_z1"] == pytest.approx(0.5 + 0.5 * 0.25)
    assert "beta" not in row


def test_a_resumed_run_goes_on_and_other_weights_are_refused(binary_images, tmp_path, monkeypatch):
    objective, other = OBJECTIVES["beta"], Beta_ELBO({"z2": Warmup(2)})
    torch.manual_seed(0)
    whole = small()
    torch.manual_seed(0)
    halves = small()
    scheduled(*whole, binary_images, objective=objective(), epochs=3)
    settings = {"epochs": 3, "out": tmp_path / "run"}
    interrupted(monkeypatch, halves, binary_images, at=10, objective=objective(), **settings)
    scheduled(*halves, binary_images, objective=objective(), resume=True, **settings)
    assert same(weights(*whole), weights(*halves))
    with pytest.raises(ValueError, match="was run with objective="):
        scheduled(*halves, binary_images, objective=other, resume=True, **settings)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Beta_ELBO({}), "beta has no site"),
        (lambda: Beta_ELBO({"z2": -1.0}), "beta_z2 must be a number of at least 0, got -1"),
        (lambda: Beta_ELBO(free_bits={"z2": math.inf}), "free_bits_z2 must be a number of at"),
        (lambda: Beta_ELBO(free_bits_per="level"), "free_bits_per is 'dimension' or 'site'"),
        (lambda: Beta_ELBO(balance=True), "give a schedule, such"),
        (lambda: Beta_ELBO({"z1": Warmup(2)}, balance=True), "give a schedule, such"),
    ],
)
def test_refused_when_built(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_refused_when_first_run(binary_images):
    with pytest.raises(ValueError, match=r"beta has a weight of 'z3'.*there are z2, z1"):
        quiet(*small(), binary_images, objective=Beta_ELBO({"z3": 0.5}), epochs=1)
    with pytest.raises(ValueError, match=r"free_bits has a weight of 'x'.*there are z2, z1"):
        quiet(*small(), binary_images, objective=Beta_ELBO(free_bits={"x": 0.5}), epochs=1)
    model = VAE(StandardNormal(2), mlp(2, out=16), Bernoulli((4, 4)))
    guide = DiagonalNormal(mlp(16, out=4), 2)
    with pytest.raises(ValueError, match=r"one latent site \(z\), and balance"):
        quiet(model, guide, binary_images, objective=Beta_ELBO(Warmup(1), balance=True), epochs=1)


def test_what_is_the_elbo_itself():
    assert claims_elbo(Beta_ELBO())
    for other in (Beta_ELBO({"z1": 0.5}), Beta_ELBO(free_bits={"z1": 0.5}), Beta_ELBO(Warmup(1))):
        assert not claims_elbo(other)
