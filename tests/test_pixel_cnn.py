"""Autoregressive networks, dense and PixelCNN: what each element sees, densities and draws."""

import math

import pytest
import torch
from torch import nn
from torch.nn.utils import prune
from torch.utils.flop_counter import FlopCounterMode

from latente.guides import DiagonalNormal
from latente.inference import Beta_ELBO, fit, log_evidence, sample_prior
from latente.models import (
    VAE,
    Autoregressive,
    AutoregressiveLikelihood,
    AutoregressiveNetwork,
    Bernoulli,
    Categorical,
    DiscretizedLogistic,
    MaskedMLP,
    Normal,
    Ordinal,
    PixelCNN,
    StandardNormal,
    conv_decoder,
    mlp,
)
from latente.models.likelihoods.autoregressive import AutoregressiveDistribution

from .oracles import empty
from .test_recorded_steps import assert_recorded_is_plain, blocks


def pixel_cnn(shape, per_element=1, **options):
    options = {"receptive_field": 2, "layers": 2, "channels": 6, **options}
    return PixelCNN(shape, features_per_element=per_element, **options)


NETWORKS = {
    "dense": lambda shape, per: MaskedMLP(shape, 8, features_per_element=per),
    "PixelCNN": pixel_cnn,
    "PixelCNN of a vector": lambda shape, per: pixel_cnn(shape, per, latent_features=3),
    "PixelCNN of a map": lambda shape, per: pixel_cnn(shape, per, latent_features=(2, *shape[-2:])),
    "PixelCNN of one layer": lambda shape, per: pixel_cnn(shape, per, layers=1),
}
LIKELIHOODS = {
    "bits": (Bernoulli, [0.0, 1.0]),
    "levels": (lambda shape: DiscretizedLogistic(shape, 3, levels=3), [0.0, 0.5, 1.0]),
    "classes": (lambda shape: Categorical(shape, 3), [0.0, 1.0, 2.0]),
    "ordered": (lambda shape: Ordinal(shape, 3), [0.0, 1.0, 2.0]),
}


def network_of(name, likelihood):
    shape = tuple(likelihood.event_shape)
    return NETWORKS[name](shape, likelihood.features_per_element).double()


def latent_of(network, *batch):
    num = network.num_latent_features
    return torch.randn(*batch, num).double() if num else None


def density_of(network, likelihood, *batch):
    latent = latent_of(network, *batch)
    return AutoregressiveDistribution(network, likelihood, latent).expand(batch)


def what_is_seen(make, num_networks=6, num_data=4):
    """Whether the features of each element change with each element, in order: (D, D).

    A derivative counts if it is not exactly 0 in one of some networks at one of some x: units
    behind a ReLU may be off.
    """
    seen = torch.tensor(False)
    for _ in range(num_networks):
        network = make().double()
        order = list(network.order)
        x = torch.randn(num_data, *network.event_shape).double().requires_grad_()
        features = network(x, latent_of(network, num_data)).view(num_data, -1, len(order))
        rows = []
        for element in order:
            (slopes,) = torch.autograd.grad(features[..., element].sum(), x, retain_graph=True)
            rows.append((slopes.flatten(1)[:, order] != 0).any(0))
        seen = seen | torch.stack(rows)
    return seen


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 3)])
@pytest.mark.parametrize("name", NETWORKS)
def test_an_element_sees_none_but_those_before_it(name, shape):
    seen = what_is_seen(lambda: NETWORKS[name](shape, 2))
    assert not seen.triu().any()
    assert seen.any(1)[1:].all()


@pytest.mark.parametrize(
    ("shape", "receptive_field", "layers"),
    [((5, 6), 1, 1), ((5, 6), 1, 3), ((6, 7), 2, 2), ((6, 7), 3, 2), ((7, 5), 3, 5),
     ((4, 5), 10, 3), ((2, 4, 4), 1, 2), ((3, 3, 4), 2, 2), ((1, 5, 5), 2, 3)],
)  # fmt: skip
def test_a_pixel_sees_all_of_its_receptive_field_and_nothing_beyond(shape, receptive_field, layers):
    """No blind spot: each pixel before it, at most R rows above and R columns to a side."""

    def make():
        return PixelCNN(shape, 8, receptive_field=receptive_field, layers=layers, latent_features=2)

    colours, height, width = (1, *shape)[-3:]
    where = torch.cartesian_prod(*map(torch.arange, (height, width, colours)))
    row, column = where[:, 0], where[:, 1]
    near = (row[:, None] - row).abs() <= receptive_field
    near &= (column[:, None] - column).abs() <= receptive_field
    assert torch.equal(what_is_seen(make), near.tril(-1))


