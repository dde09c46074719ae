# SPDX-License-Identifier: MIT
"""Products of a constant sparse matrix with many fields, and messages along the edges of a large graph.

The matrices couple each point of a plane to its nearest ones: to 7, as P1 on triangles, and to 20, as in the graph of
the messages. A training step is one layer of messages, its gradient and a step of Adam, each way in a process of its
own with its own peak of memory. One run times all ways in turn; on the CPU by the processor's time of a single thread,
which other processes disturb less than the wall time.

    python3 benchmarks/bench_spmm.py [cpu | cuda]     prints tables and writes benchmarks/spmm.json
    python3 benchmarks/bench_spmm.py --quick          small matrices and graphs, printed and not saved
    python3 benchmarks/bench_spmm.py --table          the tables from that file
"""

import json
import multiprocessing
import resource
import time
import warnings
from pathlib import Path

import keeping
import numpy as np
import scipy
import torch
from scipy.spatial import cKDTree

import spon

RESULTS = Path(__file__).with_name("spmm.json")
# Rows and entries in a row of the matrices; columns; nodes of the graph and edges to each; least seconds of a timing.
FULL = {"matrices": ((10_000, 7), (40_000, 20)), "columns": (1, 32, 256), "graph": (40_000, 20), "least": 3.0}
QUICK = {"matrices": ((200, 7),), "columns": (1, 4), "graph": (200, 20), "least": 0.01}
WIDTH, FEATURES = 32, 4


def nearest(nodes, k):
    """Receivers and senders of edges to the k nearest of random points, numbered along the x axis."""
    points = np.random.default_rng(0).random((nodes, 2))
    points = points[np.lexsort((points[:, 1], (points[:, 0] * nodes**0.5).astype(int)))]
    return np.repeat(np.arange(nodes), k), cKDTree(points).query(points, k)[1].ravel()


def sparse(rows, columns, shape, device):
    values = np.random.default_rng(1).normal(size=len(rows))
    return spon.SparseOperator.of(scipy.sparse.coo_array((values, (rows, columns)), shape=shape), device=device)


def seconds(function, device, least):
    """The shortest time of some calls, without the first one."""
    clock = time.perf_counter if device == "cuda" else time.process_time

    def once():
        start = clock()
        function()
        if device == "cuda":
            torch.cuda.synchronize()
        return clock() - start

    once()
    times = [once()]
    while sum(times) < least or len(times) < 5:
        times.append(once())
    return min(times)


