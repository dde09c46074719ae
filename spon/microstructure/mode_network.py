# SPDX-License-Identifier: MIT
"""Cells that differ from point to point: a network from the phases of a cell to the modes that it moves in.

Every cell has the same mesh, and its own phases. A network reads the phases and names, for each of r modes, a
polarisation: a stress τ at each point, smooth within a phase. The mode is what a homogeneous medium of stiffness C⁰
does under it, the periodic field of least energy ∫ ½ ε·C⁰ε + τ·ε. So much of the answer is known beforehand: that modes
are periodic, and that what happens in an inclusion is felt everywhere. (It is taken from the equation of Lippmann and
Schwinger, for which see Moulinec & Suquet, CMAME 157, 1998.)

The first d modes are then corrected: those that solve the cell's linear problem at rest best take their place, found
among all of them and what the homogeneous medium does under the forces that are left; so some times. It is what an
iterative solver would do, which begins where the network has brought it, and training knows of it.

In these r modes the cell's energy is minimised at each macroscale strain: r equations with the user's own law. Hence
the fluctuation is compatible and periodic, the energy an upper bound of that of the same finite element space, the
tangent symmetric and the derivative of the stress, and Hill–Mandel's equation holds, whatever the network says.

Training needs no solutions. It makes the energies of random cells at random strains small, which bounds them from below
alone; as the coefficients of the modes are those of the least energy, their derivatives drop out (envelope theorem).
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import scipy.sparse
import torch
from torch import Tensor, nn

from spon.archive import ModelFileError, Reader, reads, write
from spon.constitutive.phase_law import PhaseLaw
from spon.operators.discretisation import Discretisation
from spon.operators.network import Operator
from spon.reduced.galerkin import ReducedNotConverged
from spon.reduced.model import Fingerprint, require_same
from spon.sparse import SparseOperator
from spon.training.deprecated import takes_old_keywords
from spon.training.fit import fit_samples
from spon.training.options import TrainingOptions
from spon.training.result import TrainingResult


@dataclass(frozen=True, slots=True, eq=False)
class CellMesh:
    """The mesh that all cells share, with P points and N nodes of displacement.

    strains: (P d, dofs), Mandel strains at the points of displacements. tying: (dofs, unknowns) periodic displacements.
    interpolation: (P, nodes), values at the points of a field of the network. weights: (P,), the mean of a field being
    Σ_p w_p field_p. cells: (P,) the cell of the mesh that each point is in.
    """

    strains: SparseOperator
    tying: SparseOperator
    interpolation: SparseOperator
    weights: Tensor
    cells: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class CellResponse:
    """stress: (n, s, d), tangent: (n, s, d, d), energy: (n, s) [MPa], means over the cells. coefficients: (n, s, r),
    slopes: (n, s, r, d), theirs by the strain. strain: (n, s, P, d) at the points."""

    stress: Tensor
    tangent: Tensor
    energy: Tensor
    coefficients: Tensor
    slopes: Tensor
    strain: Tensor


class ModeNetwork(nn.Module):
    """A network from phases to modes, and the response of cells in them; `coupling.mode_network` makes one of an RVE.

    Args:
        discretisation: from the indicators of all phases but the first, one number per cell of the mesh each, to a
            periodic Lagrange field of r · m · d components.
        mesh: what the cells share. laws: of the m phases, with energies, all for strains of d components. tags: of the
            phases, ascending.
        r: number of modes, d at least. half_range: (d,) largest strains to train for, in float64.
        corrections: of the first d modes, how many.
        fingerprint: of the mesh and the materials, without the phases of any cell; None if it is not known.
        **options: of `spon.Operator`.

    Raises:
        ValueError: laws without energy, of local unknowns or of other strains, or a discretisation for other numbers.
    """

    weights: Tensor
    cells: Tensor
    half_range: Tensor
    compliance: Tensor
    strains: SparseOperator
    interpolation: SparseOperator
    forces: SparseOperator

    def __init__(
        self,
        discretisation: Discretisation,
        mesh: CellMesh,
        laws: Sequence[PhaseLaw],
        tags: Sequence[int],
        *,
        r: int,
        half_range: Tensor,
        corrections: int = 3,
        fingerprint: Fingerprint | None = None,
        **options,
    ):
        super().__init__()
        self.fingerprint = fingerprint
        self.laws, self.r, self.corrections, d = tuple(laws), r, corrections, len(half_range)
        if r < d:
            raise ValueError(f"r = {r}, need {d} modes at least")
        for law in self.laws:
            if law.energy_program is None or law.local is not None or law.strain_size != d:
                raise ValueError(f"{law.name}: need a law with an energy, no local unknowns and {d} strain components")
        m, components = len(self.laws), discretisation.output.block_size
        if m < 2 or components != r * m * d or len(discretisation.encoders) != m - 1:
            raise ValueError(
                f"{m} phases and {r} modes need {m - 1} inputs and {r * m * d} components, not "
                f"{len(discretisation.encoders)} and {components}; and two phases at least"
            )
        self.network = Operator(discretisation, **options)
        self.tags, self.cell_mesh, self._half_range = tuple(tags), mesh, half_range
        weighted = mesh.strains.scipy.multiply(mesh.weights.repeat_interleave(d).numpy()[:, None])
        self._unrounded = {
            "weights": mesh.weights,
            "cells": mesh.cells,
            "half_range": half_range,
            "compliance": _compliance(mesh, self.laws[0]),
            "strains": mesh.strains,
            "interpolation": mesh.interpolation,
            "forces": SparseOperator.of(weighted.T.tocsr()),
        }
        self._place()
        with torch.no_grad():
            # Before it has learned anything the network says what a lone inclusion needs under each unit strain.
            start = self.network.mean.view(r, m, d)
            for k in range(r):
                start[k, 1 + (k // d) % (m - 1) if k < d * (m - 1) else k % m, k % d] = 1.0
            self.network.scale.fill_(0.3)
            for k in range(m - 1):
                getattr(self.network, f"mean_{k}")[0] = 0.3
                getattr(self.network, f"scale_{k}")[0] = 0.4

    def _place(self) -> None:
        """What the cells share, where the network is, from the numbers that no precision has rounded."""
        scale = self.network.scale
        for name, value in self._unrounded.items():
            moved = value.to(scale.device) if name == "cells" else value.to(device=scale.device, dtype=scale.dtype)
            setattr(self, name, moved)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self._place()
        return self

    def require(self, fingerprint: Fingerprint) -> None:
        """Raise ValueError if it was made for another mesh or other materials than those of an RVE, whatever the phases
        of its cells; says what differs."""
        shared = {part: value for part, value in fingerprint.items() if part not in ("phases", "whole")}
        require_same("the network of modes", self.fingerprint, shared)

    def phases(self, tags: Tensor) -> Tensor:
        """Numbers of the phases (cells, n) of tags (n, cells); raises ValueError for a tag that is none of `tags`."""
        known = torch.tensor(self.tags, device=tags.device)
        found = torch.searchsorted(known, tags.contiguous()).clamp(max=len(known) - 1)
        if not bool((known[found] == tags).all()):
            raise ValueError(f"tag {int(tags[known[found] != tags][0])} is none of the network's, {list(self.tags)}")
        return found.T.contiguous()

    def phase(self, phases: Tensor) -> Tensor:
        """Phase (n, P) of the points of n cells, phases (cells, n) from 0 to m − 1; raises ValueError for others."""
        count = int(self.network.spaces.encoders[0].shape[1])
        if phases.ndim != 2 or len(phases) != count or phases.is_floating_point():
            raise ValueError(
                f"phases have the shape {tuple(phases.shape)} of {phases.dtype}, need integers ({count}, n)"
            )
        if phases.numel() and not 0 <= int(phases.min()) <= int(phases.max()) < len(self.laws):
            raise ValueError(f"phases from {int(phases.min())} to {int(phases.max())}, need 0 to {len(self.laws) - 1}")
        return phases[self.cells].T

    def modes(self, phases: Tensor) -> tuple[Tensor, Tensor]:
        """Displacements (n, dofs, r) and strains (n, P, d, r), of mean square one, of the modes of cells (cells, n)."""
        phase, n, r, d = self.phase(phases), phases.shape[1], self.r, len(self.half_range)
        said = self.network(*((phases == k).to(self.weights.dtype) for k in range(1, len(self.laws))))
        inside = (self.interpolation @ said.reshape(-1, r * len(self.laws) * d * n)).view(-1, r, len(self.laws), d, n)
        polarisation = inside[:, :, 0]
        for k in range(1, len(self.laws)):
            polarisation = torch.where((phase == k).T[:, None, None], inside[:, :, k], polarisation)
        loads = self.forces @ polarisation.permute(0, 2, 1, 3).reshape(-1, r * n)
        displacements, strains = self._under(loads.view(-1, r, n))
        others = displacements[..., d:], strains[..., d:]
        for _ in range(self.corrections):
            _, forces = self._linear(displacements, strains, phase)
            more = self._under(forces)
            displacements, strains = (torch.cat(pair, -1) for pair in zip((displacements, strains), more))
        if self.corrections:
            first, _ = self._linear(displacements, strains, phase)
            displacements, strains = (torch.cat(pair, -1) for pair in zip(first, others))
        return displacements, strains

    def _under(self, forces: Tensor) -> tuple[Tensor, Tensor]:
        """Displacements (n, dofs, k) and strains (n, P, d, k) of the homogeneous medium under forces (dofs, k, n)."""
        (_, k, n), d = forces.shape, len(self.half_range)
        displacements = self.compliance @ forces.reshape(-1, k * n)
        strains = (self.strains @ displacements).view(-1, d, k, n)
        return self._scaled(displacements.view(-1, k, n).permute(2, 0, 1), strains.permute(3, 0, 1, 2))

    def _scaled(self, displacements: Tensor, strains: Tensor) -> tuple[Tensor, Tensor]:
        tiny = torch.finfo(strains.dtype).tiny ** 0.5  # for a cell of one phase, where there may be none
        size = (torch.einsum("p,npdr->nr", self.weights, strains.square()) + tiny).sqrt()[:, None]
        return displacements / size, strains / size[:, None]

    def _linear(self, displacements: Tensor, strains: Tensor, phase: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """What solves the linear problem at rest best under each unit strain: displacements (n, dofs, d) and strains
        (n, P, d, d) of mean square one, and the forces (dofs, d, n) that it leaves."""
        d, (n, points) = len(self.half_range), phase.shape
        rest = torch.cat([law.tangent(self.weights.new_zeros(1, d)) for law in self.laws])[phase]
        unit = torch.eye(d).to(strains)
        fields = torch.cat([unit.expand(n, points, d, d), strains], -1)
        stiffness = _reduced(fields, self.weights, rest[:, None])[:, 0]
        share = -_solve(stiffness[:, d:, d:], stiffness[:, d:, :d])
        found = displacements @ share, strains @ share[:, None]
        forces = self.forces @ (rest @ (unit + found[1])).permute(1, 2, 3, 0).reshape(-1, d * n)
        return self._scaled(*found), forces.view(-1, d, n)

    def respond(
        self, modes: Tensor, phase: Tensor, strain: Tensor, *, tolerance: float = 1e-10, iterations: int = 30
    ) -> CellResponse:
        """The response of n cells with strain modes (n, P, d, r) and phases (n, P) at s strains each, (n, s, d).

        Raises:
            ReducedNotConverged: naming the first strain whose r equations were not solved.
        """
        coefficients, residual = self._minimise(modes, phase, strain, tolerance, iterations)
        if not (residual <= tolerance).all():
            cell, k = divmod(int(residual.nan_to_num(torch.inf).argmax()), strain.shape[1])
            raise ReducedNotConverged(
                f"cell {cell}, strain {strain[cell, k].tolist()}: the reduced residual is "
                f"{float(residual[cell, k]):.2e} of the stress after {iterations} iterations, need {tolerance:.0e}"
            )
        local = _local(modes, strain, coefficients)
        d, w = strain.shape[-1], self.weights
        fields = torch.cat([torch.eye(d).to(modes).expand(*modes.shape[:2], d, d), modes], -1)
        stiffness = _reduced(fields, w, self._at("tangent", local, phase))
        slopes = -_solve(stiffness[..., d:, d:], stiffness[..., d:, :d])
        return CellResponse(
            stress=torch.einsum("p,nspd->nsd", w, self._at("stress", local, phase)),
            tangent=stiffness[..., :d, :d] + stiffness[..., :d, d:] @ slopes,
            energy=self.energy(phase, local),
            coefficients=coefficients,
            slopes=slopes,
            strain=local,
        )

    def energy(self, phase: Tensor, strain: Tensor) -> Tensor:
        """Mean energies (n, s) [MPa] of strains (n, s, P, d) at the points of n cells, phases (n, P)."""
        return self._at("energy", strain, phase) @ self.weights

    def stress(self, phase: Tensor, strain: Tensor) -> Tensor:
        """Stresses (n, s, P, d) [MPa] at strains (n, s, P, d) at the points of n cells, phases (n, P)."""
        return self._at("stress", strain, phase)

    def missing(self, phase: Tensor, strain: Tensor) -> Tensor:
        """½ f·u (n, s) [MPa] of strains (n, s, P, d) at the points of n cells, phases (n, P).

        f are the internal forces, which vanish in equilibrium, and u what they do to the homogeneous medium. Divided by
        a lower bound of the tangents between here and there, in units of that medium, it bounds the energy above the
        least one: a uniformly convex function is no farther above its minimum than half its slope squared over that.
        """
        stress = self.stress(phase, strain)
        forces = self.forces @ stress.flatten(0, 1).flatten(1).T
        return ((self.compliance @ forces) * forces).sum(0).view(strain.shape[:2]) / 2

    def energies(self, phases: Tensor, strain: Tensor, iterations: int = 3) -> Tensor:
        """Energies (n, s) at strains (n, s, d) over those without fluctuation; what training makes small."""
        _, modes = self.modes(phases)
        phase = self.phase(phases)
        with torch.no_grad():
            coefficients, _ = self._minimise(modes, phase, strain, 0.0, iterations)
        uniform = strain[:, :, None].expand(-1, -1, len(self.weights), -1)
        return self.energy(phase, _local(modes, strain, coefficients)) / self.energy(phase, uniform)

    def _minimise(self, modes, phase, strain, tolerance, iterations):
        """Coefficients (n, s, r) of the least energy by Newton's method, and their relative residuals (n, s)."""
        coefficients = strain.new_zeros(*strain.shape[:2], self.r)
        for iteration in range(iterations + 1):
            local = _local(modes, strain, coefficients)
            stress = self._at("stress", local, phase)
            forces = torch.einsum("p,npdr,nspd->nsr", self.weights, modes, stress)
            scale = (stress.square().sum(-1) @ self.weights).sqrt()
            residual = forces.norm(dim=-1) / (scale + torch.finfo(scale.dtype).tiny)
            if iteration == iterations or (residual <= tolerance).all():
                break
            stiffness = _reduced(modes, self.weights, self._at("tangent", local, phase))
            coefficients = coefficients - _solve(stiffness, forces[..., None])[..., 0]
        return coefficients, residual

    def _at(self, what: str, strain: Tensor, phase: Tensor) -> Tensor:
        """Energy, stress or tangent at strains (n, s, P, d) of the law of each point's phase (n, P)."""
        found = getattr(self.laws[0], what)(strain)
        for k in range(1, len(self.laws)):
            here = (phase == k)[:, None].reshape(len(phase), 1, -1, *(1,) * (found.ndim - 3))
            found = torch.where(here, getattr(self.laws[k], what)(strain), found)
        return found

    def save(self, path: str | os.PathLike) -> None:
        """Write the network and all that it needs to one file, see `spon.load`."""
        spaces, tensors = self.network.discretisation.pack()
        tensors = {f"spaces.{name}": value for name, value in tensors.items()}
        shapes = {}
        for name in ("strains", "tying", "interpolation"):
            matrix = getattr(self.cell_mesh, name)
            shapes[name] = list(matrix.shape)
            tensors |= {f"{name}.{part}": getattr(matrix, part) for part in ("pointers", "columns", "values")}
        tensors |= {"mesh.weights": self.cell_mesh.weights, "mesh.cells": self.cell_mesh.cells}
        tensors |= {f"state.{name}": value for name, value in self.state_dict().items()}
        header = {
            "r": self.r,
            "corrections": self.corrections,
            "half_range": self._half_range.tolist(),
            "tags": list(self.tags),
            "fingerprint": None if self.fingerprint is None else dict(self.fingerprint),
            "laws": [law.to_json() for law in self.laws],
            "settings": self.network.settings,
            "spaces": spaces,
            "shapes": shapes,
        }
        write(path, "modes", header, tensors)


