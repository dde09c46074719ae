# SPDX-License-Identifier: MIT
# %% [markdown]
# # FE² with a trained model of the RVE, and with a certificate
# FE² solves an RVE at every quadrature point. Here a model of the RVE is trained once, and Cook's membrane is then
# solved three times by the same lines: with the exact law, with the trained model, and with the model where its
# own error bound is small enough, its modes where theirs is, and the exact law elsewhere.
#
#     mpirun -n 2 python3 demos/demo_surrogate.py          (--small for coarse meshes, --full for finer ones)

# %%
import argparse
import time
from pathlib import Path

import numpy as np
import torch
from mpi4py import MPI

import coupling
import fe2
import meshes
import spon
from fe2 import pictures
from spon import EquiNOOptions, equino
from spon.training import Live

parser = argparse.ArgumentParser()
parser.add_argument("--full", action="store_true", help="the larger problem")
parser.add_argument("--small", action="store_true", help="the smallest problem")
parser.add_argument("--folder", type=Path, default=Path("results/surrogate"))
options = parser.parse_args()
comm = MPI.COMM_WORLD
torch.set_num_threads(1)  # the ranks share the cores


def pick(small, middle, full):
    """The setting for the size of the problem."""
    return full if options.full else small if options.small else middle


def say(line):
    """Print on one rank."""
    if comm.rank == 0:
        print(line, flush=True)


# %% [markdown]
# ## Snapshots
# The RVE has three stiff circles in a matrix that softens in shear. It is solved on all ranks, at strains that fill the
# range of the membrane. A run that is killed here continues.

# %%
mesh_size = pick(0.3, 0.1, 0.05)
domain = meshes.benchmark("RVE3", MPI.COMM_SELF, mesh_size=mesh_size)
materials = {1: fe2.SaturatingElastic(), 2: fe2.LinearElastic(bulk=43452.381, shear=29918.0328)}
rve = fe2.RVE(domain, materials)

amplitude = (0.012, 0.008, 0.02)
strains = fe2.strain_sampling.sobol(pick(16, 128, 256), 2, amplitude, seed=1)
options.folder.mkdir(parents=True, exist_ok=True)
file = options.folder / f"snapshots-{mesh_size}.h5"
start = time.perf_counter()
fe2.rve_snapshots.compute(rve, strains, file, comm)
seconds = {"snapshots": time.perf_counter() - start}

# %% [markdown]
# ## Training
# One rank trains and writes the model file; all ranks read it. The file has the model, the modes of the RVE and
# the constitutive laws of its phases: prediction, certificate and local fields need torch alone.

# %%
path = options.folder / "model.safetensors"
settings = pick(
    EquiNOOptions(r=6, resolved=12, samples=32, lbfgs=20),
    EquiNOOptions(r=20, samples=512, lbfgs=600),
    EquiNOOptions(r=24),
)
start = time.perf_counter()
with fe2.raise_on_all_ranks(comm):
    if comm.rank == 0:
        data = coupling.rve_snapshots(rve, fe2.rve_snapshots.read(file))
        with Live() as live:
            result = equino.train(data, settings, log=live)
        result.model.save(path)
seconds["training"] = time.perf_counter() - start
model = spon.load(path, whole=True)

# %% [markdown]
# The certificate compares the energies of a compatible strain field and of a stress field in equilibrium, both from the
# model. One bounds the energy of the RVE from above, the other from below; for an exact model they are equal. With the
# modes at all points they are bounds; on the few points of the model's cubature they are cheap estimates.

# %%
one = torch.tensor([[0.004, 0.0, 0.01]], dtype=torch.float64)
everywhere, few = spon.certify(model, one, model.rve_modes.at_points), spon.certify(model, one)
energy = rve.homogenise(one.numpy()).energy[0]
say(f"energy at {one[0].tolist()}: {everywhere.lower[0]:.6f} ≤ {energy:.6f} ≤ {everywhere.upper[0]:.6f} MPa")
say(f"gap over energy {everywhere.gap[0] / everywhere.upper[0]:.1e}, estimated {few.gap[0] / few.upper[0]:.1e}")

# %% [markdown]
# ## One script, three laws
# One line chooses the law; the rest is the same. The tolerance of the certified law applies to the gap between the
# bounds, relative to the energy.

# %%
tolerance = pick(4e-3, 5e-5, 3e-5)
laws: dict[str, fe2.Law] = {
    "exact": fe2.ExactLaw(rve),
    "surrogate": coupling.SurrogateLaw(model, outside="warn"),
    "certified": (certified := coupling.CertifiedLaw(model, fe2.ExactLaw(rve), tolerance=tolerance)),
}
membrane = meshes.cook(comm, n=pick(1, 5, 12))
problems: dict[str, fe2.MacroProblem] = {}
for name, law in laws.items():
    problem = fe2.MacroProblem(membrane, law)
    problem.prescribe("left", (0.0, 0.0))
    problem.traction("right", (0.0, 6.0))
    problem.record("right")
    start = time.perf_counter()
    problem.solve(steps=4, log=None)
    seconds[name] = time.perf_counter() - start
    problems[name] = problem
    say(f"{name}: {seconds[name]:.2f} s, {sum(len(s.residuals) for s in problem.history)} evaluations of the law")
