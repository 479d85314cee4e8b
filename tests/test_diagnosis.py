"""All diagnostics in one call: which of them fire on guides known to be bad, and on none."""

import json
import math
from dataclasses import replace

import pyro
import pyro.distributions as dist
import pytest
import torch

from latente.guides import DiagonalNormal
from latente.inference import Budget, Level, diagnose, fit, load_data, save_report
from latente.inference.diagnostics.finding import Finding, summarize_findings
from latente.models import VAE, Bernoulli, StandardNormal, mlp

from .oracles import GlobalMean, LinearGaussian, OneBatchDimension, TutorialVAE

SMALL = Budget(
    num_data=100, num_samples=1000, annealed_data=4, temperatures=12, chains=4, gap_data=16,
    simulations=400, draws=50, nuts_data=1, nuts_samples=100, nuts_warmup=40, nuts_temperatures=8,
    replications=250, gap_steps=60, tree_data=8, tree_samples=20,
)  # fmt: skip
TINY = Budget(
    num_data=30, num_samples=100, annealed_data=3, temperatures=4, chains=2, gap_data=5,
    simulations=40, draws=20, nuts_data=1, nuts_samples=15, nuts_warmup=10, nuts_temperatures=0,
    replications=10, gap_steps=10, tree_data=5, tree_samples=10,
)  # fmt: skip


def prior_guide(x):
    """The posterior collapsed onto the prior."""
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.new_zeros(len(x), 2), 1.0).to_event(1))


def fired(diagnosis) -> set[str]:
    return {one.topic for one in diagnosis.findings if one.level >= Level.WARNING}


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        # The exact posterior: nothing.
        ({}, set()),
        # Half as wide: k = 1 − (½)² = ¾ in the limit; the weights, the ranks and NUTS show it.
        ({"widen": 0.5}, {"evidence", "gap", "calibration", "NUTS"}),
        # One standard deviation off, of the right width: log weights are normal, k̂ need not fire.
        pytest.param(
            {"shift": 1.0}, {"gap", "calibration", "bias", "NUTS"}, marks=pytest.mark.slow
        ),
        # The prior: wider than the posterior, so weights are bounded; each z ranks evenly.
        pytest.param(None, {"gap", "information", "calibration", "NUTS"}, marks=pytest.mark.slow),
    ],
    ids=["exact", "too narrow", "biased", "collapsed"],
)
def test_what_fires_on_which_guide(bad, expected):
    """False alarms: each family of tests at most 5 %; these seeds have none.

    How often they fire on exact guides is counted in ``test_false_alarms.py``.
    """
    oracle = LinearGaussian(2, orthogonal=True)
    model, guide = oracle.pair(**(bad or {}))
    if bad is None:
        guide = prior_guide
    # A guide of about the posterior's width takes longer chains to be told from it.
    longer = replace(SMALL, nuts_samples=200, nuts_warmup=80, nuts_temperatures=30)
    budget = longer if bad is None else SMALL
    diagnosis = diagnose(model, guide, oracle.sample(100), budget=budget)
    assert fired(diagnosis) - {"evidence"} == expected - {"evidence"}
    if bad in ({}, {"widen": 0.5}):  # of the others, few weights of many count: k̂ may fire or not
        assert ("evidence" in fired(diagnosis)) == ("evidence" in expected)
    head = "Do not trust this posterior" if expected else "Nothing was found against"
    assert diagnosis.verdict.startswith(head)
    exact = oracle.marginal.log_prob(oracle.sample(100))[:16]
    assert torch.allclose(diagnosis["gap"].log_px, exact, atol=0.02)


