# SPDX-License-Identifier: MIT
"""Laws as functions of external operators: when they are evaluated, and a structure solved with them in its form."""

import numpy as np
import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("torch")
pytest.importorskip("safetensors")

import basix.ufl
import ufl
from mpi4py import MPI
from dolfinx import fem, mesh
from dolfinx.fem import petsc
from petsc4py import PETSc

import coupling
import fe2

try:  # before any form is made: it adds a type to those that UFL knows
    import dolfinx_external_operator as external
except ImportError:
    external = None

SOFT = fe2.SaturatingElastic()


class Counted:
    """A law that counts its evaluations."""

    def __init__(self, law):
        self.law, self.strain_size, self.state_size, self.count = law, law.strain_size, law.state_size, 0
        self.initial_state = law.initial_state

    def evaluate(self, *arguments):
        self.count += 1
        return self.law.evaluate(*arguments)


def strains(cells=5, points=4, seed=0):
    return 0.02 * np.random.default_rng(seed).uniform(-1, 1, (cells, points, 3))


def test_stress_and_tangent_of_the_same_strains_are_one_evaluation():
    law = Counted(fe2.UFLLaw(SOFT))
    respond, e = coupling.ExternalLaw(law), strains()
    stress, tangent = respond((0,))(e), respond((1,))(e)
    rows = e.reshape(-1, 3)
    right = law.law.evaluate(rows, law.initial_state(20), law.initial_state(20), MPI.COMM_SELF)
    assert law.count == 1
    assert np.array_equal(stress, right.stress.ravel()) and np.array_equal(tangent, right.tangent.ravel())
    respond((0,))(strains(seed=1))
    assert law.count == 2


def test_the_state_goes_on_when_it_is_accepted():
    law = fe2.UFLLaw(fe2.J2(bulk=100.0, shear=40.0, yield_stress=0.5, hardening=5.0))
    respond, e = coupling.ExternalLaw(law), strains()
    first = respond((0,))(3 * e)
    respond((0,))(e)
    assert np.array_equal(respond((0,))(3 * e), first)
    respond.accept()
    assert not np.allclose(respond((0,))(e), coupling.ExternalLaw(law)((0,))(e))


def test_a_step_that_is_given_up_is_as_if_it_had_not_been():
    law = fe2.UFLLaw(fe2.J2(bulk=100.0, shear=40.0, yield_stress=0.5, hardening=5.0))
    respond, e = coupling.ExternalLaw(law), strains()
    first = respond((0,))(3 * e)
    respond.reject()
    respond.accept()
    first[:] = respond((0,))(3 * e)
    assert np.array_equal(first, coupling.ExternalLaw(law)((0,))(3 * e))
    respond((0,))(3 * e)[:] = 0.0  # what is handed out is the caller's own
    assert np.array_equal(respond((0,))(3 * e), first)


@pytest.mark.mpi
def test_what_is_wrong_on_one_rank_is_raised_on_all():
    comm, e = MPI.COMM_WORLD, strains()
    respond = coupling.ExternalLaw(fe2.UFLLaw(SOFT), comm)
    respond((0,))(e)
    if comm.rank == comm.size - 1:
        e[2, 1, 0] = np.nan
    with pytest.raises((ValueError, RuntimeError), match="the strain of point 9 is"):
        respond((0,))(e)


def test_other_derivatives_are_refused():
    with pytest.raises(ValueError, match=r"derivatives = \(2,\): need \(0,\) for the stress"):
        coupling.ExternalLaw(fe2.UFLLaw(SOFT))((2,))


@pytest.mark.parametrize("shape", [(3, 4, 2, 2), (3, 4, 6), (3, 4, 3, 3), (12,)])
def test_an_operand_of_another_shape_is_refused(shape):
    """Though it has as many numbers as some points would."""
    with pytest.raises(ValueError, match=r"the operand has values of the shape .*, need \(cells, points, 3\)"):
        coupling.ExternalLaw(fe2.UFLLaw(SOFT))((0,))(np.zeros(shape))