def test_the_order_is_row_column_channel():
    assert list(pixel_cnn((2, 2)).order) == [0, 1, 2, 3]
    assert list(pixel_cnn((2, 2, 2)).order) == [0, 4, 1, 5, 2, 6, 3, 7]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_density_of_3_by_3_bits_sums_to_one(name):
    likelihood = Bernoulli((3, 3))
    network = network_of(name, likelihood)
    x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 9).view(512, 1, 3, 3)
    log_px = density_of(network, likelihood, 4).log_prob(x)
    assert log_px.shape == (512, 4)
    assert torch.allclose(log_px.logsumexp(0), torch.zeros(4).double(), rtol=0, atol=1e-10)
    assert log_px.std() > 0.01


@pytest.mark.parametrize("kind", LIKELIHOODS)
@pytest.mark.parametrize("shape", [(2, 2), (2, 1, 2)])
def test_the_density_under_any_likelihood_sums_to_one(kind, shape):
    make, values = LIKELIHOODS[kind]
    likelihood = make(shape).double()
    network = network_of("PixelCNN of a vector", likelihood)
    x = torch.cartesian_prod(*[torch.tensor(values).double()] * 4).view(-1, 1, *shape)
    total = density_of(network, likelihood, 3).log_prob(x).logsumexp(0)
    assert torch.allclose(total, torch.zeros(3).double(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4)])
@pytest.mark.parametrize("name", NETWORKS)
def test_any_leading_shapes_give_what_each_datum_alone_does(name, shape):
    network = NETWORKS[name](shape, 2).double()
    x, latent = torch.randn(2, 3, *shape).double(), latent_of(network, 2, 3)
    together = network(x, latent)
    assert together.shape == (2, 3, 2 * math.prod(shape))
    for s in range(2):
        for n in range(3):
            alone = network(x[s, n], None if latent is None else latent[s, n])
            assert torch.allclose(alone, together[s, n], rtol=0, atol=1e-12)
    if latent is None:
        assert network(x[:, :0]).shape == (2, 0, 2 * math.prod(shape))
        return
    assert network(x[:, :0], latent[:, :0]).shape == (2, 0, 2 * math.prod(shape))
    of_all = network(x[0], latent)  # one x for several z, and one z for several x
    assert torch.allclose(of_all[1, 2], network(x[0, 2], latent[1, 2]), rtol=0, atol=1e-12)
    of_all = network(x, latent[0, 1])
    assert torch.allclose(of_all[1, 2], network(x[1, 2], latent[0, 1]), rtol=0, atol=1e-12)
    mapped = torch.func.vmap(network)(x, latent)
    assert torch.allclose(mapped, together, rtol=0, atol=1e-12)


# --- Draws.


@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 3)])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", ["bits", "levels", "classes", "ordered", "reals"])
def test_draws_are_those_of_passes_through_the_whole_network(name, shape, kind):
    """With the same seed; so the features kept are right, at every element."""
    if kind == "reals":
        likelihood = Normal(shape, scale=None)
    else:
        likelihood = LIKELIHOODS[kind][0](shape).double()
    network = network_of(name, likelihood)
    for value in network.parameters():
        value.data *= 0.5  # the scales of 18 reals in a row would grow beyond all bounds
    distribution = density_of(network, likelihood, 3)
    torch.manual_seed(5)
    draws = distribution.sample((2,))
    torch.manual_seed(5)
    naive = torch.zeros(2, 3, *shape).double()
    with torch.no_grad():
        steps = AutoregressiveNetwork.features_in_order(network, naive, distribution.latent)
        for index, features in steps:
            drawn = likelihood(features.expand(2, 3, -1)).sample().flatten(2)
            naive.view(2, 3, -1)[..., index] = drawn[..., index].double()
    assert draws.shape == (2, 3, *shape)
    assert draws.unique().numel() > 1
    if kind == "reals":
        assert torch.allclose(draws, naive, rtol=0, atol=1e-10)
    else:
        assert torch.equal(draws, naive)


