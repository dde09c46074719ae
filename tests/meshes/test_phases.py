# SPDX-License-Identifier: MIT
"""In meshes from files no phase is lost silently, and nothing counts twice."""

import numpy as np
import pytest

pytest.importorskip("meshio")
pytest.importorskip("gmsh")
pytest.importorskip("dolfinx")

import dolfinx
import gmsh
import meshio
from mpi4py import MPI

import fe2
import meshes

# Two by two squares in [0, 1]², the two on the right stiff: a laminate across x.
SQUARE = np.array([(x, y, 0.0) for y in (0.0, 0.5, 1.0) for x in (0.0, 0.5, 1.0)])
QUADS = np.array([(0, 1, 4, 3), (1, 2, 5, 4), (3, 4, 7, 6), (4, 5, 8, 7)])
STIFF = np.array([0, 1, 0, 1])

SOFT, HARD = fe2.LinearElastic.from_young_poisson(10.0, 0.3), fe2.LinearElastic.from_young_poisson(100.0, 0.3)
# Plane strain: E (1 - ν) / ((1 + ν) (1 - 2 ν)) of either, and their harmonic mean, which is C11 of the laminate; C22 is
# the mean of C22 - C12²/C11 of each plus the harmonic mean times (mean of C12/C11)², and C12/C11 = ν / (1 - ν) in both.
P_WAVE = np.array([10.0, 100.0]) * 0.7 / (1.3 * 0.4)
C11 = 1 / np.mean(1 / P_WAVE)
C22 = np.mean(P_WAVE) * (1 - (3 / 7) ** 2) + C11 * (3 / 7) ** 2


def vtu(path, **data):
    meshio.Mesh(SQUARE, [("quad", QUADS)], cell_data={name: [np.asarray(v)] for name, v in data.items()}).write(path)
    return path


def stiffness(tagged, materials):
    return fe2.RVE(tagged, materials, degree=1).homogenise(np.zeros(3)).tangent[0]


@pytest.mark.parametrize("kind", [np.int32, np.uint8, np.int64, np.float32, np.float64])
@pytest.mark.parametrize("first", [0, 1])
def test_labels_of_any_kind_are_tags(tmp_path, kind, first):
    """0 is a label like the others; with nothing given the two phases give a laminate, and not one phase."""
    tagged = meshes.read(vtu(tmp_path / "a.vtu", phase=(STIFF + first).astype(kind)), MPI.COMM_SELF)
    assert tagged.fractions() == {first: pytest.approx(0.5), first + 1: pytest.approx(0.5)}
    C = stiffness(tagged, {first: SOFT, first + 1: HARD})
    assert [C[0, 0], C[1, 1]] == pytest.approx([C11, C22], rel=1e-10)


def test_a_material_without_cells_is_refused(tmp_path):
    tagged = meshes.from_labels(np.ones((2, 2), dtype=int), MPI.COMM_SELF)
    with pytest.raises(meshes.MeshError, match=r"material is given for tag 2, which no cell has.*have the tags \[1\]"):
        fe2.RVE(tagged, {1: SOFT, 2: HARD})


@pytest.mark.parametrize("value", [1.5, np.nan, np.inf, -1.0, 3e9, 1e300])
def test_numbers_that_are_no_labels(tmp_path, value):
    path = vtu(tmp_path / "a.vtu", phase=[1.0, 1.0, value, 2.0])
    with pytest.raises(meshes.MeshError, match=r"no whole numbers.*sets="):
        meshes.read(path, MPI.COMM_SELF)
    with pytest.raises(meshes.MeshError, match=r"one integer from 0 to 2147483647 per cell, and 1 of 4 are not"):
        meshes.read(path, MPI.COMM_SELF, data="phase")
    assert meshes.read(path, MPI.COMM_SELF, sets=()).fractions() == {1: pytest.approx(1.0)}


