# SPDX-License-Identifier: MIT
"""Measures of strain on the learned side: objectivity at finite strain, by construction.

Models are functions of coordinates: at small strain, and for gradients of a scalar, the strain itself; at finite strain
the Mandel components of U − I, with the polar decomposition F = R U. What a model predicts there, the stress T = dW/dU
and its derivative, is turned back to the first Piola–Kirchhoff stress P and dP/dF, so that P(Q F) = Q P(F) for each
rotation Q and any weights of a network, and a potential W gives dP/dF major symmetry. With C = FᵀF = U², the
Green–Lagrange strain E = (C − I)/2 and the symmetric maps 𝓛_A X = (A X + X A)/2 of symmetric tensors,

    dE = 𝓛_U dU,   T = 𝓛_U S,   dS/dE = 𝓛_U⁻¹ (dT/dU − 𝓛_S) 𝓛_U⁻¹,   P = F S,

with the second Piola–Kirchhoff stress S; T is the symmetric part of the Biot stress (Ogden, Non-Linear Elastic
Deformations, 1984, section 3.5). The local fields of a model are those at U, turned by R.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

SMALL_STRAIN, DISPLACEMENT_GRADIENT, GRADIENT = "small strain", "displacement gradient", "gradient"
_ROOTS = 12  # iterations of the square root, enough for stretches from 0.01 to 100


class _Turned(NamedTuple):
    """F (n, dim, dim), and the coordinates (n, s) of U."""

    gradient: Tensor
    coordinates: Tensor


@dataclass(frozen=True, slots=True)
class Measure:
    """What a model is given and what it returns, see the head of this module.

    Args:
        name: "small strain", "displacement gradient" or "gradient", as in `fe2.measure`.
        size: d, the number of components of the strain.

    Raises:
        ValueError: another name, or a size that the measure does not have.
    """

    name: str
    size: int

    def __post_init__(self):
        sizes = {SMALL_STRAIN: (1, 3, 6), DISPLACEMENT_GRADIENT: (4, 9), GRADIENT: (1, 2, 3)}
        if self.name not in sizes:
            raise ValueError(f"measure = {self.name!r}: need one of {', '.join(map(repr, sizes))}")
        if self.size not in sizes[self.name]:
            raise ValueError(f"a {self.name} has {sizes[self.name]} components, not {self.size}")

    @property
    def finite(self) -> bool:
        """Whether rotations are finite."""
        return self.name == DISPLACEMENT_GRADIENT

    @property
    def coordinate_size(self) -> int:
        """s, the number of coordinates."""
        return {4: 3, 9: 6}[self.size] if self.finite else self.size

    def embedding(self, like: Tensor) -> Tensor:
        """Q (s, d), the strains of unit coordinates, orthonormal."""
        if not self.finite:
            return torch.eye(self.size, dtype=like.dtype, device=like.device)
        return _symmetric(self.size).to(like).reshape(-1, self.size)

    def strain(self, coordinates: Tensor) -> Tensor:
        """Strains (..., d) of coordinates (..., s), without rotation."""
        return coordinates @ self.embedding(coordinates) if self.finite else coordinates

    def coordinates(self, strain: Tensor) -> Tensor:
        """Coordinates (n, s) of strains (n, d); NaN where det F ≤ 0."""
        return self._turned(strain).coordinates if self.finite else strain

    def stretch(self, strain: Tensor) -> Tensor:
        """The strains (n, d) without their rotation: U − I."""
        return self.strain(self.coordinates(strain)) if self.finite else strain

    def projected(self, stress: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
        """T (n, s) and dT/dU (n, s, s) of the stress (n, d) and tangent (n, d, d) at strains without rotation."""
        if not self.finite:
            return stress, tangent
        q = self.embedding(stress)
        return stress @ q.mT, q @ tangent @ q.mT

    def respond(self, at: Callable[[Tensor], tuple[Tensor, Tensor]], strain: Tensor) -> tuple[Tensor, Tensor]:
        """Stress (n, d) and tangent (n, d, d) at strains (n, d).

        Args:
            at: function of coordinates (n, s) that returns T (n, s) and dT/dU (n, s, s).
            strain: (n, d).
        """
        if not self.finite:
            return at(strain)
        turned = self._turned(strain)
        return self._turn_back(turned, *at(turned.coordinates))

    def turned_back(self, strain: Tensor, stress: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
        """Stress (n, d) and tangent (n, d, d) at strains (n, d), of T (n, s) and dT/dU (n, s, s) at their stretch."""
        return self.respond(lambda _: (stress, tangent), strain)

    def stress_map(self, strain: Tensor) -> Tensor:
        """J (n, d, s), with which the stress is J T at strains (n, d)."""
        if not self.finite:
            return self.embedding(strain).expand(len(strain), -1, -1)
        return self._stress_map(self._turned(strain))

    def rotations(self, strain: Tensor) -> Tensor:
        """R (n, dim, dim) at finite strains (n, d)."""
        gradient, coordinates = self._turned(strain)
        return gradient @ _inverse(_unit(gradient) + _tensors(coordinates, self.size))

    def rotated(self, rotation: Tensor, field: Tensor, identity: float = 0.0) -> Tensor:
        """Local tensors (n, m, d) turned by R (n, dim, dim); with `identity` 1 the deformation gradients I + field."""
        dim = rotation.shape[-1]
        one = identity * torch.eye(dim, dtype=field.dtype, device=field.device)
        turned = rotation[:, None] @ (field.unflatten(-1, (dim, dim)) + one) - one
        return turned.flatten(-2)

    # F = R U.

    def _turned(self, strain: Tensor) -> _Turned:
        dim = {4: 2, 9: 3}[self.size]
        h = strain.unflatten(-1, (dim, dim))
        # C − I and, as U − I = (U + I)⁻¹ (C − I), the coordinates keep their digits at small strains.
        change, f = h + h.mT + h.mT @ h, h + _unit(h)
        u = _root(change + _unit(h))
        v = _inverse(u + _unit(h)) @ change
        coordinates = torch.einsum("aij,nij->na", _symmetric(self.size).to(h), v)
        return _Turned(f, torch.where(_determinant(f)[:, None] > 0, coordinates, torch.nan))

    def _stress_map(self, turned: _Turned) -> Tensor:
        u = _unit(turned.gradient) + _tensors(turned.coordinates, self.size)
        return self._green_lagrange(turned).mT @ torch.linalg.inv_ex(self._symmetric_map(u))[0]

    def _turn_back(self, turned: _Turned, stress: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
        f, coordinates = turned
        u = _unit(f) + _tensors(coordinates, self.size)
        inverse = torch.linalg.inv_ex(self._symmetric_map(u))[0]
        second = (inverse @ stress[:, :, None])[:, :, 0]
        tensor = _tensors(second, self.size)
        moduli = inverse @ (tangent - self._symmetric_map(tensor)) @ inverse
        strains = self._green_lagrange(turned)
        first = (second[:, None] @ strains)[:, 0]
        dim = f.shape[-1]
        geometric = torch.einsum("ik,njl->nijkl", torch.eye(dim, dtype=f.dtype, device=f.device), tensor)
        return first, strains.mT @ moduli @ strains + geometric.reshape(-1, self.size, self.size)

    def _symmetric_map(self, a: Tensor) -> Tensor:
        """𝓛_A (n, s, s) of symmetric A (n, dim, dim), in Mandel components."""
        basis = _symmetric(self.size).to(a)
        product = torch.einsum("aij,njk,bki->nab", basis, a, basis)
        return (product + product.mT) / 2

    def _green_lagrange(self, turned: _Turned) -> Tensor:
        """dE/dF (n, s, d), F B_a for the symmetric tensors B_a."""
        return torch.einsum("nij,ajk->naik", turned.gradient, _symmetric(self.size).to(turned.gradient)).flatten(-2)


def require_small_strain(what: str, measure: Measure) -> None:
    """Raise ValueError for another measure than small strain, the only one that `what` knows."""
    if measure.name != SMALL_STRAIN:
        raise ValueError(f"{what} takes materials at small strain, not of a {measure.name}")


@cache
def _symmetric(size: int) -> Tensor:
    """Orthonormal symmetric tensors (s, dim, dim) in Mandel order."""
    pairs = {4: [(0, 0), (1, 1), (0, 1)], 9: [(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]}[size]
    dim = {4: 2, 9: 3}[size]
    tensors = torch.zeros(len(pairs), dim, dim, dtype=torch.float64)
    for k, (i, j) in enumerate(pairs):
        tensors[k, i, j] = tensors[k, j, i] = 1.0 if i == j else 0.5**0.5
    return tensors


def _tensors(coordinates: Tensor, size: int) -> Tensor:
    return torch.einsum("na,aij->nij", coordinates, _symmetric(size).to(coordinates))


def _unit(like: Tensor) -> Tensor:
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)


def _determinant(a: Tensor) -> Tensor:
    if a.shape[-1] == 2:
        return a[..., 0, 0] * a[..., 1, 1] - a[..., 0, 1] * a[..., 1, 0]
    return (a[..., 0, :] * torch.linalg.cross(a[..., 1, :], a[..., 2, :])).sum(-1)


def _inverse(a: Tensor) -> Tensor:
    """Inverses of small matrices by their cofactors."""
    if a.shape[-1] == 2:
        entries = [a[..., 1, 1], -a[..., 0, 1], -a[..., 1, 0], a[..., 0, 0]]
        cofactors = torch.stack(entries, dim=-1).unflatten(-1, (2, 2))
    else:
        rows = a.unbind(-2)
        columns = [torch.linalg.cross(rows[i], rows[j]) for i, j in ((1, 2), (2, 0), (0, 1))]
        cofactors = torch.stack(columns, dim=-1)
    return cofactors / _determinant(a)[..., None, None]


def _root(c: Tensor) -> Tensor:
    """Square roots of symmetric positive definite matrices (n, dim, dim).

    In two dimensions in closed form, in three by the iteration of Denman and Beavers (Appl. Math. Comput. 2, 1976),
    which needs no eigenvectors.
    """
    one = _unit(c)
    if c.shape[-1] == 2:
        root = _determinant(c).clamp(min=0.0).sqrt()
        trace = c[..., 0, 0] + c[..., 1, 1]
        return (c + root[..., None, None] * one) / (trace + 2 * root).sqrt()[..., None, None]
    y, z = c, one.expand_as(c)
    for _ in range(_ROOTS):
        y, z = (y + _inverse(z)) / 2, (z + _inverse(y)) / 2
    return y
