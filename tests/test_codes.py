"""Codes on a grid: uniform prior, finite scalar quantization, exact evidence, codebook use."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO

from latente.guides import DiagonalNormal, FiniteScalar, PointPosterior
from latente.inference import (
    Beta_ELBO,
    ImportanceWeighted_ELBO,
    ScoreFunction_ELBO,
    annealed_evidence,
    calibrate,
    codebook_use,
    enumerated_evidence,
    evaluate,
    fit,
    log_evidence,
)
from latente.inference.diagnostics.finding import Level
from latente.inference.diagnostics.importance_weights import judge_evidence
from latente.inference.pairs.inspection import inspect_pair
from latente.models import VAE, Bernoulli, StandardNormal, UniformCodes, mlp

LEVELS = (4, 4)


def pair(seed=0, positions=4, levels=LEVELS, size=5):
    torch.manual_seed(seed)
    grid = UniformCodes(levels, positions)
    shape = tuple(grid().event_shape)
    model = VAE(grid, mlp(shape, 8, out=size), Bernoulli((size,)))
    guide = FiniteScalar(mlp(size, 8, out=math.prod(shape)), levels, positions)
    with torch.no_grad():  # codes and pixels that differ from datum to datum
        for p in (*model.parameters(), *guide.parameters()):
            p.mul_(4)
    return model, guide


def data(num=40, size=5):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(2, (num, size), generator=generator).float()


def bound_by_hand(model, guide, x):
    """log p(x|c) − M log K."""
    z = guide.posterior(x).sample()
    grid = guide.codebook
    nats = grid.num_positions * math.log(math.prod(grid.levels))
    return model.likelihood(model.decoder(z)).log_prob(x) - nats


@pytest.mark.parametrize("levels", [(2,), (3,), (4, 5), (8, 5, 2)])
@pytest.mark.parametrize("positions", [(), 1, 3, (2, 1)])
def test_prior_is_uniform_on_its_grid_and_has_no_mass_off_it(levels, positions):
    prior = UniformCodes(levels, positions).double()
    p = prior()
    places = math.prod(positions if isinstance(positions, tuple) else (positions,))
    by_hand = [[(k - size // 2) / (size // 2) for k in range(size)] for size in levels]
    num_codes = math.prod(levels)
    assert p.num_values == num_codes**places
    z = p.sample((50, 7))
    assert z.shape == (50, 7, *p.event_shape)
    assert (p.log_prob(z) + places * math.log(num_codes)).abs().max() < 1e-13
    for part, allowed in enumerate(by_hand):
        assert set(z.select(2, part).flatten().tolist()) <= set(allowed)
    assert (p.log_prob(z + 0.01) == -math.inf).all()
    assert (p.log_prob(torch.full_like(z, 1.5)) == -math.inf).all()
    assert p.support.check(z).all()
    if p.num_values <= 4000:
        listed = p.enumerate_support(expand=False)
        assert len(listed.flatten(1).unique(dim=0)) == p.num_values
        assert p.log_prob(listed).exp().sum().item() == pytest.approx(1, abs=1e-12)
    with pyro.plate("data", 7, dim=-1):
        site = pyro.poutine.trace(lambda: pyro.sample("z", prior())).get_trace().nodes["z"]
    assert site["fn"].batch_shape == (7,)
    assert torch.equal(site["fn"].log_prob(z), p.log_prob(z))


def test_prior_draws_each_value_alike():
    """A χ² test of 20 values at 20,000 draws; false alarm 1e-4 (quantile of χ² with 19: 50.8)."""
    torch.manual_seed(0)
    prior = UniformCodes((4, 5))
    counts = codebook_use(prior.codebook.indices(prior().sample((20_000,))), 20).counts.double()
    assert ((counts - 1000).square() / 1000).sum() < 50.8


@pytest.mark.parametrize("levels", [(2,), (3,), (4,), (5, 8)])
def test_rounding_reaches_each_code_and_passes_the_gradient(levels):
    guide = FiniteScalar(torch.nn.Identity(), levels, 2).double()
    torch.manual_seed(0)
    features = (3 * torch.randn(4000, len(levels), 2)).double().requires_grad_()
    z = guide.family(features).rsample()
    assert UniformCodes(levels, 2).double()().log_prob(z).isfinite().all()
    assert codebook_use(guide.codebook.indices(z), math.prod(levels)).share == 1
    size = torch.tensor(levels).double()[:, None]
    shift = torch.where((size % 2 == 0) & (size > 2), (1 / (size - 1)), 0.0).atanh()
    (slope,) = torch.autograd.grad(z.sum(), features)
    by_hand = (size - 1) / 2 * (1 - (features + shift).tanh().square()) / (size // 2)
    assert torch.allclose(slope, by_hand, rtol=0, atol=1e-12)
    assert torch.equal(guide.codebook.codes(guide.codebook.indices(z)), z)


def test_guide_keeps_to_the_contract():
    model, guide = (part.double() for part in pair())
    x = data(7).double()
    q = guide.posterior(x)
    assert (q.batch_shape, q.event_shape) == ((7,), (2, 4))
    assert (q.log_prob(q.rsample()) == 0).all()
    q.rsample().square().sum().backward()
    assert all((p.grad != 0).any() for p in guide.parameters())
    with pyro.plate("samples", 3, dim=-2):
        assert guide(x).shape == (3, 7, 2, 4)
    assert guide.indices(x).shape == (7, 4)
    assert "(4, 4)" in repr(guide)
    assert "(4, 4)" in repr(model)
    with pytest.raises(ValueError, match="FiniteScalar"):
        FiniteScalar(mlp(5, out=7), LEVELS, 4)(torch.zeros(3, 5))
    with pytest.raises(ValueError, match="at least 2 levels"):
        FiniteScalar(mlp(5, out=7), (1, 4))
    with pytest.raises(ValueError, match="at least 1"):
        UniformCodes(LEVELS, 0)


def test_a_mass_on_a_discrete_site_is_no_point_without_a_density():
    x = data()
    structure = inspect_pair(*pair(), (x,))
    assert (structure.points, structure.point_masses) == ((), ("z",))
    assert not structure.drawn_together
    point = VAE(StandardNormal(2), mlp(2, out=5), Bernoulli((5,))), PointPosterior(mlp(5, out=2), 2)
    structure = inspect_pair(*point, (x,))
    assert (structure.points, structure.point_masses) == (("z",), ())


def test_objectives_and_evidence_give_the_bound():
    model, guide = (part.double() for part in pair())
    x = data().double()
    by_hand = bound_by_hand(model, guide, x)
    for objective in (Trace_ELBO(), Beta_ELBO(1.0), ImportanceWeighted_ELBO(3)):
        loss = objective.loss(model, guide, x)
        assert -loss == pytest.approx(by_hand.sum().item(), abs=1e-9)
    evidence = log_evidence(model, guide, x, num_samples=50)
    assert torch.allclose(evidence.log_px, by_hand, rtol=0, atol=1e-10)
    assert torch.allclose(evidence.kl, torch.tensor(4 * math.log(16)).double())
    # Equal weights of one value repeated are no sign of a good posterior.
    assert evidence.point_masses == ("z",)
    assert (evidence.khat == math.inf).all()
    assert (evidence.standard_error == math.inf).all()
    assert evidence.khat_bad_fraction == 1
    assert "a bound" in repr(evidence)
    figures = evaluate(model, guide, x)
    assert figures["elbo"] == pytest.approx(by_hand.mean().item(), abs=1e-10)
    assert figures["kl"] == pytest.approx(4 * math.log(16))
    assert "log_evidence" not in figures


@pytest.mark.parametrize("positions", [(), 1, 2])
def test_enumerated_evidence_is_the_sum_over_the_grid(positions):
    model, guide = (part.double() for part in pair(positions=positions))
    x = data(6).double()
    axis = [(k - 2) / 2 for k in range(4)]
    numbers = math.prod(guide.event_shape)
    grid = torch.tensor(list(itertools.product(axis, repeat=numbers))).double()
    grid = grid.reshape(-1, *guide.event_shape)
    likelihood = model.likelihood(model.decoder(grid))
    by_hand = torch.stack([likelihood.log_prob(row) for row in x], 1).logsumexp(0)
    exact = enumerated_evidence(model, guide, x)
    assert exact.num_values == len(grid)
    assert torch.allclose(exact.log_px, by_hand - math.log(len(grid)), rtol=0, atol=1e-10)
    assert torch.allclose(exact.bound, bound_by_hand(model, guide, x), rtol=0, atol=1e-10)
    assert (exact.bound < exact.log_px).all()
    posterior = likelihood.log_prob(x[0]).softmax(0)
    chosen = (grid == guide.posterior(x[:1]).sample()).flatten(1).all(1)
    assert (exact.log_px - exact.bound)[0].item() == pytest.approx(
        -posterior[chosen].log().item(), abs=1e-9
    )


def test_two_by_two_codes_of_sixteen_are_summed():
    """All 65,536 values, in an order of their own, against the sum by position and in one piece."""
    model, guide = (part.double() for part in pair(positions=(2, 2)))
    x = data(2).double()
    values = guide.codebook.codes(torch.cartesian_prod(*[torch.arange(16)] * 4).reshape(-1, 2, 2))
    likelihood = model.likelihood(model.decoder(values))
    by_hand = torch.stack([likelihood.log_prob(row) for row in x], 1).logsumexp(0)
    exact = enumerated_evidence(model, guide, x)
    assert exact.num_values == 16**4
    assert torch.allclose(exact.log_px, by_hand - 4 * math.log(16), rtol=0, atol=1e-10)
    assert (exact.bound < exact.log_px).all()


def test_a_decoder_of_one_batch_dimension_is_summed_over_too():
    model, guide = (part.double() for part in pair(positions=1))
    x = data(6).double()
    exact = enumerated_evidence(model, guide, x)
    inner = model.decoder

    class Narrow(torch.nn.Module):
        def forward(self, z):
            assert z.dim() == 3
            return inner(z)

    model.decoder = Narrow()
    assert torch.allclose(enumerated_evidence(model, guide, x).log_px, exact.log_px, atol=1e-12)


def test_pyro_enumeration_gives_the_same_sum():
    model, guide = (part.double() for part in pair(positions=2))
    x = data(3).double()

    def summed(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", model.prior(), infer={"enumerate": "parallel"})
            pyro.sample("x", model.likelihood(model.decoder(z)), obs=x)

    evidence = log_evidence(summed, lambda x: None, x, num_samples=2)
    exact = enumerated_evidence(model, guide, x)
    assert evidence.exact
    assert torch.allclose(evidence.log_px, exact.log_px, rtol=0, atol=1e-10)


def test_what_cannot_be_summed_is_refused():
    model, guide = pair(positions=6)
    with pytest.raises(ValueError, match=r"16,777,216 values.*max_values=1,048,576"):
        enumerated_evidence(model, guide, data(2))
    with pytest.raises(ValueError, match=r"16\^6 = 16,777,216.*at most 65,536"):
        model.prior().enumerate_support()
    with pytest.raises(ValueError, match="at most max_values=10"):
        enumerated_evidence(*pair(positions=1), data(2), max_values=10)
    normal = VAE(StandardNormal(2), mlp(2, out=5), Bernoulli((5,)))
    with pytest.raises(ValueError, match="does not list its values"):
        enumerated_evidence(normal, DiagonalNormal(mlp(5, out=4), 2), data(2))
    other = FiniteScalar(mlp(5, out=2), (3, 3), ())
    with pytest.raises(ValueError, match="'z' in the model, UniformCodesDistribution, is -inf"):
        log_evidence(pair(positions=())[0], other, data(20))


@pytest.mark.parametrize("objective", [None, Beta_ELBO(1.0)])
def test_fit_raises_the_bound_and_records_its_steps(objective):
    x = data(256)
    model, guide = pair()
    before = bound_by_hand(model, guide, x).mean().item()
    run = fit(model, guide, x, epochs=20, batch_size=64, learning_rate=0.02, objective=objective,
              show_progress=False)  # fmt: skip
    assert run.note == ""
    after = bound_by_hand(model, guide, x).mean().item()
    assert after > before + 0.5
    assert run.history[-1]["elbo"] == pytest.approx(after, abs=1e-4)
    assert run.history[-1]["kl"] == pytest.approx(4 * math.log(16), abs=1e-4)


def test_recorded_and_plain_fits_agree():
    x = data(128)
    losses = []
    for how in ("recorded", "plain"):
        run = fit(*pair(), x, epochs=4, batch_size=32, compile=how, show_progress=False)
        losses.append([row["loss"] for row in run.history])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_what_needs_a_spread_posterior_refuses_a_mass():
    model, guide = pair()
    with pytest.raises(ValueError, match="score function is 0"):
        fit(model, guide, data(), objective=ScoreFunction_ELBO(), epochs=1, show_progress=False)
    with pytest.raises(ValueError, match="discrete"):
        annealed_evidence(model, guide, data(4))
    with pytest.raises(ValueError, match="on one point"):
        calibrate(model, guide, data(20))


def test_the_diagnostic_calls_it_a_bound():
    (finding,) = judge_evidence(log_evidence(*pair(), data(60), num_samples=30))
    assert finding.level == Level.NOTE
    assert finding.sentence.startswith("log p(x) ≥ ")


def test_pyros_delta_on_a_discrete_site_is_such_a_mass():
    logits = torch.randn(3, generator=torch.Generator().manual_seed(0))

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(logits=logits))
            pyro.sample("x", dist.Normal(k.float(), 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample(
                "k", dist.Delta(x.round().clamp(0, 2).long(), log_density=torch.zeros(len(x)))
            )

    x = torch.tensor([0.1, 0.8, 2.3])
    evidence = log_evidence(model, guide, x, num_samples=3)
    k = x.round().long()
    by_hand = logits.log_softmax(0)[k] + dist.Normal(k.float(), 1.0).log_prob(x)
    assert torch.allclose(evidence.log_px, by_hand.double(), atol=1e-6)


@pytest.mark.parametrize("counts", [[5, 0, 0], [2, 2, 2], [1, 3, 0]])
def test_codebook_use_is_the_exponential_of_the_entropy(counts):
    indices = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    use = codebook_use(indices, 3)
    f = [count / sum(counts) for count in counts if count]
    assert use.perplexity == pytest.approx(math.exp(-sum(p * math.log(p) for p in f)), abs=1e-12)
    assert use.share == pytest.approx(len(f) / 3)
    with pytest.raises(ValueError, match="0 to 1, got 0 to"):
        codebook_use(torch.tensor([0, 2]), 2)
    with pytest.raises(ValueError, match="no codes"):
        codebook_use(torch.zeros(0), 2)