def test_zero_is_no_tag_of_facets_and_of_groups(tmp_path):
    """Boundary edges and physical groups are numbered from 1 on; meshio writes 0 for those that have none."""
    cells = [("quad", QUADS), ("line", np.array([(0, 3), (3, 6)]))]
    data = {"phase": [STIFF, np.array([0, 4])]}
    meshio.Mesh(SQUARE, cells, cell_data=data).write(tmp_path / "a.vtu")
    tagged = meshes.read(tmp_path / "a.vtu", MPI.COMM_SELF)
    assert tagged.fractions() == {0: pytest.approx(0.5), 1: pytest.approx(0.5)}
    assert tagged.facet_tags.values.tolist() == [4]
    tagged = meshes.read(vtu(tmp_path / "a.vtu", **{"gmsh:physical": STIFF}), MPI.COMM_SELF)
    assert tagged.fractions() == {1: pytest.approx(0.5)}
    with pytest.raises(meshes.MeshError, match="2 of 4 cells have no tag"):
        meshes.check_materials(tagged, [1])


def test_integers_beyond_those_of_dolfinx(tmp_path):
    tagged = meshes.read(vtu(tmp_path / "a.vtu", phase=STIFF + (2.0**31 - 2)), MPI.COMM_SELF)
    assert list(tagged.fractions()) == [2**31 - 2, 2**31 - 1]
    path = vtu(tmp_path / "a.vtu", phase=np.array([1, 1, 3_000_000_000, 2]))
    with pytest.raises(meshes.MeshError, match=r"from 0 to 2147483647.*the first is 3000000000"):
        meshes.read(path, MPI.COMM_SELF)
    path = vtu(tmp_path / "a.vtu", phase=np.array([1, 1, -1, 2]))
    with pytest.raises(meshes.MeshError, match=r"from 0 to 2147483647.*the first is -1"):
        meshes.read(path, MPI.COMM_SELF)


def test_integers_go_before_whole_numbers(tmp_path):
    """A result that happens to be whole, or one that is none, does not hide the labels; vectors are never labels."""
    fields = {"phase": STIFF + 1, "damage": np.zeros(4), "energy": np.full(4, 0.3), "u": np.ones((4, 3))}
    assert len(meshes.read(vtu(tmp_path / "a.vtu", **fields), MPI.COMM_SELF).fractions()) == 2
    with pytest.raises(meshes.MeshError, match=r"several whole fields on its cells, \['damage', 'phase'\].*data="):
        meshes.read(vtu(tmp_path / "a.vtu", damage=np.zeros(4), phase=STIFF + 1.0), MPI.COMM_SELF)
    tagged = meshes.read(vtu(tmp_path / "a.vtu", u=np.ones((4, 3))), MPI.COMM_SELF)
    assert tagged.fractions() == {1: pytest.approx(1.0)}
    with pytest.raises(meshes.MeshError, match=r"one integer from .*4 of 4 are not, the first is 1\.0, 1\.0, 1\.0"):
        meshes.read(tmp_path / "a.vtu", MPI.COMM_SELF, data="u")


def test_sets_of_the_boundary_do_not_hide_the_labels(tmp_path, monkeypatch):
    cells = [("quad", QUADS), ("line", np.array([(0, 3), (3, 6)]))]
    sets = {"left": [np.array([], dtype=int), np.array([0, 1])]}
    mesh = meshio.Mesh(SQUARE, cells, cell_data={"phase": [STIFF + 1, np.zeros(2, int)]}, cell_sets=sets)
    monkeypatch.setattr(meshio, "read", lambda path: mesh)  # few formats have both
    (tmp_path / "a.vtu").touch()
    tagged = meshes.read(tmp_path / "a.vtu", MPI.COMM_SELF)
    assert tagged.fractions() == {1: pytest.approx(0.5), 2: pytest.approx(0.5)}
    assert tagged.facet_names == {"left": 1}


def test_functions_of_dolfinx_are_no_tags(tmp_path):
    """Phases as a function on the cells, where mesh tags are needed."""
    tagged = meshes.from_labels([[1, 2]], MPI.COMM_SELF)
    phase = dolfinx.fem.Function(dolfinx.fem.functionspace(tagged.mesh, ("DG", 0)), name="phase")
    path = tmp_path / "a.xdmf"
    with dolfinx.io.XDMFFile(MPI.COMM_SELF, str(path), "w") as file:
        file.write_mesh(tagged.mesh)
        file.write_function(phase)
    with pytest.raises(meshes.MeshError, match=r"functions \['phase'\] on its cells, but no cell tags"):
        meshes.read(path, MPI.COMM_SELF)
    assert meshes.read(path, MPI.COMM_SELF, sets=()).fractions() == {1: pytest.approx(1.0)}