@reads("modes")
def load_modes(path: str | os.PathLike) -> ModeNetwork:
    """The network of a file, on the CPU in the precision that it was saved in. It needs no DOLFINx.

    Raises:
        FileNotFoundError. ModelFileError: a file that is damaged or holds no network of modes.
    """
    with Reader(path, "modes") as file:
        try:
            header, state = file.header, file.tensors("state.")
            spaces = Discretisation.unpack(header["spaces"], lambda name: file.tensors("spaces." + name))
            matrices = {
                name: SparseOperator(tuple(shape), **file.tensors(name + "."))
                for name, shape in header["shapes"].items()
            }
            mesh, laws = CellMesh(**matrices, **file.tensors("mesh.")), map(PhaseLaw.from_json, header["laws"])
            half_range = torch.tensor(header["half_range"], dtype=torch.float64)
            settings = header["settings"] | {"half_range": half_range}
            settings |= {name: header[name] for name in ("r", "corrections")}
            settings["fingerprint"] = header.get("fingerprint")  # not in the first files
            network = ModeNetwork(spaces, mesh, tuple(laws), header["tags"], **settings)
            network.to(dtype=state["network.scale"].dtype).load_state_dict(state)
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            raise ModelFileError(f"{path}: its parts do not fit together: {error}") from error
    return network


