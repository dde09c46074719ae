# SPDX-License-Identifier: MIT
"""Physical group of each element in a .msh file of version 1 or 2.

gmsh's own reader assigns them to the whole entity of an element, so that two groups on one entity, or an element
without a group, are lost. (From version 4 on, groups belong to entities in the file as well.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .errors import MeshError


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers in a .msh file.

    Args:
        elements: (n,) numbers of the elements, ascending; None from version 4 on.
        groups: (n,) number of the physical group of each, 0 for none.
        names: dimension and number of a physical group → its name.
    """

    elements: npt.NDArray[np.int64] | None
    groups: npt.NDArray[np.int64] | None
    names: dict[tuple[int, int], str]

    def of(self, elements: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
        """Groups (m,) of the elements (m,)."""
        assert self.elements is not None and self.groups is not None
        return self.groups[np.searchsorted(self.elements, elements.astype(np.int64))]


def physical_numbers(path: Path, nodes_of: Callable[[int], int]) -> Numbers:
    """The physical groups of a file.

    Args:
        path: the .msh file.
        nodes_of: number of nodes of a gmsh element type.

    Raises:
        MeshError: a repeated element number.
    """
    content = path.read_bytes()
    names = {}
    for line in _section(content, b"PhysicalNames").decode(errors="replace").splitlines()[1:]:
        dim, number, name = line.strip().split(maxsplit=2)
        names[int(dim), int(number)] = name.strip('"')
    version, binary, *_ = (_section(content, b"MeshFormat").split(b"\n")[0].split() or [b"1", b"0"])[:2]
    if float(version) >= 4:
        return Numbers(None, None, names)
    if float(version) < 2:  # number, type, group, entity, ...
        found = [(int(f[0]), int(f[2])) for f in map(bytes.split, _section(content, b"ELM").splitlines()[1:])]
    elif int(binary):
        found = _binary(content, nodes_of)
    else:  # number, type, count of tags, group, entity, ...
        lines = map(bytes.split, _section(content, b"Elements").splitlines()[1:])
        found = [(int(f[0]), int(f[3]) if int(f[2]) else 0) for f in lines]
    table = np.array(found, dtype=np.int64).reshape(-1, 2)
    table = table[np.argsort(table[:, 0], kind="stable")]
    twice = table[1:, 0][np.diff(table[:, 0]) == 0]
    if len(twice):
        raise MeshError(
            f"{len(twice)} element numbers occur twice, the first is {twice[0]}; each element needs a number of its own"
        )
    return Numbers(table[:, 0], abs(table[:, 1]), names)  # negative for a reversed entity


def _section(content: bytes, name: bytes) -> bytes:
    """Content between $name and $Endname; b"" without such a section."""
    end = b"$END" + name if name == b"ELM" else b"$End" + name
    start, stop = content.find(b"$" + name), content.rfind(end)
    if start < 0 or stop < 0:
        return b""
    return content[content.index(b"\n", start) + 1 : stop]


def _binary(content, nodes_of):
    order = "<i4" if _section(content, b"MeshFormat").split(b"\n", 1)[1][:4] == b"\x01\0\0\0" else ">i4"
    section = _section(content, b"Elements")
    count, _, section = section.partition(b"\n")
    data, parts, start = np.frombuffer(section[: len(section) // 4 * 4], dtype=order), [], 0
    left = int(count)
    while left > 0:
        kind, number, tags = data[start : start + 3].tolist()
        rows = data[start + 3 : start + 3 + number * (1 + tags + nodes_of(kind))].reshape(number, -1)
        parts.append(np.column_stack([rows[:, 0], rows[:, 1] if tags else np.zeros(number)]))
        start, left = start + 3 + rows.size, left - number
    return np.concatenate(parts) if parts else []
