"""Levels of feature maps: the numbers of vectors of the same elements, and what is refused."""

import math

import matplotlib.pyplot as plt
import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import nn

from latente.guides import (
    BottomUp,
    DiagonalNormal,
    FullRankNormal,
    NormalizingFlow,
    PointPosterior,
    PrecisionWeighted,
    Residual,
    TopDown,
    planar,
)
from latente.inference import (
    Beta_ELBO,
    ExponentialMovingAverage,
    Gradient,
    ImportanceWeighted_ELBO,
    ScoreFunction_ELBO,
    Warmup,
    annealed_evidence,
    diagnose,
    encode,
    evaluate,
    fit,
    latent_information,
    load_run,
    log_evidence,
    plot_all,
)
from latente.inference.diagnostics.latent_information import LATENT_INFORMATION
from latente.inference.recipes.build import build_pair, planned_sizes
from latente.inference.recipes.plan import Plan, complete, compose
from latente.models import (
    VAE,
    Addition,
    Bernoulli,
    Concatenation,
    Conditional,
    ConditionalNormal,
    Hierarchy,
    Level,
    Maps,
    NormalMixture,
    ResidualBlock,
    Stages,
    StandardNormal,
    VampPrior,
    mlp,
)

from .oracles import LinearHierarchy
from .test_checkpoints import interrupted, quiet
from .test_fit import same, weights
from .test_hierarchies import GUIDES, data


def conv(shape, out, size=1, **options):
    """A convolution as a network of maps of a shape."""
    return Maps(shape, nn.Conv2d(shape[0] if len(shape) == 3 else 1, out, size, **options))


def ladder():
    """Maps (2, 2, 2) over maps (1, 4, 4), and a ladder for them, on 4 × 4 bits."""
    rise = Maps((4, 2, 2), nn.Upsample((4, 4)))
    prior = ConditionalNormal(conv((4, 4, 4), 2), (1, 4, 4), max_log_scale=5.0)
    levels = {
        "z2": Level(StandardNormal((2, 2, 2)), Addition(conv((2, 2, 2), 4), rise)),
        "z1": Level(prior, Concatenation(3)),
    }
    decoder = nn.Sequential(conv((5, 4, 4), 1, 3, padding=1), nn.Flatten(-3))
    model = Hierarchy(levels, decoder, Bernoulli((4, 4)))
    posteriors = {
        "z2": DiagonalNormal(conv((4, 2, 2), 4), (2, 2, 2)),
        "z1": PrecisionWeighted(conv((3, 4, 4), 2), (1, 4, 4)),
    }
    stages = {
        "z1": conv((4, 4), 3, 3, padding=1),
        "z2": conv((3, 4, 4), 4, 3, stride=2, padding=1),
    }
    return model, TopDown(posteriors, levels, Stages(stages))


class OnVectors(nn.Module):
    """A network of maps, on vectors of the same elements."""

    def __init__(self, network, *shapes):
        super().__init__()
        self.network, self.shapes = network, shapes

    def forward(self, *inputs):
        maps = [x.unflatten(-1, shape) for x, shape in zip(inputs, self.shapes, strict=True)]
        return self.network(*maps).flatten(-3)


def twin():
    """The same pair with vectors of 8 and 16 elements."""
    model, guide = ladder()
    upper, lower = model.levels["z2"], model.levels["z1"]
    network = OnVectors(lower.prior.network, (4, 4, 4))
    levels = {
        "z2": Level(StandardNormal(8), OnVectors(upper.join, (2, 2, 2))),
        "z1": Level(
            ConditionalNormal(network, 16, max_log_scale=5.0),
            OnVectors(lower.join, (4, 4, 4), (1, 4, 4)),
        ),
    }
    decoder = OnVectors(model.decoder[0], (5, 4, 4))
    first, second = guide.posteriors.values()
    posteriors = {
        "z2": DiagonalNormal(OnVectors(first.encoder, (4, 2, 2)), 8),
        "z1": PrecisionWeighted(OnVectors(second.encoder, (3, 4, 4)), 16),
    }
    below, above = guide.encoder.stages.values()
    stages = {
        "z1": nn.Sequential(below, nn.Flatten(-3)),
        "z2": OnVectors(above, (3, 4, 4)),
    }
    return Hierarchy(levels, decoder, Bernoulli((4, 4))), TopDown(
        posteriors, levels, Stages(stages)
    )


