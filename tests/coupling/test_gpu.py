# SPDX-License-Identifier: MIT
"""What needs a GPU, and torch and Triton alone: the same numbers as on the CPU, in all sizes and precisions."""

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from networks import branch, by_torch, difference, potential

import spon
from spon.equino.evaluate import cuda_graphs

if not torch.cuda.is_available():
    pytest.skip("no GPU", allow_module_level=True)

CUDA = torch.device("cuda:0")
SIZES = [0, 1, 256, 257, 1000, 16384, 16385, 300001]


class Alone(spon.Model):
    """A network as a model, which torch evaluates."""

    def __init__(self, network, means):
        super().__init__(-network.half_range, network.half_range)
        self.network = network
        self.register_buffer("means", means)

    def forward(self, strain):
        if self.means is None:
            return self.network(strain)
        coefficients, gradients = self.network.with_tangent(strain)
        return coefficients @ self.means.T, self.means @ gradients


NETWORKS = {
    "potential": (potential(), None),
    "potential in 3D": (potential(6), None),
    "published": branch(widths=(64,) * 4, activation="swish", through_zero=False),
    "branch in 3D": branch(6, widths=(24, 24), norms=4),
}


def strains(n, d):
    return 0.02 * np.random.default_rng(n).uniform(-1, 1, (n, d))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", NETWORKS)
def test_torch_on_the_gpu(name, n):
    network, means = NETWORKS[name]
    e = strains(n, network.half_range.numel())
    expected, d = by_torch(network, e, means), e.shape[1]
    evaluator = spon.Evaluator(Alone(network, means), CUDA)
    assert difference(evaluator(e), expected) < 1e-12
    model = Alone(network, means).to(CUDA)

    @torch.no_grad()
    def evaluate(strain, stress, tangent):
        for out, values in zip((stress, tangent), model(strain)):
            out.copy_(values)

    launch, found = cuda_graphs.CudaGraphs(evaluate, d, CUDA, 131072), (np.empty((n, d)), np.empty((n, d, d)))
    for _ in range(2):  # recorded, and replayed
        launch(e, *found)
        assert difference(found, expected) < 1e-12


def test_a_model_that_asks_the_gpu_is_not_recorded():
    class Asks(Alone):
        def forward(self, strain):
            float(strain.sum())
            return super().forward(strain)

    network, means = NETWORKS["potential"]
    e = strains(10, 3)
    assert difference(spon.Evaluator(Asks(network, means), CUDA)(e), by_torch(network, e, means)) < 1e-12


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_fused_kernel(name, n):
    pytest.importorskip("triton", reason="Triton is not installed")
    from spon.equino.evaluate.triton_response import FusedResponse

    network, means = NETWORKS[name]
    d = network.half_range.numel()
    e, expected = strains(n, d), by_torch(network, strains(n, d), means)
    for options, least in (({}, 1e-12), ({"tangent_dtype": torch.float32}, 1e-5), ({"dtype": torch.float32}, 1e-5)):
        launch = cuda_graphs.CudaGraphs(FusedResponse(network, means, device=CUDA, **options), d, CUDA, 131072)
        for _ in range(2):
            found = np.empty((n, d)), np.empty((n, d, d))
            launch(e, *found)
            assert difference(found, expected) < least
            assert "dtype" in options or difference(found[:1], expected[:1]) < 1e-12


def test_the_stress_at_rest_is_zero_to_the_last_bit():
    pytest.importorskip("triton", reason="Triton is not installed")
    from spon.equino.evaluate.triton_response import FusedResponse

    for network, means in (NETWORKS["potential"], NETWORKS["branch in 3D"]):
        d = network.half_range.numel()
        zero = torch.zeros(33, d, dtype=torch.float64, device=CUDA)
        stress, tangent = torch.empty_like(zero), torch.empty(33, d, d, dtype=torch.float64, device=CUDA)
        FusedResponse(network, means, device=CUDA)(zero, stress, tangent)
        assert not stress.any()


def test_tf32_is_not_used_where_it_is_allowed():
    network, means = NETWORKS["published"]
    e = strains(1000, 3)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        found = spon.Evaluator(Alone(network, means), CUDA, torch.float32)(e)
    finally:
        torch.set_float32_matmul_precision(before)
    assert difference(found, by_torch(network, e, means)) < 1e-5
