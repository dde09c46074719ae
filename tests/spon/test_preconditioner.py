# SPDX-License-Identifier: MIT
"""Learned preconditioners and operators in DOLFINx's solvers: what a solver finds is right, whatever they are."""

import numpy as np
import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch
import ufl
from mpi4py import MPI
from dolfinx import fem, mesh
from dolfinx.fem import petsc as fem_petsc
from petsc4py import PETSc

import coupling
import spon
from coupling import sparse_operator as sparse
from spon import operators
from spon.training import TrainingOptions

SMALL = {"channels": 4, "depth": 1}


def spaces(*sizes):
    return [fem.functionspace(mesh.create_unit_square(MPI.COMM_SELF, n, n), ("P", 1)) for n in sizes]


def boundary(V):
    V.mesh.topology.create_connectivity(1, 2)
    dofs = fem.locate_dofs_topological(V, 1, mesh.exterior_facet_indices(V.mesh.topology))
    return fem.dirichletbc(0.0, dofs, V)


def conductivity(V, centre):
    """One, and ten in a disc."""
    k = fem.Function(V)
    k.interpolate(lambda x: 1 + 9 * (np.hypot(x[0] - centre[0], x[1] - centre[1]) < 0.25))
    return k


def diffusion(V, bc, k=1.0):
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    A = fem_petsc.assemble_matrix(fem.form(k * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx), bcs=[bc])
    A.assemble()
    return A


def load(V, bc, seed=0):
    values = np.random.default_rng(seed).standard_normal(V.dofmap.index_map.size_local)
    values[bc.dof_indices()[0]] = 0.0
    return values


def solve(A, load, context=None, guess=None, kind="cg"):
    """Solution, iterations and relative residual, to a tolerance of 1e-10."""
    b, x = A.createVecRight(), A.createVecRight()
    b.array[:] = load
    ksp = PETSc.KSP().create(MPI.COMM_SELF)
    ksp.setOperators(A)
    ksp.setType(kind)
    ksp.setNormType(PETSc.KSP.NormType.UNPRECONDITIONED)
    ksp.setTolerances(rtol=1e-10, atol=0.0, max_it=500)
    if context is None:
        ksp.getPC().setType("jacobi")
    else:
        ksp.getPC().setType("python")
        ksp.getPC().setPythonContext(context)
    if guess is not None:
        x.array[:] = guess
        ksp.setInitialGuessNonzero(True)
    ksp.solve(b, x)
    assert ksp.getConvergedReason() > 0
    found, iterations = x.array.copy(), ksp.getIterationNumber()
    rest = np.linalg.norm(sparse(A).scipy @ found - load) / np.linalg.norm(load)
    for thing in (ksp, b, x):
        thing.destroy()
    return found, iterations, rest


@pytest.mark.parametrize("processor", ["mlp", "messages", "multigrid", "mgno", "attention", "fluxes"])
def test_symmetric_positive_definite_whatever_the_network_says(processor):
    V, *coarse = spaces(6, 3)
    bc = boundary(V)
    network = spon.OperatorNetwork(
        input=[V, V],
        output=V,
        bcs=[bc],
        coarse=coarse,
        processor=processor,
        structure=spon.Structure(linear_in=[0]),
        **SMALL,
    )
    A = sparse(diffusion(V, bc))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype))
        field = torch.randn(A.shape[0], 1, generator=generator, dtype=torch.float64)
        P = spon.Preconditioner(network, A, field)
        B = P(torch.eye(A.shape[0], dtype=torch.float64))
    assert P.relax(torch.eye(A.shape[0], dtype=torch.float64)).diagonal().min() > 0
    assert (B - B.T).abs().max() < 1e-13 * B.abs().max()
    # No less than the relaxation, but for the rounding of what is added to it.
    lowest = torch.linalg.eigvalsh(B - torch.diag(P.weight / P.diagonal))[0]
    assert lowest > -1e-13 * B.abs().max() and (B - torch.diag(P.weight / P.diagonal)).abs().max() > 1e-3


