# SPDX-License-Identifier: MIT
"""Meshes from files: sets become tags, second-order cells keep their shape, damaged files are refused."""

import numpy as np
import pytest

meshio = pytest.importorskip("meshio")
gmsh = pytest.importorskip("gmsh")

dolfinx = pytest.importorskip("dolfinx")
meshes = pytest.importorskip("meshes")

pytestmark = pytest.mark.mpi

SQUARE = np.array([(x, y, 0.0) for y in (0.0, 0.5, 1.0) for x in (0.0, 0.5, 1.0)])
QUADS = np.array([(0, 1, 4, 3), (1, 2, 5, 4), (3, 4, 7, 6), (4, 5, 8, 7)])  # the last one is the fibre


def written(comm, path, work):
    """Let rank 0 write a file and the others wait."""
    if comm.rank == 0:
        work()
    comm.barrier()
    return path


def count(comm, tags):
    """tag → number of entities on all ranks, each counted where it is owned."""
    parts = comm.allgather(tags.values)
    return dict(zip(*(a.tolist() for a in np.unique(np.concatenate(parts), return_counts=True))))


def length(tagged, tag):
    import ufl

    ds = ufl.Measure("ds", domain=tagged.mesh, subdomain_data=tagged.facet_tags)
    form = dolfinx.fem.form(dolfinx.fem.Constant(tagged.mesh, 1.0) * ds(tag))
    return tagged.mesh.comm.allreduce(dolfinx.fem.assemble_scalar(form))


ABAQUS = """*HEADING
 a square with a fibre
*NODE, NSET=ALL
{nodes}
*ELEMENT, TYPE=CPE4R, ELSET=EALL
1, 1, 2, 5, 4
2, 2, 3, 6, 5
** a comment
3, 4, 5, 8, 7
4, 5, 6, 9, 8
*NSET, NSET=LEFT
1, 4, 7
*NSET, NSET=BOTTOM, GENERATE
1, 3, 1
*ELSET, ELSET=FIBRE
4,
*ELSET, ELSET=alias
Fibre
*SURFACE, NAME=TOP, TYPE=ELEMENT
3, S3
FIBRE, S3
"""


def abaqus_text():
    return ABAQUS.format(nodes="\n".join(f"{i}, {x}, {y}" for i, (x, y, _) in enumerate(SQUARE, start=1)))


def test_abaqus_sets_and_surfaces_become_tags(comm, mpi_tmp_path):
    path = mpi_tmp_path / "square.inp"
    written(comm, path, lambda: path.write_text(abaqus_text()))
    tagged = meshes.read(path, comm)
    assert tagged.mesh.geometry.dim == 2
    # nested sets: the fibre keeps its tag, the rest has that of the whole; the alias shares the fibre's
    assert tagged.names == {"EALL": 1, "FIBRE": 2, "alias": 2}
    assert tagged.fractions() == {1: pytest.approx(0.75), 2: pytest.approx(0.25)}
    assert tagged.facet_names == {"TOP": 1}
    assert length(tagged, 1) == pytest.approx(1.0)
    meshes.check_periodic(tagged)

    path = mpi_tmp_path / "no_surface.inp"
    written(comm, path, lambda: path.write_text(abaqus_text().split("*SURFACE")[0]))
    tagged = meshes.read(path, comm, boundaries=("LEFT", "BOTTOM"), sets=("FIBRE",))
    assert {name: length(tagged, tag) for name, tag in tagged.facet_names.items()} == pytest.approx(
        {"LEFT": 1.0, "BOTTOM": 1.0}
    )
    with pytest.raises(meshes.MeshError, match="3 of 4 cells have no tag"):
        meshes.check_materials(tagged, tagged.names.values())


def square(kind):
    """A meshio mesh with the sets in the way that this format has."""
    cells = [("quad", QUADS), ("line", np.array([(0, 3), (3, 6)]))]
    if kind == "sets":
        sets = {"matrix": [[0, 1, 2], []], "fibre": [[3], []], "left": [[], [0, 1]]}
        return meshio.Mesh(SQUARE, cells, cell_sets={k: [np.array(m, int) for m in v] for k, v in sets.items()})
    return meshio.Mesh(SQUARE, cells, cell_data={"phase": [np.array([7, 7, 7, 9]), np.array([3, 3])]})


