# SPDX-License-Identifier: MIT
"""Laws backed by a trained model, with another law where the model was not trained; `coupling.certified` has the law
that asks the model's certificate.

A point that changes from the model to the exact law changes its stress by the model's error, from one Newton iteration
to the next. If points went to and fro, Newton's method would chase a law that is never twice the same. So a point that
was exact once stays exact until the step is accepted or given up: each point changes at most once per step, and from
some iteration on the law is fixed, smooth, and Newton's method as fast as ever.

The rule lives in the state rows, so that it survives a checkpoint and a step that is rolled back: a row ends with the
number of exact solutions of its point so far, and the point was exact in this step if the number of the last evaluation
is above that of the accepted state.
"""

import copy
import warnings
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from mpi4py import MPI

from coupling.micro_fields import micro_fields
from coupling.placement import Placement, SharedBatch
from fe2 import RVE, Law, MicroFields, Response, StepFailed, arguments, raise_on_all_ranks
from fe2.fingerprints import fingerprint
from spon import EquiNO, Model
from spon.equino.evaluate.evaluator import Evaluator

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class OutsideRange(StepFailed):
    """A strain outside of what a model was trained for.

    It is a `fe2.StepFailed`, so that `fe2.MacroProblem` tries a smaller step: Newton's method may have overshot.
    """


class OutsideRangeWarning(UserWarning):
    """Strains outside of what a model was trained for."""


class Range:
    """The box of strains that a model was trained for: lower and upper (d,)."""

    def __init__(self, model: Model):
        self.lower, self.upper = (x.detach().cpu().numpy().astype(np.float64) for x in (model.lower, model.upper))

    def outside(self, strain: Array) -> Mask:
        """Which strains (n, d) are not in it."""
        return ~((strain >= self.lower) & (strain <= self.upper)).all(axis=1)

    def describe(self, strain: Array) -> str:
        """The component that is farthest outside, in units of the range's width."""
        beyond = np.maximum(self.lower - strain, strain - self.upper) / (self.upper - self.lower)
        point, k = np.unravel_index(int(beyond.argmax()), beyond.shape)
        count = int(self.outside(strain).sum())
        return (
            f"{count} of {len(strain)} strains on this rank are outside of the trained range; farthest is component "
            f"{k} of point {point}, {strain[point, k]:.9g}, need {self.lower[k]:.9g} to {self.upper[k]:.9g}"
        )


def require_same_cell(model: Model, law: Law) -> bool:
    """Raise ValueError if an exact law is not that of the cell that a model was learned from, as far as both are known.

    Returns whether they are. A law that is a formula, or someone's own without an `rve`, names no cell, and a model of
    one's own may name none.
    """
    if getattr(law, "own_rves", False):
        raise ValueError(f"{type(law).__name__} has another cell at each point, the model is that of one")
    rve = getattr(law, "rve", None)
    if rve is None or model.fingerprint is None:
        return False
    model.require(fingerprint(rve))
    return True


class ExactPart:
    """The exact law for some of the points; a row is that of the law and the number of exact solutions so far."""

    def __init__(self, law: Law, strain_size: int):
        if law.strain_size != strain_size:
            raise ValueError(f"the model takes strains of {strain_size} components, the exact law {law.strain_size}")
        rve = getattr(law, "rve", None)
        for material in rve.body.materials.values() if rve is not None else ():
            if material.state_size:
                raise ValueError(f"{type(material).__name__} has state, which a model of the strain alone cannot have")
        self.law, self.state_size = law, law.state_size + 1

    def initial_state(self, n: int) -> Array:
        return np.hstack([self.law.initial_state(n), np.zeros((n, 1))])

    def since_accepted(self, state: Array, guess: Array) -> Mask:
        """Which points were exact in this step already."""
        return guess[:, -1] > state[:, -1]

    def micro_fields(self, strain: Array, state: Array) -> MicroFields | None:
        """The fields of the exact solution, if one of a row (state_size,) was at this strain."""
        own = getattr(self.law, "micro_fields", None)
        # A row of an RVE begins with the strain that was solved for last, behind the number of the cell if it has one.
        first = int(getattr(self.law, "own_rves", False))
        if own is None or not np.allclose(state[first : first + strain.size], strain, rtol=1e-12, atol=0.0):
            return None
        return own(strain, state[:-1])

    def replace(self, here: Mask, strain: Array, state: Array, guess: Array, out: Response, comm: MPI.Comm) -> None:
        """Put the exact response of the points `here` into `out` (collective, also where there are none).

        The rows of the others stay what they were: the start of their next exact solution.
        """
        solved = self.law.evaluate(strain[here], state[here, :-1], guess[here, :-1], comm)
        out.stress[here], out.tangent[here] = solved.stress, solved.tangent
        out.state[here] = np.hstack([solved.state, guess[here, -1:] + 1])


def _with_fields(model: Model | None) -> EquiNO:
    if not isinstance(model, EquiNO):
        raise ValueError(f"a {type(model).__name__} has no fields of the cell to show: need a spon.EquiNO")
    return model


