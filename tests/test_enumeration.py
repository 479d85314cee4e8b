"""Sites that are summed out: exact log terms, evidence, posterior draws, and what is refused."""

import itertools
import math
from dataclasses import replace
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import TraceEnum_ELBO, config_enumerate

from latente.inference import (
    Budget,
    annealed_evidence,
    calibrate,
    diagnose,
    evaluate,
    fit,
    inference_gap,
    latent_information,
    log_evidence,
    log_predictive_density,
    nuts_posterior,
    posterior_means,
    predictive_check,
    psis_loo,
    reconstruct,
    simulate,
    to_datatree,
)
from latente.inference.execution.recorded import Recorded
from latente.inference.pairs.inspection import inspect_pair
from latente.inference.pairs.latent_space import latent_space
from latente.inference.pairs.log_terms import complete, draw, score
from latente.inference.pairs.scoring import Scorer

from .enumerated_pairs import SUMMED, HiddenMarkov, Mixture, MixturePrior, Topics
from .oracles import empty

EXACT = {"rtol": 0, "atol": 1e-10}


def reals(*shape, seed=0):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def read(pair, args, num_samples, *, vectorized):
    """Draws of a pair, and their terms, under a plate of samples or on repeated data."""
    structure = inspect_pair(pair.model, pair.guide, args)
    assert structure.vectorized
    torch.manual_seed(1)
    draws = draw(pair.guide, args, num_samples, replace(structure, vectorized=vectorized))
    return draws, score(pair.model, draws)


vectorized_or_not = pytest.mark.parametrize("vectorized", [True, False])


@vectorized_or_not
def test_a_mixture_has_its_closed_form(vectorized):
    pair, x = Mixture(), reals(7)
    _, terms = read(pair, (x,), 3, vectorized=vectorized)
    assert torch.allclose(terms.log_likelihood, pair.log_px(x).expand(3, 7), **EXACT)
    assert not terms.log_prior.any()
    assert not terms.log_posterior.any()


@vectorized_or_not
def test_a_drawn_site_whose_prior_is_a_mixture_has_its_closed_form(vectorized):
    """log p(z) is the mixture's, and log p(x|z) what is left of log p(x, z)."""
    pair, x = MixturePrior(), reals(7)
    draws, terms = read(pair, (x,), 4, vectorized=vectorized)
    z = draws.trace.nodes["z"]["value"].reshape(4, 7)
    log_joint = pair.joint(x, z).logsumexp(-1)
    assert torch.allclose(terms.log_prior, pair.log_prior(z), **EXACT)
    assert torch.allclose(terms.log_likelihood + terms.log_prior, log_joint, **EXACT)
    part = score(pair.model, draws, 1, 3)
    assert torch.allclose(part.log_weight, terms.log_weight[1:3], **EXACT)


@vectorized_or_not
@pytest.mark.parametrize("lengths", [None, torch.tensor([6, 1, 3, 4, 2])])
def test_a_hidden_markov_model_has_the_forward_algorithms_value(vectorized, lengths):
    pair, x = HiddenMarkov(), reals(5, 6)
    args = (x,) if lengths is None else (x, lengths)
    _, terms = read(pair, args, 2, vectorized=vectorized)
    assert torch.allclose(terms.log_likelihood, pair.log_px(*args).expand(2, 5), **EXACT)


@vectorized_or_not
def test_words_of_documents_have_the_closed_form(vectorized):
    """The words' plate lies within the documents'; θ is drawn."""
    pair, x = Topics(), torch.randint(5, (4, 9), generator=torch.Generator().manual_seed(0))
    draws, terms = read(pair, (x,), 3, vectorized=vectorized)
    theta = draws.trace.nodes["theta"]["value"].reshape(3, 4, 3)
    assert torch.allclose(terms.log_likelihood, pair.log_likelihood(x, theta), **EXACT)
    prior = dist.Dirichlet(pair.shares).log_prob(theta)
    assert torch.allclose(terms.log_prior, prior, **EXACT)


