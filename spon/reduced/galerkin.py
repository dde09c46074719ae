# SPDX-License-Identifier: MIT
"""The reduced model of an RVE: Galerkin's method in displacement modes, on the points of a cubature.

The strain at a point is E + Σ_j φ_j b_j with the strains φ_j of r periodic modes. Stationarity of the mean energy in b
gives r equations for each macroscale strain, which Newton's method solves for all strains at once. Networks are trained
on its solutions and compared with it.
"""

import os
from dataclasses import dataclass, fields
from itertools import count

import torch
from torch import Tensor

from spon.archive import Reader, unpacks, write
from spon.constitutive.phase_law import LocalLaws
from spon.reduced.model import Fingerprint, LocalFields, Model, fingerprint_from_json, fingerprint_to_json
from spon.reduced.modes import ModesAtPoints

_KIND = "reduced model"
_HALVINGS = 10  # of a step of Newton's method, at most


class ReducedNotConverged(RuntimeError):
    """Reduced equations without convergence at some strains."""


@dataclass(frozen=True, slots=True, eq=False)
class ReducedSolution:
    """The solution in r modes on m points, for n strains.

    Args:
        coefficients: (n, r) of the displacement modes.
        sensitivities: (n, r, d), derivatives of the coefficients by the strain.
        stress: (n, d) homogenised [MPa].
        tangent: (n, d, d) homogenised [MPa].
        strain: (n, m, d) at the points.
        local_stress: (n, m, d) at the points [MPa].
        local_tangent: (n, m, d, d) at the points [MPa].
    """

    coefficients: Tensor
    sensitivities: Tensor
    stress: Tensor
    tangent: Tensor
    strain: Tensor
    local_stress: Tensor
    local_tangent: Tensor


