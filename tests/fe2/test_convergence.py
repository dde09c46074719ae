# SPDX-License-Identifier: MIT
"""Order of convergence on a smooth problem that is known exactly.

The moduli vary smoothly along the diagonal of the cell alone, so that the medium is a laminate of infinitely many
layers, oblique to the mesh. With elements of degree p the error of the fluctuation is of order p in the energy norm;
that of the effective energy, and with it of the stiffness, is the square of it, hence of order 2p (Strang & Fix, An
Analysis of the Finite Element Method, 1973, ch. 1 and 4), if the quadrature keeps up.
"""

import numpy as np
import pytest

pytest.importorskip("dolfinx")

import references as ref
import ufl
from mpi4py import MPI
from dolfinx import fem

import fe2
import meshes

NORMAL = np.array([1.0, 1.0, 0.0]) / np.sqrt(2)
STRAIN = np.array([0.01, -0.004, 0.02])


def bulk(s, sin):
    return 10 * (1 + 0.6 * sin(2 * np.pi * s))


def shear(s, sin):
    return 4 * (1 + 0.5 * sin(2 * np.pi * s + 1))


def graded(mesh):
    """The medium as a material; s = x + y is the place in the period."""
    x = ufl.SpatialCoordinate(mesh)
    s = x[0] + x[1]

    def energy(strain):
        e = ufl.dev(strain)
        return bulk(s, ufl.sin) / 2 * ufl.tr(strain) ** 2 + shear(s, ufl.sin) * ufl.inner(e, e)

    return fe2.Energy(energy)


@pytest.fixture(scope="module")
def exact():
    """Stiffness (3, 3), and the local strain as a function of s."""
    stiffness, local = ref.graded_laminate(
        lambda s: ref.linear(bulk(s, np.sin), shear(s, np.sin))(np.zeros(6))[1], NORMAL, ref.spatial(STRAIN)
    )
    return stiffness[np.ix_(ref.PLANE, ref.PLANE)], lambda s: local(s)[ref.PLANE]


def errors(exact, degree, n, quads):
    """Of stiffness, energy and local strain (in L²), each relative."""
    stiffness, local = exact
    cell = meshes.laminate((1.0,), MPI.COMM_SELF, cells=(n, n), quads=quads)
    rve = fe2.RVE(cell, {1: graded(cell.mesh)}, degree=degree)
    h = rve.homogenise(STRAIN)
    body = rve.set_state(h.state[0])
    points = fem.Expression(ufl.SpatialCoordinate(cell.mesh), body.points).eval(cell.mesh, body.cells)
    s = points.reshape(len(body.cells), -1, 2).sum(axis=-1)
    difference = body.strain() - np.array([[local(v) for v in row] for row in s])
    energy = STRAIN @ stiffness @ STRAIN / 2
    return (
        abs(h.tangent[0] - stiffness).max() / abs(stiffness).max(),
        abs(h.energy[0] - energy) / energy,
        np.sqrt(np.einsum("cq,cqi->", body.weights, difference**2)) / np.linalg.norm(STRAIN),
    )


@pytest.mark.parametrize("quads", [False, True])
@pytest.mark.parametrize("degree, coarsest", [(1, 12), (2, 8), (3, 6)])
def test_order(exact, degree, coarsest, quads):
    """2p, 2p and p, of three meshes between the last two; 0.25 for what is left of higher powers of h there."""
    found = np.array([errors(exact, degree, coarsest * 2**k, quads) for k in range(3)])
    order = np.log2(found[:-1] / found[1:])
    expected = degree * np.array([2, 2, 1])
    assert (abs(order[-1] - expected) < 0.25).all(), order
    assert (abs(order[-1] - expected) < abs(order[0] - expected) + 0.01).all(), order
