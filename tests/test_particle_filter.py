"""Particle filters and the filtering objective, against the Kalman filter's exact log p(x)."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from latente.guides import DiagonalNormal
from latente.inference import (
    Filtering_ELBO,
    ImportanceWeighted_ELBO,
    fit,
    log_evidence,
    particle_filter,
)
from latente.inference.evidence.particle_filter import _sites
from latente.inference.pairs.particles import _systematic, filter_particles
from latente.models import VAE, Normal, StandardNormal, mlp

from .state_space_oracle import LinearGaussianSequences, small_pair

ORACLE = LinearGaussianSequences(latent_dim=3)
LENGTHS = torch.tensor([50, 1, 20, 33])
T9_QUANTILE = 7.7
"""A t variable of 9 degrees of freedom is beyond it once in 33,000."""


def filtered(widen, x, lengths, particles, filters, threshold=0.5):
    """log p̂(x) of R filters, (R, N), less the exact log p(x)."""
    torch.manual_seed(0)
    with torch.no_grad(), pyro.validation_enabled(False):
        sites = _sites(ORACLE.model(), ORACLE.exact_guide(widen), (x, lengths))
        found = filter_particles(sites, particles, num_filters=filters, threshold=threshold)
    return found.log_px - ORACLE.log_prob_of_ragged(x, lengths)


class TestKalman:
    def test_the_filter_meets_it_where_importance_sampling_does_not(self):
        x = ORACLE.sample(4, 50)
        exact = ORACLE.log_prob_of_ragged(x, LENGTHS)
        pair = ORACLE.model(), ORACLE.exact_guide(widen=1.5)
        evidence = particle_filter(*pair, (x, LENGTHS), num_particles=200)
        score = (evidence.log_px - exact) / evidence.standard_error
        assert (score.abs() < T9_QUANTILE).all()  # of 4 sequences: a false alarm in 8,000
        assert (evidence.standard_error < 0.5).all()
        sampled = log_evidence(*pair, (x, LENGTHS), num_samples=2000)  # as many draws
        assert sampled.log_px[0] < exact[0] - 4
        assert sampled.ess[0] < 20 < evidence.min_ess[0]
        assert evidence.per_step == pytest.approx(evidence.log_px.sum().item() / 104)

    @pytest.mark.parametrize("threshold", [0.5, 1.1])
    def test_its_estimate_of_p_is_unbiased(self, threshold):
        x, lengths = ORACLE.sample(3, 10), torch.tensor([10, 4, 7])
        ratio = filtered(1.3, x, lengths, 20, 1000, threshold).exp()
        error = ratio.std(0) / math.sqrt(len(ratio))
        # Of 3 sequences each within 4.8 standard errors: a false alarm in 2e5.
        assert ((ratio.mean(0) - 1).abs() < 4.8 * error).all()
        assert (error < 0.05).all()

    def test_the_exact_posterior_without_resampling_gives_log_p_in_each_filter(self):
        x = ORACLE.sample(4, 50)
        assert filtered(1.0, x, LENGTHS, 5, 3, threshold=0.0).abs().max() < 1e-9

    def test_the_filtering_bound_lies_between_the_importance_weighted_one_and_log_p(self):
        x, lengths = ORACLE.sample(4, 20), torch.tensor([20, 1, 15, 20])
        exact = ORACLE.log_prob_of_ragged(x, lengths).sum()
        bound = filtered(1.3, x, lengths, 8, 100).sum(-1)
        objective, pair = Filtering_ELBO(num_particles=8), (ORACLE.model(), ORACLE.exact_guide(1.3))
        with torch.no_grad():
            losses = torch.stack([objective.differentiable_loss(*pair, x, lengths)
                                  for _ in range(15)])  # fmt: skip
        gap = exact + losses.mean()  # log p − bound
        error = (losses.var() / 15 + bound.var() / 100).sqrt()
        assert (gap + bound.mean()).abs() < 4.8 * error  # a false alarm in 6e5
        importance = filtered(1.3, x, lengths, 8, 100, threshold=0.0).sum(-1)
        assert importance.mean() + 1 < -gap < -0.2

    def test_a_filter_without_resampling_is_importance_sampling(self):
        x, lengths = ORACLE.sample(3, 6), torch.tensor([6, 1, 4])
        pair = ORACLE.model(), ORACLE.exact_guide(1.3)
        one, other = Filtering_ELBO(8, threshold=0.0), ImportanceWeighted_ELBO(8)
        with pyro.validation_enabled(False):
            losses = torch.tensor(
                [[each.loss(*pair, x, lengths) for each in (one, other)] for _ in range(30)]
            )
        difference = losses.mean(0).diff().abs()
        assert difference < 4.8 * (losses.var(0).sum() / 30).sqrt()  # a false alarm in 6e5


class TestFigures:
    def test_a_bad_proposal_has_few_effective_particles(self):
        x, lengths = ORACLE.sample(2, 12), torch.tensor([12, 5])
        model = ORACLE.model()

        def shifted(x, lengths):
            chain = ORACLE.posterior(x, lengths)
            after = chain.transition

            def moved(z, steps):
                given = after(z, steps)
                return dist.MultivariateNormal(given.mean + 3.0, given.covariance_matrix)

            chain.transition = moved
            with pyro.plate("data", len(x), dim=-1):
                pyro.sample("z", chain)

        good = particle_filter(model, ORACLE.exact_guide(), (x, lengths), num_particles=100)
        bad = particle_filter(model, shifted, (x, lengths), num_particles=100)
        # The best guide of all is not the best proposal: weights up to t do not know the future.
        assert (good.min_ess > 5).all()
        assert (bad.min_ess < 3).all()
        assert (bad.resampled.nanmean(1) > good.resampled.nanmean(1)).all()
        for figure in (bad.ess, bad.resampled):
            assert figure[1, :5].isfinite().all()
            assert figure[1, 5:].isnan().all()
        assert (bad.resampled[0, -1], bad.resampled[1, 4]) == (0, 0)  # no step follows

    def test_a_row_does_not_depend_on_the_padding_of_others(self):
        x, lengths = ORACLE.sample(2, 8), torch.tensor([8, 3])
        spoilt = x.clone()
        spoilt[1, 3:] = torch.nan
        pair = ORACLE.model(), ORACLE.exact_guide(1.2)
        first, second = (
            particle_filter(*pair, (data, lengths), num_particles=10) for data in (x, spoilt)
        )
        assert torch.equal(first.log_px, second.log_px)
        assert torch.equal(first.ess.nan_to_num(), second.ess.nan_to_num())

    def test_systematic_resampling_draws_each_particle_as_often_as_its_weight_says(self):
        weights = torch.tensor([0.5, 0.0, 0.13, 0.37]).double()[None, :, None].expand(2000, 4, 1)
        torch.manual_seed(0)
        chosen = _systematic(weights)
        counts = torch.stack([(chosen == s).sum(1).double() for s in range(4)], 1)
        expected = 4 * weights
        assert ((counts - expected).abs() < 1).all()
        # A count is one of two neighbours, sd at most ½: a false alarm in 2e5.
        assert ((counts - expected).mean(0).abs() < 4.8 * 0.5 / math.sqrt(2000)).all()


class TestObjective:
    def test_its_gradient_reaches_model_and_guide_and_a_fit_improves(self):
        torch.manual_seed(0)
        model, guide = small_pair()
        x, lengths = ORACLE.sample(6, 5), torch.tensor([5, 1, 3, 5, 4, 2])
        parts = [*nn.ModuleList([model, guide]).parameters()]
        before = [part.detach().clone() for part in parts]
        run = fit(
            model, guide, (x, lengths), objective=Filtering_ELBO(4), epochs=15, batch_size=6,
            learning_rate=1e-2, show_progress=False, compile="plain",
        )  # fmt: skip
        assert run.history[-1]["elbo"] > run.history[0]["elbo"] + 2
        assert not any(torch.equal(*both) for both in zip(parts, before, strict=True))


class TestRefusals:
    def test_what_is_no_chain(self):
        vae = VAE(StandardNormal(2), mlp(2, out=4), Normal((4,)))
        guide = DiagonalNormal(mlp(4, out=4), 2)
        x = torch.randn(3, 4)
        with pytest.raises(ValueError, match="'z' in the guide is Independent: give a StateSpace"):
            particle_filter(vae, guide, x)
        with pytest.raises(ValueError, match="Filtering_ELBO is of one latent Markov chain"):
            fit(vae, guide, x, objective=Filtering_ELBO(), show_progress=False)

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            ({"num_particles": 1}, "num_particles must be a whole number of at least 2"),
            ({"num_filters": 1}, "num_filters must be at least 2"),
            ({"threshold": -1.0}, "threshold must not be negative"),
        ],
    )
    def test_settings(self, options, told):
        with pytest.raises(ValueError, match=told):
            particle_filter(*small_pair(), torch.zeros(2, 3, 4), **options)

    def test_particles_without_weight(self):
        model, guide = small_pair()
        with torch.no_grad():
            model.emission[-1].bias.fill_(1e200)
        with pytest.raises(ValueError, match="all particles of sequence 0 have weights"):
            particle_filter(model, guide, torch.zeros(2, 3, 4).double())