def test_one_datum_and_one_word_have_the_closed_form():
    """Pyro's contraction drops dimensions of size one."""
    for shape in ((1, 4), (3, 1), (1, 1)):
        pair, x = Topics(), torch.zeros(shape).long()
        draws, terms = read(pair, (x,), 2, vectorized=True)
        theta = draws.trace.nodes["theta"]["value"].reshape(2, len(x), 3)
        assert torch.allclose(terms.log_likelihood, pair.log_likelihood(x, theta), **EXACT)


def test_a_plate_within_the_datum_shares_its_site():
    """k of a datum, and five parts of it: log Σ_k π_k Π_j N(x_j; m_k, s_k)."""
    pair, x = Mixture(), reals(4, 5)

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            k = pyro.sample("k", dist.Categorical(pair.weights), infer=SUMMED)
            with pyro.plate("parts", x.shape[1], dim=-2):
                pyro.sample("x", dist.Normal(pair.means[k], pair.scales[k]), obs=x.T)

    parts = dist.Normal(pair.means, pair.scales).log_prob(x[..., None]).sum(1)
    evidence = log_evidence(model, empty, x, num_samples=30)
    assert torch.allclose(evidence.log_px, (pair.weights.log() + parts).logsumexp(-1), **EXACT)


def test_half_known_labels_are_summed_out_where_they_are_missing():
    """log p(x, y) where the label is known, log p(x) where it is not."""
    pair, x, y = Mixture(), reals(6), torch.tensor([0, 1, 2, 0, 0, 0])
    known = torch.tensor([True, True, True, False, False, False])

    @config_enumerate
    def model(x, y, known):
        with pyro.plate("data", len(x)):
            prior = dist.Categorical(pair.weights)
            k = pyro.sample("k", prior, obs=y.long(), obs_mask=known.bool())
            pyro.sample("x", dist.Normal(pair.means[k], pair.scales[k]), obs=x)

    joint = pair.joint(x)
    labelled = joint.gather(1, y[:, None])[:, 0]
    exact = torch.where(known, labelled, joint.logsumexp(1))
    evidence = log_evidence(model, empty, (x, y, known), num_samples=30)
    assert torch.allclose(evidence.log_px, exact, **EXACT)


class Switching:
    """A chain of discrete states, summed out, that switches the steps of a drawn walk z_t."""

    start, steps, drifts = HiddenMarkov.start, HiddenMarkov.steps, HiddenMarkov.means

    def model(self, x):
        with pyro.plate("data", len(x)):
            k, z = None, torch.zeros(len(x)).double()
            for t in pyro.markov(range(x.shape[1])):
                row = self.start if k is None else self.steps[k]
                k = pyro.sample(f"k_{t}", dist.Categorical(row), infer=SUMMED)
                z = pyro.sample(f"z_{t}", dist.Normal(z + self.drifts[k], 0.5))
                pyro.sample(f"x_{t}", dist.Normal(z, 1.0), obs=x[:, t])

    def guide(self, x):
        with pyro.plate("data", len(x)):
            for t in range(x.shape[1]):
                pyro.sample(f"z_{t}", dist.Normal(x[:, t], 1.0))

    def log_joint(self, x, z):
        """log p(x, z) of x (N, T), z (S, N, T), by the forward algorithm."""
        before = torch.cat([torch.zeros_like(z[..., :1]), z[..., :-1]], -1)
        moved = dist.Normal(before[..., None] + self.drifts, 0.5).log_prob(z[..., None])
        message = self.start.log() + moved[..., 0, :]
        for t in range(1, x.shape[1]):
            message = (message[..., None] + self.steps.log()).logsumexp(-2) + moved[..., t, :]
        return message.logsumexp(-1) + dist.Normal(z, 1.0).log_prob(x).sum(-1)


@vectorized_or_not
def test_a_chain_that_switches_a_drawn_walk_has_the_forward_algorithms_value(vectorized):
    pair, x = Switching(), reals(4, 5)
    draws, terms = read(pair, (x,), 3, vectorized=vectorized)
    z = torch.stack([draws.trace.nodes[f"z_{t}"]["value"].reshape(3, 4) for t in range(5)], -1)
    found = terms.log_likelihood + terms.log_prior
    assert torch.allclose(found, pair.log_joint(x, z), **EXACT)
    likelihood = dist.Normal(z, 1.0).log_prob(x).sum(-1)
    assert torch.allclose(terms.log_likelihood, likelihood, **EXACT)
    whole = complete(pair.model, draws)
    assert torch.allclose(score(pair.model, whole).log_weight, terms.log_weight, **EXACT)


