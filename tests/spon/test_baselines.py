# SPDX-License-Identifier: MIT
"""The baselines of EquiNO: one interface, energies that bound, displacements that are periodic."""

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("dolfinx")

from mpi4py import MPI

import coupling
import fe2
import meshes
import spon
from coupling.snapshots import rve_space
from spon import equino
from spon.equino import baselines, vpionet
from spon.reduced.model import Model
from spon.training import TrainingOptions
from spon.training.fit import FULL_BATCH

RANGE = 0.03 * np.array([1.0, 1.0, 0.5**0.5])
PHASES = {meshes.MATRIX: fe2.SaturatingElastic(), meshes.INCLUSION: fe2.LinearElastic(bulk=43452.381, shear=29918.0328)}


def short(iterations):
    """A short training on the published schedule."""
    return TrainingOptions(steps=iterations, batch=10, rate=1e-3, lbfgs=iterations)


def make_rve(degree=2, boundary="periodic"):
    """An RVE with a stiff circle across its boundary, so that there are inclusions on opposite faces."""
    mesh = meshes.rve([meshes.Circle((0.35, -0.1), 0.3)], MPI.COMM_SELF, mesh_size=0.3)
    return fe2.RVE(mesh, PHASES, degree=degree, boundary=boundary)


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """An RVE, 24 snapshots, and 12 unseen ones."""
    rve, folder, data = make_rve(), tmp_path_factory.mktemp("snapshots"), []
    for name, n, seed in (("train", 24, 0), ("test", 12, 1)):
        strains = fe2.strain_sampling.latin_hypercube(n, 2, RANGE, seed=seed)
        fe2.rve_snapshots.compute(rve, strains, folder / name, MPI.COMM_SELF, progress=False)
        data.append(coupling.rve_snapshots(rve, fe2.rve_snapshots.read(folder / name)))
    return rve, *data


def images_of(rve, displacement):
    """What periodicity makes of the independent values of a displacement (dofs,)."""
    index = rve.unknowns.index
    values = np.zeros(rve.unknowns.size)
    values[index[index >= 0]] = displacement[index >= 0]
    return rve.unknowns.expand(values)


@pytest.mark.parametrize("dim, degree", [(2, 1), (2, 2), (2, 3), (3, 1)])
def test_the_strain_operator_gives_the_strains_of_the_elements(dim, degree):
    if dim == 2:
        rve = make_rve(degree)
    else:
        mesh = meshes.rve([meshes.Sphere((0.0, 0.0, 0.0), 0.3)], MPI.COMM_SELF, size=(1.0, 1.0, 1.0), mesh_size=0.5)
        rve = fe2.RVE(mesh, PHASES, degree=degree)
    _, order = coupling.local_laws(rve)
    space = rve_space(rve, order)
    rve.body.u.x.array[:] = np.random.default_rng(0).standard_normal(rve.body.u.x.array.size)
    right = rve.body.strain().reshape(len(order), -1)[order].ravel()
    assert abs(space.strain_operator @ rve.body.u.x.array - right).max() <= 1e-12 * abs(right).max()
    # E·x for the normal strains gives the coordinates from the centre of the RVE, here the origin.
    affine = rve.affine.reshape(-1, dim, rve.strain_size)[..., :dim]
    assert np.allclose(np.einsum("nkk->nk", affine), space.nodes, rtol=0, atol=1e-14)


def test_the_phase_of_a_node_is_that_of_its_elements_and_of_its_images(cell):
    rve, data, _ = cell
    phase, dofs = data.space.phase, rve.body.V.dofmap.list
    inner = [set(dofs[rve.domain.cell_tags.find(tag)].ravel()) for tag in PHASES]
    for k, value in ((0, -1.0), (1, 1.0)):
        assert set(np.flatnonzero(phase == value)) <= inner[k] - inner[1 - k]
    assert inner[0] & inner[1] <= set(np.flatnonzero(phase == 0.0))
    nodes = np.repeat(phase, rve.body.dim)
    held = rve.unknowns.index >= 0
    assert (images_of(rve, nodes)[held] == nodes[held]).all() and {-1.0, 0.0, 1.0} == set(phase)


def test_displacements_of_the_trunk_are_periodic(cell):
    rve, data, _ = cell
    modes = vpionet.Trunk(data.space, 5, 1.0, seed=3)().detach().numpy()
    for mode in modes.T:
        assert abs(images_of(rve, mode) - mode).max() <= 1e-14 * abs(mode).max()
    bound = make_rve(boundary="linear displacement")
    space = rve_space(bound, coupling.local_laws(bound)[1])
    with pytest.raises(ValueError, match="not periodic"):
        vpionet.Trunk(space, 5, 1.0)


