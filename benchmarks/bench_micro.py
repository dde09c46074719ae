# SPDX-License-Identifier: MIT
"""Exact micro solves per second on RVE1-3 beside a naive implementation, in one run on one core; and on two ranks.

naive: a first implementation with DOLFINx and dolfinx_mpc. In every Newton iteration a new periodic matrix and a new
symbolic and numeric factorisation (MUMPS, LU as usual, and Cholesky); the tangent from forward differences, one more
nonlinear solve per strain component, started from the solution. Mesh, materials, tolerance and strain are the same, and
stress and tangent of both must agree.

random: strains spread over the whole box. near: similar strains, as at neighbouring points of a structure.

    python3 benchmarks/bench_micro.py           prints figures and writes benchmarks/micro.json
    python3 benchmarks/bench_micro.py --table   the table of the README from that file
"""

import json
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import keeping
import numpy as np
import ufl
from mpi4py import MPI
from dolfinx import fem
from petsc4py import PETSc

import fe2
import meshes
from fe2.body import quadrature_degree

MATERIALS = {1: fe2.SaturatingElastic(), 2: fe2.LinearElastic(bulk=43452.381, shear=29918.0328)}
RESULTS = Path(__file__).with_name("micro.json")
SIZES = {"RVE1": 0.0205, "RVE2": 0.0245, "RVE3": 0.0245}
RANDOM = np.random.default_rng(0).uniform(-0.04, 0.04, (32, 3))
NEAR = np.array([0.02, -0.01, 0.025]) + np.random.default_rng(1).uniform(-0.002, 0.002, (32, 3))


class Naive:
    """A periodic RVE solved without reuse of matrices or factors."""

    def __init__(self, domain, factor):
        import dolfinx_mpc  # which nothing else needs

        mesh, self.factor = domain.mesh, factor
        V = fem.functionspace(mesh, ("Lagrange", 2, (2,)))
        lower, upper = domain.box
        on_upper = lambda x: np.isclose(x[0], upper[0]) | np.isclose(x[1], upper[1])  # noqa: E731

        def partner(x):
            y = x.copy()
            for i in range(2):
                y[i, np.isclose(x[i], upper[i])] = lower[i]
            return y

        middle = np.argmin(np.linalg.norm(V.tabulate_dof_coordinates() - (*(lower + upper) / 2, 0), axis=1))
        self.bcs = [fem.dirichletbc(np.zeros(2), np.array([middle], dtype=np.int32), V)]
        self.assemble_vector, self.assemble_matrix = dolfinx_mpc.assemble_vector, dolfinx_mpc.assemble_matrix
        self.mpc = dolfinx_mpc.MultiPointConstraint(V)
        self.mpc.create_periodic_constraint_geometrical(V, on_upper, partner, self.bcs)
        self.mpc.finalize()
        self.w = fem.Function(self.mpc.function_space)
        self.E = fem.Constant(mesh, np.zeros((2, 2)))
        e = self.E + ufl.sym(ufl.grad(self.w))
        e = ufl.variable(ufl.as_tensor([[e[0, 0], e[0, 1], 0], [e[1, 0], e[1, 1], 0], [0, 0, 0]]))
        dx = ufl.Measure(
            "dx",
            domain=mesh,
            subdomain_data=domain.cell_tags,
            metadata={"quadrature_degree": quadrature_degree(mesh, 2)},
        )
        energy = sum(material.bind(mesh).energy(e) * dx(tag) for tag, material in MATERIALS.items())
        # Test and trial functions of the space of the fixed node.
        residual = ufl.derivative(energy, self.w, ufl.TestFunction(V))
        self.residual, self.jacobian = (
            fem.form(f) for f in (residual, ufl.derivative(residual, self.w, ufl.TrialFunction(V)))
        )
        self.volume = np.prod(upper - lower)
        stresses = [(ufl.diff(m.bind(mesh).energy(e), e), dx(tag)) for tag, m in MATERIALS.items()]
        self.stresses = [
            fem.form(sum(ufl.inner(s, ufl.as_tensor(np.pad(b, (0, 1)))) * d for s, d in stresses))
            for b in fe2.mandel.basis(2)
        ]

    def stress(self, strain, tolerance):
        """Stress (3,) at a Mandel strain (3,), from the present fluctuation."""
        self.E.value[:] = np.einsum("k,kij->ij", strain, fe2.mandel.basis(2))
        for _ in range(25):
            b = self.assemble_vector(self.residual, self.mpc)
            fem.petsc.set_bc(b, self.bcs)
            scale = np.linalg.norm(fem.assemble_vector(self.residual).array)
            if b.norm() <= tolerance * scale:
                return np.array([fem.assemble_scalar(s) for s in self.stresses]) / self.volume
            A = self.assemble_matrix(self.jacobian, self.mpc, self.bcs)
            if self.factor == "cholesky":
                A.setOption(PETSc.Mat.Option.SPD, True)
            ksp = PETSc.KSP().create(A.comm)
            ksp.setOperators(A)
            ksp.setType("preonly")
            ksp.getPC().setType(self.factor)
            ksp.getPC().setFactorSolverType("mumps")
            step = b.duplicate()
            ksp.solve(b, step)
            self.mpc.backsubstitution(step)
            n = self.w.function_space.dofmap.index_map.size_local * 2
            self.w.x.array[:n] -= step.array[:n]
            for o in (ksp, A, b, step):
                o.destroy()
        raise RuntimeError("no convergence")

    def homogenise(self, strain, tolerance=1e-10, h=1e-6):
        """Stress and tangent at one strain, from zero fluctuation."""
        self.w.x.array[:] = 0.0
        stress = self.stress(strain, tolerance)
        solution = self.w.x.array.copy()
        columns = []
        for e in np.eye(3):
            self.w.x.array[:] = solution
            columns.append((self.stress(strain + h * e, tolerance) - stress) / h)
        return stress, np.stack(columns, axis=1)


