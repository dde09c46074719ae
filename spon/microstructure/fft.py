# SPDX-License-Identifier: MIT
"""Many RVEs on regular grids at once: full-field problems by FFT, an element for each pixel or voxel.

The elements are those of `fe2.RVE(degree=1)` on `meshes.from_labels`, multilinear with two Gauss points in each
direction; the solution is theirs. The fluctuation of the displacement is periodic, and equilibrium

    r(u) = ∫ Bᵀ σ(E + B u) = 0

is solved by Newton's method with conjugate gradients. Their preconditioner is the inverse of the same elements for a
homogeneous medium, which a Fourier transform splits into blocks of d × d, one for each frequency: the number of
iterations depends on the contrast of the phases and not on the grid (Ladecký, Leute, Falsafi, Pultarová, Pastewka,
Junge & Zeman, Appl. Math. Comput. 446, 2023). The tangent of the mean stress is that of the discrete problem, by
conjugate gradients for all strain components at once. The strain is that of the laws' measure: a small strain, a
displacement gradient or the gradient of a scalar, which has blocks of one number. The first axis of all arrays is the
RVE. A batch takes as long as its slowest RVE, and no RVE changes the result of another.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spon.arguments import real_tensor
from spon.constitutive.measure import DISPLACEMENT_GRADIENT, GRADIENT, SMALL_STRAIN
from spon.constitutive.phase_law import PhaseLaw
from spon.microstructure.response import RVENotConverged

_NEWTON, _LINEAR, _HALVINGS = 30, 2000, 12  # iterations, at most: of Newton's method, of CG, of the line search
_SOFTEST = 1e-6  # stiffness at zero strain, relative to the stiffest phase, below which a phase counts as a void


class GridNotConverged(RVENotConverged):
    """An RVE on a grid without convergence."""


@dataclass(frozen=True, slots=True, eq=False)
class GridResponse:
    """The response of n RVEs on a grid, each at a strain of its own.

    Args:
        stress: (n, d), homogenised [MPa].
        tangent: (n, d, d), homogenised [MPa]; NaN if not computed.
        energy: (n,), mean density [MPa]; NaN if a law has none.
        fluctuation: (n, *grid, dim), or (n, *grid, 1) of a scalar, of the nodes [length].
        iterations: (n,), of Newton's method.
        products: (n,), of the tangent with fields.
    """

    stress: Tensor
    tangent: Tensor
    energy: Tensor
    fluctuation: Tensor
    iterations: Tensor
    products: Tensor


class GridRVEs:
    """n RVEs with a phase for each pixel or voxel; `coupling.grid_rves` makes them from materials in UFL.

    Args:
        labels: integers (n, nx, ny) or (n, nx, ny, nz); `labels[k, i, j]` is the i-th element in x and the j-th in y of
            RVE k.
        laws: label → `spon.PhaseLaw`, path-independent, all of one measure.
        box: edge lengths of an RVE; if None, one in x, with square or cubic elements.
        dtype: of all fields.
        device: of all fields.

    Raises:
        ValueError: labels of another shape or without law, laws for other strains or of another measure than small
            strain, a phase without stiffness.
    """

    def __init__(
        self,
        labels: Tensor,
        laws: Mapping[int, PhaseLaw],
        *,
        box: Sequence[float] | None = None,
        dtype: torch.dtype = torch.float64,
        device: str | torch.device = "cpu",
    ):
        self.grid, self.dim = tuple(labels.shape[1:]), labels.ndim - 1
        if self.dim not in (2, 3) or min(self.grid) < 2:
            shape = tuple(labels.shape)
            raise ValueError(f"labels have the shape {shape}, need (n, nx, ny) or (n, nx, ny, nz), of 2 or more")
        names = {law.measure_name for law in laws.values()}
        if len(names) > 1:
            raise ValueError(f"the laws have the measures {sorted(names)}; all must have the same")
        self.measure_name = names.pop() if names else SMALL_STRAIN
        self.components = 1 if self.measure_name == GRADIENT else self.dim
        small, full = self.dim * (self.dim + 1) // 2, self.dim**2
        self.strain_size = d = {SMALL_STRAIN: small, DISPLACEMENT_GRADIENT: full, GRADIENT: self.dim}[self.measure_name]
        for tag, law in laws.items():
            if law.strain_size != d:
                raise ValueError(f"the law of label {tag} takes {law.strain_size} strain components, need {d}")
        present = torch.unique(labels).tolist()
        if unknown := [tag for tag in present if tag not in laws]:
            raise ValueError(f"label {unknown[0]} has no law; the labels with a law are {sorted(laws)}")
        self._laws = [laws[tag] for tag in present]
        self.dtype, self.device = dtype, torch.device(device)
        self.phase = torch.searchsorted(torch.tensor(present), labels.cpu().contiguous()).flatten(1).to(self.device)
        at_zero_strain = torch.stack([law.tangent(torch.zeros(d, dtype=torch.float64)) for law in self._laws])
        # At finite strain the tangent is zero for a rotation, which the metric of the law replaces.
        finite = self.measure_name == DISPLACEMENT_GRADIENT
        metric = torch.stack([law.metric for law in self._laws]) if finite else at_zero_strain
        sizes = torch.linalg.eigvalsh((metric + metric.mT) / 2)
        if float(sizes.min()) < _SOFTEST * float(sizes.max()):
            k = int(sizes.amin(1).argmin())
            raise ValueError(
                f"label {present[k]} ({self._laws[k].name}) has the stiffness {float(sizes[k, 0]):.3g} MPa at zero "
                f"strain beside {float(sizes.max()):.3g}, and the iterations grow with their ratio: need "
                f"{_SOFTEST:.0e} of it"
            )
        lengths = np.array([1.0] * self.dim) * np.array(self.grid) / self.grid[0] if box is None else np.array(box)
        operators = _strain_operators(lengths / self.grid, self.measure_name)
        self._B = torch.from_numpy(operators).to(self.device, dtype)
        self._points = len(self._B)
        self._shifts = [tuple(-s for s in corner) for corner in np.ndindex(*[2] * self.dim)]
        self._reference = at_zero_strain.mean(0).to(self.device, dtype)  # the reference medium
        # Rounding of a stress as large as the stiffness: what is left where a rotation of any size has no stress.
        self._rounding = 8 * torch.finfo(dtype).eps * float(sizes.max()) ** 0.5 if finite else 0.0
        self._compliance = torch.linalg.inv(metric.mean(0)).to(self.device, dtype)
        self._inverse_symbol = self._invert_symbol()

    def __len__(self) -> int:
        return len(self.phase)

    # Fields: u (n, c, *grid, dim) of c columns; strains and stresses (n, c, voxels, points, d).

    def _strain(self, u: Tensor) -> Tensor:
        axes = tuple(range(2, 2 + self.dim))
        corners = torch.stack([torch.roll(u, shift, axes) for shift in self._shifts], -2)
        flat = corners.reshape(*u.shape[:2], math.prod(self.grid), -1)
        return (flat @ self._B.flatten(0, 1).T).unflatten(-1, (self._points, self.strain_size))

    def _force(self, stress: Tensor) -> Tensor:
        """The transpose of `_strain`, with means instead of integrals."""
        flat = stress.flatten(-2) @ self._B.flatten(0, 1) / (self._points * math.prod(self.grid))
        corners = flat.reshape(*stress.shape[:2], *self.grid, 2**self.dim, self.components)
        axes = tuple(range(2, 2 + self.dim))
        parts = (torch.roll(corners[..., k, :], tuple(-s for s in shift), axes) for k, shift in enumerate(self._shifts))
        return sum(parts)

    def _invert_symbol(self) -> Tensor:
        """Blocks (*frequencies, c, c) of the inverse of the reference medium's operator."""
        c = self.components
        impulse = torch.zeros(1, c, *self.grid, c, dtype=self.dtype, device=self.device)
        impulse[(0, range(c), *[0] * self.dim, range(c))] = 1.0
        response = self._force(self._strain(impulse) @ self._reference)[0]
        symbol = torch.fft.rfftn(response, dim=tuple(range(1, 1 + self.dim))).movedim(0, -1)
        symbol = (symbol + symbol.mH) / 2
        symbol[(0,) * self.dim] = torch.eye(c, dtype=symbol.dtype, device=self.device)
        inverse = torch.linalg.inv(symbol)
        inverse[(0,) * self.dim] = 0.0  # rigid translations, which have no energy
        return inverse

    def _precondition(self, r: Tensor) -> Tensor:
        axes = tuple(range(2, 2 + self.dim))
        found = (self._inverse_symbol @ torch.fft.rfftn(r, dim=axes)[..., None])[..., 0]
        return torch.fft.irfftn(found, s=self.grid, dim=axes)

    def _at(self, which: str, strain: Tensor, phase: Tensor) -> Tensor:
        """A law's "stress", "tangent" or "energy" at strains (n, voxels, points, d)."""
        tail = {"stress": (self.strain_size,), "tangent": (self.strain_size,) * 2, "energy": ()}[which]
        out = strain.new_empty(*strain.shape[:-1], *tail)
        for k, law in enumerate(self._laws):
            here = phase == k
            out[here] = getattr(law, which)(strain[here])
        if self.measure_name == DISPLACEMENT_GRADIENT and which == "stress":
            f = strain.unflatten(-1, (self.dim, self.dim)) + torch.eye(self.dim).to(strain)
            out[torch.linalg.det(f) <= 0] = torch.nan  # no admissible step of Newton's method
        return out

    # Problems.

    @torch.no_grad()
    def homogenise(
        self,
        strain: Tensor | npt.ArrayLike,
        *,
        start: Tensor | npt.ArrayLike | None = None,
        tolerance: float = 1e-10,
        tangent: bool = True,
    ) -> GridResponse:
        """Homogenised stress, tangent and energy of each RVE at a strain of its own.

        Args:
            strain: (n, d), in the components of the measure.
            start: (n, *grid, dim), or (n, *grid, 1), initial fluctuations; they change the result only within the
                tolerance.
            tolerance: of the residual, relative to the stress, both in the norm of the reference medium.
            tangent: whether to compute it; without it a third of the work or more is saved.

        Raises:
            ValueError: strains or fluctuations that are not real, finite and of this shape.
            GridNotConverged: RVEs without convergence; names the first.
        """
        n, d = len(self), self.strain_size
        strain = real_tensor("strains", strain)
        if strain.shape != (n, d):
            raise ValueError(f"strains have the shape {tuple(strain.shape)}, need ({n}, {d})")
        if not bool(strain.isfinite().all()):
            k = int((~strain.isfinite().all(1)).nonzero()[0])
            raise ValueError(f"the strain of RVE {k} is {strain[k].tolist()}, need finite numbers")
        mean = strain.to(self.device, self.dtype)
        u = mean.new_zeros(n, *self.grid, self.components)
        if start is not None:
            given = real_tensor("fluctuations", start)
            if given.shape != u.shape or not bool(given.isfinite().all()):
                raise ValueError(
                    f"initial fluctuations have the shape {tuple(given.shape)}, need {tuple(u.shape)}, all finite"
                )
            u = given.to(u, copy=True)
        iterations, products = (torch.zeros(n, dtype=torch.int64, device=self.device) for _ in range(2))
        active = torch.arange(n, device=self.device)  # RVEs that have not converged
        for _ in range(_NEWTON + 1):
            e, phase = mean[active], self.phase[active]
            local = e[:, None, None] + self._strain(u[active, None])[:, 0]
            stress = self._at("stress", local, phase)
            r, off, size = self._residual(stress)
            open_ = ~(off <= tolerance * size + self._rounding * (1 + e.norm(dim=1)))
            if not bool(open_.any()):
                break
            active, local, phase, r = active[open_], local[open_], phase[open_], r[open_]
            off, size = off[open_], size[open_]
            C = self._at("tangent", local, phase)
            # Tolerance by the progress of Newton's method.
            enough = torch.maximum((off / size).clamp(max=0.1), 0.1 * tolerance * size / off)
            step, count = self._solve(C, -r[:, None], enough[:, None])
            step = step[:, 0]
            products[active] += count
            iterations[active] += 1
            u[active] = self._shortened(mean[active], phase, u[active], step, off)
        else:
            k = int(active[0])
            raise GridNotConverged(
                k,
                f"strain {strain[k].tolist()}: the residual is {float((off / size)[0]):.1e} of the "
                f"stress after {_NEWTON} iterations, need {tolerance:.0e}",
            )
        return self._response(mean, u, iterations, products, tangent, tolerance)

    def _residual(self, stress: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """r (n, *grid, dim), its norm (n,) and that of the stress, dual to the reference medium's energy."""
        r = self._force(stress[:, None])[:, 0]
        off = _dot(r[:, None], self._precondition(r[:, None]))[:, 0].clamp(min=0).sqrt()
        size = ((stress @ self._compliance) * stress).sum(-1).mean((1, 2)).sqrt()
        return r, off, size

    def _shortened(self, mean: Tensor, phase: Tensor, u: Tensor, step: Tensor, off: Tensor) -> Tensor:
        """u + t step, with t halved while the residual would grow."""
        length = torch.ones(len(u), dtype=self.dtype, device=self.device)
        wide = (-1, *[1] * (self.dim + 1))
        for _ in range(_HALVINGS):
            trial = u + length.view(wide) * step
            local = mean[:, None, None] + self._strain(trial[:, None])[:, 0]
            _, after, _ = self._residual(self._at("stress", local, phase))
            worse = ~(after < off)
            if not bool(worse.any()):
                break
            length = torch.where(worse, length / 2, length)
        return u + length.view(wide) * step

    def _solve(self, C: Tensor, right: Tensor, enough: Tensor) -> tuple[Tensor, Tensor]:
        """Conjugate gradients for c right sides (n, c, *grid, dim) of each RVE, to relative residuals `enough` (n, c)
        in the dual norm, and the number of products (n,). A converged column no longer changes."""
        x, r = torch.zeros_like(right), right
        z = self._precondition(r)
        p, rz = z, _dot(r, z)
        first, count = rz.clone(), torch.zeros(len(C), dtype=torch.int64, device=self.device)
        wide = (..., *[None] * (self.dim + 1))
        for _ in range(_LINEAR):
            going = rz > enough**2 * first
            if not bool(going.any()):
                break
            count += going.any(1)
            Kp = self._force(_stresses(C, self._strain(p)))
            alpha = torch.where(going, rz / torch.where(going, _dot(p, Kp), 1.0), 0.0)
            x, r = x + alpha[wide] * p, r - alpha[wide] * Kp
            z = self._precondition(r)
            after = torch.where(going, _dot(r, z), rz)
            beta = torch.where(going, after / torch.where(going, rz, 1.0), 0.0)
            p, rz = torch.where(going[wide], z + beta[wide] * p, p), after
        return x, count

    def _response(self, mean, u, iterations, products, tangent, tolerance) -> GridResponse:
        local = mean[:, None, None] + self._strain(u[:, None])[:, 0]
        stress = self._at("stress", local, self.phase)
        d = self.strain_size
        effective = mean.new_full((len(self), d, d), torch.nan)
        if tangent:
            C = self._at("tangent", local, self.phase)
            # Unit strains and the sensitivities of the fluctuation to them. The tangent is their least energy, so that
            # its error is quadratic in theirs.
            enough = mean.new_full((len(self), d), 0.1 * tolerance**0.5)
            sensitivities, count = self._solve(C, -self._force(C.movedim(-1, 1)), enough)
            products = products + count
            along = torch.eye(d).to(mean)[:, None, None] + self._strain(sensitivities)
            effective = torch.einsum("ncvpd,nevpd->nce", along, _stresses(C, along)) / along[0, 0, ..., 0].numel()
            effective = (effective + effective.mT) / 2
        energy = mean.new_full((len(self),), torch.nan)
        if all(law.energy_program is not None for law in self._laws):
            energy = self._at("energy", local, self.phase).mean((1, 2))
        return GridResponse(stress.mean((1, 2)), effective, energy, u, iterations, products)


def _stresses(C: Tensor, strain: Tensor) -> Tensor:
    """C ε (n, c, ..., d) of tangents (n, ..., d, d) and strains (n, c, ..., d)."""
    # On a CPU, products of whole fields take a third of the time of small matrix products at each point.
    out = C[:, None, ..., 0] * strain[..., :1]
    for k in range(1, strain.shape[-1]):
        out.addcmul_(C[:, None, ..., k], strain[..., k : k + 1])
    return out


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products (n, c) of fields (n, c, ...)."""
    return (a * b).flatten(2).sum(-1)


def _strain_operators(size: np.ndarray, measure: str) -> np.ndarray:
    """Strains (points, d, corners · components) of the corners' values in an element of edges `size` (dim,)."""
    dim = len(size)
    pairs = [(0, 1)] if dim == 2 else [(1, 2), (0, 2), (0, 1)]
    gauss = 0.5 + np.array([-0.5, 0.5]) / 3**0.5
    corners = list(np.ndindex(*[2] * dim))
    found = []
    for point in np.stack(np.meshgrid(*[gauss] * dim, indexing="ij"), -1).reshape(-1, dim):
        gradients = np.empty((len(corners), dim))
        for a, corner in enumerate(corners):
            factors = np.where(corner, point, 1 - point)
            for i in range(dim):
                gradients[a, i] = (1 if corner[i] else -1) / size[i] * np.delete(factors, i).prod()
        if measure == GRADIENT:
            found.append(gradients.T)
            continue
        if measure == DISPLACEMENT_GRADIENT:
            found.append(np.einsum("aj,ik->ijak", gradients, np.eye(dim)).reshape(dim * dim, -1))
            continue
        B = np.zeros((dim + len(pairs), len(corners), dim))
        for i in range(dim):
            B[i, :, i] = gradients[:, i]
        for k, (i, j) in enumerate(pairs, dim):
            B[k, :, i], B[k, :, j] = gradients[:, j] / 2**0.5, gradients[:, i] / 2**0.5
        found.append(B.reshape(len(B), -1))
    return np.array(found)