class ReducedModel(Model):
    """Galerkin's method in r modes on m points; a `Model` without parameters to train.

    Args:
        laws: at the points.
        modes: (m, d, r), strains of the displacement modes.
        weights: (m,), the mean of a field over the RVE is Σ_p w_p field_p.
        half_range: (s,), largest coordinates of the snapshots that the modes are from.
        fingerprint: of the RVE; None if unknown.
    """

    modes: Tensor
    weights: Tensor

    def __init__(
        self,
        laws: LocalLaws,
        modes: Tensor,
        weights: Tensor,
        half_range: Tensor,
        fingerprint: Fingerprint | None = None,
    ):
        super().__init__(-half_range, half_range, fingerprint, laws.measure)
        self.laws = laws
        self.register_buffer("modes", modes)
        self.register_buffer("weights", weights)

    def forward(self, strain: Tensor) -> tuple[Tensor, Tensor]:
        """Homogenised stress (n, d) and tangent (n, d, d) [MPa]; raises ReducedNotConverged."""

        def at(coordinates: Tensor) -> tuple[Tensor, Tensor]:
            solution = self.solve(self.measure.strain(coordinates))
            return self.measure.projected(solution.stress, solution.tangent)

        return self.measure.respond(at, strain)

    def fields(self, strain: Tensor, at: ModesAtPoints | None = None) -> LocalFields:
        """Kinematically admissible local strain and the stress of the law there, (n, m, d) both.

        Args:
            strain: (n, d).
            at: points with as many strain modes as the model has; None for the points of the cubature.

        Raises:
            ReducedNotConverged: a strain without solution.
        """
        stretch = self.measure.stretch(strain)
        solution = self.solve(stretch)
        fields = LocalFields(solution.strain, solution.local_stress)
        if at is not None:
            local = at.strain(stretch, solution.coefficients)
            fields = LocalFields(local, at.laws.stress(local))
        return fields.turned(self.measure, strain)

    def solve(self, strain: Tensor, *, tolerance: float = 1e-10, iterations: int = 30) -> ReducedSolution:
        """Solve at strains (n, d), starting from zero coefficients.

        Modes do not turn: at finite strain, strains without rotation are what they are made for.

        Args:
            strain: (n, d).
            tolerance: largest residual, relative to the stress.
            iterations: of Newton's method, at most.

        Raises:
            ReducedNotConverged: a strain without solution; the message names the worst one.
        """
        no_fluctuation = strain.new_zeros(len(strain), self.modes.shape[2])
        solution, residual = self._newton(strain, no_fluctuation, tolerance, iterations)
        if not (residual <= tolerance).all():
            k = int(residual.nan_to_num(torch.inf).argmax())
            raise ReducedNotConverged(
                f"strain {strain[k].tolist()}: the reduced residual is {float(residual[k]):.2e} of the stress after "
                f"{iterations} iterations, need {tolerance:.0e}"
            )
        return solution

    def attempt(
        self, strain: Tensor, start: Tensor, *, tolerance: float = 1e-10, iterations: int = 30
    ) -> ReducedSolution:
        """`solve` from initial coefficients (n, r); rows of strains without solution are NaN."""
        solution, residual = self._newton(strain, start, tolerance, iterations)
        found = residual <= tolerance
        parts = (getattr(solution, field.name) for field in fields(solution))
        return ReducedSolution(*(torch.where(found.view(-1, *[1] * (x.ndim - 1)), x, torch.nan) for x in parts))

    def save(self, path: str | os.PathLike) -> None:
        """Write the model to a file, see `spon.load`."""
        header = {"laws": self.laws.to_json(), "fingerprint": fingerprint_to_json(self.fingerprint)}
        write(path, _KIND, header, self.state_dict())

    def _newton(
        self, strain: Tensor, start: Tensor, tolerance: float, iterations: int
    ) -> tuple[ReducedSolution, Tensor]:
        """The last iterate, and the residuals (n,) relative to the stress."""
        d = self.modes.shape[1]
        modes = torch.cat([torch.eye(d, dtype=strain.dtype).expand(len(self.modes), d, d), self.modes], dim=2)
        flat = (modes * self.weights[:, None, None]).reshape(-1, modes.shape[2])
        unknowns, step = torch.cat([strain, start], dim=1), torch.zeros_like(start)
        last = torch.full_like(strain[:, 0], torch.inf)
        for iteration in count(1):
            # Half the step, again and again, of rows where it has increased the residual or the law has no value.
            for _ in range(_HALVINGS):
                local = torch.einsum("pdr,nr->npd", modes, unknowns)
                stress = self.laws.stress(local)
                forces = stress.reshape(len(strain), -1) @ flat
                size = forces[:, d:].norm(dim=1)
                residual = size / ((stress.square().sum(-1) @ self.weights).sqrt() + 1e-300)
                worse = ~((size <= last) | (residual <= tolerance)) & last.isfinite()
                if not worse.any():
                    break
                step[worse] /= 2
                unknowns[worse, d:] += step[worse]
            last = size
            tangent = self.laws.tangent(local)
            stiffness = self._stiffness(modes, tangent)
            # NaN rows stay NaN and do not block the others.
            if iteration == iterations or not (residual > tolerance).any():
                break
            step = torch.linalg.solve_ex(stiffness[:, d:, d:], forces[:, d:])[0]
            unknowns[:, d:] -= step
        sensitivities = -torch.linalg.solve_ex(stiffness[:, d:, d:], stiffness[:, d:, :d])[0]
        condensed = stiffness[:, :d, :d] + stiffness[:, :d, d:] @ sensitivities
        solution = ReducedSolution(unknowns[:, d:], sensitivities, forces[:, :d], condensed, local, stress, tangent)
        return solution, residual

    def _stiffness(self, modes: Tensor, tangent: Tensor) -> Tensor:
        """Σ_p w_p Φᵀ C Φ, (n, d + r, d + r)."""
        weighted = (tangent * self.weights[:, None, None]) @ modes
        s = modes.shape[2]
        return torch.einsum("qs,nqt->nst", modes.reshape(-1, s), weighted.reshape(len(tangent), -1, s))


@unpacks(_KIND)
def load_reduced_model(file: Reader, *, whole: bool = False) -> ReducedModel:
    """The reduced model of a file.

    Args:
        file: an open file; callers give its path.
        whole: as for all models; a reduced model has only the points of its cubature.

    Raises:
        FileNotFoundError: the file does not exist.
        ModelFileError: the file is damaged or holds another kind of object.
    """
    state = file.tensors("")
    laws, fingerprint = LocalLaws.from_json(file.header["laws"]), fingerprint_from_json(file.header)
    model = ReducedModel(laws, state["modes"], state["weights"], state["upper"], fingerprint)
    model.load_state_dict(state)
    return model
