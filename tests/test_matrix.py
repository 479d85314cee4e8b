"""Priors × posteriors × likelihoods × objectives on the digits: each trains, or says why not.

All 4,320 combinations are slow. A test run takes a covering design: any two parts that can be
trained together (of objectives with a likelihood, one of each class), and any prior, posterior and
class of objective, which share the latent variable, are met in some combination that trains, and
each refusal is met for some objective of its class.
"""

import itertools
import math

import pytest
import torch
import zuko
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from sklearn.datasets import load_digits

from latente.guides import (
    DiagonalNormal,
    FullRankNormal,
    NormalizingFlow,
    PointPosterior,
    inverse,
    planar,
)
from latente.inference import (
    Beta_ELBO,
    Cyclical,
    Gradient,
    ImportanceWeighted_ELBO,
    Info_ELBO,
    ScoreFunction_ELBO,
    TotalCorrelation_ELBO,
    Warmup,
    fit,
)
from latente.models import (
    VAE,
    Bernoulli,
    Categorical,
    ConditionalNormal,
    ContinuousBernoulli,
    DiscretizedLogistic,
    FlowPrior,
    NegativeBinomial,
    Normal,
    NormalMixture,
    OneHot,
    Poisson,
    StandardNormal,
    StudentT,
    VampPrior,
    mlp,
)

K, ROWS = 2, 16
DIGITS = load_digits()
LEVELS = torch.from_numpy(DIGITS.images[:ROWS]).float()
COUNTS = (LEVELS / 4).round()
LABELS = torch.from_numpy(DIGITS.target[:ROWS])
GREY, SHAPE = LEVELS / 16, (8, 8)


def flow(make):
    encoder = mlp(64, out=NormalizingFlow.num_features(K, 2))
    return NormalizingFlow(encoder, K, make(K, 2), context=2)


def masked(kind):
    return lambda k, c: inverse(kind(k, c, transforms=1, hidden_features=(4,)))


POSTERIOR_FAMILIES = {
    "diagonal": lambda: DiagonalNormal(mlp(64, out=2 * K), K),
    "full-rank": lambda: FullRankNormal(mlp(64, out=FullRankNormal.num_features(K)), K),
    "planar": lambda: flow(lambda k, c: planar(k, c, transforms=1)),
    "iaf": lambda: flow(masked(zuko.flows.MAF)),
    "spline": lambda: flow(masked(zuko.flows.NSF)),
    "point": lambda: PointPosterior(mlp(64, out=K), K),
}
PRIORS = {
    "standard": lambda guide: StandardNormal(K),
    "mixture": lambda guide: NormalMixture(K, 3),
    "vamp": lambda guide: VampPrior(guide, GREY[:3]),
    "flow": lambda guide: FlowPrior(zuko.flows.MAF(K, transforms=1, hidden_features=(4,))),
    "conditional": lambda guide: ConditionalNormal(
        torch.nn.Sequential(OneHot(10), mlp(10, out=2 * K)), K
    ),
}
LIKELIHOODS = {
    "Bernoulli": (lambda: Bernoulli(SHAPE), GREY.round()),
    "Normal": (lambda: Normal(SHAPE, scale=None), GREY),
    "StudentT": (lambda: StudentT(SHAPE), GREY),
    "ContinuousBernoulli": (lambda: ContinuousBernoulli(SHAPE), GREY),
    "DiscretizedLogistic": (lambda: DiscretizedLogistic(SHAPE, 2, levels=17), GREY),
    "Categorical": (lambda: Categorical(SHAPE, 5), COUNTS),
    "Poisson": (lambda: Poisson(SHAPE), COUNTS),
    "NegativeBinomial": (lambda: NegativeBinomial(SHAPE), COUNTS),
}
OBJECTIVES = {
    "none": lambda: None,
    "Trace": Trace_ELBO,
    "TraceMeanField": TraceMeanField_ELBO,
    "ScoreFunction": ScoreFunction_ELBO,
    "beta 0": lambda: Beta_ELBO(0.0),
    "beta 4": lambda: Beta_ELBO(4.0),
    "warm-up": lambda: Beta_ELBO(Warmup(0.5)),
    "cyclical": lambda: Beta_ELBO(Cyclical(0.5)),
    "free bits": lambda: Beta_ELBO(free_bits=0.1),
    "iwae": lambda: ImportanceWeighted_ELBO(2),
    "iwae stl": lambda: ImportanceWeighted_ELBO(2, gradient=Gradient.STICKING_THE_LANDING),
    "iwae dreg": lambda: ImportanceWeighted_ELBO(2, gradient=Gradient.DOUBLY_REPARAMETERIZED),
    "miwae": lambda: ImportanceWeighted_ELBO(2, 2),
    "ciwae": lambda: ImportanceWeighted_ELBO(2, elbo_weight=0.5),
    "piwae": lambda: ImportanceWeighted_ELBO(2, 2, partial=True),
    "info": lambda: Info_ELBO(0.5, 10.0),
    "wae": lambda: Info_ELBO(1.0, 10.0),
    "tc": TotalCorrelation_ELBO,
}
FOR_POINTS = ("none", "Trace", "TraceMeanField", "beta 0", "wae")