def test_factors_that_contradict_each_other_do_not_underflow():
    """In float32, two sites favour different values of k by 200 and 300 nats."""

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(0.5), infer=SUMMED)
            pyro.factor("first", -200.0 * k)
            pyro.factor("second", -300.0 * (1 - k))
            pyro.sample("x", dist.Normal(0.0, 1.0), obs=x)

    x = torch.zeros(2)
    evidence = log_evidence(model, empty, x, num_samples=30)
    exact = math.log(0.5) - 200 - 0.5 * math.log(2 * math.pi)
    assert torch.allclose(evidence.log_px, torch.full((2,), exact).double(), rtol=1e-6)


def test_impossible_steps_are_impossible():
    """A chain that cannot go back: log p(x) by the sum over all paths."""
    pair, x = HiddenMarkov(), reals(3, 3)
    pair.steps = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]]).double()
    pair.start = torch.tensor([1.0, 0.0, 0.0]).double()
    paths = []
    for path in itertools.product(range(3), repeat=3):
        chance = pair.start[path[0]] * pair.steps[path[0], path[1]] * pair.steps[path[1], path[2]]
        paths.append(chance.log() + dist.Normal(pair.means[list(path)], 0.8).log_prob(x).sum(1))
    exact = torch.stack(paths).logsumexp(0)
    evidence = log_evidence(pair.model, pair.guide, x, num_samples=30)
    # Pyro's Categorical has 1e-16 for a probability of zero.
    assert torch.allclose(evidence.log_px, exact, rtol=0, atol=1e-8)


def test_evidence_is_exact_where_nothing_is_drawn():
    pair, lengths = HiddenMarkov(), torch.tensor([6, 1, 3, 4, 2])
    x = reals(5, 6)
    evidence = log_evidence(pair.model, pair.guide, (x, lengths), num_samples=100)
    assert evidence.exact
    assert torch.allclose(evidence.log_px, pair.log_px(x, lengths), **EXACT)
    assert torch.allclose(evidence.log_px, evidence.reconstruction, **EXACT)
    assert not evidence.standard_error.any()
    assert not evidence.kl.any()
    assert (evidence.ess == 100).all()
    assert (evidence.khat == -math.inf).all()
    bound = TraceEnum_ELBO(max_plate_nesting=1).loss(pair.model, pair.guide, x, lengths)
    assert bound == pytest.approx(-evidence.log_px.sum().item(), abs=1e-9)


def test_evidence_with_draws_beside_sums_is_right():
    """Within 5 standard errors of each of 20 data: false-alarm rate 1e-5. A narrow guide fires."""
    pair, x = MixturePrior(), reals(20)
    evidence = log_evidence(pair.model, pair.guide, x, num_samples=2000)
    assert not evidence.exact
    assert ((evidence.log_px - pair.log_px(x)).abs() < 5 * evidence.standard_error).all()
    assert evidence.khat_bad_fraction == 0
    narrow = MixturePrior(width=0.1)
    assert log_evidence(narrow.model, narrow.guide, x, num_samples=2000).khat_bad_fraction > 0.5


@pytest.mark.slow
def test_a_recording_gives_the_numbers_of_plain_calls():
    for pair, x in ((MixturePrior(), reals(6)), (Topics(), torch.randint(5, (6, 4)))):
        structure = inspect_pair(pair.model, pair.guide, (x,))
        weights = {}
        for compile in ("plain", "recorded"):
            scorer = Scorer(pair.model, pair.guide, structure, compile=compile)
            scorer._record = partial(Recorded, compile=compile, record_after=0.0)
            torch.manual_seed(0)
            terms = [term for _ in range(6) for term in scorer.terms((x,), 50)]
            weights[compile] = torch.cat([term.log_weight for term in terms])
            assert scorer.note == ""
        assert torch.equal(weights["plain"], weights["recorded"])


