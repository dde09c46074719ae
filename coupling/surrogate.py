# SPDX-License-Identifier: MIT
"""The surrogate law: a trained model for all points; outside its range an error, a warning or another law."""

import copy
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from mpi4py import MPI

from coupling.fallback import Fallback
from coupling.model_fields import micro_fields
from coupling.placement import Placement
from coupling.same_rve import has_same_rve
from coupling.shared_evaluator import SharedEvaluator
from coupling.trained_range import TrainedRange
from fe2 import RVE, Law, MicroFields, Response, StateLayout, arguments, raise_on_all_ranks
from fe2.fingerprints import fingerprint
from fe2.measure import measure_named
from spon import EquiNO, Model

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class SurrogateLaw:
    """Stress and tangent of a trained model, for all points of a rank in one batch.

    Args:
        model: e.g. `spon.EquiNO`. A copy of it is used.
        device: on which the copy is evaluated, "cpu" or a GPU, which is experimental, see
            `spon.equino.evaluate.ExperimentalWarning`; or the result of `coupling.assign_devices`. If ranks share a
            device, all of them construct and evaluate the law.
        dtype: precision of the evaluation, see `spon.Evaluator`.
        tangent_dtype: precision of the tangent, see `spon.Evaluator`.
        chunk: points that are evaluated at a time, see `spon.Evaluator`.
        compiled: whether a `spon.EquiNO` is evaluated as machine code on a CPU, and by a fused kernel on a GPU, which
            are faster than torch and differ from it by rounding. Machine code needs a C compiler (cc, or $CC), as does
            DOLFINx, and the kernel Triton; without them the model is evaluated by torch.
        outside: for strains outside the trained range: "error", "warn" (on rank 0, once per evaluation), or a law
            for these points, such as `fe2.ExactLaw(rve)` of the model's RVE, or a formula of the user's choice; see
            `coupling.fallback` for when a point returns to the model.
        rve: of the model, for micro fields by a model that was loaded with its modes (`whole=True`); None for that of
            the law `outside`, if it has one.

    Attributes:
        measure: of the strain, see `fe2.measure`.
        strain_size: d.
        layout: of a state row, empty, or "law" and "solutions" as in `coupling.fallback`.
        state_size: of the layout.
        range: the trained range, `lower` and `upper` (d,), at finite strain of the Mandel components of U − I.
        outside: the argument.
        is_outside: (n,) whether this rank's points were outside the range in the last evaluation.
        is_exact: (n,) whether they were evaluated by the law `outside`.

    Raises:
        ValueError: another `outside`, a chunk below 1, laws of different strains, or an RVE that is not that of the
            model, here or in `outside`; on all ranks that share a device.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str | torch.device | Placement = "cpu",
        dtype: torch.dtype = torch.float64,
        tangent_dtype: torch.dtype | None = None,
        chunk: int | None = None,
        compiled: bool = True,
        outside: Literal["error", "warn"] | Law = "error",
        rve: RVE | None = None,
    ):
        placement = Placement.of(device)
        with raise_on_all_ranks(placement.group):
            self.outside, self.range, self.strain_size = outside, TrainedRange.of(model), model.strain_size
            self.measure = measure_named(model.measure.name)
            self._fallback = self._fallback_for(model)
            if rve is not None:
                model.require(fingerprint(rve))
            elif self._fallback is not None:
                rve = self._fallback.rve
            self._rve, self._model = rve, None if rve is None else copy.deepcopy(model).to("cpu", torch.float64)
        self.layout = StateLayout() if self._fallback is None else self._fallback.layout
        self.state_size = self.layout.size
        self._predict = SharedEvaluator(
            model, placement, dtype=dtype, tangent_dtype=tangent_dtype, chunk=chunk, compiled=compiled
        )
        self.is_outside: Mask = np.zeros(0, dtype=bool)
        self.is_exact: Mask = np.zeros(0, dtype=bool)

    @property
    def way(self) -> str:
        """How the model is evaluated, "machine code", "fused kernel" or "torch"."""
        return self._predict.way

    def _fallback_for(self, model: Model) -> Fallback | None:
        if not isinstance(self.outside, str):
            fallback = Fallback(self.outside, self.strain_size, measure=model.measure.name)
            has_same_rve(model, self.outside)
            return fallback
        if self.outside not in ("error", "warn"):
            raise ValueError(f"outside = {self.outside!r}: need 'error', 'warn' or a law")
        return None

    def initial_state(self, n: int) -> Array:
        """State rows (n, state_size) of undeformed points."""
        return np.zeros((n, 0)) if self._fallback is None else self._fallback.initial_state(n)

    def evaluate(self, strain: Array, state: Array, guess: Array, comm: MPI.Intracomm = MPI.COMM_SELF) -> Response:
        """See `fe2.Law.evaluate`.

        Raises:
            ValueError: see `fe2.Law.evaluate`.
            OutsideRange: on all ranks, if `outside` is "error"; names the worst strain.
            Exception: any error of the law `outside`.
        """
        with raise_on_all_ranks(comm):
            arguments.check_rows(self, strain, state, guess)
            strain = np.asarray(strain, dtype=np.float64)
            self.is_outside = self.range.outside(strain)
            self.is_exact = np.zeros(len(strain), dtype=bool)
            if self.outside == "error":
                self.range.require(strain)
        if self.outside == "warn":
            self.range.warn(strain, comm)
        out = Response(*self._predict(strain, comm), guess.copy())
        if self._fallback is not None:
            self.is_exact = self.is_outside | self._fallback.has_solved(state, guess)
            self._fallback.solve(self.is_exact, strain, state, guess, out, comm)
        return out

    def count_outside(self, comm: MPI.Comm = MPI.COMM_SELF) -> int:
        """Points outside the range in the last evaluation, on all ranks of `comm` (collective)."""
        return int(comm.allreduce(int(self.is_outside.sum())))

    def micro_fields(self, strain: Array, state: Array) -> MicroFields:
        """The fields at a strain (d,): of the law `outside` if it has solved the point, else of the model.

        Raises:
            TypeError: no RVE.
            ValueError: a model that was loaded without its modes, or another kind of model.
        """
        if self._rve is None:
            raise TypeError(
                "the law has no mesh for the fields: SurrogateLaw(model, rve=rve) with its RVE, and the model of "
                "spon.load(path, whole=True)"
            )
        exact = None if self._fallback is None else self._fallback.micro_fields(strain, state)
        if exact is not None:
            return exact
        if not isinstance(self._model, EquiNO):
            raise ValueError(f"a {type(self._model).__name__} has no fields of the RVE: need a spon.EquiNO")
        return micro_fields(self._rve, self._model, strain)

    def destroy(self) -> None:
        """Free the memory that ranks on one device share (collective)."""
        self._predict.destroy()