def refusal(prior, posterior, objective):
    """Why a combination makes no sense, in the words of its refusal; or nothing."""
    closed = posterior in ("diagonal", "full-rank", "point") and prior in (
        "standard",
        "conditional",
    )
    if prior == "vamp" and posterior == "point":
        return "a point without a density"
    if posterior == "point" and objective not in FOR_POINTS:
        return "on one point"
    if objective == "TraceMeanField" and not closed and posterior != "point":
        return "no closed form"
    if objective in ("info", "wae") and prior in ("mixture", "vamp"):
        return "prior of 'z' cannot be drawn with a gradient"
    product = posterior == "diagonal" and prior in ("standard", "conditional")
    if objective == "tc" and not product:
        return "not a product over dimensions"
    return None


def try_out(prior, posterior, likelihood, objective):
    """One epoch of two steps; whether weights of both halves of the pair moved."""
    torch.manual_seed(0)
    make, x = LIKELIHOODS[likelihood]
    guide = POSTERIOR_FAMILIES[posterior]()
    distribution = make()
    model = VAE(PRIORS[prior](guide), mlp(K, out=distribution.num_features), distribution)
    before = [model.decoder[1].weight.clone(), guide.encoder[1].weight.clone()]
    data = (x, LABELS) if prior == "conditional" else x
    run = fit(model, guide, data, objective=OBJECTIVES[objective](), epochs=1, batch_size=ROWS // 2,
              show_progress=False)  # fmt: skip
    after = [model.decoder[1].weight, guide.encoder[1].weight]
    assert math.isfinite(run.history[0]["loss"])
    assert all(bool((b != a).any()) for b, a in zip(before, after, strict=True))


def is_refused(combination):
    prior, posterior, _, objective = combination
    return refusal(prior, posterior, objective) is not None


CLASSES = {name: type(make()) for name, make in OBJECTIVES.items()}


def choices(combination):
    """What a combination holds: its pairs of parts, and prior, posterior and class of objective.

    Likelihood and objective meet in nothing but log p(x|z), so any objective of a class will do.
    """
    prior, posterior, likelihood, objective = combination
    held: set[tuple] = set(itertools.combinations(enumerate(combination), 2))
    held -= {((2, likelihood), (3, objective))}
    return held | {(prior, posterior, CLASSES[objective]), (likelihood, CLASSES[objective])}


def covering(combinations):
    """Some of the combinations, which hold all that the others hold: a covering array.

    Greedy: first those that add as much as one can, then those that add one thing less, and so on.
    """
    missing = set().union(*map(choices, combinations))
    design = []
    for gain in range(len(choices(combinations[0])), 0, -1):
        for one in combinations:
            new = choices(one) & missing
            if len(new) >= gain:
                design.append(one)
                missing -= new
    return design


