"""Several levels of latent variables: models and guides, held to a linear Gaussian hierarchy."""

import math
import warnings

import pyro
import pytest
import torch
from pyro.infer import TraceMeanField_ELBO
from torch import nn

from latente.guides import (
    BottomUp,
    DiagonalNormal,
    FullRankNormal,
    PrecisionWeighted,
    Residual,
    TopDown,
)
from latente.inference import (
    Beta_ELBO,
    annealed_evidence,
    fit,
    latent_information,
    log_evidence,
)
from latente.inference.execution.recording import operations, record
from latente.inference.execution.replaying import Replay
from latente.inference.objectives import consistency
from latente.models import (
    Bernoulli,
    Concatenation,
    Conditional,
    ConditionalNormal,
    FlattenEvent,
    GaussianMixture,
    Hierarchy,
    Level,
    NormalMixture,
    Stages,
    StandardNormal,
    VampPrior,
    mlp,
)

from .oracles import LinearHierarchy, linear


def features(gain, shift, scale):
    """Weight and bias of an encoder that gives (gain · input + shift, log scale)."""
    weight = torch.cat([gain, torch.zeros_like(gain)])
    return weight, torch.cat([shift, scale.log().expand_as(shift)])


def below_exact(hierarchy, name, above, read):
    """An encoder of (x, state above) whose weight and bias `read` makes of p(name|x, above)."""
    inputs = (hierarchy.sizes[-1], hierarchy.sizes[hierarchy.names.index(above)])
    weight, bias = read(*hierarchy.conditional(name, "x", above))
    network = linear(sum(inputs), weight, bias)
    return Conditional(network, *[FlattenEvent((size,)) for size in inputs])


def top_exact(hierarchy):
    gain, shift, covariance = hierarchy.conditional("z3", "x")
    return DiagonalNormal(linear(4, *features(gain, shift, covariance[0].sqrt())), 1)


def top_down(hierarchy, levels, part, read):
    """A top-down guide of scalar levels: the exact posterior."""
    posteriors = {"z3": top_exact(hierarchy)}
    for name, above in (("z2", "z3"), ("z1", "z2")):
        posteriors[name] = part(below_exact(hierarchy, name, above, read(name)), 1)
    return TopDown(posteriors, levels).double()


def normal(hierarchy, levels):
    def read(name):
        return lambda gain, shift, covariance: features(gain, shift, covariance[0].sqrt())

    return top_down(hierarchy, levels, DiagonalNormal, read)


def prior_of(hierarchy, name):
    level = hierarchy.names.index(name) - 1
    return hierarchy.weights[level], hierarchy.biases[level], hierarchy.scales[level]


def residual(hierarchy, levels):
    """The same posterior as changes of the prior, in its standard deviations."""

    def read(name):
        weight, bias, scale = prior_of(hierarchy, name)

        def changes(gain, shift, covariance):
            of_prior = torch.cat([torch.zeros(1, 4).double(), weight], dim=1)
            gain, shift = (gain - of_prior) / scale, (shift - bias) / scale
            return features(gain, shift, covariance[0].sqrt() / scale)

        return changes

    return top_down(hierarchy, levels, Residual, read)


def ladder(hierarchy, levels):
    """The evidence of x on each level alone: the prior's share is taken out of the posterior."""
    posteriors = {"z3": top_exact(hierarchy)}
    for name, above in (("z2", "z3"), ("z1", "z2")):
        _, bias, scale = prior_of(hierarchy, name)
        gain, shift, covariance = hierarchy.conditional(name, "x", above)
        precision = 1 / covariance[0] - 1 / scale**2
        evidence_gain = gain[:, :4] / covariance[0] / precision
        evidence_shift = (shift / covariance[0] - bias / scale**2) / precision
        encoder = linear(4, *features(evidence_gain, evidence_shift, precision.rsqrt()))
        posteriors[name] = PrecisionWeighted(encoder, 1)
    return TopDown(posteriors, levels).double()


