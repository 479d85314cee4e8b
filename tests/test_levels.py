"""KL by level, in a fit, an evaluation and a diagnosis, held to a linear Gaussian hierarchy."""

import csv

import pytest
import torch

from latente.guides import DiagonalNormal, PrecisionWeighted, TopDown
from latente.inference import diagnose, evaluate, fit, latent_information, load_run, log_evidence
from latente.inference.diagnostics.latent_information import (
    LATENT_INFORMATION,
    judge_information,
    plot_information,
)
from latente.inference.reporting.run_figures import plot_training
from latente.models import (
    VAE,
    Bernoulli,
    ConditionalNormal,
    Hierarchy,
    StandardNormal,
    mlp,
)

from .oracles import LinearHierarchy
from .test_hierarchies import bottom_up, data, normal

SITES = ["z2", "z1"]


def small(likelihood=None, size=16):
    """A hierarchy of two levels, and a ladder for it."""
    levels = {"z2": StandardNormal(2), "z1": ConditionalNormal(mlp(2, out=8), 4)}
    posteriors = {
        "z2": DiagonalNormal(mlp(size, out=4), 2),
        "z1": PrecisionWeighted(mlp(size, out=8), 4),
    }
    likelihood = Bernoulli((4, 4)) if likelihood is None else likelihood
    return Hierarchy(levels, mlp(4, out=size), likelihood), TopDown(posteriors, levels)


def quiet(model, guide, x, **settings):
    return fit(model, guide, x, **{"seed": 0, "show_progress": False, "epochs": 2, **settings})


def exact_kls(hierarchy, x):
    """Mean over x of KL(q(zᵢ|x, above) ‖ p(zᵢ|above)) by level, in closed form, q = p(·|x).

    The chain rule: KL(q(z₃, …, zᵢ|x) ‖ p(z₃, …, zᵢ)) of the joint normals, less that of the levels
    above zᵢ.
    """
    found, before = {}, 0.0
    for count in range(1, 4):
        names = hierarchy.names[:count]
        joint, given = hierarchy.blocks(*names), hierarchy.blocks("x")
        prior = torch.distributions.MultivariateNormal(
            hierarchy.mean[joint], hierarchy.covariance[joint][:, joint]
        )
        cross = hierarchy.covariance[joint][:, given]
        gain = cross @ hierarchy.covariance[given][:, given].inverse()
        mean = hierarchy.mean[joint] + (x - hierarchy.mean[given]) @ gain.mT
        posterior = torch.distributions.MultivariateNormal(
            mean, prior.covariance_matrix - gain @ cross.mT
        )
        total = torch.distributions.kl_divergence(posterior, prior).mean().item()
        found[names[-1]], before = total - before, total
    return found


def test_evidence_and_information_have_the_exact_kl_of_each_level():
    """Of the exact guide; information by the closed form, evidence by draws.

    5 standard errors of 40 data with 400 draws each, whose log ratio has a standard deviation of
    about one nat: 5 / √16000 = 0.04. False alarms below 1 in 10⁵.
    """
    hierarchy = LinearHierarchy()
    levels = hierarchy.levels()
    model, guide, x = hierarchy.model(levels), normal(hierarchy, levels), data(hierarchy, 40)
    exact = exact_kls(hierarchy, x)
    found = latent_information(model, guide, x, num_draws=400)
    evidence = log_evidence(model, guide, x, num_samples=400)
    for name, kl in exact.items():
        assert found.kl_by_site[name] == pytest.approx(kl, abs=0.04)
        assert evidence.kl_by_site[name].mean().item() == pytest.approx(kl, abs=0.04)
    assert torch.allclose(sum(evidence.kl_by_site.values()), evidence.kl, atol=1e-10)
    assert sum(found.kl_by_site.values()) == pytest.approx(found.kl.sum(1).mean().item())
    metrics = evaluate(model, guide, x, num_samples=400)
    assert [metrics[f"kl_{name}"] for name in exact] == [
        evidence.kl_by_site[name].mean().item() for name in exact
    ]


@pytest.mark.parametrize("chunk_size", [1, 30])
def test_kl_of_each_level_is_the_same_in_chunks(chunk_size, binary_images):
    model, guide = small()
    x = binary_images[:7]
    whole = log_evidence(model, guide, x, num_samples=60)
    parts = log_evidence(model, guide, x, num_samples=60, chunk_size=chunk_size)
    for name in SITES:
        assert torch.allclose(whole.kl_by_site[name], parts.kl_by_site[name], atol=1e-5)


