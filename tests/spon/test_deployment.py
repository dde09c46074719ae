# SPDX-License-Identifier: MIT
"""Models and operators on a machine that has torch, NumPy, SciPy and safetensors, and no FEniCSx."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("torch")

import deployment

PROJECT = Path(__file__).resolve().parents[2]
# All that the project uses elsewhere. `make release` evaluates the same in a virtual environment without these.
ABSENT = "meshes fe2 coupling dolfinx ufl basix petsc4py mpi4py h5py rich gmsh meshio matplotlib pyvista PIL triton"


def test_models_and_operators_need_torch_numpy_scipy_and_safetensors(trained, tmp_path):
    deployment.write(tmp_path, trained.model)
    command = [sys.executable, deployment.DEPLOYED, tmp_path, *ABSENT.split()]
    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert deployment.largest_difference(tmp_path) == 0.0
