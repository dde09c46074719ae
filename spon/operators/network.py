# SPDX-License-Identifier: MIT
"""Structure-preserving operator networks between finite element spaces.

S = D ∘ P ∘ E (Bouziani & Boullé, arXiv 2410.01065): the encoder E maps input fields to the nodes of the output space
(`spon.operators.encoder`), the processor P is learned (`spon.operators.processors`), and the decoder D maps its
prediction to a field of the output space that satisfies all strong conditions (`spon.operators.decoder`).
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spon.archive import Reader, unpacks, write
from spon.operators._old_names import rename_state, with_old_options
from spon.operators.coarsening import CoarseGrids
from spon.operators.decoder import Decoder, given
from spon.operators.discretisation import Discretisation, discretise
from spon.operators.encoder import Encoder, input_values
from spon.operators.normalisation import scale_of_loss, statistics
from spon.operators.processors import Sizes, default_processor, processor_class
from spon.operators.structure import UNSTRUCTURED, Structure
from spon.spaces import constraints, norms
from spon.spaces.space import Space

_TRIAL = 8  # samples to estimate the size of an untrained network's predictions


class OperatorNetwork(nn.Module):
    """A network between function spaces of DOLFINx, which are read once.

        network = spon.OperatorNetwork(input=V_f, output=V_u, bcs=[bc])
        spon.operators.train(network, f, u)
        u = network(f)  # (dofs of V_f, batch) → (dofs of V_u, batch)

    It is a torch module of float64 on the CPU, which `.to(device, dtype)` moves.

    Args:
        input: the function space of the input field, or those of several; any spaces of `spon.read_space` that are not
            mixed, on meshes that cover that of the output.
        output: the space of the prediction, or, with a `velocity`, of its potential. It may be mixed of a Lagrange
            space, whose nodes the network uses, and others.
        bcs: `dolfinx.fem.DirichletBC` on the output, satisfied exactly.
        periodic: axes along which the output is periodic, by tied dofs.
        velocity: Raviart-Thomas on the mesh of a scalar Lagrange `output` in 2D; the prediction is the curl of a field
            in `output`, and its divergence is zero.
        coarse: Lagrange spaces for the processors "fluxes", "multigrid" and "mgno", from finer to coarser. If None,
            they are made: fields of degree one on regular grids that cover the mesh, each with half as many cells
            along an edge as the one before, down to four cells for "fluxes" and two for the others; see
            `spon.operators.coarsening.CoarseGrids`.
        encoder: "interpolation", values of the inputs at the nodes of the output, or, for inputs that jump, means over
            the cells around a node; "integrals" of the inputs against the basis of the output.
        processor: "fluxes", "multigrid", "messages", "mgno", "attention" or "mlp". If None, "fluxes" for a Lagrange
            output and the encoder "interpolation", the most accurate in the project's benchmarks, else "multigrid".
        structure: exact properties of the operator beside its strong conditions: linearity, integrals, increments,
            symmetry.
        seed: of the initial parameters.
        **options: of the processor: channels (features at a node), depth, ..., see `spon.operators.processors`.

    Attributes:
        discretisation: the spaces in float64 on the CPU.
        spaces: the same in the precision and on the device of the network.

    Raises:
        ValueError: a space or an option other than above, or an error of `spon.read_space`.
    """

    def __init__(
        self,
        *,
        input: Any,
        output: Any,
        bcs: Sequence[Any] = (),
        periodic: Sequence[int] = (),
        velocity: Any = None,
        coarse: Sequence[Any] | None = None,
        encoder: str = "interpolation",
        processor: str | None = None,
        structure: Structure = UNSTRUCTURED,
        seed: int = 0,
        **options: Any,
    ):
        processor = processor or default_processor(output, encoder)
        kind = processor_class(processor)
        made: Sequence[Any] | CoarseGrids = kind.coarse_grids or () if coarse is None else coarse
        spaces = discretise(
            _several(input), output, bcs=bcs, periodic=periodic, velocity=velocity, coarse=made, encoder=encoder,
            points=kind.at_points,
        )  # fmt: skip
        self._build(spaces, processor, structure, seed, options)

    @classmethod
    def from_discretisation(
        cls,
        discretisation: Discretisation,
        *,
        processor: str | None = None,
        structure: Structure = UNSTRUCTURED,
        seed: int = 0,
        **options: Any,
    ) -> "OperatorNetwork":
        """A network on spaces that are read already.

        Args:
            discretisation: in float64 on the CPU.
            processor: see `OperatorNetwork`; if None, "fluxes" if quadrature points have been read, else "multigrid".
            structure: see `OperatorNetwork`.
            seed: see `OperatorNetwork`.
            **options: see `OperatorNetwork`.

        Raises:
            ValueError: an unknown option or value.
        """
        network = cls.__new__(cls)
        default = "fluxes" if discretisation.points else "multigrid"
        network._build(discretisation, processor or default, structure, seed, options)
        return network

    def _build(
        self, discretisation: Discretisation, processor: str, structure: Structure, seed: int, options: dict[str, Any]
    ) -> None:
        super().__init__()
        structure, options = with_old_options(structure, options)
        kind = processor_class(processor)
        if kind.needs_coarse and not discretisation.coarse:
            raise ValueError(f"the processor {processor!r} needs coarse spaces: coarse = [...], from finer to coarser")
        structure.check(discretisation)
        self.processor_name, self.structure, self.seed, self.options = processor, structure, seed, options
        self.discretisation = self.spaces = discretisation
        components = [part.block_size for part in discretisation.parts]
        self.encoder = Encoder(discretisation, structure.linear_in, kind.at_points)
        sizes = Sizes(
            node_features=self.encoder.node_features.shape[1],
            inputs=self.encoder.width(linear=False),
            linear_inputs=self.encoder.width(linear=True),
            components=sum(components),
        )
        self.processor = kind(discretisation, sizes, torch.Generator().manual_seed(seed), **options)
        self.decoder = Decoder(components, structure, self.processor.extension(discretisation))

    @property
    def mean(self) -> Tensor:
        """(components,), the values of predictions of zero."""
        return self.decoder.mean

    @property
    def scale(self) -> Tensor:
        """(components,), from scaled predictions to values less their mean; on the device of the network."""
        return self.decoder.scale

    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self.spaces = self.discretisation.to(self.scale.device, self.scale.dtype)
        return self

    def forward(self, *inputs: Tensor) -> Tensor:
        """The prediction (dofs, batch) for input fields, (dofs, batch) each.

        Raises:
            ValueError: another number of inputs, or inputs of other shapes, precision or device.
        """
        if len(inputs) != len(self.spaces.encoders):
            raise ValueError(f"got {len(inputs)} inputs, need {len(self.spaces.encoders)}")
        batch = {x.shape[-1] for x in inputs}
        if len(batch) > 1:
            raise ValueError(f"the inputs have batches of {sorted(batch)} fields, need the same for all")
        return self._gradient(*inputs) if self.structure.symmetric else self._predict(*inputs)

    def _predict(self, *inputs: Tensor) -> Tensor:
        """D(P(E(inputs))): encode, process, decode."""
        spaces = self.spaces
        return self.decoder(spaces, self.processor(self.encoder(spaces, inputs), spaces.carry), self._before(inputs))

    def _gradient(self, loads: Tensor) -> Tensor:
        """The derivative of the integral of `_predict`, with symmetric conditions on both sides."""
        space = self.spaces.output

        def potential(x: Tensor) -> Tensor:
            return constraints.integral(space, self._predict(x)).sum()

        def free(x: Tensor) -> Tensor:
            """A symmetric map to fields that are zero where they are fixed and equal where they are tied."""
            return space.tying @ (space.tying.T @ torch.where(space.fixed[:, None], 0.0, x))

        return constraints.prescribe(space, free(torch.func.grad(potential)(free(loads))))

    def encode(self, k: int, x: Tensor, *, points: bool = False) -> Tensor:
        """Values (nodes, batch, components) of the k-th input, before they are scaled.

        Args:
            k: number of the input.
            x: (dofs, batch).
            points: at the quadrature points of the output instead of its nodes.

        Raises:
            ValueError: an input of another shape.
        """
        return input_values(self.spaces, k, x, points=points)

    def decode(self, *values: Tensor, before: Tensor | None = None) -> Tensor:
        """The field (dofs, batch) that satisfies all conditions.

        Args:
            *values: (nodes, batch, components) of each part.
            before: (dofs, batch), the input in the space of the prediction, for `increment` and `integral` = "input".
        """
        return self.decoder.field(self.spaces, values, before)

    def _before(self, inputs: Sequence[Tensor]) -> Tensor | None:
        """The first input in the space of the prediction, or None."""
        return None if self.spaces.same is None else inputs[self.spaces.same]

    def normalise_input(self, k: int, x: Tensor) -> None:
        """Scale the k-th input by the mean and the deviation of fields (dofs, samples)."""
        self.encoder.scalings[k].fit(self.encode(k, x).flatten(0, 1))

    @torch.no_grad()
    def normalise(self, inputs: Sequence[Tensor], outputs: Tensor) -> None:
        """Scale inputs and predictions by the means and deviations of fields (dofs, samples)."""
        for k, x in enumerate(inputs):
            self.normalise_input(k, x)
        before = given(self._before(inputs)) if self.structure.increment else torch.zeros_like(outputs)
        outputs = outputs - before
        if self.spaces.curl is not None or self.structure.symmetric:
            # The potential is unknown; that of the untrained network is scaled until its fields are as large.
            self.scale.fill_(1.0)
            found = self(*(x[:, :_TRIAL] for x in inputs)) - before[:, :_TRIAL]
            space = self.spaces.answer
            assert isinstance(space, Space)  # by `Structure.check`
            self.scale.fill_(float(norms.l2(space, outputs).mean() / norms.l2(space, found).mean()))
            return
        scales = []
        for k, (part, x) in enumerate(norms.split(self.spaces.answer, outputs)):
            if k == 0:
                x = x - constraints.expand(part, self.decoder.extension.reshape(-1, 1))
            # A mean would not vanish at the boundary.
            vanishes = self.processor.vanishes and k == 0 and bool(part.fixed.any())
            scales.append(statistics(part, x, centred=not self.structure.linear_in and not vanishes))
        self.mean.copy_(torch.cat([part.mean for part in scales]))
        self.scale.copy_(torch.cat([part.scale for part in scales]))

    @torch.no_grad()
    def normalise_by(self, inputs: Sequence[Tensor], loss: Callable[..., Tensor]) -> None:
        """Scale inputs by the means and deviations of fields (dofs, samples), and predictions by a loss.

        Predictions of the untrained network, which are unrelated to the exact ones, are scaled to their size up to a
        factor of two, so that they double the loss of predictions of zero. A network with less than half of that loss
        has been trained before and is not changed.
        """
        some = [x[:, :_TRIAL] for x in inputs]

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
        self.scale.fill_(scale_of_loss(mean, 2 * base))

    def on(
        self,
        *,
        input: Any,
        output: Any,
        bcs: Sequence[Any] = (),
        periodic: Sequence[int] = (),
        velocity: Any = None,
        coarse: Sequence[Any] | None = None,
        encoder: str = "interpolation",
    ) -> "OperatorNetwork":
        """The same network on other spaces, of a refined mesh or another domain, as no parameter belongs to a node.

        Its accuracy there depends on how well the learned law holds there.

        Args:
            input: as of the network, with as many components.
            output: as of the network, with as many components.
            bcs: as of the network.
            periodic: as of the network.
            velocity: as of the network.
            coarse: as many spaces as the network has; made as those of the network if None.
            encoder: as of the network.

        Raises:
            ValueError: other numbers of inputs, of their components, of those of the prediction or of coarse spaces.
        """
        made = CoarseGrids(cells=1, count=len(self.discretisation.coarse)) if coarse is None else coarse
        spaces = discretise(
            _several(input), output, bcs=bcs, periodic=periodic, velocity=velocity, coarse=made, encoder=encoder,
            points=self.processor.at_points,
        )  # fmt: skip
        options = self.options | self.processor.fixed_options()
        network = OperatorNetwork.from_discretisation(
            spaces, processor=self.processor_name, structure=self.structure, seed=self.seed, **options
        ).to(self.scale.device, self.scale.dtype)
        mine, others = self.state_dict(), network.state_dict()
        wrong = sorted(name for name in mine.keys() | others.keys() if name not in mine or name not in others)
        wrong += [name for name in mine if name in others and mine[name].shape != others[name].shape]
        if wrong:
            raise ValueError(
                f"the network does not fit these spaces, as {wrong[0]} shows: need as many inputs, components and "
                "coarse spaces as in its own spaces"
            )
        network.load_state_dict(mine)
        return network

    @property
    def settings(self) -> dict[str, Any]:
        """Processor, structure, seed and options, for JSON; see `from_settings`."""
        return {"processor": self.processor_name, "seed": self.seed, **self.structure.to_json(), **self.options}

    @classmethod
    def from_settings(cls, discretisation: Discretisation, settings: dict[str, Any]) -> "OperatorNetwork":
        """The untrained network on a discretisation with these `settings`, or defaults for those missing."""
        options = dict(settings)
        structure = {
            field.name: options.pop(field.name) for field in dataclasses.fields(Structure) if field.name in options
        }
        return cls.from_discretisation(discretisation, structure=Structure(**structure), **options)

    def save(self, path: str | os.PathLike) -> None:
        """Write the network with its spaces and matrices to one file, see `spon.load`."""
        spaces, tensors = self.discretisation.pack()
        tensors = {f"spaces.{name}": value for name, value in tensors.items()}
        tensors |= {f"state.{name}": value for name, value in self.state_dict().items()}
        write(path, "operator", {"settings": self.settings, "spaces": spaces}, tensors)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        rename_state(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


@unpacks("operator")
def load_network(file: Reader) -> OperatorNetwork:
    """The network of a file, on the CPU in the precision of the file. It needs no DOLFINx.

    Args:
        file: an open file; callers give its path.

    Raises:
        FileNotFoundError: the file does not exist.
        ModelFileError: the file is damaged or holds no operator network.
    """
    spaces = Discretisation.unpack(file.header["spaces"], lambda name: file.tensors("spaces." + name))
    network, state = OperatorNetwork.from_settings(spaces, file.header["settings"]), file.tensors("state.")
    network.to(dtype=next(iter(state.values())).dtype).load_state_dict(state)  # all are in one precision
    return network


def _several(spaces: Any) -> list[Any]:
    return list(spaces) if isinstance(spaces, Sequence) else [spaces]
