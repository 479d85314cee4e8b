"""The command line on new data, on data that have moved, and on the columns of a table."""

import inspect
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from latente.inference import load_data, load_run
from latente.inference.cli.app import app
from latente.inference.recipes import plan_data
from latente.inference.recipes.plan import Plan, read_plan
from latente.inference.recipes.plan_data import find_plan_data, load_plan_data

FEW = ["--num-samples", 50]
OUTPUTS = shutil.ignore_patterns("samples.*", "scores.csv", "evaluation*", "figures")


def latente(*arguments, code=0):
    result = CliRunner(env={"COLUMNS": "240"}).invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


def table(num, seed):
    """Three columns that depend on an age and on a site."""
    rng = np.random.default_rng(seed)
    age, site = rng.normal(50, 10, num), rng.choice(list("xyz"), num)
    values = rng.normal(size=(num, 3)) + 3 * (site == "x")[:, None] + age[:, None] / 10
    return pd.DataFrame(values, columns=["a", "b", "c"]).assign(age=age, site=site)


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """The folder of a run and its data, which have moved together since the fit."""
    before = tmp_path_factory.mktemp("before")
    table(120, 0).to_csv(before / "all.csv", index=False)
    table(40, 1).to_csv(before / "held out.csv", index=False)
    latente(
        "train", "cvae", "--likelihood", "normal", "--given", "age,site", "--standardize",
        "--data", before / "all.csv", "--test", before / "held out.csv", "--validation", 0.2,
        "--epochs", 3, "--hidden", 8, "--out", before / "runs" / "one",
    )  # fmt: skip
    return Path(shutil.move(before, before.with_name("after")))


@pytest.fixture
def run(moved):
    return moved / "runs" / "one"


def test_a_recipe_is_given_columns_of_a_table(run):
    config = json.loads((run / "config.json").read_text())
    assert config["plan"]["given"] == "age,site"
    assert config["relative_paths"] == {"data": "../../all.csv", "test": "../../held out.csv"}
    assert config["event_shape"] == [3]
    assert config["context"] == 4  # one number, and flags of three words
    data = load_plan_data(read_plan(run), run)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [96, 24, 40]
    assert data.test_context[0].shape == (40, 4)


def test_the_options_of_a_plan_reach_the_loader(monkeypatch):
    plan = Plan(
        recipe="vae-normal", data="x.csv", labels="l", delimiter=";", decimal=",", header=True,
        keep_degenerate=True, scale=2.0, shape=(1, 3), layout="channels_first", test="t.csv",
        validation=0.3, split="s", groups="g", order="o", standardize=True, seed=5, given="a,b",
        key="k", drop="c, d",
    )  # fmt: skip
    called = {}
    monkeypatch.setattr(plan_data, "load_data", lambda source, **given: called.update(given))
    load_plan_data(plan)
    assert called.pop("given") == ["a", "b"]
    assert called.pop("binarize") == "none"
    assert called.pop("kinds") is None
    assert called.pop("drop") == ("c", "d")
    shared = {*inspect.signature(load_data).parameters} & {*Plan.__dataclass_fields__}
    assert called.keys() >= shared - {"given", "binarize", "kinds", "drop"}
    assert called == {name: getattr(plan, name) for name in called}


def test_a_column_may_be_given_and_sort_the_rows():
    data = load_data(table(50, 0), given=["age", "site"], split="in-order", order="age")
    assert data.train_context[0][:, 0].max() < data.test_context[0][0, 0]


def test_new_data_are_evaluated_as_the_test_data_are(run, moved, tmp_path):
    latente("evaluate", run, *FEW)
    other_order = tmp_path / "held out.csv"
    held_out = pd.read_csv(moved / "held out.csv")
    held_out[["site", "c", "a", "age", "b"]].to_csv(other_order, index=False)
    before = (run / "evaluation.json").read_bytes()
    output = latente("evaluate", run, *FEW, "--data", other_order).output
    assert f"40 data of {other_order}, in standardized units" in " ".join(output.split())
    assert (run / "evaluation.json").read_bytes() == before
    own = json.loads(before)
    new = json.loads((run / "evaluation-held out.json").read_text())
    assert new.pop("data") == str(other_order)
    assert new == own
    held_out.drop(columns="b").to_csv(other_order, index=False)
    assert "lacks column 'b'" in latente("score", run, "--data", other_order, code=2).stderr
    held_out.drop(columns="site").to_csv(other_order, index=False)
    refused = latente("encode", run, "--data", other_order, code=2).stderr
    assert "lacks column 'site', which the model is given" in refused


