# SPDX-License-Identifier: MIT
"""The environment's scripts, without a network: what would build and enter the tree is replaced by small fakes."""

import os
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
RUN = PROJECT / "environment" / "run"

# Each fake takes the tree as its last argument, as mmdebstrap does, and adds a line to $BUILDS.
WHOLE = 'echo built >>"$BUILDS"; sleep 0.3; mkdir "${@: -1}"; touch "${@: -1}/whole"'
FAILS = 'mkdir "${@: -1}"; echo "no such package"; exit 1'
KILLED = 'mkdir "${@: -1}"; touch "${@: -1}/half"; kill -KILL $PPID'  # takes environment/run down with it


@pytest.fixture
def machine(tmp_path):
    """A machine without DOLFINx: `start(builder)` runs `environment/run hello` on it."""
    commands, cache = tmp_path / "bin", tmp_path / "cache"
    commands.mkdir()
    (tmp_path / "builds").touch()

    def fake(name, body):
        (commands / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (commands / name).chmod(0o755)

    def start(builder, lane="default"):
        fake("mmdebstrap", builder)
        fake("bwrap", 'echo "entered $2 for ${@: -1}"')  # called as: bwrap --bind TREE / ... -- hello
        environment = os.environ | {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "BUILDS": str(tmp_path / "builds"),
            "FE2X_CACHE": str(cache),
            "FE2X_NATIVE": "0",
            "LANE": lane,
        }
        return subprocess.Popen(
            [RUN, "hello"], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    start.cache = cache
    start.builds = lambda: (tmp_path / "builds").read_text().count("built")
    return start


def finish(process):
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


def entered(machine, out):
    """The tree that was entered, which is whole and carries its final name."""
    tree = Path(out.split()[1])
    assert out == f"entered {tree} for hello\n"
    assert tree.parent == machine.cache
    assert sorted(f.name for f in tree.iterdir()) == ["whole"]
    assert not list(machine.cache.glob("*.part"))
    return tree


@pytest.mark.parametrize("lane", ["default", "wheels"])
def test_tree_is_built_once(machine, lane):
    for _ in range(2):
        code, out, err = finish(machine(WHOLE, lane))
        assert code == 0, err
        assert entered(machine, out).name.startswith(f"{lane}-")
    assert machine.builds() == 1


def test_two_at_once_build_one_tree(machine):
    both = [machine(WHOLE), machine(WHOLE)]
    for code, out, err in map(finish, both):
        assert code == 0, err
        entered(machine, out)
    assert machine.builds() == 1


def test_half_built_tree_is_built_anew(machine):
    code, out, _ = finish(machine(KILLED))
    assert code != 0 and not out
    assert [f.name for f in machine.cache.glob("*.part/*")] == ["half"]

    code, out, err = finish(machine(WHOLE))
    assert code == 0, err
    assert "removing a half-built tree" in err
    entered(machine, out)


def test_failed_build_says_why_and_leaves_nothing(machine):
    code, out, err = finish(machine(FAILS))
    assert code == 75 and not out
    assert "no such package" in err
    assert not [f for f in machine.cache.iterdir() if f.is_dir()]


def test_unknown_lane_is_refused(machine):
    code, out, err = finish(machine(WHOLE, lane="nightly"))
    assert code != 0 and not out
    assert "LANE=nightly" in err and "LANE=wheels" in err
    assert machine.builds() == 0


def test_conda_environment_agrees_with_the_list():
    written = subprocess.run([PROJECT / "environment" / "conda"], check=True, capture_output=True, text=True).stdout
    committed = (PROJECT / "environment" / "environment.yml").read_text()
    assert committed == written, "run `make environment/environment.yml`"


@pytest.mark.mpi
def test_ranks_talk_and_share_a_folder(comm, mpi_tmp_path):
    (mpi_tmp_path / f"rank-{comm.rank}").touch()
    comm.barrier()
    assert len(list(mpi_tmp_path.iterdir())) == comm.size == comm.allreduce(1)
