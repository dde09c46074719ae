# SPDX-License-Identifier: MIT
"""The fused kernels: their numbers by Triton's interpreter, without a GPU, and what a compiler makes of them."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("triton", reason="Triton is not installed")

import torch
from networks import branch, by_torch, difference, potential

from spon.equino.evaluate.triton_response import FusedResponse

interpreted = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") != "1", reason="with a GPU Triton compiles; tests/coupling/test_gpu.py has these"
)

FORMS = {
    "potential": lambda d: (potential(d), None),
    "no norms": lambda d: (potential(d, width=5, norms=0), None),
    "published": lambda d: branch(d, widths=(64,) * 4, activation="swish", through_zero=False),
    "one layer": lambda d: branch(d, widths=(7,), norms=2),
    "unequal": lambda d: branch(d, widths=(40, 23, 9), norms=3, activation="swish"),
}


def evaluate(kernel, strain):
    n, d = strain.shape
    found = torch.full((n, d), torch.nan, dtype=torch.float64), torch.full((n, d, d), torch.nan, dtype=torch.float64)
    kernel(torch.from_numpy(strain), *found)
    return [x.numpy() for x in found]


def strains(n, d):
    e = 0.05 * np.random.default_rng(n).uniform(-1, 1, (n, d))
    e[:1] = 0
    return e


@interpreted
@pytest.mark.parametrize("d", [3, 6])
@pytest.mark.parametrize("form", FORMS)
def test_it_is_the_formula(form, d):
    network, means = FORMS[form](d)
    e = strains(37, d)
    found = evaluate(FusedResponse(network, means, device="cpu"), e)
    assert difference(found, by_torch(network, e, means)) < 1e-12
    assert (form == "published") == found[0][0].any()  # zero at rest, to the last bit
    assert means is not None or np.array_equal(found[1], found[1].transpose(0, 2, 1))


@interpreted
@pytest.mark.parametrize("n", [0, 1, 16, 17])
def test_any_number_of_points(n):
    network, means = FORMS["unequal"](3)
    e = strains(n, 3)
    found = evaluate(FusedResponse(network, means, device="cpu"), e)
    assert difference(found, by_torch(network, e, means)) < 1e-12


@interpreted
@pytest.mark.parametrize("form", ["potential", "unequal"])
def test_a_tangent_in_single_precision_beside_a_stress_in_double(form):
    network, means = FORMS[form](3)
    e = strains(20, 3)
    mixed = evaluate(FusedResponse(network, means, device="cpu", tangent_dtype=torch.float32), e)
    single = evaluate(FusedResponse(network, means, device="cpu", dtype=torch.float32), e)
    expected = by_torch(network, e, means)
    assert difference(mixed[:1], expected[:1]) < 1e-12
    assert 1e-9 < difference(mixed[1:], expected[1:]) < 1e-5
    assert 1e-9 < difference(single[:1], expected[:1]) < 1e-5


@interpreted
def test_what_it_cannot_do_is_said():
    network, means = branch()
    with pytest.raises(ValueError, match="means = None"):
        FusedResponse(network, device="cpu")
    with pytest.raises(ValueError, match=r"dtype = torch\.float32, tangent_dtype = torch\.float64"):
        FusedResponse(network, means, device="cpu", dtype=torch.float32, tangent_dtype=torch.float64)
    with pytest.raises(ValueError, match="a layer has 65 units: the kernel supports at most 64"):
        FusedResponse(potential(width=65), device="cpu")
    kernel = FusedResponse(network, means, device="cpu")
    e = torch.zeros(4, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"tangent has shape \(4, 3\) on cpu, need \(4, 3, 3\)"):
        kernel(e, torch.empty_like(e), torch.empty_like(e))


COMPILE = """
import json, pathlib, re, subprocess, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
import triton.language as tl
from spon.equino.evaluate import triton_response as kernels
cubin = pathlib.Path(sys.argv[1], "kernel.cubin")
tools = pathlib.Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
for form, d, *types in json.load(sys.stdin):
    kernel, sizes = {"potential": (kernels._potential, {"K": 8, "W": 32}),
                     "branch": (kernels._branch, {"K": 0, "W": 64, "DEPTH": 4, "SWISH": True})}[form]
    real, tangent = (getattr(tl, name) for name in types)
    sizes |= {"D": d, "D2": {3: 4, 6: 8}[d], "POINTS": 16, "REAL": real, "TANGENT": tangent}
    types = {name: "constexpr" if name in sizes else "i32" if name in ("n", "only_gradient") else "*fp64"
             for name in kernel.arg_names}
    made = triton.compile(ASTSource(fn=kernel, signature=types, constexprs=sizes), target=GPUTarget("cuda", 90, 32),
                          options={"num_warps": 4 if d == 3 else 8, "num_stages": 2})
    cubin.write_bytes(made.asm["cubin"])
    code = subprocess.run([tools / "nvdisasm", cubin], capture_output=True, text=True, check=True).stdout
    counts = {name: len(re.findall(rf"\\b{name}\\b", code)) for name in ("DMMA", "LDL", "STL")}
    print(json.dumps([counts, made.metadata.shared]))
"""
COMPILED = [
    (form, *what)
    for form in ("potential", "branch")
    for what in (
        (3, "float64", "float64"), (6, "float64", "float64"), (6, "float64", "float32"), (6, "float32", "float32"),
    )
]  # fmt: skip


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Counts of instructions and bytes of shared memory for compute capability 9.0, which needs no GPU."""
    folder = tmp_path_factory.mktemp("triton")
    environment = os.environ | {"TRITON_CACHE_DIR": str(folder)}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-c", COMPILE, str(folder)]
    done = subprocess.run(command, input=json.dumps(COMPILED), capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return dict(zip(COMPILED, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("form", ["potential", "branch"])
def test_a_compiler_makes_it_of_matrix_instructions_and_registers(form, compiled):
    """Products in float64 by the matrix units (DMMA), nothing between the layers leaves the registers (LDL, STL: local
    memory), and the shared memory is there twice, for two blocks."""
    found, shared = compiled[form, 3, "float64", "float64"]
    assert found["DMMA"] > 0 and found["LDL"] == found["STL"] == 0
    assert 2 * shared <= 227 * 1024


@pytest.mark.parametrize("form", ["potential", "branch"])
@pytest.mark.parametrize("real, tangent", [("float64", "float64"), ("float64", "float32"), ("float32", "float32")])
def test_it_compiles_in_3d_and_in_other_precisions(form, real, tangent, compiled):
    found, shared = compiled[form, 6, real, tangent]
    assert shared <= 227 * 1024 and (real == "float32") == (not found["DMMA"])