say(certified.summary(comm))

# %% [markdown]
# ## Cost and error


# %%
def norm(values):
    """Root of the sum of squares over all ranks."""
    return np.sqrt(comm.allreduce(float((values**2).sum())))


exact = problems["exact"]
for name in ("surrogate", "certified"):
    problem = problems[name]
    travel, reference = (p.history[-1].displacement["right"][1] for p in (problem, exact))
    error = norm(problem.sigma.stresses() - exact.sigma.stresses()) / norm(exact.sigma.stresses())
    law_seconds = [comm.allreduce(sum(s.seconds["law"] for s in p.history), op=MPI.MAX) for p in (exact, problem)]
    say(
        f"{name}: displacement off by {abs(travel / reference - 1):.2e}, macroscale stress by {error:.2e}; "
        f"{seconds['exact'] / seconds[name]:.1f} times as fast as exact FE², its law "
        f"{law_seconds[0] / law_seconds[1]:.0f} times"
    )
say(f"paid once: snapshots {seconds['snapshots']:.1f} s, training {seconds['training']:.1f} s")

# %% [markdown]
# ## Local fields
# The model also predicts the fields of the RVE: here beside the exact ones, at the point of the largest stress.


# %%
def size(stress):
    """In-plane measure √(3/2) ‖dev S‖ of Mandel stresses (..., 3), the trace taken over the plane."""
    mean = stress[..., :2].mean(axis=-1)
    return np.sqrt(1.5 * ((stress[..., 0] - mean) ** 2 + (stress[..., 1] - mean) ** 2 + stress[..., 2] ** 2))


coordinates, level = (
    np.concatenate(comm.allgather(a)) for a in (exact.sigma.coordinates(), size(exact.sigma.stresses()))
)
(true,), (learned,) = (problems[name].micro(coordinates[level.argmax()]) for name in ("exact", "surrogate"))
micro = coupling.micro_fields(rve, model, learned.strain)
body = true.body()
true_stress, weights = size(body.stress()), body.weights
learned_stress = size(micro.stress)

share, gap = (certified.tier / 2, np.log10(np.maximum(certified.gap, 1e-8)))
sigma = problems["certified"].sigma
shape, values = pictures.gather(membrane.mesh, np.hstack([sigma.means(a[:, None]) for a in (share, gap)]))

# %%
if comm.rank == 0:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.colors import TwoSlopeNorm

    figure, ((a, b, c), (d, e, f)) = plt.subplots(2, 3, figsize=(15, 8.5), layout="constrained")
    styles = {"exact": {"color": "black", "lw": 3, "alpha": 0.4}, "surrogate": {"ls": "--"}, "certified": {"ls": ":"}}
    for name, problem in problems.items():
        path_u = [0.0] + [s.displacement["right"][1] for s in problem.history]
        path_f = [0.0] + [s.force["right"][1] for s in problem.history]
        pictures.curve(a, path_u, path_f, xlabel="vertical displacement of the right edge", ylabel="force", label=name)
        a.lines[-1].set(**styles[name])
    a.legend(frameon=False)
    a.set_title(f"Cook's membrane, {len(level)} RVEs", fontsize=10)
    pictures.field(b, shape, values[:, 1], label="log₁₀ of gap over energy", cmap="magma")
    b.set_title("the certificate", fontsize=10)
    pictures.field(c, shape, values[:, 0], label="mean over the points of a cell", cmap="cividis", limits=(0.0, 1.0))
    c.set_title(f"network 0, its modes ½, exact 1 (tolerance {tolerance:.0e})", fontsize=10)
    limits = (0.0, float(max(true_stress.max(), learned_stress.max())))
    for axes, stress, title in ((d, true_stress, "exact"), (e, learned_stress, "surrogate")):
        pictures.field(axes, domain.mesh, stress, weights=weights, label="‖dev σ‖·√(3/2) [MPa]", limits=limits)
        axes.set_title(f"the most loaded RVE, {title}", fontsize=10)
    drawn = pictures.field(
        f, domain.mesh, learned_stress - true_stress, weights=weights, label="difference [MPa]", cmap="RdBu_r"
    )
    largest = abs(drawn.get_array()).max()
    drawn.set_norm(TwoSlopeNorm(0.0, -largest, largest))
    f.set_title("surrogate − exact", fontsize=10)
    print(f"picture: {pictures.save(figure, options.folder / 'surrogate.png', dpi=120)}")
