# SPDX-License-Identifier: MIT
"""A trained model as self-contained C source, for programs without Python: a UMAT, a solver of your own."""

import os
import re
from pathlib import Path

import numpy as np

from spon.equino.evaluate.c_response import c_network, response_network
from spon.equino.model import EquiNO

_LANES = 8  # points side by side: few, since such programs mostly evaluate one at a time


def export_c(model: EquiNO, folder: str | os.PathLike, name: str = "cell") -> Path:
    """Write stress and consistent tangent of a model as `name`.c and `name`.h, in C99 with GCC's vector extensions.

    The source contains the parameters, as hexadecimal numbers, and needs libm only. `coupling.SurrogateLaw` compiles
    the same code, so that both agree to rounding. It defines

        int name_response(long n, const double *strain, double *stress, double *tangent);

    which takes strains (n, d) and writes stresses (n, d) and tangents (n, d, d) [MPa], in rows: Mandel components, or
    at finite strain H = F − I and first Piola–Kirchhoff stresses, each row by row. It returns the number of strains
    outside the trained range; their stresses and tangents are NaN. It is thread-safe. Compile with GCC, Clang or a
    compatible compiler, with -O3 -march=native for speed.

    Args:
        model: `spon.EquiNO`.
        folder: of both files, created if needed.
        name: a C identifier.

    Returns:
        The path of the C file.

    Raises:
        ValueError: a subclass of `spon.EquiNO` with its own `forward`, or another class.
        ValueError: layers that are too wide for a thread's stack.
        ValueError: a name that is no identifier.
    """
    known = response_network(model)
    if known is None:
        raise ValueError(f"the model is a {type(model).__name__} with a forward of its own; need a spon.EquiNO")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"name = {name!r}: need an identifier of C, such as 'cell'")
    code, d = c_network(*known), model.strain_size
    if not code.lanes():
        raise ValueError("the layers of the model are too wide for the stack of a thread")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    constants = {"REAL": "double", "SINGLE": 0, "LANES": _LANES, **code.constants}
    numbers = {"parameters": code.parameters}
    numbers |= {key: getattr(model, key).detach().cpu().numpy() for key in ("lower", "upper")}
    lines = [f"/* Written by spon.export_c: a learned RVE, {d} components; see {name}.h. */"]
    lines += [f"#define {key} {value}" for key, value in constants.items()]
    lines += [f"#define response {name}_evaluate", f"#define set_at_zero_strain {name}_set_at_zero_strain"]
    lines += [code.text]
    lines += [_array(key, values) for key, values in numbers.items()]
    lines += [_WRAPPER.replace("NAME", name)]
    header = _HEADER.replace("STRAINS", _KINDS[model.measure.name]).replace("SIZE", str(d)).replace("NAME", name)
    (folder / f"{name}.h").write_text(header)
    path = folder / f"{name}.c"
    path.write_text("\n".join(lines))
    return path


def _array(name: str, values: np.ndarray) -> str:
    numbers = [float(x).hex() for x in np.asarray(values, dtype=np.float64).ravel()]
    rows = (", ".join(numbers[k : k + 4]) for k in range(0, len(numbers), 4))
    return f"static double {name}[] = {{\n  " + ",\n  ".join(rows) + "};\n"


_KINDS = {
    "small strain": "Mandel strains",
    "displacement gradient": "Displacement gradients, row by row,",
    "gradient": "Gradients",
}
_HEADER = """/* Written by spon.export_c.
 * STRAINS (n, SIZE) to stresses (n, SIZE) and tangents (n, SIZE, SIZE) [MPa], in rows.
 * Returns the number of strains outside the trained range; their stresses and tangents are NaN. */
#ifndef NAME_RESPONSE
#define NAME_RESPONSE
#ifdef __cplusplus
extern "C"
#endif
int NAME_response(long n, const double *strain, double *stress, double *tangent);
#endif
"""

_WRAPPER = """
/* When the program is loaded, before any thread runs. */
__attribute__((constructor)) static void prepare(void) { set_at_zero_strain((network *)parameters); }

int NAME_response(long n, const double *strain, double *stress, double *tangent)
{
  int outside = 0;
  response(n, (const network *)parameters, strain, stress, tangent, 1);
  for (long p = 0; p < n; ++p) {
    int in = 1;
#ifdef DIM
    polar turned;
    double e[D];
    decompose(strain + p * FULL, &turned, e, 1);
#else
    const double *e = strain + p * D;
#endif
    for (int i = 0; i < D; ++i) in = in && e[i] >= lower[i] && e[i] <= upper[i];
    if (in) continue;
    ++outside;
    for (int i = 0; i < FULL; ++i) stress[p * FULL + i] = NAN;
    for (int i = 0; i < FULL * FULL; ++i) tangent[p * FULL * FULL + i] = NAN;
  }
  return outside;
}
"""
