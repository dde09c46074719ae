# SPDX-License-Identifier: MIT
"""Products with a fixed sparse matrix, and their derivatives of both modes and of second order."""

import numpy as np
import pytest
import scipy.sparse

pytest.importorskip("torch")

import torch

from spon.sparse import SparseOperator

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture
def matrix():
    """7 × 5 with an empty row and an empty column."""
    dense = np.random.default_rng(0).normal(size=(7, 5)) * (np.random.default_rng(1).random((7, 5)) < 0.5)
    dense[3], dense[:, 2] = 0.0, 0.0
    return scipy.sparse.csr_array(dense)


def fields(*shape, dtype=torch.float64, device="cpu"):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(device, dtype)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("trailing", [(), (1,), (4,), (3, 2), (0,)])
def test_product(matrix, dtype, device, trailing):
    a = SparseOperator.of(matrix, dtype=dtype, device=device)
    dense = torch.from_numpy(matrix.toarray()).to(device, dtype)
    # Each value is a sum of at most five products of size one.
    tolerance = 20 * torch.finfo(dtype).eps
    for operator, full in ((a, dense), (a.T, dense.T)):
        x = fields(full.shape[1], *trailing, dtype=dtype, device=device)
        y = operator @ x
        assert y.shape == (full.shape[0], *trailing) and y.dtype == dtype
        torch.testing.assert_close(y, torch.tensordot(full, x, 1), rtol=tolerance, atol=tolerance)
    assert a.T.T is a


def test_product_of_a_view(matrix):
    """A transposed and a strided field, and one that needs gradients."""
    a = SparseOperator.of(matrix)
    x = fields(4, 10)[:, ::2].T.requires_grad_()
    torch.testing.assert_close(a @ x, torch.from_numpy(matrix.toarray()) @ x)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(5,), (5, 3)])
def test_derivatives(matrix, device, shape):
    a = SparseOperator.of(matrix, device=device)
    x = fields(*shape, device=device).requires_grad_()
    energy = lambda x: (a @ x).pow(3).sum()  # noqa: E731
    assert torch.autograd.gradcheck(lambda x: a @ x, x, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda x: (a @ x).sin(), x, check_fwd_over_rev=True)
    # Third derivatives, against those of the dense matrix.
    dense = torch.from_numpy(matrix.toarray()).to(device)
    direction = fields(*shape, device=device).flip(0)

    def third(f):
        for _ in range(3):
            f = (lambda g: lambda x: torch.func.jvp(g, (x,), (direction,))[1])(f)
        return f(x.detach())

    torch.testing.assert_close(third(energy), third(lambda x: (dense @ x).pow(3).sum()))


def test_transforms(matrix):
    """Forward mode, Jacobians and vmap of torch.func, all exact for a linear map."""
    a, dense = SparseOperator.of(matrix), torch.from_numpy(matrix.toarray())
    x, v = fields(5, 3), fields(5, 3).flip(0)
    value, slope = torch.func.jvp(lambda x: a @ x, (x,), (v,))
    assert torch.equal(value, a @ x) and torch.equal(slope, a @ v)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, v)
        assert torch.equal(torch.autograd.forward_ad.unpack_dual(a @ dual).tangent, a @ v)
    for jacobian in (torch.func.jacrev, torch.func.jacfwd):
        assert torch.equal(jacobian(lambda x: a @ x)(x[:, 0]), dense)
    assert torch.equal(torch.func.vmap(lambda x: a @ x, in_dims=1, out_dims=1)(x), a @ x)
    assert torch.equal(torch.func.hessian(lambda x: (a @ x).square().sum())(x[:, 0]), 2 * (a.T @ dense))


def test_precision_and_copies(matrix):
    a = SparseOperator.of(matrix)
    single = a.to(dtype=torch.float32)
    assert single.values.dtype == torch.float32 and (single @ fields(5, dtype=torch.float32)).dtype == torch.float32
    matrix.data[:] = 0.0  # the operator holds values of its own
    assert bool((a.values != 0).any())


def test_wrong_fields_are_refused(matrix):
    a = SparseOperator.of(matrix)
    with pytest.raises(ValueError, match=r"shape \(7, 2\), need \(5, ...\)"):
        a @ fields(7, 2)
    with pytest.raises(ValueError, match=r"float32 on cpu, the matrix torch.float64"):
        a @ fields(5, dtype=torch.float32)