def test_abaqus_as_meshio_writes_it(comm, mpi_tmp_path):
    path = mpi_tmp_path / "square.inp"
    written(comm, path, lambda: square("sets").write(path))
    tagged = meshes.read(path, comm)
    assert tagged.names == {"matrix": 1, "fibre": 2} and tagged.facet_names == {"left": 1}
    assert tagged.fractions()[2] == pytest.approx(0.25)
    assert length(tagged, 1) == pytest.approx(1.0)


@pytest.mark.parametrize("suffix", [".vtu", ".vtk"])
def test_numbers_on_cells_become_tags(comm, mpi_tmp_path, suffix):
    path = mpi_tmp_path / f"square{suffix}"
    written(comm, path, lambda: square("data").write(path))
    tagged = meshes.read(path, comm)
    assert tagged.fractions() == {7: pytest.approx(0.75), 9: pytest.approx(0.25)}
    assert length(tagged, 3) == pytest.approx(1.0)
    assert tagged.names == {}
    with pytest.raises(meshes.MeshError, match=r'no cell data "grain".*phase'):
        meshes.read(path, comm, data="grain")


def test_several_numbers_must_be_chosen(comm, mpi_tmp_path):
    path = mpi_tmp_path / "square.vtu"
    data = {"phase": [np.array([1, 1, 1, 2])], "grain": [np.array([4, 3, 2, 1])], "bad": [np.array([0.5, 1, 1, 1])]}
    written(comm, path, lambda: meshio.Mesh(SQUARE, [("quad", QUADS)], cell_data=data).write(path))
    with pytest.raises(meshes.MeshError, match="data="):
        meshes.read(path, comm)
    assert len(meshes.read(path, comm, data="grain").fractions()) == 4
    with pytest.raises(meshes.MeshError, match="one integer"):
        meshes.read(path, comm, data="bad")


def test_xdmf_of_meshio(comm, mpi_tmp_path):
    path = mpi_tmp_path / "square.xdmf"
    mesh = meshio.Mesh(SQUARE, [("quad", QUADS)], cell_data={"phase": [np.array([1, 1, 1, 2])]})
    written(comm, path, lambda: mesh.write(path))
    assert meshes.read(path, comm).fractions() == {1: pytest.approx(0.75), 2: pytest.approx(0.25)}


@pytest.mark.parametrize("order", [1, 2])
def test_xdmf_of_dolfinx(comm, mpi_tmp_path, order):
    path = mpi_tmp_path / "membrane.xdmf"
    original = meshes.cook(comm, n=4, order=order, quads=order == 1)
    with dolfinx.io.XDMFFile(comm, str(path), "w") as file:
        file.write_mesh(original.mesh)
        for name, tags in (("phases", original.cell_tags), ("boundaries", original.facet_tags)):
            tags.name = name
            original.mesh.topology.create_connectivity(1, 2)
            file.write_meshtags(tags, original.mesh.geometry)
    tagged = meshes.read(path, comm)
    assert tagged.fractions() == {1: pytest.approx(original.fractions()[1])}
    for tag in original.facet_names.values():
        assert length(tagged, tag) == pytest.approx(length(original, tag))
    if comm.rank == 0:
        path.with_suffix(".h5").unlink()
    comm.barrier()
    with pytest.raises(meshes.MeshError, match=r"membrane\.h5 is missing"):
        meshes.read(path, comm)


def test_xdmf_of_dolfinx_in_3d(comm, mpi_tmp_path):
    """With tags of cells and facets, with neither, and a surface in space, which is no body."""
    original = meshes.bar(comm, size=(2.0, 1.0, 1.0), n=(2, 1, 1))
    paths = [mpi_tmp_path / name for name in ("tagged.xdmf", "plain.xdmf", "shell.xdmf")]
    for path, with_tags in zip(paths, (True, False)):
        with dolfinx.io.XDMFFile(comm, str(path), "w") as file:
            file.write_mesh(original.mesh)
            for tags in (original.cell_tags, original.facet_tags) if with_tags else ():
                original.mesh.topology.create_connectivity(2, 3)
                file.write_meshtags(tags, original.mesh.geometry)
    tagged, plain = (meshes.read(path, comm) for path in paths[:2])
    own = tagged.facet_tags.indices < tagged.mesh.topology.index_map(2).size_local
    values = np.concatenate(comm.allgather(tagged.facet_tags.values[own]))
    counts = [int((values == tag).sum()) for tag in original.facet_names.values()]
    assert counts == [1, 1, 2, 2, 2, 2]
    for found in (tagged, plain):
        assert found.fractions() == {1: pytest.approx(1.0)}
        assert found.facet_tags.dim == 2 and found.cell_tags.dim == 3
    assert not len(plain.facet_tags.indices)
    original.mesh.topology.create_connectivity(2, 3)
    sides = dolfinx.mesh.exterior_facet_indices(original.mesh.topology)
    shell = dolfinx.mesh.create_submesh(original.mesh, 2, sides)[0]
    with dolfinx.io.XDMFFile(comm, str(paths[2]), "w") as file:
        file.write_mesh(shell)
    with pytest.raises(meshes.MeshError, match="cells of dimension 2 in 3 dimensions"):
        meshes.read(paths[2], comm)


