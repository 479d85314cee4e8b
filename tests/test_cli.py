"""The command line: each command, and each way to use it wrongly."""

import csv
import importlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors import safe_open
from typer.testing import CliRunner

from latente.inference.cli.app import app
from latente.inference.recipes.axes import AXES

SMALL = ["--epochs", "2", "--hidden", "8"]


def latente(*arguments, code=0):
    result = CliRunner(env={"COLUMNS": "240"}).invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    return result


def epochs_of(folder):
    return list(csv.DictReader((folder / "metrics.csv").read_text().splitlines()))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of a few seconds that several tests look at."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    latente("train", "--epochs", 3, "--hidden", "16", "--out", out)
    return out


def test_train_writes_the_run_folder(folder):
    assert {path.name for path in folder.iterdir()} >= {
        "config.json", "checkpoint.safetensors", "metrics.csv"
    }  # fmt: skip
    rows = epochs_of(folder)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert float(rows[-1]["validation_elbo"]) > float(rows[0]["validation_elbo"])
    assert json.loads((folder / "config.json").read_text())["plan"]["data"] == "digits"


def test_evaluate_prints_and_writes_what_it_found(folder):
    output = latente("evaluate", folder, "--num-samples", 100).output
    figures = json.loads((folder / "evaluation.json").read_text())
    assert {
        "log_evidence", "log_evidence_se", "elbo", "reconstruction", "kl", "active_units",
        "khat_bad_fraction", "num_samples",
    } <= set(figures)  # fmt: skip
    assert figures["num_samples"] == 100
    assert figures["num_data"] == 180
    assert figures["elbo"] == pytest.approx(figures["reconstruction"] - figures["kl"])
    assert figures["elbo"] < figures["log_evidence"] < 0
    assert f"{figures['log_evidence']:.2f}" in output
    assert f"{figures['elbo']:.2f}" in output
    assert "E_q[log p(x|z)]" in output


def test_plot_and_sample_leave_pictures(folder):
    output = latente("plot", folder).output
    names = {path.name for path in (folder / "figures").iterdir()}
    assert names >= {"training.png", "reconstructions.png", "latent.png", "manifold.png"}
    assert all(name in output for name in names)
    latente("sample", folder, "--num", 9)
    assert np.load(folder / "samples.npy").shape == (9, 8, 8)


def test_diagnose_writes_a_page_and_says_the_verdict(folder, monkeypatch):
    from latente.inference.diagnostics import budget

    importlib.import_module("latente.inference.diagnostics.diagnose")  # before Budget is replaced
    few = {"nuts_data": 0, "temperatures": 5, "annealed_data": 2, "gap_steps": 10}
    few |= {"gap_data": 5, "replications": 10, "chains": 2, "draws": 20}
    few |= {"tree_data": 5, "tree_samples": 10}
    # The command has no options for these: they would each take a while.
    small = lambda **settings: full_budget(**settings, **few)  # noqa: E731
    full_budget = budget.Budget
    monkeypatch.setattr(budget, "Budget", small)
    size = ["--num-data", 40, "--num-samples", 50, "--simulations", 40]
    result = latente("diagnose", folder, *size)
    report = folder / "diagnosis" / "report.html"
    written = json.loads((folder / "diagnosis" / "diagnosis.json").read_text())
    assert written["num_data"] == 40
    assert written["num_samples"] == 50
    assert written["verdict"].split("\n")[0] in result.output
    assert str(report) in result.output
    assert report.read_text().index(written["verdict"].split("\n")[0]) > 0
    assert (folder / "diagnosis" / "figures" / "evidence.png").is_file()
    few |= {"annealed_data": 0, "gap_data": 0, "replications": 0}
    again = ["--num-data", 5, "--num-samples", 10, "--simulations", 0]
    latente("diagnose", folder, *again)  # into the same folder


def test_recipes_are_listed_with_their_papers():
    output = latente("recipes").output
    assert "vae-normal" in output
    assert "1312.6114" in output


