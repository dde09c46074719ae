# SPDX-License-Identifier: MIT
"""The direction of imports: meshes ← fe2 ← coupling → spon, torch on one side only, and the floors of `spon`.

Each package is imported with all its modules in a fresh interpreter in which the forbidden modules cannot be found, so
that a forbidden import fails even where it is guarded by `try`. Which module imports which is in the syntax trees.
"""

import ast
import importlib.util
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from sources import PACKAGES, Import, Module, circles, imports, modules

PROJECT = Path(__file__).resolve().parents[2]
MOST_ROOMS = 12

# Package → packages that it may import; `spon` imports `meshes` only inside functions, where DOLFINx is needed.
ALLOWED = {
    "meshes": set(),
    "fe2": {"meshes"},
    "spon": {"meshes"},
    "coupling": {"meshes", "fe2", "spon"},
}
# Rooms of `spon`, from the ground up; each imports only from the floors below its own.
FLOORS = [
    {"sparse", "archive", "jit", "arguments"},
    {"spaces", "training", "constitutive"},
    {"operators", "reduced"},
    {"microstructure", "equino"},
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

SCRIPT = """
import importlib, pkgutil, sys

package, forbidden, left_out = sys.argv[1], set(sys.argv[2].split()), set(sys.argv[3].split())
forbidden_imports = []


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in forbidden:
            forbidden_imports.append(name)
            raise ModuleNotFoundError(f"import of {name} is forbidden here", name=name)


sys.meta_path.insert(0, Blocker())
for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
    if module.name not in left_out:
        importlib.import_module(module.name)
sys.exit(f"{package} imports {forbidden_imports}" if forbidden_imports else 0)
"""


USE_LAW = """
import json, sys

for name in "meshes fe2 coupling dolfinx ufl basix petsc4py mpi4py".split():
    sys.modules[name] = None  # an import of it fails
import torch
from spon import LocalLaws

laws = LocalLaws.from_json(json.load(sys.stdin))
strain = torch.tensor([[0.01, 0.0, 0.02], [0.0, -0.01, 0.0]], dtype=torch.float64, requires_grad=True)
(slope,) = torch.autograd.grad(laws.energy(strain).sum(), strain)
print(json.dumps([laws.stress(strain).tolist(), laws.tangent(strain).tolist(), slope.tolist()]))
"""


NEEDS_TRITON = "spon.equino.evaluate.triton_response"
TRITON = importlib.util.find_spec("triton") is not None


def import_without(package, forbidden, left_out="", folder=PROJECT):
    """Import `package` with every module in it but `left_out`, where none of `forbidden` can be imported."""
    command = [sys.executable, "-c", SCRIPT, package, forbidden, left_out]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("package", "forbidden", "left_out"),
    [
        ("meshes", "fe2 spon coupling torch", ""),
        ("fe2", "spon coupling torch", ""),
        # DOLFINx is imported inside the functions that read function spaces; what needs Triton, where there is one.
        ("spon", "meshes fe2 coupling dolfinx ufl basix petsc4py mpi4py", "" if TRITON else NEEDS_TRITON),
    ],
)
def test_package_imports_without(package, forbidden, left_out):
    done = import_without(package, forbidden, left_out)
    assert done.returncode == 0, done.stderr


def test_coupling_imports():
    done = import_without("coupling", "")
    assert done.returncode == 0, done.stderr


def names_on_use(tree):
    """The public names of a package by its `__init__`: in `_MODULES`, in imports for type checkers, in `__all__`."""
    said = {}
    for node in tree.body:
        if isinstance(node, ast.Assign):
            said[ast.unparse(node.targets[0])] = node.value
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            typed = {alias.name: line.module for line in node.body for alias in line.names}
    return ast.literal_eval(said["_MODULES"]), typed, ast.literal_eval(said["__all__"])


def test_names_of_coupling_are_the_same_for_type_checkers():
    on_use, typed, public = names_on_use(modules()["coupling"].tree)
    assert on_use == typed
    assert [*on_use] == public


