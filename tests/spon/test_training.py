# SPDX-License-Identifier: MIT
"""Training on several ranks, and training that was ended and goes on."""

import dataclasses
import io
import re
import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch

from spon.archive import ModelFileError
from spon.training import History, Live, TrainingOptions, TrainingResult
from spon.training.adamw import fit_samples, rate_factor
from spon.training.deprecated import takes_old_keywords
from spon.training.ranks import Ranks


def problem(seed=0, samples=64):
    """A small network, samples of a function, and the mean square of the error of some."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 3, generator=generator, dtype=torch.float64)
    y = torch.sin(x).prod(1, keepdim=True)
    network = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).double()
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) / 2)
    return network, lambda which: (network(x[which]) - y[which]).square().mean()


SETTINGS = TrainingOptions(steps=60, batch=7, rate=1e-2, every=10, patience=10, validation=10 / 64, seed=3)


def run(network, loss, changes=None, comm=None, log=None, **options):
    options = dataclasses.replace(SETTINGS, **options)
    return fit_samples(network.parameters(), loss, 64, options, changes=changes, comm=comm, log=log)


def flat(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.mark.mpi
def test_ranks_train_one_network(comm):
    """Their shares of a batch add up to it, so that the network is that of one rank but for rounding; also where a
    batch is smaller than the ranks are many. And it is the same on all to the last bit."""
    for batch in (7, 2):
        alone, loss = problem()
        history = run(alone, loss, batch=batch)
        shared, loss = problem()
        lines = []
        found = run(shared, loss, batch=batch, comm=comm, log=lines.append)
        torch.testing.assert_close(flat(shared), flat(alone), rtol=1e-9, atol=1e-11)
        assert found.validation == pytest.approx(history.validation, rel=1e-9)
        assert found.validation[-1] < found.validation[0] / 2
        assert all((flat(shared) == torch.from_numpy(other)).all() for other in comm.allgather(flat(shared).numpy()))
        assert bool(lines) == (comm.rank == 0)


@pytest.mark.mpi
def test_an_error_on_one_rank_is_raised_on_all(comm):
    network, loss = problem()
    calls = []

    def fails(which):
        calls.append(len(which))
        if comm.rank == comm.size - 1 and len(calls) > 4:
            raise ArithmeticError("no more")
        return loss(which)

    with pytest.raises(ArithmeticError, match="no more"):
        run(network, fails, comm=comm)
    assert Ranks(comm).sum(lambda: torch.ones(2)).tolist() == [comm.size] * 2  # and they go on


class Ended(Exception):
    pass


@pytest.mark.mpi
@pytest.mark.parametrize("at", [3, 17, 49, 55])
def test_a_training_that_was_ended_goes_on(comm, mpi_tmp_path, at):
    """To the same parameters and history, to the last bit, wherever it was ended."""
    path = mpi_tmp_path / "training.safetensors"
    stages = []
    changes = {31: lambda: stages.append("finer")}
    whole, loss = problem()
    right = run(whole, loss, comm=comm, changes=dict(changes))

    def until(count):
        """A loss that ends the program at a step; looks are not counted."""

        def ending(which):
            if torch.is_grad_enabled():
                ending.left -= 1
                if ending.left < 0:
                    raise Ended
            return loss(which)

        ending.left = count
        return ending

    network, loss = problem()
    with pytest.raises(Ended):
        run(network, until(at), comm=comm, checkpoint=path, changes=dict(changes))
    comm.Barrier()
    assert path.exists() == (at >= 10)
    network, loss = problem()  # as another program would begin
    stages.clear()
    found = run(network, loss, comm=comm, checkpoint=path, changes=dict(changes))
    assert stages == ["finer"]
    assert torch.equal(flat(network), flat(whole))
    assert found.validation == right.validation and found.loss == right.loss and found.step == right.step
    comm.Barrier()
    assert not path.exists() and not list(mpi_tmp_path.glob("*.part"))


def test_checkpoints_of_others_are_refused(tmp_path):
    path = tmp_path / "training.safetensors"
    network, loss = problem()

    def ending(which):
        if torch.is_grad_enabled() and path.exists():
            raise Ended
        return loss(which)

    with pytest.raises(Ended):
        run(network, ending, checkpoint=path)
    with pytest.raises(ValueError, match="of a training with batch = 7, this one has 8"):
        run(network, loss, checkpoint=path, batch=8)
    with pytest.raises(ModelFileError, match="of other parameters"):
        other = torch.nn.Linear(3, 1).double()
        run(other, loss, checkpoint=path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelFileError, match="damaged"):
        run(network, loss, checkpoint=path)


def test_learning_rate_rises_over_a_tenth_of_the_steps_and_falls_along_a_cosine():
    factors = torch.tensor([rate_factor(step, steps=200) for step in range(201)], dtype=torch.float64)
    assert factors[0] == 1 / 20 and factors[200] < 1e-12
    assert factors.argmax() == 19 and (factors.diff()[:19] > 0).all() and (factors.diff()[19:] < 0).all()
    assert float(factors[100]) == pytest.approx(0.5)


def test_lbfgs_follows_the_steps():
    network, loss = problem()
    before, _ = problem()
    alone = run(before, loss)
    history = run(network, loss, lbfgs=60)
    assert history.step[: len(alone.step)] == alone.step and history.step[-1] == alone.step[-1] + 60
    assert min(history.validation) <= min(alone.validation)


def test_options_that_are_no_options_are_refused():
    for wrong, message in (
        ({"steps": -1}, "steps = -1, need 0 or more"),
        ({"batch": 0}, "batch = 0, need 1 or more"),
        ({"rate": 0.0}, "rate = 0.0, need a positive number"),
    ):
        with pytest.raises(ValueError, match=message):
            TrainingOptions(**wrong)
    with pytest.raises(ValueError, match=r"validation = 0\.1 of 4 samples are 0, need some and not all"):
        TrainingOptions().held_out(4)


def test_keywords_and_attributes_of_the_last_release_warn():
    @takes_old_keywords
    def train(model, options=TrainingOptions(batch=8), *, log=None):
        return TrainingResult(options, History(loss=(2.0, 1.0)))

    with pytest.warns(DeprecationWarning, match=r"train\(seed=\.\.\., steps=\.\.\.\) is now train\(.*TrainingOptions"):
        result = train(None, steps=5, seed=1)
    assert result.model == TrainingOptions(batch=8, steps=5, seed=1)
    with pytest.warns(DeprecationWarning, match=r"result\.loss is now result\.history\.loss"):
        assert result.loss == (2.0, 1.0)
    with pytest.raises(TypeError, match="unexpected keyword"):
        train(None, step=5)


class Terminal(io.StringIO):
    def isatty(self):
        return True


LINES = ("one: 1", "one: 2", "one: 3", "two: 1", "two: 2")


@pytest.mark.parametrize(("stream", "shown"), [(Terminal, 5), (io.StringIO, 2)])
def test_progress_replaces_lines_on_a_terminal_and_is_brief_in_a_log(stream, shown, monkeypatch):
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm")
    with Live(stream(), every=3600.0) as live:
        for line in LINES:
            live(line)
    text = re.sub(r"\x1b\[[?0-9]*[a-zA-Z]", "", live._stream.getvalue())  # without the commands to the terminal
    assert [line for line in LINES if line in text] == (list(LINES) if shown == 5 else ["one: 3", "two: 2"])
    assert text.endswith("two: 2\n") and "one: 3\n" in text


def test_progress_without_rich_is_plain_lines(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    stream = Terminal()
    with Live(stream, every=3600.0) as live:
        for line in LINES:
            live(line)
    assert stream.getvalue() == "one: 3\ntwo: 2\n"
