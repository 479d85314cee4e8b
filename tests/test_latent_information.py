"""What latent dimensions carry, against closed forms of linear Gaussian models."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch.distributions import kl_divergence

from latente.guides import DiagonalNormal, PointPosterior
from latente.inference import Beta_ELBO, Cyclical, Warmup, evaluate, fit, hold_then_fall, load_data
from latente.inference.diagnostics.latent_information import latent_information
from latente.inference.evaluation.metrics import describe_posterior
from latente.inference.pairs.kl import counted
from latente.models import (
    VAE,
    AutoregressiveLikelihood,
    Bernoulli,
    Normal,
    StandardNormal,
    mlp,
)

from .oracles import GlobalMean, LinearGaussian, OneBatchDimension

EPOCHS = 300
OBJECTIVES = {
    "ELBO": (lambda: None, 0),
    "warm-up": (lambda: Beta_ELBO(Warmup(2 / 3 * EPOCHS)), 1),
    "cyclical": (lambda: Beta_ELBO(Cyclical(EPOCHS / 3)), 1),
    "free bits": (lambda: Beta_ELBO(free_bits=0.25), 1),
}
"""What is fitted with a decoder that is strong enough to collapse the posterior, and the fewest
dimensions then in use."""


def carried(oracle):
    """I(x; z) = ½ log det(1 + WᵀW / σ²), in nats."""
    return 0.5 * oracle.precision.logdet().item()


def with_a_dead_dimension():
    """The last column of W is zero: nothing of x says anything of it."""
    oracle = LinearGaussian(2, orthogonal=True)
    oracle.weight[:, 1] = 0
    oracle.precision = torch.eye(2).double() + oracle.weight.T @ oracle.weight / oracle.scale**2
    oracle.covariance = oracle.precision.inverse()
    return oracle


def collapsed(oracle):
    """The oracle's model, with a guide that is its prior."""
    vae, guide = oracle.pair()
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.zero_()
    return vae, guide


def test_information_of_a_linear_model_is_its_closed_form():
    """2,000 data of the model, its exact posterior: q(z) is the prior, and I(x; z) = ½ log det P.

    Both within 4 standard errors (false alarm 1e-4) and a bias of E[q(z|x) / q(z)] / N, here 0.02:
    each datum's own posterior is one of the N that are averaged.
    """
    oracle = LinearGaussian(2, scale=1.2, orthogonal=True)
    found = latent_information(*oracle.pair(), oracle.sample(2000))
    exact = carried(oracle)
    print(
        f"I {found.mutual_information:.4f} ± {found.mutual_information_error:.4f}, exact "
        f"{exact:.4f}; marginal KL {found.marginal_kl:+.4f} ± {found.marginal_kl_error:.4f}"
    )
    assert 1 < exact < found.limit - 4
    assert found.limit == math.log(2000)
    assert abs(found.mutual_information - exact) < 4 * found.mutual_information_error + 0.02
    assert abs(found.marginal_kl) < 4 * found.marginal_kl_error + 0.02
    assert 0 < found.mutual_information_error < 0.05
    # KL of each datum and dimension, and E[KL] = I + KL(q(z) ‖ p(z)) as the parts say it.
    mean, var = oracle.posterior_mean(oracle.sample(2000)), oracle.covariance.diagonal()
    by_hand = 0.5 * (mean.square() + var - 1 - var.log())
    assert torch.allclose(found.kl, by_hand, rtol=0, atol=1e-8)
    total = found.mutual_information + found.marginal_kl
    error = found.mutual_information_error + found.marginal_kl_error
    assert found.kl.sum(1).mean().item() == pytest.approx(total, abs=4 * error)
    assert found.names == ("z[0]", "z[1]")
    assert found.idle == ()
    assert found.active_units == found.latent_dim == 2
    assert not found.collapsed
    assert torch.allclose(found.mean_variance["z"], mean.var(0))


