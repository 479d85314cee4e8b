"""DRAW: attention by its formula, a density that integrates to one, evidence against quadrature."""

import math

import numpy as np
import pyro
import pytest
import torch
from pyro import poutine
from torch import nn
from torch.distributions import kl_divergence

from latente.guides import DiagonalNormal, DrawPosterior, FullRankNormal, NormalizingFlow, planar
from latente.guides.steps import Steps
from latente.inference import (
    Beta_ELBO,
    Gradient,
    ImportanceWeighted_ELBO,
    annealed_evidence,
    canvases,
    inference_gap,
    log_evidence,
    nuts_posterior,
    plot_all,
    plot_canvases,
)
from latente.inference.objectives.choice import choose_objective
from latente.inference.pairs.inspection import inspect_pair
from latente.inference.pairs.kl import sites_in_closed_form
from latente.inference.pairs.sites import latent_sites
from latente.inference.recipes.build import build_pair, planned_sizes
from latente.inference.recipes.plan import Plan, complete, compose
from latente.models import (
    VAE,
    Bernoulli,
    Categorical,
    DiscretizedLogistic,
    DrawDecoder,
    GaussianAttention,
    Normal,
    StandardNormal,
    mlp,
)
from latente.models.networks.recurrent_cell import RecurrentCell

from .test_recorded_steps import assert_recorded_is_plain

HIDDEN = 6
WINDOWS = [None, 2]


def make_pair(
    window=None, *, steps=3, dim=2, shape=(4, 3), likelihood=None, family=None, spread=3.0, seed=0
):
    """A small pair in float64, whose weights are large enough for its parts to matter."""
    torch.manual_seed(seed)
    likelihood = likelihood or Bernoulli(shape)
    decoder = DrawDecoder(
        shape, (steps, dim), HIDDEN, features_per_element=likelihood.features_per_element,
        window=window,
    )  # fmt: skip
    family = family or DiagonalNormal(mlp(HIDDEN, out=2 * dim), dim)
    guide = DrawPosterior(family, decoder, likelihood, hidden=HIDDEN, window=window)
    model = VAE(StandardNormal((steps, dim)), decoder, likelihood)
    with torch.no_grad():
        for value in nn.ModuleList([decoder, guide.cell, guide.family]).parameters():
            value.mul_(spread)
        decoder.cell.first.normal_()
        guide.cell.first.normal_()
    return model.double(), guide.double()


def bits(num=5, shape=(4, 3), seed=1):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(num, *shape, generator=generator) < 0.4).double()


class TestAttention:
    def attention(self, shape=(5, 7), window=3):
        torch.manual_seed(2)
        part = GaussianAttention(shape, 4, window).double()
        with torch.no_grad():
            part.place.weight.normal_()
            part.place.bias.normal_().mul_(0.3)
        return part

    def filters_by_loops(self, part, h):
        """Equations 19 to 26 of the paper, whose A is the width, one filter and pixel at a time."""
        across, down, variance, distance, intensity = (part.place(h)).tolist()
        rows, columns, n = part.height, part.width, part.window
        delta = (max(rows, columns) - 1) / max(n - 1, 1) * math.exp(distance)
        found = []
        for size, centre in ((rows, down), (columns, across)):
            middle = (size + 1) / 2 * (centre + 1)
            filters = np.zeros((n, size))
            for i in range(1, n + 1):
                mean = middle + (i - n / 2 - 0.5) * delta
                for a in range(1, size + 1):
                    filters[i - 1, a - 1] = math.exp(-((a - mean) ** 2) / 2 / math.exp(variance))
                filters[i - 1] /= filters[i - 1].sum()
            found.append(filters)
        return *found, math.exp(intensity)

    @pytest.mark.parametrize("window", [1, 2, 3])
    def test_reading_and_writing_are_their_formulas(self, window):
        part = self.attention(window=window)
        h = torch.randn(2, 3, 4).double()
        images, patches = torch.randn(2, 3, 2, 5, 7).double(), torch.randn(2, 3, 2, window, window)
        glimpse, patches = part(h), patches.double()
        read, written = part.read(images, glimpse), part.write(patches, glimpse)
        for place in np.ndindex(2, 3):
            rows, columns, gamma = self.filters_by_loops(part, h[place])
            for plane in range(2):
                image, patch = images[place][plane].numpy(), patches[place][plane].numpy()
                expected = np.zeros((window, window))
                for i, j in np.ndindex(window, window):
                    for b, a in np.ndindex(5, 7):
                        expected[i, j] += gamma * rows[i, b] * columns[j, a] * image[b, a]
                np.testing.assert_allclose(read[place][plane].detach(), expected, atol=1e-12)
                expected = np.zeros((5, 7))
                for b, a in np.ndindex(5, 7):
                    for i, j in np.ndindex(window, window):
                        expected[b, a] += rows[i, b] * patch[i, j] * columns[j, a] / gamma
                np.testing.assert_allclose(written[place][plane].detach(), expected, atol=1e-12)

    def test_a_window_far_outside_the_image_takes_the_edge(self):
        part = self.attention()
        with torch.no_grad():
            part.place.weight.zero_()
            part.place.bias.copy_(torch.tensor([50.0, -50.0, 0.0, 0.0, 0.0]))
        glimpse = part(torch.zeros(1, 4).double())
        assert torch.allclose(glimpse.rows[..., 0], torch.ones(1, 3).double())
        assert torch.allclose(glimpse.columns[..., -1], torch.ones(1, 3).double())

    def test_what_it_refuses(self):
        with pytest.raises(ValueError, match="takes images"):
            GaussianAttention((12,), 4, 2)
        with pytest.raises(ValueError, match="a window of 1, got 4 and 0"):
            GaussianAttention((4, 4), 4, 0)


