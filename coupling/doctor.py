# SPDX-License-Identifier: MIT
"""A report on this installation: versions, devices, and problems.

    python3 -m coupling.doctor                    on this machine
    mpirun -n 4 python3 -m coupling.doctor        for these ranks; also under srun
    python3 -m coupling.doctor --json             for programs

The exit code is 1 if problems were found that would spoil or slow a run.
"""

import argparse
import importlib.util
import json
import os
import platform
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any

import mpi4py
import dolfinx
import numpy as np
import torch
import ufl
from mpi4py import MPI
from petsc4py import PETSc

from coupling.placement import assign_devices
from spon.jit import compiler

# Optional package → its use.
OPTIONAL = {
    "gmsh": "RVEs and structures with curved phases",
    "meshio": "mesh files",
    "h5py": "snapshots",
    "matplotlib": "pictures",
    "pyvista": "pictures in 3D",
    "rich": "progress bars",
    "triton": "fused kernels on GPUs",
    "dolfinx_external_operator": "laws as operators in forms",
    "micro_manager": "laws under preCICE",
    "dolfinx_mpc": "a benchmark",
}
SLOW = 5.0  # GFLOP/s of a matrix product, below which there is no optimised BLAS


@dataclass(frozen=True, slots=True)
class Report:
    """The report of `examine`.

    Attributes:
        versions: package → version.
        petsc: scalar and integer type, packages, options.
        nodes: name, ranks, cores, threads of a rank and GPUs of each node.
        optional: package → whether it is installed.
        speed: library → GFLOP/s of a matrix product.
        compiler: the C compiler, or "".
        placement: which device serves which ranks, a line each.
        problems: a sentence each.
    """

    versions: dict[str, str]
    petsc: dict[str, Any]
    nodes: list[dict[str, Any]]
    optional: dict[str, bool]
    speed: dict[str, float]
    compiler: str
    placement: list[str]
    problems: list[str] = field(default_factory=list)


def examine(comm: MPI.Intracomm) -> Report:
    """The report on this installation, the same on all ranks (collective)."""
    nodes = _nodes(comm)
    speed = _speed() if comm.rank == 0 else None
    speed = comm.bcast(speed)
    placement = comm.bcast(_placement(comm))
    optional = {name: importlib.util.find_spec(name) is not None for name in OPTIONAL}
    report = Report(_versions(), _petsc(), nodes, optional, speed, " ".join(compiler()), placement)
    report.problems.extend(problems(report, launched_ranks(), comm.size))
    return comm.bcast(report)


def problems(report: Report, launched: int, size: int) -> list[str]:
    """Problems and their remedies, a sentence each.

    Args:
        report: the report.
        launched: ranks that the launcher has started, 1 without a launcher.
        size: ranks of MPI.COMM_WORLD.
    """
    found = []
    if launched > size:
        found.append(
            f"the launcher has started {launched} ranks, each in an MPI.COMM_WORLD of size {size}: mpi4py is "
            f"linked to another MPI, {report.versions['MPI']}; start with its own mpirun or srun --mpi=pmix"
        )
    for node in report.nodes:
        if node["ranks"] * node["threads"] > node["cores"]:
            threads = max(1, node["cores"] // node["ranks"])
            fewer = [f"set OMP_NUM_THREADS={threads}"] * (node["threads"] > threads)
            fewer += [f"start at most {_many(node['cores'], 'rank')}"] * (node["ranks"] > node["cores"])
            found.append(f"{node['name']}: {_share(node)}: {', and '.join(fewer)}")
    if "MUMPS" not in report.petsc["packages"]:
        found.append("PETSc was built without MUMPS, which solves RVEs and small structures")
    if report.petsc["scalar"] != "float64":
        found.append(f"PETSc computes with {report.petsc['scalar']}, need a build for real double precision")
    for name, rate in report.speed.items():
        if rate < SLOW:
            found.append(
                f"{name} multiplies matrices with {rate:.1f} GFLOP/s, as without an optimised BLAS (Debian: "
                "libopenblas0-pthread)"
            )
    if not report.compiler:
        found.append(
            "no C compiler (cc or $CC): DOLFINx cannot compile forms, and trained models are evaluated by torch"
        )
    return found


def launched_ranks() -> int:
    """Number of ranks that the launcher has started, by its environment variables; 1 without a launcher."""
    names = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_SIZE", "SLURM_STEP_NUM_TASKS")
    sizes = [int(value) for name in names if (value := os.environ.get(name, "")).isdigit()]
    return max(sizes, default=1)


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version(), "DOLFINx": dolfinx.__version__, "UFL": ufl.__version__}
    found |= {"PETSc": ".".join(map(str, PETSc.Sys.getVersion())), "mpi4py": mpi4py.__version__}
    found |= {"MPI": MPI.Get_library_version().split("\n")[0].split(",")[0].strip(), "NumPy": np.__version__}
    return found | {"torch": torch.__version__}