def test_posterior_draws_of_a_chain_have_its_smoothed_marginals():
    """Each of 30 shares within 5 standard errors: false-alarm rate 2e-5."""
    pair, x = HiddenMarkov(), reals(2, 5)
    draws, terms = read(pair, (x,), 10_000, vectorized=True)
    whole = complete(pair.model, draws)
    assert torch.allclose(score(pair.model, whole).log_weight, terms.log_weight, **EXACT)
    paths = torch.tensor(list(itertools.product(range(3), repeat=5)))
    log_joint = pair.start.log()[paths[:, 0]] + pair.steps.log()[paths[:, :-1], paths[:, 1:]].sum(1)
    emitted = dist.Normal(pair.means[paths], 0.8).log_prob(x[:, None]).sum(-1)
    chance = (log_joint + emitted - pair.log_px(x)[:, None]).exp()
    for t in range(5):
        drawn = whole.trace.nodes[f"k_{t}"]["value"]
        for state in range(3):
            exact = chance[:, paths[:, t] == state].sum(1)
            error = (exact * (1 - exact) / 10_000).sqrt()
            share = (drawn == state).double().mean(0)
            assert ((share - exact).abs() < 5 * error + 1e-9).all()


@vectorized_or_not
def test_posterior_draws_have_their_exact_density(vectorized):
    """log p(k | x, z), where z is drawn and has a prior that depends on k."""
    pair, x = MixturePrior(), reals(7)
    draws, _ = read(pair, (x,), 5, vectorized=vectorized)
    whole = complete(pair.model, draws)
    z, k = (whole.trace.nodes[name]["value"].reshape(5, 7) for name in "zk")
    log_posterior = pair.joint(x, z).log_softmax(-1).gather(-1, k[..., None]).squeeze(-1)
    found = whole.log_posterior - draws.log_posterior
    assert torch.allclose(found, log_posterior, **EXACT)


def test_annealing_and_nuts_move_the_drawn_site_with_the_other_summed_out():
    """Their target is log p(x, z) with k summed out, and its gradient, in closed form.

    The annealed evidence is within 5 standard errors of each of 3 data.
    """
    pair, x = MixturePrior(), reals(3)
    space = latent_space(pair.model, pair.guide, (x,), inspect_pair(pair.model, pair.guide, (x,)))
    points = reals(2, 3, 1, seed=1).requires_grad_()
    found = sum(space.log_joint(points))
    exact = pair.joint(x, points[..., 0]).logsumexp(-1)
    assert torch.allclose(found, exact, **EXACT)
    slopes = [torch.autograd.grad(value.sum(), points)[0] for value in (found, exact)]
    assert torch.allclose(*slopes, **EXACT)
    annealed = annealed_evidence(
        pair.model, pair.guide, x, num_temperatures=40, num_chains=40, num_leapfrog=3
    )
    assert ((annealed.log_px - pair.log_px(x)).abs() < 5 * annealed.standard_error).all()


def test_an_exact_guide_beside_sums_is_calibrated_and_a_wide_one_is_not():
    """Three families of tests at 0.1 % each: false-alarm rate 0.3 %."""
    pair, x = MixturePrior(), reals(5)
    evidence = log_evidence(pair.model, pair.exact_guide, x, num_samples=50)
    assert torch.allclose(evidence.log_px, pair.log_px(x), **EXACT)
    options = {"num_simulations": 300, "num_draws": 50, "level": 0.999}
    found = calibrate(pair.model, pair.exact_guide, x, **options)
    assert (found.miscalibrated, found.weighted_miscalibrated, found.biased) == ({}, {}, {})
    assert calibrate(pair.model, pair.guide, x, **options).miscalibrated["z"] == "too wide"


def global_pair():
    """w drawn for all data, k summed out: x | w, k ~ N(w + 2k, 1); and the exact log p(x|w)."""
    share = torch.tensor(0.3, dtype=torch.float64)

    def model(x):
        w = pyro.sample("w", dist.Normal(torch.zeros(()).double(), 1.0))
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(share), infer=SUMMED)
            pyro.sample("x", dist.Normal(w + 2 * k, 1.0), obs=x)

    def guide(x):
        pyro.sample("w", dist.Normal(torch.tensor(0.4).double(), 0.3))

    def log_px(x, w):
        parts = [
            math.log(share) + dist.Normal(w + 2 * k, 1.0).log_prob(x)
            for k, share in enumerate((0.7, 0.3))
        ]
        return torch.stack(parts).logsumexp(0)

    return model, guide, log_px


