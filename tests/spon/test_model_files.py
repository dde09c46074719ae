# SPDX-License-Identifier: MIT
"""Model files: the same model again, also without FEniCSx, and nothing from a file that is not whole or no model."""

import dataclasses
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
from spon import equino
from spon.archive import Reader, write
from spon.equino.model import load_equino
from spon.equino.networks import Branch

# Of the files of the last release, which must still load: tensors but those of the networks, and the header.
TENSORS = {
    "model.lower", "model.upper", "model.means", "model.calibration",
    "cubature.weights", "cubature.strain_modes", "cubature.stress_modes",
    "cell.weights", "cell.strain_modes", "cell.stress_modes", "cell.displacements", "cell.order",
}  # fmt: skip
BRANCH = {"coefficients", "widths", "norms", "activation", "through_zero"}

EVALUATE = """
import json, sys

for name in "meshes fe2 coupling dolfinx ufl basix petsc4py mpi4py".split():
    sys.modules[name] = None  # an import of it fails
import torch
import spon

model = spon.load(sys.argv[1], whole=True)
strain = torch.tensor(json.load(sys.stdin), dtype=torch.float64)
certificate = spon.certify(model, strain, model.rve_modes.at_points)
print(json.dumps([x.tolist() for x in (*model(strain), certificate.lower, certificate.upper)]))
"""


def test_a_saved_model_is_the_same(trained, tmp_path):
    path = tmp_path / "again.safetensors"
    trained.model.save(path)
    model = spon.load(path, whole=True)
    e = torch.from_numpy(strains(20))
    assert all(torch.equal(a, b) for a, b in zip(model(e), trained.model(e)))
    ours, theirs = (spon.certify(m, e, m.rve_modes.at_points) for m in (model, trained.model))
    assert torch.equal(ours.gap, theirs.gap)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no temporary file is left
    part = spon.load(path)
    assert torch.equal(part(e)[0], model(e)[0])
    assert not part.is_whole and load_equino(path, whole=True).is_whole
    with pytest.raises(ValueError, match="loaded without its RVE modes"):
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
    certificate = spon.certify(trained.model, e, trained.model.rve_modes.at_points)
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
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nothing"):
        spon.load(tmp_path / "nothing")


def test_a_model_file_has_the_format_of_the_last_release(trained):
    with Reader(trained.path, "model") as file:
        header, tensors = file.header, set(file.tensors(""))
    networks = ("model.displacement.", "model.potential.", "model.stress.")
    assert {name for name in tensors if not name.startswith(networks)} == TENSORS
    assert set(header) == {"networks", "laws", "points", "fingerprint", "torch", "sums"}
    assert set(header["networks"]["displacement"]) == set(header["networks"]["stress"]) == BRANCH
    assert set(header["networks"]["potential"]) == {"width", "norms"}


def test_every_model_is_loaded_as_what_was_saved(trained, tmp_path):
    model, e = trained.model, torch.from_numpy(strains(6))
    at, mark = model.cubature, model.fingerprint
    no_stress = at.stress_modes[..., :0].clone()
    at_points = dataclasses.replace(model.rve_modes.at_points, stress_modes=no_stress)
    rve_modes = dataclasses.replace(model.rve_modes, at_points=at_points)
    models = (
        model,
        equino.StressNetwork(Branch(model.upper, torch.ones(3).double(), widths=(5,), through_zero=False), mark),
        equino.DisplacementOperator(model.displacement, rve_modes),
        spon.ReducedModel(at.laws, at.strain_modes, at.weights, model.upper, mark),
    )
    for k, one in enumerate(models):
        path = tmp_path / f"{k}.safetensors"
        one.save(path)
        again = spon.load(path, whole=True)
        assert type(again) is type(one) and again.fingerprint == mark
        assert torch.equal(again.lower, one.lower) and torch.equal(again.upper, one.upper)
        with torch.no_grad():
            assert all(torch.equal(a, b) for a, b in zip(again(e), one(e), strict=True))
            if hasattr(one, "fields"):
                assert all(torch.equal(a, b) for a, b in zip(again.fields(e), one.fields(e), strict=True))
        if hasattr(one, "rve_modes"):
            assert np.array_equal(again.rve_modes.displacements, one.rve_modes.displacements)
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(spon.ModelFileError, match=str(path)):
            spon.load(path)
    corrector = spon.ModalCorrector(model, compiled=False)
    corrector.save(tmp_path / "corrector")
    again = spon.load(tmp_path / "corrector")
    assert isinstance(again, spon.ModalCorrector) and not again.compiled
    assert torch.equal(again(e).stress, corrector(e).stress)
    with pytest.raises(NotImplementedError, match="Model has no file format"):
        spon.Model(model.lower, model.upper).save(tmp_path / "none")


def test_options_of_other_kinds_of_files_are_refused(trained):
    with pytest.raises(
        TypeError, match=r"holds a 'model', for which there is no option 'network': need one of \['whole"
    ):
        spon.load(trained.path, network=None)


def test_parts_that_do_not_fit_are_told(trained, tmp_path):
    with Reader(trained.path, "model") as file:
        header = {k: v for k, v in file.header.items() if k not in ("torch", "sums")}
        tensors = file.tensors("")
    del tensors["model.means"]
    write(tmp_path / "model", "model", header, tensors)
    with pytest.raises(spon.ModelFileError, match=r"its parts are inconsistent: 'means'"):
        spon.load(tmp_path / "model")
    write(tmp_path / "other", "recipe", {}, {"flour": torch.ones(1)})
    with pytest.raises(spon.ModelFileError, match=r"holds a 'recipe', which cannot be loaded: need one of \['displ"):
        spon.load(tmp_path / "other")


def test_old_names_of_the_modes_warn(trained):
    with pytest.warns(DeprecationWarning, match=r"EquiNO\.cell is now EquiNO\.rve_modes"):
        rve_modes = trained.model.cell
    with pytest.warns(DeprecationWarning, match=r"RVEModes\.fields is now RVEModes\.at_points"):
        assert rve_modes.fields is trained.model.rve_modes.at_points
    with pytest.warns(DeprecationWarning, match=r"spon\.load_operator is now spon\.load"):
        assert torch.equal(spon.load_operator(trained.path).lower, trained.model.lower)


def test_samples_without_h5py_name_what_is_missing(tmp_path, monkeypatch):
    (tmp_path / "samples.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setitem(sys.modules, "h5py", None)  # an import of it fails
    with pytest.raises(ModuleNotFoundError, match=r"samples\.h5 holds samples in HDF5: need `pip install h5py`"):
        spon.load(tmp_path / "samples.h5")
