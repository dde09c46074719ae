# SPDX-License-Identifier: MIT
"""Operator networks of the first release: their files, options and names."""

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch

import spon

DATA = Path(__file__).parent / "data"
# Predictions at dof 5 for two samples, by the program that wrote the files.
PREDICTED = {
    "fluxes": [0.5678403347647868, 0.1344171883826177],
    "mgno": [-0.10646547455892909, 0.754700053330994],
    "attention": [0.0014440211497825102, -0.00793443163942679],
}


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("processor", PREDICTED)
def test_files_of_the_first_release_are_loaded(processor, tmp_path):
    network = spon.load(DATA / f"{processor}_first_release.safetensors")
    assert type(network) is spon.OperatorNetwork
    assert network.processor_name == processor and network.structure == spon.Structure(linear_in=[1], integral=[None])
    fields = noise(18, 2).exp(), noise(16, 2, seed=1)
    predicted = network(*fields).detach()
    expected = torch.tensor(PREDICTED[processor], dtype=torch.float64)
    torch.testing.assert_close(predicted[5], expected, rtol=1e-12, atol=1e-14)
    network.save(tmp_path / "again")
    assert torch.equal(spon.load(tmp_path / "again")(*fields).detach(), predicted)


def test_old_options_and_names_warn():
    pytest.importorskip("dolfinx")
    from mpi4py import MPI
    from dolfinx import fem, mesh

    V = fem.functionspace(mesh.create_unit_square(MPI.COMM_SELF, 4, 4), ("P", 1))
    with pytest.warns(
        DeprecationWarning, match=r"linear_in: now structure=spon\.Structure\(linear_in=\.\.\.\)"
    ) as seen:
        network = spon.OperatorNetwork(input=V, output=V, linear_in=[0])
    assert seen[0].filename == __file__
    assert network.structure == spon.Structure(linear_in=[0])
    with pytest.warns(DeprecationWarning, match="spon.Operator is now"):
        make = spon.Operator
    with pytest.warns(DeprecationWarning, match="increment: now structure"):
        other = make(network.discretisation, processor="messages", increment=True)
    assert type(other) is spon.OperatorNetwork and other.structure.increment
    with pytest.warns(DeprecationWarning, match="spon.load_operator is now"):
        assert spon.load_operator is spon.load