def test_no_module_of_coupling_has_a_public_name():
    """An import of the module would hide the name before its first use."""
    import coupling

    assert not {module.name for module in pkgutil.iter_modules(coupling.__path__)} & {*coupling.__all__}


def test_each_name_of_coupling_is_found():
    pytest.importorskip("torch")
    import coupling

    assert {*coupling.__all__} <= {*dir(coupling)}
    found = {}
    exec("from coupling import *", found)
    for name in coupling.__all__:
        assert found[name].__name__ == name
        assert getattr(coupling, name) is found[name]


def test_a_law_does_not_import_what_others_need():
    pytest.importorskip("dolfinx")
    pytest.importorskip("torch")
    code = """if True:
        import sys
        import coupling
        assert "torch" not in sys.modules
        coupling.SurrogateLaw
        print(*(name for name in sys.modules if name.startswith("coupling.")))
    """
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = {*done.stdout.split()}
    assert "coupling.surrogate" in loaded
    others = "certified external_operator field_operator grid_law manager modes_law operator_samples residual snapshots"
    assert not loaded & {f"coupling.{module}" for module in others.split()}


@pytest.mark.parametrize(
    "first", ["meshes", "fe2", "coupling", "coupling, torch, coupling.surrogate", "spon, coupling.surrogate"]
)
def test_package_may_be_the_first_import(first):
    """Of the wheels of DOLFINx, one that is imported before their MPI cannot be loaded."""
    pytest.importorskip("dolfinx")
    if "surrogate" in first:
        pytest.importorskip("torch")
    code = f"import {first}, dolfinx; from petsc4py import PETSc; from mpi4py import MPI"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_missing_dolfinx_is_named_with_the_remedy():
    code = "import sys; sys.modules['dolfinx'] = None; import fe2"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "DOLFINx is missing: `pip install dolfinx-solver-real`" in done.stderr


def test_translated_laws_are_used_without_fenicsx():
    """Written where FEniCSx is, a law is read and evaluated where it is not, to the same numbers."""
    pytest.importorskip("dolfinx")
    torch = pytest.importorskip("torch")
    import coupling
    import fe2
    import spon

    materials = fe2.SaturatingElastic(), fe2.LinearElastic(4780.0, 1200.0)
    laws = spon.LocalLaws(tuple(coupling.phase_law(m, 2) for m in materials), (1, 1))
    done = subprocess.run(
        [sys.executable, "-c", USE_LAW], input=json.dumps(laws.to_json()), cwd=PROJECT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    stress, tangent, slope = json.loads(done.stdout)
    strain = torch.tensor([[0.01, 0.0, 0.02], [0.0, -0.01, 0.0]], dtype=torch.float64)
    assert stress == laws.stress(strain).tolist()
    assert tangent == laws.tangent(strain).tolist()
    assert torch.allclose(torch.tensor(slope, dtype=torch.float64), laws.stress(strain), rtol=1e-12, atol=1e-12)


def test_guarded_import_in_a_module_is_found(tmp_path):
    (tmp_path / "guarded").mkdir()
    (tmp_path / "guarded" / "__init__.py").touch()
    (tmp_path / "guarded" / "inner.py").write_text("try:\n    import torch\nexcept ImportError:\n    torch = None\n")
    assert import_without("guarded", "", folder=tmp_path, left_out="guarded.inner").returncode == 0
    done = import_without("guarded", "torch", folder=tmp_path)
    assert done.returncode != 0
    assert "guarded imports ['torch']" in done.stderr


def room(module):
    """The part of a module's name below `spon`; "" for `spon` itself."""
    return module.partition(".")[2].partition(".")[0]


def wrong_way(arrows):
    """Imports from a package that is not allowed, or within `spon` from a floor that is not below."""
    found = []
    for arrow in arrows:
        here, there = arrow.importer.partition(".")[0], arrow.imported.partition(".")[0]
        if here != there:
            if there not in ALLOWED[here] or (here == "spon" and arrow.on_import):
                found.append(arrow)
        elif here == "spon" and room(arrow.importer) not in ("", room(arrow.imported)):
            if FLOOR.get(room(arrow.imported), len(FLOORS)) >= FLOOR[room(arrow.importer)]:
                found.append(arrow)
    return found


def test_no_import_runs_upwards():
    assert not wrong_way(imports())


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("meshes.read", "fe2.rve"),
        ("spon.sparse", "spon.spaces.norms"),
        ("spon.equino.model", "spon.microstructure.fft"),
        ("spon.spaces.norms", "spon"),
        ("spon.spaces.read", "meshes.compat"),
    ],
)
def test_imports_that_run_upwards_are_found(importer, imported):
    arrow = Import(importer, imported, True)
    assert wrong_way([arrow]) == [arrow]


