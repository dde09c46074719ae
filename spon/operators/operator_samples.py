# SPDX-License-Identifier: MIT
"""Samples of an operator, input fields and the output field of each, from a file of `coupling.sample_operator`."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spon.archive import ModelFileError, reads
from spon.operators.network import OperatorNetwork
from spon.spaces.space import MixedSpace, Space

FORMAT = "spon samples"
VERSION = 1


@dataclass(frozen=True, slots=True, eq=False)
class OperatorSamples:
    """n samples of an operator, for `spon.operators.train`.

    Args:
        inputs: (dofs, n), of each input field.
        output: (dofs, n).
        seed: of the samples.
    """

    inputs: tuple[Tensor, ...]
    output: Tensor
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class Signature:
    """Identifies a function space with its numbering.

    Args:
        about: element and numbers of the dofs in each cell, as text.
        points: (nodes, d), coordinates of the nodes, whose rounding may differ between machines.
    """

    about: str
    points: Tensor

    @classmethod
    def of(cls, space: Space | MixedSpace) -> "Signature":
        """The signature of a space.

        Args:
            space: of any element.
        """
        if isinstance(space, MixedSpace):
            parts = [cls.of(part) for part in space.parts]
            numbered = [[part.about, _digest(numbers)] for part, numbers in zip(parts, space.numbers)]
            return cls(json.dumps(numbered), torch.cat([part.points for part in parts]))
        about = [space.family, space.cell, space.degree, space.block_size, _digest(space.cell_dofs)]
        return cls(json.dumps(about), space.points)

    def fits(self, about: str, points: Tensor) -> bool:
        """Whether a space is the same.

        Args:
            about: its text.
            points: (nodes, d), its coordinates.
        """
        if about != self.about or points.shape != self.points.shape:
            return False
        size = (self.points.max(0).values - self.points.min(0).values).max()
        return bool((points - self.points).abs().max() <= 1e-9 * size)


def _digest(numbers: Tensor) -> str:
    return hashlib.sha256(f"{tuple(numbers.shape)}".encode() + numbers.to(torch.int64).numpy().tobytes()).hexdigest()


@reads("samples")
def load_samples(path: str | os.PathLike, network: OperatorNetwork | None = None) -> OperatorSamples:
    """The samples of a file, in float64 on the CPU. It needs h5py and no DOLFINx.

    Args:
        path: of the file.
        network: the samples must have its output space and numbers of input dofs; None for any.

    Raises:
        FileNotFoundError: the file does not exist.
        ModelFileError: the file is damaged, or holds no samples or those of other spaces.
    """
    path = Path(path)
    wanted: dict[str, Signature | None] | None = None
    if network is not None:
        spaces = network.discretisation
        wanted = dict.fromkeys(names(len(spaces.encoders))) | {"output": Signature.of(spaces.answer)}
    with opened(path, wanted) as file:
        fields = [torch.from_numpy(file[name][:]).T.contiguous() for name in names(file.attrs["inputs"])]
        seed = int(file.attrs["seed"])
    *inputs, output = fields
    if network is not None:
        sizes, need = [len(x) for x in inputs], [m.shape[1] for m in network.discretisation.encoders]
        if sizes != need:
            raise ModelFileError(f"{path} holds inputs of {sizes} dofs, the network takes {need}")
    return OperatorSamples(tuple(inputs), output, seed)


def names(inputs: int) -> list[str]:
    """Names of the fields in a file, the output last.

    Args:
        inputs: number of input fields.
    """
    return [f"input_{k}" for k in range(inputs)] + ["output"]


@contextmanager
def opened(path: Path, wanted: Mapping[str, Signature | None] | None = None, seed: int | None = None) -> Iterator[Any]:
    """A file of samples (h5py.File) open for reading.

    Args:
        path: of the file.
        wanted: name of each field → signature of the space that it must belong to, or None for any.
        seed: that the samples must have; None for any.

    Raises:
        FileNotFoundError: the file does not exist.
        ModelFileError: the file cannot be read, also inside the block; is of another kind; or holds other samples.
    """
    import h5py

    if not path.exists():
        raise FileNotFoundError(f"there is no file of samples {path}")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise ModelFileError(f"{path} is no file of samples")
            if file.attrs.get("version") != VERSION:
                raise ModelFileError(f"{path} has version {file.attrs.get('version')}, need {VERSION}")
            fields = names(file.attrs["inputs"])
            lengths = {len(file[name]) for name in fields}
            if len(lengths) > 1:
                raise ModelFileError(f"{path} is damaged: its fields have {sorted(lengths)} samples")
            if wanted is not None and list(wanted) != fields:
                raise ModelFileError(f"{path} holds {', '.join(fields)}: need {', '.join(wanted)}")
            for name, signature in (wanted or {}).items():
                if signature is None:
                    continue
                about, points = file[f"spaces/{name}"].attrs["about"], torch.from_numpy(file[f"spaces/{name}"][:])
                if not signature.fits(about, points):
                    raise ModelFileError(
                        f"{path}: {name} belongs to another function space (mesh, numbering or element differ)"
                    )
            if seed is not None and file.attrs["seed"] != seed:
                raise ModelFileError(f"{path} has samples of the seed {file.attrs['seed']}, need {seed}")
            yield file
    except (OSError, KeyError) as error:
        raise ModelFileError(f"{path} is damaged or no HDF5 file: {error}") from error
