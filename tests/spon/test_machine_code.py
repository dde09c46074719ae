# SPDX-License-Identifier: MIT
"""The machine code of potentials and branches: the same numbers as their formulas in torch."""

import copy
import ctypes
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import branch, by_torch, difference, potential

import spon.jit
from spon.constitutive.c_code import function
from spon.constitutive.program import OPERATIONS, Program
from spon.equino.evaluate.c_response import CompiledResponse, c_network

if not spon.jit.compiler():
    pytest.skip("there is no C compiler", allow_module_level=True)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A folder of this session's own, so that the user's is left alone, and what is compiled is what is there now."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


def by_machine(p, strain, dtype=torch.float64, means=None):
    code = CompiledResponse(p, means, dtype)
    n, d = strain.shape
    arrays = strain.astype(code.dtype), np.empty((n, d), code.dtype), np.empty((n, d, d), code.dtype)
    code(*arrays)
    return arrays[1:]


@pytest.mark.parametrize("d, width, norms", [(3, 24, 8), (6, 24, 8), (3, 5, 1), (3, 16, 0)])
@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 1000])
def test_machine_code_is_the_formula(d, width, norms, n):
    p = potential(d, width, norms)
    strain = 0.05 * np.random.default_rng(n).uniform(-1, 1, (n, d))
    assert difference(by_machine(p, strain), by_torch(p, strain)) < 1e-13


@pytest.mark.parametrize("activation", ["tanh", "swish"])
@pytest.mark.parametrize("through_zero", [True, False])
@pytest.mark.parametrize("d, widths, norms", [(3, (64,) * 4, 0), (6, (24, 7), 8), (3, (5,), 1), (3, (70, 17), 3)])
def test_machine_code_of_a_branch_is_the_formula(d, widths, norms, activation, through_zero):
    b, means = branch(d, widths=widths, norms=norms, activation=activation, through_zero=through_zero)
    strain = 0.05 * np.random.default_rng(1).uniform(-1, 1, (75, d))
    strain[0] = 0
    found, expected = by_machine(b, strain, means=means), by_torch(b, strain, means)
    assert difference(found, expected) < 1e-13
    assert through_zero == (not found[0][0].any())  # to the last bit
    assert difference(by_machine(b, strain, torch.float32, means), expected) < 1e-5


def test_a_branch_needs_the_means_of_its_modes():
    with pytest.raises(ValueError, match="means = None"):
        CompiledResponse(branch()[0])


@settings(deadline=None, derandomize=True)
@given(seed=st.integers(0, 1000), size=st.floats(1e-12, 1e3))
def test_at_all_sizes_of_strain(seed, size):
    """From rounding to far beyond the range, where tanh is one."""
    p = potential(seed=seed)
    strain = size * np.random.default_rng(seed).uniform(-1, 1, (65, 3))
    found, expected = by_machine(p, strain), by_torch(p, strain)
    # Of the network's strains, which are what the activations see, and of the rest.
    rounding = 1e-13 + 8 * np.finfo(float).eps * size / float(p.half_range.min())
    # Small strains have a small stress, as a difference of gradients of the order of the scale over the half range.
    assert abs(found[0] - expected[0]).max() < rounding * (
        abs(expected[0]).max() + float((p.scale / p.half_range).max())
    )
    assert abs(found[1] - expected[1]).max() < rounding * abs(expected[1]).max()


CALL = """
void call(const REAL *constants, const REAL *in, REAL *out)
{
  lanes x[SIZE], y[COUNT];
  for (int i = 0; i < SIZE; ++i) EACH x[i][b] = in[i * LANES + b];
  tried(constants, x, y);
  for (int k = 0; k < COUNT; ++k) EACH out[k * LANES + b] = y[k][b];
}
"""