def test_med_groups_become_tags(comm, mpi_tmp_path):
    pytest.importorskip("h5py")
    path = mpi_tmp_path / "square.med"
    mesh = meshio.Mesh(SQUARE, [("quad", QUADS)], cell_data={"cell_tags": [np.array([-6, -6, -6, -7])]})
    mesh.cell_tags = {-6: ["matrix"], -7: ["fibre", "stiff"]}
    written(comm, path, lambda: mesh.write(path))
    tagged = meshes.read(path, comm)
    assert tagged.names == {"matrix": 1, "fibre": 2, "stiff": 2}
    assert tagged.fractions()[2] == pytest.approx(0.25)


def gmsh_disc(path, order, *, quads, incomplete, version=4.1):
    """A disc of radius 1 in two halves, as gmsh writes it."""
    gmsh.initialize(readConfigFiles=False, interruptible=False)
    gmsh.option.setNumber("General.Terminal", 0)
    occ = gmsh.model.occ
    disc, line = occ.addDisk(0, 0, 0, 1, 1), occ.addLine(occ.addPoint(-1, 0, 0), occ.addPoint(1, 0, 0))
    occ.fragment([(2, disc)], [(1, line)])
    occ.synchronize()
    faces = gmsh.model.getEntities(2)
    for tag, (name, face) in enumerate(zip(("lower", "upper"), faces), start=11):
        gmsh.model.addPhysicalGroup(2, [face[1]], tag, name)
    rim = [e for _, e in gmsh.model.getBoundary(faces, oriented=False)]
    gmsh.model.addPhysicalGroup(1, rim, 5, "rim")
    for option, value in {
        "MeshSizeMax": 0.4, "RecombineAll": int(quads), "RecombinationAlgorithm": 3,
        "SecondOrderIncomplete": int(incomplete), "MshFileVersion": version,
    }.items():  # fmt: skip
        gmsh.option.setNumber(f"Mesh.{option}", value)
    gmsh.model.mesh.generate(2)
    gmsh.model.mesh.setOrder(order)
    gmsh.write(str(path))
    gmsh.finalize()


@pytest.mark.parametrize("version", [2.2, 4.1])
@pytest.mark.parametrize(
    "order, quads, incomplete",
    [(1, False, False), (2, False, False), (2, True, False), (2, True, True), (3, False, False)],
)
def test_gmsh_groups_and_curved_cells(comm, mpi_tmp_path, order, quads, incomplete, version):
    """A disc keeps its area and its rim, with 8-node quadrilaterals as well."""
    path = mpi_tmp_path / "disc.msh"
    written(comm, path, lambda: gmsh_disc(path, order, quads=quads, incomplete=incomplete, version=version))
    tagged = meshes.read(path, comm)
    assert tagged.names == {"lower": 11, "upper": 12} and tagged.facet_names == {"rim": 5}
    accuracy = {1: 0.03, 2: 1e-4, 3: 1e-5}[order]  # edges of angle 0.4: a²/6 = 2.7 %, then squares of it and smaller
    for fraction in tagged.fractions().values():
        assert fraction == pytest.approx(np.pi / 8, rel=accuracy)
    assert length(tagged, 5) == pytest.approx(2 * np.pi, rel=accuracy)


