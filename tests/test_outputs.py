"""What commands write: never over files unasked, in the data's own terms, and said in one line."""

import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from latente.guides import DiagonalNormal
from latente.inference import (
    Codes,
    Column,
    diagnose,
    encode,
    evaluate,
    fit,
    load_data,
    load_run,
    log_evidence,
)
from latente.inference.cli.app import app
from latente.inference.diagnostics.latent_information import LATENT_INFORMATION
from latente.inference.recipes.plan import read_plan
from latente.inference.recipes.plan_data import load_plan_data
from latente.inference.reporting.column_figures import MOST_COLUMNS, plot_columns
from latente.models import VAE, Normal, StandardNormal, mlp

FEW = ["--num-samples", 20]


def latente(*arguments, code=0):
    result = CliRunner(env={"COLUMNS": "240"}).invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


def people(num, seed):
    """A table of six kinds of columns, with a group and a label."""
    rng = np.random.default_rng(seed)
    age = rng.normal(45, 10, num)
    return pd.DataFrame(
        {
            "patient": rng.integers(0, 20, num).astype(str),
            "age": age.round().astype(int),
            "height": rng.normal(170, 8, num).round(1),
            "income": rng.lognormal(7 + age / 45, 0.5).round(2),
            "visits": rng.poisson(np.exp((age - 45) / 12)),
            "smoker": rng.choice(["yes", "no"], num, p=[0.2, 0.8]),
            "town": rng.choice(["north", "south", "west"], num),
            "arm": rng.choice(["control", "drug"], num),
        }
    )


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The folder of a run that was fitted to a table of several kinds, which lies beside it."""
    folder = tmp_path_factory.mktemp("table")
    people(300, 0).to_csv(folder / "people.csv", index=False)
    said = latente(
        "train", "vae-table", "--data", folder / "people.csv", "--groups", "patient",
        "--labels", "arm", "--epochs", 2, "--hidden", 8, "--out", folder / "run",
    )  # fmt: skip
    out = folder / "run"
    commands = "; ".join(f"latente {name} {out}" for name in ("evaluate", "diagnose", "plot"))
    assert f"wrote {out}; next: {commands}\n" in said.stdout
    return out


@pytest.fixture(scope="module")
def written(table):
    """What each command printed when it wrote for the first time."""
    commands = {"evaluate": FEW, "encode": FEW, "score": FEW, "sample": [], "plot": []}
    return {name: latente(name, table, *more).stdout for name, more in commands.items()}


def test_each_command_says_what_it_wrote_and_what_comes_next(table, written):
    files = {
        "evaluate": ["evaluation.json"], "encode": ["codes.csv"], "score": ["scores.csv"],
        "sample": ["samples.csv", "figures/sampled.png"],
        "plot": [f"figures/{name}.png" for name in ("training", "samples", "reconstructions",
                                                    "latent")],
    }  # fmt: skip
    for name, output in written.items():
        (line,) = [line for line in output.splitlines() if line.startswith("wrote ")]
        paths, following = line.removeprefix("wrote ").split("; next: ")
        assert paths.split(", ") == [str(table / file) for file in files[name]]
        assert all((table / file).is_file() for file in files[name])
        assert following.endswith(str(table))


def test_no_rows_are_written_over_unasked(table, written):
    before = {path: path.read_bytes() for path in table.rglob("*") if path.is_file()}
    for name in ("encode", "score", "sample"):
        refused = latente(name, table, code=2)
        assert "is there already" in refused.stderr
        assert "give --overwrite to replace" in refused.stderr
        assert refused.stderr.count("\n") == 1
    assert before == {path: path.read_bytes() for path in table.rglob("*") if path.is_file()}
    samples = table / "samples.csv"
    latente("sample", table, "--num", 5, "--overwrite")
    assert len(pd.read_csv(samples)) == 5
    samples.unlink()  # one of several files that are written together
    assert "sampled.png is there already: give" in latente("sample", table, code=2).stderr
    assert not samples.exists()
    latente("sample", table, "--overwrite")


def test_samples_have_the_digits_and_words_of_the_data(table, written):
    text = (table / "samples.csv").read_text().splitlines()
    samples, data = pd.read_csv(table / "samples.csv"), pd.read_csv(table.parent / "people.csv")
    assert list(samples) == [name for name in data if name not in ("patient", "arm")]
    for name in ("age", "visits"):
        assert samples[name].dtype.kind == "i"
    assert set(samples["smoker"]) <= {"yes", "no"}
    for row in text[1:]:
        for number in row.split(",")[1:3]:
            assert len(number.replace(".", "").lstrip("0")) <= 9, number
    run = load_run(table)
    drawn = run.sample(64)
    for name in ("height", "income"):  # the same numbers, to the last digit of float32
        assert np.array_equal(samples[name].astype(np.float32), drawn[name].astype(np.float32))
    words = ["smoker", "town"]
    assert samples[words].to_numpy().tolist() == drawn[words].to_numpy().tolist()


def test_samples_around_a_large_offset_keep_the_digits_of_their_spread(tmp_path):
    rng = np.random.default_rng(0)
    seconds = 1.7e9 + rng.normal(size=100).round(3)
    table = pd.DataFrame({"time": seconds, "x": rng.normal(size=100)})
    table.to_csv(tmp_path / "x.csv", index=False)
    out = tmp_path / "run"
    latente(
        "train", "--data", tmp_path / "x.csv", "--standardize", "--epochs", 1, "--hidden", 4,
        "--out", out,
    )  # fmt: skip
    latente("sample", out)
    samples, run = pd.read_csv(out / "samples.csv"), load_run(out)
    assert np.allclose(samples["time"], run.sample(64)["time"], rtol=0, atol=1e-6)
    assert samples["time"].std() > 0.1
    cells = (out / "samples.csv").read_text().split("\n")[1].split(",")
    assert len(cells[0].split(".")[1]) <= 8
    seen = run.transform(out / "samples.csv")[0]
    assert torch.allclose(seen, run.transform(run.sample(64))[0], atol=1e-6)


def test_labels_and_groups_stand_beside_codes_and_scores(table, written, tmp_path):
    data = pd.read_csv(table.parent / "people.csv", dtype={"patient": str})
    own = load_plan_data(read_plan(table), table)
    for name in ("codes", "scores"):
        found = pd.read_csv(table / f"{name}.csv", index_col="row", dtype={"patient": str})
        assert list(found)[:2] == ["patient", "arm"]
        assert found.index.tolist() == own.test_index.tolist()
        assert found[["patient", "arm"]].equals(data.loc[found.index, ["patient", "arm"]])
    new = people(30, 1)
    new.sample(frac=1, axis=1, random_state=0).to_csv(tmp_path / "new.csv", index=False)
    latente("encode", table, *FEW, "--data", tmp_path / "new.csv", "--out", tmp_path / "c.csv")
    found = pd.read_csv(tmp_path / "c.csv", dtype={"patient": str})
    assert found[["patient", "arm"]].equals(new[["patient", "arm"]].astype(found["arm"].dtype))
    frame = load_run(table).encode(new, num_samples=20).to_frame().reset_index()
    assert list(frame) == list(found)
    assert np.allclose(frame["z_1_mean"], found["z_1_mean"])
    assert frame["arm"].tolist() == new["arm"].tolist()
    without = new.drop(columns=["patient", "arm"])  # the model needs neither
    without.to_csv(tmp_path / "bare.csv", index=False)
    latente("score", table, *FEW, "--data", tmp_path / "bare.csv", "--out", tmp_path / "s.csv")
    scores = pd.read_csv(tmp_path / "s.csv")
    assert list(scores) == ["row", "log_px", "standard_error", "khat"]


def test_codes_become_a_frame():
    mean, khat = torch.arange(12.0).reshape(2, 3, 2), torch.tensor([0.1, 0.9])
    means, sds = {"w": mean, "t": torch.ones(2)}, {"w": mean + 1, "t": torch.zeros(2)}
    codes = Codes(
        means, sds, khat, 0.7, khat, khat,
        index=np.array([7, 3]), beside={"khat": np.array(["a", "b"])},
    )  # fmt: skip
    frame = codes.to_frame()
    assert frame.index.tolist() == [7, 3]
    assert frame.index.name == "row"
    assert frame["khat (data)"].tolist() == ["a", "b"]
    assert frame["w_3_2_mean"].tolist() == [5, 11]
    assert frame["w_3_2_sd"].tolist() == [6, 12]
    assert frame["t_sd"].tolist() == [0, 0]
    assert list(frame)[-1] == "khat"
    of_all = Codes({"w": mean}, {"w": mean}, khat[:1], 0.7, khat[:1], khat[:1])
    with pytest.raises(ValueError, match="k̂ is of the whole data set"):
        of_all.to_frame()


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """A run that is given the labels of an archive, and bare arrays of new data and labels."""
    folder = tmp_path_factory.mktemp("labelled")
    rng = np.random.default_rng(0)
    words = rng.choice(["cat", "dog"], 80)
    x = rng.normal(size=(80, 3)) + (words == "dog")[:, None]
    np.savez(folder / "all.npz", x=x, y=words)
    np.save(folder / "x.npy", x[:10])
    np.save(folder / "y.npy", words[:10])
    latente(
        "train", "cvae", "--likelihood", "normal", "--given", "labels", "--data",
        folder / "all.npz", "--epochs", 1, "--hidden", 4, "--out", folder / "run",
    )  # fmt: skip
    return folder


@pytest.mark.parametrize("command", ["encode", "score"])
def test_labels_are_given_beside_a_bare_array(labelled, command, tmp_path):
    call = [command, labelled / "run", *FEW, "--data", labelled / "x.npy"]
    call += ["--out", tmp_path / "out.csv"]
    refused = latente(*call, code=2).stderr
    assert "the model is given labels, and " in refused
    assert "x.npy has none: give them as --labels FILE.npy, or x and y in an .npz\n" in refused
    latente(*call, "--labels", labelled / "y.npy")
    found = pd.read_csv(tmp_path / "out.csv")
    assert found["label"].tolist() == np.load(labelled / "y.npy").tolist()
    run, x, y = load_run(labelled / "run"), *(np.load(labelled / f"{n}.npy") for n in "xy")
    if command == "score":
        assert np.array_equal(found["log_px"], run.log_evidence(x, y, num_samples=20).log_px)
    else:
        assert run.encode(x, y, num_samples=20).to_frame()["label"].tolist() == y.tolist()
    call.append("--overwrite")
    wrong = latente(*call, "--labels", labelled / "all.npz", code=2).stderr
    assert "--labels is a .npy file" in wrong
    alone = latente(command, labelled / "run", "--labels", labelled / "y.npy", code=2).stderr
    assert "give --data too" in alone


def test_a_bare_array_needs_no_labels_where_the_model_is_given_none(tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "all.npz", x=rng.normal(size=(60, 3)), y=rng.integers(0, 3, 60))
    np.save(tmp_path / "x.npy", rng.normal(size=(5, 3)))
    out = tmp_path / "run"
    latente("train", "--data", tmp_path / "all.npz", "--epochs", 1, "--hidden", 4, "--out", out)
    latente("encode", out, *FEW, "--data", tmp_path / "x.npy")
    assert "label" not in pd.read_csv(out / "codes.csv")
    latente("score", out, *FEW)
    scores = pd.read_csv(out / "scores.csv")
    assert scores["label"].tolist() == np.load(tmp_path / "all.npz")["y"][scores["row"]].tolist()


def test_a_run_evaluates_and_is_diagnosed_on_raw_data():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"height": rng.normal(170, 10, 100), "weight": rng.normal(70, 8, 100)})
    data = load_data(frame, standardize=True)
    model = VAE(StandardNormal(1), mlp(1, 4, out=2), Normal((2,)))
    guide = DiagonalNormal(mlp(2, 4, out=2), latent_dim=1)
    run = fit(model, guide, data, epochs=1, show_progress=False)
    new = frame[["weight", "height"]].iloc[:20]
    found = run.evaluate(new, num_samples=20)
    assert found == evaluate(model, guide, run.rows(new), num_samples=20)
    assert found["log_evidence"] == run.log_evidence(new, num_samples=20).mean
    diagnosis = diagnose(run.model, run.guide, run.rows(new), diagnostics=(LATENT_INFORMATION,))
    assert diagnosis["information"].num_data == 20
    codes = encode(model, guide, data, num_samples=100)
    assert codes.to_frame().index.tolist() == data.test_index.tolist()
    expected = log_evidence(model, guide, data, num_samples=100).khat
    assert np.array_equal(codes.to_frame()["khat"], expected)


def panels(figure):
    return {ax.get_xlabel(): ax for ax in figure.axes if ax.get_visible()}


def test_each_column_has_a_panel_in_its_own_units():
    samples, data = people(64, 1).drop(columns="patient"), people(300, 0).drop(columns="patient")
    figure = plot_columns(samples, data, "training data", kinds=[Column("income", "lognormal")])
    found = panels(figure)
    assert list(found) == list(samples)
    assert "64 samples beside 300 training data" in figure.get_suptitle()
    low, high = found["height"].get_xlim()
    assert 120 < low < data["height"].min() < data["height"].max() < high < 220
    assert found["income"].get_xscale() == "log"
    shares = [bar.get_height() for bar in found["town"].patches]
    towns = [text.get_text() for text in found["town"].get_xticklabels()]
    expected = [float((t["town"] == town).mean()) for t in (data, samples) for town in towns]
    assert shares == pytest.approx(expected)
    filled = found["height"].patches[:-1]
    assert sum(bar.get_height() for bar in filled) == pytest.approx(1)


def test_many_columns_words_and_far_samples_are_said():
    rng = np.random.default_rng(0)
    wide = pd.DataFrame(rng.normal(size=(200, 30))).add_prefix("x")
    far = wide.copy()
    far.iloc[0, 0] = 1e6
    figure = plot_columns(far, wide)
    found = panels(figure)
    assert len(found) == MOST_COLUMNS
    assert f"the first {MOST_COLUMNS} of 30 columns" in figure.get_suptitle()
    label = next(iter(found))
    assert label == "x0\n1 sample beyond"
    assert found[label].get_xlim()[1] < 10
    words = pd.DataFrame({"word": rng.choice([f"w{i}" for i in range(40)], 500)})
    ticks = panels(plot_columns(words))["word"].get_xticklabels()
    assert ticks[-1].get_text() == "31 others"
    assert sum(bar.get_height() for bar in panels(plot_columns(words))["word"].patches) == (
        pytest.approx(1)
    )


def test_samples_are_drawn_alone_where_the_data_are_lost(table, written, tmp_path):
    alone = tmp_path / "deep" / "er" / "run"
    shutil.copytree(table, alone, ignore=shutil.ignore_patterns("samples*", "figures"))
    config = (alone / "config.json").read_text().replace("people.csv", "gone.csv")
    (alone / "config.json").write_text(config)
    said = latente("sample", alone, "--num", 8).stderr
    assert "the picture is of samples alone: no such file" in said
    assert (alone / "figures" / "sampled.png").is_file()
    assert len(pd.read_csv(alone / "samples.csv")) == 8
