# SPDX-License-Identifier: MIT
"""Learned preconditioners: for a symmetric positive definite matrix A with the diagonal D,

    B = ω D⁻¹ + N Nᵀ,

with an operator network N that is linear in the residual. B is symmetric positive definite for any weights of the
network, so that conjugate gradients converge with it. The first term is a smoother, which damps rough errors; the
second corrects smooth ones: the additive form of two-level methods (Xu, SIAM Rev. 34, 1992), with a learned space.

With further inputs, such as the coefficient of the form, one network preconditions many matrices A.
"""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy  # its parts are imported when they are first used
import torch
from torch import Tensor, nn

from spon.operators.network import OperatorNetwork
from spon.operators.processors.levels import Fixed
from spon.sparse import SparseOperator
from spon.training.adamw import fit_samples
from spon.training.deprecated import takes_old_keywords
from spon.training.options import TrainingOptions
from spon.training.result import TrainingResult


class Preconditioner(nn.Module):
    """B of a matrix A (dofs, dofs) on the output space of a network.

    ω = 4/3 over the largest eigenvalue of D⁻¹A, so that relaxation with it damps all rough errors.

    Args:
        network: linear in its first input, which has the dofs of the output.
        matrix: symmetric positive definite, with rows and columns of the identity at the fixed dofs.
        *others: (dofs, 1), the network's other inputs for this matrix.

    Raises:
        TypeError: a matrix that is no `spon.SparseOperator`.
        ValueError: a network of another kind, a matrix of another size, precision or device, or one that is not
            symmetric or has a diagonal that is not positive.
    """

    weight: Tensor
    diagonal: Tensor

    def __init__(self, network: OperatorNetwork, matrix: SparseOperator, *others: Tensor):
        super().__init__()
        if not isinstance(matrix, SparseOperator):
            raise TypeError(
                f"the matrix is a {type(matrix).__name__}: need a spon.SparseOperator; spon.SparseOperator.of makes "
                "one of SciPy's matrices, coupling.sparse_operator of PETSc's"
            )
        dofs = network.spaces.output.dofs
        sizes = [encoder.shape[1] for encoder in network.spaces.encoders]
        if (
            network.structure.linear_in != (0,)
            or sizes[0] != dofs
            or network.spaces.answer is not network.spaces.output
        ):
            raise ValueError(
                f"the network has inputs of {sizes} dofs and is linear in {network.structure.linear_in}: need "
                f"linear_in=[0], a first input with the {dofs} dofs of the output, neither velocity nor mixed output"
            )
        if [x.shape for x in others] != [(size, 1) for size in sizes[1:]]:
            raise ValueError(
                f"others have the shapes {[tuple(x.shape) for x in others]}, need (dofs, 1) for {sizes[1:]}"
            )
        if matrix.shape != (dofs, dofs):
            raise ValueError(f"the matrix is {matrix.shape}, need ({dofs}, {dofs})")
        if (matrix.values.dtype, matrix.values.device) != (network.scale.dtype, network.scale.device):
            raise ValueError(
                f"the matrix is {matrix.values.dtype} on {matrix.values.device}, the network {network.scale.dtype} on "
                f"{network.scale.device}: need the same"
            )
        csr = matrix.scipy
        skew = abs(csr - csr.T).max()
        if not skew <= 1e-6 * abs(csr).max():
            raise ValueError(f"the matrix differs from its transpose by {skew:.3g}: need a symmetric one")
        diagonal = torch.from_numpy(csr.diagonal()).to(matrix.values)
        if not (diagonal > 0).all():
            raise ValueError(f"diagonal[{int(diagonal.argmin())}] = {diagonal.min():.3g}: need positive numbers")
        self.network, self.matrix, self.count = network, Fixed(matrix), len(others)
        for k, x in enumerate(others):
            self.register_buffer(f"other_{k}", x)
        self.register_buffer("diagonal", diagonal)
        self.register_buffer("weight", 4 / (3 * _largest_eigenvalue(matrix, diagonal)))

    @property
    def others(self) -> list[Tensor]:
        """The network's other inputs (dofs, 1)."""
        return [getattr(self, f"other_{k}") for k in range(self.count)]

    def forward(self, residual: Tensor) -> Tensor:
        """B r (dofs, batch) for residuals r (dofs, batch)."""
        others = [x.expand(-1, residual.shape[1]) for x in self.others]
        return self.relax(residual) + _correction(self.network, residual, others)

    def relax(self, residual: Tensor) -> Tensor:
        """ω D⁻¹ r (dofs, batch)."""
        return self.weight * residual / self.diagonal[:, None]

    def smooth(self, x: Tensor, sweeps: int) -> Tensor:
        """Fields x (dofs, batch) after sweeps of relaxation for A x = 0, which keep the smooth part.

        Args:
            x: (dofs, batch).
            sweeps: number of sweeps.
        """
        for _ in range(sweeps):
            x = x - self.relax(self.matrix(x))
        return x


