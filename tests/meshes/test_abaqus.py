# SPDX-License-Identifier: MIT
"""Abaqus and CalculiX input files as people write them: what is valid is read right, what is not supported is named."""

import numpy as np
import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("meshio")

from mpi4py import MPI

import meshes

# Two by two squares of side 0.5; the upper right one is the fibre.
NODES = "\n".join(f"{1 + i + 3 * j}, {0.5 * i}, {0.5 * j}" for j in range(3) for i in range(3))
QUADS = "1, 1,2,5,4\n2, 2,3,6,5\n3, 4,5,8,7\n4, 5,6,9,8\n"
MESH = f"*NODE\n{NODES}\n*ELEMENT, TYPE=CPE4\n{QUADS}"
SETS = "*ELSET, ELSET=MATRIX\n1, 2, 3\n*ELSET, ELSET=FIBRE\n4\n"
QUARTER = {1: pytest.approx(0.75), 2: pytest.approx(0.25)}


@pytest.fixture
def read(tmp_path):
    """Write a text and read it."""

    def work(text, name="cell.inp", **options):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return meshes.read(path, MPI.COMM_SELF, **options)

    return work


def midpoints(tagged, tag):
    """Midpoints of the cells with a tag, sorted."""
    import dolfinx.mesh

    cells = tagged.cell_tags.find(tag)
    dim = tagged.mesh.geometry.dim
    return np.array(sorted(np.round(dolfinx.mesh.compute_midpoints(tagged.mesh, dim, cells)[:, :dim], 12).tolist()))


def in_parts(instances, *, part=MESH + SETS, after=""):
    return f"*PART, NAME=Cell\n{part}*END PART\n*ASSEMBLY, NAME=A\n{instances}{after}*END ASSEMBLY\n"