def test_a_recurrent_cell_of_any_leading_shape_is_the_cell_of_each_row():
    cell = RecurrentCell(3, 5).double()
    with torch.no_grad():
        cell.first.normal_()
    x, state = torch.randn(2, 4, 3).double(), cell.start()
    for _ in range(2):
        after = cell(x, state)
        for place in np.ndindex(2, 4):
            before = tuple(part.expand(2, 4, 5)[place] for part in state)
            for ours, theirs in zip(after, cell.cell(x[place], before), strict=True):
                assert torch.allclose(ours[place], theirs, rtol=0, atol=1e-12)
        state = after
    with pytest.raises(ValueError, match="at least 1"):
        RecurrentCell(0, 5)


@pytest.mark.parametrize("window", WINDOWS)
def test_the_decoder_adds_up_what_it_writes(window):
    model, _ = make_pair(window, likelihood=Normal((2, 4, 3), scale=None), shape=(2, 4, 3))
    decoder, z = model.decoder, torch.randn(5, 3, 2).double()
    strips = decoder.canvases(z)
    assert strips.shape == (5, 3, 2 * 24)
    assert torch.equal(strips[:, -1], decoder(z))
    canvas, state = decoder.blank.bias, tuple(decoder.cell.first.expand(5, 2, -1).unbind(1))
    for step in range(3):
        state = decoder.cell.cell(z[:, step], state)
        canvas = canvas + decoder.write(state[0])
        assert torch.allclose(strips[:, step], canvas, rtol=0, atol=1e-12)
    if window:  # blocks of the likelihood and channels are planes of their own, in this order
        patches = decoder.brush(state[0]).reshape(5, 4, 2, 2)
        rows, columns, gamma = decoder.attention(state[0])
        image = torch.einsum("ria,rpij,rjb->rpab", rows, patches, columns) / gamma.view(-1, 1, 1, 1)
        assert torch.allclose(decoder.write(state[0]), image.reshape(5, -1), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"takes z of shape \(…, T, D\), got \(5, 2, 2\)"):
        decoder(torch.zeros(5, 2, 2).double())


