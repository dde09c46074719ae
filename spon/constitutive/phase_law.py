# SPDX-License-Identifier: MIT
"""Constitutive laws at points: energy, stress and tangent of the phases of an RVE, as programs.

Strains and stresses have the d components of their measure: Mandel vectors at small strain, 2D (xx, yy, √2 xy) or 3D
(xx, yy, zz, √2 yz, √2 xz, √2 xy); H = F − I and P row by row at finite strain; gradient and flux.
"""

import bisect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch

from spon.constitutive.measure import GRADIENT, SMALL_STRAIN, Measure
from spon.constitutive.program import Program, ProgramError, constant, read, sequence
from spon.constitutive.rounding import rounding


@dataclass(frozen=True)
class LocalSolve:
    """Solver for the local unknowns of a point, the zero of a local residual g(strain, local).

    It takes a fixed number of Newton steps from zero without autograd, and two more with autograd. Each step squares
    the error of the value and of its dependence on the strain, so that derivatives up to the third are those of the
    implicit function. The unknowns are NaN where the last step is large.

    Args:
        step: program (strain, local) → (m,), the Newton step (∂g/∂local)⁻¹ g.
        iterations: Newton steps without autograd.

    Raises:
        ProgramError: a step with other inputs or another shape, or iterations below 1.
    """

    step: Program
    iterations: int = 40

    def __post_init__(self):
        inputs, shape = self.step.inputs, self.step.shape
        if len(inputs) != 2 or shape != (inputs[1][1],):
            raise ProgramError(f"step maps {inputs} to shape {shape}, need strain and local to a change of local")
        if not (type(self.iterations) is int and self.iterations > 0):
            raise ProgramError(f"iterations = {self.iterations!r}: need a positive integer")

    def __call__(self, strain: torch.Tensor, unit: float = 0.0) -> torch.Tensor:
        """Local unknowns (..., m) at the strains (..., d) beside numbers of the size `unit`, as the 1 in I + H."""
        local = strain.new_zeros(strain.shape[:-1] + self.step.shape)
        still = strain.detach()
        for _ in range(self.iterations):
            local = local - self.step(still, local)
        change, size, given = (x.abs().amax(-1, keepdim=True) for x in (self.step(still, local), local, still))
        # Newton's method converges quadratically: after a change of √eps the error is eps. Where an unknown vanishes,
        # such as the thickness strain in pure shear, the rounding of the strain is the limit.
        eps = torch.finfo(strain.dtype).eps
        settled = change.isfinite() & (change <= eps**0.5 * size + 8 * eps * (given + unit))
        local = torch.where(settled, local, torch.nan).detach()
        for _ in range(2):
            local = local - self.step(strain, local)
        return local


class RoundingBySize(NamedTuple):
    """Bounds of rounding errors by the norm of the strain.

    Attributes:
        sizes: (k,) norms of strains, ascending.
        bounds: (k + 1,) [MPa], up to each of these norms; infinite beyond the last.
    """

    sizes: torch.Tensor
    bounds: torch.Tensor


def _directions(d: int) -> torch.Tensor:
    """Unit strains (k, d): random ones and the axes."""
    generator, unit = torch.Generator().manual_seed(0), torch.eye(d, dtype=torch.float64)
    some = torch.cat([torch.randn(48, d, generator=generator, dtype=torch.float64), unit, -unit])
    return some / some.norm(dim=1, keepdim=True)


