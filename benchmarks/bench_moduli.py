# SPDX-License-Identifier: MIT
"""Effective moduli of boron/aluminium against published values: unidirectional, square array, 47 % circular fibres.

A periodic RVE of one fibre in 3D, the fibre along 1, on three meshes and with a second thickness (the fields do not
vary along the fibre). Published: C. T. Sun & R. S. Vaidya, Compos. Sci. Technol. 56, 1996, 171-179, and Z. Xia, Y.
Zhang & F. Ellyin, Int. J. Solids Struct. 40, 2003, 1907-1921, both as cited in later papers. Exact references: Hill's
bounds and Rayleigh's series, see tests/references.py.

    python3 benchmarks/bench_moduli.py           prints a table and writes benchmarks/moduli.json
    python3 benchmarks/bench_moduli.py --quick   coarse meshes, printed and not saved
    python3 benchmarks/bench_moduli.py --table   the table from that file
"""

import json
import sys
from pathlib import Path

import keeping
import numpy as np
from mpi4py import MPI

import fe2
import meshes

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import references

ALUMINIUM, BORON = (68.3, 0.30), (379.3, 0.10)  # E [GPa], ν
FRACTION = 0.47
RESULTS = Path(__file__).with_name("moduli.json")
PUBLISHED = {  # as printed there, GPa
    "Sun & Vaidya 1996": {"E1": "215", "E2": "144", "G12": "57.2", "G23": "45.9", "nu12": "0.19", "nu23": "0.29"},
    "Xia et al. 2003": {"E1": "214", "E2": "143", "G12": "54.2", "G23": "45.7", "nu12": "0.195", "nu23": "0.253"},
}
NAMES = tuple(PUBLISHED["Xia et al. 2003"])


def moduli(edges, slender=1.0):
    """The constants with `edges` around the fibre; the thickness of the RVE is `slender` edge lengths."""
    radius = np.sqrt(FRACTION / np.pi)
    size = 2 * np.pi * radius / edges
    domain = meshes.rve(
        [meshes.Cylinder((0.0, 0.0, 0.0), "x", radius)],
        MPI.COMM_SELF,
        mesh_size=size,
        size=(slender * size, 1.0, 1.0),
        order=2,
        edges_per_circle=edges,
    )
    materials = {
        meshes.MATRIX: fe2.LinearElastic.from_young_poisson(*ALUMINIUM),
        meshes.INCLUSION: fe2.LinearElastic.from_young_poisson(*BORON),
    }
    rve = fe2.RVE(domain, materials)
    constants = fe2.engineering_constants(rve.homogenise(np.zeros(6)).tangent[0])
    row = {
        "edges_around_fibre": edges,
        "thickness": slender * size,
        "unknowns": rve.unknowns.size,
        "fibre_fraction": domain.fractions()[meshes.INCLUSION],
        **{name: float(getattr(constants, name)) for name in NAMES},
    }
    rve.destroy()
    return row


def known():
    """Exact bounds or values: name → (lower, upper)."""
    phases = fe2.bulk_shear(*ALUMINIUM), fe2.bulk_shear(*BORON)
    young, poisson = references.hill_axial(*phases, FRACTION)
    shear = references.square_array_shear(phases[0][1], phases[1][1], FRACTION)
    return {"E1": young.tolist(), "nu12": poisson.tolist(), "G12": [float(shear)] * 2}


def table(rows, exact):
    """Markdown: the finest mesh, the changes by the last refinement and the second thickness, and the references."""
    coarse, fine, thick = rows[-3:]
    titles = ["", "fe2x", "last refinement", "twice as thick", *PUBLISHED, "known"]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for name in NAMES:
        digits = 2 if name[0] in "EG" else 4
        changes = [f"{abs(a[name] / b[name] - 1):.0e}" for a, b in ((fine, coarse), (thick, fine))]
        bounds = sorted({f"{v:.{digits}f}" for v in exact.get(name, [])})
        columns = [f"{fine[name]:.{digits}f}", *changes, *(p[name] for p in PUBLISHED.values()), " to ".join(bounds)]
        lines.append("| " + " | ".join([name + (" [GPa]" if digits == 2 else ""), *columns]) + " |")
    return "\n".join(lines)


def main():
    given = keeping.parser(__doc__).parse_args()
    if given.table:
        record = json.loads(RESULTS.read_text())
        print(table(record["meshes"], record["exact"]))
        return
    around_fibre = (8, 16) if given.quick else (16, 32, 64)
    rows = [moduli(edges) for edges in around_fibre] + [moduli(around_fibre[-1], slender=2.0)]
    exact = known()
    print(table(rows, exact))
    if given.quick:
        return
    about = keeping.about(moduli="GPa", degree=2, fraction=FRACTION)
    keeping.write(RESULTS, {"about": about, "meshes": rows, "published": PUBLISHED, "exact": exact})


if __name__ == "__main__":
    main()
