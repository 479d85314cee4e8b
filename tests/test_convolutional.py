"""Convolutional networks: event shapes, the layout of features, and fits of what they make."""

import math
import re

import numpy as np
import pytest
import torch
from torch import nn

from latente.guides import DiagonalNormal
from latente.inference import fit, load_run, log_evidence
from latente.inference.pairs.inspection import inspect_pair
from latente.inference.recipes.plan import Plan
from latente.inference.recipes.train import train
from latente.inference.training import preparation
from latente.inference.training.step import Step
from latente.models import VAE, Bernoulli, Normal, StandardNormal, conv_decoder, conv_encoder

IMAGES = [(28, 28), (3, 32, 32), (28, 20), (8, 8), (7, 5), (1, 7, 5), (2, 1, 9)]
OTHERS = {
    (64,): None,
    (9,): 1,
    (2, 33): 1,
    (5, 7): 1,
    (6, 5, 7): 2,
    (2, 5, 4, 7): None,
    (4, 5, 6): 3,
}
"""Event shapes that are no images, or not clearly, with the ``dims`` that they need."""
SHAPES = [*IMAGES, *OTHERS]


def small(shape, residual_blocks=0, per_element=1, **options):
    """An encoder to 3 features and a decoder from 2, in float64."""
    dims = OTHERS.get(shape)
    options = {"hidden": 7, "residual_blocks": residual_blocks, "dims": dims, **options}
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
    deepest = torch.randn(5, math.prod(images.shape)).double()
    planes = images.layers(deepest.reshape(5, *images.shape))
    blocks = Normal(shape, scale=None)(images(deepest)).base_dist
    assert torch.equal(blocks.loc, planes[:, :3])
    assert torch.allclose(blocks.scale.log(), planes[:, 3:], rtol=0, atol=1e-12)
    # And one pixel of the smallest image, 2 × 2, moves its own corner alone.
    moved = deepest.reshape(5, *images.shape).clone()
    moved[..., 0, 0] += 1
    change = (images(moved.flatten(1)) - images(deepest)).reshape(5, 6, 8, 8).abs().amax((0, 1))
    assert (change[:4, :4] > 0).any()
    assert (change[7] == 0).all()
    assert (change[:, 7] == 0).all()


def test_residual_blocks_start_near_the_identity_and_learn():
    blocks = [m for m in small((8, 8), 2)[0].modules() if type(m).__name__ == "ResidualBlock"]
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
        (lambda: conv_encoder((64,), out=2, dims=2), r"dims=2 takes images .* shape \(64,\)"),
        (lambda: conv_encoder((8, 8), out=2, dims=3), r"dims=3 takes volumes .* shape \(8, 8\)"),
        (lambda: conv_encoder((8, 8), out=2, dims=0), "dims must be 1, 2 or 3, got 0"),
        (lambda: conv_encoder((), out=2), r"signals .*, images .*, volumes .* event shape \(\)"),
        (lambda: conv_decoder(2, (1, 2, 3, 8, 8)), r"got the event shape \(1, 2, 3, 8, 8\)"),
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
        (lambda: conv_encoder((5,), (4,) * 4, out=2), "signal of 5 values cannot be halved 4 tim"),
        (lambda: conv_decoder(2, (1, 2, 2, 2)), "2 × 2 × 2 voxels cannot be halved 2 times"),
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
    assert conv_decoder(2, (5, 1), (4,) * 3, dims=2)(torch.zeros(5, 2)).shape == (5, 5)


