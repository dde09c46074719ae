# SPDX-License-Identifier: MIT
"""Cells on grids in batches: the same discrete problems as those of `fe2.RVE`, one for all and all for themselves."""

import numpy as np
import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch
import ufl
from mpi4py import MPI
from dolfinx.mesh import compute_midpoints
from scipy.spatial.transform import Rotation

import coupling
import fe2
import meshes
import spon

MATERIALS = {
    1: fe2.SaturatingElastic(),
    2: fe2.LinearElastic(bulk=43452.381, shear=29918.0328),
    3: fe2.RambergOsgood(bulk=1000.0, shear=500.0, reference=10.0, alpha=0.3, exponent=3.0),
}


def discs(n, count, seed=0):
    """Labels (count, n, n) of cells with a disc each."""
    centres, x = np.random.default_rng(seed).uniform(0.35, 0.65, (count, 2)), (np.arange(n) + 0.5) / n
    far = (x[:, None] - centres[:, 0, None, None]) ** 2 + (x - centres[:, 1, None, None]) ** 2
    return 1 + (far < 0.09).astype(int)


def materials():
    return {tag: MATERIALS[tag] for tag in (1, 2)}


def strains(count, dim=2, size=0.03):
    return fe2.strain_sampling.box(count, dim, size, seed=1)


def near(found, right, tolerance):
    for name in ("stress", "tangent", "energy"):
        mine, other = getattr(found, name).numpy(), getattr(right, name)
        assert np.allclose(mine, other, rtol=0, atol=tolerance * abs(other).max()), name


@pytest.mark.parametrize("plane", ["strain", "stress"])
def test_it_is_the_exact_problem_in_the_plane(plane):
    labels = discs(8, 3)
    labels[2, :3] = 2  # and a lamina
    e = strains(3)
    found = coupling.grid_rves(labels, materials(), plane=plane).homogenise(torch.from_numpy(e))
    for k in range(3):
        cell = meshes.from_labels(labels[k], MPI.COMM_SELF)
        right = fe2.RVE(cell, materials(), degree=1, plane=plane).homogenise(e[k : k + 1])
        one = spon.GridResponse(*(getattr(found, name)[k : k + 1] for name in found.__slots__))
        near(one, right, 1e-9)
    assert torch.equal(found.tangent, found.tangent.mT)


def test_it_is_the_exact_problem_in_space():
    """On a grid that is no cube, with voxels that are none, and three phases."""
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 4, (2, 4, 3, 5))
    spacing = (0.25, 0.4, 0.2)
    e = strains(2, 3, 0.02)
    box = np.array(spacing) * labels.shape[1:]
    found = coupling.grid_rves(labels, MATERIALS, box=box).homogenise(torch.from_numpy(e))
    for k in range(2):
        cell = meshes.from_labels(labels[k], MPI.COMM_SELF, spacing=spacing)
        right = fe2.RVE(cell, MATERIALS, degree=1).homogenise(e[k : k + 1])
        one = spon.GridResponse(*(getattr(found, name)[k : k + 1] for name in found.__slots__))
        near(one, right, 1e-9)


RUBBERS = {1: fe2.NeoHookean(9.0, 2.0), 2: fe2.NeoHookean(60.0, 45.0), 3: fe2.MooneyRivlin(1.0, 0.3, 20.0)}
CONDUCTORS = {
    1: fe2.Conductive(1.0),
    2: fe2.Conductive(20.0),
    3: fe2.Energy(lambda g: ufl.inner(g, g) + ufl.inner(g, g) ** 2, measure="gradient"),
}