ALL = list(itertools.product(PRIORS, POSTERIOR_FAMILIES, LIKELIHOODS, OBJECTIVES))
TRAINED = [one for one in ALL if not is_refused(one)]
REFUSALS = [
    (prior, posterior, objective)
    for prior, posterior, objective in itertools.product(PRIORS, POSTERIOR_FAMILIES, OBJECTIVES)
    if refusal(prior, posterior, objective) is not None
]
WITH_LIKELIHOODS = [
    (prior, posterior, likelihood, objective)
    for (prior, posterior, objective), likelihood in zip(
        REFUSALS, itertools.cycle(LIKELIHOODS), strict=False
    )
]


def refused_for(prior, posterior, likelihood, objective):
    """What a refusal goes by."""
    return prior, posterior, CLASSES[objective], refusal(prior, posterior, objective)


# No refusal looks at the likelihood: each is met with the likelihoods in turn, for one objective of
# a class, and for each objective once at least.
REFUSED = list({refused_for(*one): one for one in reversed(WITH_LIKELIHOODS)}.values())
REFUSED += list(
    {one[3]: one for one in WITH_LIKELIHOODS if one[3] not in {met[3] for met in REFUSED}}.values()
)
# Among combinations that add as much, those come first that take the likelihoods in turn.
AXES = [list(axis) for axis in (PRIORS, POSTERIOR_FAMILIES, LIKELIHOODS, OBJECTIVES)]
TURN = {one: sum(axis.index(part) for axis, part in zip(AXES, one, strict=True)) for one in TRAINED}
DESIGN = covering(sorted(TRAINED, key=lambda one: TURN[one] % len(LIKELIHOODS))) + REFUSED
each_pair_of_distributions = pytest.mark.parametrize(
    ("prior", "posterior", "likelihood"),
    list(itertools.product(PRIORS, POSTERIOR_FAMILIES, LIKELIHOODS)),
)


def check(combinations):
    """Each of them trains, or is refused in one line for the reason that is known."""
    for prior, posterior, likelihood, objective in combinations:
        reason = refusal(prior, posterior, objective)
        if reason is None:
            try_out(prior, posterior, likelihood, objective)
        else:
            with pytest.raises(ValueError, match=reason) as caught:
                try_out(prior, posterior, likelihood, objective)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("posterior", POSTERIOR_FAMILIES)
@pytest.mark.parametrize("prior", PRIORS)
def test_a_combination_of_the_design_trains_or_says_why_not(prior, posterior):
    combinations = [one for one in DESIGN if one[:2] == (prior, posterior)]
    assert combinations
    check(combinations)


@pytest.mark.slow
@each_pair_of_distributions
def test_every_combination_trains_or_says_why_not(prior, posterior, likelihood):
    check([(prior, posterior, likelihood, objective) for objective in OBJECTIVES])


def test_the_design_trains_all_that_it_should():
    held, wanted = (
        set().union(*map(choices, combinations))
        for combinations in (set(DESIGN) & set(TRAINED), TRAINED)
    )
    assert held == wanted


def test_the_design_is_small_and_holds_every_part_and_every_refusal():
    assert len(set(DESIGN)) == len(DESIGN) < len(ALL) / 10
    for axis, parts in enumerate((PRIORS, POSTERIOR_FAMILIES, LIKELIHOODS, OBJECTIVES)):
        assert {one[axis] for one in set(DESIGN) & set(TRAINED)} == set(parts)
    assert {refused_for(*one) for one in REFUSED} == {refused_for(*one) for one in WITH_LIKELIHOODS}
    assert {one[3] for one in REFUSED} == {objective for *_, objective in REFUSALS}


def test_the_matrix_has_combinations_of_both_kinds():
    assert (len(ALL), len(TRAINED), len(REFUSALS)) == (4320, 405 * 8, 135)