# Each is the mesh above, in another spelling.
SPELLINGS = {
    "lower case and blanks": (MESH + SETS).lower().replace(", ", " ,  ").replace("*", " * "),
    "continued keyword": (MESH + SETS).replace("*ELEMENT, TYPE", "*ELEMENT,\n** in between\n  TYPE"),
    "comma at the end": (MESH + SETS).replace("ELSET=MATRIX", "ELSET=MATRIX,").replace("*NODE\n", "*NODE,\n"),
    "Fortran exponents": (MESH + SETS).replace("0.5", "5.0D-1").replace("1.0", "1.d0"),
    "byte order mark": "\ufeff" + MESH + SETS,
    "Windows": ("*HEADING\n\n a cell\n** \n" + MESH + "\n \n" + SETS).replace("\n", "\r\n"),
    "shortened generate": MESH + "*ELSET, ELSET=MATRIX, GEN\n1, 3\n*ELSET, ELSET=FIBRE, GENERATE\n4, 4, 1\n",
    "elements over lines": MESH.replace("1,2,5,4", "1,2,\n5,4") + SETS,
    "sets by the elements": MESH.replace("3, 4,5", "*ELEMENT, TYPE=CPE4R, ELSET=MATRIX\n3, 4,5").replace(
        "4, 5,6", "*ELEMENT, TYPE=CPE4, ELSET=FIBRE\n4, 5,6"
    )
    + "*ELSET, ELSET=MATRIX\n1, 2\n",
    "reference point in the assembly": in_parts(
        "*INSTANCE, NAME=Cell-1, PART=Cell\n*END INSTANCE\n", after="*NODE\n1, 7., 8., 9.\n*NSET, NSET=RP\n1\n"
    ),
    "mesh in the instance": "*PART, NAME=Cell\n*END PART\n*ASSEMBLY, NAME=A\n*INSTANCE, NAME=Cell-1, PART=Cell\n"
    + f"{MESH + SETS}*END INSTANCE\n*END ASSEMBLY\n",
    "sets of the assembly": in_parts(
        "*INSTANCE, NAME=Cell-1, PART=Cell\n*END INSTANCE\n",
        part=MESH,
        after="*ELSET, ELSET=MATRIX, INSTANCE=Cell-1\n1, 2, 3\n*ELSET, ELSET=FIBRE\ncell-1.4\n",
    ),
    "loads": MESH
    + SETS
    + "*NSET, NSET=odd\nPart-1-1.3, 1\n*NSET, NSET=odder\nnowhere\n*TRANSFORM, NSET=odd\n1.,0.,0.,0.,1.,0.\n*SYSTEM\n"
    + "*SURFACE, TYPE=NODE, NAME=N\nodd, 1.\n*EQUATION\n2\n3, 1, 1., 1, 1, -1.\n*STEP\n*STATIC\n*END STEP\n",
    "springs": MESH + SETS + "*ELEMENT, TYPE=SPRINGA, ELSET=springs\n9, 1, 3\n*ELSET, ELSET=MATRIX\n9\n",
    "generated": (
        "*NODE\n1, 0., 0.\n3, 1., 0.\n7, 0., 1.\n9, 1., 1.\n*NGEN, NSET=LOWER\n1, 3\n*NGEN\n7, 9, 1\n1, 7, 3\n2, 8, 3\n"
        "3, 9, 3\n*ELEMENT, TYPE=CPE4\n1, 1, 2, 5, 4\n*ELGEN, ELSET=EALL\n1, 2, 1, 1, 2, 3, 2\n" + SETS
    ),
    "cylindrical": "*NODE, SYSTEM=C\n"
    + "\n".join(
        f"{1 + i + 3 * j}, {np.hypot(i, j) / 2:.17g}, {np.degrees(np.arctan2(j, i)):.17g}"
        for j in range(3)
        for i in range(3)
    )
    + f"\n*ELEMENT, TYPE=CPE4\n{QUADS}{SETS}",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings_of_one_mesh(read, spelling):
    tagged = read(SPELLINGS[spelling])
    tags = {name.upper(): tag for name, tag in tagged.names.items()}
    assert tags.keys() == {"MATRIX", "FIBRE"}
    assert midpoints(tagged, tags["FIBRE"]) == pytest.approx(np.array([[0.75, 0.75]]))
    assert tagged.fractions() == {tags["MATRIX"]: pytest.approx(0.75), tags["FIBRE"]: pytest.approx(0.25)}
    assert tagged.mesh.geometry.x.shape[0] == 9


def test_extension_in_upper_case(read):
    assert read(MESH + SETS, "CELL.INP").fractions() == QUARTER


def test_quoted_names_may_have_commas(read):
    text = (
        MESH
        + '*ELSET, ELSET="a, matrix"\n1, 2, 3\n*ELSET, ELSET="x = 1, fibre"\n4\n*ELSET, ELSET=all\n"a, matrix"\n4\n'
    )
    assert read(text).names == {"a, matrix": 1, "x = 1, fibre": 2}


def test_names_are_equal_in_upper_and_lower_case(read):
    """Two sets of one name are one set with the members of both; between quotation marks case matters."""
    tagged = read(MESH + "*ELSET, ELSET=Matrix\n1, 2\n*ELSET, ELSET=MATRIX\n3\n*ELSET, ELSET=fibre\n4\n")
    assert tagged.names == {"Matrix": 1, "fibre": 2} and tagged.fractions() == QUARTER
    tagged = read(MESH + '*ELSET, ELSET="Matrix"\n1, 2, 3\n*ELSET, ELSET="MATRIX"\n4\n')
    assert tagged.names == {"Matrix": 1, "MATRIX": 2} and tagged.fractions() == QUARTER
    with pytest.raises(meshes.MeshError, match='two sets have the name "Matrix"'):
        read(MESH + '*ELSET, ELSET="Matrix"\n1, 2, 3\n*ELSET, ELSET=Matrix\n4\n')
    text = MESH + '*ELSET, ELSET="Resin x"\n1, 2, 3\n*ELSET, ELSET="Fibre"\n4\n*SOLID SECTION, ELSET=Fibre\n'
    assert read(text + '*SOLID SECTION, ELSET="resin X"\n').fractions() == QUARTER


def test_included_files_may_be_data_only(read, tmp_path):
    (tmp_path / "nodes.txt").write_text(NODES + "\n")
    (tmp_path / "quads.txt").write_text(QUADS)
    (tmp_path / "sets.inp").write_text(SETS)
    text = "*NODE\n*INCLUDE, INPUT=nodes.txt\n*ELEMENT, TYPE=CPE4, INPUT=quads.txt\n*Include,\n input=sets.inp\n"
    assert read(text).fractions() == QUARTER
    with pytest.raises(meshes.MeshError, match=r"cell\.inp includes itself"):
        read(MESH + "*INCLUDE, INPUT=cell.inp\n")
    with pytest.raises(meshes.MeshError, match=r"gone\.inp cannot be read"):
        read(MESH + "*INCLUDE, INPUT=gone.inp\n")


def test_an_instance_is_moved_and_then_turned(read):
    """A bar of two squares from (0, 0) to (2, 1), moved by (1, 0), turned by 90° about the axis through (1, 0).

    (x, y) → (1 - y, x): the fibre, the right one with the middle (1.5, 0.5), is at (0.5, 1.5) in the end. Turned first
    and then moved it would be at (1.5, 0.5) + ... = (1.5, 0.5)."""
    part = "*NODE\n1,0,0\n2,1,0\n3,2,0\n4,0,1\n5,1,1\n6,2,1\n*ELEMENT, TYPE=CPS4\n1, 1,2,5,4\n2, 2,3,6,5\n"
    part += "*ELSET, ELSET=MATRIX\n1\n*ELSET, ELSET=FIBRE\n2\n"
    turned = "*INSTANCE, NAME=I, PART=Cell\n1., 0.\n1., 0., 0., 1., 0., 5., 90.\n*END INSTANCE\n"
    tagged = read(in_parts(turned, part=part))
    assert midpoints(tagged, 1) == pytest.approx(np.array([[0.5, 0.5]]))
    assert midpoints(tagged, 2) == pytest.approx(np.array([[0.5, 1.5]]))
    # about an axis in the plane, mirrored: (x, y) → (x, -y)
    tagged = read(in_parts(turned.replace("1., 0., 5., 90.", "2., 0., 0., 180."), part=part))
    assert midpoints(tagged, 2) == pytest.approx(np.array([[2.5, -0.5]]))
    with pytest.raises(meshes.MeshError, match=r"line of 6 numbers; 3 are a translation, 7 a rotation"):
        read(in_parts(turned.replace(", 90.", ""), part=part))


def test_instances_of_one_part_share_their_sets(read):
    """Two cells side by side; their common nodes are written twice."""
    two = "".join(f"*INSTANCE, NAME=C-{i}, PART=Cell\n{i}., 0.\n*END INSTANCE\n" for i in range(2))
    with pytest.raises(meshes.MeshError, match=r"3 nodes coincide with another node.*first at \(1, 0\)"):
        read(in_parts(two))
    tagged = read(in_parts(two), coincident="merge")
    assert tagged.names == {"MATRIX": 1, "FIBRE": 2} and tagged.fractions() == QUARTER
    assert midpoints(tagged, 2) == pytest.approx(np.array([[0.75, 0.75], [1.75, 0.75]]))
    assert tagged.mesh.geometry.x.shape[0] == 15
    text = in_parts(two, after="*ELSET, ELSET=one\nC-1.FIBRE\n*ELSET, ELSET=other\nC-0.FIBRE\n")
    tagged = read(text, coincident="merge", sets=("one",))
    assert midpoints(tagged, 1) == pytest.approx(np.array([[1.75, 0.75]]))


def test_parts_with_the_same_set_stay_apart(read):
    """Abaqus/CAE calls the first set of every part Set-1; here the section, or the part, determines the phase."""

    def square(name, section):
        text = "*NODE\n1,0,0\n2,1,0\n3,0,1\n4,1,1\n*ELEMENT, TYPE=CPE4\n1, 1,2,4,3\n"
        return f"*PART, NAME={name}\n{text}{section}*END PART\n"

    places = "*INSTANCE, NAME=A, PART=Matrix\n*END INSTANCE\n*INSTANCE, NAME=B, PART=Fibre\n1., 0.\n*END INSTANCE\n"
    section = "*ELSET, ELSET=Set-1\n1\n*SOLID SECTION, ELSET=Set-1, MATERIAL=m\n1.,\n"
    text = square("Matrix", section) + square("Fibre", section) + "*ASSEMBLY, NAME=X\n" + places
    tagged = read(text, coincident="merge")
    assert tagged.names == {"Matrix.Set-1": 1, "Fibre.Set-1": 2}
    assert midpoints(tagged, 2) == pytest.approx(np.array([[1.5, 0.5]]))
    tagged = read(text.replace(section, ""), coincident="merge")
    assert tagged.names == {"Matrix": 1, "Fibre": 2} and len(tagged.fractions()) == 2


INTERNAL = (
    "*ELSET, ELSET=_Top_S3, INTERNAL\n3, 4\n*SURFACE, TYPE=ELEMENT, NAME=Top\n_Top_S3, S3\n*ELSET, ELSET=_Side_S2\n2\n"
)


def test_internal_sets_are_no_phases(read):
    tagged = read(MESH + SETS + INTERNAL)
    assert tagged.names == {"MATRIX": 1, "FIBRE": 2} and tagged.facet_names == {"Top": 1}
    assert len(tagged.facet_tags.find(1)) == 2
    assert read(MESH + SETS + INTERNAL, sets=("_Top_S3",)).names == {"_Top_S3": 1}


def test_phases_are_the_sets_with_a_section(read):
    """Whatever other sets there are; they can be had by name."""
    text = MESH + SETS + "*ELSET, ELSET=ROW\n1, 2\n*ELSET, ELSET=COLUMN\n2, 4\n*ELSET, ELSET=odd\n99\n"
    with pytest.raises(meshes.MeshError, match="99"):
        read(text)
    sections = "*SOLID SECTION, ELSET=fibre, MATERIAL=glass\n*SOLIDSECTION, MATERIAL=resin, ELSET=MATRIX\n1.0\n"
    tagged = read(text + sections)
    assert tagged.names == {"MATRIX": 1, "FIBRE": 2} and tagged.fractions() == QUARTER
    assert read(text + sections, sets=("ROW",)).names == {"ROW": 1}
    with pytest.raises(meshes.MeshError, match='element set "glass", which the file does not define'):
        read(MESH + SETS + "*SOLID SECTION, ELSET=glass, MATERIAL=m\n")


def test_node_sets(read):
    """Of elements, generated, qualified; only requested ones are evaluated."""
    text = MESH + SETS + "*NSET, NSET=right, ELSET=FIBRE\n*NSET, NSET=right\n3\n*NSET, NSET=bad\nPart-1-1.3\n"
    assert read(text, boundaries=("right",)).facet_names == {"right": 1}
    tagged = read(text, boundaries=("right",))
    assert len(tagged.facet_tags.find(1)) == 3  # of the fibre two, below it one with the nodes 3 and 6
    with pytest.raises(meshes.MeshError, match=r'no node set "Part-1-1\.3"'):
        read(text, boundaries=("bad",))


def test_twenty_seven_nodes(read):
    """A unit cube whose face x = 1 bulges: the nodes after the 20th are the middles of the cube and of S1 to S6."""
    corners = np.array([(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)], float)
    edges = [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)]
    middles = [corners[list(e)].mean(axis=0) for e in edges]
    faces = [(0.5, 0.5, 0.5), (0.5, 0.5, 0), (0.5, 0.5, 1), (0.5, 0, 0.5)]
    faces += [(1.125, 0.5, 0.5), (0.5, 1, 0.5), (0, 0.5, 0.5)]
    points = np.vstack([corners, middles, faces])
    nodes = "\n".join(f"{i}, {x}, {y}, {z}" for i, (x, y, z) in enumerate(points, 1))
    numbers = ", ".join(map(str, range(1, 17))) + ",\n" + ", ".join(map(str, range(17, 28)))
    tagged = read(f"*NODE\n{nodes}\n*ELEMENT, TYPE=C3D27\n1, {numbers}\n")
    # x = ξ + 0.125 L(ξ) b(η) b(ζ), L = ξ (2ξ - 1), b(t) = 4 t (1 - t); the volume is 1 + 0.125 L(1) (2/3)²
    lower, upper = tagged.box
    assert tagged.fractions()[1] * np.prod(upper - lower) == pytest.approx(1 + 0.125 * 4 / 9)


