# SPDX-License-Identifier: MIT
"""Hashin-Shtrikman bounds on random cells, and the dilute limit.

The bounds are known for isotropic composites, but for the *means* below they hold for every periodic cell. Take a
homogeneous comparison medium C₀ no stiffer than either phase. For each polarisation field p the energy is bounded from
below (Hashin & Shtrikman, J. Mech. Phys. Solids 10, 1962, 335-342; Willis, J. Mech. Phys. Solids 25, 1977, 185-202),

    E:C*:E ≥ E:C₀:E + 2 ⟨p⟩:E − ⟨p : (C − C₀)⁻¹ : p⟩ − Σ_ξ p̂(ξ) : Γ₀(ξ/|ξ|) : p̂(ξ),   the sum without ξ = 0.

For E = I and p = q(x) I, I:Γ₀(n):I does not depend on the direction n if C₀ is isotropic (1/(k₀ + G₀) in the plane),
so that the sum is ⟨(q − ⟨q⟩)²⟩ times it whatever the arrangement of the phases, its spectrum or symmetry. With q = 0 in
the phase that C₀ is made of and the best constant q in the other one, Hashin and Shtrikman's bound follows for

    k* = I:C*:I / dim².

Likewise for shear: summed over an orthonormal basis s_a of the deviators, with p = q(x) s_a for E = s_a, the sum of
s_a:Γ₀(n):s_a is independent of n, and their bound follows for the mean G* = Σ s_a:C*:s_a / (2 · number of deviators).
A comparison medium that is no softer than either phase turns the sign around and gives the upper bounds. (Both means
are those over all rotations of the cell; of an isotropic cell they are the moduli themselves.)

Displacement elements overestimate E:C*:E, so the lower bounds hold for the discrete cell too, and the upper ones up to
its error (some 1e-3 on these meshes).
"""

import numpy as np
import pytest

pytest.importorskip("dolfinx")

import references as ref
from mpi4py import MPI

import fe2
import meshes

SOFT, STIFF = (10.0, 3.0), (80.0, 40.0)  # K, G
SEEDS = range(3)
CONDITIONS = ("uniform traction", "periodic", "linear displacement")


def means(stiffness):
    """k* and G* of a Mandel stiffness: I:C:I / dim², and what is left of the trace over the deviators."""
    d = len(stiffness)
    dim = fe2.mandel.dimension(d)
    identity = fe2.mandel.vector(np.eye(dim))
    bulk = identity @ stiffness @ identity / dim**2
    return np.array([bulk, (np.trace(stiffness) - dim * bulk) / (2 * (d - 1))])


def stiffness(cell, matrix, inclusion=None, boundary="periodic"):
    phases = {meshes.MATRIX: matrix, meshes.INCLUSION: inclusion}
    materials = {t: fe2.LinearElastic(*p) for t, p in phases.items() if p}
    rve = fe2.RVE(cell, materials, boundary=boundary)
    return rve.homogenise(np.zeros(rve.strain_size)).tangent[0]


def packed(seed, **more):
    circles = meshes.packing(0.4, count=5, seed=seed, min_gap=0.02, **more)
    return meshes.rve(circles, MPI.COMM_SELF, mesh_size=0.12, order=2)


@pytest.fixture(scope="module")
def results():
    """Matrix, inclusion → per seed the bounds (2, 2) and per boundary condition the means (2,) of a random cell."""
    cells = [packed(seed) for seed in SEEDS]
    out = {}
    for pair in ((SOFT, STIFF), (STIFF, SOFT)):
        out[pair] = [
            (
                np.array(ref.hashin_shtrikman(*pair, cell.fractions()[meshes.INCLUSION], 2)),
                {b: means(stiffness(cell, *pair, boundary=b)) for b in CONDITIONS},
            )
            for cell in cells
        ]
    return out


@pytest.mark.parametrize("pair", [(SOFT, STIFF), (STIFF, SOFT)])
def test_random_cells_are_within_the_bounds(results, pair):
    for bounds, found in results[pair]:
        assert (bounds[:, 0] < found["periodic"]).all()
        assert (found["periodic"] < bounds[:, 1]).all()