def test_data_are_predicted_from_a_global_site_with_the_others_summed_out():
    """By quadrature over w; within 5 standard errors of 4 data: false-alarm rate 2e-6."""
    model, guide, log_px = global_pair()
    x = reals(4)
    grid = torch.linspace(-2, 3, 4001).double()[:, None]
    weight = dist.Normal(0.4, 0.3).log_prob(grid)
    exact = (log_px(x, grid) + weight).logsumexp(0) + math.log(5 / 4000)
    found = log_predictive_density(model, guide, x, num_samples=400)
    assert ((found.log_density - exact).abs() < 5 * found.standard_error).all()


@pytest.mark.filterwarnings("ignore:Estimated shape parameter of Pareto")
def test_leaving_one_out_takes_a_global_site_with_the_others_summed_out():
    model, _, log_px = global_pair()
    x = reals(12) / 4 + 0.8
    grid = torch.linspace(-3, 4, 4001).double()[:, None]
    log_joint = dist.Normal(0.0, 1.0).log_prob(grid) + log_px(x, grid).sum(1, keepdim=True)
    posterior = (log_joint - log_joint.logsumexp(0)).exp()
    mean = (posterior * grid).sum()
    sd = (posterior * (grid - mean) ** 2).sum().sqrt()

    def guide(x):
        pyro.sample("w", dist.Normal(mean, sd))

    without = log_joint - log_px(x, grid)
    exact = ((without - without.logsumexp(0)) + log_px(x, grid)).logsumexp(0).sum()
    found = psis_loo(model, guide, x, num_samples=1000)
    # One standard deviation of such estimates is 0.034 with 300 draws, by 12 repetitions.
    assert found.elpd == pytest.approx(exact.item(), abs=0.2)


def test_the_tree_has_posterior_draws_of_sites_that_are_summed_out():
    pair, x = MixturePrior(), reals(6)
    tree = to_datatree(pair.model, pair.guide, x, num_samples=300)
    z, k = (torch.from_numpy(tree["posterior"][name].values[0]) for name in "zk")
    joint = pair.joint(x, z)
    weight = torch.from_numpy(tree["sample_stats"]["log_weight"].values[0])
    log_q = dist.Normal(0.8 * x, pair.width).log_prob(z)
    assert torch.allclose(weight, joint.logsumexp(-1) - log_q, **EXACT)
    lp = torch.from_numpy(tree["sample_stats"]["lp"].values[0])
    assert torch.allclose(lp, joint.gather(-1, k[..., None]).sum((1, 2)), **EXACT)
    assert tree["prior"]["k"].dims == ("chain", "draw", "datum")
    assert tree["evidence"]["log_px"].shape == (6,)
    # Each of 18 mean probabilities within 5 standard errors: false-alarm rate 1e-5.
    chance = joint.softmax(-1)
    for state in range(3):
        error = (chance[..., state] * (1 - chance[..., state])).sum(0).sqrt() / 300
        share = (k == state).double().mean(0)
        assert ((share - chance[..., state].mean(0)).abs() < 5 * error + 1e-9).all()


def test_the_tree_of_topics_has_the_plate_of_words():
    pair, x = Topics(), torch.randint(5, (4, 3))
    tree = to_datatree(pair.model, pair.guide, x, num_samples=20)
    assert tree["posterior"]["topic"].dims == ("chain", "draw", "datum", "words")
    assert tree["log_likelihood"]["word"].shape == (1, 20, 4)


