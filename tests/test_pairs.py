"""Any pair: isolation from one another and from Pyro's store."""

import itertools
import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    SVI,
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
    config_enumerate,
)
from pyro.nn import PyroModule, PyroParam
from torch import nn

from latente.inference import evaluate, load_data, log_evidence, plot_all
from latente.inference.pairs.programs import modules

from .oracles import TutorialVAE
from .test_fit import quiet, same, weights


def test_global_state_is_left_as_it_was(make_pair, binary_images):
    """Parameters in Pyro's store, the random state, and validation."""
    pair = make_pair()
    pyro.param("decoder$$$mine", torch.tensor(3.0))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    quiet(*pair, binary_images, epochs=1)
    log_evidence(*pair, binary_images[:5], num_samples=30)
    assert torch.equal(torch.rand(3), expected)
    assert list(pyro.get_param_store()) == ["decoder$$$mine"]
    assert pyro.param("decoder$$$mine").item() == 3.0
    assert dist.is_validation_enabled()


def test_two_fits_of_pairs_with_the_same_names_do_not_touch_each_other():
    """Two tutorial VAEs register "decoder" alike; alone or after one another, each trains."""
    x = torch.rand(100, 8, 8).round()

    def make():
        torch.manual_seed(3)
        return TutorialVAE()

    alone, first, second = make(), make(), make()
    expected = quiet(alone.model, alone.guide, x, epochs=3, batch_size=50)
    quiet(first.model, first.guide, 1 - x, epochs=3, batch_size=50)
    run = quiet(second.model, second.guide, x, epochs=3, batch_size=50)
    assert [row["loss"] for row in run.history] == [row["loss"] for row in expected.history]
    assert same(weights(second), weights(alone))
    assert not same(weights(first), weights(alone), 1e-3)
    assert not pyro.get_param_store()


def test_the_tutorial_vae_goes_through_unchanged():
    """Grey values, which its Bernoulli allows by validate_args=False, and flattened images."""
    data = load_data("digits")
    vae = TutorialVAE()
    before = log_evidence(vae.model, vae.guide, data.test, num_samples=200)
    run = quiet(vae.model, vae.guide, data, epochs=30, learning_rate=3e-3)
    after = log_evidence(vae.model, vae.guide, data.test, num_samples=200)
    assert run.history[-1]["elbo"] > run.history[0]["elbo"] + 5
    assert after.mean > before.mean + 5
    assert after.mean > after.elbo
    assert not pyro.get_param_store()


@pytest.mark.parametrize(
    "objective",
    [Trace_ELBO(), TraceMeanField_ELBO(num_particles=2), TraceGraph_ELBO(),
     RenyiELBO(alpha=0.0, num_particles=3)],
    ids=lambda objective: type(objective).__name__,
)  # fmt: skip
def test_any_pyro_elbo_trains(objective):
    x = torch.rand(200, 8, 8).round() * torch.eye(8)
    vae = TutorialVAE()
    size = 200 if isinstance(objective, RenyiELBO) else 50
    options = {"objective": objective, "learning_rate": 0.02, "batch_size": size}
    run = quiet(vae.model, vae.guide, x, epochs=20, **options)
    assert run.history[-1]["elbo"] > run.history[0]["elbo"] + 1


def test_contexts_reach_the_pair():
    seen = []

    class Conditional(nn.Module):
        def __init__(self):
            super().__init__()
            self.slope = nn.Parameter(torch.tensor(0.0))

        def model(self, x, y):
            seen.append((x.dtype, y.dtype, len(y)))
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))
                pyro.sample("x", dist.Normal(self.slope * y + 0.1 * z, 1.0), obs=x)

        def guide(self, x, y):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(torch.zeros(len(x)), 1.0))

    y = torch.arange(100) % 3
    pair = Conditional()
    quiet(pair.model, pair.guide, (2.0 * y, y), epochs=60, batch_size=50, learning_rate=0.1)
    assert pair.slope.item() == pytest.approx(2, abs=0.05)
    assert set(seen) == {(torch.float32, torch.int64, 50), (torch.float32, torch.int64, 100)}