@dataclass(frozen=True)
class PhaseLaw:
    """Path-independent law of one phase: energy density, stress and tangent as functions of the strain.

    Args:
        name: of the material.
        stress_program: strain (d,) → stress (d,) [MPa]; of (strain, local) if there are local unknowns.
        tangent_program: of the same inputs, d stress/d strain (d, d) [MPa] with the local unknowns condensed.
        energy_program: of the same inputs, the energy density () [MPa]; None for a law without energy.
        local: solver for the local unknowns, if any. Where it fails to converge, all results are NaN.
        measure_name: of the strain, see `spon.constitutive.measure`.

    Raises:
        ProgramError: programs whose inputs or shapes do not fit.
    """

    name: str
    stress_program: Program
    tangent_program: Program
    energy_program: Program | None = None
    local: LocalSolve | None = None
    measure_name: str = SMALL_STRAIN

    def __post_init__(self):
        inputs = self.stress_program.inputs
        if len(inputs) != (1 if self.local is None else 2):
            raise ProgramError(f"{self.name}: the stress has the inputs {inputs}, need strain, and local if solved for")
        d = self.strain_size
        self._check("stress", self.stress_program, (d,))
        self._check("tangent", self.tangent_program, (d, d))
        if self.energy_program is not None:
            self._check("energy", self.energy_program, ())
        if self.local is not None:
            self._check("local step", self.local.step, (inputs[1][1],))

    def _check(self, what: str, program: Program, shape: tuple[int, ...]) -> None:
        inputs = self.stress_program.inputs
        if program.inputs != inputs or program.shape != shape:
            raise ProgramError(
                f"{self.name}: the {what} maps {program.inputs} to shape {program.shape}, need {inputs} to {shape}"
            )

    @property
    def strain_size(self) -> int:
        """d, the number of components of the strain."""
        return self.stress_program.inputs[0][1]

    @cached_property
    def measure(self) -> Measure:
        """What the law is given and what it returns."""
        return Measure(self.measure_name, self.strain_size)

    @cached_property
    def metric(self) -> torch.Tensor:
        """Symmetric positive definite (d, d) [MPa], in which strains are measured: the tangent at zero strain.

        At finite strain it is zero for infinitesimal rotations, which get its least other eigenvalue.

        Raises:
            ValueError: a tangent at zero strain that is not positive definite.
        """
        zero = torch.zeros(1, self.strain_size, dtype=torch.float64)
        tangent = self.tangent(zero)[0]
        _, (small,) = self.measure.projected(zero, tangent[None])
        least = torch.linalg.eigvalsh((small + small.mT) / 2)[0] if small.isfinite().all() else small.new_tensor(-1.0)
        if not least > 0:
            raise ValueError(
                f"{self.name}: the tangent at zero strain is {tangent.tolist()}, need a positive definite one"
            )
        if not self.measure.finite:
            return tangent
        q = self.measure.embedding(zero)
        return q.mT @ ((small + small.mT) / 2) @ q + least * (torch.eye(len(tangent)).to(tangent) - q.mT @ q)

    @cached_property
    def matrix(self) -> tuple[float, ...] | None:
        """The tangent [MPa], row by row, of a linear law, None for any other.

        A linear law has a constant tangent, no stress at zero strain and no jumps.
        """
        values, d = self.tangent_program.values, self.strain_size
        if values is None:
            return None
        one = torch.eye(d, dtype=torch.float64, device="cpu")
        strain = torch.cat([one, -one, 0 * one[:1]])
        right = strain @ constant(values, (d, d), strain.dtype, strain.device).mT
        stress = self._evaluate(self.stress_program, strain)
        jump = (stress - right).abs().amax() > 1e-9 * right.abs().amax()
        return None if jump or stress[-1].any() else values

    @property
    def linear(self) -> bool:
        """Whether the stress is evaluated as a constant matrix times the strain."""
        return self.matrix is not None

    def energy(self, strain: torch.Tensor) -> torch.Tensor:
        """Energy densities (...) [MPa] at the strains (..., d).

        Raises:
            ValueError: a law without energy.
        """
        if self.energy_program is None:
            raise ValueError(f"{self.name} is given by its stress and has no energy")
        return self._evaluate(self.energy_program, strain)

    def stress(self, strain: torch.Tensor) -> torch.Tensor:
        """Stresses (..., d) [MPa] at the strains (..., d)."""
        if self.matrix is None:
            return self._evaluate(self.stress_program, strain)
        return strain @ self._tensor(strain).mT

    def tangent(self, strain: torch.Tensor) -> torch.Tensor:
        """Tangents (..., d, d) [MPa] at the strains (..., d)."""
        if self.matrix is None:
            return self._evaluate(self.tangent_program, strain)
        c = self._tensor(strain)
        return c.expand(strain.shape[:-1] + c.shape)

    def rounding(self, what: Literal["energy", "stress"], strain: torch.Tensor) -> torch.Tensor:
        """Bounds of the rounding errors of the energy (...) or stress (..., d) [MPa].

        Args:
            what: "energy" or "stress".
            strain: (..., d).

        Raises:
            ValueError: a law without energy.
        """
        program = self.energy_program if what == "energy" else self.stress_program
        if program is None:
            raise ValueError(f"{self.name} is given by its stress and has no energy")
        return rounding(program, strain, *(() if self.local is None else (self._local(strain),)))

    @cached_property
    def energy_rounding(self) -> "RoundingBySize":
        """Bounds of the rounding error of the energy by the norm of the strain, from strains in many directions."""
        # Gradients have any unit, strains have none.
        last = 65 if self.measure_name == GRADIENT else 9
        sizes = 10 ** (torch.arange(-64, last, dtype=torch.float64) / 4)
        found = self.rounding("energy", sizes[:, None, None] * _directions(self.strain_size))
        most = torch.where(found.isfinite(), found, 0.0).amax(dim=1).cummax(dim=0).values
        return RoundingBySize(sizes, torch.cat([most, most.new_full((1,), torch.inf)]))

    @cached_property
    def stress_rounding(self) -> float:
        """The rounding error of the stress near zero strain in float64 [MPa], which limits residuals of stresses."""
        found = self.rounding("stress", 1e-12 * _directions(self.strain_size)).norm(dim=1)
        return float(torch.where(found.isfinite(), found, 0.0).max())

    def _tensor(self, like: torch.Tensor) -> torch.Tensor:
        d = self.strain_size
        if like.ndim == 0 or like.shape[-1] != d:
            raise ValueError(f"strain has shape {tuple(like.shape)}, need (..., {d})")
        return constant(self.matrix, (d, d), like.dtype, like.device)

    def _local(self, strain: torch.Tensor) -> torch.Tensor:
        assert self.local is not None
        return self.local(strain, float(self.measure.finite))

    def _evaluate(self, program: Program, strain: torch.Tensor) -> torch.Tensor:
        if self.local is None:
            return program(strain)
        local = self._local(strain)
        lost = local.isnan().any(-1).reshape(strain.shape[:-1] + (1,) * len(program.shape))
        return torch.where(lost, torch.nan, program(strain, local))  # also if the program does not use them

    def to_json(self) -> dict[str, Any]:
        """The law as lists, strings and numbers."""
        return {
            "name": self.name,
            "stress": self.stress_program.to_json(),
            "tangent": self.tangent_program.to_json(),
            "energy": None if self.energy_program is None else self.energy_program.to_json(),
            "local": None
            if self.local is None
            else {"step": self.local.step.to_json(), "iterations": self.local.iterations},
            **({} if self.measure_name == SMALL_STRAIN else {"measure": self.measure_name}),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "PhaseLaw":
        """The law of `to_json`.

        Raises:
            ProgramError: data that is no law; names the entry.
        """
        measure = SMALL_STRAIN
        if isinstance(data, Mapping) and "measure" in data:
            data = dict(data)
            measure = data.pop("measure")
        name, stress, tangent, energy, local = read(data, "phase law", "name", "stress", "tangent", "energy", "local")
        if not isinstance(name, str):
            raise ProgramError(f"name = {name!r}: need a string")

        def program(what: str, entry: Any) -> Program:
            try:
                return Program.from_json(entry)
            except ProgramError as error:
                raise ProgramError(f"{name}, {what}: {error}") from None

        if local is not None:
            step, iterations = read(local, f"{name}, local", "step", "iterations")
            local = LocalSolve(program("local step", step), iterations)
        return cls(
            name=name,
            stress_program=program("stress", stress),
            tangent_program=program("tangent", tangent),
            energy_program=None if energy is None else program("energy", energy),
            local=local,
            measure_name=measure,
        )


@dataclass(frozen=True)
class LocalLaws:
    """The laws of an RVE's phases at its points, in blocks: all points of the first phase, then of the second, ...

    Args:
        laws: one for each phase.
        counts: points of each phase; P = sum(counts).

    Raises:
        ValueError: another number of counts than of laws, or none.
        ValueError: a count that is negative or no integer.
        ValueError: laws of different strain sizes or measures.
    """

    laws: tuple[PhaseLaw, ...]
    counts: tuple[int, ...]

    def __post_init__(self):
        if not self.laws or len(self.counts) != len(self.laws):
            raise ValueError(f"{len(self.laws)} laws and {len(self.counts)} counts: need as many, and at least one")
        if bad := [n for n in self.counts if not (type(n) is int and n >= 0)]:
            raise ValueError(f"counts = {self.counts}: {bad[0]!r} is not a number of points")
        if len(sizes := {law.strain_size for law in self.laws}) > 1:
            raise ValueError(f"the laws are for strains of {sorted(sizes)} components; all must have the same")
        if len(measures := {law.measure_name for law in self.laws}) > 1:
            raise ValueError(f"the laws have the measures {sorted(measures)}; all must have the same")

    @property
    def size(self) -> int:
        """P, the number of points."""
        return sum(self.counts)

    @property
    def strain_size(self) -> int:
        """d, the number of components of the strain."""
        return self.laws[0].strain_size

    @property
    def measure(self) -> Measure:
        """What the laws are given and what they return."""
        return self.laws[0].measure

    def metric(self) -> torch.Tensor:
        """`PhaseLaw.metric` at the points (P, d, d) [MPa]; raises ValueError as it does."""
        parts = [law.metric.expand(count, -1, -1) for law, count in zip(self.laws, self.counts, strict=True)]
        return torch.cat(parts)

    def energy(self, strain: torch.Tensor) -> torch.Tensor:
        """Energy densities (..., P) [MPa] at the strains (..., P, d).

        Raises:
            ValueError: a phase without energy.
        """
        return torch.cat([law.energy(block) for law, block in self._blocks(strain)], dim=-1)

    def stress(self, strain: torch.Tensor) -> torch.Tensor:
        """Stresses (..., P, d) [MPa] at the strains (..., P, d)."""
        return torch.cat([law.stress(block) for law, block in self._blocks(strain)], dim=-2)

    def tangent(self, strain: torch.Tensor) -> torch.Tensor:
        """Tangents (..., P, d, d) [MPa] at the strains (..., P, d)."""
        return torch.cat([law.tangent(block) for law, block in self._blocks(strain)], dim=-3)

    def _blocks(self, strain: torch.Tensor) -> list[tuple[PhaseLaw, torch.Tensor]]:
        """The laws and the strains at their points, without phases that have no points."""
        if strain.ndim < 2 or strain.shape[-2:] != (self.size, self.strain_size):
            raise ValueError(f"strain has shape {tuple(strain.shape)}, need (..., {self.size}, {self.strain_size})")
        parts = list(zip(self.laws, strain.split(list(self.counts), dim=-2)))
        return [(law, block) for law, block in parts if block.shape[-2]] or parts[:1]

    def subset(self, indices: Sequence[int]) -> "LocalLaws":
        """The laws at some of the points, such as those of a cubature.

        Args:
            indices: of the points, sorted by phase.

        Raises:
            ValueError: an index out of range, or indices that are not sorted by phase.
        """
        chosen = [int(i) for i in indices]
        if bad := [i for i in chosen if not 0 <= i < self.size]:
            raise ValueError(f"index {bad[0]} is out of range, need 0 to {self.size - 1}")
        ends = list(itertools.accumulate(self.counts))
        phases = [bisect.bisect_right(ends, i) for i in chosen]
        if phases != sorted(phases):
            raise ValueError("the indices must be sorted by phase, as the points are: use ascending indices")
        return LocalLaws(self.laws, tuple(phases.count(k) for k in range(len(self.laws))))

    def to_json(self) -> dict[str, Any]:
        """The laws as lists, strings and numbers."""
        return {"laws": [law.to_json() for law in self.laws], "counts": list(self.counts)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "LocalLaws":
        """The laws of `to_json`.

        Raises:
            ProgramError: data that is no law; names the entry.
            ValueError: laws and counts that do not fit.
        """
        laws, counts = read(data, "local laws", "laws", "counts")
        return cls(tuple(PhaseLaw.from_json(law) for law in sequence(laws, "laws")), tuple(sequence(counts, "counts")))
