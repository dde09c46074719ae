# SPDX-License-Identifier: MIT
"""Independent solutions for nearly incompressible bodies by mixed elements.

Taylor–Hood elements have a continuous pressure. Where the pressure jumps between two materials, discontinuous pressures
of degree 1 are far more accurate, with displacements of degree 3 on triangles and 2 on quadrilaterals and hexahedra
(stable: Boffi, Brezzi & Fortin, Mixed Finite Element Methods and Applications, 2013, chapter 8).

The energy of a body is that of `fe2.LinearElastic` or `fe2.NeoHookean`, with the pressure p an unknown of its own,

    small strain    μ dev ε : dev ε + p tr ε − p²/(2κ), κ = K in 3D; in plane strain of the plane deviator, κ = K + μ/3
    finite strain   μ/2 (tr C − 3 − 2 ln J) + p ln J − p²/(2λ),   λ = K − 2μ/3

whose stationary point in p is κ tr ε or λ ln J. Only assembly and a sparse LU are shared with what is tested.
"""

import basix.ufl
import numpy as np
import scipy.sparse.linalg
import ufl
from dolfinx import fem


def _full(tensor):
    if tensor.ufl_shape == (3, 3):
        return tensor
    return ufl.as_tensor([[tensor[0, 0], tensor[0, 1], 0], [tensor[1, 0], tensor[1, 1], 0], [0, 0, 0]])


def density(u, p, bulk, shear, finite):
    """The energy density above; `bulk` and `shear` may be functions."""
    if not finite:
        strain = ufl.sym(ufl.grad(u))
        volume = bulk + (shear / 3 if strain.ufl_shape == (2, 2) else 0)
        return shear * ufl.inner(ufl.dev(strain), ufl.dev(strain)) + p * ufl.tr(strain) - p**2 / (2 * volume)
    F = ufl.Identity(3) + _full(ufl.grad(u))
    log = ufl.ln(ufl.det(F))
    return shear / 2 * (ufl.inner(F, F) - 3 - 2 * log) + p * log - p**2 / (2 * (bulk - 2 * shear / 3))


class Mixed:
    """Displacements of degree 2 and continuous pressures of degree 1 on `mesh`, with the moduli of each cell.

    Args:
        mesh: the mesh, of one rank.
        bulk: (cells,) or a number.
        shear: (cells,) or a number.
        finite: whether at finite strain.
        held: marks the points (3, n) whose displacement is prescribed.
        jumps: with discontinuous pressures, as above.
    """

    def __init__(self, mesh, bulk, shear, *, finite, held, jumps=False):
        cell, dim = mesh.basix_cell(), mesh.topology.dim
        simplices = cell.name in ("triangle", "tetrahedron")
        displacement = basix.ufl.element("Lagrange", cell, 3 if jumps and simplices else 2, shape=(dim,))
        family = "DPC" if jumps and not simplices else "Lagrange"
        pressure = basix.ufl.element(family, cell, 1, discontinuous=jumps)
        W = fem.functionspace(mesh, basix.ufl.mixed_element([displacement, pressure]))
        self.mesh, self.w, self.finite = mesh, fem.Function(W), finite
        moduli = [fem.Function(fem.functionspace(mesh, ("DG", 0))) for _ in range(2)]
        for function, values in zip(moduli, (bulk, shear), strict=True):
            function.x.array[:] = values
        self.u, self.p = ufl.split(self.w)
        self.dx = ufl.dx(metadata={"quadrature_degree": 6})
        self.density = density(self.u, self.p, *moduli, finite)
        self.moduli = moduli
        V, self.places = W.sub(0).collapse()
        self.x = V.tabulate_dof_coordinates()
        self.places = np.asarray(self.places).reshape(-1, dim)
        self.held = np.flatnonzero(held(self.x.T))
        self.form = ufl.derivative(self.density * self.dx, self.w, ufl.TestFunction(W))
        self.jacobian = fem.form(ufl.derivative(self.form, self.w, ufl.TrialFunction(W)))
        self.form = fem.form(self.form)
        self.test = ufl.split(ufl.TestFunction(W))[0]

    def traction(self, traction, ds):
        """The vector of a dead load on the facets of `ds`."""
        b = np.zeros(self.w.x.array.size)
        fem.assemble_vector(b, fem.form(ufl.dot(fem.Constant(self.mesh, traction), self.test) * ds))
        return b

    def solve(self, boundary=None, load=0.0, steps=1):
        """Newton's method in equal steps of the prescribed displacements (nodes, dim) and of the load."""
        fixed = self.places[self.held].ravel()
        free = np.setdiff1d(np.arange(self.w.x.array.size), fixed)
        target = 0.0 if boundary is None else boundary[self.held].ravel()
        first = 0.0
        matrix = fem.create_matrix(self.jacobian)
        for step in range(1, steps + 1):
            for k in range(25):
                b = np.zeros(self.w.x.array.size)
                fem.assemble_vector(b, self.form)
                b -= step / steps * load
                change = np.zeros_like(b)
                change[fixed] = step / steps * target - self.w.x.array[fixed]
                size = np.linalg.norm(change[fixed]) + np.linalg.norm(b[free])
                first = size if k == 0 else first
                if size <= 1e-10 * first:
                    break
                matrix.data[:] = 0
                fem.assemble_matrix(matrix, self.jacobian)
                K = matrix.to_scipy().tocsr()
                change[free] = scipy.sparse.linalg.spsolve(K[free][:, free].tocsc(), -(b + K @ change)[free])
                self.w.x.array[:] += change
            else:
                raise AssertionError(f"mixed elements: no convergence, {size:.2e} of {first:.2e}")
        return self

    def at(self, point):
        """The displacement (dim,) of the node at a point."""
        return self.w.x.array[self.places[np.linalg.norm(self.x[:, : len(point)] - point, axis=1).argmin()]]

    def energy(self):
        """The energy of the body."""
        return fem.assemble_scalar(fem.form(self.density * self.dx))