def of_both(figures):
    """The figures of maps and of vectors, from the same weights and the same seed."""
    found = []
    for make in (ladder, twin):
        torch.manual_seed(0)
        found.append(figures(*make()))
    return found


# --- The numbers of maps are those of vectors.

OBJECTIVES = {
    "trace": Trace_ELBO,
    "mean-field": TraceMeanField_ELBO,
    "score": lambda: ScoreFunction_ELBO(2),
    "iwae": lambda: ImportanceWeighted_ELBO(k=3),
    "iwae-dreg": lambda: ImportanceWeighted_ELBO(k=3, gradient=Gradient.DOUBLY_REPARAMETERIZED),
    "beta of each site": lambda: Beta_ELBO({"z2": 0.5, "z1": 2.0}),
    "free bits of each dimension": lambda: Beta_ELBO(Warmup(2), free_bits=0.1, balance=True),
    "free bits of a site": lambda: Beta_ELBO(free_bits={"z2": 0.7}, free_bits_per="site"),
}


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_a_fit_of_maps_has_the_numbers_of_one_of_vectors(objective, binary_images):
    def last(model, guide):
        x = binary_images[:60]
        return quiet(
            model, guide, x, objective=objective(), learning_rate=0.01, epochs=2, compile="plain"
        ).history[-1]

    ours, theirs = of_both(last)
    assert ours["kl_z2"] > 0.01
    assert ours["kl_z1"] + ours["kl_z2"] == pytest.approx(ours["kl"], abs=1e-4)
    for name in set(theirs) - {"seconds", "rows_per_second"}:
        assert ours[name] == pytest.approx(theirs[name], rel=1e-5), name


def test_evaluation_of_maps_has_the_numbers_of_vectors(binary_images):
    x = binary_images[:12]

    def figures(model, guide):
        found = latent_information(model, guide, x, num_draws=20)
        annealed = annealed_evidence(model, guide, x[:2], num_chains=4, num_temperatures=2)
        codes = encode(model, guide, x).to_frame()
        assert found.latent_dim == 24
        assert found.sites_in_use == ("z2", "z1")
        kls = {f"information {name}": kl for name, kl in found.kl_by_site.items()}
        return {
            **evaluate(model, guide, x, num_samples=40),
            **kls,
            "mutual information": found.mutual_information,
            "annealed": annealed.mean,
            "codes": codes.to_numpy(dtype=float).sum(),
            "number of codes": codes.shape[1],
        }

    ours, theirs = of_both(figures)
    assert ours["latent_dim"] == 24
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert ours[name] == pytest.approx(value, rel=1e-5, abs=1e-7), name


def test_a_run_of_maps_is_kept_drawn_and_diagnosed(binary_images, tmp_path):
    model, guide = ladder()
    run = quiet(model, guide, binary_images, out=tmp_path / "run", epochs=2)
    other = ladder()
    loaded = load_run(tmp_path / "run", model=other[0], guide=other[1])
    assert same(weights(*other), weights(model, guide))
    drawn = loaded.sample(5, like=binary_images, seed=3)
    assert torch.equal(drawn, run.sample(5, like=binary_images, seed=3))
    assert drawn.shape == (5, 4, 4)
    assert run.reconstruct(binary_images[:3]).shape == (3, 4, 4)
    figures = plot_all(model, guide, binary_images[:9], history=run.history)
    assert [*figures] == ["training", "samples", "reconstructions", "latent", "interpolation"]
    for figure in figures.values():
        plt.close(figure)
    diagnosis = diagnose(model, guide, binary_images[:30], diagnostics=[LATENT_INFORMATION])
    assert diagnosis.numbers["kl_z1"] + diagnosis.numbers["kl_z2"] == pytest.approx(
        diagnosis.numbers["kl"], abs=1e-6
    )