def test_data_that_are_not_the_models_show_in_the_marginal():
    """The same posterior of data moved far off: q(z) is far from the prior, and I is what it was,
    as the draws move along (by the same seed, to rounding)."""
    oracle = LinearGaussian(1, scale=1.2)
    x = oracle.sample(300)
    near = latent_information(*oracle.pair(), x)
    far = latent_information(*oracle.pair(), x + 3 * oracle.weight[:, 0])
    assert far.marginal_kl > near.marginal_kl + 2
    assert far.mutual_information == pytest.approx(near.mutual_information, abs=1e-8)


def test_information_saturates_at_the_logarithm_of_how_many_data_there_are():
    """I(x; z) is far above log 20, of which no estimate by 20 data can tell."""
    oracle = LinearGaussian(2, scale=0.01, orthogonal=True)
    found = latent_information(*oracle.pair(), oracle.sample(20))
    assert carried(oracle) > found.limit + 5
    assert found.mutual_information == pytest.approx(math.log(20), abs=0.01)


def test_a_collapsed_guide_is_idle_all_over():
    oracle = LinearGaussian(3)
    found = latent_information(*collapsed(oracle), oracle.sample(50))
    assert found.collapsed
    assert found.idle == found.names == ("z[0]", "z[1]", "z[2]")
    assert found.active_units == 0
    assert found.mutual_information == pytest.approx(0, abs=1e-10)
    assert found.marginal_kl == pytest.approx(0, abs=1e-10)


def test_a_dead_dimension_is_idle_by_its_name():
    oracle = with_a_dead_dimension()
    found = latent_information(*oracle.pair(), oracle.sample(200))
    assert found.idle == ("z[1]",)
    assert found.active_units == 1
    assert found.latent_dim == 2
    assert not found.collapsed
    # Woken for 1 % of the data it is idle still; for 2 % it is not.
    kl = found.kl.clone()
    kl[:2, 1] = 1
    assert type(found)(**{**vars(found), "kl": kl}).idle == ("z[1]",)
    kl[:4, 1] = 1
    assert type(found)(**{**vars(found), "kl": kl}).idle == ()


def conditional(x, c):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(c, 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def guide_of_conditional(x, c):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal((x + c) / 2, math.sqrt(0.5)))


def test_a_conditional_prior_has_no_marginal_of_its_own():
    """x of variance 2 + Var c: I is known all the same; within 4 standard errors (6e-5)."""
    torch.manual_seed(4)
    c = 2 * torch.randn(1000).double()
    x = c + math.sqrt(2) * torch.randn(1000).double()
    found = latent_information(conditional, guide_of_conditional, (x, c))
    assert math.isnan(found.marginal_kl)
    assert math.isnan(found.marginal_kl_error)
    # q(z|x, c) has its mean (x + c) / 2 of variance 4 + ½, and variance ½ of its own.
    exact = 0.5 * math.log((4 + 0.5 + 0.5) / 0.5)
    assert abs(found.mutual_information - exact) < 4 * found.mutual_information_error + 0.01
    same = latent_information(conditional, guide_of_conditional, (x, 0 * c + 0.3))
    assert math.isfinite(same.marginal_kl)


def test_with_a_global_variable_the_kl_is_that_of_the_whole_data_set():
    shared = GlobalMean()
    found = latent_information(shared.model, shared.guide, torch.linspace(-1, 1, 9).double())
    assert found.set_rows == 9
    assert len(found.kl) == 1
    by_hand = kl_divergence(
        dist.Normal(0.2 * torch.linspace(-1, 1, 9).double(), 0.8), dist.Normal(0.0, 1.0)
    )
    of_w = kl_divergence(dist.Normal(0.3, 0.5), dist.Normal(0.0, 1.0))
    assert torch.allclose(found.kl.sum(), by_hand.sum() + of_w, rtol=0, atol=1e-5)
    assert math.isnan(found.mutual_information)
    assert math.isnan(found.marginal_kl)
    assert set(found.mean_variance) == {"w", "z"}


