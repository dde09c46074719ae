# SPDX-License-Identifier: MIT
# %% [markdown]
# # A trained model in a program without Python
# `spon.export_c` writes a model as one C file with all its parameters. Here a user material in Fortran with the
# interface of Abaqus (`demos/umat/umat.f90`) is compiled with it and evaluated along a path of strains. Needs cc and
# gfortran, but no Abaqus.
#
#     python3 demos/demo_umat.py                  (--small for less training, --model FILE for a model of your own)

# %%
import argparse
import shutil
import subprocess
import sys
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
parser.add_argument("--small", action="store_true", help="the smallest problem")
parser.add_argument("--model", type=Path, help="of spon.equino.train, for plane strain")
parser.add_argument("--folder", type=Path, default=Path("results/umat"))
options = parser.parse_args()
options.folder.mkdir(parents=True, exist_ok=True)
for compiler in ("cc", "gfortran"):
    if shutil.which(compiler) is None:
        sys.exit(f"{compiler} is missing, which this demo needs (Debian: apt install gcc gfortran)")

# %% [markdown]
# ## The model
# An RVE with three fibres in a matrix that softens; the model is trained for strains of ±3 %.

# %%
if options.model is None:
    domain = meshes.benchmark("RVE3", MPI.COMM_SELF, mesh_size=0.3 if options.small else 0.1)
    materials = {
        meshes.MATRIX: fe2.SaturatingElastic(),
        meshes.INCLUSION: fe2.LinearElastic.from_young_poisson(70_000.0, 0.2),
    }
    rve = fe2.RVE(domain, materials)
    snapshots = options.folder / "snapshots.h5"
    fe2.rve_snapshots.compute(
        rve, fe2.strain_sampling.sobol(16 if options.small else 64, 2, 0.03, seed=1), snapshots, MPI.COMM_SELF
    )
    small, larger = EquiNOOptions(r=6, resolved=12, samples=32, lbfgs=20), EquiNOOptions(lbfgs=1000)
    data = coupling.rve_snapshots(rve, fe2.rve_snapshots.read(snapshots))
    with Live() as live:
        model = equino.train(data, small if options.small else larger, log=live).model
else:
    model = spon.load(options.model)

# %% [markdown]
# ## C, Fortran, and a program

# %%
here = Path(__file__).parent / "umat"
source = spon.export_c(model, options.folder)
program = options.folder / "driver"
objects = options.folder / "cell.o"
subprocess.run(["cc", "-O3", "-march=native", "-c", str(source), "-o", str(objects)], check=True)
subprocess.run(
    ["gfortran", "-O2", "-J", str(options.folder), *(str(here / f"{name}.f90") for name in ("umat", "driver")),
     str(objects), "-lm", "-o", str(program)],
    check=True,
)  # fmt: skip
print(f"{source}: {source.stat().st_size / 1024:.0f} kB")

# %% [markdown]
# ## A path of strains
# Stretched along x with some shear, in Abaqus's notation (11, 22, 33, 12) with the engineering shear; the last strain
# is outside the trained range, where the material requests a smaller increment.

# %%
d = model.lower.numel()
end = 0.9 * model.upper.numpy()
path = np.linspace(0.0, 1.0, 31)[:, None] * np.array([end[0], -0.4 * end[1], 0.0, 2**0.5 * end[2]])
rows = np.vstack([path, [2 * model.upper[0].item(), 0.0, 0.0, 0.0]])
text = "4\n" + "\n".join(" ".join(f"{x:.17e}" for x in row) for row in rows)
done = subprocess.run([program.resolve()], input=text, capture_output=True, text=True, check=True)
found = np.array([[float(x) for x in line.split()] for line in done.stdout.splitlines()])
stress, tangent, increment = found[:-1, :4], found[:-1, 4:20].reshape(-1, 4, 4), found[:, 20]

# %% [markdown]
# ## The same from Python

# %%
mandel = path[:, [0, 1, 3]] / np.array([1.0, 1.0, 2**0.5])
with torch.no_grad():
    right, slope = (x.numpy() for x in model(torch.from_numpy(mandel)))
factor = np.array([1.0, 1.0, 2**0.5])
kept = [0, 1, 3]
off = abs(stress[:, kept] - right / factor).max() / abs(right).max()
off_tangent = abs(tangent[:, kept][:, :, kept] - slope / np.outer(factor, factor)).max() / abs(slope).max()
print(f"stress off by {off:.1e}, tangent by {off_tangent:.1e}; PNEWDT {increment[0]:.1f}, outside {increment[-1]:.1f}")
assert off < 1e-12 and off_tangent < 1e-12 and (increment[:-1] == 1.0).all() and increment[-1] == 0.5

# %% [markdown]
# ## The picture

# %%
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
for k, (place, name) in enumerate(zip(kept, ("11", "22", "12"))):
    axis.plot(100 * path[:, 0], right[:, k] / factor[k], f"C{k}-", label=f"σ{name}, Python")
    axis.plot(100 * path[::3, 0], stress[::3, place], f"C{k}o", mfc="none", label=f"σ{name}, user material")
axis.set(xlabel="strain 11 [%]", ylabel="stress [MPa]")
axis.legend(fontsize=8)
print(f"picture: {pictures.save(figure, options.folder / 'umat.png', dpi=100)}")
