# SPDX-License-Identifier: MIT
"""Laws backed by a trained model: alone, or with the exact law where the model's certificate does not suffice.

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

from coupling.placement import Placement, SharedBatch
from fe2 import Law, Response, StepFailed, together
from fe2.snapshots import fingerprint
from spon import EquiNO, Fields, Model, certify
from spon.certificate import energy_at_rest
from spon.compiled import compiled_potential
from spon.convex import largest_tangent

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Points of a cell whose certificates are computed at a time: some MB, so that the cache holds them.
_LOCAL_POINTS = 2**15


class OutsideRange(StepFailed):
    """A strain outside of what a model was trained for.

    It is a `fe2.StepFailed`, so that `fe2.MacroProblem` tries a smaller step: Newton's method may have overshot.
    """


class OutsideRangeWarning(UserWarning):
    """Strains outside of what a model was trained for."""


class _Range:
    """The box of strains that a model was trained for: lower and upper (d,)."""

    def __init__(self, model: Model):
        self.lower, self.upper = (x.detach().cpu().numpy().astype(np.float64) for x in (model.lower, model.upper))

    def outside(self, strain: Array) -> Mask:
        """Which strains (n, d) are not in it; NaN is not."""
        if strain.ndim != 2 or strain.shape[1] != self.lower.size:
            raise ValueError(f"strains have the shape {strain.shape}, the model takes (n, {self.lower.size})")
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


class _Predictor:
    """A copy of a model on a device, which fills NumPy arrays; on the CPU as machine code, if `compiled` and it can."""

    def __init__(self, model: Model, device: str | torch.device, dtype: torch.dtype, chunk: int, compiled: bool = True):
        if chunk < 1:
            raise ValueError(f"chunk = {chunk}: need at least 1 point")
        self.device, self.dtype, self.chunk = torch.device(device), dtype, chunk
        self.model = copy.deepcopy(model).to(self.device, dtype).requires_grad_(False).eval()
        # What another class makes of its potential is not known here.
        known = type(model).forward is EquiNO.forward and compiled and self.device.type == "cpu"
        self.compiled = compiled_potential(model.potential if known else None, dtype)

    def __call__(self, strain: Array) -> tuple[Array, Array]:
        """Stress (n, d) and tangent (n, d, d) at strains (n, d)."""
        stress, tangent = np.empty_like(strain), np.empty((*strain.shape, strain.shape[1]))
        self.fill(strain, stress, tangent)
        return stress, tangent

    def fill(self, strain: Array, stress: Array, tangent: Array) -> None:
        """Write stress (n, d) and tangent (n, d, d) at strains (n, d)."""
        if self.compiled is not None:
            real = self.compiled.dtype
            own = [np.ascontiguousarray(strain, real)]
            own += [a if a.dtype == real else np.empty(a.shape, real) for a in (stress, tangent)]
            self.compiled(*own)
            if own[1] is not stress:
                stress[:], tangent[:] = own[1:]
            return
        given, *wanted = (torch.from_numpy(a) for a in (np.ascontiguousarray(strain), stress, tangent))
        with torch.no_grad():
            for first in range(0, len(strain), self.chunk):
                part = slice(first, first + self.chunk)
                for out, values in zip(wanted, self.model(given[part].to(self.device, self.dtype)), strict=True):
                    out[part].copy_(values)


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

    def replace(self, here: Mask, strain: Array, state: Array, guess: Array, out: Response, comm: MPI.Comm) -> None:
        """Put the exact response of the points `here` into `out` (collective, also where there are none).

        The rows of the others stay what they were: the start of their next exact solution.
        """
        solved = self.law.evaluate(strain[here], state[here, :-1], guess[here, :-1], comm)
        out.stress[here], out.tangent[here] = solved.stress, solved.tangent
        out.state[here] = np.hstack([solved.state, guess[here, -1:] + 1])


def _modes(model: EquiNO, law: Law) -> Array | None:
    """Displacement modes (unknowns, r) as fluctuations of the law's RVE; None for a law or a model without its cell."""
    rve, cell = getattr(law, "rve", None), getattr(model, "_cell", None)
    if rve is None or cell is None:
        return None
    if cell.fingerprint != fingerprint(rve):
        raise ValueError("the model's RVE is not that of the exact law (mesh, materials, boundary or degree differ)")
    unknowns, dofs = np.unique(rve.unknowns.index, return_index=True)
    return np.ascontiguousarray(cell.displacements[dofs[unknowns >= 0]])