def test_the_parts_of_each_axis_are_listed_with_parameters_and_papers():
    output = latente("recipes", "--parts").output
    for name, axis in AXES.items():
        assert f"--{name}" in output
        for part in axis.values():
            assert f"│ {part.name} " in output
            assert all(f"  {parameter.name}=" in output for parameter in part.parameters)
    assert "components=500" in output
    assert "a whole number of at least 1" in output
    assert "1505.05770" in output


def test_another_posterior_is_one_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    latente("train", *SMALL, "--posterior", "iaf")
    out = tmp_path / "runs" / "digits-vae-iaf-k2"
    config = json.loads((out / "config.json").read_text())
    assert config["plan"]["posterior"] == "iaf"
    assert config["fit"]["objective"] == "Trace_ELBO"
    latente("evaluate", out, "--num-samples", 50)
    latente("plot", out)
    resumed = latente("train", "--out", out, "--resume", "--posterior", "spline", code=2)
    assert "--resume continues with posterior 'iaf', not 'spline'" in resumed.stderr


def test_each_axis_is_an_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = {
        "prior": "mixture:components=3", "posterior": "planar:transforms=2",
        "likelihood": "normal:scale=predicted", "network": "conv:residual_blocks=1,channels=4-8",
        "objective": "elbo:num_particles=2", "beta": "warmup:2,stop=0.5", "given": "labels",
    }  # fmt: skip
    options = [word for name, text in chosen.items() for word in (f"--{name}", text)]
    options += ["--free-bits", 0.1, "--binarize", "static"]
    options += ["--optimizer", "adamw", "--weight-decay", 0.01]
    latente("train", "beta-vae", *SMALL, *options)
    (out,) = (tmp_path / "runs").iterdir()
    assert out.name == (
        "digits-beta-vae-mixture-components-3-planar-transforms-2-normal-scale-predicted-"
        "conv-residual_blocks-1-channels-4-8-elbo-num_particles-2-beta-warmup-2-stop-0.5-"
        "free-bits-0.1-given-labels-binarize-static-k2"
    )
    config = json.loads((out / "config.json").read_text())
    assert chosen.items() <= config["plan"].items()
    assert config["plan"]["optimizer"] == "adamw"
    assert config["plan"]["weight_decay"] == 0.01
    assert config["fit"]["objective"] == (
        "Beta_ELBO(beta=Warmup(epochs=2, start=0.0, stop=0.5), free_bits=0.1, num_particles=2)"
    )
    latente("evaluate", out, "--num-samples", 20)
    more = ["train", "--out", out, "--resume", "--epochs", 3]
    latente(*more, "--beta", "warmup:epochs=2,stop=0.5", "--prior", "mixture:3")
    refused = latente(*more, "--prior", "mixture:4", code=2).stderr
    assert "--resume continues with prior 'mixture:components=3', not 'mixture:4'" in refused


def test_a_recipe_is_overridden_on_one_axis(tmp_path):
    out = tmp_path / "run"
    latente("train", "vampprior", "--prior", "vamp:7", "--epochs", 10, "--hidden", 8, "--out", out)
    config = json.loads((out / "config.json").read_text())
    assert config["plan"]["prior"] == "vamp:7"
    assert config["plan"]["beta"] == "warmup:10"
    with safe_open(out / "checkpoint.safetensors", framework="pt") as file:
        assert file.get_slice("model.prior.pseudo_inputs").get_shape() == [7, 8, 8]


FLAGS = "--standardize", "--keep-degenerate", "--resume", "--profile", "--parts", "--overwrite"


@pytest.mark.parametrize(
    "command", ["train", "evaluate", "diagnose", "plot", "sample", "encode", "score", "recipes"]
)
def test_help_gives_every_option_with_its_default(command):
    output = latente(command, "--help").output
    for line in output.splitlines():
        option = line.strip("│ ").startswith("--") and "--help" not in line
        if option and not any(flag in line for flag in FLAGS):
            assert "[default: " in line, line


