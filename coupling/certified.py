# SPDX-License-Identifier: MIT
"""The certified law: a model, its modes, or the exact law, whichever is the first whose certificate is good enough."""

import numpy as np
import numpy.typing as npt
import torch
from mpi4py import MPI

from coupling.laws import ExactPart, Range, require_same_cell
from coupling.micro_fields import micro_fields, refined_fields
from fe2 import Law, MicroFields, Response, arguments, raise_on_all_ranks
from spon import EquiNO, Evaluator, ModesAtPoints, certify
from spon.constitutive.duality import largest_tangent
from spon.equino.certificate import energy_at_zero_strain
from spon.equino.corrector import ModalCorrector

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Points of a cell whose certificates are computed at a time: some MB, so that the cache holds them.
_LOCAL_POINTS = 2**16


class CertifiedLaw:
    """A trained model where its certificate is good enough, its modes where theirs is, the exact law elsewhere.

    The certificate bounds the energy from both sides, see `spon.certify`. A point keeps the model's response if it is
    inside of the trained range and

        |gap| ≤ tolerance (upper + floor² energy of the softest strain that spans the trained range),

    the second term because a model's error does not fade as fast as the strain: at rest all of it would be relative to
    nothing, and points that carry next to nothing would cost most. It is the softest strain, a shear most often, since
    the energy of a dilatation would hide all error of a shear, and its energy is that of a cell of uniform stress
    (Reuss), below that of the cell whatever the networks say. Energies are from rest, and quadratic in errors, so that
    the relative error of the stress is of the order of √tolerance, and at most points far below. A gap below zero is
    rounding.

    Other points are solved in the modes of the model, without its networks (`spon.ModalCorrector`), and keep
    that response if its gap obeys the same rule. It does not matter whether they are in the trained range: the fields
    are admissible everywhere, and only what modes can say is limited. What is left goes to the exact law.

    A point that has climbed stays at least there until the step is accepted or given up, as `coupling.laws` says of
    exact ones. A state row begins with the number of evaluations of its point that were above the model.

    With a model that was read with its cell, `spon.load(path, whole=True)`, exact solutions start from the fluctuation
    that it predicts, which saves about one Newton iteration of each.

    Args:
        model: of the cell; a copy of it is used, on the CPU in double precision.
        exact: law of the same cell, e.g. `fe2.ExactLaw(rve)`, which spreads its points over the ranks by their cost. A
            law without an `rve` names no cell; it is asked at some strains, and its stress has to be within the bounds.
        tolerance: of gap over energy. floor: strains to which it is not relative any more, as a fraction of the range.
        at: fields at all points of the cell, e.g. `model.rve_modes.at_points`: the certificate is a bound then. None
            takes the model's cubature: an estimate, and far cheaper.
        modes: whether the modes are asked before the exact law.
        chunk: points of the structure that torch evaluates at a time.

    Attributes:
        strain_size: d. state_size: that of the exact law and 2.
        tier: (n,) what this rank's points had in the last evaluation: 0 the model, 1 its modes, 2 the exact law.
        is_exact: (n,) which of them were exact, for pictures too.
        is_outside: (n,) which of them were outside of the trained range.
        gap: (n,) |gap| over those energies, what the tolerance is compared with. floor_energy: the second term [MPa].

    Raises:
        ValueError: a tolerance or floor that is negative or not finite; laws of different strains, with state, without
        energy or of one that is not convex; a model or `at` of another cell than that of `exact`, read with it or not.
        TypeError: a model that is no `spon.EquiNO`, and has no certificate.
    """

    def __init__(
        self,
        model: EquiNO,
        exact: Law,
        *,
        tolerance: float = 1e-3,
        floor: float = 0.1,
        at: ModesAtPoints | None = None,
        modes: bool = True,
        chunk: int | None = None,
    ):
        for name, value in (("tolerance", tolerance), ("floor", floor)):
            if not 0 <= value < np.inf:
                raise ValueError(f"{name} = {value}: need a finite number that is not negative")
        if not isinstance(model, EquiNO):
            raise TypeError(f"the model is a {type(model).__name__}: need a spon.EquiNO, others have no certificate")
        self.tolerance = tolerance
        self.range = Range(model)
        self.strain_size = self.range.lower.size
        self._predict = Evaluator(model, chunk=chunk)
        self._at = self._predict.model.cubature if at is None else at
        self._at.require(model.fingerprint)
        for law in self._at.laws.laws:
            if law.energy_program is None:
                raise ValueError(f"{law.name} has no energy, and there is no certificate without")
            largest_tangent(law)  # which refuses an energy that is not convex
        self._refine = ModalCorrector(self._predict.model) if modes else None
        self._exact = ExactPart(exact, self.strain_size)
        if not require_same_cell(model, exact):
            self._require_same_stress(exact)
        self.state_size = 1 + self._exact.state_size
        self._modes = _modes(model, exact)
        corner = torch.from_numpy(np.maximum(abs(self.range.lower), abs(self.range.upper)))
        softest = torch.linalg.eigvalsh(corner[:, None] * _reuss(self._at) * corner)[0] / 2
        # A rounding above zero, so that nothing is divided by nothing.
        self.floor_energy = max(floor, 1e-6) ** 2 * float(softest)
        self._rest = float(energy_at_zero_strain(self._at))
        self.tier, self.is_outside = np.zeros(0, dtype=np.int8), np.zeros(0, dtype=bool)
        self.gap = np.zeros(0)
        self._evaluations, self._counts = 0, np.zeros(3, dtype=np.int64)
        self._collected: dict[tuple[int, ...], Array] = {}

    def _require_same_stress(self, exact: Law) -> None:
        """Raise ValueError if the stress of a law that names no cell is not within the bounds of the model's."""
        strain = 0.7 * np.diag(np.minimum(abs(self.range.lower), abs(self.range.upper)))
        state = exact.initial_state(len(strain))
        right = exact.evaluate(strain, state, state, MPI.COMM_SELF).stress
        with torch.no_grad():
            bound = certify(self._predict.model, torch.from_numpy(strain), self._at).stress_bound.numpy()
        if np.isnan(bound).any():
            raise ValueError(
                f"{type(exact).__name__} names no cell to compare with the model's, and its stress has no bound to be "
                "within: pair the model with fe2.ExactLaw(rve)"
            )
        error = abs(self._predict(strain)[0] - right)
        # On a cubature the bound is an estimate, off by some per cent.
        k = int((error - 2 * bound).max(axis=1).argmax())
        if not (error <= 2 * bound).all():
            raise ValueError(
                f"{type(exact).__name__} is not of the model's cell: at the strain {strain[k].tolist()} its stress is "
                f"{error[k].tolist()} MPa from that of the model, which is right to {bound[k].tolist()}"
            )

    @property
    def is_exact(self) -> Mask:
        """Which of this rank's points (n,) the exact law answered in the last evaluation."""
        return self.tier == 2

    def initial_state(self, n: int) -> Array:
        """State rows (n, state_size) of undeformed points."""
        return np.hstack([np.zeros((n, 1)), self._exact.initial_state(n)])

    def evaluate(self, strain: Array, state: Array, guess: Array, comm: MPI.Comm = MPI.COMM_SELF) -> Response:
        """See `fe2.Law.evaluate`; raises what the exact law raises, too."""
        with raise_on_all_ranks(comm):
            strain, state, guess = arguments.rows(self, strain, state, guess)
            inner, last = state[:, 1:], guess[:, 1:]
            self.is_outside = self.range.outside(strain)
            self.gap = self.gaps(strain)
            # Written so that NaN is not good enough.
            certified = ~self.is_outside & (self.gap <= self.tolerance)
            climbed, exact = guess[:, 0] > state[:, 0], self._exact.since_accepted(inner, last)
            self.tier = np.where(exact, 2, ~certified | climbed).astype(np.int8)
            out = Response(*self._predict(strain), last.copy())
            self._ask_modes(strain, out)
            start = self._moved(strain, last)
        self._exact.replace(self.is_exact, strain, inner, start, out, comm)
        self._evaluations += 1
        self._counts += np.bincount(self.tier, minlength=3)
        self._collect(strain[self.tier > 0])
        return Response(out.stress, out.tangent, np.hstack([guess[:, :1] + (self.tier > 0)[:, None], out.state]))

    def _ask_modes(self, strain: Array, out: Response) -> None:
        """Answer in modes where the model does not, as far as that is good enough; the rest is exact from now on."""
        here = np.flatnonzero(self.tier == 1)
        if self._refine is not None:
            chunk = max(1, _LOCAL_POINTS // len(self._at.weights))
            for part in np.split(here, range(chunk, len(here), chunk)):
                found = self._refine(torch.from_numpy(strain[part]), self._at)
                out.stress[part], out.tangent[part] = found.stress.numpy(), found.tangent.numpy()
                self.gap[part] = self._relative(found.gap, found.upper)
        refused = here if self._refine is None else here[~(self.gap[here] <= self.tolerance)]
        self.tier[refused] = 2

    def _relative(self, gap: torch.Tensor, upper: torch.Tensor) -> Array:
        """What is compared with the tolerance."""
        return (gap.abs() / (upper - self._rest + self.floor_energy)).numpy()

    def _moved(self, strain: Array, guess: Array) -> Array:
        """`guess` with the fluctuations of the points to solve moved from their last strain as the model moves its."""
        if self._modes is None:
            return guess
        moved, (size, _) = guess.copy(), self._modes.shape
        # Outside of its range there is no telling where the model would move them.
        here = self.is_exact & ~self.is_outside
        last = guess[here, : self.strain_size]
        with torch.no_grad():
            now, then = (self._predict.model.displacement(torch.from_numpy(e)) for e in (strain[here], last))
        moved[here, self.strain_size : self.strain_size + size] += (now - then).numpy() @ self._modes.T
        return moved

    def micro_fields(self, strain: Array, state: Array) -> MicroFields:
        """The fields at a strain (d,) and a row (state_size,): exact where the point was, else those of the first tier
        that is good enough, which is that of the point if it had not climbed higher within its step.

        Raises:
            TypeError: the exact law has no RVE. ValueError: a model that was loaded without its RVE modes.
        """
        exact = self._exact.micro_fields(strain, state[1:])
        if exact is not None:
            return exact
        rve = getattr(self._exact.law, "rve", None)
        if rve is None:
            raise TypeError(
                f"the exact law, a {type(self._exact.law).__name__}, has no RVE to show fields on, as fe2.ExactLaw has"
            )
        good = not self.range.outside(strain[None])[0] and self.gaps(strain[None])[0] <= self.tolerance
        if good or self._refine is None:
            return micro_fields(rve, self._predict.model, strain)
        return refined_fields(rve, self._refine, strain)

    def gaps(self, strain: Array) -> Array:
        """What is compared with the tolerance (n,), at strains (n, d)."""
        chunk = max(1, _LOCAL_POINTS // len(self._at.weights))
        found = np.empty(len(strain))
        with torch.no_grad():
            for first in range(0, len(strain), chunk):
                part = slice(first, first + chunk)
                c = certify(self._predict.model, torch.from_numpy(np.ascontiguousarray(strain[part])), self._at)
                found[part] = self._relative(c.gap, c.upper)
        return found

    def summary(self, comm: MPI.Comm = MPI.COMM_SELF) -> str:
        """One line on all evaluations so far, of all ranks of `comm` (collective)."""
        now = np.bincount(self.tier, minlength=3)
        mine = (*self._counts, *now, self.is_outside.sum())
        *counts, outside = np.sum(comm.allgather(np.array(mine)), axis=0).tolist()
        return (
            f"tolerance {self.tolerance:.1e}: of {sum(counts[:3])} points in {self._evaluations} evaluations "
            f"{counts[1]} in modes and {counts[2]} exact; in the last {counts[4]} and {counts[5]} of {sum(counts[3:])} "
            f"({outside} outside of the trained range)"
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
        """Strains (k, d) that the model was not good enough for, from all ranks of `comm` and the same on all
        (collective).

        Of the many of all iterations there is one for each box of a twentieth of the trained range, the largest in it;
        they are what to solve next: `fe2.rve_snapshots.compute(rve, law.collected(comm), path, comm, append=True)`.
        """
        found: dict[tuple[int, ...], Array] = {}
        for part in comm.allgather(self._collected):
            for box, value in part.items():
                if box not in found or _larger(value, found[box]):
                    found[box] = value
        return np.array([found[box] for box in sorted(found)]).reshape(-1, self.strain_size)


def _reuss(at: ModesAtPoints) -> torch.Tensor:
    """Stiffness (d, d) [MPa] at rest of the phases under one stress."""
    rest = at.weights.new_zeros(1, at.laws.strain_size)
    shares = (w.sum() for w in at.weights.split(list(at.laws.counts)))
    return torch.linalg.inv(
        sum(share * torch.linalg.inv(law.tangent(rest)[0]) for law, share in zip(at.laws.laws, shares, strict=True))
    )


def _larger(a: Array, b: Array) -> bool:
    """By norm, and by components where the norms are equal."""
    return (float(a @ a), *map(float, a)) > (float(b @ b), *map(float, b))


def _modes(model: EquiNO, law: Law) -> Array | None:
    """Displacement modes (unknowns, r) as fluctuations of the law's RVE; None for a law or a model without its cell."""
    rve = getattr(law, "rve", None)
    if rve is None or not model.is_whole:
        return None
    unknowns, dofs = np.unique(rve.unknowns.index, return_index=True)
    return np.ascontiguousarray(model.rve_modes.displacements[dofs[unknowns >= 0]])
