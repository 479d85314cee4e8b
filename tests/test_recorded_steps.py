"""Recorded steps give the numbers of plain ones, for every recipe, posterior and objective."""

from dataclasses import replace
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO, TraceMeanField_ELBO
from torch import nn
from torch.optim import SGD, Adam, AdamW

from latente.guides import DiagonalNormal
from latente.inference.execution.recorded import FIRST_CHECK
from latente.inference.objectives.beta import Beta_ELBO
from latente.inference.objectives.choice import choose_objective
from latente.inference.objectives.objective import Objective
from latente.inference.objectives.score_function import ScoreFunction_ELBO
from latente.inference.pairs.inspection import inspect_pair
from latente.inference.pairs.parameters import parameters
from latente.inference.pairs.programs import evaluating, private_store
from latente.inference.recipes.build import build_planned, measure_sizes
from latente.inference.recipes.plan import complete, compose
from latente.inference.recipes.plan_data import load_plan_data
from latente.inference.recipes.registry import find_recipe
from latente.inference.training.step import Step
from latente.models import VAE, Bernoulli, GaussianMixture, StandardNormal, mlp

from . import test_recipes
from .oracles import GlobalMean, TutorialVAE, empty, four_gaussians
from .test_contexts import labelled
from .test_recipes import plan_of, recipes

files = test_recipes.files
WAYS = "plain", "recorded"
fast = partial(Adam, lr=1e-3, fused=True)

ALIKE = ("vae", "spline"), ("vae", "point"), ("vlae", "diagonal")
"""A step of them is made of operations of other recipes."""
IN_FLOAT64 = "vae-student-t", "vampprior", "beta-tc-vae"


def run_steps(pair, objective, batches, *, compile, optimizer=fast, before=None, **options):
    """Losses, gradients, weights in the end, and the step: each run from one seed."""
    model, guide = pair
    with private_store(), pyro.validation_enabled(False):
        with evaluating(*pair):
            structure = inspect_pair(model, guide, batches[0])
            objective = choose_objective(objective, model, guide, batches[0], structure)
        named = parameters(model, guide, batches[0])
        options = {"num_data": 3 * len(batches[0][0]), "record_after": 0.0, **options}
        optimizer = optimizer(list(named.values()))
        step = Step(model, guide, objective, named, optimizer, compile=compile, **options)
        torch.manual_seed(11)
        losses, gradients = [], []
        for number, batch in enumerate(batches):
            if isinstance(objective, Objective):
                objective.move_to(2.5 * number)
            if before is not None:
                before(number)
            losses.append(step(batch))
            gradients.append([None if v.grad is None else v.grad.clone() for v in named.values()])
        states = [part.state_dict() for part in pair if isinstance(part, nn.Module)]
        weights = [*named.values(), *(value for state in states for value in state.values())]
        return losses, gradients, [value.detach().clone() for value in weights], step


def equal(ours, theirs):
    """Whether two runs gave the same numbers, bit for bit."""
    pairs = list(zip(torch.utils._pytree.tree_leaves(ours[:3]),
                     torch.utils._pytree.tree_leaves(theirs[:3]), strict=True))  # fmt: skip
    return all(a is b or torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)


def assert_recorded_is_plain(make, batches, objective=lambda: None, **options):
    """A pair run both ways; ``make`` gives it anew, with the same weights."""
    plain, recorded = (
        run_steps(make(), objective(), batches, compile=compile, **options) for compile in WAYS
    )
    assert recorded[3].note == ""
    assert recorded[3].loss_and_gradients.stays  # the last step was a replay
    assert not plain[3].loss_and_gradients.stays
    assert torch.stack(plain[0]).unique().numel() > 1
    assert equal(recorded, plain)
    return recorded[3]


def blocks(*parts, size=20, num=5):
    """Batches of one shape."""
    return [tuple(part[k * size : (k + 1) * size] for part in parts) for k in range(num)]