def test_rows_are_scored_and_encoded_with_their_numbers(run, moved, tmp_path):
    (run / "scores.csv").unlink(missing_ok=True)
    result = latente("score", run, *FEW)
    assert str(run / "scores.csv") in result.stdout
    scores, new = pd.read_csv(run / "scores.csv"), tmp_path / "new.csv"
    assert list(scores.columns) == ["row", "age", "site", "log_px", "standard_error", "khat"]
    assert scores["row"].tolist() == list(range(120, 160))  # the test file follows the data
    evidence = load_run(run).log_evidence(moved / "held out.csv", num_samples=50)
    assert np.array_equal(scores["log_px"], evidence.log_px)
    assert np.array_equal(scores["khat"], evidence.khat)
    error = evidence.mean_standard_error
    assert f"mean log p(x) = {evidence.mean:.2f} ± {error:.3f} nats, in stand" in result.stderr
    assert f"for {evidence.khat_bad_fraction:.1%}" in result.stderr

    latente("encode", run, *FEW, "--data", moved / "held out.csv", "--out", new)
    codes = pd.read_csv(new)
    figures = ["z_1_mean", "z_1_sd", "z_2_mean", "z_2_sd"]
    assert list(codes.columns) == ["row", "age", "site", *figures, "khat"]
    assert codes["row"].tolist() == list(range(40))
    expected = load_run(run).encode(moved / "held out.csv", num_samples=50)
    values = codes[figures].to_numpy(np.float32)
    assert np.array_equal(values[:, ::2], expected.mean["z"])
    assert np.array_equal(values[:, 1::2], expected.sd["z"])
    assert np.array_equal(codes["khat"], scores["khat"])

    again = ["encode", run, *FEW, "--out", new]
    written = new.read_bytes()
    assert "is there already: give --overwrite" in latente(*again, code=2).stderr
    assert new.read_bytes() == written
    latente(*again, "--overwrite", "--seed", 1)
    assert pd.read_csv(new)["row"].tolist() == list(range(120, 160))
    wrong = latente("encode", run, "--out", tmp_path / "codes.parquet", code=2).stderr
    assert "does not end in .csv" in wrong


def test_samples_of_a_table_have_its_columns(run):
    latente("sample", run, "--num", 300, "--temperature", 0.5, "--overwrite")
    samples = pd.read_csv(run / "samples.csv")
    assert list(samples.columns) == ["a", "b", "c"]
    assert np.allclose(samples, np.load(run / "samples.npy"))
    assert np.allclose(
        samples.mean(), pd.read_csv(run.parents[1] / "all.csv")[["a", "b", "c"]].mean(), atol=1
    )
    refused = latente("sample", run, "--temperature", -1, "--overwrite", code=2).stderr
    assert "--temperature must be a number of at least 0" in refused


def test_samples_of_words_are_not_pickled(tmp_path):
    table(60, 0).to_csv(tmp_path / "x.csv", index=False)
    out = tmp_path / "run"
    latente(
        "train", "--data", tmp_path / "x.csv", "--likelihood", "columns", "--epochs", 1,
        "--hidden", 8, "--out", out,
    )  # fmt: skip
    latente("sample", out, "--num", 20)
    assert set(pd.read_csv(out / "samples.csv")["site"]) <= {*"xyz"}
    assert not (out / "samples.npy").exists()


def test_a_run_is_told_where_its_data_are(run, moved, tmp_path):
    alone = Path(shutil.copytree(run, tmp_path / "deep" / "er" / "alone", ignore=OUTPUTS))
    was = read_plan(alone).data
    gone = [tmp_path / "deep" / name for name in ("all.csv", "held out.csv")]
    for command in ("evaluate", "plot", "diagnose", "sample"):
        lost = latente(command, alone, code=2).stderr
        assert f"no such file: {gone[0]}, {gone[1]}, {was}" in lost
        assert "--moved-to PATH" in lost
    resume = ["train", "--out", alone, "--resume", "--epochs", 4]
    assert "--moved-to PATH" in latente(*resume, code=2).stderr
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    shutil.copy(moved / "all.csv", renamed / "every.csv")
    shutil.copy(moved / "held out.csv", renamed)
    there = ["--moved-to", renamed / "every.csv"]
    latente("evaluate", alone, *FEW, *there)
    latente("encode", alone, *FEW, *there, "--out", tmp_path / "codes.csv")
    latente(*resume, *there)
    assert read_plan(alone).data == str(renamed / "every.csv")
    latente("evaluate", alone, *FEW)  # a resumed run knows where they are
    table(120, 7).to_csv(renamed / "every.csv", index=False)
    for command in (["evaluate"], ["sample", "--overwrite"]):
        other = latente(*command, alone, *there, code=2).stderr
        assert f"{renamed / 'every.csv'} holds other data than {there[1]} did" in other
    both = ["score", alone, "--data", moved / "all.csv", *there, "--overwrite"]
    assert "--moved-to is for the data of the run" in latente(*both, code=2).stderr


