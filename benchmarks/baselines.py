# SPDX-License-Identifier: MIT
"""Other operator networks, called and trained as those of `spon.operators`: (dofs, batch) → (dofs, batch).

They use the same `Discretisation`, and `spon.operators.train` trains them. None of them satisfies Dirichlet values by
construction; as published, they learn them from the data. Networks on nodes take the same features as those of
`spon.operators`: coordinates from −1 to 1 and values of the inputs; the DeepONets take all dofs. Where the prediction
is a curl they predict the potential. Sizes are those of the sources unless stated otherwise, initial weights those of
torch.
"""

from collections.abc import Sequence
from itertools import pairwise

import scipy.sparse.linalg
import torch
from torch import Tensor, nn

from spon.operators.discretisation import Discretisation
from spon.operators.processors.levels import Fixed
from spon.spaces.graphs import graph


class Baseline(nn.Module):
    """Scales inputs and predictions, each input by two numbers and each component of the output by two.

    Inputs that are positive in all samples, such as coefficients, are replaced by their logarithms. `predict` returns
    the scaled values (nodes, batch, components) at the nodes of the output.

    Attributes:
        increment: whether predictions are added to the first input in the space of the prediction.
    """

    increment = False

    def __init__(self, discretisation: Discretisation):
        super().__init__()
        self.discretisation = self.spaces = discretisation
        space, count = discretisation.output, len(discretisation.encoders)
        b = self.components = space.block_size
        if len(space.independent) != space.dofs:
            raise ValueError("the output has tied dofs, which these networks do not support")
        lower, upper = space.points.min(0).values, space.points.max(0).values
        self.register_buffer("places", 2 * (space.points - lower) / (upper - lower) - 1)
        for name, size in (("means", count), ("scales", count), ("mean", b), ("scale", b)):
            self.register_buffer(name, torch.ones(size) if name.startswith("scale") else torch.zeros(size))
        self.register_buffer("positive", torch.zeros(count, dtype=torch.bool))
        # Values of all inputs and coordinates at a node, see `see`.
        self.seen = sum(e.shape[0] for e in discretisation.encoders) // len(space.points) + space.points.shape[1]

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self.spaces = self.discretisation.to(self.scale.device, self.scale.dtype)
        return self

    @torch.no_grad()
    def normalise(self, inputs: Sequence[Tensor], outputs: Tensor) -> None:
        """Take the scales from fields (dofs, samples)."""
        for k, x in enumerate(inputs):
            self.positive[k] = bool((x > 0).all())
            x = x.log() if self.positive[k] else x
            self.means[k], self.scales[k] = x.mean(), x.std()
        values = self.wanted(inputs, outputs).view(-1, self.components, outputs.shape[1])
        self.mean.copy_(values.mean((0, 2)))
        self.scale.copy_(values.std((0, 2)))

    def forward(self, *inputs: Tensor) -> Tensor:
        """The prediction (dofs, batch) for input fields, (dofs, batch) each."""
        logarithms = [
            torch.where(positive, torch.where(positive, x, 1.0).log(), x) for x, positive in zip(inputs, self.positive)
        ]
        scaled = [(x - mean) / scale for x, mean, scale in zip(logarithms, self.means, self.scales)]
        values = self.predict(scaled) * self.scale + self.mean
        answer = values.transpose(1, 2).reshape(-1, values.shape[1])
        if self.spaces.curl is not None:
            answer = self.spaces.curl @ answer
        return inputs[self.spaces.same] + answer if self.increment else answer

    def wanted(self, inputs: Sequence[Tensor], outputs: Tensor) -> Tensor:
        """The targets of the network in the output space, for solutions (dofs, samples) of these inputs."""
        if self.increment:
            outputs = outputs - inputs[self.spaces.same]
        if self.spaces.curl is None:
            return outputs
        free = ~self.spaces.output.fixed.cpu()
        curl = self.discretisation.curl.scipy[:, free.numpy()]
        found = scipy.sparse.linalg.splu((curl.T @ curl).tocsc()).solve(curl.T @ outputs.double().cpu().numpy())
        potentials = torch.zeros(len(free), outputs.shape[1], dtype=torch.float64)
        potentials[free] = torch.from_numpy(found)
        return potentials.to(outputs)

    def predict(self, inputs: list[Tensor]) -> Tensor:
        raise NotImplementedError

    def see(self, inputs: list[Tensor]) -> Tensor:
        """Coordinates and the values of the inputs (nodes, batch, values) at the nodes of the output."""
        nodes, batch = len(self.places), inputs[0].shape[1]
        parts = [self.places[:, None].expand(-1, batch, -1)]
        for matrix, x in zip(self.spaces.encoders, inputs):
            parts.append((matrix @ x).view(nodes, -1, batch).transpose(1, 2))
        return torch.cat(parts, -1)


