# SPDX-License-Identifier: MIT
"""A model is used with its own RVE alone, and every law gives the local fields of its points."""

import dataclasses

import meshio
import numpy as np
import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch
from mpi4py import MPI
from trained import AMPLITUDE, make_rve, strains

import coupling
import fe2
import meshes
import spon
from fe2.fingerprints import fingerprint
from spon import archive
from spon.equino.baselines import StressNetwork
from spon.equino.displacement_operator import DisplacementOperator

BOX = 0.04 * np.array([1.0, 1.0, 0.5**0.5])


@pytest.fixture(scope="module")
def others(trained):
    """What differs in it → an RVE that is not the model's."""
    cell, materials = trained.rve.domain, trained.rve.body.materials
    softer = {**materials, 2: fe2.LinearElastic(bulk=4345.2381, shear=2991.80328)}
    found = {
        "mesh, numbering, phases": make_rve(radius=0.25),
        "material 2": fe2.RVE(cell, softer, degree=1),
        r"boundary \('periodic', here 'linear displacement'\)": fe2.RVE(
            cell, materials, degree=1, boundary="linear displacement"
        ),
        r"degree \('1', here '2'\), numbering": fe2.RVE(cell, materials),
    }
    yield found
    for rve in found.values():
        rve.destroy()


def refusals(model, rve):
    """Every way to pair a model with an RVE."""
    law = fe2.ExactLaw(rve)
    yield lambda: coupling.CertifiedLaw(model, law)
    yield lambda: coupling.CertifiedLaw(model, law, modes=False, tolerance=0.0)
    yield lambda: coupling.SurrogateLaw(model, outside=law)
    yield lambda: coupling.SurrogateLaw(model, rve=rve)


@pytest.mark.parametrize("whole", [False, True])
def test_a_model_of_another_rve_is_refused_wherever_it_is_paired(trained, others, whole):
    model = spon.load(trained.path, whole=whole)
    assert model.fingerprint == fingerprint(trained.rve)
    for what, rve in others.items():
        for pair in refusals(model, rve):
            with pytest.raises(ValueError, match=f"the model belongs to another RVE; differences: {what}"):
                pair()
        if whole:
            with pytest.raises(ValueError, match=f"belongs to another RVE; differences: {what}"):
                coupling.micro_fields(rve, model, np.zeros(3))


def test_modes_of_another_rve_are_refused(trained, others):
    """Bounds with modes of another RVE would be those of its energy."""
    model, e = trained.model, torch.from_numpy(strains(2))
    other = dict(fingerprint(others["material 2"]))
    at = dataclasses.replace(model.rve_modes.at_points, fingerprint=other)
    law = fe2.ExactLaw(trained.rve)
    for pair in (
        lambda: spon.certify(model, e, at),
        lambda: spon.ModalCorrector(model)(e, at),
        lambda: coupling.CertifiedLaw(model, law, at=at),
    ):
        with pytest.raises(ValueError, match="the set of modes belongs to another RVE; differences: material 2"):
            pair()


@pytest.fixture(scope="module")
def old(trained, tmp_path_factory):
    """The file as it was written before there were parts, with one hash."""
    with archive.Reader(trained.path, "model") as file:
        header = {k: v for k, v in file.header.items() if k not in ("torch", "sums")}
        tensors = file.tensors("")
    path = tmp_path_factory.mktemp("old") / "model.safetensors"
    archive.write(path, "model", {**header, "fingerprint": fingerprint(trained.rve)["whole"]}, tensors)
    return path


def test_a_file_of_before_is_checked_as_a_whole(trained, others, old):
    for whole in (False, True):
        model = spon.load(old, whole=whole)
        coupling.CertifiedLaw(model, fe2.ExactLaw(trained.rve))
        for rve in others.values():
            for pair in refusals(model, rve):
                with pytest.raises(ValueError, match="mesh, materials, boundary or degree differ"):
                    pair()


def test_models_that_were_never_saved_know_their_cell(trained, others):
    """A model without fingerprint is not compared."""
    rve_modes, half = trained.model.rve_modes, trained.model.upper
    at = rve_modes.at_points
    mark = trained.model.fingerprint
    for model in (
        StressNetwork(trained.model.displacement, mark),
        DisplacementOperator(trained.model.displacement, rve_modes),
        spon.ReducedModel(at.laws, at.strain_modes, at.weights, half, mark),
    ):
        assert model.fingerprint == mark
        with pytest.raises(ValueError, match="differences: material 2"):
            coupling.SurrogateLaw(model, outside=fe2.ExactLaw(others["material 2"]))
    nameless = StressNetwork(trained.model.displacement)
    coupling.SurrogateLaw(nameless, outside=fe2.ExactLaw(others["material 2"]))
    coupling.SurrogateLaw(trained.model, outside=fe2.UFLLaw(fe2.SaturatingElastic()))  # the user's own word


class Own:
    """An exact law of a user, without an `rve`."""

    def __init__(self, rve):
        law = fe2.ExactLaw(rve)
        self.strain_size, self.state_size = law.strain_size, law.state_size
        self.initial_state, self.evaluate = law.initial_state, law.evaluate