CUBE = [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)]
# Type, corners, and the middles of S1, S2, ... by the manual's lists of their corners.
FACES = {
    "CPS3": ([(0, 0), (1, 0), (0, 1)], [(0.5, 0), (0.5, 0.5), (0, 0.5)]),
    "CPE4": ([(0, 0), (1, 0), (1, 1), (0, 1)], [(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)]),
    "C3D4": (
        [(0, 0, 0), (3, 0, 0), (0, 3, 0), (0, 0, 3)],
        [(1, 1, 0), (1, 0, 1), (1, 1, 1), (0, 1, 1)],  # 1-2-3, 1-4-2, 2-4-3, 3-4-1
    ),
    "C3D8": (CUBE, [(0.5, 0.5, 0), (0.5, 0.5, 1), (0.5, 0, 0.5), (1, 0.5, 0.5), (0.5, 1, 0.5), (0, 0.5, 0.5)]),
}


@pytest.mark.parametrize("kind", FACES)
def test_faces_of_elements(read, kind):
    import dolfinx.mesh

    corners, middles = FACES[kind]
    text = "*NODE\n" + "".join(f"{i}, {', '.join(map(str, x))}\n" for i, x in enumerate(corners, 1))
    text += f"*ELEMENT, TYPE={kind}\n1, {', '.join(str(i + 1) for i in range(len(corners)))}\n"
    tagged = read(text + "".join(f"*SURFACE, NAME=F{i}\n1, S{i}\n" for i in range(1, len(middles) + 1)))
    dim = len(corners[0])
    for i, middle in enumerate(middles, 1):
        (facet,) = tagged.facet_tags.find(tagged.facet_names[f"F{i}"])
        x = dolfinx.mesh.compute_midpoints(tagged.mesh, dim - 1, np.array([facet], dtype=np.int32))[0, :dim]
        assert x == pytest.approx(np.array(middle))
    if kind == "C3D8":
        assert read(text + "*SURFACE, NAME=F1\n1, S1\n*SURFACE, NAME=F2\n1, SNEG\n", sets=("F1",)).facet_names == {
            "F1": 1
        }


