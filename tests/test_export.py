"""Draws as an ArviZ tree: the right numbers under the right names, stored, plotted, summarized."""

import math
import subprocess
import sys

import arviz_stats
import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray
from pyro.infer.autoguide import AutoDiagonalNormal

from latente.guides import DiagonalNormal, PointPosterior
from latente.inference import log_evidence
from latente.inference.evaluation import arviz_export as export
from latente.inference.evaluation.arviz_export import to_datatree
from latente.models import VAE, StandardNormal, mlp

from .oracles import GlobalMean, LinearGaussian, OneBatchDimension, TutorialVAE


def layered(x, size):
    """Two latent sites, one positive, and counts in a plate of three views; ``size`` is told."""
    with pyro.plate("data", len(x), dim=-1):
        rate = pyro.sample("rate", dist.Gamma(2.0 * size, 1.0))
        with pyro.plate("view", 3, dim=-2):
            part = pyro.sample("part", dist.Dirichlet(torch.ones(2)))
            pyro.sample("count", dist.Poisson(rate * part[..., 0]), obs=x.T)


def layered_guide(x, size):
    with pyro.plate("data", len(x), dim=-1):
        pyro.sample("rate", dist.Gamma(2.0 * size + x.sum(1), 2.5))
        with pyro.plate("view", 3, dim=-2):
            top = torch.stack([1 + x.T, torch.ones_like(x.T)], dim=-1)
            pyro.sample("part", dist.Dirichlet(top))


COUNTS = torch.tensor([[0.0, 2.0, 1.0], [5.0, 9.0, 4.0], [0.0, 0.0, 0.0], [1.0, 30.0, 2.0]])
SIZES = torch.tensor([1.0, 2.0, 1.0, 3.0])


@pytest.fixture
def tree():
    return to_datatree(
        layered,
        layered_guide,
        (COUNTS, SIZES),
        num_samples=60,
        dims={"part": ["share"]},
        coords={"datum": ["a", "b", "c", "d"], "share": ["own", "other"]},
    )


DIMS = {
    "/posterior/rate": ("chain", "draw", "datum"),
    "/posterior/part": ("chain", "draw", "datum", "view", "share"),
    "/prior/rate": ("chain", "draw", "datum"),
    "/prior/part": ("chain", "draw", "datum", "view", "share"),
    "/prior_predictive/count": ("chain", "draw", "datum", "view"),
    "/posterior_predictive/count": ("chain", "draw", "datum", "view"),
    "/log_likelihood/count": ("chain", "draw", "datum"),
    "/sample_stats/log_weight": ("chain", "draw", "datum"),
    "/sample_stats/lp": ("chain", "draw"),
    "/sample_stats/log_q": ("chain", "draw"),
    "/evidence/log_px": ("datum",),
    "/evidence/standard_error": ("datum",),
    "/evidence/ess": ("datum",),
    "/evidence/log_px_smoothed": ("datum",),
    "/evidence/khat": ("datum",),
    "/observed_data/count": ("datum", "view"),
    "/constant_data/context_1": ("datum",),
}


def test_every_variable_is_named_along_all_dimensions(tree):
    found = {
        f"{node.path}/{name}": value.dims
        for node in tree.leaves
        for name, value in node.data_vars.items()
    }
    assert found == DIMS
    for node in tree.leaves:
        assert set(node.coords) == set(node.dims)
        assert node.attrs["inference_library"] == "latente"
    assert tree.posterior.sizes == {"chain": 1, "draw": 60, "datum": 4, "view": 3, "share": 2}
    assert tree.posterior["part"].sel(datum="d", share="own").shape == (1, 60, 3)
    assert tree.attrs["num_samples"] == 60
    assert tree.attrs["inference_library_version"]


