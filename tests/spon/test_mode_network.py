# SPDX-License-Identifier: MIT
"""Cells that differ from point to point: what holds whatever the network says, and what training makes better."""

from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("torch")

import torch
from mpi4py import MPI
from dolfinx.mesh import compute_midpoints

import coupling
import fe2
import meshes
import spon
from spon import microstructure
from spon.jit import compiler
from spon.reduced.galerkin_c import CompiledModes
from spon.training import TrainingOptions

N = 8
MATERIALS = {1: fe2.SaturatingElastic(), 2: fe2.LinearElastic.from_young_poisson(20_000.0, 0.2)}
BOX = fe2.mandel.from_engineering([0.03, 0.03, 0.04])


@pytest.fixture(scope="module")
def rve():
    cell = meshes.from_labels(np.tile([[1, 2], [2, 1]], (N // 2, N // 2)), MPI.COMM_SELF)
    made = fe2.RVE(cell, MATERIALS, degree=1)
    yield made
    made.destroy()


def random_tags(rve, count, seed=0):
    """(count, cells), a disc of random size and place each."""
    rng = np.random.default_rng(seed)
    discs = [meshes.Circle(tuple(rng.uniform(-0.5, 0.5, 2)), rng.uniform(0.15, 0.35)) for _ in range(count)]
    return np.stack([meshes.mark(rve.domain, [disc]) for disc in discs])


def network(rve, r=5, **options):
    return coupling.mode_network(rve, half_range=BOX, r=r, coarse=(4,), channels=6, depth=2, **options)


def disturbed(rve, **options):
    """A network that says something, and nothing right."""
    found = network(rve, **options)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in found.parameters():
            p += 0.2 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return found


@pytest.fixture(scope="module")
def solved(rve):
    """A disturbed network, its response in four cells at three strains, and the exact one."""
    net, tags = disturbed(rve), random_tags(rve, 4)
    strains = fe2.strain_sampling.latin_hypercube(3, 2, BOX, seed=2)
    phases = net.phases(torch.from_numpy(tags))
    with torch.no_grad():
        modes = net.modes(phases)
        displacements, strain_modes = modes.displacement, modes.strain
        phase = net.phase(phases)
        found = net.respond(strain_modes, phase, torch.from_numpy(strains).expand(4, -1, -1))
    law = fe2.VaryingLaw(rve, tags)
    exact = [law.rve_at(k).homogenise(strains) for k in range(4)]
    yield net, tags, strains, displacements, strain_modes, phase, found, exact
    law.destroy()


def test_modes_are_periodic_fields_of_the_cell(rve, solved):
    """Equal at opposite sides to the last bit, and their strains are those that DOLFINx finds."""
    net, _, _, displacements, strain_modes, *_ = solved
    x = rve.body.V.tabulate_dof_coordinates()[:, :2]
    for axis in (0, 1):
        left, right = (np.flatnonzero(np.isclose(x[:, axis], end)) for end in (-0.5, 0.5))
        left, right = (side[np.argsort(x[side, 1 - axis])] for side in (left, right))
        u = displacements.reshape(4, -1, 2, net.r)
        assert torch.equal(u[:, left], u[:, right])
    rve.body.u.x.array[:] = displacements[2, :, 1].numpy()
    assert np.allclose(strain_modes[2, :, :, 1].numpy(), rve.body.strain().reshape(-1, 3), rtol=0, atol=1e-12)


def test_energy_is_an_upper_bound_and_the_estimate_is_above_its_excess(solved):
    """Here no tangent in the cells is below that of the soft phase at rest by more than a factor that is computed."""
    net, _, _, _, _, phase, found, exact = solved
    least = torch.from_numpy(np.stack([h.energy for h in exact]))
    assert (found.energy > least * (1 + 1e-6)).all()
    rest = net.laws[0].tangent(torch.zeros(1, 3, dtype=torch.float64))[0]
    half = torch.linalg.inv(torch.linalg.cholesky(rest))
    tangent = net._evaluate("tangent", found.strain, phase)
    # Along the way to the minimum tangents differ from those here; half of the smallest leaves room for that.
    smallest = 0.5 * torch.linalg.eigvalsh(half @ tangent @ half.T).min()
    assert (net.energy_error_bound(phase, found.strain) / smallest >= found.energy - least).all()


def test_hill_mandel_and_equilibrium_in_the_modes(solved):
    net, _, strains, _, strain_modes, phase, found, _ = solved
    stress = net.stress(phase, found.strain)
    work = torch.einsum("p,nspd,nspd->ns", net.weights, stress, found.strain)
    assert torch.allclose(work, (found.stress * torch.from_numpy(strains)).sum(-1), rtol=1e-9)
    forces = torch.einsum("p,npdr,nspd->nsr", net.weights, strain_modes, stress)
    assert forces.abs().max() <= 1e-9 * stress.abs().max()


def test_stress_and_tangent_are_derivatives_of_the_energy(solved):
    """Against central differences, and the tangent is symmetric."""
    net, _, strains, _, strain_modes, phase, found, _ = solved
    step, numerical = 1e-6, torch.empty_like(found.tangent)
    for k in range(3):
        ends = []
        for sign in (1, -1):
            moved = torch.from_numpy(strains).clone()
            moved[:, k] += sign * step
            ends.append(net.respond(strain_modes, phase, moved.expand(4, -1, -1)))
        slope = (ends[0].energy - ends[1].energy) / (2 * step)
        assert torch.allclose(slope, found.stress[..., k], rtol=1e-6, atol=1e-6 * found.stress.abs().max())
        numerical[..., k] = (ends[0].stress - ends[1].stress) / (2 * step)
    assert (numerical - found.tangent).abs().max() <= 1e-6 * found.tangent.abs().max()
    assert (found.tangent - found.tangent.mT).abs().max() <= 1e-12 * found.tangent.abs().max()


def test_cell_of_one_phase_is_its_law(rve):
    net = disturbed(rve)
    tags = np.ones((1, N * N), dtype=np.int64)
    law = coupling.ModesLaw(net, tags)
    strain = BOX[None] / 2
    response = law.evaluate(strain, law.initial_state(1), law.initial_state(1))
    alone = fe2.UFLLaw(MATERIALS[1])
    right = alone.evaluate(strain, alone.initial_state(1), alone.initial_state(1))
    assert np.allclose(response.stress, right.stress, rtol=1e-12)
    assert np.allclose(response.tangent, right.tangent, rtol=0, atol=1e-6 * abs(right.tangent).max())


def test_enough_modes_are_exact(rve):
    """The exact fluctuations as modes give the exact stress and tangent: no other approximation is there."""
    net, tags = network(rve, r=9), random_tags(rve, 1, seed=3)
    law = fe2.VaryingLaw(rve, tags)
    strain, d = BOX / 2, 1e-4 * BOX.max()
    nearby = np.concatenate([[strain], *(strain + s * d * np.eye(3) for s in (1, -1))])
    h = law.rve_at(0).homogenise(nearby)
    fields = []
    for state in h.state:
        law.rve_at(0).body.u.x.array[:] = law.rve_at(0).displacement(state, fluctuation=True).x.array
        fields.append(law.rve_at(0).body.strain().reshape(-1, 3))
    # The solution and its derivatives by the strain.
    basis = np.stack([fields[0], *(np.array(fields[1:4]) - np.array(fields[4:7])) / (2 * d)], axis=-1)
    phase = net.phase(net.phases(torch.from_numpy(tags)))
    net.r = basis.shape[-1]
    found = net.respond(torch.from_numpy(basis)[None], phase, torch.from_numpy(strain)[None, None])
    assert np.allclose(found.stress[0, 0], h.stress[0], rtol=1e-8)
    assert np.allclose(found.tangent[0, 0], h.tangent[0], rtol=0, atol=1e-6 * abs(h.tangent[0]).max())
    law.destroy()


def test_training_lowers_the_energy_of_unseen_cells(rve):
    """Without corrections, which leave little to learn in so small a cell."""
    net, unseen = network(rve, corrections=0).float(), random_tags(rve, 20, seed=9)
    law = fe2.VaryingLaw(rve, unseen)
    strains = fe2.strain_sampling.latin_hypercube(4, 2, BOX, seed=2)
    exact = np.stack([law.rve_at(k).homogenise(strains).stress for k in range(20)])
    law.destroy()

    def errors():
        law = coupling.ModesLaw(net, unseen)
        which = np.repeat(np.arange(20), 4)
        stress = law.respond(which, np.tile(strains, (20, 1))).stress.reshape(exact.shape)
        return np.linalg.norm(stress - exact, axis=-1) / np.linalg.norm(exact, axis=-1)

    before = errors().mean()
    tags = torch.from_numpy(random_tags(rve, 100).astype(np.int64))
    history = microstructure.train(net, net.phases(tags), TrainingOptions(steps=150, batch=8, every=50)).history
    assert min(history.validation) < history.validation[0] - 0.02
    assert errors().mean() < 0.5 * before


def test_network_does_not_see_where_in_the_cell_it_is(rve):
    """A cell moved by a period of the coarsest grid has its modes moved with it."""
    net = disturbed(rve)
    middle = compute_midpoints(rve.domain.mesh, 2, np.arange(N * N, dtype=np.int32))[:, :2]
    i, j = np.floor((middle + 0.5) * N).astype(int).T
    labels = np.random.default_rng(4).integers(1, 3, (N, N))
    tags = np.stack([labels[i, j], np.roll(labels, N // 2, axis=0)[i, j]])
    with torch.no_grad():
        strains = net.modes(net.phases(torch.from_numpy(tags))).strain
    at_pixel = np.empty((2, N, N, *strains.shape[1:]))[:, :, :, :4]
    at_pixel[:, i, j] = strains.reshape(2, N * N, 4, 3, -1).numpy()
    assert np.allclose(np.roll(at_pixel[0], N // 2, axis=0), at_pixel[1], atol=1e-9)


def test_corrections_lower_the_energy(rve):
    """Each adds to the fields among which the best are chosen."""
    tags, energies = torch.from_numpy(random_tags(rve, 5)), []
    strain = 1e-5 * torch.eye(3, dtype=torch.float64)
    for corrections in range(4):
        net = disturbed(rve, corrections=corrections)
        phases = net.phases(tags)
        with torch.no_grad():
            energies.append(net.respond(net.modes(phases).strain, net.phase(phases), strain.expand(5, -1, -1)).energy)
    for a, b in pairwise(energies):
        assert (b <= a * (1 + 1e-12)).all()
    assert (energies[-1] < energies[0] * (1 - 1e-3)).all()


@pytest.mark.skipif(not compiler(), reason="there is no C compiler")
def test_machine_code_is_the_formulas(rve, solved, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    net, _, strains, _, strain_modes, phase, found, _ = solved
    code = CompiledModes(net.laws, net.r)
    cells = code.prepare(strain_modes.numpy(), phase.numpy(), net.weights.numpy())
    which, many = np.repeat(np.arange(4), 3), np.tile(strains, (4, 1))
    stress, tangent, coefficients, slopes, iterations = code(cells, which, many, np.zeros((12, net.r)), 1e-6, 30)
    assert (iterations > 0).all()
    for a, b in ((stress, found.stress), (coefficients, found.coefficients)):
        assert np.allclose(a, b.reshape(a.shape), rtol=0, atol=1e-9 * abs(a).max())
    for a, b in ((tangent, found.tangent), (slopes, found.sensitivities)):  # of the iterate before the last
        assert np.allclose(a, b.reshape(a.shape), rtol=0, atol=1e-5 * abs(a).max())
    *_, again = code(cells, which, many, coefficients, 1e-6, 30)
    assert (again == 0).all()
    *_, lost = code(cells, which, np.full_like(many, np.nan), np.zeros((12, net.r)), 1e-6, 30)
    assert (lost == -1).all()
    with pytest.raises(ValueError, match="RVEs 0 to 4, need 0 to 3"):
        code(cells, which + np.arange(12) // 11, many, coefficients, 1e-6, 30)


def test_file_holds_all_of_it(rve, tmp_path):
    net = disturbed(rve).float()
    net.save(tmp_path / "modes.safetensors")
    again = spon.load(tmp_path / "modes.safetensors")
    tags = torch.from_numpy(random_tags(rve, 2))
    with torch.no_grad():
        assert torch.equal(net.modes(net.phases(tags)).strain, again.modes(again.phases(tags)).strain)
    damaged = (tmp_path / "modes.safetensors").read_bytes()[:-100]
    (tmp_path / "damaged").write_bytes(damaged)
    with pytest.raises(spon.ModelFileError, match="damaged"):
        spon.load(tmp_path / "damaged")
    assert isinstance(again, spon.ModeNetwork)


def test_what_does_not_fit_is_told(rve):
    net = network(rve)
    with pytest.raises(ValueError, match="tag 7 is none of the network"):
        net.phases(torch.full((1, N * N), 7))
    with pytest.raises(ValueError, match="need integers"):
        net.phase(torch.zeros(N, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="2 points on this rank and 1 RVEs"):
        coupling.ModesLaw(net, random_tags(rve, 1)).initial_state(2)
    with pytest.raises(ValueError, match="tolerance"):
        coupling.ModesLaw(net, random_tags(rve, 1), tolerance=-1.0)
    with pytest.raises(ValueError, match="need some and not all"):
        microstructure.train(net, net.phases(torch.from_numpy(random_tags(rve, 2))))
    held = fe2.RVE(rve.domain, MATERIALS, degree=1, boundary="linear displacement")
    with pytest.raises(ValueError, match="need 'periodic'"):
        coupling.mode_network(held, half_range=BOX)
    held.destroy()
    with pytest.raises(ValueError, match="tag 3 has no material"):
        fe2.VaryingLaw(rve, np.full((1, N * N), 3))
    with pytest.raises(ValueError, match="need \\(points, 64\\)"):
        fe2.VaryingLaw(rve, np.ones((1, 5), dtype=int))
    plastic = fe2.RVE(
        rve.domain, {1: MATERIALS[2], 2: fe2.J2(bulk=100.0, shear=50.0, yield_stress=1.0, hardening=10.0)}, degree=1
    )
    with pytest.raises(ValueError, match="J2 has state"):
        fe2.VaryingLaw(plastic, np.ones((1, N * N), dtype=int))
    plastic.destroy()


def test_names_of_the_last_release_warn(solved):
    net, _, _, _, _, phase, found, _ = solved
    with pytest.warns(DeprecationWarning, match="energy_error_bound"):
        bound = net.missing(phase, found.strain)
    assert torch.equal(bound, net.energy_error_bound(phase, found.strain))
    with pytest.warns(DeprecationWarning, match="sensitivities"):
        assert found.slopes is found.sensitivities


def test_an_rve_without_equilibrium_is_named_by_its_point(rve, monkeypatch):
    """Also where RVEs are evaluated some at a time."""
    monkeypatch.setattr(coupling.modes_law, "_CHUNK", 2)
    law = coupling.ModesLaw(network(rve), random_tags(rve, 3), compiled=False)
    strains = np.zeros((3, 3))
    strains[2] = np.nan
    with pytest.raises(fe2.StepFailed, match=r"^RVE 2, strain \[nan"):
        law.respond(np.arange(3), strains)


# In a structure.


def graded(rve, coordinates):
    """Tags (n, cells): a disc that grows along x."""
    radii = 0.15 + 0.2 * coordinates[:, 0] / 3
    return np.stack([meshes.mark(rve.domain, [meshes.Circle((0.1, p[1] / 5), r)]) for r, p in zip(radii, coordinates)])


def solve(domain, law):
    problem = fe2.MacroProblem(domain, law)
    problem.prescribe("left", (0.0, 0.0))
    problem.prescribe("right", (0.02, None))
    problem.record("right")
    problem.solve(steps=2, log=None)
    return problem.history[-1].force["right"][0]


@pytest.mark.mpi
def test_structure_of_different_cells(rve):
    """Exact, learned, and exact where the estimate is above a tolerance of zero; the same on any number of ranks."""
    comm = MPI.COMM_WORLD
    domain = meshes.bar(comm, size=(3.0, 1.0), n=(3, 1))
    coordinates = fe2.law_coordinates(domain)
    tags = graded(rve, coordinates)
    exact = fe2.VaryingLaw(rve, tags)
    force = solve(domain, exact)
    net = network(rve)
    learned = coupling.ModesLaw(net, tags)
    found = solve(domain, learned)
    assert 1e-6 < found / force - 1 < 0.2  # stiffer, as its energy is above
    assert abs(solve(domain, coupling.ModesLaw(net, tags, compiled=False)) / found - 1) < 1e-8
    switched = coupling.ModesLaw(net, tags, exact=exact, tolerance=0.0)
    assert abs(solve(domain, switched) / force - 1) < 1e-9
    assert switched.is_exact.all()
    never = coupling.ModesLaw(net, tags, exact=exact, tolerance=np.inf)
    assert abs(solve(domain, never) / found - 1) < 1e-9
    assert not never.is_exact.any() and (never.estimate > 0).all()
    with pytest.raises(ValueError, match="and 0 RVEs"):
        solve(domain, coupling.ModesLaw(net, tags[:0]))
    exact.destroy()
