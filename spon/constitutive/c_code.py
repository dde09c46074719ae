# SPDX-License-Identifier: MIT
"""Writes programs as C functions."""

from collections import Counter

from spon.constitutive.program import OPERATIONS, Program

_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "lt": "<", "le": "<=", "eq": "==", "ne": "!=", "and": "&&",
          "or": "||"}  # fmt: skip


# As in torch, the minimum and the maximum of NaN and a number are NaN.
_FORMS = {
    "axpy": "{0} + {2} * {1}",
    "neg": "-{0}",
    "not": "!{0}",
    "select": "{0} ? {1} : {2}",
    "min": "{0} != {0} || {0} < {1} ? {0} : {1}",
    "max": "{0} != {0} || {0} > {1} ? {0} : {1}",
    "ln": "log({0})",
    "abs": "fabs({0})",
}


def function(name: str, program: Program) -> str:
    """A program as a C function of lanes: static void name(const REAL *constants, lanes x[], lanes y[]).

    Programs that differ in their constants only give the same code. Several divisions by one number become products
    with its inverse, since a division takes as long as ten products.

    Args:
        name: of the C function.
        program: of one input.
    """
    divided = Counter(operands[1] for operation, *operands in program.steps if operation == "div")
    inverses: dict[int, str] = {}
    ((_, size),) = program.inputs
    known = [f"x[{i}][b]" for i in range(size)] + [f"c{k}" for k in range(len(program.constants))]
    lines = [f"  const REAL c{k} = constants[{k}];" for k in range(len(program.constants))] + ["  EACH {"]
    for operation, *operands in program.steps:
        values = [known[i] for i in operands]
        if operation == "div" and divided[operands[1]] > 1:
            if operands[1] not in inverses:
                inverses[operands[1]] = f"r{len(inverses)}"
                lines.append(f"    const REAL {inverses[operands[1]]} = 1 / {values[1]};")
            right = f"{values[0]} * {inverses[operands[1]]}"
        elif operation in _INFIX:
            right = f" {_INFIX[operation]} ".join(values)
        else:
            right = _FORMS.get(operation, f"{operation}({', '.join(values)})").format(*values)
        kind = "int" if OPERATIONS[operation][2] == "b" else "REAL"
        known.append(f"v{len(known)}")
        lines.append(f"    const {kind} {known[-1]} = {right};")
    lines += [f"    y[{k}][b] = {known[i]};" for k, i in enumerate(program.outputs)] + ["  }"]
    # Without `restrict` the compiler would have to check which of the arrays overlap.
    into = f"lanes x[restrict {size}], lanes y[restrict {len(program.outputs)}]"
    head = f"static void {name}(const REAL *restrict constants, {into})"
    return "\n".join([head, "{", *lines, "}", ""])
