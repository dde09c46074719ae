# SPDX-License-Identifier: MIT
"""Every demo runs at its smallest size and writes the files that it announces."""

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from launch import outside_mpi

pytest.importorskip("dolfinx")
plt = pytest.importorskip("matplotlib.pyplot")

PROJECT = Path(__file__).parents[2]
# Demo → files that it leaves.
DEMOS = {
    "buckling": ["buckling.png"],
    "cells": ["cells.png"],
    "conduction": ["conduction.png", "fields.xdmf", "micro-1.xdmf"],
    "cook": ["cook.png", "fields.xdmf", "micro-1.xdmf", "micro-2.xdmf"],
    "elastomer": ["elastomer.png", "micro-1.xdmf", "micro-2.xdmf"],
    "elastoplastic": ["elastoplastic.png", "fields.xdmf", "micro-1.xdmf"],
    "equation": ["equation.png", "samples.h5"],
    "flow": ["flow.png", "network.safetensors"],
    "graded": ["graded.png", "modes.safetensors"],
    "homogenise": ["homogenise.png"],
    "incompressible": ["incompressible.png"],
    "loads": ["loads.png"],
    "own_energy": ["own_energy.png", "cell.msh", "model.safetensors"],
    "own_script": ["own_script.png"],
    "poisson": ["poisson.png", "network.safetensors"],
    "preconditioner": ["preconditioner.png"],
    "structures": ["structures.png", "model.safetensors"],
    "surrogate": ["surrogate.png", "model.safetensors"],
    "umat": ["umat.png", "cell.c", "cell.h"],
}


def test_all_demos_are_here():
    assert sorted(p.stem.removeprefix("demo_") for p in (PROJECT / "demos").glob("demo_*.py")) == sorted(DEMOS)


@pytest.mark.parametrize("name", DEMOS)
def test_demo(name, script, tmp_path):
    learning = (
        "cells",
        "equation",
        "flow",
        "graded",
        "own_energy",
        "poisson",
        "preconditioner",
        "structures",
        "surrogate",
        "umat",
    )
    if name == "umat" and not all(map(shutil.which, ("cc", "gfortran"))):
        pytest.skip("there is no gfortran, or no C compiler")
    if name in learning:
        pytest.importorskip("torch")
        pytest.importorskip("safetensors.torch")
    demo, options = PROJECT / "demos" / f"demo_{name}.py", ("--small", "--folder", str(tmp_path))
    # Those with most communication on two ranks, the others in serial to be quick.
    if name in ("elastoplastic", "equation", "surrogate"):
        environment = outside_mpi()
        environment["PYTHONPATH"] = os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")])
        command = ["mpirun", "-n", "2", sys.executable, str(demo), *options]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # so small a problem has strains outside of the trained range
            script(demo, *options)
        plt.close("all")
    for file in DEMOS[name]:
        assert (tmp_path / file).stat().st_size > 0
