# SPDX-License-Identifier: MIT
"""Models and operators on a machine that has torch, NumPy, SciPy and safetensors, and no FEniCSx."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("torch")

import torch
from mpi4py import MPI
from dolfinx import fem, mesh

import spon

PROJECT = Path(__file__).resolve().parents[2]
# All that the project uses elsewhere. That no more is needed, a virtual environment shows: `make release`.
ABSENT = (
    "meshes fe2 coupling dolfinx ufl basix petsc4py mpi4py h5py rich gmsh meshio matplotlib pyvista PIL cffi triton"
)

USE = """
import sys

sys.modules.update(dict.fromkeys(sys.argv[1].split()))  # an import of these fails
import torch

import spon

folder = sys.argv[2]
model, network = spon.load(folder + "/model.safetensors"), spon.load(folder + "/operator.safetensors")
inputs = torch.load(folder + "/inputs.pt", weights_only=True)
stress, tangent = spon.Evaluator(model)(inputs["strain"].numpy())
with torch.no_grad():
    found = {"by torch": model(inputs["strain"])[0], "output": network(inputs["f"])}
found |= {"stress": stress, "tangent": tangent}
torch.save({name: torch.as_tensor(value) for name, value in found.items()}, folder + "/outputs.pt")
"""


def test_models_and_operators_need_torch_numpy_scipy_and_safetensors(trained, tmp_path):
    V = fem.functionspace(mesh.create_unit_square(MPI.COMM_SELF, 6, 6), ("P", 1))
    network = spon.OperatorNetwork(input=V, output=V)
    network.save(tmp_path / "operator.safetensors")
    trained.model.save(tmp_path / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    strain = 0.02 * (2 * torch.rand(5, 3, generator=generator, dtype=torch.float64) - 1)
    f = torch.randn(V.dofmap.index_map.size_local, 3, generator=generator, dtype=torch.float64)
    torch.save({"strain": strain, "f": f}, tmp_path / "inputs.pt")

    environment = os.environ | {"PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-c", USE, ABSENT, str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    stress, tangent = spon.Evaluator(trained.model)(strain.numpy())
    with torch.no_grad():
        right = {"stress": stress, "tangent": tangent, "by torch": trained.model(strain)[0], "output": network(f)}
    found = torch.load(tmp_path / "outputs.pt", weights_only=True)
    for name, value in right.items():
        assert torch.equal(found[name], torch.as_tensor(value)), name