def test_history_has_the_kl_of_each_level(binary_images, tmp_path):
    x, held_out = binary_images[:100], binary_images[100:130]
    run = quiet(*small(), x, validation=held_out, out=tmp_path / "run")
    with (tmp_path / "run" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in (*run.history, *({n: float(v) for n, v in row.items()} for row in rows)):
        for prefix in ("", "validation_"):
            names = [name for name in row if name.startswith(f"{prefix}kl_")]
            assert names == [f"{prefix}kl_{site}" for site in SITES]
            kl = sum(row[name] for name in names)
            assert kl == pytest.approx(row[f"{prefix}kl"], abs=1e-4)
    figure = plot_training(run.history)
    assert [ax.get_title() for ax in figure.axes][-1] == "KL of each site"
    lines = figure.axes[-1].lines
    assert [line.get_label() for line in lines] == SITES
    assert list(lines[1].get_ydata()) == [row["kl_z1"] for row in run.history]


def test_one_site_has_no_kl_of_its_own(binary_images):
    model = VAE(StandardNormal(2), mlp(2, out=16), Bernoulli((4, 4)))
    guide = DiagonalNormal(mlp(16, out=4), 2)
    run = quiet(model, guide, binary_images)
    found = log_evidence(model, guide, binary_images[:5], num_samples=10)
    information = latent_information(model, guide, binary_images[:5])
    assert not [name for name in run.history[0] if name.startswith("kl_")]
    assert (found.kl_by_site, information.sites, information.kl_by_site) == ({}, (), {})
    assert len(plot_training(run.history).axes) == 3


def test_a_run_of_an_older_version_gets_the_new_columns(binary_images, tmp_path):
    """Its metrics.csv has no KLs of sites: they are NaN in its epochs."""
    folder = tmp_path / "run"
    pair = small()
    quiet(*pair, binary_images, out=folder)
    path = folder / "metrics.csv"
    with path.open() as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [name for name in rows[0] if name[:3] != "kl_"])
        writer.writeheader()
        writer.writerows({n: v for n, v in row.items() if n[:3] != "kl_"} for row in rows)
    run = quiet(*pair, binary_images, out=folder, resume=True, epochs=4)
    read = load_run(folder, model=pair[0], guide=pair[1]).history
    assert [row["epoch"] for row in read] == [1, 2, 3, 4]
    assert [row["kl_z1"] == row["kl_z1"] for row in read] == [False, False, True, True]
    assert read[3] == run.history[3]
    assert len(plot_training(read).axes) == 4


def test_diagnosis_names_the_level_that_is_not_in_use(binary_images):
    """The top posterior is set to the prior: its level says nothing of x."""
    model, guide = small()
    with torch.no_grad():
        for parameter in guide.posteriors["z2"].parameters():
            parameter.zero_()
    x = binary_images[:60]
    found = latent_information(model, guide, x)
    assert found.sites == ("z2", "z1")
    assert found.sites_in_use == ("z1",)
    assert found.kl_by_site["z2"] == pytest.approx(0, abs=1e-6)
    assert found.kl_by_site["z1"] > 0.1
    said = judge_information(found)[0].sentence
    assert "by site: z2 0.00, z1 " in said
    assert "not in use: z2)" in said
    texts = [text.get_text() for text in plot_information(found).axes[0].texts]
    assert any(text.startswith("z1\n") for text in texts)
    diagnosis = diagnose(model, guide, x, diagnostics=[LATENT_INFORMATION])
    entries = diagnosis.numbers
    assert entries["sites_in_use"] == ["z1"]
    assert entries["kl_z1"] + entries["kl_z2"] == pytest.approx(entries["kl"], abs=1e-6)


def test_all_levels_are_in_use_from_the_bottom_up():
    hierarchy = LinearHierarchy()
    levels = hierarchy.levels()
    model, guide = hierarchy.model(levels), bottom_up(hierarchy, levels)
    found = latent_information(model, guide, data(hierarchy, 30))
    assert found.sites == found.sites_in_use == ("z1", "z2", "z3")
    assert "all 3 are in use" in judge_information(found)[0].sentence