def disc8(path):
    """The unit disc as five 8-node quadrilaterals: a square in the middle and four curved ones around."""
    angles = np.pi / 4 + np.pi / 2 * np.arange(4)
    inner = 0.5 * np.column_stack([np.cos(angles), np.sin(angles)])
    outer, arc = 2 * inner, np.column_stack([np.cos(angles + np.pi / 4), np.sin(angles + np.pi / 4)])
    points, cells = (
        list(inner) + list(outer),
        [[0, 1, 2, 3]] + [[i, i + 4, (i + 1) % 4 + 4, (i + 1) % 4] for i in range(4)],
    )
    edges = {}
    for cell in cells:
        for a, b in zip(cell[:4], cell[1:4] + cell[:1]):
            if frozenset((a, b)) not in edges:
                edges[frozenset((a, b))] = len(points)
                on_arc = a >= 4 and b >= 4
                points.append(arc[a - 4] if on_arc else (points[a] + points[b]) / 2)
    cells = [c + [edges[frozenset((a, b))] for a, b in zip(c, c[1:] + c[:1])] for c in cells]
    meshio.Mesh(np.array(points), [("quad8", np.array(cells))]).write(path)


def test_eight_node_quadrilaterals_are_completed(comm, mpi_tmp_path):
    path = mpi_tmp_path / "disc.vtu"
    written(comm, path, lambda: disc8(path))
    tagged = meshes.read(path, comm)
    # Area under four parabolas through the ends and the middle of a quarter arc: the square of side √2, and on each
    # side (chord √2, height 1 - √2/2) a parabolic segment of 2/3 chord times height (Archimedes).
    exact = 2 + 4 * (2 / 3) * np.sqrt(2) * (1 - np.sqrt(2) / 2)
    lower, upper = tagged.box
    assert np.prod(upper - lower) * tagged.fractions()[1] == pytest.approx(exact, rel=1e-12)


def bent_box(path):
    """A box of 20-node hexahedra under a quadratic map that serendipity cells hold exactly."""
    corners = np.array([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)], float)
    edges = [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)]
    one = np.vstack([corners, [(corners[a] + corners[b]) / 2 for a, b in edges]])
    points = np.vstack([one, one + [1, 0, 0], one + [0, 1, 0]])
    points, which = np.unique(points, axis=0, return_inverse=True)
    x, y, z = points.T
    bent = np.column_stack([x + 0.1 * y**2 + 0.05 * z**2, y + 0.1 * x * z, z + 0.1 * x**2])
    meshio.Mesh(bent, [("hexahedron20", which.reshape(3, 20))]).write(path)


def test_twenty_node_hexahedra_are_completed(comm, mpi_tmp_path):
    path = mpi_tmp_path / "box.vtu"
    written(comm, path, lambda: bent_box(path))
    tagged = meshes.read(path, comm)
    # the determinant of the map's derivative, integrated over three unit cubes (degree 3 or less in each direction)
    t, w = np.polynomial.legendre.leggauss(4)
    t, w = (t + 1) / 2, w / 2
    exact = 0.0
    for ox, oy in ((0, 0), (1, 0), (0, 1)):
        x, y, z = np.meshgrid(t + ox, t + oy, t, indexing="ij")
        one, zero = np.ones_like(x), np.zeros_like(x)
        J = np.array([[one, 0.2 * y, 0.1 * z], [0.1 * z, one, 0.1 * x], [0.2 * x, zero, one]])
        exact += np.einsum("i,j,k,ijk->", w, w, w, np.linalg.det(np.moveaxis(J, (0, 1), (-2, -1))))
    lower, upper = tagged.box
    assert np.prod(upper - lower) * tagged.fractions()[1] == pytest.approx(exact, rel=1e-12)
    # serendipity functions have all quadratic terms, so that the completed nodes are where the map puts them
    ends = ((0, 0), (1, 0), (0, 1))
    grid = {(ox + i / 2, oy + j / 2, k / 2) for ox, oy in ends for i in range(3) for j in range(3) for k in range(3)}
    x, y, z = np.array(sorted(grid)).T
    bent = np.column_stack([x + 0.1 * y**2 + 0.05 * z**2, y + 0.1 * x * z, z + 0.1 * x**2])
    nodes = tagged.mesh.geometry.x[:, None]
    distance = np.min(np.linalg.norm(nodes - bent, axis=2), axis=1)
    assert distance.max(initial=0.0) < 1e-12
    assert tagged.mesh.geometry.index_map().size_global == len(bent)


