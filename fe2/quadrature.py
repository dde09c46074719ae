# SPDX-License-Identifier: MIT
"""Stress and tangent of a law as functions at the quadrature points of a user's own variational form."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import basix.ufl
import numpy as np
import numpy.typing as npt
import ufl
from dolfinx import fem
from ufl.algorithms import expand_derivatives

import meshes
from fe2.body import quadrature_degree
from fe2.laws import Law, Response
from fe2.materials import why_not_finite
from fe2.measure import DISPLACEMENT_GRADIENT, SMALL_STRAIN, Measure, common_measure, measure_of
from fe2.phases import laws_by_tag, need_law
from fe2.ranks import raise_on_all_ranks
from fe2.time_step import TimeStep, respond
from meshes.compat import geometry_dofmap

Array = npt.NDArray[np.float64]


class NotFinite(RuntimeError):
    """A strain, or a number that a law has returned, is not finite; or det F is not positive."""


@dataclass(eq=False, slots=True)
class Region:
    """A part of the structure and its law.

    Attributes:
        label: its name in error messages.
        law: the law.
        cells: (cells,) those of this rank.
        state: (cells * points, state_size), accepted.
        guess: (cells * points, state_size), of the last update.
    """

    label: str
    law: Law
    cells: npt.NDArray[np.int32]
    state: Array
    guess: Array

    @property
    def measure(self) -> Measure:
        """The measure of the law."""
        return measure_of(self.law)


class QuadratureLaw:
    """A law, or one per cell tag, at all quadrature points of a mesh, for use in UFL.

    Write the residual with `stress`, a vector in the components of the law's measure, where a script without
    microstructure has σ(u), and integrate over cells with `dx` alone, which has the quadrature points and the tags:

        sigma = fe2.QuadratureLaw(law, u)
        F = ufl.inner(sigma.stress, sigma.measure.of(v)) * sigma.dx - ufl.dot(b, v) * sigma.dx
        J = sigma.derivative(F, du)

    At small strain `sigma.measure.of` is `fe2.mandel.strain`.

    Call `update()` whenever u has changed and `commit()` when the step is accepted.

    Args:
        law: the law of all cells, or tag, or name in `names` → law.
        u: displacement, or the potential of a law of gradients; a `fem.Function` on a Lagrange space.
        strain: UFL vector (d,) of u, zero without displacement (but for strains of other causes, such as temperature);
            None for that of the law's measure.
        cell_tags: `MeshTags` of the cells, for tag → law and for the measure `dx`.
        names: name of a phase → tag.

    Attributes:
        measure: of the laws.
        stress: `fem.Function` (d,) [MPa].
        tangent: `fem.Function` (d, d) [MPa].
        dx: the measure with the law's quadrature points.
        regions: a `Region` per law, in the order of the tags; a single law has one region.
        cells: those that this rank owns.
        points: (points, dim) of the reference cell.

    Raises:
        ValueError: a tag without law, a law without tag, an unknown name, laws that take different strains, or a
            `strain` that is not zero at zero displacement, as F, C and U.
        TypeError: a value that is no law.
    """

    def __init__(
        self,
        law: Law | meshes.ByPhase[Law],
        u: fem.Function,
        *,
        strain=None,
        cell_tags=None,
        names: Mapping[str, int] | None = None,
    ):
        mesh = u.function_space.mesh
        self.u, self.mesh = u, mesh
        # Each rank evaluates the points of the cells it owns; no form is integrated over ghost cells.
        self.cells = np.arange(mesh.topology.index_map(mesh.topology.dim).size_local, dtype=np.int32)
        if isinstance(law, Mapping):
            laws = laws_by_tag(law, names or {})
            parts = _parts(mesh, laws, cell_tags, {tag: name for name, tag in (names or {}).items()})
        else:
            need_law(law)
            parts = [(type(law).__name__, law, self.cells)]
        self.measure = common_measure({label.partition(" of ")[2]: part for label, part, _ in parts})
        if strain is None:
            need = () if self.measure.scalar else (mesh.geometry.dim,)
            if u.ufl_shape != need:
                name = self.measure.name
                raise ValueError(f"u has the shape {u.ufl_shape}, the laws take the {name} of one of {need}")
        self.strain = self.measure.of(u) if strain is None else strain
        for label, part, _ in parts:
            if self.strain.ufl_shape != (part.strain_size,):
                raise ValueError(f"the strain has shape {self.strain.ufl_shape}, {label} takes ({part.strain_size},)")
        (d,) = self.strain.ufl_shape
        q = quadrature_degree(mesh, u.function_space.element.basix_element.degree)
        self.points, self._weights = basix.make_quadrature(mesh.basix_cell(), q)
        self.stress, self.tangent = (
            fem.Function(fem.functionspace(mesh, basix.ufl.quadrature_element(mesh.basix_cell(), s, degree=q)), name=n)
            for s, n in (((d,), "stress"), ((d, d), "tangent"))
        )
        self.dx = ufl.Measure("dx", domain=mesh, subdomain_data=cell_tags, metadata={"quadrature_degree": q})
        self._strain = fem.Expression(self.strain, self.points)
        with raise_on_all_ranks(mesh.comm):
            self._refuse_deformation_gradients()
        self.regions = []
        for label, part, cells in parts:
            state = part.initial_state(cells.size * len(self.points))
            self.regions.append(Region(label, part, cells, state, state))

    def _refuse_deformation_gradients(self) -> None:
        """Raise ValueError if the strain at zero displacement is that of the identity."""
        displacement = self.u.x.array.copy()
        self.u.x.array[:] = 0.0
        at_rest = self.strains(self.cells[:1])
        self.u.x.array[:] = displacement
        dim = self.mesh.geometry.dim
        for measure in (SMALL_STRAIN, DISPLACEMENT_GRADIENT):
            identity = np.einsum("kij,ij->k", measure.basis(dim), np.eye(dim))
            if at_rest.shape[1] == len(identity) and at_rest.size and abs(at_rest - identity).max() < 1e-8:
                raise ValueError(
                    f"the strain at zero displacement is {at_rest[0].tolist()}, that of the identity: need one that "
                    "vanishes, such as fe2.mandel.strain(u) for a small strain, or F − I"
                )

    def strains(self, cells=None) -> Array:
        """Strain (cells * points, d) at the present displacement, in `cells` or in all that this rank owns."""
        cells = self.cells if cells is None else cells
        return self._strain.eval(self.mesh, cells).reshape(-1, *self.strain.ufl_shape)

    def coordinates(self, cells=None) -> Array:
        """Coordinates (cells * points, dim) of the quadrature points, in the order of `strains`."""
        return _coordinates(self.mesh, self.points, self.cells if cells is None else cells)

    def places(self, cells=None) -> Array:
        """The old name of `coordinates`."""
        warnings.warn("QuadratureLaw.places is now QuadratureLaw.coordinates", DeprecationWarning, stacklevel=2)
        return self.coordinates(cells)

    def stresses(self) -> Array:
        """Stress (points, d) [MPa] of the last update at all points that this rank owns; a view."""
        d = self.strain.ufl_shape[0]
        return self.stress.x.array[: self.cells.size * len(self.points) * d].reshape(-1, d)

    def means(self, values: Array) -> Array:
        """Cell means (cells, m) of `values` (cells * points, m) at all points that this rank owns."""
        gradients = _coordinate_element(self.mesh).tabulate(1, self.points)[1:, :, :, 0]
        jacobian = np.einsum("iqn,cnx->cqxi", gradients, _nodes(self.mesh, self.cells))
        weights = abs(_determinants(jacobian)) * self._weights
        sums = np.einsum("cq,cqm->cm", weights, values.reshape(*weights.shape, values.shape[1]))
        return sums / weights.sum(axis=1, keepdims=True)

    @property
    def rate_dependent(self) -> bool:
        """Whether some law depends on time, so that `update` needs a step."""
        return any(getattr(region.law, "rate_dependent", False) for region in self.regions)

    def update(self, step: TimeStep | None = None) -> None:
        """Evaluate the laws at the present displacement (collective).

        Args:
            step: at whose end the displacement is reached, for laws that depend on time.

        Raises:
            ValueError: a law that depends on time, and no step.
            NotFinite: on all ranks; names the point.
            Exception: any error of a law, on all ranks.
        """
        comm = self.mesh.comm
        strains = []
        with raise_on_all_ranks(comm):
            for region in self.regions:
                strain = self.strains(region.cells)
                self._check(region, strain, "the strain", strain, strain.shape)
                self._refuse_inside_out(region, strain)
                strains.append(strain)
        # Laws are collective: all ranks evaluate all of them in the same order, those without points with none.
        for region, strain in zip(self.regions, strains, strict=True):
            response = respond(region.law, strain, region.state, region.guess, comm, step)
            with raise_on_all_ranks(comm):
                self._take(region, strain, response)

    def _take(self, region: Region, strain: Array, response: Response) -> None:
        """Write the response of a law into the functions and the region."""
        n, d = strain.shape
        for what, values, shape in (
            ("stress", response.stress, (n, d)),
            ("tangent", response.tangent, (n, d, d)),
            ("state", response.state, region.state.shape),
        ):
            self._check(region, strain, f"the {what} that it returned", values, shape)
        self.stress.x.array.reshape(-1, len(self.points), d)[region.cells] = response.stress.reshape(
            -1, len(self.points), d
        )
        self.tangent.x.array.reshape(-1, len(self.points), d * d)[region.cells] = response.tangent.reshape(
            -1, len(self.points), d * d
        )
        region.guess = response.state

    def _check(self, region: Region, strain: Array, what: str, values: Array, shape: tuple[int, ...]) -> None:
        if values.shape != shape:
            raise ValueError(f"{region.label}: {what} has shape {values.shape}, need {shape}")
        good = np.logical_and.reduce(np.isfinite(values), axis=tuple(range(1, values.ndim)))
        if not good.all():
            k = int(np.flatnonzero(~good)[0])
            where, shown = (np.array2string(a[k], precision=6) for a in (self.coordinates(region.cells), strain))
            raise NotFinite(
                f"{region.label}: {what} is not finite at {np.count_nonzero(~good)} of {len(good)} points, the first "
                f"of them at x = {where} with strain {shown}{why_not_finite(strain[~good], region.measure)}"
            )

    def _refuse_inside_out(self, region: Region, strain: Array) -> None:
        bad = np.flatnonzero(region.measure.determinants(strain) <= 0)
        if bad.size:
            where = np.array2string(self.coordinates(region.cells)[bad[0]], precision=6)
            found = region.measure.determinants(strain[bad[:1]])[0]
            raise NotFinite(
                f"{region.label}: det F = {found:.3g} at x = {where} turns the point inside out, as at {bad.size} of "
                f"{len(strain)} points"
            )

    def commit(self) -> None:
        """Accept the step: the next one starts from the state of the last update."""
        for region in self.regions:
            region.state = region.guess

    def rollback(self) -> None:
        """Reject the step and return to the accepted state."""
        for region in self.regions:
            region.guess = region.state

    def derivative(self, F, du):
        """UFL derivative of a form `F` of `stress` (and perhaps u itself) in the direction `du`.

        Raises:
            ValueError: integrals over cells with different tags, which DOLFINx cannot have in one form.
        """
        tags = [i.subdomain_data() for i in F.integrals() if i.integral_type() == "cell"]
        if any(t is not tags[0] for t in tags):
            raise ValueError(
                "the form has integrals over cells with different tags: `sigma.dx` has the cell_tags that the "
                "QuadratureLaw was given, another measure others or none. Write all with `sigma.dx`, also loads like "
                "ufl.dot(b, v) * sigma.dx, or make your measure with subdomain_data=cell_tags, too"
            )
        strain = expand_derivatives(ufl.derivative(self.strain, self.u, du))
        change = ufl.dot(self.tangent, strain)
        return ufl.derivative(F, self.u, du) + ufl.derivative(F, self.stress, change)


def _determinants(matrices: Array) -> Array:
    """Determinants (...) of matrices (..., dim, dim), dim up to 3, by products alone.

    NumPy's `det` is the exponential of a sum of logarithms, which rounds differently in another unit of length.
    """
    if matrices.shape[-1] == 1:
        return matrices[..., 0, 0]
    first, second = matrices[..., 0, :], matrices[..., 1, :]
    if matrices.shape[-1] == 2:
        return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]
    return np.einsum("...i,...i->...", first, np.cross(second, matrices[..., 2, :]))


def law_coordinates(domain: meshes.TaggedMesh, degree: int = 1) -> Array:
    """Coordinates (n, dim) of this rank's quadrature points in a structure, in the order of its law's rows.

    For laws that differ from point to point.

    Args:
        domain: the structure.
        degree: of the displacement, as in `fe2.MacroProblem`.

    Raises:
        TypeError: another kind of mesh.
    """
    meshes.need_tagged_mesh(domain, "domain")
    mesh = domain.mesh
    points, _ = basix.make_quadrature(mesh.basix_cell(), quadrature_degree(mesh, degree))
    return _coordinates(mesh, points, np.arange(mesh.topology.index_map(mesh.topology.dim).size_local))


def _coordinates(mesh, points: Array, cells: npt.NDArray[np.integer]) -> Array:
    """Coordinates (cells * points, dim) of points of the reference cell.

    DOLFINx compiles an expression collectively, and this is for a single rank, too.
    """
    values = _coordinate_element(mesh).tabulate(0, points)[0, :, :, 0]
    return np.einsum("qn,cnx->cqx", values, _nodes(mesh, cells)).reshape(-1, mesh.geometry.dim)


def _nodes(mesh, cells: npt.NDArray[np.integer]) -> Array:
    """Coordinates (cells, nodes, dim) of the nodes of cells."""
    return mesh.geometry.x[geometry_dofmap(mesh)[cells], : mesh.geometry.dim]


def _coordinate_element(mesh) -> Any:
    return mesh.ufl_domain().ufl_coordinate_element().basix_element


def _parts(mesh, laws: Mapping[int, Law], cell_tags, names: Mapping[int, str]) -> list[tuple]:
    """(label, law, owned cells) in the order of the tags; every cell has exactly one law (collective)."""
    if cell_tags is None:
        raise ValueError("one law per tag: need cell_tags")
    owned = mesh.topology.index_map(mesh.topology.dim).size_local
    mine = cell_tags.indices < owned
    cells, tags = cell_tags.indices[mine], cell_tags.values[mine]
    present, counts = np.unique(np.concatenate(mesh.comm.allgather(tags)), return_counts=True)

    def label(tag):
        return f'tag {tag} ("{names[tag]}")' if tag in names else f"tag {tag}"

    faults = [f"{label(tag)} has no law" for tag in present.tolist() if tag not in laws]
    faults += [f"{label(tag)} has the law {type(laws[tag]).__name__}, but no cells" for tag in set(laws) - {*present}]
    untagged = mesh.topology.index_map(mesh.topology.dim).size_global - counts.sum()
    if untagged:
        faults.append(f"{untagged} cells have no tag")
    if faults:
        raise ValueError("; ".join(faults))
    return [(f"{type(laws[tag]).__name__} of {label(tag)}", laws[tag], cells[tags == tag]) for tag in sorted(laws)]