def cracked(path):
    """The laminate with the node in the middle written twice, so that both edges on the interface are open."""
    quads = QUADS.copy()
    quads[1, 3] = quads[3, 0] = 9
    meshio.Mesh(np.vstack([SQUARE, SQUARE[4]]), [("quad", quads)], cell_data={"phase": [STIFF + 1]}).write(path)


def test_coincident_nodes(tmp_path):
    """They are reported; merged, the laminate is one; kept, it is cracked."""
    path = tmp_path / "a.vtu"
    cracked(path)
    with pytest.raises(meshes.MeshError, match=r"1 nodes coincide with another node .*first at \(0\.5, 0\.5\).*merge"):
        meshes.read(path, MPI.COMM_SELF)
    materials = {1: SOFT, 2: HARD}
    merged = meshes.read(path, MPI.COMM_SELF, coincident="merge")
    assert stiffness(merged, materials)[0, 0] == pytest.approx(C11, rel=1e-10)
    kept = meshes.read(path, MPI.COMM_SELF, coincident="keep")
    assert kept.mesh.geometry.x.shape[0] == 10
    loss = stiffness(merged, materials) - stiffness(kept, materials)
    # An open edge takes energy away at every strain, and much across it.
    assert np.linalg.eigvalsh(loss).min() > -1e-10 and loss[0, 0] > 0.1 * C11
    with pytest.raises(meshes.MeshError, match="coincident = 'join': need one of 'error', 'merge', 'keep'"):
        meshes.read(path, MPI.COMM_SELF, coincident="join")


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_places_are_told_apart_at_any_size(tmp_path, scale):
    """Nodes apart by 1e-9 of the mesh are at one place; those of a cell as thin as 1e-7 of it are not."""
    path = tmp_path / "a.vtu"
    points = SQUARE.copy()
    points[[1, 4, 7], 0] = 1e-7
    meshio.Mesh(scale * points, [("quad", QUADS)]).write(path)
    assert meshes.read(path, MPI.COMM_SELF).mesh.geometry.x.shape[0] == 9
    points = np.vstack([SQUARE, SQUARE[[1, 4, 7]] + [0.0, 1e-9, 0.0]])
    quads = QUADS.copy()
    quads[1, [0, 3]], quads[3, [0, 3]] = (9, 10), (10, 11)
    meshio.Mesh(scale * points, [("quad", quads)]).write(path)
    with pytest.raises(meshes.MeshError, match="3 nodes coincide with another node"):
        meshes.read(path, MPI.COMM_SELF)


@pytest.mark.mpi
def test_coincident_nodes_in_a_file_of_dolfinx(comm, mpi_tmp_path):
    """Also if the two nodes are on different ranks."""
    import basix.ufl

    path = mpi_tmp_path / "a.xdmf"
    if comm.rank == 0:
        points = np.vstack([SQUARE, SQUARE[[1, 4, 7]]])[:, :2].copy()
        cells = np.array([(0, 1, 3, 4), (9, 2, 10, 5), (3, 4, 6, 7), (10, 5, 11, 8)])
        element = basix.ufl.element("Lagrange", "quadrilateral", 1, shape=(2,))
        mesh = meshes.compat.create_mesh(MPI.COMM_SELF, cells, points, element)
        with dolfinx.io.XDMFFile(MPI.COMM_SELF, str(path), "w") as file:
            file.write_mesh(mesh)
    comm.barrier()
    with pytest.raises(meshes.MeshError, match="3 nodes coincide with another node"):
        meshes.read(path, comm)
    with pytest.raises(meshes.MeshError, match="DOLFINx wrote are not merged"):
        meshes.read(path, comm, coincident="merge")
    assert meshes.read(path, comm, coincident="keep").mesh.geometry.index_map().size_global == 12


