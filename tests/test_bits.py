"""The fast distribution of bits and the fast tangent against float64, with all their
derivatives."""

import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck

from latente.models.likelihoods.independent_bits import Bernoulli
from latente.models.networks.mlp import Tanh

SIZES = [1, 3, 64, 99, 100, 101, 784, 1031]
"""Below, at and above a group of factors, whole groups and some with a rest, and a prime."""


def exact(logits, value, ndims=1):
    """By PyTorch's own distribution in float64."""
    distribution = torch.distributions.Bernoulli(logits=logits.double(), validate_args=False)
    return torch.distributions.Independent(distribution, ndims).log_prob(value.double())


def draws(*shape, scale=3.0, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(*shape, generator=generator, dtype=dtype)
    return logits, torch.rand(*shape, generator=generator, dtype=dtype).round()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [0.0, 0.1, 3.0, 50.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_bits_are_those_of_float64(size, scale, dtype, tolerance):
    """A sum of D terms is exact to some roundings of its largest partial sum."""
    logits, x = draws(5, 2, size, scale=scale, dtype=dtype)
    ours = Bernoulli(logits=logits).to_event(1).log_prob(x)
    theirs = exact(logits, x)
    assert ours.dtype == dtype
    assert ours.shape == (5, 2)
    assert ((ours - theirs).abs() <= tolerance * theirs.abs().clamp_min(1)).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("logit", [-200.0, -50.0, -17.0, 17.0, 50.0, 200.0])
@pytest.mark.parametrize("bit", [0.0, 1.0])
def test_bits_of_extreme_logits(size, logit, bit):
    """Where a probability is 1 or 0 in float32, its logarithm is the logit."""
    ours = (
        Bernoulli(logits=torch.full((size,), logit)).to_event(1).log_prob(torch.full((size,), bit))
    )
    theirs = exact(torch.full((size,), logit), torch.full((size,), bit)).item()
    assert ours.item() == pytest.approx(theirs, rel=2e-6, abs=1e-7 * size)


@pytest.mark.parametrize("size", [1, 100, 784, 10_000, 100_003])
def test_no_product_of_halves_underflows(size):
    """The smallest product there is: every factor ½."""
    ours = Bernoulli(logits=torch.zeros(size)).to_event(1).log_prob(torch.ones(size))
    assert ours.item() == pytest.approx(-size * torch.tensor(2.0).double().log().item(), rel=1e-6)


def test_no_bits_at_all_have_density_one():
    assert Bernoulli(logits=torch.zeros(3, 0)).to_event(1).log_prob(torch.zeros(3, 0)).eq(0).all()


@pytest.mark.parametrize("size", [3, 101, 784])
def test_grey_values_weigh_both_sides(size):
    logits, _ = draws(4, size)
    grey = torch.rand(4, size, generator=torch.Generator().manual_seed(1))
    ours = Bernoulli(logits=logits, validate_args=False).to_event(1).log_prob(grey)
    assert torch.allclose(ours.double(), exact(logits, grey), rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int64, torch.float64])
def test_bits_of_any_type(kind):
    logits, x = draws(4, 30)
    ours = Bernoulli(logits=logits, validate_args=False).to_event(1).log_prob(x.to(kind))
    assert torch.allclose(ours.double(), exact(logits, x), rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize(
    ("logits_shape", "value_shape"),
    [((7,), (5, 7)), ((6, 1, 7), (5, 7)), ((5, 7), (7,)), ((3, 5, 1), (5, 7)), ((5, 7), (5, 1))],
)
def test_values_and_logits_are_broadcast(logits_shape, value_shape):
    """A distribution of events of 7, and one that is the same for every bit."""
    logits, _ = draws(*logits_shape)
    _, x = draws(*value_shape, seed=1)
    distribution = Bernoulli(logits=logits).expand(torch.broadcast_shapes(logits_shape, (7,)))
    ours = distribution.to_event(1).log_prob(x)
    assert ours.shape == torch.broadcast_shapes(logits_shape, value_shape)[:-1]
    whole = torch.broadcast_tensors(logits, x)
    assert torch.allclose(ours.double(), exact(*whole), rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize("ndims", [1, 2, 3])
def test_events_of_several_dimensions_and_expanded_distributions(ndims):
    logits, x = draws(2, 5, 6)
    distribution = Bernoulli(logits=logits).to_event(ndims)
    assert distribution.batch_shape == (2, 5, 6)[: 3 - ndims]
    assert distribution.event_shape == (2, 5, 6)[3 - ndims :]
    wider = distribution.expand((4, *distribution.batch_shape))
    values = x.expand(4, 2, 5, 6)
    assert torch.allclose(distribution.log_prob(x).double(), exact(logits, x, ndims), rtol=2e-6)
    assert torch.equal(
        wider.log_prob(values), distribution.log_prob(x).expand(4, *distribution.batch_shape)
    )
    assert wider.sample().shape == (4, 2, 5, 6)


def test_the_distribution_is_otherwise_pyros():
    logits, x = draws(3, 9)
    ours, theirs = (kind(logits=logits).to_event(1) for kind in (Bernoulli, dist.Bernoulli))
    assert torch.equal(ours.mean, theirs.mean)
    assert torch.equal(ours.entropy(), theirs.entropy())
    torch.manual_seed(1)
    first = ours.sample((6,))
    torch.manual_seed(1)
    assert torch.equal(first, theirs.sample((6,)))
    assert type(Bernoulli(logits=logits).to_event(0)) is Bernoulli
    by_probs = Bernoulli(probs=logits.sigmoid()).to_event(1)
    assert torch.allclose(by_probs.log_prob(x), theirs.log_prob(x), rtol=1e-4)
    with pytest.raises(ValueError, match="support"):
        Bernoulli(logits=logits, validate_args=True).to_event(1).log_prob(x + 0.5)


@pytest.mark.parametrize("size", [1, 3, 100, 201])
def test_derivatives_of_bits(size):
    """First and second, in logits and in values, which are grey here."""
    logits, _ = draws(2, size, dtype=torch.float64)
    value = torch.rand(2, size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    inputs = logits.requires_grad_(), value.requires_grad_()

    def log_prob(logits, value):
        return Bernoulli(logits=logits, validate_args=False).to_event(1).log_prob(value)

    assert gradcheck(log_prob, inputs)
    assert gradgradcheck(log_prob, inputs)


@pytest.mark.parametrize("logit", [0.0, 1e-30, 50.0, 200.0, -200.0])
def test_slopes_of_bits_at_the_kink_and_far_out(logit):
    """|f| and its product have a kink at 0, which the whole has not."""
    logits = torch.full((101,), logit, requires_grad=True)
    x = (torch.arange(101) % 2).float()
    Bernoulli(logits=logits).to_event(1).log_prob(x).backward()
    assert torch.equal(logits.grad, x - torch.full((101,), logit).sigmoid())


def test_gradients_of_expanded_logits_add_up():
    base = torch.tensor([0.4, -1.0, 2.0], dtype=torch.float64, requires_grad=True)
    _, x = draws(5, 3, dtype=torch.float64)
    ours = Bernoulli(logits=base.expand(5, 3)).to_event(1).log_prob(x).sum()
    theirs = dist.Bernoulli(logits=base.expand(5, 3)).to_event(1).log_prob(x).sum()
    first, second = (torch.autograd.grad(part, base)[0] for part in (ours, theirs))
    assert torch.allclose(first, second, rtol=1e-12)


@pytest.mark.parametrize("size", [3, 101])
def test_bits_under_vmap(size):
    logits, x = draws(6, 4, size, dtype=torch.float64)

    def log_prob(logits, x):
        return Bernoulli(logits=logits, validate_args=False).to_event(1).log_prob(x)

    ours = torch.func.vmap(log_prob)(logits, x)
    assert torch.allclose(ours, exact(logits, x), rtol=1e-12)
    shared = torch.func.vmap(log_prob, in_dims=(0, None))(logits, x[0])
    assert torch.allclose(shared, exact(logits, x[0].expand_as(logits)), rtol=1e-12)
    slopes = torch.func.vmap(torch.func.grad(lambda f, v: log_prob(f, v).sum()))(logits, x)
    assert torch.allclose(slopes, x - logits.sigmoid(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_halved_logits_are_summed_in_float32(kind):
    logits, x = draws(4, 784)
    ours = Bernoulli(logits=logits.to(kind)).to_event(1).log_prob(x)
    assert ours.dtype == torch.float32
    assert torch.allclose(ours.double(), exact(logits.to(kind), x), rtol=2e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-7), (torch.float64, 1e-15)])
def test_the_tangent_is_pytorchs(dtype, tolerance):
    x = torch.cat([torch.linspace(-30, 30, 20_001), torch.tensor([0.0, 1e-30, 1e4, -1e30])])
    x = x.to(dtype)
    y = Tanh()(x)
    assert y.dtype == dtype
    assert (y - x.tanh()).abs().max().item() <= tolerance
    assert y.abs().max().item() <= 1
    assert Tanh()(torch.tensor([0.0, float("inf"), -float("inf")])).tolist() == [0.0, 1.0, -1.0]
    assert Tanh()(torch.tensor(float("nan"))).isnan()


def test_derivatives_of_the_tangent():
    x = torch.linspace(-4, 4, 17, dtype=torch.float64).view(17, 1).requires_grad_()
    assert gradcheck(Tanh(), (x,))
    assert gradgradcheck(Tanh(), (x,))


def test_slopes_of_the_tangent_are_those_of_its_result():
    x = torch.linspace(-9, 9, 1001, requires_grad=True)
    y = Tanh()(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(slope, 1 - y.detach().square(), rtol=0, atol=2e-7)


def test_the_tangent_under_vmap():
    x = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(torch.func.vmap(Tanh())(x), x.tanh(), atol=1e-15)
    slopes = torch.func.vmap(torch.func.grad(lambda row: Tanh()(row).sum()))(x)
    assert torch.allclose(slopes, 1 - x.tanh().square(), atol=1e-14)
    assert torch.allclose(
        torch.func.jacrev(Tanh())(x[0]), torch.diag(1 - x[0].tanh().square()), atol=1e-14
    )


def test_the_tangent_leaves_its_input_and_joins_a_network():
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), Tanh(), nn.Linear(5, 1))
    net(x).sum().backward()
    assert torch.equal(x, before)
    hidden = net[0](x).tanh()
    expected = hidden.sum(0)
    assert torch.allclose(net[2].weight.grad[0], expected, atol=1e-6)
