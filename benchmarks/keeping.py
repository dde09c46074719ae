# SPDX-License-Identifier: MIT
"""Common parts of the benchmarks: options, and files of figures with their machine and versions."""

import argparse
import importlib.metadata
import json
import os
import platform
from pathlib import Path

import torch


def parser(doc):
    """Common options, with the text at the top of the script as description."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="a smoke test, without saving figures")
    made.add_argument("--table", action="store_true", help="print the tables and run nothing")
    return made


def processor():
    """The name of the processor, if available."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def about(**more):
    """Processor, cores, threads of each rank, GPU, and versions."""
    found = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "GPU": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "Python": platform.python_version(),
    }
    for title, name in (("DOLFINx", "fenics-dolfinx"), ("torch", "torch"), ("NumPy", "numpy")):
        found[title] = version(name)
    return found | {"PETSc": petsc()} | more


def version(name):
    """Version of a package, without its build, or "none"."""
    try:
        return importlib.metadata.version(name).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return "none"


def petsc():
    try:
        from petsc4py import PETSc
    except ImportError:
        return "none"
    return ".".join(map(str, PETSc.Sys.getVersion()))


def write(path, figures):
    """Replace a whole JSON file."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(figures, indent=1) + "\n")
    part.rename(path)


def keep(path, *keys, record, **more):
    """Put a record under these keys of a JSON file and keep the others; `more`: data of the run beside `about`.

    The file names the machine of its last record.
    """
    figures = json.loads(path.read_text()) if path.exists() else {}
    figures["about"] = about(**more)
    place = figures
    for key in keys[:-1]:
        place = place.setdefault(str(key), {})
    place[str(keys[-1])] = record
    write(path, figures)
