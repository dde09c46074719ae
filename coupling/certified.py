# SPDX-License-Identifier: MIT
"""The certified law: at each point the cheapest of model, modes and exact law whose error bound is small enough."""

import numpy as np
import numpy.typing as npt
import torch
from mpi4py import MPI

from coupling.fallback import Fallback
from coupling.model_fields import corrected_fields, micro_fields
from coupling.same_rve import has_same_rve, require_same_stress
from coupling.strain_collection import StrainCollection
from coupling.trained_range import TrainedRange
from fe2 import Law, MicroFields, Response, StateLayout, arguments, raise_on_all_ranks
from fe2.measure import measure_named
from spon import EquiNO, Evaluator, ModalCorrector, ModesAtPoints, certify
from spon.equino import energy_at_zero_strain, energy_bounds

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MODEL, MODES, EXACT = range(3)  # the tiers
# Quadrature points of RVEs whose certificates are computed at a time: some MB, so that the cache holds them.
_LOCAL_POINTS = 2**16


class CertifiedLaw:
    """A trained model where its certificate is below the tolerance, its modes where theirs is, the exact law elsewhere.

    The certificate bounds the energy from both sides, or estimates it at finite strain, see `spon.certify`. A point
    keeps the response of the model if it is in the trained range and

        |gap| ≤ tolerance (upper + floor² energy of the softest strain that spans the trained range),

    see `RelativeGap`. Energies are quadratic in errors: the relative error of the stress is of the order of
    √tolerance, and far below at most points.

    Other points are solved in the modes of the model, without its networks (`spon.ModalCorrector`), many at once, and
    keep that response if its gap obeys the same rule, in the trained range or not: the fields are admissible
    everywhere. The remaining points go to the exact law. A point that has risen to a higher tier stays at least there
    until the step is accepted or rejected, see `coupling.fallback`.

    With a model that was loaded with its modes, `spon.load(path, whole=True)`, exact solutions start from the
    fluctuation that it predicts, which saves about one Newton iteration of each.

    Args:
        model: of the RVE; a copy of it is used, on the CPU in float64.
        exact: law of the same RVE, e.g. `fe2.ExactLaw(rve)`, which spreads its points over the ranks by their cost. The
            stress of a law without an `rve` is compared with that of the model at some strains.
        tolerance: of gap over energy.
        floor: strain below which the tolerance is absolute, as a fraction of the trained range.
        at: all points of the RVE, e.g. `model.rve_modes.at_points`, for which the certificate is a bound; None for the
            model's cubature, for which it is an estimate, and far cheaper.
        modes: whether to use the tier of the modes.
        chunk: points of the structure that are evaluated at a time, see `spon.Evaluator`.

    Attributes:
        measure: of the strain, see `fe2.measure`.
        strain_size: d.
        layout: of a state row: "raised", the evaluations of the point above the model, and "fallback", see
            `coupling.fallback`.
        state_size: of the layout.
        range: the trained range, `lower` and `upper` (d,).
        tier: (n,) of this rank's points in the last evaluation: 0 for the model, 1 for its modes, 2 for the exact law.
        is_outside: (n,) whether they were outside the trained range.
        gap: (n,) |gap| over energy, which is compared with the tolerance.
        floor_energy: the second term of that energy [MPa].

    Raises:
        ValueError: a tolerance or floor that is negative or not finite; laws of different strains, with state, without
            energy or with one that is not convex; a model or `at` of another RVE than that of `exact`.
        TypeError: a model without certificate, which is no `spon.EquiNO`.
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
            raise TypeError(f"the model is a {type(model).__name__}: need a spon.EquiNO, which has a certificate")
        self.tolerance = tolerance
        self.range = TrainedRange.of(model)
        self.strain_size, self.measure = model.strain_size, measure_named(model.measure.name)
        self._predict = Evaluator(model, chunk=chunk)
        self._model: EquiNO = self._predict.model
        self._gap = RelativeGap(self._model, at, floor)
        self.floor_energy = self._gap.floor_energy
        self._correct = ModalCorrector(self._model) if modes else None
        self._fallback = Fallback(exact, self.strain_size, self._model, measure=model.measure.name)
        if not has_same_rve(model, exact):
            require_same_stress(self._predict, exact, self._gap.at)
        self.layout = StateLayout(raised=(), fallback=self._fallback.layout)
        self.state_size = self.layout.size
        self.tier: npt.NDArray[np.int8] = np.zeros(0, dtype=np.int8)
        self.is_outside: Mask = np.zeros(0, dtype=bool)
        self.gap: Array = np.zeros(0)
        self._evaluations, self._counts = 0, np.zeros(3, dtype=np.int64)
        self._unmet = StrainCollection(self.range.upper - self.range.lower)

    @property
    def is_exact(self) -> Mask:
        """Whether this rank's points (n,) were solved exactly in the last evaluation."""
        return self.tier == EXACT

    def initial_state(self, n: int) -> Array:
        """State rows (n, state_size) of undeformed points."""
        return self.layout.rows(n, fallback=self._fallback.initial_state(n))

    def evaluate(self, strain: Array, state: Array, guess: Array, comm: MPI.Intracomm = MPI.COMM_SELF) -> Response:
        """See `fe2.Law.evaluate`.

        Raises:
            ValueError: see `fe2.Law.evaluate`.
            Exception: any error of the exact law.
        """
        view = self.layout.view
        with raise_on_all_ranks(comm):
            arguments.check_rows(self, strain, state, guess)
            strain = np.asarray(strain, dtype=np.float64)
            self.is_outside = self.range.outside(strain)
            self.gap, predicted = self._gap(strain), self._predict(strain)
            self.tier = self._first_tier(state, guess)
            out = Response(predicted.stress, predicted.tangent, guess.copy())
            self._solve_in_modes(strain, out)
            view(out.state, "raised")[self.tier > MODEL] += 1
        rows = Response(out.stress, out.tangent, view(out.state, "fallback"))
        self._fallback.solve(self.is_exact, strain, view(state, "fallback"), view(guess, "fallback"), rows, comm)
        self._evaluations += 1
        self._counts += np.bincount(self.tier, minlength=3)
        self._unmet.add(self.range.coordinates(strain[self.tier > MODEL]))
        return out

    def _first_tier(self, state: Array, guess: Array) -> npt.NDArray[np.int8]:
        """The first tier (n,) of points, by the gap of the model and the tier that they have reached in this step."""
        view = self.layout.view
        # In this form NaN is above the tolerance.
        certified = ~self.is_outside & (self.gap <= self.tolerance)
        raised = view(guess, "raised") > view(state, "raised")
        exact = self._fallback.has_solved(view(state, "fallback"), view(guess, "fallback"))
        return np.where(exact, EXACT, np.where(certified & ~raised, MODEL, MODES)).astype(np.int8)

    def _solve_in_modes(self, strain: Array, out: Response) -> None:
        """Write the response of the modes where their gap is small enough; the others of the tier become exact."""
        here = np.flatnonzero(self.tier == MODES)
        if self._correct is None:
            self.tier[here] = EXACT
            return
        for part in np.split(here, range(self._gap.chunk, len(here), self._gap.chunk)):
            found = self._correct(torch.from_numpy(strain[part]), self._gap.at)
            out.stress[part], out.tangent[part] = found.stress.numpy(), found.tangent.numpy()
            self.gap[part] = found.bounds.relative_gap(self.floor_energy).numpy()
        self.tier[here[~(self.gap[here] <= self.tolerance)]] = EXACT

    def gaps(self, strain: Array) -> Array:
        """Gap over energy (n,) of the model at strains (n, d), which is compared with the tolerance.

        Raises:
            ValueError: strains of another shape, or not real and finite.
        """
        return self._gap(arguments.strains(strain, self))

    def micro_fields(self, strain: Array, state: Array) -> MicroFields:
        """The fields at a strain (d,) and a row (state_size,).

        They are exact if the point was solved exactly, else of the first tier whose gap is below the tolerance: the
        tier of the point unless it rose within the step.

        Raises:
            TypeError: the exact law has no RVE.
            ValueError: a model that was loaded without its modes.
        """
        exact = self._fallback.micro_fields(strain, self.layout.view(state, "fallback"))
        if exact is not None:
            return exact
        rve = self._fallback.rve
        if rve is None:
            name = type(self._fallback.law).__name__
            raise TypeError(f"the exact law, a {name}, has no RVE for the fields: need fe2.ExactLaw")
        good = not self.range.outside(strain[None])[0] and self.gaps(strain[None])[0] <= self.tolerance
        if good or self._correct is None:
            return micro_fields(rve, self._model, strain)
        return corrected_fields(rve, self._correct, strain)

    def summary(self, comm: MPI.Comm = MPI.COMM_SELF) -> str:
        """One line on all evaluations so far, of all ranks of `comm` (collective)."""
        now = np.bincount(self.tier, minlength=3)
        mine = (*self._counts, *now, self.is_outside.sum())
        *counts, outside = np.sum(comm.allgather(np.array(mine)), axis=0).tolist()
        gaps = " of estimated gaps" if self.measure.finite else ""
        return (
            f"tolerance {self.tolerance:.1e}{gaps}: of {sum(counts[:3])} points in {self._evaluations} evaluations "
            f"{counts[1]} in modes and {counts[2]} exact; in the last {counts[4]} and {counts[5]} of {sum(counts[3:])} "
            f"({outside} outside the trained range)"
        )

    def collected(self, comm: MPI.Comm = MPI.COMM_SELF) -> Array:
        """Strains (k, d) to add to the training set, from all ranks of `comm` and the same on all (collective).

        Among the strains of all iterations at which the gap of the model was above the tolerance, the largest in each
        box of a twentieth of the trained range, for
        `fe2.rve_snapshots.compute(rve, law.collected(comm), path, comm, append=True)`.
        """
        return self.range.strain(self._unmet.gather(comm))