def test_the_bounds_are_tight(results):
    """What is outside of them: Voigt's and Reuss' means, and the wrong boundary condition on the same cells.

    Stiff inclusions come close to the lower bound, so that uniform tractions, which are too soft, fall below it; soft
    ones to the upper bound, and linear displacements, too stiff, go beyond where the edges of the cell cut many.
    """
    for pair, cells in results.items():
        for bounds, _ in cells:
            f = np.array([0.6, 0.4])
            moduli = np.array([[ref.plane_bulk(p) for p in pair], [p[1] for p in pair]])
            assert (moduli @ f > bounds[:, 1]).all()
            assert (1 / ((1 / moduli) @ f) < bounds[:, 0]).all()
    for bounds, found in results[SOFT, STIFF]:
        assert (found["uniform traction"] < bounds[:, 0]).all()
    beyond = [found["linear displacement"] / bounds[:, 1] for bounds, found in results[STIFF, SOFT]]
    assert np.max(beyond) > 1.005


def test_voids():
    """With voids the lower bounds are zero; traction-free holes cost the bulk modulus more than their volume."""
    cell = packed(1, tag=meshes.VOID)
    porosity = 1 - cell.fractions()[meshes.MATRIX]
    assert porosity == pytest.approx(0.4, abs=1e-4)
    bounds = np.array(ref.hashin_shtrikman(STIFF, (0.0, 0.0), porosity, 2))
    found = means(stiffness(cell, STIFF))
    assert (bounds[:, 0] < found).all()
    assert (found < bounds[:, 1]).all()


def test_spheres():
    """In 3D, stiff spheres: the lower bounds, which hold on a coarse mesh as well; uniform tractions violate them."""
    spheres = meshes.packing(0.25, count=2, seed=1, min_gap=0.08, dim=3)
    cell = meshes.rve(
        spheres, MPI.COMM_SELF, size=(1.0, 1.0, 1.0), mesh_size=0.4, order=2, edges_per_circle=6, cells_per_gap=1
    )
    bounds = np.array(ref.hashin_shtrikman(SOFT, STIFF, cell.fractions()[meshes.INCLUSION], 3))
    traction, periodic = (means(stiffness(cell, SOFT, STIFF, b)) for b in ("uniform traction", "periodic"))
    assert (traction < bounds[:, 0]).all()
    assert (bounds[:, 0] < periodic).all()
    assert (periodic < bounds[:, 1]).all()


def test_dilute_fibre():
    """One fibre in a hundred times its area: the strain inside is uniform, and that of a fibre in an infinite matrix.

    Eshelby (Proc. R. Soc. Lond. A 241, 1957): ε_i/ε∞ = (κ_m + z)/(κ_i + z), with κ and z those of the bounds. A mean
    strain E of the cell is (1 − f) ε∞ + f ε_i up to the interaction with the images, which for the means is of order f²
    (1e-4) and for one shear of order f (1e-2); the mesh adds some 1e-4 to the means and 1e-3 to the local values.
    """
    fraction = 0.01
    cell = meshes.rve(
        [meshes.Circle((0.0, 0.0), np.sqrt(fraction / np.pi))],
        MPI.COMM_SELF,
        mesh_size=0.1,
        order=2,
        edges_per_circle=48,
    )
    rve = fe2.RVE(cell, {meshes.MATRIX: fe2.LinearElastic(*SOFT), meshes.INCLUSION: fe2.LinearElastic(*STIFF)})
    strains = np.array([[1.0, 1.0, 0.0], [1.0, -1.0, 0.0], [0.0, 0.0, np.sqrt(2)]])
    states = rve.homogenise(strains).state
    inside = cell.cell_tags.find(meshes.INCLUSION)
    found = []
    for state, strain in zip(states, strains):
        body = rve.set_state(state)
        local, weights = body.strain()[inside], body.weights[inside]
        mean = np.average(local @ strain / 2, weights=weights)
        deviation = np.average(((local - mean * strain) ** 2).sum(axis=-1), weights=weights)
        assert deviation < (5e-3 * mean) ** 2
        found.append(mean)
    k, g = ref.plane_bulk(SOFT), SOFT[1]
    for (matrix, fibre), z, mean, tolerance in (
        ((k, ref.plane_bulk(STIFF)), g, found[0], fraction**2),
        ((g, STIFF[1]), g * k / (k + 2 * g), (found[1] + found[2]) / 2, 10 * fraction**2),
    ):
        dilute = (matrix + z) / (fibre + z)
        expected = dilute / (1 - fraction + fraction * dilute)
        assert mean == pytest.approx(expected, rel=tolerance)
        assert abs(mean / dilute - 1) > fraction / 2  # fine enough to tell the far strain from the mean strain
