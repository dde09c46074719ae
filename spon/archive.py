# SPDX-License-Identifier: MIT
"""Files of named tensors with a JSON header, in the safetensors format; nothing in them is executed.

A file is written under a temporary name and renamed. Reading checks the SHA-256 sums in the file and rejects a
truncated or damaged file, or one of another format. `load` loads any kind of file: each module that writes a kind of
file registers the function that constructs the object from the open file, see `unpacks`.
"""

import functools
import hashlib
import inspect
import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

VERSION = "1"
_FORMAT = "spon "  # followed by the kind
_HDF5 = b"\x89HDF\r\n\x1a\n"  # the first bytes of an HDF5 file

Function = TypeVar("Function", bound=Callable[..., Any])
P = ParamSpec("P")
T = TypeVar("T")
_READERS: dict[str, Callable[..., Any]] = {}


class ModelFileError(RuntimeError):
    """A file that is damaged, or of another kind than expected."""


def reads(kind: str) -> Callable[[Function], Function]:
    """Decorator of the function that reads files of a kind, from a path and options; `load` calls it."""

    def register(function: Function) -> Function:
        _READERS[kind] = function
        return function

    return register


def unpacks(
    kind: str,
) -> "Callable[[Callable[Concatenate[Reader, P], T]], Callable[Concatenate[str | os.PathLike, P], T]]":
    """Decorator of the function that constructs an object from the `Reader` of a file and options.

    The decorated function takes a path instead, as does `load`: it opens and checks the file, and raises ModelFileError
    if its parts are inconsistent.

    Args:
        kind: of the files.
    """

    def register(function: Callable[..., T]) -> Callable[..., T]:
        @reads(kind)
        @functools.wraps(function)
        def from_path(path: str | os.PathLike, *args: Any, **options: Any) -> T:
            with Reader(path, kind) as file:
                try:
                    return function(file, *args, **options)
                except ModelFileError:
                    raise
                except (KeyError, TypeError, RuntimeError, ValueError) as error:
                    raise ModelFileError(f"{path}: its parts are inconsistent: {error}") from error

        return from_path

    return register


def load(path: str | os.PathLike, *former: Any, **options: Any) -> Any:
    """Load the content of a file: a model, an operator network, a network of modes, a space, or samples.

    Models and networks are on the CPU. No file needs DOLFINx.

    Args:
        path: of the file.
        *former: the network of samples by position, as `load_samples` of the last release took it; deprecated.
        **options: of the kind of file. `whole=True` for models: also the modes at all points of the RVE, most of the
            file, for exact certificates and local fields. `network=...` for samples: the operator network whose spaces
            the samples must have.

    Raises:
        FileNotFoundError: the file does not exist.
        ModelFileError: the file is damaged or of another format.
        ModuleNotFoundError: samples, without h5py.
        TypeError: an option that this kind of file does not have.
    """
    if former:
        if len(former) > 1 or "network" in options:
            raise TypeError("load takes the path by position, and options by name")
        warnings.warn(
            "spon.load(path, network) is now spon.load(path, network=network)", DeprecationWarning, stacklevel=2
        )
        options["network"] = former[0]
    kind = _kind(Path(path))
    if kind not in _READERS:
        raise ModelFileError(f"{path} holds a {kind!r}, which cannot be loaded: need one of {sorted(_READERS)}")
    known = list(inspect.signature(_READERS[kind]).parameters)[1:]
    if unknown := sorted(options.keys() - set(known)):
        raise TypeError(f"{path} holds a {kind!r}, for which there is no option {unknown[0]!r}: need one of {known}")
    return _READERS[kind](path, **options)


def _kind(path: Path) -> str:
    """The kind of a file."""
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with open(path, "rb") as file:
            is_hdf5 = file.read(len(_HDF5)) == _HDF5
        if is_hdf5:
            import h5py

            with h5py.File(path, "r") as samples:
                found = str(samples.attrs.get("format", ""))
        else:
            opened: Any = safetensors.safe_open(path, framework="pt")
            with opened as tensors:
                found = (tensors.metadata() or {}).get("format", "")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{path} holds samples in HDF5: need `pip install h5py`", name="h5py") from error
    except Exception as error:  # safetensors has its own type, which is not public in all versions
        raise ModelFileError(f"{path} is damaged or no file of spon: {error}") from error
    if not found.startswith(_FORMAT):
        raise ModelFileError(f"{path} is no file of spon")
    return found.removeprefix(_FORMAT)


def write(path: str | os.PathLike, kind: str, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write tensors and a header to a file.

    Args:
        path: of the file, which is replaced.
        kind: of the file, such as "model" or "space".
        header: further data for the reader, values that JSON can represent.
        tensors: by name.

    Raises:
        FileNotFoundError: the folder does not exist.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    sums = {name: _sum(value) for name, value in tensors.items()}
    text = json.dumps({**header, "torch": torch.__version__.split("+")[0], "sums": sums})
    about = {"format": _FORMAT + kind, "version": VERSION, "header": text}
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} to")
    part = path.with_name(path.name + ".part")
    save_file(tensors, part, {**about, "sum": hashlib.sha256(text.encode()).hexdigest()})
    os.replace(part, path)


def _sum(tensor: Tensor) -> str:
    about = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    return hashlib.sha256(about + tensor.numpy().tobytes()).hexdigest()


class Reader:
    """An open file, whose header is checked when it is opened and whose tensors are checked as they are read.

    Args:
        path: of the file.
        kind: the required kind.

    Raises:
        FileNotFoundError: on entry, the file does not exist.
        ModelFileError: on entry, the file is damaged or of another kind or version.
    """

    def __init__(self, path: str | os.PathLike, kind: str):
        self.path, self.kind = Path(path), kind
        if not self.path.exists():
            raise FileNotFoundError(f"there is no {kind} file {self.path}")

    def __enter__(self):
        try:
            self.file = safetensors.safe_open(self.path, framework="pt")
        except Exception as error:  # safetensors has its own type, which is not public in all versions
            raise ModelFileError(f"{self.path} is damaged or no {self.kind} file: {error}") from error
        about = self.file.metadata() or {}
        if about.get("format") != _FORMAT + self.kind:
            raise ModelFileError(f"{self.path} is no {self.kind} file of spon")
        if about.get("version") != VERSION:
            raise ModelFileError(f"{self.path} has version {about.get('version')}, need {VERSION}")
        text = about.get("header", "")
        if hashlib.sha256(text.encode()).hexdigest() != about.get("sum"):
            raise ModelFileError(f"{self.path} is damaged: the checksum of its header is wrong")
        self.header = json.loads(text)
        return self

    def __exit__(self, *error):
        self.file.__exit__(*error)

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Tensors whose names begin with `prefix`, by the remainder of their names."""
        found = {}
        for name in self.header["sums"]:
            if name.startswith(prefix):
                try:
                    value = self.file.get_tensor(name)
                except Exception as error:
                    raise ModelFileError(f"{self.path} is damaged: {name} cannot be read: {error}") from error
                if _sum(value) != self.header["sums"][name]:
                    raise ModelFileError(f"{self.path} is damaged: the checksum of {name} is wrong")
                found[name.removeprefix(prefix)] = value
        return found