def test_a_wrong_model_is_found_by_the_predictive_checks():
    """Counts that vary far more than a Poisson distribution of one rate: the posterior is exact."""

    def model(x):
        with pyro.plate("data", len(x)):
            rate = pyro.sample("rate", dist.Gamma(50.0, 10.0))
            pyro.sample("count", dist.Poisson(rate), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("rate", dist.Gamma(50.0 + x, 11.0))

    x = torch.distributions.NegativeBinomial(torch.tensor(1.0), torch.tensor(5 / 6)).sample((100,))
    # That chains find a Gamma posterior exact is seen in test_nuts.py.
    diagnosis = diagnose(model, guide, x, budget=replace(SMALL, nuts_data=0))
    assert "prior predictive" in fired(diagnosis)
    assert not fired(diagnosis) & {"evidence", "gap", "calibration", "bias"}


def test_two_sites_a_gamma_prior_and_counts_go_through_unchanged(tmp_path):
    def model(x):
        slope = pyro.param("slope", torch.tensor(0.5))
        with pyro.plate("data", len(x)):
            level = pyro.sample("level", dist.Gamma(2.0, 1.0))
            tilt = pyro.sample("tilt", dist.Normal(0.0, 1.0))
            pyro.sample("counts", dist.Poisson(level * (slope * tilt).exp()), obs=x)

    def guide(x):
        shape = pyro.param("shape", torch.tensor(1.0), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            pyro.sample("level", dist.Gamma(shape + 0.7 * x, 1.3))
            pyro.sample("tilt", dist.Normal(0.1 * x - 0.2, 0.9))

    x = torch.distributions.Poisson(torch.full((60,), 2.0)).sample()
    run = fit(model, guide, x, epochs=2, show_progress=False)
    diagnosis = diagnose(run.model, run.guide, x, budget=TINY)
    assert not [one for one in diagnosis.findings if "Not looked at" in one.sentence]
    assert diagnosis["calibration"].names[:2] == ("level", "tilt")
    assert diagnosis["gap"].approximation.isfinite().all()
    assert set(diagnosis.tree["posterior"].data_vars) == {"level", "tilt"}
    paths = save_report(diagnosis, tmp_path / "report")
    assert paths[0].name == "report.html"
    assert {path.name for path in paths} >= {"diagnosis.json", "diagnosis.nc"}
    written = json.loads((tmp_path / "report" / "diagnosis.json").read_text())
    assert written["verdict"] == diagnosis.verdict


def test_a_pair_with_a_global_latent_goes_through():
    pair = GlobalMean()
    x = 1 + torch.randn(40, generator=torch.Generator().manual_seed(0))
    run = fit(pair.model, pair.guide, x, epochs=60, learning_rate=0.1, show_progress=False)
    few = replace(TINY, nuts_data=0, annealed_sets=1, gap_steps=5)
    diagnosis = diagnose(run.model, run.guide, x, budget=few)
    topics = {one.topic: one for one in diagnosis.findings}
    assert {"evidence", "loo", "annealing", "gap", "information"} <= diagnosis.results.keys()
    assert topics["leaving one out"].level != Level.NOTE
    assert "the whole data set of 40 rows" in topics["evidence"].sentence
    unseen = [one.topic for one in diagnosis.findings if "Not looked at" in one.sentence]
    assert unseen == ["calibration"]  # the guide is not amortized, and no refit was given
    assert "w" in diagnosis.tree["posterior"]


def test_all_data_that_were_fitted_count_where_one_is_left_out():
    """The exact posterior of 300 data, of which 30 are looked at: it is not that of the 30."""
    x = 1 + torch.randn(300, generator=torch.Generator().manual_seed(0))

    def model(x):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w, 1.0), obs=x)

    def guide(_):
        pyro.sample("w", dist.Normal(x.sum() / 301, 301**-0.5))

    diagnosis = diagnose(model, guide, x, budget=TINY)
    assert diagnosis["loo"].n_data_points == 300
    assert "leaving one out" not in fired(diagnosis)
    reasons = {one.topic: one.sentence for one in diagnosis.findings}
    assert "nats of the whole data set" in reasons["information"]


def test_masked_data_are_not_replicated_and_what_fails_does_not_stop_the_rest():
    def model(x, seen):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0).mask(seen), obs=x)

    def guide(x, seen):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2 * seen, (1 / (1.0 + seen)).sqrt()))

    seen = torch.arange(40) % 3 > 0
    x = 2**0.5 * torch.randn(40, generator=torch.Generator().manual_seed(1)) * seen
    diagnosis = diagnose(model, guide, (x, seen), budget=TINY)
    assert not fired(diagnosis)
    reasons = {one.topic: one.sentence for one in diagnosis.findings if one.level == Level.NOTE}
    assert "'x' is masked for some data" in reasons["prior predictive"]
    assert "'x' is masked for some data" in reasons["calibration"]
    assert len(diagnosis["annealing"].annealed.log_px) == 3
    assert diagnosis["annealing"].sandwich is None

    def broken(x):
        raise AttributeError("no such column")

    oracle = LinearGaussian(1)
    found = diagnose(*oracle.pair(), oracle.sample(30), quantities={"odd": broken}, budget=TINY)
    reasons = {one.topic: one.sentence for one in found.findings}
    assert "AttributeError: no such column" in reasons["prior predictive"]
    assert found["nuts"].mean.shape == (1, 1)