def test_shells_of_six_nodes(read):
    nodes = "1,0,0\n2,1,0\n3,0,1\n4,.5,0\n5,.5,.5\n6,0,.5\n"
    assert read(f"*NODE\n{nodes}*ELEMENT, TYPE=STRI65\n1, 1,2,3,4,5,6\n").fractions() == {1: pytest.approx(0.5)}


def test_curved_lines_are_facets(read):
    nodes = "".join(f"{i}, {x}, {y}\n" for i, (x, y) in enumerate([(0, 0), (1, 0), (1, 1), (0, 1)], 1))
    nodes += "5, .5, 0\n6, 1, .5\n7, .5, 1\n8, 0, .5\n"
    lines = "*ELEMENT, TYPE=T2D3, ELSET=low\n2, 1, 2, 5\n*ELEMENT, TYPE=B22, ELSET=right\n3, 2, 6, 3\n"
    tagged = read(f"*NODE\n{nodes}*ELEMENT, TYPE=CPE8R, ELSET=all\n1, 1,2,3,4,5,6,7,8\n{lines}", sets=("all", "low"))
    assert tagged.facet_names == {"low": 1} and tagged.names == {"all": 1}


def test_nodes_generated_backwards(read):
    text = "*NODE\n5, 1., 0.\n1, 0., 0.\n11, 0., 1.\n15, 1., 1.\n*NGEN, NSET=low\n5, 1, 2\n*NGEN, NSET=up\n15, 11, -2\n"
    text += "*ELEMENT, TYPE=CPE4\n1, 1, 3, 13, 11\n*ELGEN\n1, 2, 2\n"
    tagged = read(text, boundaries=("low", "up"))
    assert midpoints(tagged, 1) == pytest.approx(np.array([[0.25, 0.5], [0.75, 0.5]]))
    assert [len(tagged.facet_tags.find(t)) for t in (1, 2)] == [2, 2]


