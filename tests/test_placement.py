"""Where data go: rounding that loses them is said once, in one line."""

import warnings

import pytest
import torch

from latente.guides import DiagonalNormal
from latente.inference import fit, log_evidence
from latente.inference.pairs.parameters import is_rounded_away
from latente.models import PPCA, mlp


def pair():
    return PPCA(2, 1), DiagonalNormal(mlp(2, out=2), 1)


def columns(offset):
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0)).double()
    return x + torch.tensor([0.0, offset]).double()


@pytest.mark.parametrize(
    ("offset", "lost"), [(0.0, False), (1e4, False), (1e5, False), (1e6, True), (1e9, True)]
)
def test_float64_is_lost_where_its_offset_eats_its_spread(offset, lost):
    """float32 has 24 bits: errors of offset · 2⁻²⁴ / √3 against a spread of 1."""
    assert is_rounded_away(columns(offset), torch.float32) == lost
    assert not is_rounded_away(columns(offset), torch.float64)
    assert not is_rounded_away(columns(offset).float(), torch.float32)


def test_a_constant_column_and_one_row_have_no_differences_to_lose():
    assert not is_rounded_away(torch.full((10, 2), 0.1).double(), torch.float32)
    assert not is_rounded_away(torch.tensor([[1e12 + 0.5]]).double(), torch.float32)
    assert not is_rounded_away(torch.arange(10), torch.float32)


def test_the_user_is_told_once_and_only_where_it_matters():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(*pair(), columns(0.0), epochs=1, show_progress=False)
        log_evidence(*pair(), columns(0.0), num_samples=30)
    for run in (
        lambda: fit(*pair(), columns(1e7) / 1e7, epochs=2, batch_size=20, show_progress=False),
        lambda: log_evidence(*pair(), columns(1e7) / 1e7, num_samples=30),
    ):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("default")
            run()
        assert len(told) == 1
        assert "float32 rounds its differences away" in str(told[0].message)
        assert "\n" not in str(told[0].message)