class SurrogateLaw:
    """Stress and tangent of a trained model, for all points of a rank in batches.

    Args:
        model: e.g. `spon.EquiNO`. A copy of it is used.
        device: where the copy is evaluated; or what `coupling.place` found for this rank, which may be a device that
            several ranks share, see there. dtype: in which precision; results are float64 in any case.
        chunk: points that torch evaluates at a time; some thousand are right for the cache of a CPU, more for a GPU.
        compiled: on a CPU, whether a model with a potential is evaluated as machine code, which is three times as fast
            as torch and differs from it by rounding. It needs a C compiler (cc, or what $CC names), which DOLFINx needs
            too; where there is none, torch does it.
        outside: for strains outside of the trained range: "error", "warn" (on rank 0, once per evaluation), or a law
            that takes these points, such as `fe2.ExactLaw(rve)`; see the module for when a point goes back.

    Attributes:
        strain_size: d. state_size: 0, or that of the law for the outside and 1.
        is_outside: (n,) which of this rank's points were outside in the last evaluation.
        is_exact: (n,) which of them had the exact law.
        outside: what is done with them. is_compiled: whether the model is machine code.

    Raises:
        ValueError: another `outside`, a chunk below 1, or laws of different strains.
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str | torch.device | Placement = "cpu",
        dtype: torch.dtype = torch.float64,
        chunk: int = 1024,
        compiled: bool = True,
        outside: Literal["error", "warn"] | Law = "error",
    ):
        if isinstance(outside, str) and outside not in ("error", "warn"):
            raise ValueError(f"outside = {outside!r}: need 'error', 'warn' or a law")
        self.range = _Range(model)
        self.strain_size = self.range.lower.size
        self.outside = outside
        placement = device if isinstance(device, Placement) else Placement(torch.device(device), MPI.COMM_SELF)
        # Whoever does not own a GPU does not touch it.
        here = placement.device if placement.owner else "cpu"
        predictor = _Predictor(model, here, dtype, chunk, compiled and placement.device.type == "cpu")
        self._predict = SharedBatch(placement, predictor.fill, self.strain_size)
        self.is_compiled = predictor.compiled is not None
        self._exact = None if isinstance(outside, str) else ExactPart(outside, self.strain_size)
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
            OutsideRange: on all ranks, if `outside` is "error"; names the worst strain. What the law for the outside
            raises.
        """
        with together(comm):
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

    def destroy(self) -> None:
        """Free the memory that ranks on one device share (collective)."""
        self._predict.destroy()