def products_in(run):
    """How many multiplications the convolutions and matrix products in a run take."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("name", ["PixelCNN", "PixelCNN of a vector", "PixelCNN of a map"])
def test_a_draw_computes_each_hidden_unit_once(name):
    """As much as one pass through the whole network, and not as D passes."""
    likelihood = Bernoulli((6, 5))
    distribution = density_of(network_of(name, likelihood), likelihood, 2)
    network, x = distribution.network, torch.zeros(2, 6, 5).double()
    one_pass = products_in(lambda: network(x, distribution.latent))
    assert one_pass > 0
    assert products_in(distribution.sample) == one_pass


def test_draws_of_a_pixel_cnn_have_its_density():
    """Frequencies of all 64 images in 20,000 draws; χ² of 63 degrees, false alarm 1e-4."""
    torch.manual_seed(1)
    likelihood = Bernoulli((2, 3))
    network = network_of("PixelCNN of a vector", likelihood)
    distribution = density_of(network, likelihood)
    bits = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 6)
    expected = 20_000 * distribution.log_prob(bits.view(64, 2, 3)).exp().detach()
    codes = distribution.sample((20_000,)).flatten(1) @ (2.0 ** torch.arange(5, -1, -1)).double()
    observed = codes.long().bincount(minlength=64)
    assert ((observed - expected).square() / expected).sum() < 110.5


# --- z.


@pytest.mark.parametrize("latent_features", [3, (2, 4, 4)])
def test_z_enters_at_each_layer_into_both_stacks(latent_features):
    network = pixel_cnn((4, 4), latent_features=latent_features, layers=3).double()
    x, latent = torch.randn(5, 4, 4).double(), latent_of(network, 5).requires_grad_()
    kept = [layer.of_latent.weight.detach().clone() for layer in network.layers]
    for weights, layer in zip(kept, network.layers, strict=True):
        for half in (slice(0, 12), slice(12, 24)):  # of the first stack, and of the second
            for other in network.layers:
                other.of_latent.weight.data.zero_()
            layer.of_latent.weight.data[half] = weights[half]
            (slopes,) = torch.autograd.grad(network(x, latent).sum(), latent)
            assert (slopes != 0).any(0).all()
        layer.of_latent.weight.data.zero_()
    (slopes,) = torch.autograd.grad(network(x, latent).sum(), latent)
    assert (slopes == 0).all()


def test_all_weights_that_are_connected_have_a_gradient():
    """In one of some networks: units behind a ReLU may be off for all data."""
    moved = {}
    for _ in range(10):
        network = pixel_cnn((2, 5, 5), 3, latent_features=2, layers=3).double()
        features = network(2 * torch.randn(20, 2, 5, 5).double(), latent_of(network, 20))
        features.square().sum().backward()
        for name, value in network.named_parameters():
            moved[name] = moved.get(name, False) | (value.grad != 0)
    connected = dict(network.named_buffers())
    for name, has_gradient in moved.items():
        expected = connected.get(name.replace("weight", "connected"), torch.tensor(True))
        assert torch.equal(has_gradient, expected.expand_as(has_gradient)), name


# --- In a pair.


def pixel_vae(latent_features=5, receptive_field=1, likelihood=None):
    likelihood = Bernoulli((4, 4)) if likelihood is None else likelihood
    network = pixel_cnn(
        (4, 4),
        likelihood.features_per_element,
        receptive_field=receptive_field,
        latent_features=latent_features,
    )
    likelihood = AutoregressiveLikelihood(likelihood, network=network)
    if isinstance(latent_features, int):
        decoder = mlp(2, 8, out=likelihood.num_features)
    else:
        per_element = likelihood.features_per_element
        decoder = conv_decoder(2, (4, 4), (4,), hidden=8, features_per_element=per_element)
    model = VAE(StandardNormal(2), decoder, likelihood)
    return model, DiagonalNormal(mlp((4, 4), 8, out=4), 2)


@pytest.mark.parametrize("latent_features", [5, (3, 4, 4)])
def test_steps_of_a_pixel_vae_are_recorded_bit_for_bit(latent_features, binary_images):
    def make():
        torch.manual_seed(3)
        return pixel_vae(latent_features)

    assert_recorded_is_plain(make, blocks(binary_images))


def test_steps_of_a_pixel_vae_of_grey_levels_are_recorded_bit_for_bit():
    def make():
        torch.manual_seed(3)
        return pixel_vae(likelihood=DiscretizedLogistic((4, 4), 2, levels=5))

    x = torch.randint(5, (100, 4, 4), generator=torch.Generator().manual_seed(0)) / 4
    assert_recorded_is_plain(make, blocks(x))


def test_a_pixel_cnn_is_fitted_by_maximum_likelihood(binary_images):
    """Each row is the first one, so the truth is 4 log ½, and a field of one pixel holds it.

    It has to know the first row, where a pixel is 0 in half of the images whatever is above.
    """
    torch.manual_seed(0)
    model = Autoregressive(Bernoulli((4, 4)), network=pixel_cnn((4, 4), receptive_field=1))
    run = fit(
        model, empty, binary_images, epochs=40, batch_size=50, learning_rate=0.02,
        show_progress=False,
    )  # fmt: skip
    log_px = model.log_prob(binary_images).mean().item()
    assert log_px == pytest.approx(4 * math.log(0.5), abs=0.2)
    assert run.history[-1]["kl"] == 0
    _, draws = sample_prior(model, empty, 200, binary_images)
    assert (draws == draws[:, :1]).all(1).double().mean() > 0.9


def test_a_pixel_vae_is_a_pair_as_any(binary_images):
    """A field of one pixel sees the row above: z is not needed, and free bits keep it in use."""
    torch.manual_seed(0)
    model, guide = pixel_vae((3, 4, 4))
    run = fit(
        model, guide, binary_images, epochs=20, learning_rate=0.02,
        objective=Beta_ELBO(free_bits=0.2), show_progress=False,
    )  # fmt: skip
    assert run.history[-1]["kl"] > 0.2
    evidence = log_evidence(model, guide, binary_images[:20], num_samples=50)
    assert evidence.log_px.isfinite().all()
    assert evidence.mean > -6
    again, _ = pixel_vae((3, 4, 4))
    again.load_state_dict(model.state_dict())
    z = torch.randn(7, 2)
    x = binary_images[:7]
    ours, theirs = (m.likelihood(m.decoder(z)).log_prob(x) for m in (model, again))
    assert torch.equal(ours, theirs)


def test_widths_make_the_network_that_they_did():
    """The names of its weights, its density and its draws."""
    torch.manual_seed(0)
    likelihood = AutoregressiveLikelihood(Normal((2, 3), scale=None), hidden=(16,))
    names = {name for name, _ in likelihood.named_parameters()}
    assert {"network.1.direct.weight", "network.1.hidden.0.weight"} <= names
    assert set(AutoregressiveLikelihood(Bernoulli((2, 3))).state_dict()) >= names
    features = torch.randn(5, 12)
    torch.manual_seed(1)
    draws = likelihood(features).sample()
    torch.manual_seed(1)
    x = torch.zeros(5, 2, 3)
    for index in range(6):
        now = likelihood.likelihood(likelihood.network(x) + features)
        x.view(5, 6)[:, index] = now.sample().view(5, 6)[:, index]
    assert torch.equal(draws, x)
    assert torch.equal(likelihood(features).log_prob(x), now.log_prob(x))


# --- What is refused.


class Own(AutoregressiveNetwork):
    """Sums of the elements up to ``last`` places after an element."""

    def __init__(self, last, order=None, width=1):
        super().__init__()
        self.event_shape, self.features_per_element = torch.Size((2, 3)), 1
        self.num_latent_features, self.last, self.width = 0, last, width
        self.weight, self.places = nn.Parameter(torch.ones(())), order
        self.dropout = nn.Dropout(0.5)

    @property
    def order(self):
        return super().order if self.places is None else self.places

    def forward(self, x, latent=None):
        seen = torch.ones(6, 6).tril(self.last).to(x)
        return self.weight * self.dropout(x.flatten(-2) @ seen.T).repeat(
            *[1] * (x.dim() - 2), self.width
        )


def test_a_network_of_ones_own():
    before = torch.get_rng_state()
    model = Autoregressive(Bernoulli((2, 3)), network=Own(-1)).double()
    assert torch.equal(torch.get_rng_state(), before)  # trying its order draws nothing
    assert model.network.training
    model.eval()
    x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0]).double()] * 6).view(64, 2, 3)
    assert model.log_prob(x).logsumexp(0).item() == pytest.approx(0, abs=1e-12)
    assert model.distribution().sample((5,)).shape == (5, 2, 3)


BITS = Bernoulli((4, 4))
REFUSED = {
    "receptive field 0": (
        lambda: PixelCNN((4, 4), receptive_field=0),
        "at least 1, got 0: a pixel",
    ),
    "no layer": (lambda: PixelCNN((4, 4), receptive_field=1, layers=0), "layers=0"),
    "channels": (lambda: PixelCNN((3, 4, 4), 2, receptive_field=1), "channels=3 or more, got 2"),
    "no feature": (
        lambda: PixelCNN((4, 4), receptive_field=1, features_per_element=0),
        "features_per_element=0",
    ),
    "another map": (lambda: pixel_cnn((4, 4), latent_features=(2, 4, 5)), r"\(K, 4, 4\) .* got"),
    "features": (lambda: pixel_cnn((4, 4), latent_features=-1), "0 or more, got -1"),
    "no image": (lambda: pixel_cnn((16,)), "images"),
    "channels last": (lambda: pixel_cnn((28, 28, 3)), "channels last"),
    "one pixel": (lambda: pixel_cnn((1, 1)), "two elements"),
    "no width": (lambda: MaskedMLP((4,), 0), "every width"),
    "other data": (
        lambda: pixel_cnn((4, 4))(torch.zeros(3, 4, 5)),
        r"got data of shape \(3",
    ),
    "z left out": (
        lambda: pixel_cnn((4, 4), latent_features=3)(torch.zeros(4, 4)),
        "takes 3 features of z and got none",
    ),
    "z of another width": (
        lambda: pixel_cnn((4, 4), latent_features=3)(torch.zeros(4, 4), torch.zeros(2)),
        r"takes 3 features of z, but got a tensor of shape \(2,\)",
    ),
    "z for none": (
        lambda: pixel_cnn((4, 4))(torch.zeros(4, 4), torch.zeros(2)),
        "takes 0 features of z, but",
    ),
    "widths and network": (
        lambda: Autoregressive(BITS, (3,), network=pixel_cnn((4, 4))),
        "leave one of them out",
    ),
    "no network": (
        lambda: Autoregressive(BITS, network=nn.Linear(16, 16)),
        "must be an AutoregressiveNetwork, such as PixelCNN, got Linear",
    ),
    "another shape": (
        lambda: Autoregressive(BITS, network=pixel_cnn((4, 5))),
        r"is for data of shape \(4, 5\), and Bernoulli\(\(4, 4\)\) for \(4, 4\)",
    ),
    "another likelihood": (
        lambda: Autoregressive(DiscretizedLogistic((4, 4), 2), network=pixel_cnn((4, 4))),
        "build it with features_per_element=6",
    ),
    "z in a model without": (
        lambda: Autoregressive(BITS, network=pixel_cnn((4, 4), latent_features=3)),
        "build it with latent_features=0",
    ),
    "no z in a likelihood": (
        lambda: AutoregressiveLikelihood(BITS, network=pixel_cnn((4, 4))),
        "makes x independent of z",
    ),
    "a decoder of another width": (
        lambda: pixel_vae()[0].likelihood(torch.zeros(3, 16)),
        r"the PixelCNN of Bernoulli\(\(4, 4\)\) takes 5 decoder features.*give it out=5",
    ),
    "a start": (
        lambda: pixel_vae()[0].start_at_mean(torch.zeros(5, 4, 4)),
        "leave start_at_mean out",
    ),
    "data of another shape": (
        lambda: pixel_vae()[0](torch.zeros(5, 4, 5)),
        r"^Bernoulli\(\(4, 4\)\) takes data of shape \(N, 4, 4\)",
    ),
    "sees itself": (
        lambda: Autoregressive(Bernoulli((2, 3)), network=Own(0)),
        "Own is not autoregressive: features of an element up to",
    ),
    "sees all": (lambda: Autoregressive(Bernoulli((2, 3)), network=Own(5)), "not autoregressive"),
    "another order": (
        lambda: Autoregressive(Bernoulli((2, 3)), network=Own(-1, order=[1, 0, 2, 3, 4, 5])),
        "not autoregressive",
    ),
    "no order": (
        lambda: Autoregressive(Bernoulli((2, 3)), network=Own(-1, order=[0, 0, 2, 3, 4, 5])),
        "each of 0 … 5 once",
    ),
    "more features": (
        lambda: Autoregressive(Bernoulli((2, 3)), network=Own(-1, width=2)),
        "promises 1 features for each of 6 elements",
    ),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_makes_no_sense_is_refused_in_a_line(make, message):
    with pytest.raises(ValueError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)


def test_draws_follow_weights_that_a_hook_computes():
    """Pruning, like weight normalization, makes the weight anew before each forward pass."""
    torch.manual_seed(0)
    network = PixelCNN((3, 3), 4, receptive_field=1, layers=1).double()
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d):
            prune.random_unstructured(module, "weight", 0.3)
    for name, value in network.named_parameters():
        if name.endswith("weight_orig"):
            value.data.mul_(5)
    x = torch.rand(2, 3, 3, dtype=torch.float64)
    cached = [features for _, features in network.features_in_order(x)]
    naive = [features for _, features in AutoregressiveNetwork.features_in_order(network, x)]
    assert len(cached) == len(naive) == 9
    for index, (ours, theirs) in enumerate(zip(cached, naive, strict=True)):
        assert torch.allclose(ours.flatten(1)[:, index], theirs.flatten(1)[:, index])
