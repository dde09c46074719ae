# SPDX-License-Identifier: MIT
"""Samples of an operator, solved by DOLFINx on all ranks and written to one file for `spon.load`."""

import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from mpi4py import MPI
from dolfinx import fem

from fe2.chunked_hdf5 import ChunkedFile
from fe2.ranks import raise_on_all_ranks
from spon import ModelFileError, read_space
from spon.operators.operator_samples import FORMAT, VERSION, Signature, names, opened


def sample_operator(
    draw: Callable[[np.random.Generator], object],
    solve: Callable[[], object],
    n: int,
    path: str | os.PathLike,
    comm: MPI.Intracomm,
    *,
    inputs: Sequence[fem.Function],
    output: fem.Function,
    seed: int = 0,
    chunk: int = 16,
    progress: bool = True,
) -> None:
    """Write the first n samples of a seed to a file; only those that it lacks are solved (collective).

        coupling.sample_operator(draw, solve, 1000, "samples.h5", MPI.COMM_WORLD, inputs=[f], output=u)
        data = spon.load("samples.h5")
        operators.train(network, data.inputs, data.output)

    Finished chunks of samples are kept in the folder `<path>.parts` until all are solved: after a crash, call again
    with the same arguments (on any number of ranks), and only the remaining chunks are solved. Sample k is drawn from
    `numpy.random.default_rng([seed, k])` and starts from the present values of the functions, so that it depends
    neither on the number of ranks nor on the samples before it. An error on one rank, also in `draw` and `solve`, is
    raised on all.

    Args:
        draw: sets the inputs, given a generator of random numbers.
        solve: sets the output.
        n: number of samples in the file.
        path: of the file, on a file system that all ranks share.
        comm: ranks that share the work, each with its own copy of the problem.
        inputs: functions that `draw` sets, on meshes on MPI.COMM_SELF.
        output: function that `solve` sets, on a mesh on MPI.COMM_SELF.
        seed: of the samples.
        chunk: samples that are solved between two writes.
        progress: whether rank 0 reports progress: a bar on a terminal, a line every ten per cent elsewhere.

    Raises:
        ValueError: n or chunk < 1, ranks that differ in their arguments, values that are not finite, or a space that
            `spon.read_space` cannot read.
        spon.ModelFileError: the file or a part is damaged, or belongs to other spaces, another seed or another chunk.
    """
    path = Path(path)
    with raise_on_all_ranks(comm):
        for name, value in {"n": n, "chunk": chunk}.items():
            if not isinstance(value, (int, np.integer)) or value < 1:
                raise ValueError(f"{name} = {value!r}: need a whole number of at least 1")
        functions = dict(zip(names(len(inputs)), [*inputs, output]))
        spaces = {name: Signature.of(read_space(x.function_space)) for name, x in functions.items()}
        mine = {"path": str(path), "n": n, "seed": seed, "chunk": chunk}
        mine |= {f"space of {name}": space.about for name, space in spaces.items()}
    first = comm.bcast(mine)
    with raise_on_all_ranks(comm):
        if mine != first:
            different = [name for name in mine if mine[name] != first.get(name)]
            raise ValueError(f"differs from rank 0 in: {', '.join(different) or 'the number of inputs'}")

    open_ = partial(opened, wanted=spaces, seed=seed)
    have = 0
    with raise_on_all_ranks(comm):
        if comm.rank == 0 and path.exists():
            with open_(path) as existing:
                have = len(existing["output"])
    have = comm.bcast(have)
    pieces = [range(k, min(k + chunk, n)) for k in range(have, n, chunk)]
    file = ChunkedFile(
        path,
        "samples",
        rows=list(functions),
        keys=[f"{piece.start} to {piece.stop}" for piece in pieces],
        opened=open_,
        describe=partial(_describe, spaces=spaces, seed=seed),
        error=ModelFileError,
    )
    if not pieces:
        if comm.rank == 0:
            shutil.rmtree(file.folder, ignore_errors=True)  # of a run that was killed between its last two lines
        return
    begin = {name: x.x.array.copy() for name, x in functions.items()}

    def solved(numbers: range) -> dict[str, np.ndarray]:
        found: dict[str, list] = {name: [] for name in functions}
        for number in numbers:
            for name, x in functions.items():
                x.x.array[:] = begin[name]
            draw(np.random.default_rng([seed, number]))
            solve()
            for name, x in functions.items():
                if not np.isfinite(x.x.array).all():
                    raise ValueError(f"sample {number}: {name} has values that are not finite")
                found[name].append(x.x.array.copy())
        return {name: np.array(rows) for name, rows in found.items()}

    try:
        with file.completed(comm, progress) as chunks:
            for k in chunks:
                file.write(k, solved(pieces[k]))
    finally:
        for name, x in functions.items():
            x.x.array[:] = begin[name]


def _describe(file: h5py.File, spaces: dict[str, Signature], seed: int) -> None:
    about = {"format": FORMAT, "version": VERSION, "inputs": len(spaces) - 1, "seed": seed}
    for name, value in about.items():
        file.attrs[name] = value
    for name, space in spaces.items():
        if f"spaces/{name}" not in file:
            file.create_dataset(f"spaces/{name}", data=space.points.numpy(), fletcher32=True).attrs["about"] = (
                space.about
            )
