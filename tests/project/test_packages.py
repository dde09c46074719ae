# SPDX-License-Identifier: MIT
"""Versions, types, sizes of modules, signatures and docstrings of the four packages."""

import re

import pytest
from sources import PACKAGES, PROJECT, Public, argument_faults, modules, public

MOST_LINES = 400
MOST_PARAMETERS = 10

# Functions with more parameters, and why.
MANY_PARAMETERS = {
    "meshes.inclusions.rve": "independent options of a mesh generator with defaults; three are needed",
    "spon.operators.network.OperatorNetwork": "spaces, their conditions and the processor; two are needed",
}


def test_one_version():
    versions = {}
    for package in PACKAGES:
        text = (PROJECT / package / "__init__.py").read_text()
        versions[package] = re.findall(r'^__version__ = "(\d+\.\d+\.\d+)"$', text, re.M)
    assert all(len(found) == 1 for found in versions.values()), versions
    assert len({found[0] for found in versions.values()}) == 1, versions


def test_version_of_the_distribution():
    """As setuptools evaluates it, from a package that it does not import."""
    configuration = pytest.importorskip("setuptools.config.pyprojecttoml")
    project = configuration.read_configuration(PROJECT / "pyproject.toml")["project"]
    assert f'__version__ = "{project["version"]}"' in (PROJECT / "meshes" / "__init__.py").read_text()


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_are_typed(package):
    assert (PROJECT / package / "py.typed").is_file()


def test_modules_are_short():
    lines = {name: len(module.path.read_text().splitlines()) for name, module in modules().items()}
    long = {name: count for name, count in lines.items() if count > MOST_LINES}
    assert not long


def test_signatures_are_short():
    long = {t.name: len(t.parameters) for t in public() if t.is_function and len(t.parameters) > MOST_PARAMETERS}
    assert long.keys() <= MANY_PARAMETERS.keys(), long
    assert MANY_PARAMETERS.keys() <= long.keys(), "an exception that is no longer needed"


def test_each_parameter_has_its_line():
    faults = [fault for thing in public() for fault in argument_faults(thing)]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("docstring", "faults"),
    [
        ("Sum.", 0),
        (
            "Sum.\n\nArgs:\n    a: one: first.\n    b: another,\n        long.\n\nRaises:\n    TypeError: text.",
            0,
        ),
        ("Sum.\n\nArgs:\n    a: one. b: another.", 1),
        ("Sum.\n\nArgs:\n    a, b: numbers.", 2),
        ("Sum.\n\nArgs:\n    a: one.", 1),
        ("Sum.\n\nArgs:\n    a: one.\n    b: another.\n    c: a third.", 1),
        ("Sum.\n\nArgs:\n    a: one.\n    b: another.\n\nRaises:\n    TypeError: no number. ValueError: negative.", 1),
        ("Sum. a: one. b: another.", 1),
    ],
)
def test_faults_are_found(docstring, faults):
    assert len(argument_faults(Public("add", ("a", "b"), docstring, True))) == faults