def bottom_up(hierarchy, levels):
    posteriors = {}
    for name, below, size in (("z1", "x", 4), ("z2", "z1", 1), ("z3", "z2", 1)):
        gain, shift, covariance = hierarchy.conditional(name, below)
        encoder = linear(size, *features(gain, shift, covariance[0].sqrt()))
        posteriors[name] = DiagonalNormal(encoder, 1)
    return BottomUp(posteriors).double()


GUIDES = {
    "normal given the state": normal,
    "residual": residual,
    "precision-weighted": ladder,
    "bottom-up": bottom_up,
}
EVERY = pytest.mark.parametrize("make", GUIDES.values(), ids=GUIDES)


@pytest.fixture(scope="module")
def hierarchy():
    return LinearHierarchy()


def data(hierarchy, num, seed=1):
    torch.manual_seed(seed)
    return hierarchy.marginal.sample((num,))


# --- Exact answers.


@EVERY
def test_exact_guide_gives_the_evidence_at_every_draw(hierarchy, make):
    levels = hierarchy.levels()
    model, x = hierarchy.model(levels), data(hierarchy, 20)
    found = log_evidence(model, make(hierarchy, levels), x, num_samples=7)
    assert torch.allclose(found.log_px, hierarchy.marginal.log_prob(x), rtol=0, atol=1e-10)
    assert found.elbo == pytest.approx(found.mean, abs=1e-10)


def test_exact_guide_of_vectors_with_full_covariances():
    """Levels of several dimensions, whose posteriors are not products over dimensions."""
    hierarchy = LinearHierarchy((2, 2, 3, 5))
    levels = hierarchy.levels()
    posteriors = {}
    for name, above in (("z3", ()), ("z2", ("z3",)), ("z1", ("z2",))):
        gain, shift, covariance = hierarchy.conditional(name, "x", *above)
        root = torch.linalg.cholesky(covariance)
        size = len(shift)
        rows, columns = torch.tril_indices(size, size, -1)
        rest = torch.cat([root.diagonal().log(), root[rows, columns]])
        weight = torch.cat([gain, torch.zeros(len(rest), gain.shape[1]).double()])
        network = linear(gain.shape[1], weight, torch.cat([shift, rest]))
        if above:
            readers = (5, gain.shape[1] - 5)
            network = Conditional(network, *[FlattenEvent((reader,)) for reader in readers])
        posteriors[name] = FullRankNormal(network, size)
    guide, x = TopDown(posteriors, levels).double(), data(hierarchy, 10)
    found = log_evidence(hierarchy.model(levels), guide, x, num_samples=5)
    assert torch.allclose(found.log_px, hierarchy.marginal.log_prob(x), rtol=0, atol=1e-10)


