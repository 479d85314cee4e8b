"""Whether every recipe's two-epoch history is the same, bit for bit, in another commit and here.

``python benchmarks/compare_histories.py d75e456`` checks that commit out in a folder, trains each
recipe for two epochs with both, on one thread of the CPU, and compares all figures but the times.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

TRAIN = """
import json, sys, warnings
from pathlib import Path
import torch
torch.set_num_threads(1)
from latente.inference import RECIPES
try:
    from latente.inference.recipes.plan import Plan, complete
    from latente.inference.recipes.train import train
except ImportError:  # 0.1
    from latente.inference.plans import Plan, complete, train

folder, files = Path(sys.argv[1]), json.loads(sys.argv[2])
histories = {}
for name in json.loads(sys.argv[3]) or RECIPES:
    levels = getattr(RECIPES[name], "levels", "one")
    if name == "vae-table" or levels != "one":  # 0.1 has neither
        continue
    data = next((path for part, path in files.items() if part in name), "digits")
    plan = complete(Plan(recipe=name, data=data, epochs=2, latent_dim=3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = train(plan, folder / name, device="cpu", show_progress=False)
    histories[name] = [
        {column: float(value).hex() for column, value in row.items()
         if column not in ("seconds", "rows_per_second")}
        for row in run.history
    ]
print(json.dumps(histories))
"""


def write_data(folder: Path) -> dict[str, str]:
    """Made data for the recipes that are not for the digits: their files, by a part of the name."""
    import numpy as np

    rng = np.random.default_rng(0)
    made = {
        "poisson": rng.poisson(3.0, (300, 6)).astype("float32"),
        "negative-binomial": rng.poisson(3.0, (300, 6)).astype("float32"),
        "categorical": rng.integers(0, 4, (300, 6)).astype("float32"),
        "vae-normal": rng.normal(size=(300, 6)).astype("float32"),
        "student": rng.normal(size=(300, 6)).astype("float32"),
        "vae-logistic": rng.integers(0, 256, (300, 8, 8)).astype("uint8"),
    }
    for name, values in made.items():
        np.save(folder / f"{name}.npy", values)
    return {name: str(folder / f"{name}.npy") for name in made}


def histories(
    checkout: Path, folder: Path, files: dict[str, str], recipes: list[str]
) -> dict[str, list]:
    """The histories of some recipes, or of all, by the code of a checkout."""
    package = folder / "path" / "latente"
    package.mkdir(parents=True)
    for part in ("models", "guides", "inference"):
        (package / part).symlink_to(checkout / part)
    settings = {**os.environ, "PYTHONPATH": str(package.parent), "OMP_NUM_THREADS": "1"}
    given = str(folder / "runs"), json.dumps(files), json.dumps(recipes)
    command = [sys.executable, "-c", TRAIN, *given]
    done = subprocess.run(
        command, env=settings, cwd=folder, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("commit", help="what this checkout is compared with")
    commit = parser.parse_args().commit
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_data(folder)
        old = folder / "old-checkout"
        subprocess.run(
            ["git", "worktree", "add", "-q", "--detach", old, commit], cwd=ROOT, check=True
        )
        try:
            before = histories(old, folder / "before", files, [])
            after = histories(ROOT, folder / "after", files, [*before])
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", old], cwd=ROOT, check=True)
    for recipe, history in before.items():
        print(f"{recipe:28} {'same' if history == after.get(recipe) else 'DIFFERS'}")
    equal = sum(history == after.get(recipe) for recipe, history in before.items())
    print(f"{equal} of {len(before)} recipes of {commit} have the same history, bit for bit")
    sys.exit(equal < len(before))


if __name__ == "__main__":
    main()
