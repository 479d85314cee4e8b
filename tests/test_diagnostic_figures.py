"""Pictures of diagnostics: that they draw the numbers they are given, whatever these are.

Nothing here is drawn at random but with a fixed seed, and no test is statistical.
"""

import math
from dataclasses import replace
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import xarray
from matplotlib.colors import to_hex

from latente.inference.common.plotting import BLUE, GREY, RED
from latente.inference.diagnostics.annealing import Annealing, plot_evidence_methods
from latente.inference.diagnostics.calibration import (
    NAMED_CURVES,
    Calibration,
    plot_calibration,
    plot_coverage,
)
from latente.inference.diagnostics.diagnosis import Diagnosis
from latente.inference.diagnostics.finding import Level
from latente.inference.diagnostics.importance_weights import plot_khat
from latente.inference.diagnostics.inference_gap import InferenceGap, plot_gap
from latente.inference.diagnostics.latent_information import LatentInformation, plot_information
from latente.inference.diagnostics.leave_one_out import judge_loo, plot_loo
from latente.inference.diagnostics.nuts import SHOWN_MARGINALS, NUTSReference, plot_nuts
from latente.inference.diagnostics.predictive_checks import (
    PredictiveCheck,
    PredictiveChecks,
    plot_checks,
)
from latente.inference.diagnostics.registry import DIAGNOSTICS
from latente.inference.evidence.annealed_importance_sampling import Annealed
from latente.inference.evidence.importance_sampling import Evidence
from latente.inference.evidence.sandwich import Sandwich

DOUBLE = {"dtype": torch.float64}


def evidence(khat, num_samples=1000):
    khat = torch.as_tensor(khat, **DOUBLE)
    log_px = -80 + torch.arange(len(khat), **DOUBLE)
    error = torch.full_like(khat, 0.1)
    kl = torch.full_like(khat, 5.0)
    return Evidence(log_px, error, 100 * error, khat, log_px, log_px + 4, kl, num_samples)


def annealed(log_px, error=0.1):
    log_px = torch.as_tensor(log_px, **DOUBLE)
    error = torch.full_like(log_px, error)
    return Annealed(log_px, error, error, error, log_px[None], 50)


def gap(approximation, amortization, full_rank=0.5):
    first, second = (torch.as_tensor(part, **DOUBLE) for part in (approximation, amortization))
    elbo = torch.full_like(second, -90.0)
    local = elbo + second
    total = torch.where((first + second).isnan(), torch.ones_like(first), first + second)
    rank = elbo + full_rank
    return InferenceGap(elbo + total, first, first, elbo, local, rank, first, None, None)  # pyright: ignore


def latent_information(kl, mutual=2.0, marginal=1.0):
    kl = torch.as_tensor(kl, **DOUBLE)
    names = tuple(f"z[{index}]" for index in range(kl.shape[1]))
    return LatentInformation(names, kl, {"z": kl.mean(0)}, mutual, 0.1, marginal, 0.1)


def calibration(skewed, even, mended=False, num=200):
    """PIT samples of skewed and of even coordinates, and of the two densities, which are even."""
    even_pit = (torch.arange(num, **DOUBLE) + 0.5) / num
    columns = [even_pit ** (2 + index) for index in range(skewed)] + [even_pit] * (even + 2)
    pit = torch.stack(columns, 1)
    names = tuple(f"z[{index}]" for index in range(skewed + even))
    weighted = even_pit[:, None].expand_as(pit) if mended else pit
    return Calibration((*names, "log q(z|x)", "log p(x, z)"), pit, weighted, even_pit, 99, 0.95)


def nuts(num_data=2, num_latent=4, shift=0.0, scale=1.0, rhat=1.0):
    generator = torch.Generator().manual_seed(0)
    size = (num_data, num_latent)
    draws = torch.randn(2, 100, *size, generator=generator, **DOUBLE)
    guide = shift + scale * torch.randn(1000, *size, generator=generator, **DOUBLE)
    names = tuple(f"z[{index}]" for index in range(num_latent))
    flat = draws.flatten(0, 1)
    settled = torch.full(size, rhat, **DOUBLE)
    return NUTSReference(
        names, flat.mean(0), flat.std(0), guide.mean(0), guide.std(0), settled, 200 * settled, 0,
        draws, guide,
    )  # fmt: skip


