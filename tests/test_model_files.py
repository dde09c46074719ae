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

pytest.importorskip("dolfinx_mpc")
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

model, cell = spon.load(sys.argv[1]), spon.load_cell(sys.argv[1])
strain = torch.tensor(json.load(sys.stdin), dtype=torch.float64)
certificate = spon.certify(model, strain, cell.fields)
print(json.dumps([x.tolist() for x in (*model(strain), certificate.lower, certificate.upper)]))
"""


def read_all(path):
    return spon.load(path), spon.load_cell(path)


def test_a_saved_model_is_the_same(trained, tmp_path):
    path = tmp_path / "again.safetensors"
    spon.save(trained.model, path, trained.cell)
    model, cell = read_all(path)
    e = torch.from_numpy(strains(20))
    assert all(torch.equal(a, b) for a, b in zip(model(e), trained.model(e)))
    ours, theirs = spon.certify(model, e, cell.fields), spon.certify(trained.model, e, trained.cell.fields)
    assert torch.equal(ours.gap, theirs.gap)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no temporary file is left


def test_a_model_is_used_without_fenicsx(trained):
    e = torch.from_numpy(strains(5))
    done = subprocess.run(
        [sys.executable, "-c", EVALUATE, str(trained.path)],
        input=json.dumps(e.tolist()),
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    stress, tangent = trained.model(e)
    certificate = spon.certify(trained.model, e, trained.cell.fields)
    here = [x.tolist() for x in (stress, tangent, certificate.lower, certificate.upper)]
    assert json.loads(done.stdout) == here


def test_a_damaged_file_is_refused(trained, tmp_path):
    whole, path = trained.path.read_bytes(), tmp_path / "damaged.safetensors"
    path.write_bytes(whole)
    read_all(path)
    for length in (0, 5, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(spon.ModelFileError, match=str(path)):
            read_all(path)
    # In the length of the header, in the header, and in the numbers up to the last byte.
    for k in [0, 3, 8, 40, *np.linspace(100, len(whole) - 1, 60).astype(int).tolist()]:
        bad = bytearray(whole)
        bad[k] ^= 1 << (k % 8)
        path.write_bytes(bad)
        with pytest.raises(spon.ModelFileError, match=str(path)):
            read_all(path)


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
        for load in (spon.load, spon.load_cell):
            with pytest.raises(spon.ModelFileError, match=str(path)):
                load(path)
    assert not (tmp_path / "executed").exists()
    with pytest.raises(FileNotFoundError, match="there is no model file"):
        spon.load(tmp_path / "nothing")