# --- Exact answers: a linear Gaussian hierarchy whose levels are maps.


class ToMaps(nn.Module):
    """A network of vectors for inputs that may be maps; its output has a shape of maps."""

    def __init__(self, network, shape, *, x_is_maps=False):
        super().__init__()
        self.network, self.shape, self.x_is_maps = network, shape, x_is_maps
        self.conditional = getattr(network, "conditional", False)

    def forward(self, x, *states):
        x = x.flatten(-3) if self.x_is_maps else x
        y = self.network(x, *[state.flatten(-3) for state in states])
        return y.unflatten(-1, (y.shape[-1] // math.prod(self.shape[1:]), *self.shape[1:]))


def in_maps(hierarchy, guide, levels, shapes):
    """Model and guide whose levels have these shapes, from those with vectors."""
    made: dict = {"z3": StandardNormal(shapes["z3"]).double()}
    for name in ("z2", "z1"):
        network = ToMaps(levels[name].network, shapes[name], x_is_maps=True)
        made[name] = ConditionalNormal(network, shapes[name])
    decoder = nn.Sequential(nn.Flatten(-3), hierarchy.model(levels).decoder)
    model = Hierarchy(made, decoder, hierarchy.model(levels).likelihood).double()
    up = isinstance(guide, BottomUp)
    posteriors = {}
    for name, part in guide.posteriors.items():
        encoder = ToMaps(part.encoder, shapes[name], x_is_maps=up and name != "z1")
        posteriors[name] = type(part)(encoder, shapes[name])
    made_guide = BottomUp(posteriors) if up else TopDown(posteriors, made)
    return model, made_guide.double()


@pytest.mark.parametrize("make", GUIDES.values(), ids=GUIDES)
def test_linear_gaussian_maps_give_the_exact_evidence_and_the_kls_of_vectors(make):
    hierarchy = LinearHierarchy()
    levels, x = hierarchy.levels(), data(hierarchy, 20)
    guide = make(hierarchy, levels)
    shapes = dict.fromkeys(hierarchy.names, (1, 1, 1))
    vectors = log_evidence(hierarchy.model(levels), guide, x, num_samples=9)
    maps = log_evidence(*in_maps(hierarchy, guide, levels, shapes), x, num_samples=9)
    assert torch.allclose(maps.log_px, hierarchy.marginal.log_prob(x), rtol=0, atol=1e-10)
    for name, kl in vectors.kl_by_site.items():
        assert torch.allclose(maps.kl_by_site[name], kl, rtol=0, atol=1e-10)
    assert torch.allclose(sum(maps.kl_by_site.values()), maps.kl, rtol=0, atol=1e-10)


def test_linear_gaussian_maps_of_several_channels_and_pixels():
    """Features of maps are split along their channels, which of vectors are halves."""
    hierarchy = LinearHierarchy((2, 2, 6, 5))
    levels, x = hierarchy.levels(), data(hierarchy, 8)
    posteriors = {
        "z3": DiagonalNormal(mlp(5, out=4), 2),
        "z2": DiagonalNormal(mlp(5, out=4), 2),
        "z1": Residual(mlp(5, out=12), 6),
    }
    guide = TopDown(posteriors, levels).double()
    shapes = {"z3": (1, 1, 2), "z2": (2, 1, 1), "z1": (2, 1, 3)}
    model = hierarchy.model(levels)
    vectors = log_evidence(model, guide, x, num_samples=50)
    maps = log_evidence(*in_maps(hierarchy, guide, levels, shapes), x, num_samples=50)
    assert torch.allclose(maps.log_px, vectors.log_px, rtol=0, atol=1e-10)
    for name, kl in vectors.kl_by_site.items():
        assert torch.allclose(maps.kl_by_site[name], kl, rtol=0, atol=1e-10)


# --- Contracts.

SHAPE = (2, 3, 2)
OF_VECTORS = {
    "StandardNormal": lambda dim, f: StandardNormal(dim)(),
    "ConditionalNormal": lambda dim, f: ConditionalNormal(nn.Identity(), dim)(f),
    "ConditionalNormal bounded": lambda dim, f: ConditionalNormal(
        nn.Identity(), dim, max_log_scale=0.5
    )(f),
    "DiagonalNormal": lambda dim, f: DiagonalNormal(nn.Identity(), dim).family(f),
    "DiagonalNormal bounded": lambda dim, f: DiagonalNormal(
        nn.Identity(), dim, max_log_scale=0.5
    ).family(f),
    "PrecisionWeighted": lambda dim, f: PrecisionWeighted(nn.Identity(), dim).posterior_of_level(
        f, (), StandardNormal(dim).double()()
    ),
    "Residual": lambda dim, f: Residual(nn.Identity(), dim).posterior_of_level(
        f, (), StandardNormal(dim).double()()
    ),
}


@pytest.mark.parametrize("make", OF_VECTORS.values(), ids=OF_VECTORS)
def test_a_family_of_maps_is_that_of_vectors(make):
    features = torch.randn(3, 4, 24).double()
    vectors, maps = make(12, features), make(SHAPE, features.unflatten(-1, (4, 3, 2)))
    assert maps.event_shape == SHAPE
    assert maps.batch_shape == vectors.batch_shape
    z = torch.randn(3, 4, 12).double()
    assert torch.allclose(maps.log_prob(z.unflatten(-1, SHAPE)), vectors.log_prob(z))


def test_a_point_of_maps():
    x = torch.randn(5, *SHAPE)
    guide = PointPosterior(nn.Identity(), SHAPE)
    assert torch.equal(guide(x), x)
    assert guide.posterior(x).event_shape == SHAPE


@pytest.mark.parametrize("size", ["1", "2"])
def test_contract_of_models_and_guides_of_maps(size):
    """As those of vectors in test_hierarchies.py, of the recipe's pair."""
    plan = Plan(recipe="vdvae-small", levels=f"maps:2-2-3,4-5-6,per_size={size},relative=true")
    model, guide = (
        part.double() for part in build_pair(compose(plan), planned_sizes(plan, (6, 5)))
    )
    shapes = {"z3": (3,), "z2": (2, 3, 3), "z1": (2, 6, 5)}
    if size == "2":
        shapes = {"z5": (3,), "z4": (2, 3, 3), "z3": (2, 3, 3), "z2": (2, 6, 5), "z1": (2, 6, 5)}
    x = torch.rand(7, 6, 5).round().double()
    guide_trace = pyro.poutine.trace(guide).get_trace(x)
    model_trace = pyro.poutine.trace(pyro.poutine.replay(model, trace=guide_trace)).get_trace(x)
    for trace in (guide_trace, model_trace):
        trace.compute_log_prob()
        for name in shapes:
            (frame,) = trace.nodes[name]["cond_indep_stack"]
            assert (frame.name, frame.dim, frame.size) == ("data", -1, 7)
            assert trace.nodes[name]["log_prob"].shape == (7,)
    with pyro.plate("samples", 4, dim=-2):
        drawn = guide(x)
        assert {name: z.shape[2:] for name, z in drawn.items()} == shapes
        assert all(z.shape[:2] == (4, 7) for z in drawn.values())
        assert model(x).shape == (7, 6, 5)

    TraceMeanField_ELBO().differentiable_loss(model, guide, x).backward()
    for part in (model, guide):
        assert all((value.grad != 0).any() for value in part.parameters())
    torch.manual_seed(3)
    first = guide(x)
    torch.manual_seed(3)
    assert all(torch.equal(z, first[name]) for name, z in guide(x).items())


def test_maps_of_any_leading_shape_are_those_of_each_alone():
    block = ResidualBlock(3, factor=1.0)
    network = Maps((3, 5, 4), block, nn.Conv2d(3, 2, 3, padding=1)).double()
    x = torch.randn(2, 3, 3, 5, 4).double()
    together = network(x)
    assert together.shape == (2, 3, 2, 5, 4)
    for alone, row in zip(x.flatten(0, 1), together.flatten(0, 1), strict=True):
        assert torch.allclose(network(alone), row, rtol=0, atol=1e-12)
    image = Maps((5, 4), nn.Conv2d(1, 2, 1)).double()
    expected = image.layers(x[:, :, :1].flatten(0, 1)).unflatten(0, (2, 3))
    assert torch.allclose(image(x[:, :, 0]), expected, rtol=0, atol=1e-12)


def test_a_state_is_added_to_and_goes_on():
    project, then = conv((2, 3, 3), 4), Maps((4, 3, 3), nn.Upsample((6, 6)))
    h, z = torch.randn(5, 4, 3, 3), torch.randn(7, 5, 2, 3, 3)
    assert torch.equal(Addition(project)(h, z), h + project(z))
    assert torch.equal(Addition(project, then)(h, z), then(h + project(z)))
    assert torch.equal(Addition(project)(z), project(z))


def test_a_conditional_joins_maps_along_channels():
    network = Conditional(conv((5, 3, 3), 1), nn.Identity(), nn.Identity(), event_dim=3)
    d, h = torch.randn(5, 2, 3, 3), torch.randn(7, 5, 3, 3, 3)
    joined = torch.cat([d.expand(7, 5, 2, 3, 3), h], dim=-3)
    assert torch.equal(network(d, h), network.network(joined))


def test_many_levels_start_with_a_state_that_does_not_grow():
    """Each of 8 levels of maps adds 1/3 of what it would, and says almost nothing of x."""
    plan = Plan(recipe="vdvae-small", levels="maps:2-2-4,4-4-4,per_size=4")
    torch.manual_seed(0)
    model, guide = build_pair(compose(plan), planned_sizes(plan, (8, 8)))
    x = torch.rand(5, 8, 8).round()
    states = []
    for join in (part.join for part in model.levels.values()):
        join.register_forward_hook(lambda part, inputs, state: states.append(state))
    model(x)
    first, last = states[0].std().item(), states[-1].std().item()
    assert 0.3 * first < last < 3 * first
    found = log_evidence(model, guide, x, num_samples=20)
    _, *maps = found.kl_by_site.values()
    assert len(maps) == 8
    assert all(abs(kl.mean().item()) < 0.1 for kl in maps)


# --- Ready to train.

READY = [
    pytest.param((28, 28), None, "plain", id="28 × 28 bits", marks=pytest.mark.slow),
    pytest.param((3, 32, 32), "logistic", "plain", id="32 × 32 × 3 levels"),
    pytest.param((28, 28), None, "recorded", id="recorded", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("shape", "likelihood", "how"), READY)
def test_20_steps_in_bfloat16_with_an_average_that_are_resumed(
    shape, likelihood, how, tmp_path, monkeypatch
):
    plan = Plan(recipe="vdvae-small", likelihood=likelihood, levels="maps:1-1-2,2-2-2")
    x = torch.rand(20, *shape, generator=torch.Generator().manual_seed(1))
    x = x.round() if likelihood is None else (255 * x).round() / 255

    def make(seed=0):
        torch.manual_seed(seed)
        return build_pair(compose(plan), planned_sizes(plan, shape))

    options = {
        "epochs": 2,
        "batch_size": 2,
        "learning_rate": 0.01,
        "compile": how,
        "precision": "bfloat16",
        "callbacks": [ExponentialMovingAverage(0.9)],
        "clip_norm": 200.0,
    }
    whole = make()
    expected = quiet(*whole, x, **options)
    assert expected.history[-1]["loss"] < expected.history[0]["loss"]
    assert math.isfinite(expected.history[-1]["ema_elbo"])
    interrupted(monkeypatch, make(), x, tmp_path / "run", at=12, **options)
    resumed = make(seed=9)
    run = quiet(*resumed, x, out=tmp_path / "run", resume=True, **options)
    assert same(weights(*resumed), weights(*whole))
    assert same(run.average, expected.average)


# --- Bad input.


def pair_of(state=(4, 7, 7), features=(3, 7, 7), joined=7, latent=(2, 7, 7)):
    """A guide whose lower level sees features of x and a state of these shapes."""
    join = Addition(nn.Sequential(mlp(2, out=math.prod(state)), nn.Unflatten(-1, state)))
    levels = {
        "z2": Level(StandardNormal(2), join),
        "z1": ConditionalNormal(conv(state, 4), (2, *state[1:])),
    }
    encoder = Conditional(
        conv((joined, *state[1:]), 2 * latent[0]), nn.Identity(), nn.Identity(), event_dim=3
    )
    posteriors = {
        "z2": DiagonalNormal(mlp(math.prod(features), out=4), 2),
        "z1": DiagonalNormal(encoder, latent),
    }
    image = (1, *features[1:])
    stages = Stages({"z1": conv(image, features[0]), "z2": nn.Flatten(-3)})
    return TopDown(posteriors, levels, stages)


def stage(size):
    return Maps((1, 28, 28), nn.Conv2d(1, 4, 3, stride=2, padding=1)), conv((4, size, size), 4)


REFUSALS = {
    "state and features of two sizes": (
        lambda: pair_of(features=(3, 14, 14)),
        "level 'z1': maps of 7 × 7 and 14 × 14 cannot be joined along their channels: bring",
    ),
    "another number of channels": (
        lambda: pair_of(joined=8),
        r"level 'z1': a network of maps \(8, 7, 7\) got a tensor of shape \(2, 7, 7, 7\)",
    ),
    "posterior and prior of two shapes": (
        lambda: pair_of(latent=(1, 7, 7)),
        r"level 'z1': the model's z has shape \(2, 7, 7\), and the DiagonalNormal \(1, 7, 7\)",
    ),
    "stages do not meet": (
        lambda: Stages(dict(zip(("z1", "z2"), stage(7), strict=True))),
        r"stage 'z2' does not fit stage 'z1' below it, which gives features of shape \(4, 14, 14\)",
    ),
    "state of another size": (
        lambda: Hierarchy(
            {
                "z2": Level(StandardNormal((4, 7, 7))),
                "z1": ConditionalNormal(conv((4, 14, 14), 2), (1, 14, 14)),
            },
            mlp(196, out=16),
            Bernoulli((4, 4)),
        ),
        r"level 'z1' does not fit level 'z2', which hands down a state of shape \(4, 7, 7\)",
    ),
    "features of another size": (
        lambda: Hierarchy(
            {
                "z2": Level(StandardNormal((4, 7, 7))),
                "z1": ConditionalNormal(conv((4, 7, 7), 2), (1, 14, 14)),
            },
            mlp(196, out=16),
            Bernoulli((4, 4)),
        ),
        r"gave a tensor of shape \(2, 2, 7, 7\): end it with 2 channels of 14 × 14",
    ),
    "what is added has another shape": (
        lambda: Addition(conv((2, 3, 3), 4))(torch.zeros(5, 4, 6, 6), torch.zeros(5, 2, 3, 3)),
        r"a state of shape \(5, 4, 6, 6\) and what is made of z, of shape \(5, 4, 3, 3\), cannot",
    ),
    "maps of no channel": (lambda: StandardNormal((0, 7, 7)), "at least 1, got"),
    "maps without a shape": (lambda: DiagonalNormal(nn.Identity(), ()), "at least 1, got"),
    "layers for signals": (lambda: Maps((5,), nn.Identity()), r"have a shape .* got \(5,\)"),
    "full-rank": (
        lambda: FullRankNormal(nn.Identity(), (2, 3, 3)),
        r"a FullRankNormal is of vectors, and latent_dim=\(2, 3, 3\) of maps: take .* with a Level",
    ),
    "flow": (
        lambda: NormalizingFlow(nn.Identity(), (2, 3, 3), planar(18, 4), context=4),
        "a NormalizingFlow is of vectors",
    ),
    "mixture": (lambda: NormalMixture((2, 3, 3), 5), "a NormalMixture is of vectors"),
    "VampPrior": (
        lambda: VampPrior(DiagonalNormal(conv((1, 3, 3), 4), (2, 3, 3)), torch.zeros(5, 1, 3, 3)),
        "a VampPrior is of vectors",
    ),
}


@pytest.mark.parametrize(("make", "message"), REFUSALS.values(), ids=REFUSALS)
def test_shapes_that_do_not_meet_are_refused_when_built(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_guide_whose_parts_meet_is_built_and_leaves_no_trace():
    """The trial runs of its constructor and of Stages draw no numbers and register nothing."""
    pyro.clear_param_store()
    guide = pair_of()
    levels = {"z2": Level(StandardNormal(2), guide.join), **guide.levels}
    state = torch.random.get_rng_state()
    again = TopDown(dict(guide.posteriors), levels, Stages(dict(guide.encoder.stages)))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(part.training for part in again.modules())
    assert not [*pyro.get_param_store()]


PLANS = {
    "one size": ({"levels": "maps:2,4"}, "has no maps under the top level: give two dims"),
    "conv besides": (
        {"levels": "maps", "network": "conv"},
        "the network conv is for one latent variable.*--levels maps has convolutions",
    ),
    "a table": (
        {"levels": "maps", "likelihood": "columns", "data": __file__},
        "--levels maps is for images, and the likelihood columns for tables",
    ),
}


@pytest.mark.parametrize(("given", "message"), PLANS.values(), ids=PLANS)
def test_plans_of_maps_that_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        complete(Plan(**given))


def test_images_too_small_for_the_sizes_and_rows_that_are_none():
    plan = Plan(recipe="vdvae-small", levels="maps:1-1-1-1-1-1,2-2-2-2-2-2")
    with pytest.raises(ValueError, match=r"8 × 8 pixels cannot be halved 4 times.*at most 5 dims"):
        build_pair(compose(plan), planned_sizes(plan, (8, 8)))
    with pytest.raises(ValueError, match="takes images"):
        build_pair(compose(plan), planned_sizes(plan, (64,)))


def test_an_upper_level_of_maps_that_is_larger_warns():
    levels = {"z2": StandardNormal(20), "z1": ConditionalNormal(Unflat(), (1, 3, 3))}
    with pytest.warns(UserWarning, match="'z2' has 20 dimensions and 'z1' below it has 9"):
        Hierarchy(levels, mlp((1, 3, 3), out=16), Bernoulli((4, 4)))


class Unflat(nn.Module):
    """18 of the elements of a vector as maps."""

    def forward(self, x):
        return x[..., :18].unflatten(-1, (2, 3, 3))


def test_a_vae_of_one_latent_variable_of_maps(binary_images):
    decoder = nn.Sequential(conv((2, 4, 4), 1, 3, padding=1), nn.Flatten(-3))
    vae = VAE(StandardNormal((2, 4, 4)), decoder, Bernoulli((4, 4)))
    guide = DiagonalNormal(conv((4, 4), 4, 3, padding=1), (2, 4, 4))
    run = fit(vae, guide, binary_images, epochs=4, learning_rate=0.01, seed=0, show_progress=False)
    assert run.history[-1]["elbo"] > run.history[0]["elbo"] + 0.5
    with pytest.raises(ValueError, match=r"takes 4 encoder features .*: end it with 4 channels of"):
        DiagonalNormal(conv((4, 4), 3), (2, 4, 4))(binary_images)