def test_renyi_trains_plain_modules_and_refuses_minibatches():
    """Pyro takes its gradient only where a parameter statement stands; ours states them."""

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.loc = nn.Parameter(torch.tensor(0.0))

        def model(self, x):
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", dist.Normal(self.loc, 1.0))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(self, x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", dist.Normal(x / 2 + 0.5, 0.7))

    x = torch.randn(100) + 2
    pair, objective = Plain(), RenyiELBO(alpha=0.0, num_particles=2)
    options = {"objective": objective, "learning_rate": 0.1, "epochs": 20}
    quiet(pair.model, pair.guide, x, batch_size=100, **options)
    assert pair.loc.item() > 1
    with pytest.raises(ValueError, match="RenyiELBO takes one average over all data"):
        quiet(pair.model, pair.guide, x, batch_size=50, **options)


def test_modules_that_functions_refer_to_are_found():
    """Their mode, their buffers and their place in a checkpoint are seen to like others'."""
    decoder = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))

    class Plain:
        def __init__(self):
            self.net = nn.Linear(1, 1)

        def guide(self, x):
            pyro.module("net", self.net)
            with pyro.plate("data", len(x)):
                loc = self.net(x.mean(1, keepdim=True))
                pyro.sample("z", dist.Normal(loc, 1.0).to_event(1))

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(decoder(z), 1.0).to_event(1), obs=x)

    plain = Plain()
    assert modules(model, plain.guide) == {"model.decoder": decoder, "guide.net": plain.net}
    x = torch.randn(60, 4)
    quiet(model, plain.guide, x, epochs=2, batch_size=20)
    assert decoder[1].num_batches_tracked == 6
    decoder.train()
    first, again = (log_evidence(model, plain.guide, x, num_samples=30).mean for _ in range(2))
    assert first == again
    assert decoder.training
    decoder.eval()
    assert log_evidence(model, plain.guide, x, num_samples=30).mean == first


def test_dropout_is_on_in_training_and_off_in_measuring(make_pair, binary_images):
    seen = []

    class Watch(nn.Module):
        def forward(self, x):
            seen.append((self.training, torch.is_grad_enabled()))
            return x

    vae, guide = make_pair()
    guide.encoder.append(Watch())
    guide.eval()
    quiet(vae, guide, binary_images, validation=binary_images, epochs=2)
    assert set(seen) == {(True, True), (False, False)}


def test_enumerated_sites_are_summed_out():
    """A mixture of two normals: the bound is the exact log p(x), for no guide is needed."""

    def model(x):
        loc = pyro.param("loc", torch.tensor([-0.5, 0.5]))
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Bernoulli(0.5), infer={"enumerate": "parallel"})
            pyro.sample("x", dist.Normal(loc[k.long()], 1.0), obs=x)

    def guide(x):
        pass

    x = torch.cat([torch.randn(200) - 2, torch.randn(200) + 2])
    objective = TraceEnum_ELBO(max_plate_nesting=1)
    run = quiet(model, guide, x, validation=x, objective=objective, epochs=60, learning_rate=0.1)
    loc = run.model.store["params"]["loc"].detach()
    exact = (dist.Normal(loc, 1.0).log_prob(x[:, None]) + math.log(0.5)).logsumexp(1).mean()
    assert run.history[-1]["validation_elbo"] == pytest.approx(exact.item(), abs=1e-5)
    assert run.history[-1]["elbo"] == pytest.approx(exact.item(), abs=1e-5)
    assert loc.tolist() == pytest.approx([-2, 2], abs=0.2)
    assert log_evidence(run.model, run.guide, x).mean == pytest.approx(exact.item(), abs=1e-5)