def test_diagnose_says_that_nothing_is_approximate_where_all_is_summed_out():
    pair = Mixture()
    (x,), values = simulate(pair.model, pair.guide, torch.zeros(1).double(), 200)
    assert values["k"].shape == (200,)
    diagnosis = diagnose(
        pair.model, pair.guide, x, budget=Budget(replications=250, tree_samples=10)
    )
    assert diagnosis.verdict == "Nothing was found against this posterior."
    (finding,) = [one for one in diagnosis.findings if one.topic == "posterior of one datum"]
    assert finding.sentence == (
        "Exact: the guide draws nothing, and 'k' is summed out. There are no draws to be judged by "
        "annealing, gap, information, calibration, NUTS."
    )
    assert diagnosis["evidence"].exact
    assert {one.topic for one in diagnosis.findings} >= {"posterior predictive", "prior predictive"}
    assert "k" in diagnosis.tree["posterior"]


def test_predictive_checks_draw_what_is_summed_out_from_its_posterior():
    """Their mean is known; 0.1 is 10 standard errors. Replications of the prior differ."""
    pair = Mixture()
    x = torch.full((100,), 3.0).double()
    mean = {"mean": lambda x: x.mean()}
    own = predictive_check(pair.model, pair.guide, x, mean, num_samples=100)["mean"]
    exact = (pair.joint(x[:1]).softmax(-1) * pair.means).sum().item()
    assert own.replicated.mean().item() == pytest.approx(exact, abs=0.1)
    prior = predictive_check(pair.model, pair.guide, x, mean, from_prior=True)["mean"]
    assert prior.p_value == 0
    # The component at 3 makes no datum at 9: the check fires.
    beyond = predictive_check(pair.model, pair.guide, x + 6, mean, num_samples=100)["mean"]
    assert beyond.p_value == 0


def test_predictions_of_pairs_with_sites_that_are_summed_out():
    pair, x = Mixture(), torch.tensor([-2.0, 3.1]).double()
    means = reconstruct(pair.model, pair.guide, x.repeat(50))
    assert torch.allclose(means.double().reshape(50, 2).mean(0), pair.means[[0, 2]], atol=0.3)
    assert posterior_means(pair.model, pair.guide, x) == {}
    figures = evaluate(pair.model, pair.guide, x, num_samples=30)
    assert figures["elbo"] == pytest.approx(pair.log_px(x).mean().item())
    assert (figures["log_evidence_se"], figures["kl"], figures["latent_dim"]) == (0, 0, 0)
    counts = evaluate(Topics().model, Topics().guide, torch.randint(5, (6, 4)), num_samples=30)
    assert counts["bits_per_dimension"] > 0


def test_a_pair_is_fitted_and_then_known_exactly():
    half = torch.tensor(0.5).double()

    def model(x):
        loc = pyro.param("loc", torch.tensor([-0.5, 0.5]).double())
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(half), infer=SUMMED)
            pyro.sample("x", dist.Normal(loc[k.long()], 1.0), obs=x)

    x = torch.cat([reals(50) / 2 - 2, reals(50, seed=1) / 2 + 2])
    run = fit(model, empty, x, epochs=20, learning_rate=0.1, show_progress=False)
    loc = run.model.store["params"]["loc"].detach()
    exact = (dist.Normal(loc, 1.0).log_prob(x[:, None]) + math.log(0.5)).logsumexp(1)
    assert torch.allclose(log_evidence(run.model, run.guide, x).log_px, exact, **EXACT)


def test_information_of_sites_beside_those_summed_out():
    """KL to a prior that is a mixture, known for all sites together; by quadrature, 5 errors."""
    pair, x = MixturePrior(width=0.8), reals(40)
    found = latent_information(pair.model, pair.guide, x, num_draws=400)
    grid = torch.linspace(-12, 12, 6001).double()[:, None]
    log_q = dist.Normal(0.8 * x, 0.8).log_prob(grid)
    term = log_q.exp() * (log_q - pair.log_prior(grid))
    exact = torch.trapezoid(term, grid[:, 0], dim=0)
    assert found.names == ("z",)
    assert torch.allclose(found.kl[:, 0], exact, atol=0.3)
    assert found.kl.mean().item() == pytest.approx(exact.mean().item(), abs=0.05)
    aggregated = log_q.logsumexp(1) - math.log(40)
    term = aggregated.exp() * (aggregated - pair.log_prior(grid)[:, 0])
    marginal = torch.trapezoid(term, grid[:, 0])
    error = 5 * found.marginal_kl_error
    assert found.marginal_kl == pytest.approx(marginal.item(), abs=error)