@pytest.mark.parametrize("loss", ["potential", "half work"])
def test_the_slope_of_the_mean_density_is_its_derivative(cell, loss):
    _, data, _ = cell
    problem = vpionet._Problem.of(data, loss)
    generator = torch.Generator().manual_seed(0)
    modes, change = 0.01 * torch.randn(2, data.fluctuation.shape[1], 4, dtype=torch.float64, generator=generator)
    b, db, strain = 0.03 * torch.randn(3, 6, 4, dtype=torch.float64, generator=generator)

    def value(t):
        return vpionet._MeanDensity.apply(modes + t * change, b + t * db, strain[:, :3], problem)

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(value(t), t)
    h = 1e-4
    difference = (value(torch.tensor(h)) - value(torch.tensor(-h))) / (2 * h)
    assert float(slope) == pytest.approx(float(difference), rel=1e-6)


def test_the_potential_is_stationary_at_the_solution_and_half_the_work_is_not(cell):
    """Internal forces of what is minimised, at finite element solutions, on the periodic displacements."""
    rve, data, _ = cell
    left = {}
    for loss in ("potential", "half work"):
        problem = vpionet._Problem.of(data, loss)
        modes = torch.from_numpy(data.fluctuation[:1].T.copy()).requires_grad_()
        one, strain = torch.ones(1, 1, dtype=torch.float64), torch.from_numpy(data.strain[:1])
        (forces,) = torch.autograd.grad(vpionet._MeanDensity.apply(modes, one, strain, problem), modes)
        forces = forces.numpy()[:, 0]
        left[loss] = np.linalg.norm(rve.unknowns.gather(forces)) / np.linalg.norm(forces)
    assert left["potential"] < 1e-9 and left["half work"] > 1e-3


def test_a_displacement_costs_more_energy_than_the_solution_and_less_than_none(cell):
    """VPINN and VPIONet after some steps: between the solution and the strain without fluctuation."""
    _, data, unseen = cell
    uniform = data.laws.energy(torch.from_numpy(unseen.strain)[:, None].expand(-1, len(data.weights), 3))
    uniform = (uniform @ torch.from_numpy(data.weights)).numpy()
    result = vpionet.train_vpinn(data, unseen.strain[0], replace(short(100), steps=50))
    solution = result.solution
    assert unseen.energy[0] <= solution.energy < 0.5 * (unseen.energy[0] + uniform[0])
    assert solution.energy == pytest.approx(min(result.history.loss), rel=1e-12)
    operator = vpionet.train_vpionet(data, short(100), r=8).model
    with torch.no_grad():
        local, _ = operator.fields(torch.from_numpy(unseen.strain))
    energy = (data.laws.energy(local) @ operator.weights).numpy()
    assert (energy >= unseen.energy).all() and energy.mean() < uniform.mean()


def test_every_method_is_a_model_that_the_macroscale_takes(cell):
    _, data, unseen = cell
    bases = spon.reduced.pod_bases(data, r=6, resolved=10)
    models = [
        equino.train(data, equino.EquiNOOptions(r=6, resolved=10, samples=64, lbfgs=50)).model,
        baselines.train_as_published(data, short(20), r=6, strains=20).model,
        baselines.train_supervised(data, replace(FULL_BATCH, lbfgs=20), r=6).model,
        baselines.train_sobolev(data, replace(FULL_BATCH, lbfgs=20), widths=(16,)).model,
        vpionet.train_vpionet(data, short(20), r=6).model,
        vpionet.train_vpionet(data, short(20), r=6, loss="half work").model,
        bases.reduced,
    ]
    strain, h = 0.9 * unseen.strain, 1e-6
    for model in models:
        assert isinstance(model, Model)
        law = coupling.SurrogateLaw(model)
        nothing = law.initial_state(len(strain))
        moved = [law.evaluate(strain + s * h * e, nothing, nothing).stress for e in np.eye(3) for s in (1, -1)]
        right = np.stack([(a - b) / (2 * h) for a, b in zip(moved[::2], moved[1::2])], axis=2)
        # Differences of second order: their error is that of the third derivative, h² of the strain's size squared.
        assert abs(law.evaluate(strain, nothing, nothing).tangent - right).max() <= 1e-6 * abs(right).max()
        if hasattr(model, "fields"):
            local, stress = model.fields(torch.from_numpy(strain))
            assert local.shape == stress.shape and local.shape[::2] == strain.shape
        else:
            assert isinstance(model, baselines.StressNetwork)


def test_the_mismatch_at_some_points_is_that_at_all(cell):
    """The published loss at a third of the points, beside its value at all of them."""
    _, data, _ = cell
    options = replace(short(20), lbfgs=100)
    result = baselines.train_as_published(data, options, r=6, strains=20, points=100)
    model = result.model
    assert len(data.weights) > 300
    with torch.no_grad():
        strains = equino.training.sobol_strains(20, model.upper, 0)
        everywhere = float(baselines.published_loss(model, strains, model.rve_modes.at_points))
    assert everywhere < 2 * min(result.history.loss)
    with pytest.raises(ValueError, match=r"strain has shape \(2,\), need \(3,\)"):
        vpionet.train_vpinn(data, [0.01, 0.02])
    with pytest.raises(ValueError, match="loss = 'work': need one of 'potential', 'half work'"):
        vpionet.train_vpionet(data, loss="work")