def test_help_does_not_wait_for_torch():
    setup = (
        "import sys; from latente.inference.cli.app import app; from typer.testing import CliRunner"
    )
    code = f"{setup}; CliRunner().invoke(app, ['--help']); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_table_of_ones_own(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(300, 1)) @ rng.normal(size=(1, 4)) + rng.normal(size=(300, 4)) / 4
    lines = ["a,b,c,d,kind"] + [",".join(map(str, row)) + ",x" for row in values.tolist()]
    (tmp_path / "my table.csv").write_text("\n".join(lines))
    out = tmp_path / "run"
    latente(
        "train", "--data", tmp_path / "my table.csv", "--labels", "kind", "--standardize",
        "--latent-dim", 1, "--out", out, "--epochs", 30, "--batch-size", 20, "--hidden", 8,
    )  # fmt: skip
    assert json.loads((out / "config.json").read_text())["plan"]["recipe"] == "vae-normal"
    latente("evaluate", out, "--num-samples", 100)
    assert json.loads((out / "evaluation.json").read_text())["active_units"] == 1
    latente("plot", out)
    latente("sample", out, "--num", 2000)
    drawn = np.load(out / "samples.npy")
    assert np.allclose(drawn.std(0), values.std(0), rtol=0.3)  # in the table's own units
    (tmp_path / "my table.csv").write_text("\n".join(lines[:-1]))
    for command in ("evaluate", "plot"):
        assert "holds other data now" in latente(command, out, code=2).stderr
    resumed = latente("train", "--out", out, "--resume", "--epochs", 31, code=2)
    assert "holds other data now" in resumed.stderr


def test_a_table_smaller_than_a_batch_is_one_batch(tmp_path):
    rng = np.random.default_rng(0)
    np.savetxt(tmp_path / "small.csv", rng.normal(size=(40, 3)), delimiter=",", header="a,b,c")
    out = tmp_path / "run"
    latente("train", "--data", tmp_path / "small.csv", "--latent-dim", 1, "--out", out, *SMALL)
    assert json.loads((out / "config.json").read_text())["fit"]["batch_size"] == 32
    latente("train", "--out", out, "--resume", "--epochs", 3)
    assert len(epochs_of(out)) == 3