def two_sites(x):
    with pyro.plate("data", len(x)):
        rate = pyro.sample("rate", dist.Gamma(x.new_tensor(3.0), x.new_tensor(2.0)))
        z = pyro.sample("z", dist.Normal(x.new_zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.sum(-1), rate), obs=x)


def guide_of_two_sites(x):
    with pyro.plate("data", len(x)):
        pyro.sample("rate", dist.Gamma(3.0 + x.square(), x.new_tensor(2.0)))
        mean = torch.stack([x, 0 * x], -1)
        pyro.sample("z", dist.Normal(mean, x.new_tensor([0.5, 1.0])).to_event(1))


def test_two_sites_are_told_apart_by_name():
    x = torch.linspace(-2, 2, 60).double()
    found = latent_information(two_sites, guide_of_two_sites, x)
    assert found.names == ("rate", "z[0]", "z[1]")
    assert found.kl.shape == (60, 3)
    assert found.idle == ("z[1]",)
    assert {name: one.numel() for name, one in found.mean_variance.items()} == {"rate": 1, "z": 2}
    assert found.active_units == 2
    assert 0.5 < found.mutual_information < found.limit


def test_information_does_not_depend_on_the_scale_that_a_site_is_written_in():
    """z standard normal, or a log-normal of it: the same numbers, to rounding, by the same seed."""

    def write(distribution, back):
        def model(x):
            with pyro.plate("data", len(x)):
                z = back(pyro.sample("z", distribution(x.new_zeros(()), x.new_ones(()))))
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        def guide(x):
            with pyro.plate("data", len(x)):
                pyro.sample("z", distribution(x / 2, x.new_tensor(math.sqrt(0.5))))

        return latent_information(model, guide, torch.linspace(-3, 3, 40).double())

    real, positive = write(dist.Normal, lambda z: z), write(dist.LogNormal, torch.log)
    assert positive.mutual_information == pytest.approx(real.mutual_information, abs=1e-6)
    assert positive.marginal_kl == pytest.approx(real.marginal_kl, abs=1e-6)


def kinds(x):
    """Two kinds, of means −4 and 4: an index that the model looks its mean up by."""
    with pyro.plate("data", len(x)):
        kind = pyro.sample("kind", dist.Categorical(x.new_tensor([0.5, 0.5])))
        pyro.sample("x", dist.Normal(x.new_tensor([-4.0, 4.0])[kind], 1.0), obs=x)


def guide_of_kinds(x):
    with pyro.plate("data", len(x)):
        pyro.sample("kind", dist.Categorical(logits=torch.stack([-4 * x, 4 * x], -1)))


def test_a_discrete_site_carries_its_entropy():
    """Kinds that are told apart for sure: I = H(kind) = log 2, and q(kind) is the prior."""
    x = torch.cat([torch.full((30,), -4.0), torch.full((30,), 4.0)]).double()
    found = latent_information(kinds, guide_of_kinds, x)
    assert found.names == ("kind",)
    assert found.mutual_information == pytest.approx(math.log(2), abs=1e-9)
    assert found.marginal_kl == pytest.approx(0, abs=1e-9)
    assert torch.allclose(found.kl, torch.full((60, 1), math.log(2)).double())


def test_a_pair_that_cannot_be_vectorized_and_the_seed():
    """Network of one batch dimension: I in closed form within 4 standard errors (6e-5) and 0.1."""
    oracle = LinearGaussian(1, scale=2.0)
    model, guide = oracle.pair()
    x = oracle.sample(100)
    plain = latent_information(model, guide, x, seed=3)
    assert (
        plain.mutual_information == latent_information(model, guide, x, seed=3).mutual_information
    )
    assert (
        plain.mutual_information != latent_information(model, guide, x, seed=4).mutual_information
    )
    model.decoder = OneBatchDimension(model.decoder, 1)
    state = torch.random.get_rng_state()
    found = latent_information(model, guide, x)
    assert torch.equal(torch.random.get_rng_state(), state)
    bound = 4 * found.mutual_information_error + 0.1
    assert abs(found.mutual_information - carried(oracle)) < bound
    assert torch.allclose(found.kl, plain.kl, rtol=0, atol=1e-10)


