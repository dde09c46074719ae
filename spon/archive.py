# SPDX-License-Identifier: MIT
"""Files of named tensors with a JSON header, in the safetensors format; nothing in them is executed.

A file is written under a temporary name and renamed. What is read is checked against the SHA-256 sums that the file
carries, so that a truncated, damaged or alien file is refused by name.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

VERSION = "1"


class ModelFileError(RuntimeError):
    """A file that does not hold what it was opened for (a model, a space), or a damaged one."""


def write(path: str | os.PathLike, kind: str, header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write tensors and a header that JSON knows; `kind` ("model", "space") is asked for again by `Reader`.

    Raises FileNotFoundError for a folder that is not there.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    sums = {name: _sum(value) for name, value in tensors.items()}
    text = json.dumps({**header, "torch": torch.__version__.split("+")[0], "sums": sums})
    about = {"format": f"spon {kind}", "version": VERSION, "header": text}
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
    """An open file whose header has been checked; tensors are checked as they are read.

    Raises, when entered:
        FileNotFoundError. ModelFileError: see there.
    """

    def __init__(self, path: str | os.PathLike, kind: str):
        self.path, self.kind = Path(path), kind
        if not self.path.exists():
            raise FileNotFoundError(f"there is no {kind} file {self.path}")

    def __enter__(self):
        try:
            self.file = safetensors.safe_open(self.path, framework="pt")
        except Exception as error:  # safetensors has its own type, which is no public name in all versions
            raise ModelFileError(f"{self.path} is damaged or no {self.kind} file: {error}") from error
        about = self.file.metadata() or {}
        if about.get("format") != f"spon {self.kind}":
            raise ModelFileError(f"{self.path} is no {self.kind} file of spon")
        if about.get("version") != VERSION:
            raise ModelFileError(f"{self.path} has version {about.get('version')}, need {VERSION}")
        text = about.get("header", "")
        if hashlib.sha256(text.encode()).hexdigest() != about.get("sum"):
            raise ModelFileError(f"{self.path} is damaged: its header does not have the sum that it claims")
        self.header = json.loads(text)
        return self

    def __exit__(self, *error):
        self.file.__exit__(*error)

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with `prefix`, by the rest of their names."""
        found = {}
        for name in self.header["sums"]:
            if name.startswith(prefix):
                try:
                    value = self.file.get_tensor(name)
                except Exception as error:
                    raise ModelFileError(f"{self.path} is damaged: {name} cannot be read: {error}") from error
                if _sum(value) != self.header["sums"][name]:
                    raise ModelFileError(f"{self.path} is damaged: {name} does not have the sum that the file claims")
                found[name.removeprefix(prefix)] = value
        return found