@pytest.mark.parametrize("kind", ["triangle", "hexahedron"])
def test_a_cell_twice_in_a_file(tmp_path, kind):
    if kind == "triangle":
        points, cells = SQUARE[[0, 2, 6, 8]], np.array([(0, 1, 3), (0, 3, 2), (3, 0, 1)])
    else:
        points = np.array([(x, y, z) for z in (0, 1) for y in (0, 1) for x in (0, 1, 2)], float)
        left = np.array([0, 1, 4, 3, 6, 7, 10, 9])
        cells = np.array([left, left + 1, left])
    meshio.Mesh(points, [(kind, cells)]).write(tmp_path / "a.vtu")
    with pytest.raises(meshes.MeshError, match=r"1 of 3 cells have the same nodes as another one, .* \[0, 2\]"):
        meshes.read(tmp_path / "a.vtu", MPI.COMM_SELF)


def test_three_cells_on_one_facet(tmp_path):
    points = np.vstack([SQUARE[[0, 2, 6, 8]], [(2.0, 0.1, 0.0), (2.0, -1.0, 0.0)]])
    cells = np.array([(1, 3, 0), (1, 3, 2), (1, 3, 4), (1, 4, 5)])
    meshio.Mesh(points, [("triangle", cells)]).write(tmp_path / "a.vtu")
    with pytest.raises(meshes.MeshError, match=r"1 facets belong to more than two cells, .* \[0, 1, 2\]"):
        meshes.read(tmp_path / "a.vtu", MPI.COMM_SELF)


def gmsh_file(path, dim, groups, version, *, binary=False, every=False, order=1):
    """Two rectangles or boxes, left of x = 1 and right; groups: name → which of the two."""
    gmsh.initialize(readConfigFiles=False, interruptible=False)
    gmsh.option.setNumber("General.Terminal", 0)
    occ, model = gmsh.model.occ, gmsh.model
    parts = [occ.addRectangle(x, 0, 0, 1, 1) if dim == 2 else occ.addBox(x, 0, 0, 1, 1, 1) for x in (0, 1)]
    occ.fragment([(dim, parts[0])], [(dim, parts[1])])
    occ.synchronize()
    parts = sorted((e for _, e in model.getEntities(dim)), key=lambda e: occ.getCenterOfMass(dim, e)[0])
    for tag, (name, which) in enumerate(groups.items(), start=7):
        model.addPhysicalGroup(dim, [parts[i] for i in which], tag, name)
    if dim == 3:
        for _, e in model.getEntities(1):
            model.mesh.setTransfiniteCurve(e, 3)
        for _, e in model.getEntities(2):
            model.mesh.setTransfiniteSurface(e)
            model.mesh.setRecombine(2, e)
        for e in parts:
            model.mesh.setTransfiniteVolume(e)
    if order == 2:
        gmsh.option.setNumber("Mesh.SecondOrderIncomplete", 1)
    for option, value in {"SizeMax": 0.5, "MshFileVersion": version, "Binary": binary, "SaveAll": every}.items():
        gmsh.option.setNumber(f"Mesh.{'Mesh' if option == 'SizeMax' else ''}{option}", float(value))
    model.mesh.generate(dim)
    model.mesh.setOrder(order)
    gmsh.write(str(path))
    gmsh.finalize()
    return path


@pytest.mark.parametrize("version, binary", [(1.0, False), (2.2, False), (2.2, True), (4.1, False)])
@pytest.mark.parametrize("dim", [2, 3])
def test_a_cell_in_two_groups(tmp_path, dim, version, binary):
    """Of nested groups the inner one counts, whatever the version: the older ones write such a cell twice."""
    path = gmsh_file(tmp_path / "a.msh", dim, {"all": (0, 1), "fibre": (1,)}, version, binary=binary)
    tagged = meshes.read(path, MPI.COMM_SELF)
    matrix, fibre = (7, 8)
    assert tagged.fractions() == {matrix: pytest.approx(0.5), fibre: pytest.approx(0.5)}
    if version > 1:  # which has no names
        assert tagged.names == {"all": matrix, "fibre": fibre}


@pytest.mark.parametrize("version", [2.2, 4.1])
def test_twenty_node_hexahedra_of_gmsh(tmp_path, version):
    """Straight cells: every node is at a multiple of a quarter, each place has one, and det J is constant."""
    path = gmsh_file(tmp_path / "a.msh", 3, {"left": (0,), "right": (1,)}, version, order=2)
    mesh = meshes.read(path, MPI.COMM_SELF).mesh
    dofs = meshes.compat.geometry_dofmap(mesh)
    assert dofs.shape == (16, 27)
    reference = meshes.geometry.reference("hexahedron", 2).points
    for x in mesh.geometry.x[dofs]:
        affine = np.linalg.lstsq(np.column_stack([np.ones(27), reference]), x, rcond=None)[0]
        assert x == pytest.approx(np.column_stack([np.ones(27), reference]) @ affine, abs=1e-12)


