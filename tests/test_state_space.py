"""Latent Markov chains: scored in one pass, exact against the Kalman filter, blind to padding."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
import zuko
from pyro import poutine
from torch import nn

from latente.guides import (
    DiagonalNormal,
    FullRankNormal,
    NormalizingFlow,
    PrecisionWeighted,
    Residual,
    SequencePosterior,
)
from latente.inference import Beta_ELBO, Filtering_ELBO, fit, log_evidence
from latente.inference.objectives.choice import choose_objective
from latente.inference.pairs.inspection import inspect_pair
from latente.inference.training import preparation
from latente.inference.training.step import Step
from latente.models import (
    AutoregressiveLikelihood,
    Bernoulli,
    Categorical,
    Combiner,
    ConditionalNormal,
    Emissions,
    GatedTransition,
    LinearTransition,
    LogNormal,
    MarkovChain,
    Normal,
    OneHot,
    RecurrentReader,
    StandardNormal,
    StateSpaceModel,
    mlp,
)
from latente.models.padding import reverse_steps, step_mask

from .state_space_oracle import LinearGaussianSequences, small_pair

LENGTHS = torch.tensor([6, 1, 4])
STEPS = 6


class Messages(nn.Module):
    """For z a random walk of precision p in each dimension and x_t ~ N(z_t, 1): the evidence that
    x_t … x_T give of z_t, by the backward recursion, as features (mean, log scale)."""

    def __init__(self, precision):
        super().__init__()
        self.precision = precision

    def forward(self, x, mask=None):
        found, mean, weight = [], torch.zeros_like(x[:, 0]), torch.zeros_like(x[:, 0])
        for step in reversed(range(x.shape[1])):
            weight = weight * self.precision / (weight + self.precision)  # of z_t by later x
            if mask is not None:
                weight = weight * mask[:, min(step + 1, x.shape[1] - 1), None]
            mean = (weight * mean + x[:, step]) / (weight + 1)
            weight = weight + 1
            found.insert(0, torch.cat([mean, -0.5 * weight.log()], -1))
        return torch.stack(found, 1)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_the_prior_times_the_evidence_of_later_steps_is_the_exact_posterior(lengths):
    """Every draw of the exact posterior has the weight p(x): that of a Gaussian vector of all x."""
    step_sd, dim, x = 0.5, 2, sequences(2)
    transition = LinearTransition(dim, step_sd)
    model = StateSpaceModel(transition, mlp(dim, out=dim), Normal((dim,), 1.0)).double()
    with torch.no_grad():
        for layer in (transition.linear, model.emission[1]):
            layer.weight.copy_(torch.eye(dim))
            layer.bias.zero_() if layer.bias is not None else None
        transition.log_scale.fill_(torch.tensor(step_sd).double().log())  # not that of float32
    family = PrecisionWeighted(nn.Identity(), dim)
    guide = SequencePosterior(Messages(step_sd**-2), family, transition=transition).double()
    args = (x,) if lengths is None else (x, lengths)
    evidence = log_evidence(model, guide, args, num_samples=5)
    for row, length in enumerate([STEPS] * 3 if lengths is None else lengths.tolist()):
        steps = torch.arange(1, length + 1).double()
        covariance = step_sd**2 * torch.minimum(steps[:, None], steps) + torch.eye(length)
        exact = dist.MultivariateNormal(torch.zeros(length).double(), covariance)
        expected = exact.log_prob(x[row, :length].T).sum().item()
        assert evidence.log_px[row].item() == pytest.approx(expected, abs=1e-9)
        assert evidence.standard_error[row] < 1e-9


def test_families_that_start_from_the_prior_need_the_transition():
    model = StateSpaceModel(GatedTransition(3, 4), mlp(3, out=4), Normal((4,)))
    reader, x = RecurrentReader(4, 5), sequences().float()
    for family in (Residual(Combiner(5, 3, out=6), 3), PrecisionWeighted(mlp(5, out=6), 3)):
        guide = SequencePosterior(reader, family, transition=model.transition)
        run = fit(model, guide, (x, LENGTHS), epochs=1, show_progress=False)
        assert run.note == ""
        with pytest.raises(ValueError, match=r"give transition=model\.transition"):
            SequencePosterior(reader, family)
    with pytest.raises(ValueError, match="does not start from the prior"):
        SequencePosterior(reader, DiagonalNormal(mlp(5, out=6), 3), transition=model.transition)


def sequences(observed_dim=4, num=3, steps=STEPS):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(num, steps, observed_dim, generator=generator).double()


def log_terms(model, guide, *args, z=None):
    """log q(z|x), log p(z) and log p(x|z) of one draw, or of a given z."""
    with pyro.validation_enabled(False), torch.no_grad():
        given = poutine.condition(guide, {} if z is None else {"z": z})
        q = poutine.trace(given).get_trace(*args)
        p = poutine.trace(poutine.condition(model, {"z": q.nodes["z"]["value"]})).get_trace(*args)
    terms = [
        site["fn"].log_prob(site["value"]) for site in (q.nodes["z"], p.nodes["z"], p.nodes["x"])
    ]
    return q.nodes["z"]["value"], torch.stack(terms)


class TestChain:
    @pytest.mark.parametrize("lengths", [None, LENGTHS])
    def test_one_pass_is_the_sum_over_steps(self, lengths):
        model, _ = small_pair()
        chain = model.prior(STEPS, lengths)
        z = chain.expand((7, 3)).rsample()
        expected = torch.zeros(7, 3).double()
        for row, length in enumerate([STEPS] * 3 if lengths is None else lengths.tolist()):
            for step in range(length):
                before = None if step == 0 else z[:, row, step - 1]
                expected[:, row] += chain.step(step, before).log_prob(z[:, row, step])
        torch.testing.assert_close(chain.log_prob(z), expected, rtol=0, atol=1e-10)

    def test_steps_after_the_end_are_zero_and_do_not_count(self):
        chain = small_pair()[0].prior(STEPS, LENGTHS)
        z = chain.rsample()
        assert (z[1, 1:] == 0).all()
        assert (z[2, 4:] == 0).all()
        assert (z[0] != 0).all()
        spoilt = z.masked_fill(~chain.present[..., None], torch.nan)
        assert torch.equal(chain.log_prob(spoilt), chain.log_prob(z))

    def test_a_chain_without_memory_is_drawn_as_it_is_scored(self):
        _, guide = small_pair(mean_field=True)
        q = guide.posterior(sequences(), LENGTHS)
        assert q.memoryless
        z = q.rsample((4000,))
        # z₂ of row 0 given any z₁: its mean and scale, within 5 standard errors (4 numbers: a false
        # alarm in 4e5).
        base = q.step(1, z.new_zeros(1, 3, 2)).base_dist
        mean, sd = base.mean.squeeze(0)[0], base.stddev.squeeze(0)[0]
        drawn = z[:, 0, 1]
        assert ((drawn.mean(0) - mean).abs() < 5 * sd / math.sqrt(4000)).all()
        assert ((drawn.std(0) / sd).log().abs() < 5 / math.sqrt(8000)).all()

    def test_the_kl_of_steps_has_the_mean_of_log_q_less_log_p(self):
        model, guide = small_pair()
        x, draws = sequences(), 4000
        with torch.no_grad():
            q = guide.posterior(x, LENGTHS).expand((draws, 3))
            p = model.prior(STEPS, LENGTHS)
            z = q.rsample()
            kl = q.conditional_kl(z, p).sum((-1, -2))
            sampled = q.log_prob(z) - p.log_prob(z)
        difference = kl - sampled
        error = difference.std(0) / math.sqrt(draws)
        # Of 3 rows each within 4.8 standard errors: a false alarm in 2e5.
        assert (difference.mean(0).abs() < 4.8 * error).all()
        assert (kl.std(0)[[0, 2]] < 0.5 * sampled.std(0)[[0, 2]]).all()
        assert kl[:, 1].std() < 1e-12  # of one step it is the KL itself
        assert sampled[:, 1].std() > 0.1

    def test_a_mean_field_kl_still_depends_on_the_draw_through_the_prior(self):
        model, guide = small_pair(mean_field=True)
        x = sequences()
        with torch.no_grad():
            q, p = guide.posterior(x).expand((4000, 3)), model.prior(STEPS)
            z = q.rsample()
            difference = q.conditional_kl(z, p).sum((-1, -2)) - (q.log_prob(z) - p.log_prob(z))
        assert (difference.mean(0).abs() < 4.8 * difference.std(0) / math.sqrt(4000)).all()

    def test_other_steps_or_families_have_no_conditional_kl(self):
        model, guide = small_pair()
        x = sequences()
        q = guide.posterior(x, LENGTHS)
        z = q.rsample()
        assert q.has_conditional_kl(z, model.prior(STEPS, LENGTHS))
        assert not q.has_conditional_kl(z, model.prior(STEPS))
        assert not q.has_conditional_kl(z, model.prior(STEPS, LENGTHS.flip(0)))
        assert not q.has_conditional_kl(z, pyro.distributions.Normal(z, 1.0).to_event(2))

    def test_the_default_objective_takes_the_kl_of_steps(self):
        pair, args = small_pair(), (sequences(), LENGTHS)
        chosen = choose_objective(None, *pair, args, inspect_pair(*pair, args))
        assert repr(chosen) == repr(Beta_ELBO())
        torch.manual_seed(1)
        loss = chosen.loss(*pair, *args)
        torch.manual_seed(1)
        z, (_, _, log_likelihood) = log_terms(*pair, *args)
        q, p = pair[1].posterior(*args), pair[0].prior(STEPS, LENGTHS)
        expected = q.conditional_kl(z, p).sum() - log_likelihood.sum()
        assert loss == pytest.approx(expected.item(), rel=1e-12)


class TestTransitions:
    def test_the_gated_one_is_its_formula(self):
        part, z = GatedTransition(3, 8).double(), torch.randn(5, 3).double()
        base = part(z).base_dist
        gate, proposal = part.gate(z).sigmoid(), part.proposal(z)
        torch.testing.assert_close(base.mean, (1 - gate) * z + gate * proposal)  # W = I at first
        raw = part.raw_scale(proposal.clamp(min=0))
        torch.testing.assert_close(base.stddev, (1 + raw.exp()).log() + 1e-4)

    def test_the_linear_one_is_its_formula(self):
        part, z = LinearTransition(3, scale=0.3).double(), torch.randn(5, 3).double()
        with torch.no_grad():
            part.linear.weight.copy_(torch.arange(9).view(3, 3))
            part.linear.bias.fill_(0.5)
        base = part(z).base_dist
        torch.testing.assert_close(base.mean, z @ part.linear.weight.T + 0.5)
        torch.testing.assert_close(base.stddev, torch.full((5, 3), 0.3).double(), rtol=1e-6, atol=0)
        for wrong in ({"latent_dim": 0}, {"latent_dim": 2, "scale": 0.0}):
            with pytest.raises(ValueError, match="must be"):
                LinearTransition(**wrong)


class TestKalman:
    def test_each_draw_of_the_exact_posterior_gives_log_p(self):
        oracle = LinearGaussianSequences(latent_dim=3)
        x, lengths = oracle.sample(4, 50), torch.tensor([50, 1, 20, 33])
        for data, exact in (
            (x, oracle.log_prob(x)),
            ((x, lengths), oracle.log_prob_of_ragged(x, lengths)),
        ):
            evidence = log_evidence(oracle.model(), oracle.exact_guide(), data, num_samples=20)
            torch.testing.assert_close(evidence.log_px, exact, rtol=0, atol=1e-9)
            assert (evidence.standard_error < 1e-10).all()
            assert (evidence.ess > 20 - 1e-6).all()

    def test_importance_sampling_meets_the_kalman_filter_on_short_sequences(self):
        oracle = LinearGaussianSequences(latent_dim=3)
        x = oracle.sample(6, 8)
        guide = oracle.exact_guide(widen=1.1)
        evidence = log_evidence(oracle.model(), guide, x, num_samples=4000)
        score = (evidence.log_px - oracle.log_prob(x)) / evidence.standard_error
        assert (score.abs() < 4.8).all()  # of 6 normals: a false alarm in 1e5
        assert (evidence.standard_error < 0.1).all()
        assert evidence.elbo < evidence.mean

    def test_a_guide_too_wide_has_few_effective_draws_and_is_told(self):
        oracle = LinearGaussianSequences(latent_dim=3)
        x = oracle.sample(4, 50)
        evidence = log_evidence(oracle.model(), oracle.exact_guide(1.6), x, num_samples=2000)
        assert (evidence.ess < 20).all()
        assert evidence.khat_bad_fraction == 1.0


class TestPadding:
    @pytest.mark.parametrize("mean_field", [False, True])
    def test_a_row_of_a_ragged_batch_is_that_row_alone(self, mean_field):
        model, guide = small_pair(mean_field=mean_field)
        x = sequences()
        z, together = log_terms(model, guide, x, LENGTHS)
        for row, length in enumerate(LENGTHS.tolist()):
            alone = x[row : row + 1, :length], z[row : row + 1, :length]
            _, terms = log_terms(model, guide, alone[0], z=alone[1])
            torch.testing.assert_close(terms[:, 0], together[:, row], rtol=0, atol=1e-10)

    @pytest.mark.parametrize("padding", [math.nan, math.inf, 1e30])
    def test_what_stands_in_the_padding_reaches_no_term_and_no_gradient(self, padding):
        model, guide = small_pair(mean_field=True)
        parts = nn.ModuleList([model, guide])
        x, mask = sequences(), step_mask(LENGTHS, STEPS)
        found = []
        for filled in (x, x.masked_fill(~mask[..., None], padding)):
            torch.manual_seed(1)
            parts.zero_grad()
            with pyro.validation_enabled(False):
                loss = Beta_ELBO().loss_and_grads(model, guide, filled, LENGTHS)
            grads = torch.cat([p.grad.flatten() for p in parts.parameters() if p.grad is not None])
            found.append((loss, grads))
        assert found[0][0] == found[1][0]
        assert torch.equal(found[0][1], found[1][1])
        assert found[0][1].isfinite().all()

    def test_evidence_takes_nan_in_the_padding_and_refuses_it_elsewhere(self):
        pair, x = small_pair(), sequences()
        clean = log_evidence(*pair, (x, LENGTHS), num_samples=20)
        x[1, 3] = torch.nan
        assert torch.equal(log_evidence(*pair, (x, LENGTHS), num_samples=20).log_px, clean.log_px)
        x[0, 3] = torch.nan
        with pytest.raises(ValueError, match="NaN"):
            log_evidence(*pair, (x, LENGTHS), num_samples=20)

    @pytest.mark.parametrize("padding", [0.0, -1.0])
    def test_padding_may_lie_outside_the_support_of_the_steps(self, padding):
        pair, x = pair_of(LogNormal((4,))), sequences().exp()
        mask = step_mask(LENGTHS, STEPS)[..., None]
        padded = x.masked_fill(~mask, padding)
        found = log_evidence(*pair, (padded, LENGTHS), num_samples=20, compile="plain")
        assert found.log_px.isfinite().all()
        padded[2, 1, 0] = padding
        with pytest.raises(ValueError, match=r"outside the support of .* in row 2"):
            log_evidence(*pair, (padded, LENGTHS), num_samples=20, compile="plain")

    @pytest.mark.parametrize("cell", [nn.GRU, nn.LSTM, nn.RNN])
    @pytest.mark.parametrize("direction", ["forward", "backward", "both"])
    def test_a_reader_reads_each_row_within_its_length(self, cell, direction):
        reader = RecurrentReader(4, 5, direction=direction, cell=cell, num_layers=2).double()
        x = sequences()
        read = reader(x, step_mask(LENGTHS, STEPS))
        for row, length in enumerate(LENGTHS.tolist()):
            alone = reader(x[row : row + 1, :length])
            torch.testing.assert_close(read[row, :length], alone[0], rtol=0, atol=1e-12)

    def test_a_backward_reader_does_not_see_earlier_steps(self):
        reader, x = RecurrentReader(4, 5).double(), sequences()
        x.requires_grad_()
        (grad,) = torch.autograd.grad(reader(x)[:, 3].sum(), x)
        assert (grad[:, :3] == 0).all()
        assert (grad[:, 3:] != 0).all()

    def test_reversing_twice_gives_the_sequence(self):
        x, mask = sequences(), step_mask(LENGTHS, STEPS)
        assert torch.equal(reverse_steps(reverse_steps(x, mask), mask), x)

    def test_draws_are_zero_in_the_padding(self):
        model, _ = small_pair()
        with torch.no_grad():
            z = model.prior(STEPS, LENGTHS).sample()
            emissions = Emissions(model.emit, z, step_mask(LENGTHS, STEPS))
        for x in (emissions.sample(), emissions.mean):
            assert (x[1, 1:] == 0).all()
            assert (x[1, :1] != 0).all()


def pair_of(likelihood, *, family=None, transition=None, embed=None, latent_dim=2):
    step = tuple(likelihood.event_shape)
    reader = RecurrentReader(step or 1, 8, embed=embed)
    model = StateSpaceModel(
        transition or GatedTransition(latent_dim, 8),
        mlp(latent_dim, out=likelihood.num_features),
        likelihood,
    )
    family = family or DiagonalNormal(Combiner(8, latent_dim, out=2 * latent_dim), latent_dim)
    return model.double(), SequencePosterior(reader, family).double()


def compositions():
    bits = (torch.rand(3, STEPS, 5, generator=torch.Generator().manual_seed(0)) < 0.4).double()
    reals = sequences(5)
    flow = NormalizingFlow(
        Combiner(8, 2, out=7), 2, zuko.flows.MAF(2, 3, hidden_features=(4,)), context=3
    )
    full = FullRankNormal(Combiner(8, 2, out=5), 2)
    return {
        "Bernoulli": (pair_of(Bernoulli((5,))), bits),
        "notes after notes": (pair_of(AutoregressiveLikelihood(Bernoulli((5,)), (8,))), bits),
        "a network's transition": (
            pair_of(Bernoulli((5,)), transition=ConditionalNormal(mlp(2, 8, out=4), 2)), bits),
        "flow": (pair_of(Normal((5,), scale=None), family=flow), reals),
        "full rank": (pair_of(Normal((5,)), family=full), reals),
        "positive": (pair_of(LogNormal((5,))), reals.exp()),
        "tokens": (pair_of(Categorical((), num_classes=7), embed=OneHot(7)), bits.sum(-1).long()),
    }  # fmt: skip


@pytest.mark.parametrize("name", compositions())
def test_any_likelihood_transition_and_family_go_together(name):
    torch.manual_seed(0)
    (model, guide), x = compositions()[name]
    mask = step_mask(LENGTHS, STEPS)
    padded = x.masked_fill(~mask[(..., *[None] * (x.dim() - 2))], 0)
    structure = inspect_pair(model, guide, (padded, LENGTHS))
    assert structure.vectorized
    objective = choose_objective(None, model, guide, (padded, LENGTHS), structure)
    parts = nn.ModuleList([model, guide])
    loss = objective.differentiable_loss(model, guide, padded, LENGTHS)
    grads = torch.autograd.grad(loss, list(parts.parameters()), allow_unused=True)
    assert all(grad is not None and grad.isfinite().all() for grad in grads)
    z, together = log_terms(model, guide, padded, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        _, terms = log_terms(model, guide, x[row : row + 1, :length], z=z[row : row + 1, :length])
        torch.testing.assert_close(terms[:, 0], together[:, row], rtol=0, atol=1e-10)


def test_the_emission_starts_at_the_mean_of_the_steps_that_are_there():
    model, _ = pair_of(Bernoulli((5,)))
    x = torch.zeros(3, STEPS, 5).double()
    x[1, 0] = 1
    model.start_at_mean(x, LENGTHS)
    expected = torch.full((5,), 1 / LENGTHS.sum().item()).double().logit()
    torch.testing.assert_close(model.emission[1].bias.detach(), expected)


@pytest.mark.parametrize(
    "objective", [None, pytest.param(Filtering_ELBO(3), marks=pytest.mark.slow)]
)
def test_a_recorded_fit_has_the_numbers_of_a_plain_one(objective, monkeypatch):
    monkeypatch.setattr(preparation, "Step", lambda *a, **o: Step(*a, **{**o, "record_after": 0.0}))
    runs = []
    for how in ("recorded", "plain"):
        torch.manual_seed(0)
        reader = RecurrentReader(4, 8, direction="both")
        guide = SequencePosterior(reader, DiagonalNormal(Combiner(16, 2, out=4), 2))
        model = StateSpaceModel(GatedTransition(2, 8), mlp(2, out=4), Normal((4,)))
        data = sequences(num=8, steps=2).float(), torch.tensor([2, 1, 2, 1, 2, 2, 2, 1])
        run = fit(
            model, guide, data, objective=objective, epochs=3, batch_size=4, show_progress=False,
            compile=how,
        )  # fmt: skip
        assert run.note == ""
        runs.append([row["loss"] for row in run.history])
    assert runs[0] == runs[1]


class TestRefusals:
    @pytest.mark.parametrize(
        ("lengths", "told"),
        [
            (torch.tensor([6, 7, 1]), "the length of sequence 1 is 7, but the data are padded to"),
            (torch.tensor([6, 6, 0]), "the length of sequence 2 is 0"),
            (torch.tensor([6.0, 6.0, 1.0]), "lengths are whole numbers"),
            (torch.tensor([[6], [6], [1]]), r"lengths have the shape \(N,\)"),
        ],
    )
    def test_lengths_that_cannot_be(self, lengths, told):
        model, guide = small_pair()
        for program in (model, guide):  # fit refuses most of them before it calls one
            with pytest.raises(ValueError, match=told):
                program(sequences(), lengths)
        with pytest.raises(ValueError, match="length"):
            fit(model, guide, (sequences(), lengths), show_progress=False)

    def test_parts_that_do_not_fit(self):
        likelihood = Normal((4,))
        with pytest.raises(ValueError, match="does not take z_t of 3 dimensions"):
            StateSpaceModel(GatedTransition(3, 8), mlp(2, out=4), likelihood)
        with pytest.raises(ValueError, match="takes 4 decoder features"):
            StateSpaceModel(GatedTransition(3, 8), mlp(3, out=5), likelihood)
        with pytest.raises(ValueError, match=r"the initial gives z of shape \(2,\)"):
            StateSpaceModel(
                LinearTransition(3), mlp(3, out=4), likelihood, initial=StandardNormal(2)
            )
        with pytest.raises(ValueError, match="the family of a SequencePosterior"):
            SequencePosterior(RecurrentReader(4, 8), mlp(8, out=4))
        both = RecurrentReader(4, 8, direction="both")
        guide = SequencePosterior(both, DiagonalNormal(Combiner(8, 2, out=4), 2))
        with pytest.raises(ValueError, match="takes 8 numbers that were read of x, got 16"):
            guide.posterior(sequences().float())

    def test_a_guide_of_another_dimension_or_of_other_data(self):
        model, _ = small_pair(latent_dim=2)
        _, other = small_pair(latent_dim=3)
        with pytest.raises(ValueError, match="the same latent dimension"):
            log_evidence(model, other, sequences())
        _, other = small_pair(observed_dim=5)
        with pytest.raises(ValueError, match=r"reads steps of shape \(5,\)"):
            log_evidence(model, other, sequences())
        with pytest.raises(ValueError, match=r"takes sequences of shape \(N, T, 4\)"):
            model(sequences()[:, 0])
        with pytest.raises(ValueError, match="2 lengths for 3 sequences"):
            model(sequences(), LENGTHS[:2])

    def test_a_chain_of_scalars(self):
        with pytest.raises(ValueError, match=r"end it with .to_event\(1\)"):
            MarkovChain(pyro.distributions.Normal(0.0, 1.0), lambda z, _: z, 3)