REFUSED = {
    "spherical": (MESH.replace("*NODE", "*NODE, SYSTEM=S"), r"line 1: \*NODE, SYSTEM=S is not supported"),
    "system": ("*SYSTEM\n1., 0., 0.\n" + MESH, r"line 1: \*SYSTEM is not supported"),
    "tie": (MESH + "*TIE, NAME=t\na, b\n", r"\*TIE is not supported.*coincident="),
    "arc": (MESH + "*NGEN, LINE=C\n1, 3, 1, 5\n", r"\*NGEN, LINE=C is not supported"),
    "fill": (MESH + "*NFILL\na, b, 3, 10\n", r"\*NFILL is not supported"),
    "copy": (MESH + "*ELCOPY, OLD SET=a, SHIFT NODES=9, ELEMENT SHIFT=9\n", r"\*ELCOPY is not supported"),
    "removed": (MESH + "*STEP\n*MODEL CHANGE, REMOVE\nFIBRE\n", r"\*MODELCHANGE is not supported"),
    "elsewhere": ("*ASSEMBLY, NAME=a\n*INSTANCE, INSTANCE=I, LIBRARY=old\n", r"\*INSTANCE from another analysis"),
    "element twice": (MESH + "*ELEMENT, TYPE=CPE4\n4, 1,2,5,4\n", "1 element numbers occur twice, the first is 4"),
    "twice in a block": (MESH + "7, 1,2,5,4\n7, 2,3,6,5\n", "1 element numbers occur twice, the first is 7"),
    "node twice": (MESH + "*NODE\n3, 5., 5.\n", "1 node numbers occur twice, the first is 3"),
    "same nodes": (MESH + "5, 5,6,9,8\n", r"1 of 5 cells have the same nodes as another one, .* \[3, 4\]"),
    "surface twice": (MESH + "*SURFACE, NAME=s\n1, S1\n*SURFACE, NAME=S\n2, S1\n", 'surface "S" occurs twice'),
    "cut off": (MESH + "5, 5, 6\n", "23 numbers are not a multiple of 5, an element number and its 4 nodes"),
    "face": (MESH + "*SURFACE, NAME=s\n1, SPOS\n", r'surface "s": the face "SPOS" is not supported.*sets='),
    "no face": (MESH + "*SURFACE, NAME=s\n1, S5\n", 'surface "s": an element of the type quad has no face S5'),
    "no number": (MESH.replace("0.5", "half", 1), 'line 1: .NODE: "half" is no number'),
    "no whole number": (MESH + "a, 1,2,5,4\n", r'\*ELEMENT: "a" is no whole number'),
    "lost member": (MESH + "*ELSET, ELSET=s\n1, 77\n", r'no element set "77"'),
    "itself": (MESH + "*ELSET, ELSET=s\nt\n*ELSET, ELSET=t\ns\n", 'set "s" contains itself'),
    "option": (MESH + "*ELSET, ELSET=s,\nt, u\n", r"\*ELSET has no option \['T', 'U'\]"),
    "no instance": (MESH + "*ELSET, ELSET=s, INSTANCE=I\n1\n", 'instance "I", which does not exist'),
    "no part": ("*ASSEMBLY, NAME=a\n*INSTANCE, NAME=I, PART=p\n", 'no part "p" before it'),
    "unfinished": ("*PART, NAME=p\n*END PART\n*INSTANCE, NAME=I, PART=p\n" + MESH, "no .END INSTANCE"),
    "element type": (MESH.replace("CPE4", "COH2D4"), "elements of the type COH2D4 are not supported"),
    "text": ("nothing of Abaqus\n", "data before the first keyword"),
    "no steps": (MESH + "*NGEN\n1, 9, 3\n", "no number of steps of 3 leads from 1 to 9"),
    "no master": (MESH + "*ELGEN\n17, 2\n", r"\*ELGEN: there is no element 17 before it"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_is_named(read, what):
    text, sentence = REFUSED[what]
    with pytest.raises(meshes.MeshError, match=sentence):
        read(text)


def test_contact_changes_do_not_matter(read):
    assert read(MESH + SETS + "*MODEL CHANGE, TYPE=CONTACT PAIR, REMOVE\na, b\n").fractions() == QUARTER


def test_facets_in_two_surfaces(read):
    """The inner one counts, as it does among cells; surfaces that overlap in part are refused."""
    text = MESH + "*SURFACE, NAME=all\n3, S3\n4, S3\n4, S2\n*SURFACE, NAME=top\n3, S3\n4, S3\n"
    tagged = read(text)
    assert tagged.facet_names == {"all": 1, "top": 2}
    assert [len(tagged.facet_tags.find(t)) for t in (1, 2)] == [1, 2]
    with pytest.raises(meshes.MeshError, match=r'"all".*and "side".*share 1'):
        read(text + "*SURFACE, NAME=side\n2, S2\n4, S2\n")
