# SPDX-License-Identifier: MIT
"""Which way the imports run: meshes ← fe2 ← coupling → spon, and torch on one side only.

Each package is imported with all its modules in a fresh interpreter in which the forbidden modules cannot be found, so
that a forbidden import fails even where it is guarded by `try`.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

SCRIPT = """
import importlib, pkgutil, sys

package, forbidden, left_out = sys.argv[1], set(sys.argv[2].split()), set(sys.argv[3].split())
asked_for = []


class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in forbidden:
            asked_for.append(name)
            raise ModuleNotFoundError(f"import of {name} is forbidden here", name=name)


sys.meta_path.insert(0, Blocker())
for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
    if module.name not in left_out:
        importlib.import_module(module.name)
sys.exit(f"{package} asks for {asked_for}" if asked_for else 0)
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
    assert "guarded asks for ['torch']" in done.stderr