@pytest.mark.parametrize("materials, plane", [(RUBBERS, "strain"), (RUBBERS, "stress"), (CONDUCTORS, "strain")])
@pytest.mark.parametrize("dim", [2, 3])
def test_other_measures_are_the_exact_problem(materials, plane, dim):
    """At stretches of some twenty per cent and any rotation, and for linear and nonlinear conduction."""
    if dim == 3 and plane == "stress":
        pytest.skip("plane stress is plane")
    rng = np.random.default_rng(2)
    labels = rng.integers(1, 4, (2, 5, 4) if dim == 2 else (2, 4, 3, 3))
    e = rng.uniform(-0.2, 0.2, (2, materials[1].measure.size(dim)))
    if materials is RUBBERS:
        turn = Rotation.from_euler("z", 2.0).as_matrix()[:dim, :dim]
        e[1] = (turn @ (np.eye(dim) + e[1].reshape(dim, dim)) - np.eye(dim)).ravel()
    found = coupling.grid_rves(labels, materials, plane=plane).homogenise(e)
    for k in range(2):
        cell = meshes.from_labels(labels[k], MPI.COMM_SELF)
        right = fe2.RVE(cell, materials, degree=1, plane=plane).homogenise(e[k : k + 1])
        one = spon.GridResponse(*(getattr(found, name)[k : k + 1] for name in found.__slots__))
        near(one, right, 1e-9)


def test_a_rotation_alone_has_no_stress():
    turn = Rotation.from_euler("z", [[0.3], [3.0]]).as_matrix()[:, :2, :2] - np.eye(2)
    found = coupling.grid_rves(discs(6, 2), {1: RUBBERS[1], 2: RUBBERS[2]}).homogenise(turn.reshape(2, 4))
    assert abs(found.stress).max() < 1e-12
    with pytest.raises(spon.GridNotConverged, match="RVE 0"):
        coupling.grid_rves(discs(6, 1), {1: RUBBERS[1], 2: RUBBERS[2]}).homogenise([[-2.0, 0.0, 0.0, 0.0]])


def test_measures_do_not_mix():
    with pytest.raises(ValueError, match=r"gradient \(NeoHookean of tag 1\), gradient \(Conductive of tag 2\)"):
        coupling.grid_rves(discs(4, 1), {1: RUBBERS[1], 2: CONDUCTORS[2]})
    with pytest.raises(ValueError, match="the gradient of a scalar has no plane stress"):
        coupling.grid_rves(discs(4, 1), {1: CONDUCTORS[1], 2: CONDUCTORS[2]}, plane="stress")


@pytest.mark.parametrize("materials", [RUBBERS, CONDUCTORS])
def test_a_grid_law_of_another_measure_in_a_structure(materials):
    """The same structure with an exact law."""
    image = discs(4, 1)[0]
    bar = meshes.bar(MPI.COMM_SELF, size=(2.0, 1.0), n=(2, 1))
    chosen = {tag: materials[tag] for tag in (1, 2)}
    points = len(fe2.law_coordinates(bar))
    exact = fe2.ExactLaw(fe2.RVE(meshes.from_labels(image, MPI.COMM_SELF), chosen, degree=1))
    found = []
    for law in (coupling.GridLaw(np.broadcast_to(image, (points, 4, 4)), chosen, chunk=3), exact):
        assert law.measure is materials[1].measure
        problem = fe2.MacroProblem(bar, law)
        problem.prescribe("left", 0.0 if law.measure.scalar else (0.0, 0.0))
        problem.traction("right", 0.3 if law.measure.scalar else (0.3, 0.1))
        problem.solve(steps=1, log=None)
        found.append(problem.u.x.array)
    assert abs(found[0] - found[1]).max() < 1e-8 * abs(found[1]).max()


def test_materials_by_name_are_those_by_label():
    labels, e = discs(4, 2), torch.from_numpy(strains(2))
    named = {"fibre": MATERIALS[2], "matrix": MATERIALS[1]}
    found = coupling.grid_rves(labels, named, names={"matrix": 1, "fibre": 2}).homogenise(e)
    assert torch.equal(found.stress, coupling.grid_rves(labels, materials()).homogenise(e).stress)


def test_products_do_not_grow_with_the_grid():
    """Conjugate gradients know the medium on every grid: four times the pixels in each direction, and a third more."""
    products = {}
    for n in (8, 32):
        found = coupling.grid_rves(discs(n, 3), materials()).homogenise(torch.from_numpy(strains(3)))
        products[n] = int(found.products.max())
    assert products[32] < 1.6 * products[8]


