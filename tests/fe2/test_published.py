# SPDX-License-Identifier: MIT
"""Boron/aluminium, square array of 47 % circular fibres: published effective moduli, and what is known exactly of them.

The published values are as cited in later papers: C. T. Sun & R. S. Vaidya, Compos. Sci. Technol. 56, 1996, 171-179,
and Z. Xia, Y. Zhang & F. Ellyin, Int. J. Solids Struct. 40, 2003, 1907-1921, both by finite elements on the cell of one
fibre. The fibre is along 1 (x). `benchmarks/bench_moduli.py` does the same on fine meshes.
"""

import numpy as np
import pytest

pytest.importorskip("dolfinx")

import references as ref
from mpi4py import MPI

import fe2
import meshes

ALUMINIUM, BORON = (68.3, 0.30), (379.3, 0.10)  # E [GPa], ν
FRACTION = 0.47
SUN_VAIDYA = {"E1": "215", "E2": "144", "G12": "57.2", "G23": "45.9", "nu12": "0.19", "nu23": "0.29"}
XIA = {"E1": "214", "E2": "143", "G12": "54.2", "G23": "45.7", "nu12": "0.195", "nu23": "0.253"}

RADIUS = np.sqrt(FRACTION / np.pi)
MATERIALS = {
    meshes.MATRIX: fe2.LinearElastic.from_young_poisson(*ALUMINIUM),
    meshes.INCLUSION: fe2.LinearElastic.from_young_poisson(*BORON),
}
PHASES = fe2.bulk_shear(*ALUMINIUM), fe2.bulk_shear(*BORON)


def spatial(mesh_size=0.2, thickness=0.2):
    """The 3D cell, with curved interfaces, and its stiffness."""
    fibre = meshes.Cylinder((0.0, 0.0, 0.0), "x", RADIUS)
    cell = meshes.rve([fibre], MPI.COMM_SELF, mesh_size=mesh_size, size=(thickness, 1.0, 1.0), order=2)
    return cell, fe2.RVE(cell, MATERIALS).homogenise(np.zeros(6)).tangent[0]


def plane(mesh_size):
    """Stiffness of its section in plane strain, in the directions 2 and 3."""
    cell = meshes.rve([meshes.Circle((0.0, 0.0), RADIUS)], MPI.COMM_SELF, mesh_size=mesh_size, order=2)
    return fe2.RVE(cell, MATERIALS).homogenise(np.zeros(3)).tangent[0]


@pytest.fixture(scope="module")
def coarse():
    return spatial()


@pytest.fixture(scope="module")
def constants(coarse):
    return fe2.engineering_constants(coarse[1])._asdict()


def last_digit(printed):
    """Half a unit in the last digit."""
    return 0.5 * 10.0 ** -len(printed.partition(".")[2])


@pytest.mark.parametrize("name", XIA)
def test_published_values(constants, name):
    """Between the two published values, which are rounded, and within 1 % of the one for periodic conditions.

    The two differ by up to 15 % (nu23), so that the interval alone says little of some constants. Their own error can
    be seen in E1, for which 214 is 0.6 % below Hill's lower bound, 215.3; hence 1 %.
    """
    low, high = sorted((SUN_VAIDYA[name], XIA[name]), key=float)
    assert float(low) - last_digit(low) <= constants[name] <= float(high) + last_digit(high)
    assert constants[name] == pytest.approx(float(XIA[name]), rel=0.01)


def test_square_symmetry(constants):
    """Directions 2 and 3 are alike, to the accuracy of the mesh (3e-4 in E2)."""
    assert constants["E3"] == pytest.approx(constants["E2"], rel=3e-4)
    assert constants["G13"] == pytest.approx(constants["G12"], rel=3e-4)
    assert constants["nu13"] == pytest.approx(constants["nu12"], rel=3e-4)


def test_axial_constants_are_within_hills_bounds(constants, coarse):
    """For E1 they are 0.8 % apart, and the rule of mixtures is outside of both."""
    fraction = coarse[0].fractions()[meshes.INCLUSION]
    young, poisson = ref.hill_axial(*PHASES, fraction)
    assert young[0] < constants["E1"] < young[1]
    assert poisson[0] < constants["nu12"] < poisson[1]
    mixture = [(1 - fraction) * m + fraction * b for m, b in zip(ALUMINIUM, BORON)]
    assert not young[0] < mixture[0] < young[1]
    assert not poisson[0] < mixture[1] < poisson[1]


def test_axial_shear_is_rayleighs(coarse, constants):
    """The array's G12 = G13 in closed form, which displacement elements overestimate: here by 2e-4."""
    exact = ref.square_array_shear(PHASES[0][1], PHASES[1][1], coarse[0].fractions()[meshes.INCLUSION])
    for name in ("G12", "G13"):
        assert 0 < constants[name] / exact - 1 < 5e-4


def test_a_uniform_strain_that_leaves_the_fibre_in_equilibrium(coarse):
    """The axial and transverse strain for which both phases have the same transverse stress is uniform throughout.

    This is what Hill's relations between E1, nu12 and the plane-strain bulk modulus come from. It lies in the finite
    element space, so the stiffness applied to it gives the mean of the phases' stresses, to rounding.
    """
    cell, stiffness = coarse
    fractions = cell.fractions()
    phase = {t: ref.linear(*PHASES[t - 1])(np.zeros(6))[1] for t in fractions}
    axial, across = np.eye(6)[0], np.eye(6)[1] + np.eye(6)[2]
    jump = phase[meshes.INCLUSION] - phase[meshes.MATRIX]
    strain = axial - (jump @ axial)[1] / (jump @ across)[1] * across
    assert (jump @ strain)[1:] == pytest.approx(0, abs=1e-12)
    mean = sum(f * phase[t] @ strain for t, f in fractions.items())
    assert stiffness @ strain == pytest.approx(mean, rel=1e-9, abs=1e-9 * abs(mean).max())


def test_the_section_in_plane_strain_has_the_same_stiffness(coarse):
    """Triangles against tetrahedra on another mesh.

    Displacement elements overestimate, so the coarse cell lies above the fine section, whose own error is some 1e-5; it
    does by less than 1e-3 (16 edges around the fibre).
    """
    fine, rough = plane(0.03), coarse[1][1:4, 1:4]
    excess = np.linalg.eigvalsh(np.linalg.solve(fine, rough - fine))
    assert excess.min() > -2e-5
    assert excess.max() < 1e-3


def test_the_thickness_of_the_cell_does_not_matter(coarse):
    """The fields do not vary along the fibre; what is left is the difference of two meshes."""
    thin = spatial(thickness=0.1)[1]
    assert abs(thin - coarse[1]).max() < 5e-4 * abs(thin).max()