def test_what_is_no_law_and_what_is_complex_are_refused():
    with pytest.raises(TypeError, match=r"the law is SaturatingElastic.*: give fe2.UFLLaw\(material\)"):
        coupling.ExternalLaw(SOFT)
    with pytest.raises(ValueError, match="complex128, need real numbers"):
        coupling.ExternalLaw(fe2.UFLLaw(SOFT))((0,))(strains().astype(complex))


@pytest.mark.mpi
@pytest.mark.skipif(external is None, reason="no dolfinx_external_operator here")
def test_a_structure_with_a_law_in_its_form():
    """A square that is pulled and sheared, by Newton's method on the operator's own forms; the same as with the
    material's UFL in their place."""
    comm = MPI.COMM_WORLD
    domain = mesh.create_unit_square(comm, 4, 4)
    V = fem.functionspace(domain, ("Lagrange", 1, (2,)))
    u, v, du = fem.Function(V), ufl.TestFunction(V), ufl.TrialFunction(V)
    dx = ufl.Measure("dx", domain, metadata={"quadrature_degree": 2, "quadrature_scheme": "default"})
    Q = fem.functionspace(domain, basix.ufl.quadrature_element(domain.topology.cell_name(), (3,), degree=2))

    left, right = (fem.locate_dofs_geometrical(V, lambda x, at=at: np.isclose(x[0], at)) for at in (0.0, 1.0))
    bcs = [fem.dirichletbc(np.zeros(2), left, V), fem.dirichletbc(np.array([0.03, 0.01]), right, V)]

    def solve(residual, jacobian, update):
        u.x.array[:] = 0
        for bc in bcs:
            bc.set(u.x.array)
        u.x.scatter_forward()
        homogeneous = [fem.dirichletbc(np.zeros(2), dofs, V) for dofs in (left, right)]
        F, J = fem.form(residual), fem.form(jacobian)
        sizes = []
        for _ in range(12):
            update()
            A = petsc.assemble_matrix(J, bcs=homogeneous)
            A.assemble()
            b = petsc.assemble_vector(F)
            b.ghostUpdate(addv=PETSc.InsertMode.ADD, mode=PETSc.ScatterMode.REVERSE)
            petsc.set_bc(b, homogeneous)
            sizes.append(b.norm())
            if sizes[-1] < 1e-12 * sizes[0]:
                break
            solver = PETSc.KSP().create(comm)
            solver.setOperators(A)
            solver.setType("preonly")
            solver.getPC().setType("lu")
            solver.getPC().setFactorSolverType("mumps")
            step = b.duplicate()
            solver.solve(b, step)
            owned = V.dofmap.index_map.size_local * 2
            u.x.array[:owned] -= step.array
            u.x.scatter_forward()
            for owner in (A, b, step, solver):
                owner.destroy()
        assert sizes[-1] < 1e-12 * sizes[0] and len(sizes) < 8  # as a consistent tangent has it
        return u.x.array.copy()

    strain = fe2.mandel.strain
    respond = coupling.ExternalLaw(fe2.UFLLaw(SOFT), comm)
    S = external.FEMExternalOperator(strain(u), function_space=Q, external_function=respond)
    form = ufl.inner(S, strain(v)) * dx
    F, operators = external.replace_external_operators(form)
    J, slopes = external.replace_external_operators(ufl.derivative(form, u, du))

    def update():
        operands = external.evaluate_operands(operators)
        external.evaluate_external_operators(operators, operands)
        external.evaluate_external_operators(slopes, operands)

    found = solve(F, J, update)

    e = ufl.sym(ufl.grad(u))
    plane = ufl.as_matrix([[e[0, 0], e[0, 1], 0], [e[1, 0], e[1, 1], 0], [0, 0, 0]])
    direct = ufl.derivative(SOFT.energy(plane) * dx, u, v)
    expected = solve(direct, ufl.derivative(direct, u, du), lambda: None)
    assert np.allclose(found, expected, rtol=0, atol=1e-10 * comm.allreduce(abs(expected).max(initial=0.0), MPI.MAX))