@takes_old_keywords
def train(
    network: ModeNetwork,
    phases: Tensor,
    options: TrainingOptions = TrainingOptions(batch=8),
    *,
    strains: int = 2,
    comm: Any = None,
    log: Callable[[str], None] | None = None,
) -> TrainingResult[ModeNetwork]:
    """Train for the least mean logarithm of the energy of random RVEs at random strains, without solving anything.

    Args:
        network: changed in place.
        phases: (cells, samples), integers: the phase of each cell of the mesh in each RVE.
        options: steps, rate, seed, ...
        strains: number of strains for each RVE, uniform in the box of `half_range`.
        comm: a communicator of mpi4py, whose ranks share each batch (collective).
        log: takes a line at each evaluation, on the first rank.

    Raises:
        ValueError: phases that the network does not know, or too few RVEs.
        FloatingPointError: energies that are not finite at the start.
    """
    samples = network.phase(phases).shape[0]
    generator = torch.Generator().manual_seed(options.seed)
    half = network.half_range
    pool = (2 * torch.rand(samples, strains, len(half), generator=generator, dtype=torch.float64) - 1).to(half) * half

    def loss(which: Tensor) -> Tensor:
        return network.energies(phases[:, which], pool[which]).log().mean()

    history = fit_samples(network.parameters(), loss, samples, options, generator=generator, comm=comm, log=log)
    return TrainingResult(network, history)