def test_a_law_that_names_no_cell_has_to_agree(trained, others):
    """Its stress must be within the bounds of the certificate."""
    for model in (trained.model, spon.load(trained.path)):
        law = coupling.CertifiedLaw(model, Own(trained.rve), tolerance=0.0)
        e = strains(3)
        state = law.initial_state(3)
        right = trained.rve.homogenise(e).stress
        assert np.allclose(law.evaluate(e, state, state).stress, right, rtol=1e-9)
        for what in ("mesh, numbering, phases", "material 2"):
            with pytest.raises(ValueError, match=r"Own is not of the model's RVE: at the strain \[.*\] its stress is"):
                coupling.CertifiedLaw(model, Own(others[what]))
        with pytest.raises(ValueError, match="UFLLaw is not of the model's RVE"):
            coupling.CertifiedLaw(model, fe2.UFLLaw(fe2.SaturatingElastic()))


@pytest.fixture(scope="module")
def pixels():
    """An RVE of 4 × 4 pixels, a network of its modes, and phases of six RVEs."""
    rve = image(1)
    network = coupling.mode_network(rve, half_range=BOX, r=6, channels=4)
    return rve, network, np.random.default_rng(2).integers(1, 3, (6, 16)).astype(np.int32)


def image(seed, a1=50.0, shape=(4, 4)):
    labels = np.random.default_rng(seed).integers(1, 3, shape)
    materials = {1: fe2.SaturatingElastic(a1=a1), 2: fe2.LinearElastic.from_young_poisson(2e4, 0.3)}
    return fe2.RVE(meshes.from_labels(labels, MPI.COMM_SELF), materials, degree=1)


def test_modes_of_other_cells_are_refused(pixels, trained, tmp_path):
    """Phases may be any, mesh and materials not; in files, too."""
    rve, network, tags = pixels
    network.save(tmp_path / "modes.safetensors")
    varying = fe2.VaryingLaw(image(7), tags)  # other phases in the RVE itself
    for net in (network, spon.load(tmp_path / "modes.safetensors")):
        coupling.ModesLaw(net, tags, exact=varying, rve=rve)
        for other, what in (
            (image(1, a1=40.0), "material 1"),
            (image(1, shape=(4, 8)), "mesh, numbering"),
        ):
            with pytest.raises(ValueError, match=f"network of modes belongs to another RVE; differences: {what}"):
                coupling.ModesLaw(net, tags, rve=other)
            count = len(other.body.weights)
            with pytest.raises(ValueError, match=f"differences: {what}"):
                coupling.ModesLaw(net, tags, exact=fe2.VaryingLaw(other, np.ones((6, count), dtype=int)))
    with pytest.raises(ValueError, match="the exact law has other tags than the modes"):
        coupling.ModesLaw(network, tags, exact=fe2.VaryingLaw(rve, 3 - tags))
    with pytest.raises(TypeError, match=r"a ExactLaw: need a fe2\.VaryingLaw"):
        coupling.ModesLaw(network, tags, exact=fe2.ExactLaw(rve))
    for pair in (coupling.CertifiedLaw, lambda model, law: coupling.SurrogateLaw(model, outside=law)):
        with pytest.raises(ValueError, match="VaryingLaw has another RVE at each point, the model has a single one"):
            pair(trained.model, varying)


# Fields inside of points.


def stretched(law, comm=MPI.COMM_SELF, by=0.02):
    problem = fe2.MacroProblem(meshes.bar(comm, size=(3.0, 1.0), n=(3, 1)), law)
    problem.prescribe("left", (0.0, 0.0))
    problem.prescribe("right", (3 * by, 0.0))
    problem.solve(steps=1, log=None)
    return problem


def means(fields):
    """Means of strain and stress over the RVE (d,)."""
    weights = fields.rve.body.weights / fields.rve.volume
    return [np.einsum("cq,cqd->d", weights, values) for values in (fields.strain, fields.stress)]


def check_points(problem, folder, rtol, x=None):
    """What is written at some points is there, and its means are the macroscale's."""
    x = problem.sigma.coordinates()[[0, 7]] if x is None else x
    points = problem.write_micro(folder, x)
    for k, point in enumerate(points, start=1):
        file, fields = meshio.read(folder / f"micro-{k}.xdmf"), point.fields()
        assert {"tag", "stress_xx", "strain_xy"} <= set(file.cell_data)
        assert len(file.point_data["displacement"]) == len(fields.rve.domain.mesh.geometry.x)
        for found, right in zip(means(fields), (point.strain, point.stress), strict=True):
            assert np.allclose(found, right, rtol=0, atol=rtol * abs(right).max())
        body = point.body()
        assert np.allclose(body.strain(), fields.strain, rtol=0, atol=1e-10 * abs(fields.strain).max())
    return points