def test_the_tangent_is_the_slope_of_the_stress():
    cells, e = coupling.grid_rves(discs(8, 2), materials()), torch.from_numpy(strains(2))
    C, step = cells.homogenise(e).tangent, 1e-6
    for k in range(3):
        shift = torch.zeros(3, dtype=torch.float64)
        shift[k] = step
        ahead, behind = (cells.homogenise(x, tangent=False).stress for x in (e + shift, e - shift))
        torch.testing.assert_close(C[:, :, k], (ahead - behind) / (2 * step), rtol=1e-5, atol=1e-5 * float(C.max()))


def test_mean_work_is_the_work_of_means():
    """Hill and Mandel, for any periodic fluctuation against a stress in equilibrium."""
    cells, e = coupling.grid_rves(discs(8, 2), materials()), torch.from_numpy(strains(2))
    found = cells.homogenise(e, tolerance=1e-13)
    other = torch.randn(2, 1, 8, 8, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moved = cells._strain(other)[:, 0]
    assert moved.mean((1, 2)).abs().max() < 1e-14 * moved.abs().max()
    local = e[:, None, None] + cells._strain(found.fluctuation[:, None])[:, 0]
    stress = cells._at("stress", local, cells.phase)
    work = (stress * moved).sum(-1).mean((1, 2))
    assert work.abs().max() < 1e-11 * ((stress * moved).sum(-1).abs().mean())


def test_no_cell_changes_what_another_is():
    labels, e = discs(8, 4), strains(4)
    e[2] *= 1e-6  # which is done at once
    together = coupling.grid_rves(labels, materials()).homogenise(torch.from_numpy(e))
    for k in range(4):
        alone = coupling.grid_rves(labels[[k]], materials()).homogenise(torch.from_numpy(e[[k]]))
        torch.testing.assert_close(together.stress[[k]], alone.stress, rtol=1e-12, atol=0)
        assert together.iterations[k] == alone.iterations[0]


def test_from_another_fluctuation_to_the_same_result():
    cells, e = coupling.grid_rves(discs(8, 2), materials()), torch.from_numpy(strains(2))
    first = cells.homogenise(e)
    again = cells.homogenise(e, start=first.fluctuation)
    assert (again.iterations == 0).all()
    torch.testing.assert_close(again.stress, first.stress, rtol=0, atol=0)
    near_by = cells.homogenise(1.01 * e, start=first.fluctuation)
    fresh = cells.homogenise(1.01 * e)
    torch.testing.assert_close(near_by.stress, fresh.stress, rtol=1e-8, atol=0)
    assert (near_by.products < fresh.products).all()


def test_no_stress_at_rest_and_a_homogeneous_cell():
    labels = np.ones((1, 4, 4), dtype=int)
    cells = coupling.grid_rves(labels, {1: MATERIALS[1]})
    rest = cells.homogenise(torch.zeros(1, 3, dtype=torch.float64))
    assert rest.stress.abs().max() == 0.0 and rest.iterations[0] == 0
    e = torch.from_numpy(strains(1))
    law = coupling.phase_law(MATERIALS[1], 2, "strain")
    found = cells.homogenise(e)
    torch.testing.assert_close(found.stress, law.stress(e), rtol=1e-13, atol=0)
    torch.testing.assert_close(found.tangent, law.tangent(e), rtol=1e-12, atol=1e-9)


@pytest.mark.mpi
def test_a_structure_of_image_cells(comm):
    """Each point with an image of its own, against an exact problem at each."""
    domain = meshes.bar(comm, size=(2.0, 1.0), n=(2, 1))
    coordinates = fe2.law_coordinates(domain)
    # A rank may have no points.
    images = [discs(6, 1, seed=round(100 * x[0] + 10 * x[1])) for x in coordinates]
    labels = np.concatenate([np.zeros((0, 6, 6), dtype=int), *images])
    grid = meshes.from_labels(np.tile([[1, 2], [2, 1]], (3, 3)), MPI.COMM_SELF)
    like = fe2.RVE(grid, materials(), degree=1)

    def solve(law):
        problem = fe2.MacroProblem(domain, law)
        problem.prescribe("left", (0.0, 0.0))
        problem.prescribe("right", (0.04, None))
        problem.record("right")
        return problem.solve(steps=2, log=None)[-1].force["right"]

    middles = compute_midpoints(grid.mesh, 2, np.arange(36, dtype=np.int32))[:, :2]
    i, j = np.floor(6 * (middles + 0.5)).astype(int).T
    right = solve(fe2.VaryingLaw(like, labels[:, i, j]))
    assert np.allclose(solve(coupling.GridLaw(labels, materials(), chunk=3)), right, rtol=1e-8)


def test_arrays_and_lists_are_taken():
    """In full precision."""
    cells, e = coupling.grid_rves(discs(4, 2), materials()), strains(2)
    right = cells.homogenise(torch.from_numpy(e))
    for given in (e, e.tolist()):
        assert torch.equal(cells.homogenise(given).stress, right.stress)
    assert (cells.homogenise(e, start=right.fluctuation.numpy()).iterations == 0).all()
    for wrong in (e + 0.1j, torch.from_numpy(e + 0.1j), [["a", "b", "c"]] * 2):
        with pytest.raises(ValueError, match=r"strains are of the type .*, need real numbers"):
            cells.homogenise(wrong)
    with pytest.raises(ValueError, match=r"initial fluctuations have .* \(1, 4, 4, 2\), need \(2, 4, 4, 2\)"):
        cells.homogenise(e, start=right.fluctuation[:1])
    with pytest.raises(ValueError, match=r"fluctuations are of the type torch\.complex128, need real"):
        cells.homogenise(e, start=right.fluctuation + 0j)


def test_wrong_use_is_told():
    with pytest.raises(ValueError, match=r"labels have the shape \(1, 4\)"):
        coupling.grid_rves(np.ones((1, 4), dtype=int), {1: MATERIALS[1]})
    with pytest.raises(ValueError, match=r"labels are of the type float64, need integers"):
        coupling.grid_rves(discs(8, 1) + 0.7, materials())
    with pytest.raises(ValueError, match=r"labels are of the type float64, need integers"):
        coupling.GridLaw(discs(8, 1) + 0.7, materials())
    with pytest.raises(TypeError, match=r"the material of tag 2 \(\"fibre\"\) is None: give a fe2.Material"):
        coupling.grid_rves(discs(8, 1), {1: MATERIALS[1], "fibre": None}, names={"fibre": 2})
    with pytest.raises(ValueError, match=r"material is given for \"fibre\", but no phase has this name"):
        coupling.grid_rves(discs(8, 1), {1: MATERIALS[1], "fibre": MATERIALS[2]})
    with pytest.raises(ValueError, match=r"label 2 has no material; the labels with material are \[1\]"):
        coupling.grid_rves(discs(8, 1), {1: MATERIALS[1]})
    with pytest.raises(ValueError, match=r"label 2 \(LinearElastic.*stiffness .* MPa at zero strain"):
        coupling.grid_rves(discs(8, 1), {1: MATERIALS[1], 2: fe2.LinearElastic(bulk=1e-6, shear=1e-6)})
    cells = coupling.grid_rves(discs(8, 2), materials())
    with pytest.raises(ValueError, match=r"strains have the shape \(3, 3\), need \(2, 3\)"):
        cells.homogenise(torch.zeros(3, 3))
    with pytest.raises(ValueError, match="the strain of RVE 1 is"):
        cells.homogenise(torch.tensor([[0.0] * 3, [0.0, np.nan, 0.0]]))
    with pytest.raises(spon.GridNotConverged, match="RVE 0, strain"):
        cells.homogenise(torch.from_numpy(strains(2)), tolerance=1e-30)
    law = coupling.GridLaw(discs(8, 2), materials())
    with pytest.raises(ValueError, match="there are 3 points on this rank and 2 RVEs"):
        law.initial_state(3)


@pytest.mark.mpi
def test_a_point_without_equilibrium_is_named_by_its_rank(comm, monkeypatch):
    """By the number that the rank has given it, in whatever batch it is solved."""
    law = coupling.GridLaw(discs(8, 3), materials(), chunk=2)
    monkeypatch.setattr(spon.microstructure.fft, "_NEWTON", 0)
    e = np.zeros((3, 3))
    if comm.rank == comm.size - 1:
        e[2] = 0.01
    where = "^point 2, strain" if comm.size == 1 else f"^point 2 of rank {comm.size - 1}, strain"
    with pytest.raises(fe2.StepFailed, match=where):
        law.evaluate(e, law.initial_state(3), law.initial_state(3), comm)
