# SPDX-License-Identifier: MIT
"""RVEs of several periods of another."""

import numpy as np
import pytest
from mpi4py import MPI

import fe2
import meshes

STIFF, SOFT = fe2.LinearElastic(200.0, 90.0), fe2.LinearElastic(5.0, 2.0)


def boxes(n):
    labels = np.array([[1, 1, 2], [1, 2, 2], [0, 1, 1]])
    return meshes.from_labels(np.tile(labels, n), MPI.COMM_SELF, names={"soft": 1, "stiff": 2})


def test_several_periods_have_the_fractions_and_the_stiffness_of_one():
    circle = meshes.Circle((0.45, 0.1), 0.3)  # cuts a side
    hexagon = meshes.rve([circle], MPI.COMM_SELF, mesh_size=0.3, order=2)
    for one, counts in ((boxes(1), (2, 3)), (hexagon, (3, 1))):
        several = meshes.tiled(one, counts)
        assert several.fractions() == pytest.approx(one.fractions())
        assert several.names == one.names
        assert np.allclose(several.period, np.array(counts)[:, None] * meshes.known_period(one))
        assert sum(several.box) == pytest.approx(sum(one.box), abs=1e-12)
        count = [m.mesh.topology.index_map(2).size_local for m in (one, several)]
        assert count[1] == count[0] * np.prod(counts)
        c = [fe2.RVE(m, {1: SOFT, 2: STIFF}).homogenise(np.zeros(3)).tangent for m in (one, several)]
        assert np.allclose(c[0], c[1], rtol=1e-9, atol=1e-9)


def test_tiles_are_the_mesh_of_all_periods():
    whole, several = boxes((2, 2)), meshes.tiled(boxes((1, 1)), (2, 2))
    sizes = [m.mesh.topology.index_map(0).size_local for m in (whole, several)]
    assert sizes[0] == sizes[1]


def test_3d_and_wrong_counts():
    one = meshes.from_labels(np.array([[[1, 2]]]), MPI.COMM_SELF)
    assert meshes.tiled(one, (1, 2, 2)).fractions() == pytest.approx({1: 0.5, 2: 0.5})
    for counts in ((2, 2), (2, 0, 1), (1.5, 1, 1)):
        with pytest.raises(meshes.MeshError, match="3 positive integers"):
            meshes.tiled(one, counts)