class RelativeGap:
    """|gap| / (upper + floor² energy of the softest strain that spans the trained range), energies from zero strain.

    The error of a model does not vanish with the strain: without the second term the gap at zero strain would be
    divided by zero, and points with almost no load would be the most expensive. The term is the energy of the softest
    strain, mostly a shear, because the energy of a dilatation would hide any error of a shear. It is that of an RVE of
    uniform stress (Reuss), a lower bound that does not depend on the networks. A gap below zero is rounding.

    Args:
        model: the model, on the CPU in float64.
        at: the points of the RVE at which the certificate is computed; None for the model's cubature.
        floor: a strain as a fraction of the trained range.

    Attributes:
        at: the points.
        floor_energy: the second term [MPa].
        chunk: points of the structure that are evaluated at a time.

    Raises:
        ValueError: points of another RVE, materials without energy or with one that is not convex.
    """

    def __init__(self, model: EquiNO, at: ModesAtPoints | None, floor: float):
        self.at = model.cubature if at is None else at
        for law in self.at.laws.laws:
            if law.energy_program is None:
                raise ValueError(f"{law.name} has no energy, which the certificate needs")
        # Raises for modes of another RVE or precision, and for an energy that is not convex.
        certify(model, model.lower.new_zeros(1, model.strain_size), self.at)
        self._model = model
        self._at_rest = energy_at_zero_strain(self.at)
        corner = torch.maximum(model.lower.abs(), model.upper.abs())
        softest = torch.linalg.eigvalsh(corner[:, None] * _reuss_stiffness(self.at) * corner)[0] / 2
        # Bounded away from zero, the divisor.
        self.floor_energy = max(floor, 1e-6) ** 2 * float(softest)
        self.chunk = max(1, _LOCAL_POINTS // len(self.at.weights))

    @torch.no_grad()
    def __call__(self, strain: Array) -> Array:
        """Relative gaps (n,) of the model at strains (n, d)."""
        model, at, floor = self._model, self.at, self.floor_energy
        parts = torch.from_numpy(np.ascontiguousarray(strain)).split(self.chunk)
        return torch.cat(
            [
                energy_bounds(
                    at,
                    model.stretch_fields(model.measure.coordinates(part), at),
                    self._at_rest,
                    model.gap_calibration,
                ).relative_gap(floor)
                for part in parts
            ]
        ).numpy()


def _reuss_stiffness(at: ModesAtPoints) -> torch.Tensor:
    """Stiffness (s, s) [MPa] by coordinates, at zero strain, of the phases under uniform stress."""
    rest, measure = at.weights.new_zeros(1, at.laws.strain_size), at.laws.measure
    tangents = [measure.projected(rest, law.tangent(rest))[1][0] for law in at.laws.laws]
    shares = (w.sum() for w in at.weights.split(list(at.laws.counts)))
    return torch.linalg.inv(
        sum(share * torch.linalg.inv(tangent) for tangent, share in zip(tangents, shares, strict=True))
    )
