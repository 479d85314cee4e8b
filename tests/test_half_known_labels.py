"""Labels known for some rows: the values of y are summed in our objectives, exactly."""

import contextlib
import math
from collections.abc import Iterator

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO
from torch import Tensor

from latente.inference import (
    Beta_ELBO,
    Gradient,
    ImportanceWeighted_ELBO,
    TotalCorrelation_ELBO,
    log_evidence,
)

from .labelled_pairs import TwoClasses

X = torch.tensor([-1.3, 0.2, 0.4, 1.7, 0.1], dtype=torch.float64)
UNKNOWN = torch.full((5,), -1)
SOME = torch.tensor([0, -1, 1, -1, -1])
KNOWN = torch.tensor([0, 1, 1, 1, 0])
EXACT = 1e-10


def draws(pair: TwoClasses, num_samples: int, seed: int) -> Tensor:
    """The draws z (S, 2, N) that an objective takes with this seed: one at each value of y."""
    torch.manual_seed(seed)
    noise = torch.normal(torch.zeros(2 * num_samples, len(X)).double(), 1.0)
    noise = noise.unflatten(0, (num_samples, 2))
    posteriors = [pair.posterior(X, torch.full(X.shape, label)) for label in (0, 1)]
    return torch.stack([q.loc + q.scale * noise[:, label] for label, q in enumerate(posteriors)], 1)


def by_hand(pair: TwoClasses, y: Tensor, of_value: list[Tensor], at_known: list[Tensor]) -> Tensor:
    """Σₙ of Σ_y q(y|x) [L(x, y) − log q(y|x)] where y is unknown, and else of L(x, yₙ).

    Args:
        of_value: L(x, y) of each y, (N,).
        at_known: L(x, yₙ) from each draw that there is where y is known, to be averaged.
    """
    log_q = pair.classes(X).log_softmax(-1).T
    unknown = sum(q.exp() * (bound - q) for q, bound in zip(log_q, of_value, strict=True))
    return torch.where(y < 0, unknown, sum(at_known) / len(at_known)).sum()  # pyright: ignore


def elbo_by_hand(pair: TwoClasses, y: Tensor, z: Tensor, beta: float = 1.0) -> Tensor:
    """The ELBO with the KL of z and y in closed form, at draws z (S, 2, N)."""

    def terms(label: int, at: Tensor) -> tuple[Tensor, Tensor]:
        q = pair.posterior(X, torch.full(X.shape, label))
        likelihood = dist.Normal(pair.w[label] + pair.v * at, 1.0).log_prob(X).mean(0)
        kl = 0.5 * (q.loc**2 + q.scale**2 - 1) - q.scale.log()
        return likelihood, kl

    log_q, log_p = pair.classes(X).log_softmax(-1).T, pair.logits.log_softmax(0)
    total = torch.zeros(len(X)).double()
    for label in (0, 1):
        likelihood, kl = terms(label, z[:, label])
        gap = log_q[label] - log_p[label]
        total = total + log_q[label].exp() * (likelihood - beta * (kl + gap))
    of_known = torch.zeros(len(X)).double()
    for label in (0, 1):
        for own in (0, 1):  # a row whose label is known has that label at both values
            noise = (z[:, own] - pair.posterior(X, torch.full(X.shape, own)).loc) / pair.posterior(
                X, torch.full(X.shape, own)
            ).scale
            q = pair.posterior(X, torch.full(X.shape, label))
            likelihood, kl = terms(label, q.loc + q.scale * noise)
            one = likelihood - beta * kl + log_p[label]
            of_known = of_known + torch.where(y == label, one / 2, 0.0)
    return torch.where(y < 0, total, of_known).sum()


def gradients(pair: TwoClasses, value: Tensor) -> list[Tensor]:
    options = {"allow_unused": True, "retain_graph": True}
    found = torch.autograd.grad(value, list(pair.parameters()), **options)
    return [torch.zeros(()) if one is None else one for one in found]