def timed(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def compare(name):
    domain = meshes.benchmark(name, MPI.COMM_SELF, mesh_size=SIZES[name])
    rve = fe2.RVE(domain, MATERIALS)
    record = {"RVE": name, "unknowns": rve.unknowns.size, "side_by_side": rve.group}
    tracemalloc.start()  # includes NumPy arrays, but not the common factor
    rve.homogenise(RANDOM[: rve.group])  # compilation and first access are not timed
    record["megabytes_per_point_side_by_side"] = tracemalloc.get_traced_memory()[1] / 1e6 / rve.group
    tracemalloc.stop()
    record["kilobytes_state_per_point"] = 8 * rve.state_size / 1e3
    ours, seconds = timed(rve.homogenise, RANDOM)
    record["solves_per_second_random"] = len(RANDOM) / seconds
    _, near = timed(rve.homogenise, NEAR)
    record["solves_per_second_near"] = len(NEAR) / near
    _, alone = timed(rve.homogenise, RANDOM[:1])
    record["solves_per_second_one_by_one"] = 1 / alone
    for factor in ("lu", "cholesky"):
        naive = Naive(domain, factor)
        naive.stress(np.zeros(3), 1.0)  # compilation
        for kind, strain in (("near", NEAR[0]), ("random", RANDOM[0])):
            (stress, tangent), slow = timed(naive.homogenise, strain)
            record[f"solves_per_second_{kind}_naive_{factor}"] = 1 / slow
            record[f"ratio_{kind}_{factor}"] = slow * record[f"solves_per_second_{kind}"]
        record["stress_difference"] = float(abs(stress - ours.stress[0]).max() / abs(stress).max())
        record["tangent_difference"] = float(abs(tangent - ours.tangent[0]).max() / abs(tangent).max())
    rve.destroy()
    return record


def micro_phase(points):
    """Seconds of the law for `points` strains spread over all ranks (printed by rank 0)."""
    comm = MPI.COMM_WORLD
    law = fe2.ExactLaw(fe2.RVE(meshes.benchmark("RVE3", MPI.COMM_SELF, mesh_size=SIZES["RVE3"]), MATERIALS))
    strain = np.random.default_rng(2).uniform(-0.04, 0.04, (points, 3))[comm.rank :: comm.size]
    state = law.initial_state(len(strain))
    warm = law.evaluate(strain, state, state, comm)  # compilation, and the work of the points
    comm.barrier()
    start = time.perf_counter()
    law.evaluate(strain, state, np.hstack([state[:, :-1], warm.state[:, -1:]]), comm)
    comm.barrier()
    if comm.rank == 0:
        print(time.perf_counter() - start)


def efficiency(points=128):
    """Time of the micro phase on one rank over twice that on two, by runs in turns."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_COMM", "PMIX"))}
    for _ in range(3):
        for ranks in seconds:
            command = ["mpirun", "-n", str(ranks), sys.executable, __file__, str(points)]
            done = subprocess.run(command, env=outside, check=True, capture_output=True, text=True)
            seconds[ranks].append(float(done.stdout.split()[-1]))
    one, two = (float(np.median(s)) for s in seconds.values())
    return {"points": points, "seconds_1_rank": one, "seconds_2_ranks": two, "efficiency": one / (2 * two)}


def main():
    if "--table" in sys.argv:
        print(table(json.loads(RESULTS.read_text())))
        return
    if len(sys.argv) > 1:
        micro_phase(int(sys.argv[1]))
        return
    rows = []
    for name in SIZES:
        rows.append(r := compare(name))
        print(
            f"{name}: {r['unknowns']} unknowns; one by one {r['solves_per_second_one_by_one']:.2f} solves/s, "
            f"differences {r['stress_difference']:.1e} {r['tangent_difference']:.1e}; state "
            f"{r['kilobytes_state_per_point']:.0f} kB a point, at work {r['megabytes_per_point_side_by_side']:.1f} MB"
        )
        for kind in ("near", "random"):
            print(
                f"    {kind}: {r[f'solves_per_second_{kind}']:.2f} solves/s, naive LU "
                f"{r[f'solves_per_second_{kind}_naive_lu']:.3f}, ratio {r[f'ratio_{kind}_lu']:.1f}; naive Cholesky "
                f"{r[f'solves_per_second_{kind}_naive_cholesky']:.3f}, ratio {r[f'ratio_{kind}_cholesky']:.1f}",
                flush=True,
            )
    ranks = efficiency()
    print(
        f"micro phase, {ranks['points']} points of RVE3: 1 rank {ranks['seconds_1_rank']:.1f} s, 2 ranks "
        f"{ranks['seconds_2_ranks']:.1f} s, efficiency {ranks['efficiency']:.2f}"
    )
    keeping.write(RESULTS, {"about": keeping.about(), "RVEs": rows, "ranks": ranks})


def table(record):
    """Markdown: solves per second and their ratios to the naive implementation."""
    lines = ["| RVE | unknowns | neighbouring strains [1/s] | ratio to LU / Cholesky | random strains [1/s] | "
             "ratio to LU / Cholesky | state per point |", "|---" * 7 + "|"]  # fmt: skip
    for r in record["RVEs"]:
        both = [
            f"{r[f'solves_per_second_{kind}']:.1f} | {r[f'ratio_{kind}_lu']:.1f} / {r[f'ratio_{kind}_cholesky']:.1f}"
            for kind in ("near", "random")
        ]
        end = f"{r['kilobytes_state_per_point']:.0f} kB"
        lines.append(f"| {r['RVE']} | {r['unknowns']:,} | {' | '.join(both)} | {end} |")
    ranks = record["ranks"]
    one, two = ranks["seconds_1_rank"], ranks["seconds_2_ranks"]
    lines += ["", f"Two ranks take {two:.1f} s, one rank takes {one:.1f} s."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
