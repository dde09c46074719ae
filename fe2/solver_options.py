# SPDX-License-Identifier: MIT
"""How RVE problems are solved."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SolverOptions:
    """How RVE problems are solved.

    Args:
        tolerance: of the equilibrium, relative to the norm of the internal forces, and of prescribed stresses, relative
            to that of the stress.
        max_iterations: Newton iterations before the strain is approached in sub-steps.
        max_substeps: the most sub-steps from the last accepted strain.
        options_prefix: of the PETSc options of the linear solver; for points by themselves `direct_` comes after it.
        buckling: at finite strain, where equilibria need not be stable: "report" those that are no minimum of the
            energy (`Homogenised.unstable`), by a factorisation for each point, with which its tangent is solved;
            "follow" the energy down to a minimum from there; or "unchecked", where, as at small strain, only points
            that were solved by themselves are reported.

    Raises:
        ValueError: another value of `buckling`.
    """

    tolerance: float = 1e-11
    max_iterations: int = 25
    max_substeps: int = 16
    options_prefix: str = "micro_"
    buckling: str = "report"

    def __post_init__(self):
        if self.buckling not in ("report", "follow", "unchecked"):
            raise ValueError(f"buckling = {self.buckling!r}: need 'report', 'follow' or 'unchecked'")