def assert_same(pair: TwoClasses, loss: Tensor, bound: Tensor) -> None:
    assert loss.item() == pytest.approx(-bound.item(), abs=EXACT)
    for ours, theirs in zip(gradients(pair, loss), gradients(pair, -bound), strict=True):
        torch.testing.assert_close(ours, theirs.to(ours).expand(ours.shape), rtol=0, atol=EXACT)


@pytest.mark.parametrize("y", [UNKNOWN, SOME, KNOWN], ids=["unknown", "some", "known"])
@pytest.mark.parametrize("beta", [1.0, 2.5])
@pytest.mark.parametrize("num_samples", [1, 3])
def test_beta_elbo_is_the_sum_over_both_labels(y: Tensor, beta: float, num_samples: int) -> None:
    pair = TwoClasses()
    objective = Beta_ELBO(beta, num_particles=num_samples)
    z = draws(pair, num_samples, seed=3)
    objective.loss(pair.model, pair.guide, X, y)
    torch.manual_seed(3)
    loss = objective.differentiable_loss(pair.model, pair.guide, X, y)
    assert_same(pair, loss, elbo_by_hand(pair, y, z, beta))


def iwae_by_hand(
    pair: TwoClasses, y: Tensor, z: Tensor, groups: int, gradient: Gradient = Gradient.PLAIN
) -> Tensor:
    """Σ_y q(y|x) [L_{k,m}(x, y) − log q(y|x)] at draws z (S, 2, N) of S = k · m.

    Its gradient is that of the estimator, except in the guide's q(z|x, y) if it is the doubly
    reparameterized one: see the test.
    """

    def bound(label: int, at: Tensor) -> Tensor:
        log_weight = pair.log_weight(X, label, at)
        if gradient is Gradient.STICKING_THE_LANDING:
            q = pair.posterior(X, torch.full(X.shape, label))
            fixed = dist.Normal(q.loc.detach(), q.scale.detach())
            log_weight = log_weight + q.log_prob(at) - fixed.log_prob(at)
        grouped = log_weight.unflatten(0, (groups, -1))
        return (grouped.logsumexp(1) - math.log(grouped.shape[1])).mean(0)

    at_known = []
    for own in (0, 1):  # a row whose label is known has that label at both values
        own_q = pair.posterior(X, torch.full(X.shape, own))
        noise = (z[:, own] - own_q.loc) / own_q.scale
        parts = []
        for label in (0, 1):
            q = pair.posterior(X, torch.full(X.shape, label))
            parts.append(bound(label, q.loc + q.scale * noise.detach()))
        at_known.append(torch.where(y == 1, parts[1], parts[0]))
    return by_hand(pair, y, [bound(label, z[:, label]) for label in (0, 1)], at_known)


@pytest.mark.parametrize("y", [UNKNOWN, SOME, KNOWN], ids=["unknown", "some", "known"])
@pytest.mark.parametrize(("k", "m"), [(1, 1), (3, 1), (2, 2)])
@pytest.mark.parametrize("gradient", [Gradient.PLAIN, Gradient.STICKING_THE_LANDING])
def test_iwae_is_the_sum_over_both_labels(y: Tensor, k: int, m: int, gradient: Gradient) -> None:
    pair = TwoClasses()
    objective = ImportanceWeighted_ELBO(k, m, gradient=gradient)
    z = draws(pair, k * m, seed=5)
    objective.loss(pair.model, pair.guide, X, y)
    torch.manual_seed(5)
    loss = objective.differentiable_loss(pair.model, pair.guide, X, y)
    assert_same(pair, loss, iwae_by_hand(pair, y, z, m, gradient))