def test_units_within_a_plate_of_a_datum_are_counted_over_the_data():
    def model(x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("part", 3, dim=-2):
            z = pyro.sample("z", dist.Normal(x.new_zeros(3, len(x)), 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x.T)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1), pyro.plate("part", 3, dim=-2):
            pyro.sample("z", dist.Normal(0.8 * x.T, 0.2**0.5))

    x = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    found = diagnose(model, guide, x, budget=TINY)["information"]
    assert (found.active_units, found.latent_dim) == (3, 3)
    assert torch.allclose(found.mean_variance["z"], (0.8 * x[:30]).var(0).double(), atol=1e-4)


def test_an_infinite_bound_is_said_to_be_one():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Uniform(z - 1, z + 1, validate_args=False), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    found = diagnose(model, guide, torch.linspace(-1, 1, 30), budget=TINY)
    gap = next(one for one in found.findings if one.topic == "gap")
    assert gap.sentence.startswith("The ELBO is −∞ for some data")


def test_pairs_of_all_kinds_go_through():
    """Flattened images, a network of one batch dimension, and a context."""
    tutorial = TutorialVAE(16, 2, 8)
    images = torch.rand(30, 4, 4, generator=torch.Generator().manual_seed(0)).round()
    found = diagnose(tutorial.model, tutorial.guide, images, budget=TINY)
    assert len(found["evidence"].log_px) == 30
    decoder = OneBatchDimension(torch.nn.Linear(2, 16), 2)
    vae = VAE(StandardNormal(2), decoder, Bernoulli((4, 4)))
    guide = DiagonalNormal(mlp(16, out=4), 2)
    found = diagnose(vae, guide, images, budget=TINY)
    assert not [one for one in found.findings if "Not looked at" in one.sentence]

    def model(x, c):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(c, 1.0))
            pyro.sample("x", dist.Normal(z, 0.5), obs=x)

    def of_context(x, c):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((c + 4 * x) / 5, 0.2**0.5))

    c = torch.linspace(-2, 2, 30)
    found = diagnose(model, of_context, (c + 0.1, c), budget=TINY)
    assert math.isnan(found["information"].marginal_kl)
    assert not [one for one in found.findings if "Not looked at" in one.sentence]


def test_what_does_not_apply_is_named_with_its_reason():
    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("kind", dist.Bernoulli(0.5))
            pyro.sample("x", dist.Normal(2 * k - 1, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("kind", dist.Bernoulli(logits=2 * x))

    found = diagnose(model, guide, torch.linspace(-2, 2, 30), budget=TINY)
    reasons = {one.topic: one.sentence for one in found.findings if one.level == Level.NOTE}
    assert {"annealing", "gap", "NUTS"} <= reasons.keys()
    assert "'kind' is discrete" in reasons["NUTS"]
    assert "calibration" not in reasons  # ranks need no gradient
    assert found["evidence"].khat_bad_fraction == 0  # exact
    assert found.figures


def test_what_is_given_no_budget_is_left_out(make_pair, binary_images):
    nothing = replace(TINY, annealed_data=0, gap_data=0, simulations=0, nuts_data=0, replications=0)
    found = diagnose(*make_pair(), binary_images, budget=nothing)
    assert [one.topic for one in found.findings] == ["evidence", "information"]
    assert list(found.results) == ["evidence", "information"]
    with pytest.raises(
        KeyError, match="no result is named 'nuts': there are evidence, information"
    ):
        found["nuts"]


def test_data_objects_give_their_test_part():
    data = load_data("digits", binarize="static", seed=0)
    vae = VAE(StandardNormal(2), mlp(2, out=64), Bernoulli((8, 8)))
    guide = DiagonalNormal(mlp(64, out=4), 2)
    few = replace(TINY, annealed_data=0, gap_data=0, nuts_data=0)  # the others see the same rows
    found = diagnose(vae, guide, data, budget=few)
    again = diagnose(vae, guide, data.test, budget=few)
    assert torch.equal(found["evidence"].log_px, again["evidence"].log_px)
    assert found.verdict == again.verdict


def test_the_pair_and_global_state_are_left_as_they_were(make_pair, binary_images):
    model, guide = make_pair()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    diagnose(model, guide, binary_images, budget=TINY)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in [*model.parameters(), *guide.parameters()])
    assert not dict(pyro.get_param_store())


def test_one_datum_and_one_dimension():
    oracle = LinearGaussian(1)
    found = diagnose(*oracle.pair(), oracle.sample(1), budget=TINY)
    assert found.figures
    assert "-0.00" not in found.verdict


def test_the_verdict_is_of_the_worst_finding_and_lists_it_first():
    findings = [
        Finding("a", Level.WARNING, "odd."),
        Finding("b", Level.BAD, "wrong."),
        Finding("c", Level.GOOD, "fine."),
    ]
    lines = summarize_findings(findings).split("\n")
    assert lines == ["Do not trust this posterior.", "- b: wrong.", "- a: odd."]
    assert summarize_findings(findings[::2]).startswith("Use this posterior with care.")
    assert summarize_findings([]) == "Nothing could be said about this posterior."
    of_model = [
        findings[2],
        Finding("prior predictive", Level.WARNING, "unlike.", about_model=True),
    ]
    assert summarize_findings(of_model).split("\n")[0] == (
        "Nothing was found against this posterior, but the model does not make data like these."
    )
    notes = [Finding("d", Level.NOTE, "Not looked at: …")]
    assert summarize_findings(notes).split("\n") == [
        "Nothing could be said about this posterior.",
        "Nothing can be said about: d (see the findings).",
    ]