class TestGuide:
    @pytest.mark.parametrize("window", WINDOWS)
    def test_log_prob_is_the_sum_of_the_normals_of_the_steps(self, window):
        """The guide by the paper's equations, one step after the other, at drawn z."""
        model, guide = make_pair(window)
        decoder, x = model.decoder, bits()
        z = guide.posterior(x).rsample()
        canvas = decoder.blank.bias.expand(5, -1)
        painter = tuple(decoder.cell.first.expand(5, 2, -1).unbind(1))
        encoder = tuple(guide.cell.first.expand(5, 2, -1).unbind(1))
        total = torch.zeros(5).double()
        for step in range(3):
            error = x - canvas.sigmoid().view(5, 4, 3)
            if window:
                glimpse = guide.attention(painter[0])
                each = [guide.attention.read(part[:, None], glimpse) for part in (x, error)]
            else:
                each = [x, error]
            read = torch.cat([part.flatten(1) for part in (*each, painter[0])], 1)
            encoder = guide.cell.cell(read, encoder)
            mean, log_scale = guide.family.encoder(encoder[0]).chunk(2, -1)
            normal = torch.distributions.Normal(mean, log_scale.exp())
            total = total + normal.log_prob(z[:, step]).sum(-1)
            painter = decoder.cell.cell(z[:, step], painter)
            canvas = canvas + decoder.write(painter[0])
        for posterior in (guide.posterior(x), (drawn := guide.posterior(x))):
            assert torch.allclose(posterior.log_prob(z), total, rtol=0, atol=1e-10)
        again = drawn.rsample()
        known, scored = drawn.log_prob(again), drawn.log_prob(again.clone())
        assert torch.allclose(known, scored, rtol=0, atol=1e-12)

    @pytest.mark.parametrize(("window", "kind"), [(None, "flow"), (2, "diagonal")])
    def test_the_density_integrates_to_one(self, window, kind):
        family = None
        if kind == "flow":
            family = NormalizingFlow(mlp(HIDDEN, out=5), 1, planar(1, 3, transforms=2), context=3)
        _, guide = make_pair(window, steps=2, dim=1, spread=2.0, family=family)
        grid = torch.linspace(-10, 10, 201).double()
        points = torch.cartesian_prod(grid, grid).reshape(-1, 1, 2, 1)
        with torch.no_grad():
            density = guide.posterior(bits(1)).log_prob(points).exp().view(201, 201)
        total = torch.trapezoid(torch.trapezoid(density, grid), grid)
        assert total.item() == pytest.approx(1, abs=1e-6)
        second = (density / density.sum(1, keepdim=True))[[90, 110]] @ grid
        assert (second[0] - second[1]).abs() > 1e-3  # z₂ depends on z₁

    @pytest.mark.parametrize("window", WINDOWS)
    def test_contract(self, window):
        """As that of other guides in test_guides.py."""
        _, guide = make_pair(window)
        x = bits()
        posterior = guide.posterior(x)
        assert (posterior.batch_shape, posterior.event_shape) == ((5,), (3, 2))
        trace = poutine.trace(guide).get_trace(x)
        (frame,) = trace.nodes["z"]["cond_indep_stack"]
        assert (frame.name, frame.dim, frame.size) == ("data", -1, 5)
        (posterior.rsample() ** 3).sum().backward()
        assert all((p.grad != 0).any() for p in guide.parameters())
        with pyro.plate("samples", 4, dim=-2):
            assert guide(x).shape == (4, 5, 3, 2)
        z = posterior.expand((4, 5)).rsample()
        together = posterior.log_prob(z)
        for row in range(4):
            assert torch.allclose(together[row], posterior.log_prob(z[row]), rtol=0, atol=1e-12)
        _, again = make_pair(window, seed=7)
        again.load_state_dict(guide.state_dict())
        assert torch.equal(again.posterior(x).log_prob(z), guide.posterior(x).log_prob(z))

    def test_a_known_density_has_the_gradient_of_one_scored_again(self):
        gradients = []
        for again in (False, True):
            _, guide = make_pair(2)
            torch.manual_seed(5)
            z = (posterior := guide.posterior(bits())).rsample()
            posterior.log_prob(z.clone() if again else z).sum().backward()
            gradients.append([p.grad for p in guide.parameters()])
        for first, second in zip(*gradients, strict=True):
            assert torch.allclose(first, second, rtol=0, atol=1e-10)

    def test_a_draw_without_gradient_is_scored_with_one(self):
        _, guide = make_pair()
        posterior = guide.posterior(bits())
        z = posterior.sample()
        assert not z.requires_grad
        posterior.log_prob(z).sum().backward()
        assert all((p.grad != 0).any() for p in guide.cell.parameters())

    def test_steps_are_refused_where_there_are_none(self):
        with pytest.raises(ValueError, match="at least 1 step"):
            Steps(lambda state, z, t: (None, None), 0)


FAMILIES = {
    "diagonal": lambda: DiagonalNormal(mlp(HIDDEN, out=4), 2),
    "full rank": lambda: FullRankNormal(mlp(HIDDEN, out=5), 2),
}