def recipe_case(recipe, posterior, files, dtype):
    plan = complete(replace(plan_of(recipe, posterior, files), epochs=1))
    data = load_plan_data(plan)
    rows = [part[:100] for part in data.rows("train")]
    rows = [part.to(dtype) if part.is_floating_point() else part for part in rows]
    sizes = measure_sizes(plan, data)

    def make():
        pair = build_planned(plan, sizes)
        return tuple(part.to(dtype).train() for part in pair)

    return make, blocks(*rows), compose(plan).make_objective


@pytest.mark.parametrize(("recipe", "posterior"), list(recipes(slow=ALIKE)))
def test_every_recipe_is_recorded_bit_for_bit(recipe, posterior, files):
    assert_recorded_is_plain(*recipe_case(recipe, posterior, files, torch.float32))


@pytest.mark.parametrize("recipe", IN_FLOAT64)
def test_recipes_are_recorded_in_float64(recipe, files):
    make, batches, objective = recipe_case(
        recipe, find_recipe(recipe).posterior, files, torch.float64
    )
    plain, recorded = (
        run_steps(make(), objective(), batches, compile=compile)
        for compile in ("plain", "recorded")
    )
    assert recorded[3].loss_and_gradients.stays
    for ours, theirs in zip(recorded[0], plain[0], strict=True):
        assert ours.dtype == torch.float64
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-10)
    for ours, theirs in zip(recorded[1], plain[1], strict=True):
        for a, b in zip(ours, theirs, strict=True):
            if a is None or b is None:
                assert a is b
            else:
                assert (a - b).abs().max() <= 1e-10 * b.abs().max()


OBJECTIVES = {
    "trace": Trace_ELBO,
    "trace-3-at-once": lambda: Trace_ELBO(3, max_plate_nesting=1, vectorize_particles=True),
    "mean-field-2": lambda: TraceMeanField_ELBO(2),
    "score-2": lambda: ScoreFunction_ELBO(2),
    "score-2-at-once": lambda: ScoreFunction_ELBO(
        2, vectorize_particles=True, max_plate_nesting=1
    ),
    "beta-2": lambda: Beta_ELBO(2.0, num_particles=2),
}  # fmt: skip
"""Those that no recipe has: the recipes' own are met with them."""


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_is_recorded(make_pair, binary_images, name):
    assert_recorded_is_plain(make_pair, blocks(binary_images), OBJECTIVES[name])


def test_an_enumerated_site_gives_the_numbers_of_plain_steps():
    """Pyro's enumeration looks at a mask's values, which may keep it from being recorded."""

    def run(compile):
        torch.manual_seed(0)
        pair = GaussianMixture(3, 2), empty
        return run_steps(pair, TraceEnum_ELBO(max_plate_nesting=1), batches, compile=compile)

    batches = blocks(four_gaussians(100).float())
    plain, recorded = run("plain"), run("recorded")
    assert equal(recorded, plain)
    assert recorded[3].note in ("", "what it does depends on values of tensors")
    assert recorded[3].loss_and_gradients.stays == (recorded[3].note == "")


class Subsampling(nn.Module):
    """A pair that takes its own minibatches, in plates of another name and dimension."""

    def __init__(self):
        super().__init__()
        self.weight, self.slope = nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(3))

    def plates(self, x):
        features = pyro.plate("features", 3, subsample_size=2, dim=-2)
        return features, pyro.plate("data", len(x), dim=-1)

    def model(self, x):
        features, data = self.plates(x)
        with features as chosen, data:
            z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
            loc = self.weight[chosen].unsqueeze(-1) * z
            pyro.sample("x", dist.Normal(loc, 1.0), obs=x.T[chosen])

    def guide(self, x):
        features, data = self.plates(x)
        with features as chosen, data:
            loc = self.slope[chosen].unsqueeze(-1) * x.T[chosen]
            pyro.sample("z", dist.Normal(loc, 0.5))


class Regularized(nn.Module):
    """Encoder and decoder with batch norm and dropout."""

    @staticmethod
    def make():
        torch.manual_seed(0)
        layers = nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, 4)
        guide = DiagonalNormal(nn.Sequential(nn.Flatten(), *layers), 2)
        decoder = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 16))
        return VAE(StandardNormal(2), decoder, Bernoulli((4, 4))).train(), guide.train()