def test_values_keep_their_places(tree):
    """log p(x|z) and the weights follow from the exported values; counts lie where they were."""
    assert np.array_equal(tree.observed_data["count"], COUNTS)
    assert np.array_equal(tree.constant_data["context_1"], SIZES)
    rate = torch.as_tensor(tree.posterior["rate"].values[0])[..., None]
    part = torch.as_tensor(tree.posterior["part"].values[0])
    log_px = dist.Poisson(rate * part[..., 0]).log_prob(COUNTS).sum(-1)
    assert np.allclose(tree.log_likelihood["count"][0], log_px, atol=1e-3)
    prior = dist.Gamma(2.0 * SIZES, 1.0).log_prob(rate[..., 0])
    prior += dist.Dirichlet(torch.ones(2)).log_prob(part).sum(-1)
    proposal = dist.Gamma(2.0 * SIZES + COUNTS.sum(1), 2.5).log_prob(rate[..., 0])
    top = torch.stack([1 + COUNTS, torch.ones_like(COUNTS)], dim=-1)
    proposal += dist.Dirichlet(top).log_prob(part).sum(-1)
    stats = tree.sample_stats
    assert np.allclose(stats["log_weight"][0], log_px + prior - proposal, atol=1e-3)
    assert np.allclose(stats["lp"][0], (log_px + prior).sum(1), atol=1e-3)
    assert np.allclose(stats["log_q"][0], proposal.sum(1), atol=1e-3)
    # Foretold counts follow the exported rates: each within six standard deviations (1e-6).
    mean = rate * part[..., 0]
    counts = torch.as_tensor(tree.posterior_predictive["count"].values[0])
    z = (counts - mean).sum(0) / mean.sum(0).sqrt()
    assert z.abs().max() < 6
    # Of the prior, E[count] = E[rate] / 2 = size, with variance below 2.5 size + size².
    drawn = tree.prior_predictive["count"].mean(("chain", "draw", "view")).values
    assert (np.abs(drawn - SIZES.numpy()) < 6 * np.sqrt(8 * SIZES.numpy() ** 2 / 60)).all()


def test_the_evidence_is_that_of_the_weights():
    """|z| < 5 at each of 12 data (false alarm 7e-6)."""
    oracle = LinearGaussian(2)
    x = oracle.sample(12)
    tree = to_datatree(*oracle.pair(widen=1.3), x, num_samples=2000)
    exact = oracle.marginal.log_prob(x).numpy()
    assert (abs(tree.evidence["log_px"] - exact) / tree.evidence["standard_error"]).max() < 5
    assert tree.evidence["khat"].max() < 0.7
    narrow = to_datatree(*oracle.pair(widen=0.3), x, num_samples=2000)
    assert narrow.evidence["khat"].median() > 0.7


def same(first, second):
    for node, other in zip(first.subtree, second.subtree, strict=True):
        xarray.testing.assert_identical(
            node.to_dataset().drop_attrs(), other.to_dataset().drop_attrs()
        )
        assert node.attrs.keys() == other.attrs.keys()
        assert all(np.array_equal(node.attrs[key], other.attrs[key]) for key in node.attrs)


def test_a_tree_goes_through_a_netcdf_file_unchanged(tree, tmp_path):
    pytest.importorskip("h5netcdf")
    tree.to_netcdf(tmp_path / "draws.nc", engine="h5netcdf")
    with xarray.open_datatree(tmp_path / "draws.nc", engine="h5netcdf") as stored:
        same(tree, stored.load())


def test_arviz_summarizes_a_tree():
    tree = to_datatree(layered, layered_guide, (COUNTS, SIZES), coords={"datum": list("abcd")})
    summary = arviz_stats.summary(tree, var_names=["rate"])
    assert list(summary.index) == ["rate[a]", "rate[b]", "rate[c]", "rate[d]"]
    rate = tree.posterior["rate"].mean(("chain", "draw")).values
    assert np.allclose(summary["mean"].astype(float), rate, rtol=0.02)
    # Draws are independent: their ESS is near their number. R̂ compares chains, and there is one.
    assert arviz_stats.ess(tree)["rate"].min() > 100
    assert arviz_stats.rhat(tree)["rate"].isnull().all()


def test_arviz_leave_one_out_runs_on_a_pair_with_shared_variables():
    """A regression of which all is shared, where ArviZ's own leave-one-out means what it says."""

    def model(x):
        w = pyro.sample("w", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(w[0] + w[1], 1.0), obs=x)

    guide = AutoDiagonalNormal(model)
    x = torch.linspace(-1, 1, 12)
    guide(x)
    tree = to_datatree(model, guide, x, num_samples=200, dims={"w": ["axis"]})
    assert tree.posterior["w"].dims == ("chain", "draw", "axis")
    assert list(tree.posterior.data_vars) == ["w"]
    assert tree.prior["w"].shape == (1, 200, 2)
    assert "evidence" not in tree
    loo = arviz_stats.loo(tree, pointwise=True)
    assert loo.elpd_i.shape == (12,)
    w = torch.as_tensor(tree.posterior["w"].values[0])
    log_px = dist.Normal(w.sum(1, keepdim=True), 1.0).log_prob(x)
    assert np.allclose(tree.log_likelihood["x"][0], log_px, atol=1e-4)
    assert len(set(tree.posterior["w"].values[0, :, 0])) == 200
    stats = tree.sample_stats
    with pytest.warns(UserWarning, match="shape parameter of Pareto"):  # the guide is not trained
        loo = arviz_stats.loo_approximate_posterior(tree, stats["lp"], stats["log_q"])
    assert loo.approx_posterior