class TestKL:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_the_kl_of_steps_has_the_mean_of_log_q_less_log_p_and_varies_less(self, family):
        _, guide = make_pair(family=FAMILIES[family]())
        x, p = bits(3), StandardNormal((3, 2)).double()()
        with torch.no_grad():
            q = guide.posterior(x).expand((4000, 3))
            z = q.rsample()
            assert q.has_conditional_kl(z, p)
            kl, sampled = q.conditional_kl(z, p), q.log_prob(z) - p.log_prob(z)
        assert kl.shape == (4000, 3, 3, 2 if family == "diagonal" else 1)
        kl = kl.sum((-1, -2))
        difference = kl - sampled
        # Of 3 rows each within 4.8 standard errors: a false alarm in 2e5.
        assert (difference.mean(0).abs() < 4.8 * difference.std(0) / math.sqrt(4000)).all()
        assert (kl.std(0) < 0.7 * sampled.std(0)).all()
        first = q.conditional_kl(z, p)[:, :, 0].sum(-1)
        assert first.std(0).max() < 1e-12  # that of the first step is the KL itself

    def test_each_step_has_the_kl_to_its_own_part_of_the_prior(self):
        _, guide = make_pair()
        loc, scale = torch.randn(3, 2).double(), torch.rand(3, 2).double() + 0.5
        prior = pyro.distributions.Normal(loc, scale).to_event(2)
        z = (q := guide.posterior(bits())).rsample()
        each = [
            kl_divergence(each.base_dist, torch.distributions.Normal(*parts))
            for each, *parts in zip(q.distributions(z), loc, scale, strict=True)
        ]
        assert torch.allclose(q.conditional_kl(z, prior), torch.stack(each, -2))

    def test_the_default_objective_takes_it(self):
        pair, x = make_pair(), bits()
        chosen = choose_objective(None, *pair, (x,), inspect_pair(*pair, (x,)))
        assert repr(chosen) == repr(Beta_ELBO())
        torch.manual_seed(1)
        loss = chosen.loss(*pair, x)
        torch.manual_seed(1)
        q, p = pair[1].posterior(x), pair[0].prior()
        z = q.rsample()
        log_likelihood = pair[0].likelihood(pair[0].decoder(z)).log_prob(x).sum()
        expected = q.conditional_kl(z, p).sum() - log_likelihood
        assert loss == pytest.approx(expected.item(), rel=1e-12)

    def test_a_family_without_one_or_another_prior_is_sampled(self):
        flow = NormalizingFlow(mlp(HIDDEN, out=7), 2, planar(2, 3, transforms=2), context=3)
        pair, x = make_pair(family=flow), bits()
        q = latent_sites(poutine.trace(pair[1]).get_trace(x))
        p = latent_sites(poutine.trace(pair[0]).get_trace(x))
        assert not sites_in_closed_form(q, p)
        z = (q := make_pair()[1].posterior(x)).rsample()
        laplace = pyro.distributions.Laplace(torch.zeros(3, 2).double(), 1.0).to_event(2)
        assert not q.has_conditional_kl(z, laplace)
        assert not q.has_conditional_kl(z, StandardNormal((2, 2)).double()())
        with pytest.raises(NotImplementedError, match="no product"):
            q.conditional_kl(z, laplace)


@pytest.fixture(scope="module")
def exact():
    """A pair, data, and log p(x) by quadrature over z of 2 × 1."""
    model, guide = make_pair(steps=2, dim=1)
    x, grid = bits(3), torch.linspace(-8, 8, 161).double()
    z = torch.cartesian_prod(grid, grid).reshape(-1, 1, 2, 1)
    with torch.no_grad():
        joint = model.prior().log_prob(z) + model.likelihood(model.decoder(z)).log_prob(x)
    log_px = joint.logsumexp(0) + 2 * math.log(grid[1] - grid[0])
    return model, guide, x, log_px