def test_one_datum_says_nothing_of_variation():
    oracle = LinearGaussian(2)
    found = latent_information(*oracle.pair(), oracle.sample(1))
    assert found.limit == 0
    assert found.mutual_information == pytest.approx(0, abs=1e-10)
    assert math.isnan(found.mutual_information_error)
    assert found.active_units == 0
    assert not found.collapsed


def test_what_has_no_information_is_refused_in_one_line():
    x = torch.zeros(3, 2)
    vae = VAE(StandardNormal(2), mlp(2, out=2), Normal((2,), 1.0))
    with pytest.raises(ValueError, match="'z' on one point: it has no KL") as caught:
        latent_information(vae, PointPosterior(mlp(2, out=2), 2), x)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="num_draws must be at least 1, got 0"):
        latent_information(vae, PointPosterior(mlp(2, out=2), 2), x, num_draws=0)


def test_evaluation_names_a_collapse_and_only_that(make_pair, binary_images):
    model, guide = make_pair()
    with torch.no_grad():
        guide.encoder[-1].weight.zero_()
        guide.encoder[-1].bias.zero_()
    collapsed = evaluate(model, guide, binary_images, num_samples=30)
    assert collapsed["kl"] == pytest.approx(0, abs=1e-6)
    advice = describe_posterior(collapsed)
    assert "collapsed onto the prior" in advice
    assert "--beta warmup:100, --free-bits 0.1" in advice
    assert "collapsed" not in describe_posterior(
        evaluate(model, guide, binary_images[:1], num_samples=30)
    )
    assert "collapsed" not in describe_posterior(
        evaluate(*make_pair(), binary_images, num_samples=30)
    )


@pytest.mark.slow
@pytest.mark.parametrize(("make", "least"), OBJECTIVES.values(), ids=OBJECTIVES)
def test_active_units_with_an_autoregressive_decoder(make, least):
    torch.set_num_threads(1)  # the last digits, and so a unit near the threshold, depend on it
    data = load_data("digits", binarize="dynamic", seed=0)
    torch.manual_seed(0)
    likelihood = AutoregressiveLikelihood(Bernoulli((8, 8)), hidden=(500,))
    model = VAE(StandardNormal(5), mlp(5, 100, out=64), likelihood)
    guide = DiagonalNormal(mlp(64, 100, out=10), 5)
    fit(
        model,
        guide,
        data,
        objective=make(),
        epochs=EPOCHS,
        batch_size=64,
        learning_rate=1e-2,
        schedule=hold_then_fall(EPOCHS),
        show_progress=False,
    )
    active = evaluate(model, guide, data.test, num_samples=100)["active_units"]
    assert active >= least if least else active == 0


def test_a_mask_within_an_event_is_that_of_its_elements():
    """``.mask(m).to_event(1)`` masks elements of an event, as in Pyro's deep Markov model."""
    there = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]]).bool()

    def program(x, mask):
        with pyro.plate("data", len(x)):
            loc = torch.zeros(len(x), 2)
            pyro.sample("z", dist.Normal(loc, 1.0).mask(mask).to_event(1))

    site = poutine.trace(program).get_trace(torch.zeros(3), there).nodes["z"]
    assert torch.equal(counted(site), there)
    with poutine.mask(mask=torch.tensor([True, False, True])):
        site = poutine.trace(program).get_trace(torch.zeros(3), there).nodes["z"]
    assert torch.equal(counted(site), there & torch.tensor([[True], [False], [True]]))