def products(nodes, k, effort, device):
    """Seconds of a product for each way and number of columns, after a check that all have the same result."""
    a = sparse(*nearest(nodes, k), (nodes, nodes), device)
    csr = torch.sparse_csr_tensor(a.pointers, a.columns, a.values, a.shape)
    coo = csr.to_sparse_coo().coalesce()
    rows = coo.indices()[0]
    ways = {
        "spon": lambda x: a @ x,
        "torch CSR": lambda x: csr @ x,
        "torch COO": lambda x: coo @ x,
        "embedding_bag": lambda x: torch.nn.functional.embedding_bag(
            a.columns, x, a.pointers, mode="sum", per_sample_weights=a.values, include_last_offset=True
        ),
        "index_add": lambda x: torch.zeros_like(x).index_add_(0, rows, x[a.columns] * a.values[:, None]),
    }
    table, least = {}, effort["least"] / 10
    for b in effort["columns"]:
        x = torch.randn(nodes, b, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(device)
        expected, batch_first = a @ x, x.T.contiguous()
        for way in ways.values():
            torch.testing.assert_close(way(x), expected, rtol=1e-12, atol=1e-12)
        table[b] = {name: seconds(lambda way=way, x=x: way(x), device, least) for name, way in ways.items()}
        table[b]["spon, batch first"] = seconds(lambda x=batch_first: (a @ x.T).T.contiguous(), device, least)
    return table


class Messages(torch.nn.Module):
    """x_i + Σ_j tanh(x_i A + x_j B + e_ij C) D over the edges from j to i, in different ways."""

    def __init__(self, way, nodes, k, features):
        super().__init__()
        device = features.device
        self.receivers, self.senders = (torch.from_numpy(e).to(device) for e in nearest(nodes, k))
        self.graph = spon.Graph(nodes, self.senders, self.receivers, features)
        generator = torch.Generator().manual_seed(0)
        sizes = 2 * WIDTH + FEATURES, WIDTH
        self.inner, self.outer = (
            torch.nn.Parameter(torch.randn(n, WIDTH, dtype=torch.float64, generator=generator).to(device) / n**0.5)
            for n in sizes
        )
        self.sum = getattr(self, way)

    def forward(self, x, e):
        return x + self.sum(x, e) @ self.outer

    def concatenated(self, x, e):
        """Gathered values side by side, with one matrix."""
        message = torch.tanh(torch.cat([x[self.receivers], x[self.senders], e], dim=1) @ self.inner)
        return torch.zeros_like(x).index_add(0, self.receivers, message)

    def at_nodes(self, x, e):
        """Matrices applied at the nodes, which are fewer, then gathered."""
        a, b, c = self.inner.split([WIDTH, WIDTH, FEATURES])
        message = torch.tanh((x @ a)[self.receivers] + (x @ b)[self.senders] + e @ c)
        return torch.zeros_like(x).index_add(0, self.receivers, message)

    def products(self, x, e):
        """The same, gathered and added by sparse products, with reproducible results."""
        a, b, c = self.inner.split([WIDTH, WIDTH, FEATURES])
        send, receive = self.graph.send, self.graph.receive
        return receive.T @ torch.tanh(receive @ (x @ a) + send @ (x @ b) + e @ c)


def resident(device):
    """Peak memory of this process so far [MiB], on the device."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def train(way, effort, device, results):
    """Put seconds of a training step, its additional memory [MiB] and the loss after the first step in a queue."""
    torch.set_num_threads(1)
    generator, (nodes, k) = torch.Generator().manual_seed(1), effort["graph"]
    x, target = (torch.randn(nodes, WIDTH, dtype=torch.float64, generator=generator).to(device) for _ in range(2))
    e = torch.randn(nodes * k, FEATURES, dtype=torch.float64, generator=generator).to(device)
    layer = Messages(way, nodes, k, e)
    optimiser = torch.optim.Adam(layer.parameters(), lr=1e-3)
    losses, before = [], resident(device)

    def step():
        optimiser.zero_grad()
        loss = (layer(x, e) - target).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())

    time_ = seconds(step, device, effort["least"])
    results.put({"seconds": time_, "MiB": resident(device) - before, "loss": losses[1]})


def messages(effort, device):
    """The record of each way, after a check that all have the same loss."""
    table = {}
    for way in ("concatenated", "at_nodes", "products"):
        context = multiprocessing.get_context("spawn")
        results = context.Queue()
        process = context.Process(target=train, args=(way, effort, device, results))
        process.start()
        table[way] = results.get(timeout=600)
        process.join()
    losses = [record["loss"] for record in table.values()]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-12)
    return table


def tables(record, effort):
    """Markdown: times of products, beside those of `spon`, and of training steps."""
    lines = []
    for matrix, rows in record["products"].items():
        ways = list(next(iter(rows.values())))
        lines += [f"| {matrix}: columns | " + " | ".join(ways) + " |", "|---" * (len(ways) + 1) + "|"]
        for b, row in rows.items():
            columns = [f"{1e3 * row[w]:.2f} ms ({row[w] / row['spon']:.1f})" for w in ways]
            lines.append(f"| {b} | " + " | ".join(columns) + " |")
        lines.append("")
    nodes, k = effort["graph"]
    lines += [
        f"| messages, {nodes} nodes, {nodes * k} edges, width {WIDTH} | training step | memory |",
        "|---|---|---|",
    ]
    lines += [f"| {way} | {row['seconds']:.2f} s | {row['MiB']:.0f} MiB |" for way, row in record["messages"].items()]
    return "\n".join(lines)


def main():
    parser = keeping.parser(__doc__)
    parser.add_argument("device", nargs="?", choices=("cpu", "cuda"), default="cpu")
    given = parser.parse_args()
    if given.table:
        print(tables(json.loads(RESULTS.read_text()), FULL))
        return
    torch.set_num_threads(1)
    effort = QUICK if given.quick else FULL
    warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
    record = {"products": {}, "messages": messages(effort, given.device)}
    for nodes, k in effort["matrices"]:
        record["products"][f"{nodes} rows, {k} per row"] = products(nodes, k, effort, given.device)
    print(tables(record, effort))
    if given.quick:
        return
    record["about"] = keeping.about(mkl=torch.backends.mkl.is_available(), SciPy=scipy.__version__, unit="s")
    keeping.write(RESULTS if given.device == "cpu" else RESULTS.with_name(f"spmm_{given.device}.json"), record)


if __name__ == "__main__":
    main()