def _petsc() -> dict[str, Any]:
    packages = ("MUMPS", "hypre", "superlu_dist", "HPDDM", "ML", "cuda", "hip")
    has = [name for name in packages if PETSc.Sys.hasExternalPackage(name.lower())]
    return {
        "scalar": np.dtype(PETSc.ScalarType).name,
        "integer": np.dtype(PETSc.IntType).name,
        "packages": has,
        "options": os.environ.get("PETSC_OPTIONS", ""),
    }


def _nodes(comm: MPI.Intracomm) -> list[dict[str, Any]]:
    """Name, ranks, cores of all ranks, threads of each rank and GPUs of each node."""
    cores = set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    mine = (MPI.Get_processor_name(), cores, torch.get_num_threads(), _gpus())
    nodes: dict[str, dict[str, Any]] = {}
    for name, its_cores, threads, gpus in comm.allgather(mine):
        node = nodes.setdefault(name, {"name": name, "ranks": 0, "cores": set(), "threads": threads, "GPUs": gpus})
        node["ranks"] += 1
        node["cores"] |= its_cores
        node["threads"] = max(node["threads"], threads)
    return [node | {"cores": len(node["cores"])} for node in nodes.values()]


def _gpus() -> list[str]:
    found = []
    for k in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(k)
        found.append(f"cuda:{k} {about.name}, {about.total_memory / 2**30:.0f} GiB")
    return found


def _speed(n: int = 600) -> dict[str, float]:
    """GFLOP/s of matrix products in double precision, the fastest of three."""
    a = np.random.default_rng(0).standard_normal((n, n))
    b = torch.from_numpy(a)

    def rate(product) -> float:
        taken = []
        for _ in range(4):
            start = time.perf_counter()
            product()
            taken.append(time.perf_counter() - start)
        return 2 * n**3 / min(taken[1:]) / 1e9

    return {"NumPy": rate(lambda: a @ a), "torch": rate(lambda: b @ b)}


def _placement(comm: MPI.Intracomm) -> list[str]:
    """The log of `coupling.assign_devices`, on the first rank."""
    lines: list[str] = []
    assign_devices(comm, log=lines.append)
    return lines


def text(report: Report) -> str:
    """The report as text."""
    lines = ["versions   " + ", ".join(f"{name} {version}" for name, version in report.versions.items())]
    petsc = report.petsc
    packages = ", ".join(petsc["packages"]) or "no packages"
    lines.append(f"PETSc      {petsc['scalar']}, {petsc['integer']}, with {packages}")
    if petsc["options"]:
        lines.append(f"           PETSC_OPTIONS={petsc['options']}")
    for node in report.nodes:
        gpus = "; ".join(node["GPUs"]) or "no GPU in torch"
        lines.append(f"node       {node['name']}: {_share(node)}, {gpus}")
    lines += [f"learned laws   {line}" for line in report.placement]
    lines.append("products   " + ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in report.speed.items()))
    lines.append(f"compiler   {report.compiler or 'none'}")
    missing = [f"{name} ({OPTIONAL[name]})" for name, there in report.optional.items() if not there]
    lines.append(f"missing    {', '.join(missing) or 'nothing'}")
    lines += [f"WRONG      {problem}" for problem in report.problems] or ["no problems"]
    return "\n".join(lines)


def _share(node: dict[str, Any]) -> str:
    return f"{_many(node['ranks'], 'rank')} of {_many(node['threads'], 'thread')} on {_many(node['cores'], 'core')}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def main(arguments: list[str] | None = None, comm: MPI.Intracomm = MPI.COMM_WORLD) -> int:
    """Examine and print on the first rank; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="for programs")
    given = parser.parse_args(arguments)
    report = examine(comm)
    if comm.rank == 0:
        print(json.dumps(asdict(report), indent=1) if given.json else text(report), flush=True)
    return int(bool(report.problems))


if __name__ == "__main__":
    sys.exit(main())
