# SPDX-License-Identifier: MIT
"""Materials and laws by the name of a phase, meshes of one's own, and the messages about anything else."""

import numpy as np
import pytest

pytest.importorskip("dolfinx")

import dolfinx.mesh
from mpi4py import MPI
from dolfinx import fem

import fe2
import meshes

SOFT, STIFF = fe2.LinearElastic(bulk=100.0, shear=40.0), fe2.LinearElastic(bulk=1000.0, shear=400.0)
NAMES = {"matrix": 1, "inclusion": 2}
HALVES = [[1, 1], [2, 2]]
STRAIN = [0.01, 0.0, 0.005]


@pytest.fixture(scope="module")
def tagged():
    return meshes.from_labels(HALVES, MPI.COMM_SELF, names=NAMES)


def own(comm=MPI.COMM_SELF, n=2):
    """A mesh and tags of its halves, from DOLFINx itself."""
    mesh = dolfinx.mesh.create_unit_square(comm, n, n, dolfinx.mesh.CellType.quadrilateral)
    index_map = mesh.topology.index_map(2)
    cells = np.arange(index_map.size_local + index_map.num_ghosts, dtype=np.int32)
    right = dolfinx.mesh.compute_midpoints(mesh, 2, cells)[:, 0] > 0.5
    return mesh, dolfinx.mesh.meshtags(mesh, 2, cells, np.where(right, 2, 1).astype(np.int32))


@pytest.mark.parametrize("materials", [{"matrix": SOFT, "inclusion": STIFF}, {np.int64(1): SOFT, "inclusion": STIFF}])
def test_materials_by_name_are_those_by_tag(tagged, materials):
    rve, right = fe2.RVE(tagged, materials, degree=1), fe2.RVE(tagged, {1: SOFT, 2: STIFF}, degree=1)
    assert rve.body.materials == right.body.materials == {1: SOFT, 2: STIFF}
    assert np.array_equal(rve.homogenise(STRAIN).stress, right.homogenise(STRAIN).stress)


@pytest.mark.mpi
def test_laws_by_name_are_those_by_tag(comm):
    mesh, tags = own(comm, 4)
    domain = meshes.TaggedMesh.of(mesh, tags, names=NAMES)
    soft, stiff = fe2.UFLLaw(SOFT), fe2.UFLLaw(STIFF)
    by_name = fe2.MacroProblem(domain, {"matrix": soft, 2: stiff}).sigma.regions
    assert [(r.label, r.law) for r in by_name] == [
        ('UFLLaw of tag 1 ("matrix")', soft),
        ('UFLLaw of tag 2 ("inclusion")', stiff),
    ]
    by_tag = fe2.MacroProblem(domain, {1: soft, 2: stiff}).sigma.regions
    assert all(np.array_equal(a.cells, b.cells) for a, b in zip(by_name, by_tag, strict=True))


def test_a_mesh_of_ones_own():
    """Halves in series under a strain across them, by Reuss's mean of the moduli across."""
    mesh, tags = own()
    tagged = meshes.TaggedMesh.of(mesh, tags, names=NAMES)
    assert tagged.fractions() == pytest.approx({1: 0.5, 2: 0.5})
    assert meshes.TaggedMesh.of(mesh, tags, period=(2.0, 1.0)).fractions() == pytest.approx({1: 0.25, 2: 0.25})
    stress = fe2.RVE(tagged, {"matrix": SOFT, "inclusion": STIFF}, degree=1).homogenise([0.01, 0.0, 0.0]).stress[0]
    across = [m.bulk + 4 / 3 * m.shear for m in (SOFT, STIFF)]
    assert stress[0] == pytest.approx(0.01 / np.mean(1 / np.array(across)), rel=1e-10)


def test_a_mesh_of_one_phase():
    mesh, _ = own()
    tagged = meshes.TaggedMesh.of(mesh)
    assert (tagged.names, tagged.facet_names, tagged.facet_tags.values.size) == ({"matrix": 1}, {}, 0)
    assert tagged.fractions() == pytest.approx({1: 1.0})


