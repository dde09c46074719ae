# SPDX-License-Identifier: MIT
"""The README: what it shows runs, in the order in which it stands, and it stays short."""

import re
from pathlib import Path

import numpy as np
import pytest

for module in ("dolfinx", "torch", "gmsh"):
    pytest.importorskip(module)

README = Path(__file__).parents[2] / "README.md"
# Its training takes a minute; here it is shorter, which is enough for the accuracy that the test asks for.
TRAINING = 'coupling.rve_snapshots(rve, "snapshots.h5")'
SHORTER = f"{TRAINING}, spon.EquiNOOptions(r=8, resolved=16, samples=256, widths=(24, 24), lbfgs=300)"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The names that the blocks of the README leave, run one after the other in an empty folder."""
    names = {"__name__": "readme"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("readme"))
        blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
        assert sum(block.count(TRAINING) for block in blocks) == 1
        for block in blocks:
            exec(compile(block.replace(TRAINING, SHORTER), str(README), "exec"), names)
        yield names


def test_the_ten_calls_run(ran):
    """The RVE's stress is that of an isolated run on the same mesh, and the three laws give one structure."""
    calls = re.findall(r"^\*\*(\d+)\. ", README.read_text(), flags=re.MULTILINE)
    assert calls == [str(k) for k in range(1, 11)]
    h = ran["h"]
    assert np.allclose(h.tangent[0], h.tangent[0].T, rtol=1e-8, atol=1e-8 * abs(h.tangent[0]).max())
    exact, learned, certified = (
        np.linalg.norm(ran[name][-1].displacement["right"]) for name in ("exact", "learned", "certified")
    )
    assert exact > 0
    assert abs(learned - exact) < 2e-3 * exact and abs(certified - exact) < 2e-3 * exact


def test_the_operator_beats_the_mean(ran):
    """It errs less on its samples than their mean does, in the norm of the space."""
    import spon

    network, f, u = ran["network"], ran["f"], ran["exact_u"]
    error = float(spon.operators.relative_errors(network, f, u).mean())
    mean = u.mean(1, keepdim=True)
    assert error < 0.2 * float(((u - mean).norm(dim=0) / u.norm(dim=0)).mean())


def test_it_is_short():
    text = README.read_text()
    assert len(text.splitlines()) <= 220 and len(text.encode()) <= 12 * 1024