@pytest.mark.parametrize("kind, n", [("triangle6", 2), ("quad9", 2), ("tetra10", 3), ("hexahedron27", 3)])
def test_second_order_cells_keep_their_shape(comm, mpi_tmp_path, kind, n):
    """Written from DOLFINx's own order to VTK's and read back: the same nodes in the same cells."""
    from meshes.formats import VTK_ORDERED

    cell, _ = VTK_ORDERED[kind]
    original = meshes.bar(comm, size=(1.0,) * n, n=(2,) * n, order=2, quads=kind[0] in "qh")
    path = mpi_tmp_path / "bar.vtu"
    if comm.rank == 0:
        from mpi4py import MPI

        own = meshes.bar(MPI.COMM_SELF, size=(1.0,) * n, n=(2,) * n, order=2, quads=kind[0] in "qh").mesh
        dofs = meshes.compat.geometry_dofmap(own)
        vtk = np.argsort(dolfinx.cpp.io.perm_vtk(dolfinx.mesh.to_type(cell), dofs.shape[1]))
        x = own.geometry.x.copy()
        x[:, 1] += 0.1 * x[:, 0] ** 2
        meshio.Mesh(x, [(kind, dofs[:, vtk])]).write(path)
    comm.barrier()
    tagged = meshes.read(path, comm)
    lower, upper = tagged.box
    assert np.prod(upper - lower) * tagged.fractions()[1] == pytest.approx(1.0)  # the map keeps volumes
    assert tagged.mesh.topology.index_map(n).size_global == original.mesh.topology.index_map(n).size_global


def damaged(path, what):
    cells = {"quad": QUADS}
    if what == "truncated":
        meshio.Mesh(SQUARE, cells).write(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif what == "empty":
        path.write_text("")
    elif what == "inverted":
        meshio.Mesh(SQUARE, {"quad": np.vstack([QUADS[:3], QUADS[3][[0, 1, 3, 2]]])}).write(path)
    elif what == "folded":  # the last node has moved through the diagonal
        points = SQUARE[[0, 2, 6, 8]].copy()
        points[3] = (0.2, 0.2, 0.0)
        meshio.Mesh(points, {"triangle": np.array([(0, 1, 2), (1, 3, 2)])}).write(path)
    elif what == "mixed":
        meshio.Mesh(SQUARE, {"quad": QUADS[:3], "triangle": np.array([(4, 5, 8), (4, 8, 7)])}).write(path)
    elif what == "shell":
        meshio.Mesh(SQUARE + np.array([0, 0, 1]) * SQUARE[:, :1], cells).write(path)
    elif what == "wedge":
        prism = np.array([(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1)], float)
        meshio.Mesh(prism, {"wedge": np.array([range(6)])}).write(path)


@pytest.mark.parametrize(
    "what, name, hint",
    [
        ("missing", "a.vtu", "no such file"),
        ("truncated", "a.vtu", "meshio cannot read"),
        ("truncated", "a.inp", "cut off|it needs"),
        ("truncated", "a.msh", "a.msh"),
        ("truncated", "a.xdmf", "only a part"),
        ("empty", "a.inp", "0 nodes"),
        ("empty", "a.msh", "a.msh"),
        ("empty", "a.unknown", "meshio cannot read"),
        ("inverted", "a.vtu", r"1 of 4 cells are inverted or flat, the first of them \[3\]"),
        ("folded", "a.vtu", "inverted"),
        ("mixed", "a.vtu", "3 quadrilaterals of degree 1, 2 triangles of degree 1"),
        ("shell", "a.vtu", "no shells"),
        ("wedge", "a.vtu", '"wedge"'),
    ],
)
def test_damaged_files_are_told_apart_on_every_rank(comm, mpi_tmp_path, what, name, hint):
    path = mpi_tmp_path / name
    written(comm, path, lambda: damaged(path, what))
    with pytest.raises(meshes.MeshError, match=hint) as error:
        meshes.read(path, comm)
    assert name in str(error.value)


def test_sets_that_overlap_in_part_are_refused(comm, mpi_tmp_path):
    path = mpi_tmp_path / "overlap.inp"
    text = abaqus_text() + "*ELSET, ELSET=ROW\n1, 2\n*ELSET, ELSET=COLUMN\n2, 4\n"
    written(comm, path, lambda: path.write_text(text))
    with pytest.raises(meshes.MeshError, match=r'"ROW" \(2 members\) and "COLUMN" \(2\) share 1.*sets='):
        meshes.read(path, comm)
    assert meshes.read(path, comm, sets=("ROW", "FIBRE")).names == {"FIBRE": 1, "ROW": 2}
    with pytest.raises(meshes.MeshError, match=r"no set \['GRAIN'\].*COLUMN"):
        meshes.read(path, comm, sets=("GRAIN",))
