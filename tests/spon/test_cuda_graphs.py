# SPDX-License-Identifier: MIT
"""Batches of all sizes on a device, and ways to evaluate a model; tests/coupling/test_gpu.py is for GPUs."""

import warnings

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from networks import by_torch, difference, potential

import spon
from spon.equino.evaluate import ExperimentalWarning, cuda_graphs, experimental


class Half(spon.Model):
    """A potential as a model of a class of its own."""

    def __init__(self, network):
        super().__init__(-network.half_range, network.half_range)
        self.potential = network

    def forward(self, strain):
        stress, tangent = self.potential(strain)
        return stress / 2, tangent / 2


def strains(n, d=3):
    return 0.02 * np.random.default_rng(n).uniform(-1, 1, (n, d))


@pytest.mark.parametrize("n", [0, 1, 256, 257, 16384, 16385, 50001])
def test_batches_of_all_sizes(n):
    """A response of which each number is known; few points in recorded batches, many in chunks."""
    sizes = []

    def evaluate(strain, stress, tangent):
        sizes.append(len(strain))
        stress.copy_(2 * strain)
        tangent.copy_(strain[:, :, None] * strain[:, None, :])

    launch = cuda_graphs.CudaGraphs(evaluate, 3, torch.device("cpu"), chunk=20000)
    for _ in range(2):  # what is there from before does not show
        e = strains(n) + len(sizes)
        stress, tangent = np.full((n, 3), np.nan), np.full((n, 3, 3), np.nan)
        launch(e, stress, tangent)
        assert np.array_equal(stress, 2 * e) and np.array_equal(tangent, e[:, :, None] * e[:, None, :])
    assert set(sizes) <= {256, 1024, 4096, 16384} | {20000, n % 20000}
    assert (n == 0) == (not sizes)


def test_one_recording_serves_all_batches_up_to_its_size():
    launch = cuda_graphs.CudaGraphs(lambda e, s, t: s.copy_(e), 3, torch.device("cpu"), chunk=2000)
    for n in (5, 100, 256, 300):
        launch(strains(n), np.empty((n, 3)), np.empty((n, 3, 3)))
    assert sorted(launch._recorded) == [256, 1024]


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_model_of_another_class_is_evaluated_by_torch(compiled, dtype):
    network = potential()
    evaluator = spon.Evaluator(Half(network), dtype=dtype, chunk=7, compiled=compiled)
    assert evaluator.way == "torch"
    e = strains(50)
    expected = [a / 2 for a in by_torch(network, e)]
    assert difference(evaluator(e), expected) < (1e-12 if dtype == torch.float64 else 1e-5)
    assert evaluator(e)[0].dtype == np.float64


def test_the_model_is_a_copy():
    model = Half(potential())
    evaluator, e = spon.Evaluator(model), strains(5)
    before = evaluator(e)[0]
    with torch.no_grad():
        model.potential.weights[0] *= 2
    assert np.array_equal(evaluator(e)[0], before)


@pytest.mark.parametrize("shape", [(3,), (4, 6)])
def test_strains_of_another_shape_are_named(shape):
    with pytest.raises(ValueError, match=r"strains have the shape .*, the model takes \(n, 3\)"):
        spon.Evaluator(Half(potential()))(np.zeros(shape))


def test_chunks_are_positive():
    with pytest.raises(ValueError, match="chunk = 0: need at least 1 point"):
        spon.Evaluator(Half(potential()), chunk=0)


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"device = 'meta': need 'cpu' or 'cuda'"):
        spon.Evaluator(Half(potential()), "meta")
    count = torch.cuda.device_count()
    said = f"torch finds {count} GPUs here" if count else "finds no GPU here, need 'cpu'"
    with pytest.raises(ValueError, match=f"device = 'cuda:{count}': torch .*{said.removeprefix('torch ')}"):
        spon.Evaluator(Half(potential()), f"cuda:{count}")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("kind", [np.float64, np.float32, np.int64])
def test_strains_of_other_types(kind, dtype):
    """What comes out is float64 in any case."""
    network = potential()
    e = np.zeros((5, 3), dtype=kind) if kind == np.int64 else strains(5).astype(kind)
    found = spon.Evaluator(Half(network), dtype=dtype)(e)
    expected = [a / 2 for a in by_torch(network, e.astype(np.float64))]
    assert [a.dtype for a in found] == [np.float64, np.float64]
    assert np.allclose(found[0], expected[0], rtol=1e-5, atol=1e-5 * abs(expected[1]).max())
    assert difference(found[1:], expected[1:]) < 1e-5


def test_float32_is_never_tf32():
    """What a program has allowed is not so while a model is evaluated, and is so again afterwards."""

    class Asks(Half):
        def forward(self, strain):
            seen.append(torch.get_float32_matmul_precision())
            return super().forward(strain)

    seen, evaluator = [], spon.Evaluator(Asks(potential()), dtype=torch.float32)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        evaluator(strains(3))
        assert seen == ["highest"]
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("recorded", [True, False])
def test_no_batch_is_larger_than_a_chunk(recorded):
    sizes = []

    def evaluate(strain, stress, tangent):
        sizes.append(len(strain))
        stress.copy_(strain)

    launch = cuda_graphs.CudaGraphs(evaluate, 3, torch.device("cpu"), chunk=500, recorded=recorded)
    for n in (100, 1200):
        e, found = strains(n), np.empty((n, 3))
        launch(e, found, np.empty((n, 3, 3)))
        assert np.array_equal(found, e)
    assert sizes == [256 if recorded else 100, 500, 500, 200]


def test_a_gpu_is_experimental_and_says_so_once(monkeypatch):
    """Streams of a GPU that is not there; nothing is evaluated."""
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: None)
    experimental.warn_never_run_on_a_gpu.cache_clear()
    gpu = torch.device("cuda", 0)
    with pytest.warns(ExperimentalWarning, match=r'has never run on a GPU so far\. Compare .* device="cpu"'):
        cuda_graphs.CudaGraphs(lambda e, s, t: None, 3, gpu, chunk=500)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cuda_graphs.CudaGraphs(lambda e, s, t: None, 3, gpu, chunk=500)
        experimental.warn_never_run_on_a_gpu.cache_clear()
        spon.Evaluator(Half(potential()))(strains(3))  # a CPU is not experimental


def test_a_prediction_has_names():
    e = strains(4)
    found = spon.Evaluator(Half(potential()))(e)
    stress, tangent = found
    assert found.stress is stress and found.tangent is tangent and tangent.shape == (4, 3, 3)