def test_information_of_a_site_whose_prior_is_fixed_splits_by_dimension():
    pair, x = Topics(), torch.randint(5, (30, 4))
    found = latent_information(pair.model, pair.guide, x)
    assert found.names == ("theta",)
    q = torch.stack([(x == word).sum(1) for word in range(5)], -1).double() @ pair.words.T
    exact = torch.distributions.kl_divergence(
        dist.Dirichlet(q + pair.shares), dist.Dirichlet(pair.shares.expand(30, 3))
    )
    assert torch.allclose(found.kl[:, 0], exact, rtol=1e-6)


def test_what_judges_draws_is_refused_where_there_are_none():
    pair, x = Mixture(), reals(8)
    for function in (annealed_evidence, inference_gap, nuts_posterior, calibrate):
        with pytest.raises(ValueError, match="'k' is summed out, and the guide draws nothing"):
            function(pair.model, pair.guide, x)


def marked(distribution, infer):
    """A pair with a site that is not drawn by its guide, and marked in some way."""

    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", distribution, infer=infer)
            pyro.sample("x", dist.Normal(k, 1.0), obs=x)

    return model


def test_sites_that_cannot_be_summed_out_are_refused():
    x = torch.randn(4)
    coin = dist.Bernoulli(0.5)
    for model, told in (
        (marked(coin, {"enumerate": "sequential"}), "marks 'k' as enumerate='sequential'"),
        (marked(coin, {**SUMMED, "num_samples": 3}), "'k' with num_samples"),
        (marked(dist.Poisson(2.0), SUMMED), "'k' to be summed out, but its distribution has no"),
    ):
        with pytest.raises(ValueError, match=told):
            log_evidence(model, empty, x)


def test_a_site_outside_the_data_plate_is_not_summed_out_datum_by_datum():
    x = torch.randn(6)

    def outside(x):
        k = pyro.sample("k", dist.Bernoulli(0.5), infer=SUMMED)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(k, 1.0), obs=x)

    calls = (
        log_evidence,
        to_datatree,
        log_predictive_density,
        predictive_check,
        diagnose,
        latent_information,
    )
    for function in calls:
        with pytest.raises(ValueError, match="'k' outside the plate 'data' is summed out"):
            function(outside, empty, x)
    with pytest.raises(ValueError, match="the site 'k' stands outside the plate 'data'"):
        simulate(outside, empty, x, 3)

    def coupled(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(0.5), infer=SUMMED)
            pyro.sample("x", dist.Normal(w + k, 1.0), obs=x)
        pyro.factor("far", k.sum(-1))

    def guide(x):
        pyro.sample("w", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match="'far' outside the plate of data depends on a site"):
        log_predictive_density(coupled, guide, x)


def test_a_site_that_the_guide_enumerates_is_drawn_and_the_evidence_is_right():
    """Half-known labels: y ~ q(y|x) summed over in the guide; exact by a sum over y."""
    means, scale = torch.tensor([-1.0, 0.5, 2.0]).double(), 1.3

    def model(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", dist.Categorical(torch.ones(3).double() / 3), infer=SUMMED)
            z = pyro.sample("z", dist.Normal(torch.zeros(()).double(), 1.0))
            pyro.sample("x", dist.Normal(means[y] + z, (scale**2 - 1) ** 0.5), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            y = pyro.sample(
                "y",
                dist.Categorical(logits=-((x[:, None] - means) ** 2) / (2 * scale**2)),
                infer=SUMMED,
            )
            pyro.sample("z", dist.Normal((x - means[y]) / scale**2, 0.8))

    x = reals(20)
    exact = (dist.Normal(means, scale).log_prob(x[:, None]) - math.log(3)).logsumexp(1)
    evidence = log_evidence(model, guide, x, num_samples=2000)
    # Within 5 standard errors of each of 20 data: false-alarm rate 1e-5.
    assert ((evidence.log_px - exact).abs() < 5 * evidence.standard_error).all()
    assert evidence.khat_bad_fraction == 0