def test_every_law_of_a_cell_writes_its_fields(trained, tmp_path):
    """Exact, learned, and certified with all of its tiers, by the same call."""
    exact = fe2.ExactLaw(trained.rve)
    check_points(stretched(exact), tmp_path / "exact", 1e-9)
    learned = stretched(coupling.SurrogateLaw(trained.model, rve=trained.rve))
    (point, _) = check_points(learned, tmp_path / "learned", 1e-9)
    assert point.fields().constitutive_relation_error is not None
    # Far beyond the range, where the law for the outside is evaluated.
    beyond = coupling.SurrogateLaw(trained.model, outside=exact)
    (point, _) = check_points(stretched(beyond, by=1.5 * AMPLITUDE), tmp_path / "outside", 1e-9)
    assert point.fields().constitutive_relation_error is None
    # Below what the networks are worth and above what the modes are, wherever both have been measured.
    law = coupling.CertifiedLaw(trained.model, exact, tolerance=1e9)
    strain = stretched(law).sigma.strains()
    refined = spon.ModalCorrector(trained.model)(torch.from_numpy(strain))
    between = 2 * float((refined.gap / refined.upper).max())
    assert (law.gap > between).any()
    # The stress in equilibrium that is nearest to the modes' is theirs but for an error with the energy of the gap.
    for tolerance, rtol, tier in ((1e9, 1e-9, 0), (between, 2 * between**0.5, 1), (0.0, 1e-9, 2)):
        law = coupling.CertifiedLaw(trained.model, exact, tolerance=tolerance)
        problem = stretched(law)
        here = np.flatnonzero(law.tier == tier)[:2]
        assert len(here)
        for point in check_points(problem, tmp_path / str(tier), rtol, problem.sigma.coordinates()[here]):
            assert (point.fields().constitutive_relation_error is None) == (tier == 2)


def test_exact_points_need_no_fields_of_the_model(trained, tmp_path):
    """With a model that was loaded without its RVE modes, the messages of others name the remedy."""
    model, exact = spon.load(trained.path), fe2.ExactLaw(trained.rve)
    check_points(stretched(coupling.CertifiedLaw(model, exact, tolerance=0.0)), tmp_path, 1e-9)
    for law in (coupling.CertifiedLaw(model, exact), coupling.SurrogateLaw(model, rve=trained.rve)):
        with pytest.raises(ValueError, match=r"loaded without its RVE modes, needed here: spon\.load\(path, whole"):
            stretched(law).write_micro(tmp_path, [0.1, 0.1])
    with pytest.raises(TypeError, match=r"has no mesh for the fields: SurrogateLaw\(model, rve=rve\)"):
        stretched(coupling.SurrogateLaw(trained.model)).write_micro(tmp_path, [0.1, 0.1])
    with pytest.raises(TypeError, match=r"the exact law, a Own, has no RVE for the fields"):
        stretched(coupling.CertifiedLaw(trained.model, Own(trained.rve))).write_micro(tmp_path, [0.1, 0.1])


@pytest.mark.mpi
def test_cells_of_points_write_their_fields(pixels, comm, mpi_tmp_path):
    """On the rank that has the point; the others do not have its RVE."""
    rve, network, _ = pixels
    domain = meshes.bar(comm, size=(3.0, 1.0), n=(3, 1))
    coordinates = fe2.law_coordinates(domain)
    # By the coordinates, so that an RVE does not depend on the rank.
    tags = np.array([np.random.default_rng(int(1e6 * (x + 7 * y))).integers(1, 3, 16) for x, y in coordinates])
    tags = tags.reshape(len(coordinates), 16).astype(np.int32)
    varying = fe2.VaryingLaw(rve, tags)
    modes = {"rve": rve}, {"exact": varying, "tolerance": 0.0}, {"exact": varying, "tolerance": 1e9}
    laws = [varying, *(coupling.ModesLaw(network, tags, **options) for options in modes)]
    for k, law in enumerate(laws):
        problem = fe2.MacroProblem(domain, law)
        problem.prescribe("left", (0.0, 0.0))
        problem.prescribe("right", (0.02, None))
        problem.solve(steps=1, log=None)
        points = problem.write_micro(mpi_tmp_path / str(k), [[0.2, 0.2], [2.8, 0.8]])
        assert sum(comm.allgather(points[1].here)) == 1
        comm.barrier()
        for number, point in enumerate(points, start=1):
            assert (mpi_tmp_path / str(k) / f"micro-{number}.xdmf").exists()
            if point.here:
                fields = point.fields()
                for found, right in zip(means(fields), (point.strain, point.stress), strict=True):
                    assert np.allclose(found, right, rtol=0, atol=1e-6 * abs(right).max())
                here = np.argmin(np.linalg.norm(coordinates - point.coordinates, axis=1))
                assert np.array_equal(fields.rve.domain.cell_tags.values, tags[here])
            else:
                with pytest.raises(
                    ValueError, match="has an RVE of its own, which exists only on the rank of the point"
                ):
                    point.fields()
    with pytest.raises(TypeError, match=r"the law has no mesh for the fields: ModesLaw\(\.\.\., rve=rve\)"):
        law = coupling.ModesLaw(network, tags)
        law.micro_fields(np.zeros(3), np.zeros(law.state_size))
