"""Convolutional networks: shapes, the layout of features, and fits of what they make."""

import math

import pytest
import torch
from torch import nn

from latente.guides import DiagonalNormal
from latente.inference import fit, log_evidence
from latente.inference.pairs.inspection import inspect_pair
from latente.models import VAE, Bernoulli, Normal, StandardNormal, conv_decoder, conv_encoder

SHAPES = [(28, 28), (3, 32, 32), (28, 20), (8, 8), (7, 5), (1, 7, 5), (2, 1, 9)]


def small(shape, residual_blocks=0, per_element=1, **options):
    """An encoder to 3 features and a decoder from 2, in float64."""
    options = {"hidden": 7, "residual_blocks": residual_blocks, **options}
    encoder = conv_encoder(shape, (4, 6), out=3, **options)
    decoder = conv_decoder(2, shape, (6, 4), features_per_element=per_element, **options)
    return encoder.double(), decoder.double()


@pytest.mark.parametrize("residual_blocks", [0, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_any_leading_shape_gives_what_each_datum_alone_does(shape, residual_blocks):
    encoder, decoder = small(shape, residual_blocks, per_element=2)
    for net, event, width in [(encoder, shape, 3), (decoder, (2,), 2 * math.prod(shape))]:
        x = torch.randn(2, 3, *event).double()
        together = net(x)
        assert together.shape == (2, 3, width)
        for alone, row in zip(x.flatten(0, 1), together.flatten(0, 1), strict=True):
            assert net(alone).shape == (width,)
            assert torch.allclose(net(alone), row, rtol=0, atol=1e-12)
        assert torch.allclose(net(x[0]), together[0], rtol=0, atol=1e-12)
        assert net(x[:, :0]).shape == (2, 0, width)


@pytest.mark.parametrize("hidden", [7, None])
@pytest.mark.parametrize("residual_blocks", [0, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_reach_every_parameter(shape, residual_blocks, hidden):
    for net, event in zip(
        small(shape, residual_blocks, 2, hidden=hidden, activation=nn.ELU),
        (shape, (2,)),
        strict=True,
    ):
        net(torch.randn(5, *event).double()).square().sum().backward()
        assert all((p.grad != 0).any() for p in net.parameters())


@pytest.mark.parametrize("shape", [(7, 5), (3, 8, 8)])
def test_the_last_bias_is_the_distribution_s_own_element(shape):
    likelihood = Normal(shape, scale=None).double()
    _, decoder = small(shape, per_element=likelihood.features_per_element)
    last = list(decoder.children())[-1]
    assert last.bias.shape == (likelihood.num_features,)
    z, element = torch.randn(4, 2).double(), tuple(size - 2 for size in shape)
    index = sum(i * math.prod(shape[axis + 1 :]) for axis, i in enumerate(element))
    with torch.no_grad():
        before = likelihood(decoder(z)).base_dist
        last.bias[index] += 1
        last.bias[math.prod(shape) + index] += 2
        after = likelihood(decoder(z)).base_dist
    for moved, by in [(after.loc - before.loc, 1), ((after.scale / before.scale).log(), 2)]:
        expected = torch.zeros(4, *shape).double()
        expected[:, *element] = by
        assert torch.allclose(moved, expected, rtol=0, atol=1e-12)


def test_each_block_of_features_is_an_image_channel_by_channel():
    """The layers' output (B, blocks · C, H, W), where a pixel's neighbours stay its neighbours."""
    shape = (3, 8, 8)
    _, decoder = small(shape, per_element=2)
    *_, images, bias = decoder.children()
    assert (bias.bias == 0).all()
    deepest = torch.randn(5, math.prod(images.image)).double()
    planes = images.layers(deepest.reshape(5, *images.image))
    blocks = Normal(shape, scale=None)(images(deepest)).base_dist
    assert torch.equal(blocks.loc, planes[:, :3])
    assert torch.allclose(blocks.scale.log(), planes[:, 3:], rtol=0, atol=1e-12)
    # And one pixel of the smallest image, 2 × 2, moves its own corner alone.
    moved = deepest.reshape(5, *images.image).clone()
    moved[..., 0, 0] += 1
    change = (images(moved.flatten(1)) - images(deepest)).reshape(5, 6, 8, 8).abs().amax((0, 1))
    assert (change[:4, :4] > 0).any()
    assert (change[7] == 0).all()
    assert (change[:, 7] == 0).all()


def test_residual_blocks_start_near_the_identity_and_learn():
    blocks = [m for m in small((8, 8), 2)[0].modules() if type(m).__name__ == "_Residual"]
    assert len(blocks) == 4
    x = torch.randn(20, 4, 8, 8).double()
    change = blocks[0](x) - x
    assert 0 < change.std() < 0.02 * x.std()

    bits = (torch.rand(40, 8, 1).double() < 0.5).double().expand(40, 8, 8)
    encoder, decoder = small((8, 8), 2, hidden=32)
    net = nn.Sequential(encoder, nn.Linear(3, 2).double(), decoder)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    losses = []
    for _ in range(60):
        loss = nn.functional.binary_cross_entropy_with_logits(net(bits), bits.flatten(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(2), abs=0.05)
    assert losses[-1] < 0.6


def test_no_datum_sees_another_of_its_batch():
    for net, event in zip(small((8, 8), 1), ((8, 8), (2,)), strict=True):
        x = torch.randn(4, *event).double().requires_grad_()
        net(x)[0].sum().backward()
        assert (x.grad[0] != 0).any()
        assert (x.grad[1:] == 0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: conv_encoder((64,), out=2), r"images .* got the event shape \(64,\)"),
        (lambda: conv_decoder(2, (2, 3, 8, 8)), r"got the event shape \(2, 3, 8, 8\)"),
        (lambda: conv_encoder((0, 8), out=2), r"got the event shape \(0, 8\)"),
        (lambda: conv_encoder((8, 8), (4, 0), out=2), r"at least 1, got channels=\(4, 0\)"),
        (lambda: conv_encoder((8, 8), (), out=2), "channels is empty"),
        (lambda: conv_encoder((8, 8), out=0), "at least 1, got out=0"),
        (lambda: conv_encoder((8, 8), out=2, hidden=0), "at least 1, got hidden=0"),
        (lambda: conv_encoder((8, 8), out=2, residual_blocks=-1), "0 or more, got -1"),
        (lambda: conv_decoder(0, (8, 8)), "at least 1, got in_features=0"),
        (lambda: conv_decoder(2, (8, 8), features_per_element=0), "got features_per_element=0"),
        (lambda: conv_encoder((8, 8), (4,) * 4, out=2), "8 × 8 .* halved 4 times: give at most 3"),
        (lambda: conv_decoder(2, (1, 1)), "1 × 1 pixels cannot be halved 2 times"),
    ],
)
def test_what_makes_no_network_is_refused(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_inputs_of_another_shape_are_refused():
    encoder, decoder = small((8, 8))
    for net, wanted, shape in [
        (encoder, r"\(8, 8\)", (5, 8, 7)),
        (encoder, r"\(8, 8\)", (5, 64)),
        (decoder, r"\(2,\)", (5, 3)),
        (decoder, r"\(2,\)", ()),
    ]:
        got = str(shape).replace("(", r"\(").replace(")", r"\)")
        with pytest.raises(ValueError, match=f"inputs {wanted} got a tensor of shape {got}"):
            net(torch.zeros(shape).double())


def test_as_many_halvings_as_there_are_pixels_for():
    assert conv_encoder((8, 8), (4,) * 3, out=2)(torch.zeros(5, 8, 8)).shape == (5, 2)
    assert conv_decoder(2, (5, 1), (4,) * 3)(torch.zeros(5, 2)).shape == (5, 5)


@pytest.mark.parametrize(("shape", "residual_blocks"), [((8, 8), 0), ((3, 7, 5), 1)])
def test_a_vae_of_them_fits_and_is_vectorized(shape, residual_blocks):
    bits = torch.rand(120, *shape).round()
    options = {"hidden": 16, "residual_blocks": residual_blocks}
    vae = VAE(StandardNormal(2), conv_decoder(2, shape, (8, 4), **options), Bernoulli(shape))
    guide = DiagonalNormal(conv_encoder(shape, (4, 8), out=4, **options), 2)
    history = fit(vae, guide, bits, epochs=1, show_progress=False).history
    assert len(history) == 1
    assert math.isfinite(history[0]["loss"])
    assert inspect_pair(vae, guide, (bits[:20],)).vectorized
    log_px = log_evidence(vae, guide, bits[:20], num_samples=5).log_px
    assert log_px.shape == (20,)
    assert log_px.mean().item() == pytest.approx(-math.prod(shape) * math.log(2), rel=0.1)