def perceptron(*sizes: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Layers of the given sizes with activations between them."""
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), activation()]
    return nn.Sequential(*layers[:-1])


class DeepONet(Baseline):
    """Σ_k branch_k(inputs) trunk_k(x) + constant.

    Lu, Jin, Pang, Zhang & Karniadakis, Nature Machine Intelligence 3 (2021), arXiv 1910.03193. The components of the
    output share the trunk and have a part of the branch each.
    """

    def __init__(self, discretisation: Discretisation, width: int = 128, modes: int = 128):
        super().__init__(discretisation)
        sensors = sum(matrix.shape[1] for matrix in discretisation.encoders)
        self.branch = perceptron(sensors, width, width, self.components * modes)
        self.trunk = nn.Sequential(perceptron(self.places.shape[1], width, width, modes), nn.ReLU())
        self.constant = nn.Parameter(torch.zeros(self.components))

    def predict(self, inputs: list[Tensor]) -> Tensor:
        trunk = self.trunk(self.places)
        branch = self.branch(torch.cat(inputs).T).view(-1, self.components, trunk.shape[1])
        # The variance of a sum of so many terms is their number.
        return torch.einsum("pk,nck->pnc", trunk, branch) / trunk.shape[1] ** 0.5 + self.constant


class PODDeepONet(Baseline):
    """Σ_k branch_k(inputs) φ_k + φ_0 with the mean φ_0 and the first proper orthogonal modes φ_k of the outputs.

    Lu, Meng, Cai, Mao, Goswami, Zhang & Karniadakis, Comput. Methods Appl. Mech. Eng. 393 (2022), arXiv 2111.05512.
    """

    def __init__(self, discretisation: Discretisation, width: int = 128, modes: int = 32):
        super().__init__(discretisation)
        sensors = sum(matrix.shape[1] for matrix in discretisation.encoders)
        self.branch = perceptron(sensors, width, width, modes)
        self.register_buffer("middle", torch.zeros(len(self.places), self.components))
        self.register_buffer("modes", torch.zeros(len(self.places), self.components, modes))

    @torch.no_grad()
    def normalise(self, inputs: Sequence[Tensor], outputs: Tensor) -> None:
        """As `Baseline`; also take the modes of the outputs, scaled to their mean size."""
        super().normalise(inputs, outputs)
        outputs = self.wanted(inputs, outputs)
        fields = (outputs.view(-1, self.components, outputs.shape[1]) - self.mean[:, None]) / self.scale[:, None]
        self.middle.copy_(fields.mean(-1))
        left, size, _ = torch.linalg.svd((fields - self.middle[..., None]).flatten(0, 1), full_matrices=False)
        count = self.modes.shape[-1]
        if len(size) < count:
            raise ValueError(f"{outputs.shape[1]} fields of {len(outputs)} dofs have no {count} modes")
        modes = left[:, :count] * size[:count] / outputs.shape[1] ** 0.5
        self.modes.copy_(modes.view_as(self.modes))

    def predict(self, inputs: list[Tensor]) -> Tensor:
        return torch.einsum("pck,nk->pnc", self.modes, self.branch(torch.cat(inputs).T)) + self.middle[:, None]


class OnGrid(Baseline):
    """Networks of images (batch, channels, n + 1, n + 1), made by `layers`.

    grid: (n + 1, n + 1), the number of the node at each place of the grid.
    """

    layers: nn.Module

    def __init__(self, discretisation: Discretisation, grid: Tensor):
        super().__init__(discretisation)
        self.register_buffer("grid", grid)
        self.register_buffer("place", grid.flatten().argsort())

    def predict(self, inputs: list[Tensor]) -> Tensor:
        image = self.layers(self.see(inputs)[self.grid].permute(2, 3, 0, 1))
        return image.flatten(2)[..., self.place].permute(2, 0, 1)


class SpectralConvolution(nn.Module):
    """A learned matrix for each of the lowest modes × modes pairs of wave numbers, the first of either sign."""

    def __init__(self, channels: int, modes: int):
        super().__init__()
        # A pair of real numbers, so that it converts to another precision like the other parameters.
        self.weight = nn.Parameter(torch.rand(2, modes, modes, channels, channels, 2) / channels**2)

    def forward(self, h: Tensor) -> Tensor:
        m, (rows, columns) = self.weight.shape[1], h.shape[-2:]
        lower, upper = torch.view_as_complex(self.weight)
        waves = torch.fft.rfft2(h)
        found = torch.zeros_like(waves)
        found[:, :, :m, :m] = torch.einsum("bixy,xyio->boxy", waves[:, :, :m, :m], lower)
        found[:, :, -m:, :m] = torch.einsum("bixy,xyio->boxy", waves[:, :, -m:, :m], upper)
        return torch.fft.irfft2(found, s=(rows, columns))


class FourierLayers(nn.Module):
    def __init__(self, seen: int, components: int, modes: int, width: int, depth: int, margin: int):
        super().__init__()
        self.margin = margin
        self.lift = nn.Conv2d(seen, width, 1)
        self.spectral = nn.ModuleList(SpectralConvolution(width, modes) for _ in range(depth))
        self.local = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(depth))
        self.project = nn.Sequential(nn.Conv2d(width, 128, 1), nn.GELU(), nn.Conv2d(128, components, 1))

    def forward(self, image: Tensor) -> Tensor:
        h = nn.functional.pad(self.lift(image), (0, self.margin, 0, self.margin))
        for k, (spectral, local) in enumerate(zip(self.spectral, self.local)):
            h = spectral(h) + local(h)
            if k + 1 < len(self.local):
                h = nn.functional.gelu(h)
        return self.project(h[..., : -self.margin, : -self.margin])


class FNO(OnGrid):
    """The Fourier neural operator, with a margin of zeros since the fields are not periodic.

    Li, Kovachki, Azizzadenesheli, Liu, Bhattacharya, Stuart & Anandkumar, ICLR 2021, arXiv 2010.08895. There are fewer
    modes on a grid too coarse for them.
    """

    def __init__(self, discretisation: Discretisation, grid: Tensor, modes: int = 12, width: int = 32):
        super().__init__(discretisation, grid)
        depth, margin = 4, 9
        modes = min(modes, (len(grid) + margin) // 2)
        self.layers = FourierLayers(self.seen, self.components, modes, width, depth, margin)


def grids_below(grid: Tensor, most: int) -> int:
    """Number of grids, each of half the resolution, of which the coarsest has three nodes along an edge; or `most`."""
    count, across = 1, len(grid)
    while count < most and (across := (across + 1) // 2) >= 3:
        count += 1
    return count


class Contraction(nn.Module):
    """Two convolutions, then the rest of the network at half the resolution, whose result is concatenated."""

    def __init__(self, inputs: int, width: int, levels: int):
        super().__init__()
        self.before = self._convolutions(inputs, width)
        self.below = Contraction(width, 2 * width, levels - 1) if levels > 1 else None
        if self.below is not None:
            self.up = nn.ConvTranspose2d(2 * width, width, 3, stride=2, padding=1)
            self.after = self._convolutions(2 * width, width)

    @staticmethod
    def _convolutions(inputs: int, width: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for channels in (inputs, width):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.GroupNorm(4, width), nn.GELU()]
        return nn.Sequential(*layers)

    def forward(self, h: Tensor) -> Tensor:
        h = self.before(h)
        if self.below is None:
            return h
        # Pooling keeps every second node of the grid, including the last one.
        down = nn.functional.max_pool2d(h, 3, stride=2, padding=1)
        return self.after(torch.cat([h, self.up(self.below(down), output_size=h.shape[-2:])], 1))


class UNet(OnGrid):
    """Ronneberger, Fischer & Brox, MICCAI 2015, arXiv 1505.04597.

    With group norms and GELU as in Gupta & Brandstetter, arXiv 2209.15616, and a quarter of the width of the first.
    """

    def __init__(self, discretisation: Discretisation, grid: Tensor, width: int = 16, levels: int = 5):
        super().__init__(discretisation, grid)
        contraction = Contraction(self.seen, width, grids_below(grid, levels))
        self.layers = nn.Sequential(contraction, nn.Conv2d(width, self.components, 1))


class GridCycle(nn.Module):
    """A linear backslash cycle of convolutions from f (batch, inputs, ...) to u (batch, channels, ...).

    On each grid u ← u + S (f − A u), first from u = 0; f and u are restricted to the next one, corrections prolonged.
    """

    def __init__(self, inputs: int, channels: int, levels: int):
        super().__init__()

        def convolutions(count, a, b, stride=1):
            each = (nn.Conv2d(a, b, 3, stride, padding=1, bias=False) for _ in range(count))
            return nn.ModuleList(each)

        # The coarsest grid is smoothed twice, and u is zero before the first smoothing on the finest.
        self.S, self.A = convolutions(levels + 1, inputs, channels), convolutions(levels, channels, inputs)
        self.restrict_f = convolutions(levels - 1, inputs, inputs, 2)
        self.restrict_u = convolutions(levels - 1, channels, channels, 2)
        up = (nn.ConvTranspose2d(channels, channels, 3, 2, padding=1, bias=False) for _ in range(levels - 1))
        self.prolong = nn.ModuleList(up)

    def forward(self, f: Tensor) -> Tensor:
        u = self.S[0](f)
        found = []
        for k, (restrict_f, restrict_u) in enumerate(zip(self.restrict_f, self.restrict_u)):
            found.append(u)
            f, u = restrict_f(f), restrict_u(u)
            u = u + self.S[k + 1](f - self.A[k](u))
        u = u + self.S[-1](f - self.A[-1](u))
        for finer, prolong in zip(reversed(found), reversed(self.prolong)):
            u = finer + prolong(u, output_size=finer.shape[-2:])
        return u


class GridMgNOLayers(nn.Module):
    def __init__(self, seen: int, components: int, channels: int, levels: int, depth: int):
        super().__init__()
        sizes = [seen] + depth * [channels]
        self.cycles = nn.ModuleList(GridCycle(a, b, levels) for a, b in pairwise(sizes))
        self.mixings = nn.ModuleList(nn.Conv2d(a, b, 1) for a, b in pairwise(sizes))
        self.head = nn.Conv2d(channels, components, 1, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        for cycle, mixing in zip(self.cycles, self.mixings):
            h = nn.functional.gelu(cycle(h) + mixing(h))
        return self.head(h)


class GridMgNO(OnGrid):
    """MgNO with convolutions padded by zeros, as published for Darcy's equation.

    He, Liu & Xu, ICLR 2024, arXiv 2310.19809, and github.com/xlliu2017/MgNO. Transposed convolutions are 3 × 3, since
    grids have odd numbers of nodes, and small problems have fewer than six grids.
    """

    def __init__(self, discretisation: Discretisation, grid: Tensor, channels: int = 24, levels: int = 6):
        super().__init__(discretisation, grid)
        self.layers = GridMgNOLayers(self.seen, self.components, channels, grids_below(grid, levels), depth=4)


class Round(nn.Module):
    """e ← e + f(e, sender, receiver) on the edges, then h ← h + g(h, sum of the edges that arrive) on the nodes.

    The first layer of f is one for each of its arguments, and those of the nodes act before these go to the edges.
    """

    def __init__(self, width: int):
        super().__init__()
        self.edge, self.sender, self.receiver = (nn.Linear(width, width, bias=k == 0) for k in range(3))
        self.message = nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.LayerNorm(width))
        self.node = _normed(2 * width, width)

    def forward(self, h: Tensor, e: Tensor, send: Fixed, receive: Fixed, collect: Fixed) -> tuple[Tensor, Tensor]:
        e = e + self.message(self.edge(e) + send(self.sender(h)) + receive(self.receiver(h)))
        return h + self.node(torch.cat([h, collect(e)], -1)), e


class MeshGraphNet(Baseline):
    """Encode, rounds of messages along the edges of the mesh, decode.

    Pfaff, Fortunato, Sanchez-Gonzalez & Battaglia, ICLR 2021, arXiv 2010.03409, who have 15 rounds and a width of 128,
    too many for one core. Features of nodes are also their coordinates, as the place of loads is no input here, and
    their fixed components; features of edges are the vector between their ends and its length.
    """

    def __init__(self, discretisation: Discretisation, width: int = 32, rounds: int = 8):
        super().__init__(discretisation)
        space = discretisation.output
        edges, d = graph(space), space.points.shape[1]
        self.send, self.receive, self.collect = map(Fixed, (edges.send, edges.receive, edges.receive.T))
        self.register_buffer("between", edges.features[:, : d + 1] / edges.features[:, d].mean())
        self.register_buffer("kind", space.fixed.view(-1, self.components).to(space.points.dtype))
        self.encode_node = _normed(self.seen + self.components, width)
        self.encode_edge = _normed(d + 1, width)
        self.rounds = nn.ModuleList(Round(width) for _ in range(rounds))
        self.decode = perceptron(width, width, self.components)

    def predict(self, inputs: list[Tensor]) -> Tensor:
        seen = self.see(inputs)
        batch = seen.shape[1]
        h = self.encode_node(torch.cat([seen, self.kind[:, None].expand(-1, batch, -1)], -1))
        e = self.encode_edge(self.between)[:, None].expand(-1, batch, -1)
        for round in self.rounds:
            h, e = round(h, e, self.send, self.receive, self.collect)
        return self.decode(h)


def _normed(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(perceptron(inputs, width, width), nn.LayerNorm(width))


KINDS: tuple[type[Baseline], ...] = (DeepONet, PODDeepONet, FNO, UNet, GridMgNO, MeshGraphNet)


def build(
    kind: type[Baseline], discretisation: Discretisation, seed: int, increment: bool = False, **options
) -> Baseline:
    """A baseline of float64 with parameters from a seed; the state of torch's generator does not change.

    increment: whether the network predicts an increment of the input. options: of the kind; those on a grid
    need `grid`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = kind(discretisation, **options).double()
    network.increment = increment
    return network