def test_tags_of_something_else_are_refused():
    mesh, tags = own()
    facets = dolfinx.mesh.meshtags(mesh, 1, np.array([0], dtype=np.int32), np.array([1], dtype=np.int32))
    with pytest.raises(meshes.MeshError, match="cell_tags has tags of entities of dimension 1, cells have 2"):
        meshes.TaggedMesh.of(mesh, facets)
    with pytest.raises(meshes.MeshError, match="facet_tags has tags of entities of dimension 2, facets have 1"):
        meshes.TaggedMesh.of(mesh, tags, tags)
    with pytest.raises(meshes.MeshError, match="cell_tags belongs to another mesh"):
        meshes.TaggedMesh.of(own()[0], tags)
    with pytest.raises(TypeError, match=r"cell_tags is of the type ndarray, need dolfinx.mesh.MeshTags"):
        meshes.TaggedMesh.of(mesh, tags.values)
    with pytest.raises(TypeError, match=r"mesh is of the type TaggedMesh, need a dolfinx.mesh.Mesh"):
        meshes.TaggedMesh.of(meshes.TaggedMesh.of(mesh))


def test_a_bare_mesh_is_told_how_to_come_in():
    mesh, tags = own()
    for make, argument in (
        (lambda: fe2.RVE(mesh, {1: SOFT}), "domain"),
        (lambda: fe2.Body(mesh, {1: SOFT}), "domain"),
        (lambda: fe2.MacroProblem(mesh, fe2.UFLLaw(SOFT)), "domain"),
    ):
        with pytest.raises(TypeError, match=rf"{argument} is a dolfinx.mesh.Mesh.*Mesh.of\({argument}, cell_tags"):
            make()
    with pytest.raises(TypeError, match=r"domain is of the type MeshTags, need a meshes.TaggedMesh"):
        fe2.RVE(tags, {1: SOFT})


@pytest.mark.parametrize(
    ("materials", "error", "message"),
    [
        ({"matrix": SOFT, "fibre": STIFF}, meshes.MeshError, r'for "fibre", .*: "matrix" \(tag 1\), "inclusion"'),
        ({"matrix": SOFT, 1: SOFT, 2: STIFF}, meshes.MeshError, r'two materials for the phase of tag 1 \("matrix"\)'),
        ({1: SOFT, 2: None}, TypeError, r'material of tag 2 \("inclusion"\) is None: give a fe2.Material, such as'),
        ({1: SOFT, 2: abs}, TypeError, "of tag 2 .* is the function abs: give fe2.Energy"),
        ({1: fe2.J2, 2: STIFF}, TypeError, r"of tag 1 .* is the class J2: give an instance, J2\("),
        ({1: 1000.0, 2: STIFF}, TypeError, r"of tag 1 .* is 1000.0 \(float\)"),
        ({1: SOFT, 2.0: STIFF}, TypeError, "a material is given for 2.0, need the tag of a phase"),
        ({True: SOFT, 2: STIFF}, TypeError, "a material is given for True, need the tag of a phase"),
        ([SOFT, STIFF], TypeError, "the materials are .*need one for each phase"),
        (SOFT, TypeError, "the materials are LinearElastic.*need one for each phase"),
    ],
)
def test_other_materials_are_refused(tagged, materials, error, message):
    with pytest.raises(error, match=message):
        fe2.RVE(tagged, materials)


def test_a_mesh_without_names_says_so():
    with pytest.raises(meshes.MeshError, match=r'for "matrix", but no phase .* Names of phases: none; use'):
        fe2.RVE(meshes.from_labels(HALVES, MPI.COMM_SELF), {"matrix": SOFT, 2: STIFF})


def test_other_laws_are_refused(tagged):
    V = fem.functionspace(tagged.mesh, ("Lagrange", 1, (2,)))
    law, u = fe2.UFLLaw(SOFT), fem.Function(V)
    for laws, message in (
        ({1: law, 2: STIFF}, r'the law of tag 2 \("inclusion"\) is LinearElastic.*: give fe2.UFLLaw\(material\)'),
        ({1: law, 2: None}, r'the law of tag 2 \("inclusion"\) is None: give a fe2.Law, such as'),
        ({1: law, 2: fe2.ExactLaw}, "is the class ExactLaw: give a fe2.Law"),
        (SOFT, r"the law is LinearElastic.*: give fe2.UFLLaw\(material\)"),
        (fe2.RVE(tagged, {1: SOFT, 2: STIFF}, degree=1), r"the law is of the type RVE: give fe2.ExactLaw\(rve\)"),
        (np.sin, "the law is .*: give a fe2.Law"),
    ):
        with pytest.raises(TypeError, match=message):
            fe2.QuadratureLaw(laws, u, cell_tags=tagged.cell_tags, names=tagged.names)
    with pytest.raises(meshes.MeshError, match='a law is given for "fibre"'):
        fe2.QuadratureLaw({1: law, "fibre": law}, u, cell_tags=tagged.cell_tags, names=tagged.names)