def test_a_table_of_two_readings_is_trained_on_with_options(tmp_path):
    """Errors name the options as they are written on the command line, and these decide."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 2)).round(3)
    path = tmp_path / "years.csv"
    path.write_text("2001\t2002\n" + "\n".join(f"{a}\t{b}" for a, b in rows))
    out = tmp_path / "run"
    command = ["train", "--data", path, "--latent-dim", 1, "--out", out, *SMALL]
    assert "data: give --header or --no-header\n" in latente(*command, code=2).stderr
    latente(*command, "--header", "--delimiter", "tab", "--decimal", ".")
    plan = json.loads((out / "config.json").read_text())["plan"]
    assert (plan["header"], plan["delimiter"], plan["decimal"]) == (True, "\t", ".")
    latente("evaluate", out, "--num-samples", 100)
    refused = latente("train", "--out", out, "--resume", "--no-header", code=2).stderr
    assert "--resume continues with header True, not False" in refused
    wrong = latente(*command, "--delimiter", "tabs", code=2).stderr
    assert "--delimiter must be one character, got 'tabs'" in wrong
    digits = latente("train", "--no-header", "--out", tmp_path / "other", code=2).stderr
    assert "--delimiter, --decimal and --header are for files ending in .csv" in digits


def test_degenerate_columns_are_kept_by_an_option(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "constant.csv"
    path.write_text("a,b\n" + "\n".join(f"{a:.3f},1.5" for a in rng.normal(size=60)))
    command = ["train", "--data", path, "--latent-dim", 1, "--out", tmp_path / "run", *SMALL]
    assert "drop such columns, or give --keep-degenerate\n" in latente(*command, code=2).stderr
    latente(*command, "--keep-degenerate")
    latente("evaluate", tmp_path / "run", "--num-samples", 100)


def test_the_way_a_table_was_read_is_said_before_the_fit(tmp_path):
    rng = np.random.default_rng(0)
    np.savetxt(tmp_path / "small.csv", rng.normal(size=(40, 3)), delimiter=",", header="a,b,c")
    errors = latente(
        "train", "--data", tmp_path / "small.csv", "--out", tmp_path / "run", *SMALL
    ).stderr  # fmt: skip
    assert errors.index("read 40 rows of 3 columns") < errors.index("fit: epoch 1/2")


def test_early_stopping_is_said(tmp_path):
    options = ["--epochs", 30, "--hidden", "8", "--patience", 1, "--learning-rate", 1.0]
    errors = latente("train", "--out", tmp_path / "run", *options).stderr
    assert "stopped early: validation_elbo has not risen for 1 epochs\n" in errors


def test_the_version_is_printed():
    assert latente("--version").output.startswith("latente 0.")


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line(tmp_path):
    (tmp_path / "large.csv").write_text("a\n" + "\n".join(str(1000 + i) for i in range(300)))
    result = latente(
        "train", "--data", tmp_path / "large.csv", "--out", tmp_path / "run", *SMALL
    )  # fmt: skip
    warning = "latente: the data reach 1299: standardize them, by --standardize, to fit well\n"
    assert warning in result.stderr


BAD = {
    "recipe": (["train", "vea"], "there is no recipe 'vea': did you mean 'vae'?"),
    "posterior": (["train", "--posterior", "flow"], "there is no posterior 'flow': there are "),
    "prior": (
        ["train", "--prior", "vam"],
        "there is no prior 'vam': did you mean 'vamp'? there are standard, mixture, vamp, flow, ",
    ),
    "likelihood": (["train", "--likelihood", "gauss"], "there is no likelihood 'gauss': there are"),
    "network": (["train", "--network", "convs"], "did you mean 'conv'? there are mlp, conv"),
    "objective": (["train", "--objective", "ivae"], "did you mean 'iwae'? there are elbo, iwae,"),
    "beta": (["train", "--beta", "warm"], "there is no KL weight 'warm': did you mean 'wa"),
    "negative beta": (
        ["train", "--beta", "-1"],
        "value of the KL weight constant must be a number of at least 0, got '-1'",
    ),
    "free bits": (["train", "--free-bits", "-1"], "--free-bits must be a number of at least 0"),
    "given": (["train", "--given", "label"], "there is no context 'label': did you mean 'labels'?"),
    "given columns": (
        ["train", "--given", "age,site"],
        "names columns of a table, and digits is n",
    ),
    "given twice": (["train", "--given", "age,age"], "--given names the column 'age' twice"),
    "given nothing": (
        ["train", "--given", "columns"],
        "'columns' names no columns: give their nam",
    ),
    "shape": (["train", "--shape", "28x28"], "--shape takes sizes such as 28,28, not '28x28'"),
    "shape of data": (
        ["train", "--shape", "8,9"],
        "shape (8, 9) has 72 values, and a row of digits",
    ),
    "scale": (["train", "--scale", "0"], "--scale must be positive, got 0"),
    "layout": (
        ["train", "--layout", "last"],
        "--layout must be 'channels_first' or 'channels_last'",
    ),
    "test": (
        ["train", "--test", "0.95"],
        "--validation 0.1 and --test 0.95 must leave data to trai",
    ),
    "test file": (["train", "--test", "no.csv"], "no such file: no.csv"),
    "split": (
        ["train", "--order", "day"],
        "--order sorts the rows of a split in order: give --split 'in-order'",
    ),
    "groups": (["train", "--groups", "g", "--split", "s"], "leave --split out, or --groups"),
    "moved": (["train", "--moved-to", "x.csv"], "--moved-to is for the data of a run to --resume"),
    "binarize": (["train", "--binarize", "yes"], "binarize must be 'none', 'static' or 'dynamic'"),
    "optimizer": (["train", "--optimizer", "rmsprob"], "no optimizer 'rmsprob': did you mean 'rms"),
    "decay": (["train", "--weight-decay", "-1"], "--weight-decay must be a number of at least 0"),
    "parameter": (
        ["train", "--prior", "vamp:component=9"],
        "the prior vamp has no parameter 'component': did you mean 'components'?",
    ),
    "no parameters": (
        ["train", "--prior", "standard:k=9"],
        "the prior standard has no parameter 'k': it takes no parameters, write standard",
    ),
    "value": (
        ["train", "--objective", "iwae:k=many"],
        "k of the objective iwae must be a whole number of at least 1, got 'many'",
    ),
    "together": (
        ["train", "--posterior", "point", "--prior", "vamp"],
        "the posterior is a point without a density, which the prior vamp cannot mix",
    ),
    "data": (["train", "--data", "digit"], "did you mean 'digits'?"),
    "file": (["train", "--data", "no.csv"], "no such file: no.csv"),
    "device": (["train", "--device", "cuda:7"], "there is no device 'cuda:7'"),
    "hidden": (["train", "--hidden", "wide"], "--hidden takes widths such as 400,400, not 'wide'"),
    "width": (["train", "--hidden", "0"], "every width of an mlp must be at least 1"),
    "latent": (["train", "--latent-dim", "0"], "the latent dimension must be at least 1, got 0"),
    "epochs": (["train", "--epochs", "0"], "epochs must be positive, got 0"),
    "batch": (
        ["train", "--batch-size", "2000"],
        "fewer than a batch of 2000: set --batch-size to 1437",
    ),
    "both": (["train", "--standardize"], "cannot be both standardized and binarized"),
    "seed": (["train", "--seed", "-1"], "seed must not be negative, got -1"),
    "no run": (["evaluate", "nowhere"], "nowhere holds no run: there is no config.json in it"),
    "no diagnosis": (
        ["diagnose", "nowhere"],
        "nowhere holds no run: there is no config.json in it",
    ),
    "no plot": (["plot", "nowhere"], "nowhere holds no run"),
    "no sample": (["sample", "nowhere"], "nowhere holds no run"),
    "no resume": (["train", "--resume"], "holds no run"),
    "labels": (["train", "--labels", "kind"], "digits has labels of its own: leave --labels out"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_mistakes_get_one_line_and_exit_code_2(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = latente(*arguments, code=2)
    assert message in result.stderr
    assert result.stderr.strip().count("\n") == 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_a_run_is_left_alone(folder):
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    result = latente("train", "--out", folder, code=2)
    assert f"{folder} already holds a run" in result.stderr
    assert "--resume" in result.stderr
    assert before == {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_truncated_checkpoint_is_named(folder, tmp_path):
    for name in ("config.json", "metrics.csv"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    content = (folder / "checkpoint.safetensors").read_bytes()
    (tmp_path / "checkpoint.safetensors").write_bytes(content[:1000])
    for command in ("evaluate", "plot", "sample"):
        assert "is truncated" in latente(command, tmp_path, code=2).stderr


def test_resume_goes_on_with_its_own_settings(tmp_path):
    out = tmp_path / "run"
    latente("train", *SMALL, "--out", out, "--latent-dim", 3)
    result = latente("train", "--out", out, "--resume", "--latent-dim", 2, code=2)
    assert "--resume continues with --latent-dim 3, not 2" in result.stderr
    few = latente("train", "--out", out, "--resume", "--epochs", 1, code=2)
    assert "has 2 epochs done already" in few.stderr
    latente("train", "--out", out, "--resume", "--epochs", 4)
    assert len(epochs_of(out)) == 4
    assert json.loads((out / "config.json").read_text())["plan"]["latent_dim"] == 3


def test_ctrl_c_leaves_a_run_to_go_on_with(tmp_path):
    """A real process, a real interrupt, in the middle of its epochs."""
    out = tmp_path / "run"
    command = [sys.executable, "-m", "latente.inference.cli", "train", "--out", str(out)]
    with subprocess.Popen(
        [*command, "--epochs", "1000000"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # A test run in the background has interrupts switched off, and would pass that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            deadline = time.monotonic() + 120
            while not (out / "metrics.csv").exists() and time.monotonic() < deadline:
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert f"latente train --out {out} --resume" in errors
    assert {path.name for path in out.iterdir()} == {
        "config.json", "checkpoint.safetensors", "metrics.csv"
    }  # fmt: skip
    done = len(epochs_of(out))
    latente("train", "--out", out, "--resume", "--epochs", done + 2)
    epochs = [row["epoch"] for row in epochs_of(out)]
    assert epochs == [str(epoch + 1) for epoch in range(done + 2)]