def test_doubly_reparameterized_gradient_of_the_label_and_of_z() -> None:
    pair, k = TwoClasses(), 3
    objective = ImportanceWeighted_ELBO(k, gradient=Gradient.DOUBLY_REPARAMETERIZED)
    z = draws(pair, k, seed=5)
    objective.loss(pair.model, pair.guide, X, UNKNOWN)
    torch.manual_seed(5)
    loss = objective.differentiable_loss(pair.model, pair.guide, X, UNKNOWN)
    plain = iwae_by_hand(pair, UNKNOWN, z, 1)
    assert loss.item() == pytest.approx(-plain.item(), abs=EXACT)
    log_q = pair.classes(X).log_softmax(-1).T.detach()
    total = torch.zeros(()).double()
    for label in (0, 1):
        q = pair.posterior(X, torch.full(X.shape, label))
        fixed = dist.Normal(q.loc.detach(), q.scale.detach())
        log_weight = pair.log_weight(X, label, z[:, label]) + q.log_prob(z[:, label])
        log_weight = log_weight - fixed.log_prob(z[:, label])
        shares = log_weight.detach().softmax(0)
        total = total + (log_q[label].exp() * shares.square() * log_weight).sum()
    of_z = {"gain", "offset", "log_scale"}
    names = [name for name, _ in pair.named_parameters()]
    ours = dict(zip(names, gradients(pair, -loss), strict=True))
    for name, expected in zip(names, gradients(pair, plain), strict=True):
        if name not in of_z:
            torch.testing.assert_close(ours[name], expected.to(ours[name]), rtol=0, atol=EXACT)
    for name in of_z:
        (expected,) = torch.autograd.grad(total, getattr(pair, name), retain_graph=True)
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize("partial", [False, True])
def test_variants_of_iwae_are_unbiased_in_the_classifier(partial: bool) -> None:
    """CIWAE and PIWAE with q(y|x): the classifier's gradient is that of Σ_y q(y|x) times bounds."""
    pair = TwoClasses()
    objective = ImportanceWeighted_ELBO(2, 2, partial=partial, elbo_weight=0.25)
    z = draws(pair, 4, seed=1)
    objective.loss(pair.model, pair.guide, X, UNKNOWN)
    torch.manual_seed(1)
    loss = objective.differentiable_loss(pair.model, pair.guide, X, UNKNOWN)
    log_q = pair.classes(X).log_softmax(-1).T
    of_value = []
    for label in (0, 1):
        grouped = pair.log_weight(X, label, z[:, label]).detach().unflatten(0, (2, 2))
        groups = (grouped.logsumexp(1) - math.log(2)).mean(0)
        of_value.append(0.25 * grouped.mean((0, 1)) + 0.75 * groups)
    expected = by_hand(pair, UNKNOWN, of_value, of_value)
    ours = torch.autograd.grad(-loss, [pair.slope, pair.shift])
    theirs = torch.autograd.grad(expected, [pair.slope, pair.shift])
    assert log_q.requires_grad
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=EXACT)


@pytest.mark.parametrize("y", [UNKNOWN, SOME, KNOWN], ids=["unknown", "some", "known"])
def test_at_the_exact_posterior_bound_and_evidence_are_log_p(y: Tensor) -> None:
    """log p(x) of rows without a label, log p(x, y) of those with one; no draw changes that."""
    pair = TwoClasses().set_exact()
    with torch.no_grad():
        log_joint = pair.log_joint(X)
    of_row = log_joint.gather(0, y.clamp(min=0)[None])[0]
    exact = torch.where(y < 0, log_joint.logsumexp(0), of_row)
    iwae = ImportanceWeighted_ELBO(3).loss(pair.model, pair.guide, X, y)
    assert iwae == pytest.approx(-exact.sum().item(), abs=EXACT)
    evidence = log_evidence(pair.model, pair.guide, (X, y), num_samples=5)
    torch.testing.assert_close(evidence.log_px, exact, rtol=0, atol=EXACT)
    assert evidence.elbo == pytest.approx(exact.mean().item(), abs=EXACT)
    assert evidence.labelled is not None
    assert torch.equal(evidence.labelled, y >= 0)
    count = int((y >= 0).sum())
    assert f"log p(x, y) of {count}, log p(x) of {5 - count}" in repr(evidence)