@pytest.mark.filterwarnings(
    # What arviz_plots 0.8 does that matplotlib 3.11 would see done otherwise.
    "ignore:The scale 'SquareRootScale':PendingDeprecationWarning",
    "ignore:.c. argument looks like a single numeric RGB:UserWarning",
)
def test_arviz_plots_a_tree(tree):
    # arviz_plots 0.8 reaches for this module, which matplotlib 3.11 no longer imports by itself.
    pytest.importorskip("matplotlib.style.core")
    azp = pytest.importorskip("arviz_plots")
    plt = pytest.importorskip("matplotlib.pyplot")
    for plot in (azp.plot_dist, azp.plot_forest, azp.plot_ess):
        plot(tree, var_names=["rate"], backend="matplotlib")
    azp.plot_ppc_dist(tree, backend="matplotlib", num_samples=10)
    azp.plot_ppc_dist(tree, group="prior_predictive", backend="matplotlib", num_samples=10)
    azp.plot_ppc_tstat(tree, backend="matplotlib")
    plt.close("all")


def test_shared_and_local_variables_together():
    """w is drawn once for each draw: the weights are those of its draw, z with all its data."""
    pair, x = GlobalMean(), torch.linspace(-1, 2, 5).double()
    tree = to_datatree(pair.model, pair.guide, x, num_samples=300)
    assert tree.posterior["w"].dims == ("chain", "draw")
    assert tree.posterior["z"].dims == ("chain", "draw", "datum")
    w = torch.as_tensor(tree.posterior["w"].values[0])
    z = torch.as_tensor(tree.posterior["z"].values[0])
    assert np.allclose(
        tree.log_likelihood["x"][0], dist.Normal(z + w[:, None], 1.0).log_prob(x), atol=1e-9
    )
    log_q = dist.Normal(0.3, 0.5).log_prob(w) + dist.Normal(0.2 * x, 0.8).log_prob(z).sum(1)
    assert np.allclose(tree.sample_stats["log_q"][0], log_q, atol=1e-5)
    # Prior predictive data share a w: Cov(x₁, x₂) = 1 within 4.5 errors of 0.18 (false alarm 7e-6).
    drawn = tree.prior_predictive["x"].values[0]
    assert abs(np.cov(drawn[:, 0], drawn[:, 1])[0, 1] - 1) < 4.5 * math.sqrt((9 + 1) / 300)


def test_images_and_pairs_that_cannot_run_under_a_plate():
    images = torch.rand(6, 8, 8, generator=torch.Generator().manual_seed(0)).round()
    vae = TutorialVAE()
    tree = to_datatree(vae.model, vae.guide, images, num_samples=5)
    assert tree.posterior["latent"].shape == (1, 5, 6, 2)
    assert tree.posterior_predictive["obs"].shape == (1, 5, 6, 64)
    assert not pyro.get_param_store()
    oracle = LinearGaussian(2)
    wide, guide = oracle.pair(widen=1.3)
    narrow = VAE(StandardNormal(2), OneBatchDimension(wide.decoder, 2), wide.likelihood).double()
    x = oracle.sample(7)
    tree = to_datatree(narrow, guide, x, num_samples=600)
    z = torch.as_tensor(tree.posterior["z"].values[0])
    distribution = dist.Normal(z @ oracle.weight.T + oracle.bias, oracle.scale).to_event(1)
    assert np.allclose(tree.log_likelihood["x"][0], distribution.log_prob(x))
    # Over 600 draws, 4.5 standard errors at each of 14 coordinates (false alarm 1e-4).
    sd = 1.3 * oracle.covariance.diagonal().sqrt()
    error = (z.mean(0) - oracle.posterior_mean(x)) / (sd / math.sqrt(600))
    assert error.abs().max() < 4.5


def test_images_keep_their_shape_and_a_point_has_no_density(make_pair, binary_images):
    vae, guide = make_pair()
    tree = to_datatree(vae, guide, binary_images[:3], num_samples=4, dims={"x": ["row", "column"]})
    assert tree.prior_predictive["x"].dims == ("chain", "draw", "datum", "row", "column")
    assert np.array_equal(tree.observed_data["x"], binary_images[:3])
    assert set(np.unique(tree.posterior_predictive["x"])) == {0.0, 1.0}
    tree = to_datatree(vae, PointPosterior(mlp(16, 8, out=2), 2), binary_images[:3], num_samples=4)
    assert "evidence" not in tree
    assert list(tree.sample_stats.data_vars) == ["lp"]