class TestEvidence:
    def test_importance_sampling_meets_quadrature(self, exact):
        model, guide, x, log_px = exact
        found = log_evidence(model, guide, x, num_samples=1000)
        # Of 3 data each within 4.8 standard errors: a false alarm in 2e5.
        assert ((found.log_px - log_px).abs() < 4.8 * found.standard_error).all()
        assert found.standard_error.max() < 0.2
        assert found.elbo < log_px.mean()

    def test_annealing_meets_quadrature(self, exact):
        model, guide, x, log_px = exact
        found = annealed_evidence(model, guide, x, num_temperatures=10, num_chains=10)
        assert ((found.log_px - log_px).abs() < 4.8 * found.standard_error + 1e-3).all()

    def test_a_guide_that_is_off_is_told(self, exact):
        model, _, x, log_px = exact
        _, bad = make_pair(steps=2, dim=1)
        with torch.no_grad():
            bad.family.encoder[-1].bias += torch.tensor([4.0, -2.0]).double()
        found = log_evidence(model, bad, x, num_samples=500)
        assert found.khat_bad_fraction == 1
        assert found.elbo < log_px.mean() - 3

    @pytest.mark.parametrize("gradient", Gradient)
    def test_importance_weighted_bounds_have_gradients(self, gradient):
        model, guide = make_pair()
        objective = ImportanceWeighted_ELBO(k=3, gradient=gradient)
        parts = nn.ModuleList([model, guide])
        objective.differentiable_loss(model, guide, bits()).backward()
        assert all(p.grad.isfinite().all() and (p.grad != 0).any() for p in parts.parameters())

    def test_the_gap_and_nuts_take_it(self, exact):
        model, guide, x, _ = exact
        gap = inference_gap(model, guide, x, num_steps=10, num_samples=100)
        assert gap.amortization.mean() > 0.01  # the guide has not been fitted
        nuts = nuts_posterior(
            model, guide, x[:1], num_samples=20, warmup_steps=20, num_temperatures=0
        )
        assert nuts.draws.isfinite().all()


def test_numbers_of_each_datum_start_as_the_guide_has_them():
    _, guide = make_pair(2)
    x = bits()
    numbers = guide.local_parameters(x)
    assert [tuple(value.shape) for value in numbers] == [(5, 4, 3), (5, 3, 4)]
    torch.manual_seed(0)
    z = guide(x)
    torch.manual_seed(0)
    assert torch.equal(guide.run_local(numbers), z)
    shifted = numbers[0], numbers[1] + torch.tensor([1.0, 1.0, 0.0, 0.0]).double()
    torch.manual_seed(0)
    assert torch.allclose(guide.run_local(shifted)[:, 0], z[:, 0] + 1)


def single(window, objective=None):
    def make():
        model, guide = make_pair(window)
        return model.float(), guide.float()

    batches = [(bits(seed=seed).float(),) for seed in range(5)]
    return assert_recorded_is_plain(make, batches, objective=lambda: objective)


@pytest.mark.parametrize("window", WINDOWS)
def test_a_recorded_step_is_a_plain_one(window):
    single(window)


def test_a_recorded_step_of_an_importance_weighted_bound_is_a_plain_one():
    single(None, ImportanceWeighted_ELBO(k=2))


LIKELIHOODS = {
    "mixture of logistics": DiscretizedLogistic((3, 4, 4), 2, levels=8),
    "predicted scales": Normal((3, 4, 4), scale=None),
}


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_error_image_is_that_of_any_likelihood_with_a_mean(name, window):
    likelihood = LIKELIHOODS[name]
    model, guide = make_pair(window, shape=(3, 4, 4), likelihood=likelihood, spread=1.0)
    x = bits(5, (3, 4, 4))
    seen = guide._read(x, model.decoder.start())
    mean = likelihood(model.decoder.blank.bias).mean
    if window is None:
        assert torch.allclose(seen[:, :96].view(5, 2, 3, 4, 4)[:, 1], x - mean)
    loss = Beta_ELBO().differentiable_loss(model, guide, x)
    grads = torch.autograd.grad(loss, list(guide.parameters()), allow_unused=True)
    assert loss.isfinite()
    assert all(grad.isfinite().all() for grad in grads if grad is not None)
    model.start_at_mean(x)
    assert torch.equal(
        model.decoder.blank.bias.detach(), likelihood.constant_features(x).to(torch.float64)
    )