def test_evidence_of_a_guide_that_is_not_exact() -> None:
    """False alarms: each row within 5 standard errors, less than once in 300,000 runs."""
    pair = TwoClasses()
    with torch.no_grad():
        pair.shift.copy_(torch.tensor([2.0, -2.0]))  # q(y|x) is far off, and does not matter
        log_joint = pair.log_joint(X)
    of_label = log_joint.gather(0, SOME.clamp(min=0)[None])[0]
    exact = torch.where(SOME < 0, log_joint.logsumexp(0), of_label)
    found = log_evidence(pair.model, pair.guide, (X, SOME), num_samples=3000, seed=1)
    assert bool(((found.log_px - exact).abs() < 5 * found.standard_error).all())
    assert found.mean > found.elbo + 0.1
    again = log_evidence(pair.model, pair.guide, (X, SOME), num_samples=3000, seed=1, chunk_size=7)
    torch.testing.assert_close(again.log_px, found.log_px, rtol=0, atol=1e-9)
    elbo = -Beta_ELBO(num_particles=3000).loss(pair.model, pair.guide, X, SOME) / len(X)
    assert found.elbo == pytest.approx(elbo, abs=0.05)


def test_free_bits_are_of_the_mean_over_the_labels() -> None:
    pair, y = TwoClasses(), UNKNOWN
    objective = Beta_ELBO(2.0, free_bits={"z": 10.0, "y_unobserved": 0.0})
    z = draws(pair, 1, seed=2)
    objective.loss(pair.model, pair.guide, X, y)
    torch.manual_seed(2)
    loss = objective.loss(pair.model, pair.guide, X, y)
    log_q, log_p = pair.classes(X).log_softmax(-1).T, pair.logits.log_softmax(0)
    likelihood = [
        dist.Normal(pair.w[label] + pair.v * z[0, label], 1.0).log_prob(X) for label in (0, 1)
    ]
    reconstruction = sum(q.exp() * one for q, one in zip(log_q, likelihood, strict=True))
    kl_y = (log_q.exp() * (log_q - log_p[:, None])).sum(0)
    bound = (reconstruction - 2.0 * kl_y - 2.0 * 10.0).sum()  # pyright: ignore
    assert loss == pytest.approx(-bound.item(), abs=EXACT)


def test_a_label_after_z_and_other_objectives_are_refused() -> None:
    pair = TwoClasses()

    def after_z(x: Tensor, y: Tensor) -> None:
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(x, 1.0))
            with poutine.mask(mask=y < 0):
                logits = torch.stack([z, -z], -1)
                q = dist.Categorical(logits=logits)
                pyro.sample("y_unobserved", q, infer={"enumerate": "parallel"})

    with pytest.raises(ValueError, match="not enumerated, as the guide draws it after another"):
        Beta_ELBO().loss(pair.model, after_z, X, UNKNOWN)
    with pytest.raises(ValueError, match="TotalCorrelation_ELBO takes draws alone: use Beta_ELBO"):
        TotalCorrelation_ELBO().loss(pair.model, pair.guide, X, UNKNOWN)


def test_a_value_of_no_mass_counts_nothing() -> None:
    pair = TwoClasses()
    with torch.no_grad():
        pair.slope.zero_()
        pair.shift.copy_(torch.tensor([0.0, -torch.inf]))
    for objective in (Beta_ELBO(), ImportanceWeighted_ELBO(2, 2, partial=True)):
        objective.loss(pair.model, pair.guide, X, UNKNOWN)
        torch.manual_seed(0)
        none = objective.differentiable_loss(pair.model, pair.guide, X, UNKNOWN)
        assert none.isfinite()
        found = torch.autograd.grad(none, [pair.w, pair.gain])
        assert all(bool(one.isfinite().all()) for one in found)


@contextlib.contextmanager
def default_double() -> Iterator[None]:
    """Pyro's contraction mixes the default type with that of the pair."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def test_pyros_enumeration_agrees() -> None:
    """Its z is one draw for both labels, so the means are compared: 5 standard errors."""
    pair = TwoClasses()
    theirs = TraceEnum_ELBO(max_plate_nesting=1, num_particles=400)
    ours = [Beta_ELBO(num_particles=400), ImportanceWeighted_ELBO(1, 400)]
    torch.manual_seed(0)
    with torch.no_grad(), default_double():
        expected = theirs.loss(pair.model, pair.guide, X, SOME)
        for objective in ours:
            found = objective.loss(pair.model, pair.guide, X, SOME)
            assert found == pytest.approx(expected, abs=0.6)