def test_other_data_in_the_place_of_the_relative_path_are_passed_over(run, moved, tmp_path):
    alone = Path(shutil.copytree(run, tmp_path / "runs" / "one"))
    config = json.loads((alone / "config.json").read_text())
    config["plan"] |= {"data": str(moved / "all.csv"), "test": str(moved / "held out.csv")}
    (alone / "config.json").write_text(json.dumps(config))
    table(120, 7).to_csv(tmp_path / "all.csv", index=False)
    table(40, 8).to_csv(tmp_path / "held out.csv", index=False)
    plan, data = find_plan_data(read_plan(alone), alone)
    assert plan.data == str(moved / "all.csv")
    assert data.digest() == config["data_digest"]
    (tmp_path / "all.csv").write_text("something else")
    assert find_plan_data(read_plan(alone), alone)[0] == plan
    shutil.copy(tmp_path / "held out.csv", tmp_path / "all.csv")
    (alone / "config.json").write_text(json.dumps(config | {"data_digest": "0"}))
    both = f"{tmp_path / 'all.csv'} and {moved / 'all.csv'} hold other data now"
    with pytest.raises(ValueError, match=re.escape(both)):
        find_plan_data(read_plan(alone), alone)
    # A folder of an earlier version has neither relative paths nor a transform.
    del config["relative_paths"], config["transform"]
    (alone / "config.json").write_text(json.dumps(config))
    latente("score", alone, *FEW, "--data", moved / "held out.csv", "--overwrite")
    latente("score", run, *FEW, "--data", moved / "held out.csv", "--overwrite")
    assert (alone / "scores.csv").read_bytes() == (run / "scores.csv").read_bytes()


def test_a_table_of_pixels_is_images(tmp_path):
    rng = np.random.default_rng(0)
    pixels = pd.DataFrame(rng.integers(0, 256, (60, 16))).add_prefix("p")
    pixels.assign(part=["train"] * 40 + ["test"] * 20).to_csv(tmp_path / "x.csv", index=False)
    command = [
        "train", "vae-continuous-bernoulli", "--data", tmp_path / "x.csv", "--split", "part",
        "--shape", "4,4", "--network", "conv:channels=4", "--epochs", 1, "--hidden", 8,
        "--out", tmp_path / "run",
    ]  # fmt: skip
    refused = latente(*command, code=2).stderr
    assert "whole numbers up to 255 are levels: divide them, --scale 255\n" in refused
    latente(*command, "--scale", 255)
    latente("score", tmp_path / "run", *FEW)
    assert pd.read_csv(tmp_path / "run" / "scores.csv")["row"].tolist() == list(range(40, 60))
    latente("sample", tmp_path / "run", "--num", 3)
    drawn = np.load(tmp_path / "run" / "samples.npy")
    assert drawn.shape == (3, 4, 4)
    assert drawn.max() > 1
    assert not (tmp_path / "run" / "samples.csv").exists()


def test_a_folder_of_convolved_images_from_before_dims_loads_and_resumes(tmp_path):
    """Rows of shape (12, 64) were images; now a new run has to say so."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 12, 64)))
    folder, few = tmp_path / "r", ["--data", tmp_path / "x.npy", "--hidden", 8, "--epochs", 1]
    options = ["train", "vae-normal", *few, "--out", folder, "--network"]
    refused = latente(*options, "conv:channels=2-2", code=2)
    assert "can be read as a signal of 64 values with 12 channels" in refused.output
    latente(*options, "conv:channels=2-2,dims=2")
    x = np.load(tmp_path / "x.npy")[:5]
    wanted = load_run(folder).log_evidence(x, num_samples=50).log_px
    config = json.loads((folder / "config.json").read_text())
    config["plan"]["network"] = "conv:channels=2-2"
    (folder / "config.json").write_text(json.dumps(config))
    assert load_run(folder).log_evidence(x, num_samples=50).log_px.equal(wanted)
    latente("train", "--resume", "--out", folder, "--epochs", 2)
    assert load_run(folder).epoch == 2


def test_a_table_of_several_kinds_is_not_standardized(tmp_path):
    table(60, 0).to_csv(tmp_path / "t.csv", index=False)
    refused = latente("train", "vae-table", "--data", tmp_path / "t.csv", "--standardize", code=2)
    assert "in their own units" in refused.output
    assert "leave --standardize out" in refused.output
