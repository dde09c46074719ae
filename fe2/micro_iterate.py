# SPDX-License-Identifier: MIT
"""The iterate of one point of an RVE in Newton's method of `fe2.micro_newton`."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fe2.control import Control

Array = npt.NDArray[np.float64]


def _nothing() -> Array:
    return np.empty(0)


@dataclass(slots=True)
class Point:
    """The iterate of one point, and its results once converged."""

    strain: Array  # (d,)
    w: Array  # (unknowns,) of the fluctuation
    memory: Array  # (memory_size,) of the materials: accepted state, present local unknowns
    iterations: int = 0
    work: float = 0.0
    history: list[float] = field(default_factory=list)  # norms of the residual
    stalled: str = ""  # why it fails to converge
    hopeless: bool = False  # whether sub-steps would fail for the same reason
    converged: bool = False
    unstable: bool = False  # an equilibrium that is no minimum of the energy
    scale: float = 1.0  # norm of the internal forces
    stress_scale: float = 0.0  # norm of the stress, where some is prescribed
    free: Array = field(default_factory=lambda: np.empty((0, 0)))  # (f, d) directions of free strain
    target: Array = field(default_factory=_nothing)  # (f,) stress there
    before: Array = field(default_factory=_nothing)  # (d,) strain where the step begins
    gap: Array = field(default_factory=_nothing)  # (f,) stress − target
    least: tuple[float, float] = (0.0, 0.0)  # of the two scales, those where the step begins
    residual: Array = field(default_factory=_nothing)  # (unknowns,)
    values: Array = field(default_factory=_nothing)  # of the reduced stiffness
    coupling: Array = field(default_factory=_nothing)  # (d, unknowns), (TᵀKA)ᵀ
    coupled: Array = field(default_factory=_nothing)  # (d, unknowns), (TᵀKᵀA)ᵀ
    affine: Array = field(default_factory=_nothing)  # (d, d), AᵀKA
    slope: Array = field(default_factory=_nothing)  # (d, unknowns), X = −dw/dE, of points solved by themselves
    held: Array | None = None  # see `fe2.held_pressures`
    updated: Array = field(default_factory=_nothing)  # (memory_size,) at the end of the step
    stress: Array = field(default_factory=_nothing)
    tangent: Array = field(default_factory=_nothing)
    energy: float = np.nan

    def stall(self, why: str, *, hopeless: bool = False) -> None:
        """Give up, for a reason."""
        self.converged, self.hopeless = False, hopeless
        self.stalled = f"{why} (residuals {', '.join(f'{h:.2e}' for h in self.history[-8:])})"

    @property
    def relative_residual(self) -> float:
        """The norm of the residual relative to that of the internal forces, or that of the stress if it is larger."""
        forces = float(np.linalg.norm(self.residual)) / self.scale if self.scale else 0.0
        return max(forces, float(np.linalg.norm(self.gap)) / self.stress_scale) if self.stress_scale else forces

    def prescribe(self, control: Control) -> None:
        """Prescribe strains and stresses for the next solution."""
        self.free, self.target = control.free, control.target
        self.before, self.strain = self.strain, control.strain_from(self.strain)
