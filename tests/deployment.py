# SPDX-License-Identifier: MIT
"""A model and an operator for `deployed.py`, and what they predict here.

python3 tests/deployment.py write FOLDER      before deployed.py, where FEniCSx is
python3 tests/deployment.py compare FOLDER    after it
"""

import subprocess
import sys
from pathlib import Path

import torch
import trained
from mpi4py import MPI
from dolfinx import fem, mesh

import spon

DEPLOYED = Path(__file__).with_name("deployed.py")


def write(folder, model):
    """A model, an untrained operator network and their inputs."""
    V = fem.functionspace(mesh.create_unit_square(MPI.COMM_SELF, 6, 6), ("P", 1))
    spon.OperatorNetwork(input=V, output=V).save(folder / "operator.safetensors")
    model.save(folder / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    strain = 0.02 * (2 * torch.rand(5, 3, generator=generator, dtype=torch.float64) - 1)
    f = torch.randn(V.dofmap.index_map.size_local, 3, generator=generator, dtype=torch.float64)
    torch.save({"strain": strain, "f": f}, folder / "inputs.pt")


def largest_difference(folder):
    """Largest difference between the predictions of deployed.py and of this process, relative to the largest value."""
    found = torch.load(folder / "outputs.pt", weights_only=True)
    subprocess.run([sys.executable, DEPLOYED, folder], check=True)
    right = torch.load(folder / "outputs.pt", weights_only=True)
    assert found.keys() == right.keys() and len(right) == 4
    return max(float((found[name] - right[name]).abs().max() / right[name].abs().max()) for name in right)


if __name__ == "__main__":
    command, folder = sys.argv[1], Path(sys.argv[2])
    if command == "write":
        write(folder, trained.once(folder, MPI.COMM_SELF).model)
    else:
        difference = largest_difference(folder)
        print(f"largest relative difference: {difference:.1e}")
        # Another version of torch may sum in another order.
        sys.exit(difference > 1e-12)