def test_every_operation_of_a_program_is_the_same_in_c():
    """Each of three components in (-1, 1), of which one is NaN or zero here and there, and of two constants."""
    steps, wanted = [("lt", 0, 1), ("le", 1, 3)], []  # values 5 and 6, after the components and the constants
    special = {"axpy": [(0, 1, 3)], "select": [(5, 0, 1), (6, 2, 3)], "and": [(5, 6)], "or": [(5, 6)], "not": [(5,)]}
    for name, (_, kinds, result) in OPERATIONS.items():
        for choice in special.get(name, [(0, 1), (2, 4), (3, 0)] if len(kinds) == 2 else [(0,), (1,), (2,)]):
            steps.append((name, *choice))
            if result == "b":
                steps.append(("select", 4 + len(steps), 0, 1))
            wanted.append(4 + len(steps))
    program = Program((("x", 3),), (0.3, -1.7), tuple(steps), tuple(wanted), (len(wanted),))
    text = spon.jit.source("spon.constitutive", "lanes.h") + function("tried", program) + CALL
    sizes = {"REAL": "double", "LANES": 64, "SIZE": 3, "COUNT": len(wanted)}
    call = spon.jit.library(text, sizes).call
    x = np.random.default_rng(0).uniform(-1, 1, (3, 64))
    x[0, 0] = x[1, 1] = np.nan
    x[0, 2] = x[1, 3] = x[2, 4] = 0.0
    x[0, 5] = x[1, 5]
    found, constants = np.empty((len(wanted), 64)), np.array(program.constants)
    call(*(ctypes.c_void_p(a.ctypes.data) for a in (constants, x, found)))
    expected = program(torch.from_numpy(x.T.copy())).numpy().T
    # A product and a sum may be one operation with one rounding, which shows where they cancel.
    differs = ~np.isclose(found, expected, rtol=1e-14, atol=1e-15, equal_nan=True).all(axis=1)
    assert [steps[w - 5] for w in np.array(wanted)[differs]] == []
    assert np.isnan(expected).any() and np.isfinite(expected).all(axis=1).any()


def test_rest_and_symmetry():
    p = potential()
    strain = np.vstack([np.zeros(3), 0.03 * np.random.default_rng(0).uniform(-1, 1, (99, 3))])
    for dtype in (torch.float64, torch.float32):
        stress, tangent = by_machine(p, strain, dtype)
        assert not stress[0].any() and stress[1:].all()  # to the last bit
        assert np.array_equal(tangent, tangent.transpose(0, 2, 1))


@pytest.mark.parametrize("d, norms", [(3, 8), (6, 8), (3, 0)])
def test_single_precision(d, norms):
    """Some tens of rounding errors of 1.2e-7."""
    p, strain = potential(d, norms=norms), 0.05 * np.random.default_rng(0).uniform(-1, 1, (500, d))
    found = by_machine(p, strain, torch.float32)
    assert found[0].dtype == np.float32
    assert 0 < difference(found, by_torch(p, strain)) < 1e-5


def test_not_a_number_is_passed_on_and_stays_with_its_point():
    p, strain = potential(), np.full((3, 3), 0.01)
    strain[1, 0] = np.nan
    stress, tangent = by_machine(p, strain)
    assert np.isnan(stress[1]).all() and np.isnan(tangent[1]).all()
    assert np.isfinite(stress[[0, 2]]).all() and np.isfinite(tangent[[0, 2]]).all()


def test_infinite_strains_are_what_they_are_in_torch():
    p, strain = potential(), np.full((3, 3), 0.01)
    strain[1, 0], strain[2, 1] = np.inf, -np.inf
    for found, expected in zip(by_machine(p, strain), by_torch(p, strain)):
        assert np.allclose(found[0], expected[0], rtol=1e-12) and not np.isfinite(found[1:]).all()
        assert np.array_equal(np.isfinite(found), np.isfinite(expected))


@pytest.mark.parametrize("width", [500, 8000])
def test_wide_layers_do_not_overflow_the_stack(width):
    """Fewer points side by side, and none at all where torch is as fast."""
    p = potential(6, width)
    assert (c_network(p).lanes() == 0) == (width == 8000)
    if width == 8000:
        with pytest.raises(ValueError, match="too wide"):
            CompiledResponse(p)
        return
    strain = 0.05 * np.random.default_rng(0).uniform(-1, 1, (100, 6))
    assert difference(by_machine(p, strain), by_torch(p, strain)) < 1e-12


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_float64_arrays_are_filled_in_any_precision(dtype):
    p, strain = potential(), 0.05 * np.random.default_rng(0).uniform(-1, 1, (10, 3))
    stress, tangent = np.empty((10, 3)), np.empty((10, 3, 3))
    CompiledResponse(p, dtype=dtype).fill(strain, stress, tangent)
    right = by_machine(p, strain, dtype)
    assert np.array_equal(stress, right[0]) and np.array_equal(tangent, right[1])


