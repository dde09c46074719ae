# SPDX-License-Identifier: MIT
"""Structures whose RVE differs from point to point: a network of modes for an RVE, and the law of its modes."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch
import ufl
from mpi4py import MPI
from dolfinx import fem, mesh

from coupling.fallback import Fallback
from coupling.snapshots import strain_operator
from coupling.translation import phase_law
from fe2 import RVE, Body, MicroFields, Response, StateLayout, StepFailed, VaryingLaw, arguments, raise_on_all_ranks
from fe2.fingerprints import fingerprint
from fe2.measure import SMALL_STRAIN
from spon.microstructure import ModeNetwork, RVEMesh, RVENotConverged
from spon.operators.discretisation import discretise
from spon.reduced.galerkin_c import compiled_modes
from spon.spaces.read import read_space
from spon.spaces.space import Space
from spon.spaces.transfer import evaluation
from spon.sparse import SparseOperator

Array = npt.NDArray[np.float64]

# The size of the last Newton step, relative to the strain in the energy norm; this step squares the error. In a
# macroscale Newton loop a larger one suffices, since both loops converge together: the next strain is nearer, and the
# sensitivities predict the coefficients there.
_STEP, _STEP_IN_LOOP = 1e-4, 1e-2
_ITERATIONS = 30  # of Newton's method, at most
_CHUNK = 16  # RVEs at a time, whose fields at all points are in memory
_ESTIMATES = 64  # points at a time, for the same reason
_SOLUTION = ("strain", "coefficients", "sensitivities")  # in a state row


def mode_network(
    rve: RVE, *, half_range: npt.ArrayLike, r: int = 6, coarse: Sequence[int] | None = None, **options
) -> ModeNetwork:
    """A network of modes for all RVEs with the mesh and the materials of `rve` and any cell tags.

    Args:
        rve: periodic, with at least two materials; its own tags are not used.
        half_range: (d,), largest Mandel strains to train for.
        r: number of modes.
        coarse: cells along an edge of the coarser grids of the network, from finer to coarser; if None, each has half
            as many as the one before, down to three or more.
        **options: corrections, see `spon.ModeNetwork`, and options of `spon.OperatorNetwork`: processor ("mgno" by
            default), channels, seed, ...

    Raises:
        ValueError: an RVE that is not periodic or does not fill a box, or of another measure than the small strain; too
            few modes, or materials without energy.
        TranslationError: a material that torch cannot evaluate, or one with state.
    """
    if rve.boundary != "periodic":
        raise ValueError(f"the RVE's boundary is {rve.boundary!r}, need 'periodic'")
    if rve.measure is not SMALL_STRAIN:
        raise ValueError(f"the RVE takes a {rve.measure.name}: networks of modes are for small strains alone")
    box = rve.domain.box
    if not rve.domain.fills_box:
        raise ValueError(
            f"the period {rve.period.tolist()} is not the box of the mesh, {np.subtract(*box[::-1]).tolist()}"
        )
    body, d = rve.body, rve.strain_size
    laws = [phase_law(material, body.dim, body.plane) for material in body.materials.values()]
    m, axes, here = len(laws), range(body.dim), body.mesh
    V = fem.functionspace(here, ("P", 1, (r * m * d,)))
    indicator = fem.functionspace(here, ("DG", 0))
    if coarse is None:
        along = round(V.dofmap.index_map.size_local ** (1 / body.dim)) - 1
        coarse = [along // 2**k for k in range(1, 10) if along // 2**k >= 3]
    kind = {2: mesh.CellType.quadrilateral, 3: mesh.CellType.hexahedron}[body.dim]
    make = {2: mesh.create_rectangle, 3: mesh.create_box}[body.dim]
    below = [fem.functionspace(make(MPI.COMM_SELF, list(box), [n] * body.dim, kind), ("P", 1)) for n in coarse]
    spaces = discretise([indicator] * (m - 1), V, periodic=tuple(axes), coarse=below)
    points = len(body.points)
    displacements = read_space(body.V, periodic=tuple(axes))
    assert isinstance(displacements, Space)  # since V is a Lagrange space
    shared = RVEMesh(
        strains=_sparse(strain_operator(body)),
        tying=displacements.tying,
        interpolation=evaluation(fem.functionspace(here, ("P", 1)), _coordinates(body), reach=1e-3),
        weights=torch.from_numpy(body.weights.ravel() / rve.volume),
        cells=torch.arange(body.weights.shape[0]).repeat_interleave(points),
    )
    half = torch.from_numpy(np.broadcast_to(np.asarray(half_range, dtype=np.float64), (d,)).copy())
    tags = list(body.materials)
    # Without the phases, which differ from RVE to RVE.
    shared_parts = {part: value for part, value in fingerprint(rve).items() if part not in ("phases", "whole")}
    options = {"processor": "mgno", "fingerprint": shared_parts, **options}
    return ModeNetwork(spaces, shared, laws, tags, r=r, half_range=half, **options)


def _sparse(matrix) -> SparseOperator:
    return SparseOperator.of(scipy.sparse.csr_array(matrix))


def _coordinates(body: Body) -> Array:
    """Coordinates (cells · points, dim) of the quadrature points."""
    x = fem.Expression(ufl.SpatialCoordinate(body.mesh), body.points)
    return x.eval(body.mesh, body.cells).reshape(-1, body.dim)


@dataclass(frozen=True, slots=True, eq=False)
class PointResponse:
    """The response of RVEs in their modes at n points.

    Args:
        stress: (n, d), homogenised [MPa].
        tangent: (n, d, d), homogenised [MPa].
        coefficients: (n, r), of the modes.
        sensitivities: (n, r, d), derivatives of the coefficients by the strain.
    """

    stress: Array
    tangent: Array
    coefficients: Array
    sensitivities: Array


class ModesLaw:
    """Stress and tangent of points with an RVE of its own for each, from a trained network of modes.

    The network is evaluated once for each RVE. Each evaluation of the law minimises the energy in its modes, so that
    the stress belongs to a compatible strain field, see `local_strain`. The error is 1e-4 after a large change of
    strain, and falls to rounding as Newton's method of the macroscale converges.

    With an exact law, points whose error estimate is above the tolerance are solved exactly, until the step is accepted
    or rejected, see `coupling.fallback`.

    Args:
        network: from `mode_network`, trained by `spon.microstructure.train`; the law has a copy in float64.
        tags: (n, cells), tags of the cells of the mesh in the RVEs of this rank's n points, in the order of
            `fe2.law_coordinates`.
        exact: `fe2.VaryingLaw` of the same points, or None.
        tolerance: of the estimate.
        compiled: whether RVEs are evaluated as machine code, which needs a C compiler; else by torch.
        rve: with the mesh and the materials of all RVEs, for `micro_fields`; None for that of `exact`, if any.

    Attributes:
        strain_size: d.
        layout: of a state row: "point", the number of the RVE; "strain", "coefficients" and "sensitivities" of the last
            evaluation; and "fallback" with an exact law, see `coupling.fallback`.
        state_size: of the layout.
        estimate: (n,) `spon.ModeNetwork.energy_error_bound` over the energy in the last evaluation; empty without an
            exact law. It grows with the error of the energy, and bounds it where no tangent is below that of the
            homogeneous medium.
        is_exact: (n,) whether this rank's points were solved exactly in the last evaluation.

    Raises:
        ValueError: tags of another shape or unknown, a negative tolerance, an RVE of the law or of `exact` that is not
            that of the network, or other tags in `exact`.
        TypeError: another exact law.
    """

    own_rves = True

    def __init__(
        self,
        network: ModeNetwork,
        tags: npt.NDArray[np.integer],
        *,
        exact: VaryingLaw | None = None,
        tolerance: float = 0.2,
        compiled: bool = True,
        rve: RVE | None = None,
    ):
        if not tolerance >= 0:
            raise ValueError(f"tolerance = {tolerance}, need a positive number")
        if exact is not None:
            if not isinstance(exact, VaryingLaw):
                raise TypeError(f"the exact law is a {type(exact).__name__}: need a fe2.VaryingLaw of the same RVEs")
            network.require(fingerprint(exact.like))
            if not np.array_equal(exact.tags, tags):
                raise ValueError("the exact law has other tags than the modes")
        if rve is not None:
            network.require(fingerprint(rve))
        self._rves = exact if rve is None else VaryingLaw(rve, np.asarray(tags))
        self.network = copy.deepcopy(network).to("cpu", torch.float64).requires_grad_(False)
        phases = self.network.phases(torch.from_numpy(np.asarray(tags, dtype=np.int64).reshape(-1, tags.shape[-1])))
        self._phase = self.network.phase(phases)
        d, r = len(self.network.half_range), self.network.r
        self.strain_size, self.tolerance = d, tolerance
        with torch.no_grad():
            parts = [self.network.modes(part) for part in phases.split(_CHUNK, dim=1)] if phases.shape[1] else []
        points = len(self.network.weights)
        self.modes = torch.cat([part.strain for part in parts]) if parts else torch.zeros(0, points, d, r).double()
        self._compiled = compiled_modes(self.network.laws, r) if compiled else None
        if self._compiled is not None:
            arrays = (self.modes.numpy(), self._phase.numpy(), self.network.weights.numpy())
            self._prepared = self._compiled.prepare(*arrays)
        self._fallback = None if exact is None else Fallback(exact, d)
        last = {} if self._fallback is None else {"fallback": self._fallback.layout}
        self.layout = StateLayout(point=(), strain=d, coefficients=r, sensitivities=(r, d), **last)
        self.state_size = self.layout.size
        self.is_exact: npt.NDArray[np.bool_] = np.zeros(0, dtype=bool)
        self.estimate: Array = np.zeros(0)

    def initial_state(self, n: int) -> Array:
        """State rows (n, state_size) of undeformed RVEs.

        Args:
            n: number of points of this rank.

        Raises:
            ValueError: another number of RVEs.
        """
        if n != len(self._phase):
            raise ValueError(f"there are {n} points on this rank and {len(self._phase)} RVEs")
        last = {} if self._fallback is None else {"fallback": self._fallback.initial_state(n)}
        return self.layout.rows(n, point=np.arange(n), **last)

    def evaluate(self, strain: Array, state: Array, guess: Array, comm: MPI.Intracomm = MPI.COMM_SELF) -> Response:
        """See `fe2.Law.evaluate`.

        Raises:
            ValueError: see `fe2.Law.evaluate`.
            fe2.StepFailed: on all ranks; no minimum of the energy at the point that the message names.
        """
        view, fallback = self.layout.view, self._fallback
        with raise_on_all_ranks(comm):
            arguments.check_rows(self, strain, state, guess)
            strain = np.asarray(strain, dtype=np.float64)
            which = view(state, "point").astype(np.int64)
            last, before, sensitivities = (view(guess, name) for name in _SOLUTION)
            change = sensitivities @ (strain - last)[:, :, None]
            found = self.respond(which, strain, before + change[:, :, 0], step=_STEP_IN_LOOP)
            out = Response(found.stress, found.tangent, guess.copy())
            for name, values in zip(_SOLUTION, (strain, found.coefficients, found.sensitivities), strict=True):
                view(out.state, name)[:] = values
            self.is_exact = np.zeros(len(strain), dtype=bool)
            if fallback is not None:
                self.estimate = self._estimates(which, strain, found.coefficients)
                accepted = self.estimate <= self.tolerance  # NaN is not
                self.is_exact = ~accepted | fallback.has_solved(view(state, "fallback"), view(guess, "fallback"))
        if fallback is not None:
            rows = Response(out.stress, out.tangent, view(out.state, "fallback"))
            fallback.solve(self.is_exact, strain, view(state, "fallback"), view(guess, "fallback"), rows, comm)
        return out

    def respond(
        self, which: npt.NDArray[np.int64], strain: Array, start: Array | None = None, step: float = _STEP
    ) -> PointResponse:
        """The response of RVEs in their modes.

        Args:
            which: (n,), the RVE of each strain.
            strain: (n, d).
            start: (n, r), initial coefficients; zero if None. They change the result only within the tolerance.
            step: size of the last step of Newton's method, relative to the strain in the energy norm.

        Raises:
            fe2.StepFailed: no minimum of the energy at some strains; the message names the first.
        """
        if self._compiled is None:
            return self._by_torch(which, strain)
        start = np.zeros((len(strain), self.network.r)) if start is None else start
        *found, iterations = self._compiled(self._prepared, which, strain, start, step, _ITERATIONS)
        if (iterations < 0).any():
            k = int(np.flatnonzero(iterations < 0)[0])
            raise StepFailed(
                f"RVE {which[k]}: no minimum of the energy in its modes at the strain {strain[k].tolist()}"
            )
        return PointResponse(*found)

    def _by_torch(self, which: npt.NDArray[np.int64], strain: Array) -> PointResponse:
        d, r = self.strain_size, self.network.r
        parts = [[np.zeros((0, d)), np.zeros((0, d, d)), np.zeros((0, r)), np.zeros((0, r, d))]]
        for first in range(0, len(strain), _CHUNK):
            part = slice(first, first + _CHUNK)
            rves, strains = torch.from_numpy(which[part]), torch.from_numpy(strain[part])[:, None]
            try:
                c = self.network.respond(self.modes[rves], self._phase[rves], strains, iterations=_ITERATIONS)
            except RVENotConverged as error:
                raise StepFailed(f"RVE {which[first + error.rve]}, {error.problem}") from error
            parts.append([x[:, 0].numpy() for x in (c.stress, c.tangent, c.coefficients, c.sensitivities)])
        return PointResponse(*map(np.concatenate, zip(*parts, strict=True)))

    def micro_fields(self, strain: Array, state: Array) -> MicroFields:
        """The fields of a point: exact if it was solved exactly, else those of the modes with the stress of the law.

        Args:
            strain: (d,).
            state: (state_size,), a row.

        Raises:
            TypeError: no RVE.
        """
        if self._rves is None:
            raise TypeError("the law has no mesh for the fields: ModesLaw(..., rve=rve) with the RVE of the network")
        if self._fallback is not None:
            exact = self._fallback.micro_fields(strain, self.layout.view(state, "fallback"))
            if exact is not None:
                return exact
        which, one = self.layout.view(state[None], "point").astype(np.int64), strain[None]
        coefficients = self.respond(which, one).coefficients
        rve = self._rves.rve_at(int(which[0]))
        tags = torch.from_numpy(self._rves.tags[which].astype(np.int64))
        with torch.no_grad():
            modes = self.network.modes(self.network.phases(tags))
        local, shape = self.local_strain(which, one, coefficients), rve.body.weights.shape
        displacement = fem.Function(rve.body.V, name="displacement")
        displacement.x.array[:] = rve.affine @ strain + modes.displacement[0].numpy() @ coefficients[0]
        return MicroFields(
            displacement,
            local[0].numpy().reshape(*shape, -1),
            self.local_stress(which, local)[0].reshape(*shape, -1),
            rve,
        )

    def local_strain(self, which: npt.NDArray[np.int64], strain: Array, coefficients: Array) -> torch.Tensor:
        """Strains (n, P, d) at the quadrature points of RVEs, in the order cells × points of their mesh.

        Args:
            which: (n,), the RVEs.
            strain: (n, d), macroscale strains.
            coefficients: (n, r), of the modes.
        """
        modes = self.modes[torch.from_numpy(np.asarray(which))]
        return torch.from_numpy(strain)[:, None] + torch.einsum("npdr,nr->npd", modes, torch.from_numpy(coefficients))

    def local_stress(self, which: npt.NDArray[np.int64], local_strain: torch.Tensor) -> Array:
        """Stresses (n, P, d) [MPa] at the quadrature points of RVEs.

        Args:
            which: (n,), the RVEs.
            local_strain: (n, P, d), strains there.
        """
        phase = self._phase[torch.from_numpy(np.asarray(which))]
        return self.network.stress(phase, local_strain[:, None])[:, 0].numpy()

    def _estimates(self, which: npt.NDArray[np.int64], strain: Array, coefficients: Array) -> Array:
        """See `estimate`."""
        found = np.empty(len(strain))
        for first in range(0, len(strain), _ESTIMATES):
            part = slice(first, first + _ESTIMATES)
            local = self.local_strain(which[part], strain[part], coefficients[part])[:, None]
            phase = self._phase[torch.from_numpy(which[part])]
            energy = self.network.energy(phase, local)[:, 0]
            tiny = torch.finfo(energy.dtype).tiny
            found[part] = (self.network.energy_error_bound(phase, local)[:, 0] / (energy + tiny)).numpy()
        return found