@pytest.mark.parametrize(
    ("shape", "dims", "readings"),
    [
        ((12, 500), None, ["a signal of 500 values with 12 channels (give dims=1)",
                           "an image of 12 × 500 pixels (give dims=2)"]),
        ((9, 8, 7), None, ["an image of 8 × 7 pixels with 9 channels (give dims=2)",
                           "a volume of 9 × 8 × 7 voxels (give dims=3)"]),
        ((28, 28, 3), None, ["a volume of 28 × 28 × 3 voxels (give dims=3)",
                             "an image of 28 × 28 pixels with the channels last (move them to "
                             "the front, (3, 28, 28))"]),
        ((2, 8, 4), None, ["an image of 8 × 4 pixels with 2 channels (give dims=2)",
                           "a volume of 2 × 8 × 4 voxels (give dims=3)",
                           "an image of 2 × 8 pixels with the channels last (move them to the "
                           "front, (4, 2, 8))"]),
        ((28, 28, 1), 2, ["with the channels last (move them to the front, (1, 28, 28))"]),
        ((500, 3), 1, ["a signal of 500 values with the channels last (move them to the front, "
                       "(3, 500))"]),
        ((9, 8, 8, 4), 3, ["a volume of 9 × 8 × 8 voxels with the channels last"]),
        ((9, 8, 8, 4), None, ["a volume of 9 × 8 × 8 voxels with the channels last"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "make", [lambda *a, **k: conv_encoder(*a, out=2, **k), lambda *a, **k: conv_decoder(2, *a, **k)]
)
def test_a_shape_that_can_be_read_in_several_ways_is_refused_with_all_of_them(
    make, shape, dims, readings
):
    with pytest.raises(ValueError, match=re.escape(f"event shape {shape} ")) as caught:
        make(shape, dims=dims)
    for reading in readings:
        assert reading in str(caught.value)
    assert "\n" not in str(caught.value)
    for num in {1, 2, 3} - {dims}:
        if f"dims={num}" in str(caught.value):
            make(shape, (4,), dims=num)
        elif dims is None:
            with pytest.raises(ValueError, match="event shape"):
                make(shape, (4,), dims=num)


def test_dims_says_what_is_read_anyway():
    for shape, dims in {(64,): 1, (8, 8): 2, (3, 8, 8): 2, (2, 8, 8, 8): 3}.items():
        torch.manual_seed(0)
        plain = conv_encoder(shape, (4,), out=2)
        torch.manual_seed(0)
        told = conv_encoder(shape, (4,), out=2, dims=dims)
        x = torch.randn(5, *shape)
        assert torch.equal(plain(x), told(x))


@pytest.mark.parametrize(
    ("shape", "dims", "as_image"), [((16,), None, (1, 16)), ((3, 16), 1, (3, 1, 16))]
)
def test_a_signal_is_an_image_of_one_row(shape, dims, as_image):
    """The kernels' middle rows alone meet it: the same weights give the same numbers."""
    options = {"hidden": 7, "residual_blocks": 1}
    signal = (
        conv_encoder(shape, (4, 6), out=3, dims=dims, **options),
        conv_decoder(2, shape, (6, 4), dims=dims, features_per_element=2, **options),
    )
    image = (
        conv_encoder(as_image, (4, 6), out=3, dims=2, **options),
        conv_decoder(2, as_image, (6, 4), dims=2, features_per_element=2, **options),
    )
    for one, two, events in zip(signal, image, ((shape, as_image), ((2,), (2,))), strict=True):
        one, two = one.double(), two.double()
        with torch.no_grad():
            for ours, theirs in zip(one.parameters(), two.parameters(), strict=True):
                if theirs.dim() == 4:
                    theirs[..., 1, :].copy_(ours)
                else:
                    theirs.copy_(ours.reshape(theirs.shape))
        x = torch.randn(5, *events[0]).double()
        assert torch.allclose(one(x), two(x.reshape(5, *events[1])), rtol=0, atol=1e-12)


def test_a_volume_of_one_slice_is_an_image():
    """As above, with the middle slices of the kernels."""
    image = conv_encoder((3, 6, 8), (4, 6), out=3, residual_blocks=1).double()
    volume = conv_encoder((3, 1, 6, 8), (4, 6), out=3, residual_blocks=1).double()
    with torch.no_grad():
        for ours, theirs in zip(image.parameters(), volume.parameters(), strict=True):
            (theirs[:, :, 1] if theirs.dim() == 5 else theirs).copy_(ours)
    x = torch.randn(5, 3, 6, 8).double()
    assert torch.allclose(image(x), volume(x[:, :, None]), rtol=0, atol=1e-12)


def test_networks_for_images_have_the_names_and_the_first_weights_of_version_0_1():
    """Else older run folders would not load, and a seed would give another fit."""
    torch.manual_seed(3)
    encoder = conv_encoder((3, 9, 8), (4, 6), out=5, hidden=None, residual_blocks=1)
    decoder = conv_decoder(2, (28, 20), (6, 4), hidden=7)
    torch.manual_seed(3)
    of_encoder = {
        "1.layers.0": nn.Conv2d(3, 4, 3), "1.layers.1.change.1": nn.Conv2d(4, 4, 3),
        "1.layers.1.change.3": nn.Conv2d(4, 4, 3), "1.layers.3": nn.Conv2d(4, 6, 3),
        "1.layers.4.change.1": nn.Conv2d(6, 6, 3), "1.layers.4.change.3": nn.Conv2d(6, 6, 3),
        "2": nn.Linear(6 * 3 * 2, 5),
    }  # fmt: skip
    of_decoder = {
        "4.layers.1": nn.ConvTranspose2d(6, 4, 4),
        "4.layers.4": nn.ConvTranspose2d(4, 1, 4, bias=False),
        "1": nn.Linear(2, 7),
        "3": nn.Linear(7, 6 * 7 * 5),
    }
    expected = {
        f"{layer}.{name}": value * (0.01 if layer.endswith("change.3") else 1)
        for layer, module in (of_encoder | of_decoder).items()
        for name, value in module.state_dict().items()
    }
    expected["5.bias"] = torch.zeros(28 * 20)
    made = encoder.state_dict() | decoder.state_dict()
    assert made.keys() == expected.keys()
    assert all(torch.equal(made[name], expected[name]) for name in made)


@pytest.mark.parametrize("shape", [(9,), (5, 7), (2, 5, 4, 7)])
def test_networks_run_under_vmap(shape):
    encoder, decoder = small(shape, 1)
    for net, event in [(encoder, shape), (decoder, (2,))]:
        x = torch.randn(3, 4, *event).double()
        mapped = torch.func.vmap(torch.func.vmap(net))(x)
        assert torch.allclose(mapped, net(x), rtol=0, atol=1e-12)


def test_recorded_steps_have_the_numbers_of_plain_ones(monkeypatch):
    steps, shape = [], (2, 3, 4, 5)

    def at_once(*args, **options):
        steps.append(Step(*args, **{**options, "record_after": 0.0}))
        return steps[-1]

    def losses(compile):
        torch.manual_seed(1)
        options = {"hidden": None}
        vae = VAE(StandardNormal(2), conv_decoder(2, shape, (4, 3), **options), Bernoulli(shape))
        guide = DiagonalNormal(conv_encoder(shape, (3, 4), out=4, **options), 2)
        options = {"epochs": 2, "batch_size": 20, "compile": compile, "show_progress": False}
        return [row["loss"] for row in fit(vae, guide, bits, **options).history]

    monkeypatch.setattr(preparation, "Step", at_once)
    bits = (torch.rand(60, *shape) < 0.4).float()
    assert losses("recorded") == losses("plain")
    assert steps[0].loss_and_gradients.stays


@pytest.mark.parametrize(
    ("shape", "residual_blocks"),
    [((8, 8), 0), ((3, 7, 5), 1), ((9,), 1), ((5, 7), 1), ((2, 5, 4, 7), 0)],
)
def test_a_vae_of_them_fits_and_is_vectorized(shape, residual_blocks):
    bits = torch.rand(120, *shape).round()
    dims = OTHERS.get(shape)
    options = {"hidden": 16, "residual_blocks": residual_blocks, "dims": dims}
    vae = VAE(StandardNormal(2), conv_decoder(2, shape, (8, 4), **options), Bernoulli(shape))
    guide = DiagonalNormal(conv_encoder(shape, (4, 8), out=4, **options), 2)
    history = fit(vae, guide, bits, epochs=1, show_progress=False).history
    assert len(history) == 1
    assert math.isfinite(history[0]["loss"])
    assert inspect_pair(vae, guide, (bits[:20],)).vectorized
    log_px = log_evidence(vae, guide, bits[:20], num_samples=5).log_px
    assert log_px.shape == (20,)
    assert log_px.mean().item() == pytest.approx(-math.prod(shape) * math.log(2), rel=0.1)


def convolved(tmp_path, shape, network, suffix=".npy"):
    """A fit of data of a shape, with a choice of the network, from a file."""
    rows, path = np.random.default_rng(0).normal(size=(40, *shape)), tmp_path / f"data{suffix}"
    if suffix == ".csv":
        names = ",".join(f"t{i}" for i in range(shape[0]))
        np.savetxt(path, rows, delimiter=",", header=names, comments="")
    else:
        np.save(path, rows.astype("float32"))
    plan = Plan(data=str(path), network=network, epochs=1, hidden=(8,))
    return train(plan, tmp_path / "run", device="cpu", show_progress=False)


@pytest.mark.parametrize(
    ("shape", "network", "layer", "suffix"),
    [
        ((16,), "conv:dims=1", nn.Conv1d, ".npy"),
        ((16,), "conv:dims=1", nn.Conv1d, ".csv"),
        ((3, 9), "conv:dims=1", nn.Conv1d, ".npy"),
        ((5, 4, 6), "conv:channels=2-3,dims=3", nn.Conv3d, ".npy"),
        ((1, 5, 4, 6), "conv:channels=2-3", nn.Conv3d, ".npy"),
    ],
)
def test_a_recipe_takes_signals_and_volumes(shape, network, layer, suffix, tmp_path):
    run = convolved(tmp_path, shape, network, suffix)
    assert math.isfinite(run.history[0]["loss"])
    loaded = load_run(tmp_path / "run")
    for program in (run.guide, loaded.guide):
        assert sum(isinstance(module, layer) for module in program.modules()) == 2
    x = torch.randn(4, *shape)
    assert torch.equal(_of_encoder(run.guide, x), _of_encoder(loaded.guide, x))


def _of_encoder(guide, x):
    with torch.no_grad():
        return guide.encoder(x)


@pytest.mark.parametrize(
    ("shape", "network", "suffix", "message"),
    [
        ((16,), "conv", ".npy", "take --network conv:dims=1 if they are a signal, in order"),
        ((16,), "conv", ".csv", "is a table: leave it out, or take --network conv:dims=1 if its"),
        ((16,), "conv:dims=2", ".csv", "is a table: leave it out, or take --network conv:dims=1"),
        ((16,), "conv:dims=2", ".npy", r"dims=2 takes images .* got the event shape \(16,\)"),
        ((16,), "conv:dims=4", ".npy", "dims of the network conv must be auto, 1, 2 or 3, got '4'"),
        (
            (9, 8, 7),
            "conv",
            ".npy",
            r"9 channels \(give dims=2\), or as a volume .*\(give dims=3\)",
        ),
    ],
)
def test_a_recipe_convolves_only_what_has_neighbours(shape, network, suffix, message, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        convolved(tmp_path, shape, network, suffix)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
