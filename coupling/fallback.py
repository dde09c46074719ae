# SPDX-License-Identifier: MIT
"""The law for points where the error of a model is too large.

A point that changes from the model to the exact law changes its stress by the model's error, from one Newton iteration
to the next. If points changed back and forth, the law would change in each iteration, and Newton's method would not
converge. So a point that was solved exactly stays exact until the step is accepted or rejected: it changes at most once
per step, and from some iteration on the law is fixed and smooth.

The state rows hold this rule, so that it survives a checkpoint and a rejected step: a row has the number of exact
solutions of its point so far, and the point was exact in this step if the number of the last evaluation is above that
of the accepted state.
"""

from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from mpi4py import MPI

from coupling.model_fields import fluctuation
from fe2 import RVE, Law, MicroFields, Response, StateLayout, raise_on_all_ranks
from fe2.measure import measure_of
from fe2.state import layout_of
from spon import EquiNO

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class Fallback:
    """A law for some of the points.

    Args:
        law: the law, e.g. `fe2.ExactLaw(rve)`; its materials have no state.
        strain_size: components of the strains that the model takes.
        model: on the CPU in float64, for a `WarmStart` of the solutions; None for none.
        measure: name of the model's measure.

    Attributes:
        layout: "law", a row of the law, and "solutions", the number of its solutions of the point.
        rve: that of the law, or None.

    Raises:
        ValueError: a law of other strains, of materials with state, or that depends on time.
    """

    def __init__(self, law: Law, strain_size: int, model: EquiNO | None = None, *, measure: str = "small strain"):
        if law.strain_size != strain_size:
            raise ValueError(f"the model takes strains of {strain_size} components, the exact law {law.strain_size}")
        if measure_of(law).name != measure:
            raise ValueError(f"the model takes a {measure}, the exact law a {measure_of(law).name}")
        if getattr(law, "rate_dependent", False):
            raise ValueError(f"{type(law).__name__} depends on time; a model is a function of the strain alone")
        self.law = law
        self.rve: RVE | None = getattr(law, "rve", None)
        for material in self.rve.body.materials.values() if self.rve is not None else ():
            if material.state_size:
                raise ValueError(f"{type(material).__name__} has state; a model is a function of the strain alone")
        self.layout = StateLayout(law=layout_of(law), solutions=())
        self._warm_start = None if model is None else WarmStart(model, law)

    def initial_state(self, n: int) -> Array:
        """Rows (n, size) of undeformed points."""
        return self.layout.rows(n, law=self.law.initial_state(n))

    def has_solved(self, state: Array, guess: Array) -> Mask:
        """Whether points (n,) were solved exactly in this step, by accepted rows and rows of the last evaluation."""
        return self.layout.view(guess, "solutions") > self.layout.view(state, "solutions")

    def solve(self, where: Mask, strain: Array, state: Array, guess: Array, out: Response, comm: MPI.Intracomm) -> None:
        """Write the law's response at some of the points into `out` (collective, also on ranks without such points).

        The rows of the other points do not change; their next exact solutions start from them.

        Args:
            where: (n,) the points to solve.
            strain: (n, d).
            state: (n, size) accepted rows.
            guess: (n, size) rows of the last evaluation.
            out: response of all points, with rows (n, size) as state.
            comm: ranks among which the work may be shared.
        """
        view = self.layout.view
        view(out.state, "solutions")[where] = view(guess, "solutions")[where] + 1
        rows = Response(out.stress, out.tangent, view(out.state, "law"))
        strain, start = strain[where], view(guess, "law")[where]
        if self._warm_start is not None:
            with raise_on_all_ranks(comm):
                start = self._warm_start(start, strain)
        rows.put(where, self.law.evaluate(strain, view(state, "law")[where], start, comm))

    def micro_fields(self, strain: Array, state: Array) -> MicroFields | None:
        """The fields of the exact solution, if a row (size,) has one at this strain (d,)."""
        row, layout = self.layout.view(state, "law"), layout_of(self.law)
        fields = getattr(self.law, "micro_fields", None)
        if fields is None or "strain" not in layout:
            return None
        if not np.allclose(layout.view(row, "strain"), strain, rtol=1e-12, atol=0.0):
            return None
        return fields(strain, row)


class WarmStart:
    """Initial guess of exact solutions: the last fluctuation, corrected by the change that a model predicts.

    It saves about one Newton iteration of each solution. Rows do not change outside the trained range, for a model that
    was loaded without its modes, or for a law without an RVE.

    Args:
        model: the model, on the CPU in float64.
        law: the exact law.
    """

    def __init__(self, model: EquiNO, law: Law):
        self._model, self._rve, self._layout = model, getattr(law, "rve", None), layout_of(law)

    @cached_property
    def _modes(self) -> Array | None:
        """Displacement modes (unknowns, r) as fluctuations of the RVE, or None."""
        if self._rve is None or not self._model.is_whole or "fluctuation" not in self._layout:
            return None
        return np.ascontiguousarray(self._model.rve_modes.displacements[self._dofs])

    @cached_property
    def _dofs(self) -> npt.NDArray[np.int64]:
        """A degree of freedom of each unknown."""
        assert self._rve is not None
        unknowns, dofs = np.unique(self._rve.unknowns.index, return_index=True)
        return dofs[unknowns >= 0]

    @torch.no_grad()
    def __call__(self, rows: Array, strain: Array) -> Array:
        """New rows (n, size), from rows (n, size) of the law and strains (n, d)."""
        if self._modes is None:
            return rows
        moved, inside = rows.copy(), self._model.inside(torch.from_numpy(strain)).numpy()
        last = self._layout.view(rows, "strain")
        now, then = (self._fluctuation(torch.from_numpy(e[inside])) for e in (strain, last))
        self._layout.view(moved, "fluctuation")[inside] += now - then
        return moved

    def _fluctuation(self, strain: torch.Tensor) -> Array:
        """Unknowns (n, unknowns) of the fluctuation that the model predicts at strains (n, d)."""
        model = self._model
        assert self._modes is not None and self._rve is not None
        coefficients = model.displacement(model.measure.coordinates(strain))
        if not model.measure.finite:
            return np.asarray(coefficients.numpy() @ self._modes.T)
        all_nodes = torch.from_numpy(model.rve_modes.displacements)
        return fluctuation(model, strain, coefficients, all_nodes)[:, self._dofs]
