# SPDX-License-Identifier: MIT
"""Structure-preserving operator networks between finite element spaces.

S = D ∘ P ∘ E (Bouziani & Boullé, arXiv 2410.01065): the encoder E brings input fields to the nodes of the output space,
the processor P is learned (`spon.operators.processors`), the decoder D turns its output into a field of the output
space, with all its strong conditions.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spon.archive import ModelFileError, Reader, reads, write
from spon.operators.discretisation import Discretisation, discretise, nodes
from spon.operators.processors.flux import Fluxes
from spon.operators.processors.layers import PROCESSORS, Hierarchy, dense
from spon.spaces import constraints, norms


class Operator(nn.Module):
    """A network on spaces that have been read; `OperatorNetwork` reads them and has the arguments explained.

    discretisation: what it is built on, in float64 on the CPU. spaces: the same where the network is.
    """

    def __init__(
        self,
        discretisation: Discretisation,
        *,
        processor: str = "multigrid",
        channels: int = 16,
        linear_in: Sequence[int] = (),
        integral: float | str | Sequence[float | None] | None = None,
        increment: bool = False,
        symmetric: bool = False,
        seed: int = 0,
        **options: Any,
    ):
        super().__init__()
        space, count, parts = discretisation.output, len(discretisation.encoders), discretisation.parts
        same = discretisation.same
        integrals = list(integral) if isinstance(integral, list | tuple) else [integral]
        if integral is None:
            integrals *= len(parts)
        if processor not in (*PROCESSORS, "fluxes"):
            known = ", ".join(map(repr, (*PROCESSORS, "fluxes")))
            raise ValueError(f"processor = {processor!r}, need one of {known}")
        if processor == "multigrid" and not discretisation.coarse:
            raise ValueError("the processor 'multigrid' needs coarse spaces: coarse = [...], from finer to coarser")
        if not all(0 <= k < count for k in linear_in):
            raise ValueError(f"linear_in = {tuple(linear_in)}, need numbers of inputs from 0 to {count - 1}")
        if len(integrals) != len(parts):
            raise ValueError(f"integral = {integral}, need {len(parts)}, one for each part of the output")
        if any(isinstance(value, str) and value != "input" for value in integrals):
            raise ValueError(f"integral = {integral!r}, need a number, 'input' or None")
        going_on = increment or "input" in integrals
        if going_on and same is None:
            raise ValueError("increment and integral = 'input' need an input in the space of the answer")
        fixed = any(bool(part.lifting.any()) for part in parts)
        if linear_in and (fixed or any(value not in (None, "input", 0.0) for value in integrals)):
            raise ValueError("linear_in needs Dirichlet values and an integral of zero: what is given is not linear")
        if linear_in and going_on and same not in linear_in:
            raise ValueError(
                f"the answer follows input {same}, so that linear_in = {tuple(linear_in)} needs {same} too"
            )
        constrained = any(value is not None for value in integrals)
        if constrained and discretisation.velocity is not None:
            raise ValueError("the integral of a curl is that of the potential's boundary values: leave integral out")
        for value, part in zip(integrals, parts):
            if value is not None and part.correction.shape[1] == 0:
                raise ValueError(f"integral = {integral}, but the Dirichlet values leave the integral no room")
        if symmetric:
            several = len(parts) > 1 or discretisation.velocity is not None
            if linear_in or constrained or increment or several:
                raise ValueError(
                    "a symmetric network has neither linear_in nor integral nor increment nor velocity nor mixed output"
                )
            sizes = [matrix.shape[1] for matrix in discretisation.encoders]
            if sizes != [space.dofs]:
                raise ValueError(f"a symmetric network has one input of {space.dofs} dofs as the output, not {sizes}")
        self.settings = {
            "processor": processor,
            "channels": channels,
            "linear_in": list(linear_in),
            "integral": integrals,
            "increment": increment,
            "symmetric": symmetric,
            "seed": seed,
            **options,
        }
        self.discretisation = self.spaces = discretisation
        self.hierarchy = Hierarchy(discretisation)
        here, b = nodes(space), space.block_size
        self.components = [part.block_size for part in parts]
        sizes = [matrix.shape[0] // len(here) for matrix in discretisation.encoders]
        # What a network that is not linear in an input sees of it are its values and their logarithms.
        widths = [size if k in linear_in else 2 * size for k, size in enumerate(sizes)]
        for k, (size, width) in enumerate(zip(sizes, widths)):
            self.register_buffer(f"mean_{k}", torch.zeros(width, dtype=torch.float64))
            self.register_buffer(f"scale_{k}", torch.ones(width, dtype=torch.float64))
            self.register_buffer(f"least_{k}", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(sum(self.components), dtype=torch.float64))
        self.register_buffer("scale", torch.ones(sum(self.components), dtype=torch.float64))
        largest = space.lifting.abs().max()
        conditions = [space.fixed.double(), space.lifting / torch.where(largest > 0, largest, 1.0)]
        about = [self.hierarchy.levels[0].places, *(values.view(-1, b)[here] for values in conditions)]
        self.register_buffer("about", torch.cat(about, 1), persistent=False)

        self.linear = [k for k in range(count) if k in linear_in]
        self.others = [k for k in range(count) if k not in linear_in]
        generator = torch.Generator().manual_seed(seed)
        seen, loads = (sum(widths[k] for k in which) for which in (self.others, self.linear))
        self.fluxes, components = processor == "fluxes", sum(self.components)
        extension = torch.zeros(len(here), b, dtype=torch.float64)
        if self.fluxes:
            features = self.about.shape[1] + seen
            self.processor = Fluxes(
                channels, discretisation, generator, features, seen, loads, bool(linear_in), **options
            )
            # Components of other parts may be made of all fields.
            free = torch.ones(components - b, self.processor.outputs, dtype=torch.float64)
            self.register_buffer("reach", torch.cat([self.processor.reach, free]), persistent=False)
            self.readout = dense(self.processor.outputs, components, generator, offset=False)
            if not increment:
                extension = self.processor.extension(discretisation)
        else:
            make = PROCESSORS[processor]
            self.lift = dense(self.about.shape[1] + seen, channels, generator)
            self.processor = make(channels, self.hierarchy, generator, False, **options)
            self.readout = dense(channels, components, generator, offset=not linear_in)
            if linear_in:
                self.gates = dense(channels, 2 * channels, generator)
                self.load = dense(loads, channels, generator, offset=False)
                self.linear_processor = make(channels, self.hierarchy, generator, True, **options)
        self.register_buffer("extension", extension, persistent=False)

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self.spaces = self.discretisation.to(self.scale.device, self.scale.dtype)
        return self

    def encode(self, k: int, x: Tensor, *, points: bool = False) -> Tensor:
        """What the network sees (nodes, batch, components) of the k-th input (dofs, batch), before it is scaled.

        points: whether at the points of the output's cells, instead of its nodes.
        """
        matrix = (self.spaces.sights if points else self.spaces.encoders)[k]
        if x.ndim != 2 or len(x) != matrix.shape[1]:
            raise ValueError(f"input {k} has the shape {tuple(x.shape)}, need ({matrix.shape[1]}, batch)")
        places = len(self.spaces.points[0].weights if points else self.about)
        return (matrix @ x).view(places, -1, x.shape[1]).transpose(1, 2)

    def _seen(self, k: int, x: Tensor, *, points: bool = False) -> Tensor:
        """The same, scaled; and the logarithms of components that are positive in all samples, as coefficients are.

        Below the least value of the samples they stay as they are there. Of other components they are zero.
        """
        values, least = self.encode(k, x, points=points), getattr(self, f"least_{k}")
        if k in self.others:
            positive = least > 0
            logarithms = torch.where(positive, torch.maximum(values, least), 1.0).log()
            values = torch.cat([values, logarithms], -1)
        return (values - getattr(self, f"mean_{k}")) / getattr(self, f"scale_{k}")

    def decode(self, *values: Tensor, before: Tensor | None = None) -> Tensor:
        """The field (dofs, batch) that meets all conditions, from values (nodes, batch, components) of each part.

        before: (dofs, batch), the input in the space of the answer, for `increment` and `integral` = "input".
        """
        fields, added = [], self.settings["increment"]
        for space, y, target in zip(self.spaces.parts, values, self.settings["integral"]):
            x = y.transpose(1, 2).reshape(-1, y.shape[1])
            if added and self.spaces.curl is None:
                x = x + constraints.restrict(space, before)
            x = constraints.prescribe(space, constraints.expand(space, x))
            if target is not None:
                target = constraints.integral(space, before) if target == "input" else target
                x = constraints.with_integral(space, x, target)
            fields.append(x)
        if self.spaces.join is not None:
            return self.spaces.join @ torch.cat(fields)
        (x,) = fields
        if self.spaces.curl is None:
            return x
        x = self.spaces.curl @ x
        return before + x if added else x

    def forward(self, *inputs: Tensor) -> Tensor:
        """The answer (dofs, batch) to input fields, (dofs, batch) each.

        Raises:
            ValueError: another number of inputs, or of other shapes, precision or device.
        """
        if len(inputs) != len(self.spaces.encoders):
            raise ValueError(f"got {len(inputs)} inputs, need {len(self.spaces.encoders)}")
        batch = {x.shape[-1] for x in inputs}
        if len(batch) > 1:
            raise ValueError(f"the inputs have batches of {sorted(batch)} fields, need the same for all")
        if not self.settings["symmetric"]:
            return self._process(*inputs)
        space = self.spaces.output

        def potential(loads: Tensor) -> Tensor:
            return constraints.integral(space, self._process(loads)).sum()

        def free(x: Tensor) -> Tensor:
            """A symmetric map to fields that are zero where they are fixed and equal where they are tied."""
            return space.tying @ (space.tying.T @ torch.where(space.fixed[:, None], 0.0, x))

        return constraints.prescribe(space, free(torch.func.grad(potential)(free(*inputs))))

    def _process(self, *inputs: Tensor) -> Tensor:
        seen = [self._seen(k, x) for k, x in enumerate(inputs)]
        about = self.about[:, None].expand(-1, inputs[0].shape[1], -1)
        features = torch.cat([about, *(seen[k] for k in self.others)], -1)
        weight = self.readout.weight
        if self.fluxes:
            at_points = [self._seen(k, x, points=True) for k, x in enumerate(inputs)]
            empty = at_points[0][..., :0]
            both = (torch.cat([empty, *(at_points[k] for k in which)], -1) for which in (self.others, self.linear))
            h, weight = self.processor(features, *both), weight * self.reach
        else:
            h = self.processor(self.lift(features), self.hierarchy)
            if self.linear:
                before, after = self.gates(h).chunk(2, -1)
                load = self.load(torch.cat([seen[k] for k in self.linear], -1))
                h = after * self.linear_processor(before * load, self.hierarchy)
        # The other parts of a mixed space take features where their own nodes are.
        features = [h, *(matrix @ h for matrix in self.spaces.carry)]
        values = [nn.functional.linear(x, weight, self.readout.bias) * self.scale + self.mean for x in features]
        parts = [y.split(self.components, -1)[k] for k, y in enumerate(values)]
        parts[0] = parts[0] + self.extension[:, None]
        return self.decode(*parts, before=self._before(inputs))

    def _before(self, inputs: Sequence[Tensor]) -> Any:
        """The first input in the space of the answer, or None."""
        return None if self.spaces.same is None else inputs[self.spaces.same]

    @torch.no_grad()
    def normalise_input(self, k: int, x: Tensor) -> None:
        """Scale the k-th input by what these fields (dofs, samples) are like."""
        values = self.encode(k, x).flatten(0, 1)
        if k in self.others:
            least = values.amin(0).clamp(min=0.0)
            getattr(self, f"least_{k}").copy_(least)
            values = torch.cat([values, torch.where(least > 0, values, 1.0).log()], -1)
        mean = torch.zeros_like(values[0]) if k in self.linear else values.mean(0)
        getattr(self, f"mean_{k}").copy_(mean)
        getattr(self, f"scale_{k}").copy_(_positive((values - mean).square().mean(0).sqrt()))

    @torch.no_grad()
    def normalise(self, inputs: Sequence[Tensor], outputs: Tensor) -> None:
        """Scale what goes in and comes out by what these fields (dofs, samples) are like."""
        for k, x in enumerate(inputs):
            self.normalise_input(k, x)
        space = self.spaces.answer
        before = self._before(inputs) if self.settings["increment"] else torch.zeros_like(outputs)
        outputs = outputs - before
        if self.spaces.curl is not None or self.settings["symmetric"]:
            # The potential is not known; that of the untrained network is made as large as the fields ask for.
            self.scale.fill_(1.0)
            found = self(*(x[:, :8] for x in inputs)) - before[:, :8]
            self.scale.fill_(float(norms.l2(space, outputs).mean() / norms.l2(space, found).mean()))
            return
        means, scales = [], []
        for k, (part, x) in enumerate(norms.split(space, outputs)):
            if k == 0:
                x = x - constraints.expand(part, self.extension.reshape(-1, 1))
            free = torch.where(part.fixed[:, None], torch.nan, x).view(-1, part.block_size, x.shape[1])
            # Fields of fluxes that vanish at the boundary have no mean added, which would not.
            centred = not self.linear and not (self.fluxes and k == 0 and bool(part.fixed.any()))
            means.append(free.nanmean((0, 2)).nan_to_num() * centred)
            scales.append(_positive((free - means[-1][:, None]).square().nanmean((0, 2)).sqrt().nan_to_num()))
        self.mean.copy_(torch.cat(means))
        self.scale.copy_(torch.cat(scales))

    @torch.no_grad()
    def normalise_by(self, inputs: Sequence[Tensor], loss: Callable[..., Tensor]) -> None:
        """Scale what goes in by what these fields (dofs, samples) are like, and what comes out by a loss of them.

        The answers of the untrained network, which have nothing to do with the right ones, are made as large as these:
        to a factor of two, so large that they double the loss of the answer without them. A network with less than half
        that loss has learned before and stays as it is.
        """
        some = [x[:, :8] for x in inputs]

        def mean(scale: float) -> float:
            self.scale.fill_(scale)
            return float(loss(self(*some), *some).mean())

        known = self.scale.clone()
        base = mean(0.0)
        self.scale.copy_(known)
        if float(loss(self(*some), *some).mean()) < base / 2:
            return
        for k, x in enumerate(inputs):
            self.normalise_input(k, x)
        lower, upper = -64, 64  # powers of two
        while upper - lower > 1:
            middle = (lower + upper) // 2
            lower, upper = (middle, upper) if mean(2.0**middle) < 2 * base else (lower, middle)
        self.scale.fill_(2.0**upper if -64 < lower and upper < 64 else 1.0)

    def on(
        self,
        *,
        input: Any,
        output: Any,
        bcs: Sequence[Any] = (),
        periodic: Sequence[int] = (),
        velocity: Any = None,
        coarse: Sequence[Any] = (),
        encoder: str = "interpolation",
    ) -> "Operator":
        """The same network on other spaces, of a refined mesh or another domain: its parameters belong to no node.

        It is as good there as what it has learned holds there. For the
        arguments see `OperatorNetwork`.

        Raises:
            ValueError: other numbers of inputs, of their components, of those of the answer or of coarse spaces.
        """
        inputs = list(input) if isinstance(input, Sequence) else [input]
        spaces = discretise(
            inputs, output, bcs=bcs, periodic=periodic, velocity=velocity, coarse=coarse, encoder=encoder,
            points=self.fluxes,
        )  # fmt: skip
        # A law is of lengths as they were where it was learned.
        kept = {"unit": self.processor.unit} if self.fluxes else {}
        network = Operator(spaces, **self.settings | kept).to(self.scale.device, self.scale.dtype)
        mine, others = self.state_dict(), network.state_dict()
        wrong = sorted(name for name in mine.keys() | others.keys() if name not in mine or name not in others)
        wrong += [name for name in mine if name in others and mine[name].shape != others[name].shape]
        if wrong:
            raise ValueError(
                f"the network does not fit these spaces, as {wrong[0]} shows: need as many inputs, components and "
                "coarse spaces as it was made for"
            )
        network.load_state_dict(mine)
        return network

    def save(self, path: str | os.PathLike) -> None:
        """Write the network and all that it needs to one file, see `spon.load`."""
        spaces, tensors = self.discretisation.pack()
        tensors = {f"spaces.{name}": value for name, value in tensors.items()}
        tensors |= {f"state.{name}": value for name, value in self.state_dict().items()}
        write(path, "operator", {"settings": self.settings, "spaces": spaces}, tensors)


class OperatorNetwork(Operator):
    """A network between function spaces of DOLFINx, which are read once.

        network = spon.OperatorNetwork(input=V_f, output=V_u, bcs=[bc], processor="multigrid", coarse=[V_2, V_4])
        u = network(f)  # (dofs of V_f, batch) → (dofs of V_u, batch)

    It is a torch module of float64 on the CPU, which `.to(device, dtype)` moves.

    Args:
        input: a function space, or several if there are several input fields; any that `spon.read_space` knows and are
            not mixed, on meshes that cover that of the output.
        output: the space of the answer, or, if there is a `velocity`, of its potential. It may be mixed of a Lagrange
            space, at whose nodes the network works, and others.
        bcs: `dolfinx.fem.DirichletBC` on the output, met to the last bit.
        periodic: axes along which the output is periodic, by tied dofs.
        velocity: Raviart-Thomas on the mesh of a scalar Lagrange `output` in 2D; the answer is the curl of what the
            network predicts, and its divergence is zero.
        coarse: Lagrange spaces for the processors "fluxes", "multigrid" and "mgno", from finer to coarser.
        encoder: "interpolation", values of the inputs at the nodes of the output, or, of inputs that jump, means over
            the cells around a node; "integrals", of the inputs against the basis of the output.
        processor: "fluxes", "multigrid", "messages", "mgno", "attention" or "mlp". channels: features at a node.
        linear_in: numbers of the inputs that the answer is linear in, whatever the others are.
        integral: of each component of the answer, kept exactly; None if it is free; "input" if it is that of the first
            input in the space of the answer, which `rollout` then conserves. One for each part of a mixed space.
        increment: the answer is the first input in its space and what the network adds to it, and meets Dirichlet
            values, ties and integrals whether the input does or not. To a velocity a curl is added.
        symmetric: the answer is the derivative of a learned potential by the one input, which has the output's dofs.
            Its Jacobian is a symmetric matrix, as that of the map from loads ∫ f φ_i to the dofs of a minimiser.
        seed: of the initial parameters.
        **options: of the processor, see `spon.operators.processors.layers`.

    Raises:
        ValueError: a space or an option that is not as said above, or what `spon.read_space` refuses.
    """

    def __init__(
        self,
        *,
        input: Any,
        output: Any,
        bcs: Sequence[Any] = (),
        periodic: Sequence[int] = (),
        velocity: Any = None,
        coarse: Sequence[Any] = (),
        encoder: str = "interpolation",
        processor: str = "multigrid",
        channels: int = 16,
        linear_in: Sequence[int] = (),
        integral: float | str | Sequence[float | None] | None = None,
        increment: bool = False,
        symmetric: bool = False,
        seed: int = 0,
        **options: Any,
    ):
        inputs = list(input) if isinstance(input, Sequence) else [input]
        super().__init__(
            discretise(
                inputs,
                output,
                bcs=bcs,
                periodic=periodic,
                velocity=velocity,
                coarse=coarse,
                encoder=encoder,
                points=processor == "fluxes",
            ),
            processor=processor,
            channels=channels,
            linear_in=linear_in,
            integral=integral,
            increment=increment,
            symmetric=symmetric,
            seed=seed,
            **options,
        )


@reads("operator")
def load_operator(path: str | os.PathLike) -> Operator:
    """The network of a file, on the CPU in the precision that it was saved in. It needs no DOLFINx.

    Raises:
        FileNotFoundError. ModelFileError: a file that is damaged or holds no operator network.
    """
    with Reader(path, "operator") as file:
        try:
            spaces = Discretisation.unpack(file.header["spaces"], lambda name: file.tensors("spaces." + name))
            network, state = Operator(spaces, **file.header["settings"]), file.tensors("state.")
            network.to(dtype=state["scale"].dtype).load_state_dict(state)
        except (KeyError, TypeError, RuntimeError, ValueError) as error:
            raise ModelFileError(f"{path}: its parts do not fit together: {error}") from error
    return network


def _positive(scale: Tensor) -> Tensor:
    """What fields may be divided by: a field that is the same everywhere stays as it is."""
    return torch.where(scale > 0, scale, 1.0)
