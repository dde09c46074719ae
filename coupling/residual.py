# SPDX-License-Identifier: MIT
"""The residual of a UFL form as a loss, to train networks without solved examples.

The loss is half the square of the residual's dual norm, ½ rᵀ P⁻¹ r, with a symmetric positive definite P. Where
r = A u − b and P = A, it is half the squared energy norm of the error; where P is spectrally equivalent to A, it is so
up to constants that no mesh changes (Málek & Strakoš, Preconditioning and the Conjugate Gradient Method in the Context
of Solving PDEs, SIAM 2015).
"""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse.linalg
import torch
import ufl
from dolfinx import fem
from dolfinx.fem import petsc as fem_petsc
from torch import Tensor
from torch.autograd.function import once_differentiable
from ufl.algorithms import expand_derivatives

from coupling.field_operator import sparse_operator
from spon import MixedSpace, Space, SparseOperator, read_space

Array = npt.NDArray[np.float64]


class Residual:
    """½ rᵀ P⁻¹ r (batch,) of fields (dofs, batch): `residual(u, *inputs)`, differentiable in all of them.

    It is a loss for `spon.operators.train`. Everything that does not depend on the fields is assembled once: the
    matrix of each field in which the form is linear with constant coefficients, and P, which is factorised. The other
    terms are assembled for each sample, and so is their derivative, the action of the transposed Jacobian. Tensors on
    other devices or in single precision are copied to the CPU in double precision and back.

        F = ufl.inner((1 + u**2) * ufl.grad(u), ufl.grad(v)) * ufl.dx - f * v * ufl.dx
        residual = coupling.Residual(F, u, [f], bcs=[bc])
        operators.train(network, forces, loss=residual.relative)

    Args:
        form: linear in a test function of the space of `unknown`. Functions and constants in it that are neither
            `unknown` nor `inputs` must not change afterwards.
        unknown: the function solved for; its values are not used.
        inputs: the inputs of the network, in its order; their values are not used.
        bcs: Dirichlet conditions. Test functions are zero there, and the fields must satisfy them.
        periodic: axes as of `spon.OperatorNetwork`, which tie test functions.
        preconditioner: symmetric positive definite bilinear form for P; by default ∫ ∇u:∇v (or that of the divergence
            or the curl, see `spon.Space`), plus ∫ u·v where that is singular under the conditions.

    Raises:
        ValueError: a form of another kind, without the unknown or one of the inputs; a mixed space without
            `preconditioner`; a P that is not symmetric positive definite; a space that `spon.read_space` cannot read.
    """

    def __init__(
        self,
        form: ufl.Form,
        unknown: fem.Function,
        inputs: Sequence[fem.Function] = (),
        *,
        bcs: Sequence[fem.DirichletBC] = (),
        periodic: Sequence[int] = (),
        preconditioner: ufl.Form | None = None,
    ):
        V = unknown.function_space
        if [v.ufl_function_space() for v in form.arguments()] != [V]:
            raise ValueError(
                f"the form has the arguments {form.arguments()}: need one test function of the unknown's space"
            )
        given = [unknown, *inputs]
        names = ["the unknown", *(f"input {k}" for k in range(len(inputs)))]
        for name, x in zip(names, given):
            if x not in form.coefficients():
                raise ValueError(f"{name} ({x}) is not in the form")
        if len(set(given)) < len(given):
            raise ValueError(f"the unknown and the inputs are {given}: need different functions")
        space = read_space(V, bcs=bcs, periodic=periodic)
        lifting, free = _conditions(space)
        self.lifting = lifting[:, None]
        self._free = SparseOperator.of(free)

        # Own functions, so that those of the caller keep their values.
        self._fields = [fem.Function(x.function_space, dtype=np.float64) for x in given]
        form = ufl.replace(form, dict(zip(given, self._fields)))
        self._test = fem.Function(V, dtype=np.float64)
        tested = ufl.replace(form, {form.arguments()[0]: self._test})
        self._linear: dict[int, SparseOperator] = {}
        self._derivatives: dict[int, Any] = {}  # field → form of d(r·w), compiled at the first call
        for k, x in enumerate(self._fields):
            jacobian = expand_derivatives(ufl.derivative(form, x))
            if not jacobian.empty() and set(jacobian.coefficients()).isdisjoint(self._fields):
                self._linear[k] = SparseOperator.of(_matrix(jacobian))
            else:
                # The derivative of r·w by a field is the transposed Jacobian times w. It is empty for a field that
                # enters by a comparison alone.
                derivative = expand_derivatives(ufl.derivative(tested, x))
                compiled = None if derivative.empty() else cache(partial(fem.form, derivative, dtype=np.float64))
                self._derivatives[k] = compiled
        self._form = fem.form(form, dtype=np.float64)
        if not self._derivatives:
            self._constant = torch.from_numpy(fem.assemble_vector(self._form).array.copy())[:, None]

        if preconditioner is not None:
            P = _matrix(preconditioner)
        elif isinstance(space, Space):
            P = space.stiffness.scipy
            if not (space.family == "P" and bool(space.fixed.view(-1, space.block_size).any(0).all())):
                P = P + space.mass.scipy
        else:
            raise ValueError("the unknown is in a mixed space: need a preconditioner")
        self._factor = _factorised(scipy.sparse.csc_array(free.T @ P @ free))

    def vector(self, u: Tensor, *inputs: Tensor) -> Tensor:
        """The residual (free dofs, batch), in double precision on the CPU.

        Args:
            u: (dofs, batch).
            *inputs: (dofs, batch) each.

        Raises:
            ValueError: another number of inputs, or fields of other shapes.
        """
        fields = [u, *inputs]
        if len(fields) != len(self._fields):
            raise ValueError(f"got {len(inputs)} inputs, need {len(self._fields) - 1}")
        for k, (x, own) in enumerate(zip(fields, self._fields)):
            need = (len(own.x.array), u.shape[-1])
            if x.shape != need:
                raise ValueError(f"{f'input {k - 1}' if k else 'u'} has the shape {tuple(x.shape)}, need {need}")
        fields = [x.to("cpu", torch.float64) for x in fields]
        nonlinear = [fields[k] for k in self._derivatives]
        r = _Assembled.apply(self, *nonlinear) if nonlinear else self._constant
        for k, matrix in self._linear.items():
            r = r + matrix @ fields[k]
        return self._free.T @ r

    def __call__(self, u: Tensor, *inputs: Tensor) -> Tensor:
        """½ rᵀ P⁻¹ r (batch,), on the device and in the precision of u.

        Args:
            u: (dofs, batch).
            *inputs: (dofs, batch) each.

        Raises:
            ValueError: another number of inputs, or fields of other shapes.
        """
        return _DualNorm.apply(self._factor, self.vector(u, *inputs)).to(u.device, u.dtype)

    def _set(self, fields: Sequence[Tensor], column: int) -> None:
        """Set the fields in which the form is not linear; the others stay zero."""
        for k, x in zip(self._derivatives, fields):
            self._fields[k].x.array[:] = x[:, column].numpy()

    def relative(self, u: Tensor, *inputs: Tensor) -> Tensor:
        """The norm of the residual (batch,), relative to that of the Dirichlet values with zeros inside.

        Where P = A and the values are zero, it is the relative error in the energy norm. Its derivative at zero is set
        to zero.

        Args:
            u: (dofs, batch).
            *inputs: (dofs, batch) each.

        Raises:
            ValueError: as `vector`, or a sample that the Dirichlet values with zeros inside solve.
        """
        start = self(self.lifting.to(u.device, u.dtype).expand_as(u), *inputs)
        if not bool((start > 0).all()):
            raise ValueError(f"sample {int(start.argmin())} is solved by its Dirichlet values and zeros inside")
        square = self(u, *inputs) / start
        return torch.where(square > 0, torch.where(square > 0, square, 1.0).sqrt(), 0.0)


