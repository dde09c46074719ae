# SPDX-License-Identifier: MIT
# %% [markdown]
# # A run on a cluster
# A structure with the law of your choice, in a folder with its configuration. At its time limit a batch system ends the
# run by a signal; the run has written a checkpoint, from which the same command continues until the run is complete.
#
#     mpirun -n 2 python3 demos/batch/demo_batch.py --structure cook --law exact
#
# `slurm.sh` and `mpirun.sh` beside this file start it on clusters.

# %%
import argparse
from collections.abc import Callable
from pathlib import Path

from mpi4py import MPI

import fe2
import meshes

parser = argparse.ArgumentParser()
parser.add_argument("--structure", choices=("cook", "l_profile", "plate"), default="cook")
parser.add_argument("--law", choices=("exact", "surrogate", "certified"), default="exact")
parser.add_argument("--model", type=Path, help="model file of the RVE, such as that of demo_surrogate.py")
parser.add_argument("--mesh-size", type=float, default=0.1, help="of the RVE")
parser.add_argument("--n", type=int, default=5, help="cells along an edge of the structure")
parser.add_argument("--steps", type=int, default=10, help="load steps")
parser.add_argument("--small", action="store_true", help="the smallest problem")
parser.add_argument("--folder", type=Path, default=Path("results/batch"))
options = parser.parse_args()
if (options.law == "exact") != (options.model is None):
    parser.error(f"--law {options.law} with --model {options.model}: models are for surrogate and certified law")
if options.small:
    options.mesh_size, options.n = 0.2, 2
comm = MPI.COMM_WORLD

# %% [markdown]
# ## The structures
# Each structure is clamped or supported by symmetry and moved at its right end.

# %%
structures: dict[str, tuple[Callable, dict]] = {
    "cook": (meshes.cook, {"left": (0.0, 0.0), "right": (None, 1.6)}),
    "l_profile": (meshes.l_profile, {"top": (0.0, 0.0), "right": (None, 7.0)}),
    "plate": (meshes.plate_with_hole, {"left": (0.0, None), "bottom": (None, 0.0), "right": (0.022, None)}),
}
make, held = structures[options.structure]

# %% [markdown]
# ## The law
# The RVE has three stiff circles in a matrix that softens in shear. A surrogate is evaluated on the GPUs of each
# node (experimental), which ranks share if there are fewer GPUs, or on the ranks' own cores without GPUs. At strains
# outside the trained range the exact law replaces it, so that the run does not fail there.

# %%
microstructure = meshes.benchmark("RVE3", MPI.COMM_SELF, mesh_size=options.mesh_size)
materials = {1: fe2.SaturatingElastic(), 2: fe2.LinearElastic(bulk=43452.381, shear=29918.0328)}


def law(log: Callable[[str], None]) -> fe2.Law:
    """The law of the options; `log` is called with a line for each device."""
    exact = fe2.ExactLaw(fe2.RVE(microstructure, materials))
    if options.law == "exact":
        return exact
    import coupling
    import spon

    model = spon.load(options.model, whole=True)
    if options.law == "certified":
        return coupling.CertifiedLaw(model, exact)
    return coupling.SurrogateLaw(model, device=coupling.assign_devices(comm, log=log), outside=exact)


# %% [markdown]
# ## The run
# The options are its configuration. The folder of a run with another configuration is rejected.

# %%
config = {name: value for name, value in vars(options).items() if name != "folder"}
with fe2.RunFolder(options.folder, comm, config) as run:
    problem = fe2.MacroProblem(make(comm, n=options.n), law(run.log))
    for boundary, values in held.items():
        problem.prescribe(boundary, values)
    problem.record("right")
    last = run.solve(problem, steps=options.steps, fields=True)[-1]
    run.write("result.json", {"displacement": last.displacement["right"], "force": last.force["right"]})
    run.log(f"displacement {last.displacement['right']}, force {last.force['right']}")