def test_factors_and_sites_outside_the_plate_are_part_of_lp_alone():
    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)
            pyro.factor("pull", -z.square())
            pyro.deterministic("double", 2 * z)
        pyro.sample("total", dist.Normal(0.0, 1.0), obs=torch.tensor(3.0))

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x / 4, 0.5))

    x = torch.tensor([0.5, -1.0])
    tree = to_datatree(model, guide, x, num_samples=3)
    assert list(tree.log_likelihood.data_vars) == ["x"]
    assert list(tree.observed_data.data_vars) == ["x"]
    assert list(tree.prior_predictive.data_vars) == ["x"]
    assert "evidence" not in tree
    z = torch.as_tensor(tree.posterior["z"].values[0])
    normal = dist.Normal(0.0, 1.0)
    local = normal.log_prob(x - z) + normal.log_prob(z) - z.square()
    lp = local.sum(1) + normal.log_prob(torch.tensor(3.0))
    assert np.allclose(tree.sample_stats["lp"][0], lp, atol=1e-5)


def test_the_seed_decides_and_global_state_stays(make_pair, binary_images):
    pair = make_pair()
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first, again, other = (
        to_datatree(*pair, binary_images[:3], num_samples=4, seed=seed).posterior["z"].values
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.rand(2), expected)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_draws_in_parts_are_draws_all_the_same(monkeypatch):
    """Five draws together at most, of 2,000: the evidence agrees with that of other draws."""
    oracle = LinearGaussian(1)
    x = oracle.sample(4)
    monkeypatch.setattr(export, "MAX_ROWS_PER_RUN", 20)
    tree = to_datatree(*oracle.pair(), x, num_samples=12)
    z = tree.posterior["z"].values
    assert z.shape == (1, 12, 4, 1)
    assert len(np.unique(z)) == 48
    assert np.allclose(tree.evidence["log_px"], oracle.marginal.log_prob(x))
    assert np.allclose(tree.evidence["log_px"], log_evidence(*oracle.pair(), x).log_px)


BAD = {
    "samples": ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
    "memory": ({"num_samples": 10**8}, r"100000000 draws of 4 data, \d+ numbers for each, would "),
    "site": ({"dims": {"y": ["a"]}}, "dims names 'y', which is none of 'count', 'context_1', 'rat"),
    "too many": ({"dims": {"rate": ["a"]}}, r"dims gives \['a'\] for 'rate', which has 0 event"),
    "string": ({"dims": {"part": "a"}}, "dims gives 'a' for 'part', which has 1 event dimensions"),
    "twice": ({"dims": {"part": ["view"]}}, "the dimension 'view' of 'part' has a name that is"),
    "draw": ({"dims": {"part": ["draw"]}}, "the dimension 'draw' of 'part' has a name that is"),
    "of a site": ({"dims": {"part": ["rate"]}}, "the dimension 'rate' of 'part' has a name that"),
    "labels": ({"coords": {"datum": [1, 2]}}, "coords gives 2 labels along 'datum', which needs 4"),
    "unknown": ({"coords": {"views": [1]}}, "coords names 'views', which is none of 'datum', 'vi"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_in_one_line(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        to_datatree(layered, layered_guide, (COUNTS, SIZES), **options)
    assert "\n" not in str(caught.value)


def test_models_that_cannot_be_exported_are_refused():
    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(x, 1.0))

    def nowhere(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Uniform(50.0, 51.0, validate_args=False))
            pyro.sample("x", dist.Normal(z, 1.0), obs=x)

    with pytest.raises(ValueError, match=r"3 data have .* all zero: the log density of 'z' in the"):
        to_datatree(nowhere, guide, torch.zeros(3))


def test_importing_the_library_does_not_import_arviz_or_xarray():
    heavy = "assert not {'xarray', 'arviz_base', 'arviz_stats'} & {*sys.modules}"
    names = "latente.inference.evaluation.arviz_export, latente.inference.evaluation.leave_one_out"
    check = f"import sys, {names}; {heavy}"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_a_guide_of_this_library_in_float64():
    vae = VAE(StandardNormal(2), mlp(2, out=8), LinearGaussian(2).pair()[0].likelihood).double()
    guide = DiagonalNormal(mlp(8, out=4), 2).double()
    tree = to_datatree(vae, guide, np.zeros((3, 8), dtype=np.float32), num_samples=2)
    assert tree.posterior["z"].dtype == np.float64