class _Assembled(torch.autograd.Function):
    """The part of a residual (dofs, batch) that is not linear, assembled for each sample."""

    @staticmethod
    def forward(ctx, residual, *fields):
        ctx.residual = residual
        ctx.save_for_backward(*fields)
        columns = []
        for column in range(fields[0].shape[1]):
            residual._set(fields, column)
            columns.append(fem.assemble_vector(residual._form).array)
        return torch.from_numpy(np.column_stack(columns))

    @staticmethod
    @once_differentiable
    def backward(ctx, cotangent):
        residual, fields = ctx.residual, ctx.saved_tensors
        gradients = [torch.zeros_like(x) if needed else None for x, needed in zip(fields, ctx.needs_input_grad[1:])]
        for column in range(cotangent.shape[1]):
            residual._test.x.array[:] = cotangent[:, column].numpy()
            residual._set(fields, column)
            for derivative, gradient in zip(residual._derivatives.values(), gradients):
                if gradient is not None and derivative is not None:
                    gradient[:, column] = torch.from_numpy(fem.assemble_vector(derivative()).array)
        return None, *gradients


class _DualNorm(torch.autograd.Function):
    """½ rᵀ P⁻¹ r (batch,), which is computed with its derivative P⁻¹ r."""

    @staticmethod
    def forward(ctx, factor, r):
        represented = torch.from_numpy(factor.solve(r.detach().numpy()))
        ctx.save_for_backward(represented)
        return (r * represented).sum(0) / 2

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (represented,) = ctx.saved_tensors
        return None, gradient * represented


def _conditions(space: Space | MixedSpace) -> tuple[Tensor, scipy.sparse.csr_array]:
    """The Dirichlet values (dofs,), and a basis (dofs, n) of the fields that are zero there, with tied dofs equal."""
    if isinstance(space, Space):
        return space.lifting, scipy.sparse.csr_array(space.tying.scipy[:, ~space.fixed[space.independent].numpy()])
    lifting, free = zip(*map(_conditions, space.parts))
    order = torch.cat(space.numbers).argsort().numpy()
    return space.join(lifting), scipy.sparse.csr_array(scipy.sparse.block_diag(free, format="csr"))[order]


def _matrix(form: ufl.Form) -> scipy.sparse.csr_array:
    # By PETSc, as DOLFINx's own matrices cannot have two different block sizes.
    assembled = fem_petsc.assemble_matrix(fem.form(form, dtype=np.float64))
    assembled.assemble()
    matrix = sparse_operator(assembled).scipy
    assembled.destroy()
    return matrix


def _factorised(P: scipy.sparse.csc_array) -> Any:
    """SuperLU's factors of P; raises ValueError unless it is symmetric positive definite."""
    skew = abs(P - P.T).max()
    if not skew <= 1e-10 * abs(P).max():
        raise ValueError(f"the preconditioner differs from its transpose by {skew:.3g}: need a symmetric one")
    try:
        # Without row exchanges the pivots have the signs of the eigenvalues.
        factor = scipy.sparse.linalg.splu(
            P, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
    except RuntimeError as error:
        raise ValueError(f"the preconditioner is singular under the Dirichlet conditions: {error}") from error
    if (factor.perm_r != factor.perm_c).any() or not (factor.U.diagonal() > 0).all():
        raise ValueError("the preconditioner is not positive definite")
    return factor