@pytest.mark.parametrize("degree", [1, 2])
def test_relaxation_damps_what_is_rough_in_elasticity_too(degree):
    """No factor of it grows, and what is left of noise is smooth: its energy is far below that of noise."""
    V = fem.functionspace(mesh.create_unit_square(MPI.COMM_SELF, 8, 8), ("P", degree, (2,)))
    V.mesh.topology.create_connectivity(1, 2)
    dofs = fem.locate_dofs_topological(V, 1, mesh.exterior_facet_indices(V.mesh.topology))
    bc = fem.dirichletbc(np.zeros(2), dofs, V)
    u, v = ufl.TrialFunction(V), ufl.TestFunction(V)
    form = ufl.inner(ufl.sym(ufl.grad(u)) + ufl.tr(ufl.grad(u)) * ufl.Identity(2), ufl.sym(ufl.grad(v))) * ufl.dx
    A = fem_petsc.assemble_matrix(fem.form(form), bcs=[bc])
    A.assemble()
    network = spon.OperatorNetwork(
        input=V, output=V, bcs=[bc], processor="mlp", structure=spon.Structure(linear_in=[0]), **SMALL
    )
    P = spon.Preconditioner(network, sparse(A))
    relaxed = np.eye(A.getSize()[0]) - np.diag((P.weight / P.diagonal).numpy()) @ sparse(A).scipy.toarray()
    factors = np.linalg.eigvals(relaxed).real
    assert -0.4 < factors.min() < -0.3 and factors.max() < 1  # 1 − 4/3 of the largest, but for what it is known to
    noise = torch.randn(len(P.diagonal), 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def energy(x):
        return float((x * P.matrix(x)).sum() / (x * x * P.diagonal[:, None]).sum())

    assert energy(P.smooth(noise, 100)) < 0.2 * energy(noise)


def test_precision_is_changed_as_a_whole():
    V, *coarse = spaces(6, 3)
    bc = boundary(V)
    network = spon.OperatorNetwork(
        input=[V, V],
        output=V,
        bcs=[bc],
        coarse=coarse,
        processor="multigrid",
        structure=spon.Structure(linear_in=[0]),
        **SMALL,
    )
    P = spon.Preconditioner(network, sparse(diffusion(V, bc)), torch.ones(49, 1, dtype=torch.float64))
    r = torch.randn(49, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        right, found = P(P.smooth(r, 2)), P.to(torch.float32)(P.smooth(r.float(), 2))
    assert found.dtype == torch.float32 and (found - right).abs().max() < 1e-5 * right.abs().max()


def test_iterations_are_saved_on_an_unseen_problem(tmp_path):
    """Trained on discs of ten times the conductivity at four places, used for another place and another load."""
    V, *coarse = spaces(20, 10, 5)
    bc = boundary(V)
    network = spon.OperatorNetwork(
        input=[V, V],
        output=V,
        bcs=[bc],
        coarse=coarse,
        processor="mgno",
        structure=spon.Structure(linear_in=[0]),
        channels=8,
        depth=1,
    )
    known = [conductivity(V, c) for c in ((0.3, 0.3), (0.7, 0.3), (0.3, 0.7), (0.7, 0.7))]
    made = [
        spon.Preconditioner(network, sparse(diffusion(V, bc, k)), torch.from_numpy(k.x.array[:, None])) for k in known
    ]
    history = operators.train_preconditioner(made, TrainingOptions(steps=200, every=50), samples=240).history
    assert min(history.validation) < 0.6 * history.validation[0]
    network.save(tmp_path / "network")

    k = conductivity(V, (0.45, 0.6))
    A, b = diffusion(V, bc, k), load(V, bc, seed=3)
    right, before, _ = solve(A, b)
    for kind in ("cg", "fgmres"):
        context = coupling.LearnedPC(spon.load(tmp_path / "network"), k)
        found, after, rest = solve(A, b, context, kind=kind)
        assert rest < 1.1e-10 and np.allclose(found, right, rtol=0, atol=1e-8 * abs(right).max())
        assert after < 0.5 * before, (after, before)


def test_an_answer_is_a_function_and_a_good_guess():
    V, *coarse = spaces(12, 6, 3)
    bc = boundary(V)
    network = spon.OperatorNetwork(
        input=V, output=V, bcs=[bc], coarse=coarse, processor="mgno", structure=spon.Structure(linear_in=[0]), depth=2
    )
    x, y = V.tabulate_dof_coordinates()[:, :2].T
    waves = np.array([np.cos(np.pi * i * x) * np.cos(np.pi * j * y) for i in range(4) for j in range(4)])
    f = torch.from_numpy(waves.T @ np.random.default_rng(0).standard_normal((16, 200)))
    A = diffusion(V, bc)
    loads = (network.spaces.output.mass @ f).numpy()
    loads[bc.dof_indices()[0]] = 0.0
    u = torch.from_numpy(np.linalg.solve(sparse(A).scipy.toarray(), loads))
    operators.train(network, f[:, :199], u[:, :199], TrainingOptions(steps=200))

    answer = coupling.FieldOperator(network, input=V, output=V)
    forcing = fem.Function(V)
    forcing.x.array[:] = f[:, 199].numpy()
    guess = answer(forcing)
    assert np.array_equal(guess.x.array, network(f[:, 199:])[:, 0].detach().numpy())
    assert not guess.x.array[bc.dof_indices()[0]].any()
    right, before, _ = solve(A, loads[:, 199])
    found, after, rest = solve(A, loads[:, 199], guess=guess.x.array)
    assert rest < 1.1e-10 and np.allclose(found, right, rtol=0, atol=1e-8 * abs(right).max())
    assert after < before, (after, before)


def test_wrong_use_is_told():
    V, W, *coarse = spaces(6, 5, 3)
    bc = boundary(V)
    network = spon.OperatorNetwork(
        input=V,
        output=V,
        bcs=[bc],
        coarse=coarse,
        processor="multigrid",
        structure=spon.Structure(linear_in=[0]),
        **SMALL,
    )
    with pytest.raises(ValueError, match=r"inputs have \[36\] dofs, the network takes \[49\]"):
        coupling.FieldOperator(network, input=W, output=V)
    with pytest.raises(ValueError, match="output has 36 dofs, the network predicts 49"):
        coupling.FieldOperator(network, input=V, output=W)
    (other,) = spaces(6)
    other.mesh.geometry.x[:, 0] *= 1.5
    with pytest.raises(ValueError, match=r"the output at node \d+ is 0\.5 away from"):
        coupling.FieldOperator(network, input=V, output=other)
    left = mesh.create_unit_square(MPI.COMM_SELF, 6, 6, diagonal=mesh.DiagonalType.left)
    with pytest.raises(ValueError, match=r"input 0 at node .* or another numbering of it"):
        coupling.FieldOperator(network, input=fem.functionspace(left, ("P", 1)), output=V)
    integrals = spon.OperatorNetwork(input=V, output=V, bcs=[bc], coarse=coarse, encoder="integrals", **SMALL)
    coupling.FieldOperator(integrals, input=V, output=V)
    with pytest.raises(ValueError, match=r"input 0 at node .* or another numbering of it"):
        coupling.FieldOperator(integrals, input=fem.functionspace(left, ("P", 1)), output=V)
    (again,) = spaces(6)
    with pytest.raises(ValueError, match="one of each of the 1 input spaces"):
        coupling.FieldOperator(network, input=V, output=V)(fem.Function(again))
    A = sparse(diffusion(V, bc))
    plain = spon.OperatorNetwork(input=V, output=V, bcs=[bc], coarse=coarse, processor="multigrid", **SMALL)
    with pytest.raises(ValueError, match=r"need linear_in=\[0\]"):
        spon.Preconditioner(plain, A)
    with pytest.raises(ValueError, match=r"others have the shapes \[\(49, 2\)\]"):
        spon.Preconditioner(network, A, torch.zeros(49, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"matrix is \(36, 36\)"):
        spon.Preconditioner(network, sparse(diffusion(W, boundary(W))))
    with pytest.raises(ValueError, match=r"diagonal\[\d+\] = -"):
        spon.Preconditioner(network, sparse(diffusion(V, bc, -1.0)))
    both = [spon.Preconditioner(n, A) for n in (network, spon.OperatorNetwork(
        input=V, output=V, bcs=[bc], coarse=coarse, processor="multigrid",
        structure=spon.Structure(linear_in=[0]), **SMALL))]  # fmt: skip
    with pytest.raises(TypeError, match=r"csr_array: need a spon.SparseOperator"):
        spon.Preconditioner(network, A.scipy)
    skew = A.scipy.tolil()
    skew[20, 21] += 5
    with pytest.raises(ValueError, match="differs from its transpose by 5"):
        spon.Preconditioner(network, spon.SparseOperator.of(skew))
    with pytest.warns(DeprecationWarning, match=r"train is now spon\.operators\.train_preconditioner"):
        old = spon.operators.preconditioner.train
        with pytest.raises(ValueError, match=r"0 preconditioners and sweeps"):
            old([])
    with pytest.raises(ValueError, match=r"0 preconditioners and sweeps"):
        operators.train_preconditioner([])
    with pytest.raises(ValueError, match="different networks"):
        operators.train_preconditioner(both)
    with pytest.raises(ValueError, match=r"validation = 0\.1 of 3 samples are 0"):
        operators.train_preconditioner(both[0], samples=3)