def test_no_circle_among_modules():
    arrows = {}
    for arrow in imports():
        if arrow.on_import:
            arrows.setdefault(arrow.importer, set()).add(arrow.imported)
    assert not circles(arrows)


def test_circles_are_found(tmp_path):
    folder = tmp_path / "spon"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("from .inner import c\n")
    (folder / "a.py").write_text("import spon.b\n")
    (folder / "b.py").write_text("def f():\n    from spon import a\n\n\nfrom spon.inner.c import x\n")
    (folder / "inner" / "__init__.py").touch()
    (folder / "inner" / "c.py").write_text("from ..a import y\n")
    found = {(arrow.importer, arrow.imported, arrow.on_import) for arrow in imports(tmp_path)}
    assert found == {
        ("spon", "spon.inner.c", True), ("spon.a", "spon.b", True), ("spon.b", "spon.a", False),
        ("spon.b", "spon.inner.c", True), ("spon.inner.c", "spon.a", True),
    }  # fmt: skip
    arrows = {}
    for a, b, _ in found:
        arrows.setdefault(a, set()).add(b)
    assert circles(arrows) == [["spon.a", "spon.b", "spon.inner.c"]]


def private_names(module):
    """Names with a leading underscore that a module takes from another package of the project."""
    foreign = set(PACKAGES) - {module.name.partition(".")[0]}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module.partition(".")[0] in foreign:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.partition(".")[0] in foreign]
        elif isinstance(node, ast.Attribute) and re.fullmatch(rf"({'|'.join(foreign)})(\.\w+)+", ast.unparse(node)):
            names = [ast.unparse(node)]
        else:
            continue
        yield from (name for name in names if re.search(r"\._[a-z]", name))


def test_no_package_uses_private_names_of_another():
    assert not {name: found for name, module in modules().items() if (found := [*private_names(module)])}


def test_uses_of_private_names_are_found():
    code = "import meshes, fe2._a\nfrom spon.b import _c, d\nmeshes.e._f(g)\nfe2._own.h\nmeshes.__version__\nx._y"
    found = private_names(Module("coupling.i", PROJECT, ast.parse(code)))
    assert {*found} == {"fe2._a", "spon.b._c", "meshes.e._f", "fe2._own", "fe2._own.h"}


def test_spon_has_few_rooms():
    folder = PROJECT / "spon"
    rooms = {p.stem for p in folder.glob("*.py")} | {p.parent.name for p in folder.glob("*/__init__.py")}
    assert rooms - {"__init__"} == FLOOR.keys() and len(FLOOR) <= MOST_ROOMS


def test_packages_of_spon_are_there_without_dolfinx():
    pytest.importorskip("torch")
    forbidden = "meshes fe2 coupling dolfinx dolfinx_mpc ufl basix petsc4py mpi4py"
    block = f"import sys; sys.modules.update(dict.fromkeys('{forbidden}'.split()))"
    code = f"{block}; import spon; spon.equino; spon.operators; spon.spaces"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