def _largest_eigenvalue(matrix: SparseOperator, diagonal: Tensor) -> Tensor:
    """The largest eigenvalue of D⁻¹A (), to one per cent, which suffices for ω."""
    size = scipy.sparse.diags_array(diagonal.double().cpu().numpy() ** -0.5)
    scaled = size @ matrix.scipy.astype(np.float64) @ size  # symmetric, with the same eigenvalues
    start = np.random.default_rng(0).standard_normal(len(diagonal))
    (largest,) = scipy.sparse.linalg.eigsh(scaled, k=1, which="LA", v0=start, tol=1e-2, return_eigenvectors=False)
    return diagonal.new_tensor(largest)


def _correction(network: OperatorNetwork, residual: Tensor, others: Sequence[Tensor]) -> Tensor:
    """N Nᵀ r (dofs, batch), each column with its own other inputs (dofs, batch)."""
    _, transposed = torch.func.vjp(lambda r: network(r, *others), torch.zeros_like(residual))
    return network(transposed(residual)[0], *others)


@takes_old_keywords
def train_preconditioner(
    preconditioners: Preconditioner | Sequence[Preconditioner],
    options: TrainingOptions = TrainingOptions(steps=300, every=50),
    *,
    samples: int = 240,
    sweeps: tuple[int, ...] = (0, 2, 8, 32, 128, 512),
    comm: Any = None,
    log: Callable[[str], None] | None = None,
) -> TrainingResult[OperatorNetwork]:
    """Train the network of one or several preconditioners for the least mean ‖x − B A x‖ / ‖x‖, in the norms of A.

    No system is solved: the fields x are noise after some sweeps of relaxation, so that they include rough and smooth
    fields.

    Args:
        preconditioners: with one network, which is changed in place and is the model of the result.
        options: steps, rate, seed, ...
        samples: number of fields, spread over the preconditioners and over the numbers of `sweeps`.
        sweeps: numbers of sweeps.
        comm: a communicator of mpi4py, whose ranks share each batch (collective).
        log: called with a line at each evaluation, on the first rank.

    Raises:
        ValueError: none, or preconditioners of different networks; too few samples, or no numbers of sweeps.
        FloatingPointError: a loss that is not finite at the start.
    """
    all_ = [preconditioners] if isinstance(preconditioners, Preconditioner) else list(preconditioners)
    if not all_ or not sweeps:
        raise ValueError(f"{len(all_)} preconditioners and sweeps = {sweeps}: need at least one of each")
    network = all_[0].network
    if any(p.network is not network for p in all_):
        raise ValueError("the preconditioners have different networks, need one")
    if samples < len(all_):
        raise ValueError(f"{samples} samples for {len(all_)} matrices: need at least one for each")
    options.held_out(samples)  # raises before the work
    generator, fixed = torch.Generator().manual_seed(options.seed), network.spaces.output.fixed
    noise = torch.randn(len(fixed), samples, generator=generator, dtype=torch.float64).to(all_[0].diagonal)
    fields = torch.where(fixed[:, None], 0.0, noise)
    owner, group = torch.arange(samples) % len(all_), torch.arange(samples) // len(all_) % len(sweeps)
    for i, p in enumerate(all_):
        for k, n in enumerate(sweeps):
            some = ((owner == i) & (group == k)).to(fields.device)
            fields[:, some] = p.smooth(fields[:, some], n)
    others = [torch.cat(columns, 1)[:, owner] for columns in zip(*(p.others for p in all_))]

    def forces_of(x: Tensor, which: Tensor) -> Tensor:
        """A x, each column with the matrix of its sample."""
        out = torch.zeros_like(x)
        mine = owner.to(which.device)[which]
        for i, p in enumerate(all_):
            out = out + torch.where(mine == i, p.matrix(torch.where(mine == i, x, 0.0)), 0.0)
        return out

    everything = torch.arange(samples, device=fields.device)
    forces = forces_of(fields, everything)
    size = (fields * forces).sum(0).sqrt()
    fields, forces = fields / size, forces / size
    relaxed = torch.stack([all_[i].relax(forces[:, k, None])[:, 0] for k, i in enumerate(owner.tolist())], 1)
    for k, x in enumerate(others, 1):
        network.normalise_input(k, x)
    with torch.no_grad():
        # Scale the correction to the error after relaxation.
        remaining, found = fields - relaxed, _correction(network, forces, others)
        remaining, found = ((x * forces_of(x, everything)).sum() for x in (remaining, found))
        network.scale.mul_((remaining / found) ** 0.25)

    def loss(which: Tensor) -> Tensor:
        correction = _correction(network, forces[:, which], [x[:, which] for x in others])
        error = (fields - relaxed)[:, which] - correction
        return (error * forces_of(error, which)).sum(0).sqrt().mean()

    history = fit_samples(network.parameters(), loss, samples, options, generator=generator, comm=comm, log=log)
    return TrainingResult(network, history)


def train(*args: Any, **kwargs: Any) -> TrainingResult[OperatorNetwork]:
    """Deprecated name of `train_preconditioner`."""
    warnings.warn(
        "spon.preconditioning.train is now spon.operators.train_preconditioner", DeprecationWarning, stacklevel=2
    )
    return train_preconditioner(*args, **kwargs)
