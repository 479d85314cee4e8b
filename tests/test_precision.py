"""Products in less precision: how far they move the numbers, and what they leave alone."""

from functools import partial

import pytest
import torch
from torch import nn

from latente.guides import DiagonalNormal
from latente.inference import fit, log_evidence
from latente.inference.execution.precision import layer_precision
from latente.models import VAE, Bernoulli, Normal, StandardNormal, mlp

from .test_recorded_steps import WAYS, blocks, equal, run_steps

quiet = partial(fit, show_progress=False, epochs=1, batch_size=50)
NAMES = "float32", "medium", "bfloat16"
BITS = torch.rand(100, 4, 4, generator=torch.Generator().manual_seed(2)).round()


def pair_of(dtype=torch.float32, likelihood=None):
    torch.manual_seed(0)
    vae = VAE(StandardNormal(2), mlp(2, 32, out=16), likelihood or Bernoulli((4, 4)))
    return vae.to(dtype), DiagonalNormal(mlp(16, 32, out=4), 2).to(dtype)


@pytest.mark.parametrize("precision", NAMES)
@pytest.mark.parametrize("likelihood", [Bernoulli((4, 4)), Normal((4, 4), 0.7)], ids=str)
def test_less_precise_steps_are_near_and_stay_in_float32(precision, likelihood):
    """8 bits of precision: a relative error of some 2⁻⁸ in each product."""
    run = partial(run_steps, batches=blocks(BITS), objective=None, compile="plain")
    exact = run(pair_of(likelihood=likelihood))
    ours = run(pair_of(likelihood=likelihood), precision=precision)
    for loss, other in zip(ours[0], exact[0], strict=True):
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(other.item(), rel=0.03)
    for gradients, others in zip(ours[1], exact[1], strict=True):
        for gradient, other in zip(gradients, others, strict=True):
            assert gradient.dtype == torch.float32
            assert (gradient - other).norm() <= 0.05 * other.norm()
    assert all(weight.dtype == torch.float32 for weight in ours[2])
    if precision != "medium":  # what that does depends on the machine
        assert equal(ours, exact) == (precision == "float32")


@pytest.mark.parametrize("precision", NAMES)
def test_less_precise_steps_are_recorded(precision):
    plain, recorded = (
        run_steps(pair_of(), None, blocks(BITS), compile=compile, precision=precision)
        for compile in WAYS
    )
    assert recorded[3].loss_and_gradients.stays
    assert equal(recorded, plain)


@pytest.mark.parametrize("precision", NAMES)
def test_a_pair_in_float64_is_left_alone(precision):
    x = BITS.double()
    exact, ours = (
        run_steps(pair_of(torch.float64), None, blocks(x), compile="plain", precision=name)
        for name in ("float32", precision)
    )
    assert equal(ours, exact)
    assert ours[0][0].dtype == torch.float64


@pytest.mark.parametrize("compile", WAYS)
def test_fits_and_evidence_in_bfloat16_are_near(compile):
    runs = {}
    for precision in ("float32", "bfloat16"):
        vae, guide = pair_of()
        run = quiet(vae, guide, BITS, precision=precision, compile=compile)
        evidence = log_evidence(
            vae, guide, BITS, num_samples=50, precision=precision, compile=compile
        )
        assert all(value.dtype == torch.float32 for value in vae.state_dict().values())
        runs[precision] = run.history[0]["loss"], evidence.mean
    for exact, ours in zip(runs["float32"], runs["bfloat16"], strict=True):
        assert ours == pytest.approx(exact, rel=0.02)
        assert ours != exact


LAYERS = {
    "linear": (nn.Linear(6, 3), (5, 6)),
    "conv1d": (nn.Conv1d(2, 3, 3), (5, 2, 8)),
    "conv2d": (nn.Conv2d(2, 3, 3, padding=1), (5, 2, 8, 8)),
    "transposed": (nn.ConvTranspose2d(2, 3, 2, stride=2), (5, 2, 4, 4)),
    "without bias": (nn.Linear(6, 3, bias=False), (5, 6)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_round_what_they_multiply(name):
    """The result is that of numbers rounded to bfloat16, rounded: 2⁻⁸ of what is summed."""
    layer, shape = LAYERS[name]
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0), requires_grad=True)
    exact = layer(x)
    with layer_precision("bfloat16"):
        ours = layer(x)
    assert ours.dtype == torch.float32
    assert torch.equal(ours, ours.bfloat16().float())
    assert 0 < (ours - exact).abs().max().item() < 2**-6 * exact.abs().max().item()
    (slope,) = torch.autograd.grad(ours.sum(), x)
    assert slope.dtype == torch.float32
    assert torch.equal(layer(x), exact)


def test_nothing_but_layers_is_rounded():
    x = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    with layer_precision("bfloat16"):
        outcomes = x @ x, x.exp(), torch.distributions.Normal(x, 1.0).log_prob(x + 1)
    expected = x @ x, x.exp(), torch.distributions.Normal(x, 1.0).log_prob(x + 1)
    assert all(torch.equal(a, b) for a, b in zip(outcomes, expected, strict=True))


@pytest.mark.parametrize("before", ["highest", "high", "medium"])
def test_medium_puts_the_flag_back_also_after_an_error(before):
    kept = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before)
    try:
        with layer_precision("medium"):
            assert torch.get_float32_matmul_precision() == "medium"
        assert torch.get_float32_matmul_precision() == before
        with pytest.raises(KeyError), layer_precision("medium"):
            raise KeyError
        assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision(kept)


def test_a_failing_fit_puts_the_flag_back():
    before = torch.get_float32_matmul_precision()
    vae, guide = pair_of()

    class Broken(nn.Module):
        def forward(self, z):
            if torch.get_float32_matmul_precision() == "medium":
                raise KeyError("in a step")
            return z.new_zeros(*z.shape[:-1], 16)

    vae.decoder = Broken()
    with pytest.raises(KeyError, match="in a step"):
        quiet(vae, guide, BITS, precision="medium")
    assert torch.get_float32_matmul_precision() == before


REFUSAL = r"^precision is 'float32', 'medium' or 'bfloat16', got [^\n]*$"


@pytest.mark.parametrize("precision", ["half", "Float32", "", None])
def test_unknown_names_are_refused_in_one_line(precision):
    with pytest.raises(ValueError, match=REFUSAL):
        quiet(*pair_of(), BITS, precision=precision)
    with pytest.raises(ValueError, match=REFUSAL):
        log_evidence(*pair_of(), BITS, num_samples=10, precision=precision)
    with pytest.raises(ValueError, match=REFUSAL):
        run_steps(pair_of(), None, blocks(BITS), compile="plain", precision=precision)