class CertifiedLaw:
    """A trained model where its certificate is good enough, the exact law elsewhere.

    The certificate bounds the energy from both sides, see `spon.certify`. A point keeps the model's response if it is
    inside of the trained range and

        |gap| ≤ tolerance (upper + floor² energy of the softest strain that spans the trained range),

    the second term because a model's error does not fade as fast as the strain: at rest all of it would be relative to
    nothing, and points that carry next to nothing would cost most. It is the softest strain, a shear most often, since
    the energy of a dilatation would hide all error of a shear, and its energy is that of a cell of uniform stress
    (Reuss), below that of the cell whatever the networks say. Energies are from rest, and quadratic in errors, so that
    the relative error of the stress is of the order of √tolerance, and at most points far below. A gap below zero is
    rounding.

    A point that was exact once stays so until the step is accepted or given up; see the module.

    With a model that was read with its cell, `spon.load(path, whole=True)`, exact solutions start from the fluctuation
    that it predicts, which saves about one Newton iteration of each.

    Args:
        model: of the cell; a copy of it is used, on the CPU in double precision.
        exact: law of the same cell, e.g. `fe2.ExactLaw(rve)`, which spreads its points over the ranks by their cost.
        tolerance: of gap over energy. floor: strains to which it is not relative any more, as a fraction of the range.
        at: fields at all points of the cell, e.g. `model.cell.fields`: the certificate is a bound then. None
            takes the model's cubature: an estimate, and far cheaper.
        chunk: points of the structure in one evaluation of the model.

    Attributes:
        strain_size: d. state_size: that of the exact law and 1.
        is_exact: (n,) which of this rank's points were exact in the last evaluation, for pictures too.
        is_outside: (n,) which of them were outside of the trained range.
        gap: (n,) |gap| over those energies, what the tolerance is compared with. floor_energy: the second term [MPa].

    Raises:
        ValueError: a tolerance or floor that is negative or NaN; laws of different strains, with state, without
        energy or of one that is not convex; a model that was read with a cell that is not that of `exact`.
        TypeError: a model that is no `spon.EquiNO`, and has no certificate.
    """

    def __init__(
        self,
        model: EquiNO,
        exact: Law,
        *,
        tolerance: float = 1e-3,
        floor: float = 0.1,
        at: Fields | None = None,
        chunk: int = 1024,
    ):
        for name, value in (("tolerance", tolerance), ("floor", floor)):
            if not value >= 0:
                raise ValueError(f"{name} = {value}: need a number that is not negative")
        if not isinstance(model, EquiNO):
            raise TypeError(f"the model is a {type(model).__name__}: need a spon.EquiNO, others have no certificate")
        self.tolerance = tolerance
        self.range = _Range(model)
        self.strain_size = self.range.lower.size
        self._predict = _Predictor(model, "cpu", torch.float64, chunk)
        self._at = self._predict.model.cubature if at is None else at
        for law in self._at.laws.laws:
            if law.energy_program is None:
                raise ValueError(f"{law.name} has no energy, and there is no certificate without")
            largest_tangent(law)  # which refuses an energy that is not convex
        self._exact = ExactPart(exact, self.strain_size)
        self.state_size = self._exact.state_size
        self._modes = _modes(model, exact)
        corner = torch.from_numpy(np.maximum(abs(self.range.lower), abs(self.range.upper)))
        softest = torch.linalg.eigvalsh(corner[:, None] * _reuss(self._at) * corner)[0] / 2
        # A rounding above zero, so that nothing is divided by nothing.
        self.floor_energy = max(floor, 1e-6) ** 2 * float(softest)
        self._rest = float(energy_at_rest(self._at))
        self.is_exact = self.is_outside = np.zeros(0, dtype=bool)
        self.gap = np.zeros(0)
        self._evaluations = self._points = self._solved = 0
        self._collected: dict[tuple[int, ...], Array] = {}

    def initial_state(self, n: int) -> Array:
        """State rows (n, state_size) of undeformed points."""
        return self._exact.initial_state(n)

    def evaluate(self, strain: Array, state: Array, guess: Array, comm: MPI.Comm = MPI.COMM_SELF) -> Response:
        """See `fe2.Law.evaluate`; raises what the exact law raises."""
        with together(comm):
            self.is_outside = self.range.outside(strain)
            self.gap = self.gaps(strain)
            # Written so that NaN is not good enough.
            certified = ~self.is_outside & (self.gap <= self.tolerance)
            self.is_exact = ~certified | self._exact.since_accepted(state, guess)
            out, start = Response(*self._predict(strain), guess.copy()), self._moved(strain, guess)
        self._exact.replace(self.is_exact, strain, state, start, out, comm)
        self._evaluations += 1
        self._points += len(strain)
        self._solved += int(self.is_exact.sum())
        self._collect(strain[self.is_exact])
        return out

    def _moved(self, strain: Array, guess: Array) -> Array:
        """`guess` with the fluctuations of the points to solve moved from their last strain as the model moves its."""
        if self._modes is None:
            return guess
        moved, (size, _) = guess.copy(), self._modes.shape
        last = guess[self.is_exact, : self.strain_size]
        with torch.no_grad():
            now, then = (self._predict.model.displacement(torch.from_numpy(e)) for e in (strain[self.is_exact], last))
        moved[self.is_exact, self.strain_size : self.strain_size + size] += (now - then).numpy() @ self._modes.T
        return moved

    def gaps(self, strain: Array) -> Array:
        """What is compared with the tolerance (n,), at strains (n, d)."""
        chunk = max(1, _LOCAL_POINTS // len(self._at.weights))
        found = np.empty(len(strain))
        with torch.no_grad():
            for first in range(0, len(strain), chunk):
                part = slice(first, first + chunk)
                c = certify(self._predict.model, torch.from_numpy(np.ascontiguousarray(strain[part])), self._at)
                found[part] = (c.gap.abs() / (c.upper - self._rest + self.floor_energy)).numpy()
        return found

    def summary(self, comm: MPI.Comm = MPI.COMM_SELF) -> str:
        """One line on all evaluations so far, of all ranks of `comm` (collective)."""
        mine = (self._points, self._solved, self.is_exact.size, int(self.is_exact.sum()), int(self.is_outside.sum()))
        points, solved, last, exact, outside = np.sum(comm.allgather(mine), axis=0).tolist()
        return (
            f"tolerance {self.tolerance:.1e}: {solved} of {points} points exact in {self._evaluations} evaluations, "
            f"{exact} of {last} in the last ({outside} outside of the trained range)"
        )

    # Strains that the model should have known.

    def _collect(self, strain: Array) -> None:
        """Keep the largest strain of each box, so that the choice does not depend on the order of points."""
        boxes = np.round(strain / (0.05 * (self.range.upper - self.range.lower))).astype(np.int64)
        for row, value in zip(boxes.tolist(), strain, strict=True):
            box = tuple(row)
            known = self._collected.get(box)
            if known is None or _larger(value, known):
                self._collected[box] = value.copy()

    def collected(self, comm: MPI.Comm = MPI.COMM_SELF) -> Array:
        """Strains (k, d) that were solved exactly, from all ranks of `comm` and the same on all (collective).

        Of the many of all iterations there is one for each box of a twentieth of the trained range, the largest in it;
        they are what to solve next: `fe2.sample.snapshots(rve, law.collected(comm), path, comm, append=True)`.
        """
        found: dict[tuple[int, ...], Array] = {}
        for part in comm.allgather(self._collected):
            for box, value in part.items():
                if box not in found or _larger(value, found[box]):
                    found[box] = value
        return np.array([found[box] for box in sorted(found)]).reshape(-1, self.strain_size)


def _reuss(at: Fields) -> torch.Tensor:
    """Stiffness (d, d) [MPa] at rest of the phases under one stress."""
    rest = at.weights.new_zeros(1, at.laws.strain_size)
    shares = (w.sum() for w in at.weights.split(list(at.laws.counts)))
    return torch.linalg.inv(
        sum(share * torch.linalg.inv(law.tangent(rest)[0]) for law, share in zip(at.laws.laws, shares, strict=True))
    )


def _larger(a: Array, b: Array) -> bool:
    """By norm, and by components where the norms are equal."""
    return (float(a @ a), *map(float, a)) > (float(b @ b), *map(float, b))