def _compliance(mesh: CellMesh, law: PhaseLaw) -> Tensor:
    """Displacements (dofs, dofs) by unit forces of a homogeneous periodic cell of this law at rest, one node held."""
    d = law.strain_size
    stiffness = law.tangent(torch.zeros(1, d, dtype=torch.float64))[0].numpy()
    dim = {3: 2, 6: 3}[d]
    free = mesh.tying.scipy[:, dim:]
    strains = mesh.strains.scipy @ free
    weighted = scipy.sparse.kron(scipy.sparse.diags_array(mesh.weights.numpy()), stiffness, format="csr") @ strains
    unit = torch.from_numpy(free.toarray())
    return unit @ torch.linalg.solve(torch.from_numpy((strains.T @ weighted).toarray()), unit.T)


def _local(modes: Tensor, strain: Tensor, coefficients: Tensor) -> Tensor:
    """Strains (n, s, P, d) at the points."""
    return strain[:, :, None] + torch.einsum("npdr,nsr->nspd", modes, coefficients)


def _reduced(fields: Tensor, weights: Tensor, tangent: Tensor) -> Tensor:
    """Σ_p w_p Φᵀ C Φ (n, s, k, k) for k fields (n, P, d, k) and tangents (n, s, P, d, d)."""
    return torch.einsum("npdj,nspdk->nsjk", weights[:, None, None] * fields, tangent @ fields[:, None])


def _solve(stiffness: Tensor, right: Tensor) -> Tensor:
    """Modes may be nearly the same; what they cannot tell apart they share."""
    diagonal = stiffness.diagonal(dim1=-2, dim2=-1)
    small = 10 * torch.finfo(stiffness.dtype).eps * diagonal.sum(-1, keepdim=True)
    return torch.linalg.solve(stiffness + torch.diag_embed(small.expand_as(diagonal)), right)