class TestCanvases:
    def test_they_are_the_means_after_each_step(self):
        model, guide = make_pair()
        x = bits()
        strips = canvases(model, guide, x)
        assert strips.shape == (5, 3, 4, 3)
        torch.manual_seed(0)
        with torch.no_grad():
            z = guide(x)
            assert torch.allclose(strips[:, -1], model.decoder(z).sigmoid().view(5, 4, 3))
        prior = canvases(model, guide, x, from_prior=True)
        assert torch.equal(prior, canvases(model, guide, 1 - x, from_prior=True))
        assert not torch.equal(prior, canvases(model, guide, x, from_prior=True, seed=1))

    @pytest.mark.parametrize("shape", [(4, 3), (3, 4, 4)])
    def test_they_are_plotted_of_images(self, shape):
        model, guide = make_pair(shape=shape, steps=20, dim=1)
        figure = plot_canvases(model, guide, bits(shape=shape), num=2)
        assert [ax.get_title() for ax in figure.axes] == [
            "samples, z ~ p(z)", "reconstructions, z ~ q(z|x), and x",
        ]  # fmt: skip
        steps = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
        assert (steps[0], steps[-2:], len(steps)) == ("1", ["20", "x"], 17)
        assert "canvases" in plot_all(model, guide, bits(shape=shape))

    def test_of_other_models_and_data_they_are_refused(self):
        model, guide = make_pair(shape=(12,))
        with pytest.raises(ValueError, match=r"a datum has the shape \(12,\)"):
            plot_canvases(model, guide, bits(shape=(12,)))
        plain = VAE(StandardNormal(2), mlp(2, out=12), Bernoulli((4, 3)))
        with pytest.raises(ValueError, match="does not paint step by step"):
            canvases(plain, DiagonalNormal(mlp(12, out=4), 2), bits())


class TestRefusals:
    def test_parts_that_do_not_fit(self):
        decoder, family = DrawDecoder((4, 3), (3, 2), 6), DiagonalNormal(mlp(6, out=4), 2)
        refused = {
            "the family of a DrawPosterior": (mlp(6, out=4), decoder, Bernoulli((4, 3))),
            "a DrawPosterior runs the decoder": (family, mlp(2, out=12), Bernoulli((4, 3))),
            "z_t has 3 dimensions in the family and 2": (
                DiagonalNormal(mlp(6, out=6), 3), decoder, Bernoulli((4, 3))),
            "the likelihood is of data": (family, decoder, Bernoulli((3, 4))),
            "takes 24 decoder features": (family, decoder, Normal((4, 3), scale=None)),
            "has no mean": (
                family, DrawDecoder((4, 3), (3, 2), 6, features_per_element=4),
                Categorical((4, 3), num_classes=4)),
        }  # fmt: skip
        for told, parts in refused.items():
            with pytest.raises(ValueError, match=told):
                DrawPosterior(*parts, hidden=6)
        with pytest.raises(ValueError, match="of 6 inputs got a tensor"):
            DrawPosterior(family, decoder, Bernoulli((4, 3)), hidden=5)
        with pytest.raises(ValueError, match="takes images"):
            DrawDecoder((12,), (3, 2), 6, window=2)
        with pytest.raises(ValueError, match="every size of a DrawDecoder"):
            DrawDecoder((4, 3), (0, 2), 6)
        guide = DrawPosterior(family, decoder, Bernoulli((4, 3)), hidden=6)
        with pytest.raises(ValueError, match="takes data of shape"):
            guide(torch.zeros(5, 3, 4))

    @pytest.mark.parametrize(
        ("choices", "told"),
        [
            ({"likelihood": "poisson"}, "the likelihood poisson is for counts"),
            ({"prior": "vamp"}, "the prior vamp is of one vector"),
            ({"posterior": "point"}, "need a posterior with a density"),
            ({"network": "conv"}, "the network conv is for one latent variable"),
            ({"given": "labels"}, "take no context yet"),
            ({"objective": "info"}, "compares one latent variable with its prior"),
            ({"latent_dim": 5}, "--latent-dim and --hidden are for one latent variable"),
        ],
    )
    def test_compositions_that_make_no_sense(self, choices, told):
        with pytest.raises(ValueError, match=told):
            complete(Plan(recipe="draw", **choices))

    def test_attention_is_of_images(self, tmp_path):
        table = tmp_path / "table.csv"
        table.write_text("a,b\n1,2\n3,4\n")
        plan = Plan(recipe="draw-attention", data=str(table), likelihood="normal")
        with pytest.raises(ValueError, match=r"is for images, and .* is a table"):
            complete(plan)
        with pytest.raises(ValueError, match="attention looks at a part of an image"):
            build_pair(compose(Plan(recipe="draw-attention")), planned_sizes(Plan(), (12,)))
        build_pair(compose(Plan(recipe="draw", likelihood="normal")), planned_sizes(Plan(), (12,)))