def test_it_can_be_copied_and_sent():
    p, strain = potential(), 0.05 * np.random.default_rng(0).uniform(-1, 1, (10, 3))
    code = CompiledResponse(p)
    for other in (copy.deepcopy(code), pickle.loads(pickle.dumps(code))):
        arrays = np.empty((10, 3)), np.empty((10, 3, 3))
        other(strain, *arrays)
        assert all(np.array_equal(a, b) for a, b in zip(arrays, by_machine(p, strain)))


def test_threads_change_nothing():
    p, strain = potential(), 0.05 * np.random.default_rng(0).uniform(-1, 1, (1000, 3))
    one, before = by_machine(p, strain), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        two = by_machine(p, strain)
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(a, b) for a, b in zip(one, two))


def test_it_is_compiled_once(monkeypatch):
    p, strain = potential(width=7), np.full((1, 3), 0.01)
    first = by_machine(p, strain)
    spon.jit._library.cache_clear()  # as a new process would begin
    run, commands = spon.jit._run, []
    monkeypatch.setattr(spon.jit, "_run", lambda *command: commands.append(command) or run(*command))
    assert all(np.array_equal(a, b) for a, b in zip(first, by_machine(p, strain)))
    assert ["-shared" in command for command in commands] == [False]  # it was asked for its version alone


def test_a_damaged_file_in_the_cache_is_made_again(monkeypatch, tmp_path):
    p, strain = potential(width=6), np.full((1, 3), 0.01)
    folder = Path(os.environ["XDG_CACHE_HOME"]) / "spon"
    before = set(folder.glob("*.so"))
    first = by_machine(p, strain)
    (made,) = set(folder.glob("*.so")) - before
    damaged = tmp_path / "spon" / made.name  # elsewhere: a library that is loaded is not read again
    damaged.parent.mkdir()
    damaged.write_bytes(b"\x7fELF")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    spon.jit._library.cache_clear()
    assert all(np.array_equal(a, b) for a, b in zip(first, by_machine(p, strain)))
    assert damaged.stat().st_size == made.stat().st_size


def test_a_user_without_a_home_is_told_so(monkeypatch):
    spon.jit._library.cache_clear()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(OSError, match=r"no home folder .* set \$XDG_CACHE_HOME"):
        CompiledResponse(potential())


def test_a_compiler_with_options(monkeypatch):
    monkeypatch.setenv("CC", "cc -g0")
    assert spon.jit.compiler()[1:] == ("-g0",)
    monkeypatch.setenv("CC", "")
    assert spon.jit.compiler() == (shutil.which("cc"),)


def test_wrong_arrays_are_named():
    code = CompiledResponse(potential())
    with pytest.raises(ValueError, match=r"tangent has shape \(2, 3\).*need \(2, 3, 3\)"):
        code(np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"strain has shape .* type float32"):
        code(np.zeros((2, 3), np.float32), np.zeros((2, 3)), np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match=r"stress has .* writeable"):
        code(np.zeros((1, 3)), np.frombuffer(bytes(24)).reshape(1, 3), np.zeros((1, 3, 3)))
    with pytest.raises(ValueError, match=r"strain has .* contiguous"):
        code(np.zeros((3, 2)).T, np.zeros((2, 3)), np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match="float16"):
        CompiledResponse(potential(), dtype=torch.float16)


def test_a_compiler_that_fails_is_quoted(monkeypatch):
    spon.jit._library.cache_clear()
    monkeypatch.setenv("CC", shutil.which("false"))
    with pytest.raises(OSError, match=r"false .* ended with 1"):
        CompiledResponse(potential(width=9))
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(OSError, match="no C compiler"):
        CompiledResponse(potential(width=9))