@EVERY
def test_evidence_and_annealing_agree_where_the_guide_is_off(hierarchy, make):
    """Scales 1.3 times too wide. Each of 16 within 5 standard errors: false alarms 1 in 10⁵."""
    levels = hierarchy.levels()
    model, guide, x = hierarchy.model(levels), make(hierarchy, levels), data(hierarchy, 8)
    with torch.no_grad():
        for part in guide.posteriors.values():
            last = [*part.encoder.parameters()][-1]
            last[len(last) // 2 :] += math.log(1.3)
    exact = hierarchy.marginal.log_prob(x)
    found = log_evidence(model, guide, x, num_samples=4_000)
    assert found.elbo < exact.mean().item() - 0.05
    found_by = [found]
    if make in (ladder, bottom_up):  # it starts from the prior: guides matter by their order alone
        found_by.append(annealed_evidence(model, guide, x, num_chains=200, num_temperatures=30))
    for one in found_by:
        assert ((one.log_px - exact).abs() < 5 * one.standard_error + 1e-6).all()
        assert one.standard_error.max() < 0.1


@EVERY
def test_kl_by_level_adds_up_to_the_kl(hierarchy, make):
    levels = hierarchy.levels()
    model, guide, x = hierarchy.model(levels), make(hierarchy, levels), data(hierarchy, 50)
    found = latent_information(model, guide, x, num_draws=400)
    assert set(found.names) == {"z3", "z2", "z1"}
    # Of the exact posterior: KL = E_q[log p(x|z)] − log p(x), by the moments of z₁ given x.
    evidence = log_evidence(model, guide, x, num_samples=400, seed=1)
    assert found.kl.sum(1).mean().item() == pytest.approx(evidence.kl.mean().item(), abs=0.05)


# --- Sites in the model's order, or not.


def losses(objective, model, guide, x):
    """The loss at 40 draws, in nats per datum."""
    with torch.no_grad(), pyro.poutine.scale(scale=1 / len(x)), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pyro's, of another order of sites
        return torch.stack([objective.differentiable_loss(model, guide, x) for _ in range(40)])


def test_closed_form_of_a_level_is_used_only_where_it_is_a_term_of_the_bound(
    hierarchy, monkeypatch
):
    """Top-down: both forms have one mean. Bottom-up: Pyro's own objective is no bound."""
    levels = hierarchy.levels()
    model, x = hierarchy.model(levels), data(hierarchy, 100)
    exact = -hierarchy.marginal.log_prob(x).mean()
    for make in (normal, bottom_up):
        guide = make(hierarchy, levels)
        ours = losses(Beta_ELBO(), model, guide, x)
        error = 5 * ours.std() / math.sqrt(len(ours))  # false alarms: 1 in 10⁶
        assert (ours.mean() - exact).abs() < error + 1e-9
        pyros = losses(TraceMeanField_ELBO(), model, guide, x)
        error = 5 * pyros.std() / math.sqrt(len(pyros))
        off = (pyros.mean() - exact).abs()
        assert off < error if make is normal else off > error + 0.1
    monkeypatch.setattr(consistency, "MANY_DRAWS", 100)  # of 1,000: it is far off
    with pytest.raises(ValueError, match="use Trace_ELBO"):
        fit(model, guide, x.float(), epochs=1, objective=TraceMeanField_ELBO())


def test_a_recorded_step_computes_the_models_network_once(hierarchy):
    """Guide and model both call the priors of z₁ and z₂; five products of matrices remain."""
    levels = hierarchy.levels()
    model, guide, x = hierarchy.model(levels), ladder(hierarchy, levels), data(hierarchy, 9)

    def loss(x):
        return (TraceMeanField_ELBO().differentiable_loss(model, guide, x),)

    graph = record(loss, (x,))
    products = [node for node in operations(graph) if "addmm" in node.target.__name__]
    assert len(products) == 8  # 3 encoders, 2 priors twice, the decoder
    Replay(graph, (x,))
    products = [node for node in operations(graph) if "addmm" in node.target.__name__]
    assert len(products) == 6


# --- Compositions.


def small(levels, sizes, top=None):
    """A ladder on 4 × 4 bits for these levels."""
    (high, many), (low, few) = sizes.items()
    posteriors = {
        high: DiagonalNormal(mlp(8, out=2 * many), many),
        low: PrecisionWeighted(mlp(12, out=2 * few), few),
    }
    return TopDown(posteriors, levels, Stages({low: mlp(16, out=12), high: mlp(12, out=8)}))


TOPS = {
    "standard normal": lambda guide, x: StandardNormal(2),
    "mixture": lambda guide, x: NormalMixture(2, 3),
    "VampPrior": lambda guide, x: VampPrior(guide, x[:5]),
}


@pytest.mark.parametrize("top", TOPS.values(), ids=TOPS)
@pytest.mark.parametrize("joined", [False, True])
def test_any_prior_at_the_top_is_fitted(binary_images, top, joined):
    """With and without skip connections from every level to x."""
    prior = ConditionalNormal(mlp(2, out=12), 6)
    lower = Level(prior, Concatenation()) if joined else prior
    levels = {"up": StandardNormal(2), "low": lower}
    guide = small(levels, {"up": 2, "low": 6})
    levels["up"] = top(guide, binary_images)
    decoder = mlp(8 if joined else 6, 16, out=16)
    model = Hierarchy(levels, decoder, Bernoulli((4, 4))).start_at_mean(binary_images)
    run = fit(model, guide, binary_images, epochs=3, batch_size=50, seed=0)
    assert run.history[-1]["elbo"] > run.history[0]["elbo"]
    found = log_evidence(run.model, run.guide, binary_images[:20], num_samples=50)
    assert found.elbo <= found.mean < 0
    assert found.log_px.shape == (20,)


# --- Bad input.


def chain(low=6, seen=2):
    return {"z2": StandardNormal(2), "z1": ConditionalNormal(mlp(seen, out=2 * low), low)}


def vamp_on_top(guide):
    """A model of levels of its own, with a VampPrior of a guide of others."""
    levels = {**chain(), "z2": VampPrior(guide, torch.zeros(3, 4, 4))}
    return Hierarchy(levels, mlp(6, out=16), Bernoulli((4, 4)))


def refusals():
    bits = Bernoulli((4, 4))
    yield "no level", lambda: Hierarchy({}, mlp(2, out=16), bits), "at least one level"
    yield (
        "a model for the top prior",
        lambda: Hierarchy({**chain(), "z2": GaussianMixture(2, 2)}, mlp(6, out=16), bits),
        "the top level 'z2' must be a prior, such as StandardNormal, .* got GaussianMixture",
    )
    yield (
        "levels do not meet",
        lambda: Hierarchy(chain(seen=3), mlp(6, out=16), bits),
        r"level 'z1' does not fit level 'z2', which hands down a state of shape \(2,\)",
    )
    yield (
        "decoder does not meet",
        lambda: Hierarchy(chain(), mlp(5, out=16), bits),
        r"the decoder does not fit level 'z1', which hands down a state of shape \(6,\)",
    )
    yield (
        "features of the likelihood",
        lambda: Hierarchy(chain(), mlp(6, out=15), bits),
        "the decoder does not fit",
    )
    yield (
        "levels from the bottom up",
        lambda: Hierarchy(dict(reversed(chain().items())), mlp(2, out=16), bits),
        "level 'z2' takes nothing from level 'z1' above it: list the levels from the top down",
    )
    yield (
        "a prior without an argument below the top",
        lambda: Hierarchy({**chain(), "z1": StandardNormal(6)}, mlp(6, out=16), bits),
        "level 'z1' takes nothing from level 'z2' .* got StandardNormal",
    )
    one = {"z2": DiagonalNormal(mlp(16, out=4), 2)}
    two = {**one, "z1": DiagonalNormal(mlp(16, out=12), 6)}
    yield "a level missing", lambda: TopDown(one, chain()), "has posteriors of z2, and the model"
    yield (
        "another order",
        lambda: TopDown(dict(reversed(two.items())), chain()),
        "in the same order, top first",
    )
    yield "no posterior", lambda: BottomUp({}), "at least one level"
    yield (
        "a network for a posterior",
        lambda: BottomUp({"z1": mlp(16, out=12)}),
        "must be an amortized one, such as DiagonalNormal, got Sequential",
    )
    relative = {"z2": Residual(mlp(16, out=4), 2), "z1": two["z1"]}
    yield "relative at the top", lambda: TopDown(relative, chain()), "is the top, with no level"
    stages = {"z2": mlp(16, out=16), "z1": mlp(16, out=16)}
    yield (
        "stages from the top down",
        lambda: TopDown(two, chain(), Stages(stages)),
        "stages of the encoder are z2, z1: list them from the bottom up, z1, z2;",
    )
    yield (
        "a stage missing",
        lambda: TopDown(two, chain(), Stages({"z1": mlp(16, out=16)})),
        "features for z1, but not for z2: give it a stage for each level",
    )
    yield (
        "a VampPrior of other levels",
        lambda: vamp_on_top(TopDown(two, chain())),
        "'z2' mixes the posterior of 'z2' of a guide of other levels: make the guide of this",
    )
    yield (
        "a VampPrior of a guide that has no posterior of the top alone",
        lambda: vamp_on_top(BottomUp(dict(reversed(two.items())))),
        "mixes the posteriors of an amortized guide, such as DiagonalNormal, not of a BottomUp",
    )
    yield "no stage", lambda: Stages({}), "at least one stage"
    yield "no axis", lambda: Concatenation(0), "event_dim must be at least 1, got 0"


REFUSALS = {name: (make, message) for name, make, message in refusals()}


@pytest.mark.parametrize(("make", "message"), REFUSALS.values(), ids=REFUSALS)
def test_what_does_not_fit_is_refused_when_built(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_does_not_fit_is_refused_when_run():
    x = torch.zeros(5, 4, 4)
    stages = Stages({"z1": mlp(16, out=8)})
    posteriors = {
        "z2": DiagonalNormal(mlp(8, out=4), 2),
        "z1": PrecisionWeighted(mlp(8, out=12), 6),
    }
    with pytest.raises(ValueError, match="features for z1, but not for z2: give it a stage"):
        TopDown(posteriors, chain(), stages)(x)
    with pytest.raises(ValueError, match="level 'z2': a network of 8 inputs got"):
        TopDown(posteriors, chain())(x)
    with pytest.raises(ValueError, match="level 'z2': a network of 3 inputs got"):
        BottomUp({"z1": DiagonalNormal(mlp(16, out=4), 2), "z2": DiagonalNormal(mlp(3, out=2), 1)})(
            x
        )
    with pytest.raises(ValueError, match="make it a part of TopDown"):
        PrecisionWeighted(mlp(16, out=4), 2)(x)
    levels = {"z2": StandardNormal(2), "z1": Level(MixtureGiven())}
    posteriors["z2"] = DiagonalNormal(mlp(16, out=4), 2)
    posteriors["z1"] = PrecisionWeighted(mlp(16, out=4), 2)
    with pytest.raises(ValueError, match="starts from a diagonal normal prior of its level"):
        TopDown(posteriors, levels)(x)


class MixtureGiven(nn.Module):
    """A prior of a level that is no normal distribution: Student's t around the state."""

    def forward(self, state):
        return pyro.distributions.StudentT(3.0, state, 1.0).to_event(1)


def test_an_upper_level_that_is_larger_warns():
    levels = {"z2": StandardNormal(6), "z1": ConditionalNormal(mlp(6, out=4), 2)}
    with pytest.warns(UserWarning, match="'z2' has 6 dimensions and 'z1' below it has 2"):
        Hierarchy(levels, mlp(2, out=16), Bernoulli((4, 4)))


# --- Contracts.


@EVERY
def test_contract_of_guides_and_models(hierarchy, make):
    """As those of one level in test_guides.py: plates, samples, gradients, weights kept."""
    levels = hierarchy.levels()
    model, guide, x = hierarchy.model(levels), make(hierarchy, levels), data(hierarchy, 7)
    guide_trace = pyro.poutine.trace(guide).get_trace(x)
    model_trace = pyro.poutine.trace(pyro.poutine.replay(model, trace=guide_trace)).get_trace(x)
    for trace in (guide_trace, model_trace):
        trace.compute_log_prob()
        for name in hierarchy.names:
            (frame,) = trace.nodes[name]["cond_indep_stack"]
            assert (frame.name, frame.dim, frame.size) == ("data", -1, 7)
            assert trace.nodes[name]["log_prob"].shape == (7,)
    with pyro.plate("samples", 4, dim=-2):
        drawn = guide(x)
        assert {name: z.shape for name, z in drawn.items()} == dict.fromkeys(
            hierarchy.names, (4, 7, 1)
        )
        assert model(x).shape == (7, 4)

    sum(z.pow(3).sum() for z in guide(x).values()).backward()
    own = [value for name, value in guide.named_parameters() if name.startswith("posteriors")]
    assert all((value.grad != 0).any() for value in own)

    for part in (model, guide):
        other = LinearHierarchy(seed=1)
        fresh = other.levels()
        again = other.model(fresh) if part is model else make(other, fresh)
        again.load_state_dict(part.state_dict())
        pairs = zip(again.state_dict().values(), part.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    torch.manual_seed(3)
    first = guide(x)
    torch.manual_seed(3)
    assert all(torch.equal(z, first[name]) for name, z in guide(x).items())
