# SPDX-License-Identifier: MIT
"""Model files: the same model again, also without FEniCSx, and nothing from a file that is not whole or no model."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch
from trained import strains

import spon

EVALUATE = """
import json, sys

for name in "meshes fe2 coupling dolfinx ufl basix petsc4py mpi4py".split():
    sys.modules[name] = None  # an import of it fails
import torch
import spon

model = spon.load(sys.argv[1], whole=True)
strain = torch.tensor(json.load(sys.stdin), dtype=torch.float64)
certificate = spon.certify(model, strain, model.cell.fields)
print(json.dumps([x.tolist() for x in (*model(strain), certificate.lower, certificate.upper)]))
"""


def test_a_saved_model_is_the_same(trained, tmp_path):
    path = tmp_path / "again.safetensors"
    trained.model.save(path)
    model = spon.load(path, whole=True)
    e = torch.from_numpy(strains(20))
    assert all(torch.equal(a, b) for a, b in zip(model(e), trained.model(e)))
    ours, theirs = (spon.certify(m, e, m.cell.fields) for m in (model, trained.model))
    assert torch.equal(ours.gap, theirs.gap)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no temporary file is left
    part = spon.load(path)
    assert torch.equal(part(e)[0], model(e)[0])
    with pytest.raises(ValueError, match="was read without its cell"):
        part.save(path)
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere to write model\.safetensors to"):
        model.save(tmp_path / "nowhere" / "model.safetensors")


def test_a_model_is_used_without_fenicsx(trained):
    e = torch.from_numpy(strains(5))
    done = subprocess.run(
        [sys.executable, "-c", EVALUATE, str(trained.path)],
        input=json.dumps(e.tolist()),
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    stress, tangent = trained.model(e)
    certificate = spon.certify(trained.model, e, trained.model.cell.fields)
    here = [x.tolist() for x in (stress, tangent, certificate.lower, certificate.upper)]
    assert json.loads(done.stdout) == here


def test_a_damaged_file_is_refused(trained, tmp_path):
    whole, path = trained.path.read_bytes(), tmp_path / "damaged.safetensors"
    path.write_bytes(whole)
    spon.load(path, whole=True)
    for length in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(spon.ModelFileError, match=str(path)):
            spon.load(path, whole=True)
    # In the length of the header, in the header, and in the numbers up to the last byte.
    for k in [0, 3, 8, 40, *np.linspace(100, len(whole) - 1, 60).astype(int).tolist()]:
        bad = bytearray(whole)
        bad[k] ^= 1 << (k % 8)
        path.write_bytes(bad)
        with pytest.raises(spon.ModelFileError, match=str(path)):
            spon.load(path, whole=True)


def test_alien_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    plain, text, pickled, torched = (tmp_path / name for name in ("plain.safetensors", "text", "pickle", "torch.pt"))
    save_file({"lower": torch.zeros(3)}, plain)
    text.write_text("This is not a model, it is a sentence.\n" * 100)
    pickled.write_bytes(pickle.dumps(Trap()))
    torch.save({"trap": Trap()}, torched)
    for path in (plain, text, pickled, torched):
        with pytest.raises(spon.ModelFileError, match=str(path)):
            spon.load(path)
    assert not (tmp_path / "executed").exists()
    with pytest.raises(FileNotFoundError, match="there is no model file"):
        spon.load(tmp_path / "nothing")
