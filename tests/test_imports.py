"""What an import loads, and what it leaves until it is used."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["latente.inference", "latente.inference.cli"])
def test_an_import_loads_nothing_heavy(module):
    """``latente --help`` answers at once: what is heavy is loaded when it is first used."""
    heavy = "{'torch', 'pyro', 'numpy', 'scipy', 'sklearn', 'pandas', 'matplotlib'}"
    check = f"import sys, {module}; loaded = {heavy} & {{*sys.modules}}; assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", check], check=True)


def test_the_public_names_load_what_a_fit_needs_and_no_more():
    """Pictures, tables and posteriors' statistics are loaded by what draws or writes them."""
    use = "from latente import guides, inference, models; [inference.fit, inference.diagnose]"
    heavy = "{'matplotlib', 'pandas', 'pyarrow', 'sklearn', 'xarray', 'arviz_stats'}"
    check = f"import sys; {use}; loaded = {heavy} & {{*sys.modules}}; assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", check], check=True)