def test_evaluate_and_pictures_take_scalar_and_discrete_sites(tmp_path):
    def model(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(3)))
            z = pyro.sample("z", dist.Normal(k.float(), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            k = pyro.sample("k", dist.Categorical(torch.ones(len(x), 3)))
            pyro.sample("z", dist.Normal((x + k) / 2, 0.8))

    x = torch.randn(50)
    figures = evaluate(model, guide, x, num_samples=2000)
    parts = dist.Normal(torch.arange(3.0), 2**0.5).log_prob(x[:, None])
    exact = (parts.logsumexp(1) - math.log(3)).mean().item()
    assert figures["log_evidence"] == pytest.approx(exact, abs=5 * figures["log_evidence_se"])
    assert figures["latent_dim"] == 2
    assert set(plot_all(model, guide, x)) == {"reconstructions", "samples", "latent"}


def test_modules_behind_a_pair():
    vae = TutorialVAE()
    assert modules(vae.model, vae.guide) == {"model": vae}
    plain = itertools.count
    assert modules(plain, plain) == {}


def test_modules_within_handlers_and_bound_arguments_are_found():
    """A guide in ``config_enumerate`` or ``functools.partial`` is set to evaluation mode too."""
    vae, modes = TutorialVAE(), []
    enumerated = config_enumerate(vae.guide)
    assert modules(enumerated, enumerated) == {"model": vae}

    class Watch(nn.Linear):
        def forward(self, x):
            modes.append(self.training)
            return super().forward(x)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(network, width, x):
        pyro.module("network", network)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(network(x[:, None]).squeeze(-1), width))

    network = Watch(1, 1)
    for bound in (partial(guide, network, 1.0), partial(guide, network)):
        within_handler = poutine.scale(bound, scale=1.0)
        assert modules(model, bound) == modules(model, within_handler) == {"guide.network": network}
    log_evidence(model, partial(guide, network, 1.0), torch.randn(5), num_samples=10)
    assert modes
    assert not any(modes)


def test_modules_that_a_program_refers_to_through_others_are_found():
    vae, network = TutorialVAE(), nn.Linear(1, 1)
    model, guide = vae.model, vae.guide
    adapted = (lambda x: model(x), lambda x, context: guide(x))
    assert modules(*adapted) == {"model.model": vae}

    def encode(x):
        return network(x) if len(x) else again(x)

    def again(x):  # a circle of calls ends
        return encode(x)

    def encoding_guide(x):
        pyro.sample("z", dist.Normal(encode(x), 1.0))

    assert modules(lambda x: None, encoding_guide) == {"guide.network": network}


class PyroModulePair(PyroModule):
    """A user's PyroModule with a constrained parameter of its own."""

    def __init__(self, scale):
        super().__init__()
        self.scale = PyroParam(torch.tensor(scale), constraint=dist.constraints.positive)

    def forward(self, x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x)), self.scale))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def _posterior_of_unit_scale(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.9))


def test_pyro_modules_keep_their_values_beside_stale_ones_of_the_same_name():
    """Another module's value in the global store, under the same name, must not win."""
    x = torch.randn(200)
    other = PyroModulePair(50.0)
    SVI(
        other, _posterior_of_unit_scale, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO()
    ).step(x)  # fmt: skip
    assert "scale" in pyro.get_param_store()
    pair = PyroModulePair(2.0)
    evidence = log_evidence(pair, _posterior_of_unit_scale, x, num_samples=500)
    exact = dist.Normal(0.0, 5**0.5).log_prob(x).mean().item()
    assert evidence.mean == pytest.approx(exact, abs=0.05)
    assert pair.scale.item() == pytest.approx(2.0)
    quiet(pair, _posterior_of_unit_scale, x, epochs=3, learning_rate=0.05)
    assert 1.0 < pair.scale.item() != 2.0
    assert other.scale.item() == pytest.approx(50.0, abs=1)


def test_a_pair_trained_by_hand_is_evaluated_with_its_values():
    """Values that SVI left in the global store are found, and left there."""
    pyro.param("loc", torch.tensor(3.0))
    x = torch.full((5,), 3.0)

    def model(x):
        loc = pyro.param("loc", torch.tensor(0.0))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(loc, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal((x + 3) / 2, 0.9))

    evidence = log_evidence(model, guide, x, num_samples=1000)
    assert evidence.mean == pytest.approx(-0.5 * math.log(4 * math.pi), abs=0.01)
    assert pyro.param("loc").item() == 3.0


def test_a_fitted_function_is_warned_of_where_its_run_was_meant():
    """Its pyro.param values are in the run; a fit in Pyro itself leaves them in Pyro's store."""

    def model(x):
        slope = pyro.param("slope", torch.tensor(0.5))
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), ()))
            pyro.sample("x", dist.Normal(slope * z, 1.0), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 2, 1.0))

    x = torch.linspace(-1, 1, 20)
    log_evidence(model, guide, x, num_samples=10)  # before any fit nothing is said
    run = quiet(model, guide, x, epochs=1)
    log_evidence(run.model, run.guide, x, num_samples=10)
    with pytest.warns(
        UserWarning, match="the model is the function .* 'slope' start anew .* run.mo"
    ):
        log_evidence(model, guide, x, num_samples=10)
    pyro.param("slope", torch.tensor(2.0))
    log_evidence(model, guide, x, num_samples=10)


def test_an_event_axis_too_many_is_refused():
    """It would count the whole batch as one z, at a number that looks like one."""

    def model(x):
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(2))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", dist.Normal(x / 2, 0.5**0.5).to_event(1))

    with pytest.raises(ValueError, match=r"takes the axis of the data for one of z.*to_event\(1\)"):
        log_evidence(model, guide, torch.randn(5, 2), num_samples=10)