class SurrogateLaw:
    """Stress and tangent of a trained model, for all points of a rank in batches.

    Args:
        model: e.g. `spon.EquiNO`. A copy of it is used.
        device: where the copy is evaluated; or what `coupling.assign_devices` found for this rank, which may
            be a device that several ranks share, see there; these then make the law together.
        dtype, tangent_dtype, chunk: see `spon.Evaluator`.
        compiled: whether a `spon.EquiNO` is evaluated as machine code on a CPU, and by a kernel of its own on a GPU,
            which are faster than torch and differ from it by rounding. The one needs a C compiler (cc, or what $CC
            names), which DOLFINx needs too, the other Triton; where they are not, torch does it.
        outside: for strains outside of the trained range: "error", "warn" (on rank 0, once per evaluation), or a law
            that takes these points, such as `fe2.ExactLaw(rve)` of the model's cell, or a formula that the user answers
            for; see the module for when a point goes back.
        rve: of the model's cell, to look into points with a model that was read with it (`whole=True`); None for that
            of the law for the outside, if it has one.

    Attributes:
        strain_size: d. state_size: 0, or that of the law for the outside and 1.
        is_outside: (n,) which of this rank's points were outside in the last evaluation.
        is_exact: (n,) which of them had the exact law.
        outside: what is done with them. way: how the model is evaluated, "machine code", "fused kernel" or "torch".

    Raises:
        ValueError: another `outside`, a chunk below 1, laws of different strains, or an RVE that is not that of the
        model, here or in `outside`.
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
        if isinstance(outside, str) and outside not in ("error", "warn"):
            raise ValueError(f"outside = {outside!r}: need 'error', 'warn' or a law")
        self.range = Range(model)
        self.strain_size = self.range.lower.size
        self._exact = None
        if not isinstance(outside, str):
            self._exact = ExactPart(outside, self.strain_size)
            require_same_cell(model, outside)
        if rve is None:
            rve = getattr(outside, "rve", None)
        else:
            model.require(fingerprint(rve))
        self.outside = outside
        self._rve, self._model = rve, None if rve is None else copy.deepcopy(model).to("cpu", torch.float64)
        placement = device if isinstance(device, Placement) else Placement(torch.device(device), MPI.COMM_SELF)
        # Whoever does not own a GPU does not touch it.
        here = placement.device if placement.owner else "cpu"
        compiled = compiled and torch.device(here).type == placement.device.type
        with raise_on_all_ranks(placement.group):
            evaluator = Evaluator(model, here, dtype, tangent_dtype=tangent_dtype, chunk=chunk, compiled=compiled)
        self._predict = SharedBatch(placement, evaluator.fill, self.strain_size)
        self.way = placement.group.bcast(evaluator.way)
        self.state_size = 0 if self._exact is None else self._exact.state_size
        self.is_outside = self.is_exact = np.zeros(0, dtype=bool)

    def initial_state(self, n: int) -> Array:
        """State rows (n, state_size) of undeformed points."""
        return np.zeros((n, 0)) if self._exact is None else self._exact.initial_state(n)

    def count_outside(self, comm: MPI.Comm = MPI.COMM_SELF) -> int:
        """Points that were outside in the last evaluation, of all ranks of `comm` (collective)."""
        return int(comm.allreduce(int(self.is_outside.sum())))

    def evaluate(self, strain: Array, state: Array, guess: Array, comm: MPI.Comm = MPI.COMM_SELF) -> Response:
        """See `fe2.Law.evaluate`.

        Raises:
            ValueError: see there. OutsideRange: on all ranks, if `outside` is "error"; names the worst strain. What the
            law for the outside raises.
        """
        with raise_on_all_ranks(comm):
            strain, state, guess = arguments.rows(self, strain, state, guess)
            self.is_outside = self.range.outside(strain)
            self.is_exact = np.zeros(len(strain), dtype=bool)
            if self.outside == "error" and self.is_outside.any():
                raise OutsideRange(self.range.describe(strain))
        out = Response(*self._predict(strain, comm), guess.copy())
        if self.outside == "warn":
            found = comm.gather(self.range.describe(strain) if self.is_outside.any() else None)
            shown = [f"rank {rank}: {text}" for rank, text in enumerate(found or ()) if text]
            if shown:
                warnings.warn("; ".join(shown), OutsideRangeWarning, stacklevel=2)
        if self._exact is not None:
            self.is_exact = self.is_outside | self._exact.since_accepted(state, guess)
            self._exact.replace(self.is_exact, strain, state, guess, out, comm)
        return out

    def micro_fields(self, strain: Array, state: Array) -> MicroFields:
        """The fields at a strain (d,): of the exact law if it was asked there, else of the model.

        Raises:
            TypeError: no RVE. ValueError: a model that was loaded without its RVE modes, or another kind of model.
        """
        if self._rve is None:
            raise TypeError(
                "a model has no mesh to show fields on: SurrogateLaw(model, rve=rve) with the RVE of its cell, the "
                "model read by spon.load(path, whole=True)"
            )
        exact = None if self._exact is None else self._exact.micro_fields(strain, state)
        return micro_fields(self._rve, _with_fields(self._model), strain) if exact is None else exact

    def destroy(self) -> None:
        """Free the memory that ranks on one device share (collective)."""
        self._predict.destroy()