def loo(khat, elpd):
    array = SimpleNamespace
    khat, elpd = np.array(khat), np.array(elpd)
    return array(
        pareto_k=array(values=khat), elpd_i=array(values=elpd), good_k=0.7, elpd=elpd.sum(), se=1.0
    )


def drawn(figure):
    """The figure laid out and drawn: what cannot be drawn fails here."""
    figure.canvas.draw()
    assert plt.get_fignums() == []
    return figure


def words(figure):
    texts = [text.get_text() for ax in figure.axes for text in ax.texts]
    texts += [ax.get_title() + ax.get_xlabel() for ax in figure.axes]
    texts += [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    return "\n".join(texts)


def points(ax, colour):
    """What is drawn by markers in a colour, (number, 2)."""
    found = [line for line in ax.lines if line.get_linestyle() == "None"]
    return np.concatenate(
        [np.zeros((0, 2)), *[line.get_xydata() for line in found if line.get_color() == colour]]
    )


def test_khat_is_drawn_in_order_and_what_is_not_finite_is_counted():
    inf, nan = math.inf, math.nan
    figure = drawn(plot_khat(evidence([0.9, 0.1, -inf, nan, 0.3, inf, 1.5, -inf])))
    (ax,) = figure.axes
    assert points(ax, BLUE)[:, 1].tolist() == [0.1, 0.3]
    assert points(ax, RED)[:, 1].tolist() == [0.9, 1.5]
    heights = [line.get_ydata()[0] for line in ax.lines if len(set(line.get_ydata())) == 1]
    assert {round(1 - 1 / 3, 9), 1} <= {round(float(height), 9) for height in heights}
    said = words(figure)
    assert "50.0% of 8 data" in said
    assert "= −∞, all weights alike: 2" in said
    assert "= ∞, hardly any weight: 1" in said
    assert "not known: 1" in said


def test_too_few_draws_for_khat_are_said_to_be():
    figure = drawn(plot_khat(evidence([math.nan] * 3, num_samples=10)))
    assert "S = 10 is too small" in words(figure)


def test_methods_are_drawn_as_differences_from_annealing():
    found, base = evidence([0.1] * 5), annealed([-80.0, -79.5, -78.0])
    both = Sandwich(annealed([-10.0, -20.0]), annealed([-9.0, -20.5]), ())
    figure = drawn(plot_evidence_methods(found, base, both))
    left, right = figure.axes
    assert points(left, BLUE)[:, 1].tolist() == [0.0, 0.5, 0.0]
    assert points(left, RED)[:, 1].tolist() == [-1.0, -0.5, -1.0]
    (uppers, lowers) = (bars[0].get_ydata().tolist() for bars in right.containers)
    assert uppers == [0.5, -0.25]
    assert lowers == [-0.5, 0.25]
    assert "0.25 nats apart" in words(figure)
    assert len(drawn(plot_evidence_methods(found, base)).axes) == 1
    with pytest.raises(ValueError, match="evidence is of 5 data, annealed of 6"):
        plot_evidence_methods(found, annealed([0.0] * 6))


def test_gaps_are_stacked_by_size():
    figure = drawn(plot_gap(gap([0.5, 1.0, 0.2], [2.0, 3.0, 0.1])))
    encoder, family = figure.axes[0].containers
    assert [bar.get_height() for bar in encoder] == pytest.approx([3.0, 2.0, 0.1])
    assert [bar.get_y() + bar.get_height() for bar in family] == pytest.approx([4.0, 2.5, 0.3])
    assert "1.70 amortization" in words(figure)
    assert "0.57 approximation" in words(figure)
    assert "mean: 2.27 ± 1.07" in words(figure)  # sd of 4, 2.5 and 0.3, over √3


def test_a_family_that_cannot_be_taken_apart_shows_the_whole():
    figure = drawn(plot_gap(gap([math.nan] * 3, [math.nan] * 3, full_rank=0.25)))
    (total,) = figure.axes[0].containers
    assert [bar.get_height() for bar in total] == [1.0, 1.0, 1.0]
    assert points(figure.axes[0], RED)[:, 1].tolist() == [0.25] * 3
    assert "amortization" not in words(figure)


def test_dimensions_are_sorted_and_idle_ones_marked():
    kl = torch.tensor([0.5, 2.0, 0.001]).expand(50, 3)
    figure = drawn(plot_information(latent_information(kl)))
    used, idle = figure.axes[0].containers
    assert [bar.get_height() for bar in used] == [2.0, 0.5]
    assert [bar.get_height() for bar in idle] == pytest.approx([0.001])
    names = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert names == ["z[1]", "z[0]", "z[2]"]
    assert "3 dimensions, 1 idle" in words(figure)
    tops = [bar.get_y() + bar.get_height() for bar in figure.axes[1].patches]
    assert tops == [2.0, 3.0]
    assert "log N = 3.91" in words(figure)


def test_what_is_not_defined_of_information_is_left_out():
    kl = torch.ones(5, 2)
    figure = drawn(plot_information(latent_information(kl, mutual=math.nan, marginal=math.nan)))
    assert "not\ndefined" in words(figure)
    figure = drawn(plot_information(latent_information(kl, marginal=math.nan)))
    assert len(figure.axes[1].patches) == 1


def test_lines_out_of_the_band_are_coloured_and_named():
    """As many of the 12 quantities have a colour as leave the band, and those inside have none."""
    found = calibration(skewed=8, even=2)
    figure = drawn(plot_calibration(found))
    for ax in figure.axes:
        colours = [line.get_color() for line in ax.lines]
        assert len(colours) == 12
        assert sum(colour != GREY for colour in colours) == len(found.miscalibrated) == 8
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert told[:NAMED_CURVES] == [f"z[{index}]: biased high" for index in (7, 6, 5, 4, 3)]
    assert {"others outside", "inside"} <= set(told)
    band = found.band()
    curve = figure.axes[0].lines[7].get_ydata()
    assert curve[1:-1] == pytest.approx(found.ecdf()[:, 7].numpy() - band.points.numpy())


def test_what_weights_mend_is_grey_on_the_right():
    figure = drawn(plot_calibration(calibration(skewed=2, even=1, mended=True)))
    grey = [sum(line.get_color() == GREY for line in ax.lines) for ax in figure.axes]
    assert grey == [3, 5]
    assert "re-weighted: 0 of 5 outside" in words(figure)


def test_coverage_is_that_of_the_result():
    found = calibration(skewed=1, even=1)
    figure = drawn(plot_coverage(found))
    levels = tuple(figure.axes[0].lines[-1].get_xdata().tolist())
    share = found.coverage(levels).share.numpy()
    for line, row in zip(figure.axes[0].lines[1:], share, strict=True):  # after the diagonal
        assert line.get_ydata() == pytest.approx(row)
    widths = [line.get_linewidth() for line in figure.axes[0].lines[1:]]
    assert widths[-1] > max(widths[:-1])


def test_the_marginals_drawn_are_those_that_differ_most():
    found = nuts()
    found = replace(found, guide_mean=found.guide_mean.clone())
    found.guide_mean[1, 2] += 3
    figure = drawn(plot_nuts(found))
    assert figure.axes[0].get_title() == "datum 1, z[2]"
    assert len(figure.axes) == SHOWN_MARGINALS + 1
    moments = figure.axes[-1]
    off = points(moments, to_hex(RED).upper())
    assert off[:, 0].tolist() == [found.shift[1, 2].item()]
    assert len(points(moments, BLUE)) == 7


def test_chains_that_have_not_converged_are_said_to():
    figure = drawn(plot_nuts(nuts(1, 1, shift=5.0, rhat=1.5)))
    assert "not converged" in figure.axes[0].get_title()
    assert "NUTS has not converged" in words(figure)
    assert len(points(figure.axes[-1], RED)) == 0


def test_checks_are_drawn_beside_the_data():
    values = torch.linspace(0, 1, 101, **DOUBLE)
    checks = {"mean": PredictiveCheck(0.5, values), "largest": PredictiveCheck(9.0, values)}
    prior = {"mean": PredictiveCheck(0.5, 3 * values)}
    figure = drawn(plot_checks(checks, prior))
    assert [ax.lines[0].get_xdata()[0] for ax in figure.axes] == [0.5, 9.0]
    assert [len(ax.patches) for ax in figure.axes] == [2, 1]
    assert figure.axes[0].get_title() == "mean\nposterior: p = 0.50\nprior: p = 0.83"
    assert figure.axes[1].get_title() == "largest\nposterior: p = 0.00, unlike"
    low, high = figure.axes[1].get_xlim()
    assert low < 0 < 9 < high
    with pytest.raises(ValueError, match="no quantity to draw"):
        plot_checks({}, None)


def test_what_cannot_vary_is_said_to():
    same = PredictiveCheck(1.0, torch.ones(200, **DOUBLE))
    other = PredictiveCheck(1.0, torch.zeros(200, **DOUBLE))
    figure = drawn(plot_checks({"a": same, "b": other}))
    assert "always so" in figure.axes[0].get_title()
    assert "p = 0.00, unlike" in figure.axes[1].get_title()
    for ax in figure.axes:
        low, high = ax.get_xlim()
        (bar,) = ax.patches
        edges = bar.get_data().edges
        assert low < edges[0] < edges[-1] < high
        assert edges[-1] - edges[0] > 0.01 * (high - low)


def test_a_khat_that_is_nan_is_beyond_the_threshold_in_words_too():
    found = loo([0.1, math.nan, math.nan], [-1.0, -2.0, -3.0])
    found.n_data_points = 3
    (finding,) = judge_loo(found)
    assert finding.level == Level.BAD
    assert "67%" in finding.sentence


def test_left_out_data_are_drawn_with_their_khat():
    figure = drawn(plot_loo(loo([0.1, 0.9, math.nan, -math.inf], [-1.0, -2.0, -math.inf, -4.0])))
    left, right = figure.axes
    assert points(left, BLUE).tolist() == [[0, 0.1]]
    assert points(left, RED).tolist() == [[1, 0.9]]
    assert points(right, BLUE).tolist() == [[0, -1.0], [3, -4.0]]
    assert "2 of 4 data are beyond" in words(figure)
    assert "not drawn: 1 that are not finite" in words(figure)


@pytest.mark.parametrize("size", [1, 2, 100])
def test_all_sizes_can_be_drawn(size):
    drawn(plot_khat(evidence([0.5] * size)))
    drawn(plot_khat(evidence([math.inf] * size)))
    drawn(plot_evidence_methods(evidence([0.5] * size), annealed([-80.0] * size)))
    drawn(plot_gap(gap([0.0] * size, [0.0] * size)))
    drawn(plot_gap(gap([-0.1] * size, [0.3] * size)))
    drawn(plot_information(latent_information(torch.zeros(1, size))))
    drawn(plot_information(latent_information(torch.ones(3, size), mutual=0.0, marginal=-0.01)))
    drawn(plot_calibration(calibration(skewed=0, even=size, num=20)))
    drawn(plot_calibration(calibration(skewed=size, even=0, num=20)))
    drawn(plot_coverage(calibration(skewed=0, even=size, num=20)))
    drawn(plot_nuts(nuts(1, size)))
    drawn(plot_loo(loo([0.5] * size, [-1.0] * size)))


def test_numbers_that_are_not_are_survived():
    inf, nan = math.inf, math.nan
    drawn(plot_evidence_methods(evidence([0.5] * 2), annealed([nan, inf], nan)))
    drawn(plot_gap(replace(gap([1.0, 2.0], [1.0, nan]), log_px=torch.tensor([nan, inf]).double())))
    drawn(plot_information(latent_information([[nan, inf], [1.0, 2.0]], mutual=inf)))
    still = nuts(1, 2)
    drawn(plot_nuts(replace(still, sd=0 * still.sd, draws=0 * still.draws)))
    drawn(plot_nuts(replace(still, draws=nan * still.draws, sd=nan * still.sd)))
    drawn(plot_loo(loo([nan, nan], [nan, -inf])))


def figures_of(**results):
    """The figures of a diagnosis with these results only."""
    ran = tuple(diagnostic for diagnostic in DIAGNOSTICS if diagnostic.name in results)
    return Diagnosis((), results, (), xarray.DataTree(), ran, 1).figures


def test_only_what_there_is_gets_drawn_in_the_order_of_the_registry():
    assert figures_of() == {}
    assert figures_of(checks=PredictiveChecks(None, None)) == {}
    check = {"mean": PredictiveCheck(0.5, torch.rand(10, **DOUBLE))}
    figures = figures_of(
        loo=loo([0.1], [-1.0]), checks=PredictiveChecks(None, check),
        calibration=calibration(0, 1), evidence=evidence([0.1]),
        annealing=Annealing(annealed([-80.0]), None, evidence([0.1])), gap=gap([1.0], [1.0]),
        information=latent_information(torch.ones(2, 2)), nuts=nuts(),
    )  # fmt: skip
    assert list(figures) == [
        "evidence", "loo", "annealing", "gap", "information", "calibration", "coverage", "nuts",
        "checks",
    ]  # fmt: skip
