"""Every example in a docstring runs; every public name has a docstring."""

import doctest
import importlib
import inspect
import pkgutil

import pyro
import pytest

import latente.guides
import latente.inference
import latente.models

PACKAGES = (latente.models, latente.guides, latente.inference)
MODULES = [
    module.name
    for package in PACKAGES
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    options = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.testmod(importlib.import_module(name), optionflags=options)
    assert result.failed == 0
    pyro.clear_param_store()


def test_there_are_examples():
    tests = [
        test
        for name in MODULES
        for test in doctest.DocTestFinder().find(importlib.import_module(name))
        if test.examples
    ]
    assert len(tests) > 100


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_public_names_exist_and_are_documented(package):
    for name in package.__all__:
        part = getattr(package, name)
        if inspect.isclass(part) or inspect.isfunction(part):
            assert inspect.getdoc(part), name
    with pytest.raises(AttributeError, match="nonsense"):
        package.nonsense  # noqa: B018