def frozen():
    torch.manual_seed(0)
    vae = VAE(StandardNormal(2), mlp(2, 8, out=16), Bernoulli((4, 4)))
    vae.decoder[1].requires_grad_(False)
    return vae, DiagonalNormal(mlp(16, 8, out=4), 2)


def tutorial():
    torch.manual_seed(0)
    pair = TutorialVAE(16)
    return pair.model, pair.guide


def stored():
    """All parameters in Pyro's store, some constrained, and a latent site for all data."""
    pair = GlobalMean()
    return pair.model, pair.guide


def subsampling():
    pair = Subsampling()
    return pair.model, pair.guide


def conditional():
    torch.manual_seed(0)
    return labelled()


BITS = torch.rand(100, 4, 4, generator=torch.Generator().manual_seed(2)).round()
NUMBERS = torch.randn(100, 3, generator=torch.Generator().manual_seed(2))
PAIRS = {
    "a method's module": (tutorial, BITS),
    "parameters in the store": (stored, NUMBERS[:, 0]),
    "frozen parameters": (frozen, BITS),
    "plates that subsample": (subsampling, NUMBERS),
    "batch norm and dropout": (Regularized.make, BITS),
    "contexts": (conditional, BITS, torch.arange(100) % 3),
}


@pytest.mark.parametrize("name", PAIRS)
def test_every_kind_of_pair_is_recorded(name):
    make, *parts = PAIRS[name]
    assert_recorded_is_plain(make, blocks(*parts), optimizer=partial(Adam, lr=0.01, fused=True))


def test_dropout_differs_from_one_replay_to_the_next():
    """Of one batch, by an optimizer that does not move: what differs is drawn."""
    still = partial(SGD, lr=0.0)
    batches = [(BITS[:20],)] * 6
    losses, *_, step = run_steps(
        Regularized.make(), Trace_ELBO(), batches, compile="recorded", optimizer=still
    )
    assert step.loss_and_gradients.stays
    assert len({loss.item() for loss in losses}) == 6


OPTIMIZERS = {
    "adam": partial(Adam, lr=0.01),
    "fused adam, decayed": partial(Adam, lr=0.01, weight_decay=0.1, fused=True),
    "amsgrad": partial(Adam, lr=0.01, amsgrad=True, fused=True),
    "adamw": partial(AdamW, lr=0.01, weight_decay=0.1),
    "momentum": partial(SGD, lr=1e-4, momentum=0.9),
    "maximize": partial(Adam, lr=0.01, maximize=True, betas=(0.8, 0.9), eps=1e-4, fused=True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_moves_as_after_plain_steps(make_pair, binary_images, name):
    batches = blocks(binary_images, num=6)
    assert_recorded_is_plain(make_pair, batches, optimizer=OPTIMIZERS[name])


@pytest.mark.parametrize("clip_norm", [1e-3, 1e6])
def test_gradients_of_replays_are_clipped(make_pair, binary_images, clip_norm):
    """Clipping writes on the gradients, which lie in the replay's own memory."""
    batches = blocks(binary_images, num=6)
    step = assert_recorded_is_plain(make_pair, batches, clip_norm=clip_norm)
    gradients = [value.grad for value in step.parameters if value.grad is not None]
    norm = torch.stack([gradient.norm() for gradient in gradients]).norm().item()
    assert (norm == pytest.approx(clip_norm * 60, rel=1e-4)) == (clip_norm < 1)


def test_each_shape_of_batch_has_its_own_recording(make_pair, binary_images):
    """As in an epoch whose last batch is smaller; one shape is recorded before the other."""
    sizes = [20, 20, 7, 20, 20, 7, 20, 7, 20, 7, 7, 20]
    batches = [(part,) for part in binary_images[: sum(sizes)].split(sizes)]
    step = assert_recorded_is_plain(make_pair, batches)
    shapes = step.loss_and_gradients._shapes.values()
    assert [shape.span > FIRST_CHECK for shape in shapes] == [True, True]