def test_groups_that_overlap_in_part(tmp_path):
    path = gmsh_file(tmp_path / "a.msh", 2, {"all": (0, 1), "left": (0,), "right": (1,)}, 2.2)
    assert meshes.read(path, MPI.COMM_SELF).names == {"left": 8, "right": 9}


def test_all_cells_saved_with_a_group_for_one_phase(tmp_path):
    """Version 2.2 loses the group then, 4.1 keeps it."""
    path = gmsh_file(tmp_path / "a.msh", 2, {"fibre": (1,)}, 2.2, every=True)
    with pytest.raises(
        meshes.MeshError, match=r"names the physical groups \['fibre'\], but no cell is in a group.*SaveAll"
    ):
        meshes.read(path, MPI.COMM_SELF)
    tagged = meshes.read(gmsh_file(path, 2, {"fibre": (1,)}, 4.1, every=True), MPI.COMM_SELF)
    assert tagged.fractions() == {7: pytest.approx(0.5)}
    with pytest.raises(meshes.MeshError, match=r"of \d+ cells have no tag"):
        meshes.check_materials(tagged, [7])


GMSH = """$MeshFormat
2.2 0 8
$EndMeshFormat
$PhysicalNames
2
2 7 "fibre"
2 8 "{matrix}"
$EndPhysicalNames
$Nodes
6
1 0 0 0
2 1 0 0
3 2 0 0
4 0 1 0
5 1 1 0
6 2 1 0
$EndNodes
$Elements
2
10 3 2 7 1 1 2 5 4
{number} 3 2 8 1 2 3 6 5
$EndElements
"""


def test_groups_of_single_cells(tmp_path):
    """Two groups on one entity, as other programs write it; gmsh's own reader puts every cell into both."""
    path = tmp_path / "a.msh"
    path.write_text(GMSH.format(matrix="matrix", number=20))
    tagged = meshes.read(path, MPI.COMM_SELF)
    assert tagged.names == {"fibre": 7, "matrix": 8}
    assert tagged.fractions() == {7: pytest.approx(0.5), 8: pytest.approx(0.5)}
    path.write_text(GMSH.format(matrix="matrix", number=20).replace("2.2 0 8", "2 0 8"))
    assert meshes.read(path, MPI.COMM_SELF).names == {"fibre": 7, "matrix": 8}
    path.write_text(GMSH.format(matrix="matrix", number=10))
    with pytest.raises(meshes.MeshError, match="1 element numbers occur twice, the first is 10"):
        meshes.read(path, MPI.COMM_SELF)
    path.write_text(GMSH.format(matrix="fibre", number=20))
    with pytest.raises(meshes.MeshError, match=r'two sets have the name "fibre" \(tags 7 and 8\)'):
        meshes.read(path, MPI.COMM_SELF)


@pytest.mark.parametrize("version", [2.2, 4.1])
def test_entities_without_physical_groups_are_one_phase_and_that_is_said(version, tmp_path):
    gmsh.initialize(readConfigFiles=False, interruptible=False)
    gmsh.option.setNumber("General.Terminal", 0)
    gmsh.option.setNumber("Mesh.MshFileVersion", version)
    occ = gmsh.model.occ
    occ.fragment([(2, occ.addRectangle(-0.5, -0.5, 0, 1, 1))], [(2, occ.addDisk(0, 0, 0, 0.3, 0.3))])
    occ.synchronize()
    gmsh.option.setNumber("Mesh.MeshSizeMax", 0.4)
    gmsh.model.mesh.generate(2)
    gmsh.write(str(tmp_path / "a.msh"))
    gmsh.finalize()
    with pytest.warns(UserWarning, match="lie on 2 entities of the geometry and are in no physical group"):
        assert meshes.read(tmp_path / "a.msh", MPI.COMM_SELF).fractions() == {1: pytest.approx(1.0)}
