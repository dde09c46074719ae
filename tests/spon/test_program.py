# SPDX-License-Identifier: MIT
"""Programs and the laws made of them, by themselves: torch is all that is needed here."""

import json
import math

import pytest

pytest.importorskip("torch")

import torch

from spon import LocalLaws, LocalSolve, PhaseLaw, Program, ProgramError

# (x, y) → (√(x² + y²) + ½, 2 where x < y and 3 elsewhere, 7): values 0 x, 1 y; 2 to 5 constants; steps from 6 on.
PLANE = Program(
    inputs=(("point", 2),),
    constants=(0.5, 2.0, 3.0, 7.0),
    steps=(
        ("mul", 0, 0),
        ("mul", 1, 1),
        ("add", 6, 7),
        ("sqrt", 8),
        ("add", 9, 2),
        ("lt", 0, 1),
        ("select", 11, 3, 4),
    ),
    outputs=(10, 12, 5),
    shape=(3,),
)


def unary(*steps, constants=(), outputs=None):
    """A program of one scalar input."""
    first = 1 + len(constants)
    outputs = (first + len(steps) - 1,) if outputs is None else outputs
    return Program((("x", 1),), constants, steps, outputs, ())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_shape_and_dtype(dtype):
    x = torch.tensor([[3.0, 4.0], [4.0, 3.0]], dtype=dtype).expand(5, 2, 2)
    y = PLANE(x)
    assert y.dtype == dtype
    assert torch.equal(y, torch.tensor([[5.5, 2.0, 7.0], [5.5, 3.0, 7.0]], dtype=dtype).expand(5, 2, 3))


POINTS = torch.tensor([0.3, -0.7, 0.9], dtype=torch.float64)
HALF = (0.5,)
OPERATIONS = {
    "add": (unary(("add", 0, 1), constants=HALF), lambda x: x + 0.5),
    "sub": (unary(("sub", 1, 0), constants=HALF), lambda x: 0.5 - x),
    "axpy": (unary(("mul", 0, 0), ("axpy", 0, 2, 1), constants=HALF), lambda x: x + 0.5 * x * x),
    "mul": (unary(("mul", 1, 0), constants=HALF), lambda x: 0.5 * x),
    "div": (unary(("div", 1, 0), constants=HALF), lambda x: 0.5 / x),
    "pow": (unary(("pow", 1, 0), constants=HALF), lambda x: 0.5**x),
    "neg": (unary(("neg", 0)), lambda x: -x),
    "abs": (unary(("abs", 0)), abs),
    "sqrt": (unary(("abs", 0), ("sqrt", 1)), lambda x: math.sqrt(abs(x))),
    "ln": (unary(("abs", 0), ("ln", 1)), lambda x: math.log(abs(x))),
    "atan2": (unary(("atan2", 1, 0), constants=HALF), lambda x: math.atan2(0.5, x)),
    "min": (unary(("min", 1, 0), constants=HALF), lambda x: min(0.5, x)),
    "max": (unary(("max", 0, 1), constants=HALF), lambda x: max(0.5, x)),
    "max of two": (unary(("mul", 0, 0), ("max", 0, 1)), lambda x: max(x, x * x)),
    "and": (
        unary(("lt", 1, 0), ("le", 0, 2), ("and", 4, 5), ("select", 6, 0, 3), constants=(0.0, 0.5, -1.0)),
        lambda x: x if 0 < x <= 0.5 else -1.0,
    ),
    "or": (
        unary(("lt", 0, 1), ("lt", 2, 0), ("or", 4, 5), ("select", 6, 0, 3), constants=(0.0, 0.5, -1.0)),
        lambda x: x if x < 0 or x > 0.5 else -1.0,
    ),
    "not": (unary(("lt", 0, 1), ("not", 2), ("select", 3, 0, 1), constants=(0.0,)), lambda x: max(x, 0.0)),
    "eq": (unary(("eq", 0, 1), ("select", 3, 2, 0), constants=(0.3, 9.0)), lambda x: 9.0 if x == 0.3 else x),
    "ne": (unary(("ne", 0, 1), ("select", 3, 2, 0), constants=(0.3, 9.0)), lambda x: 9.0 if x != 0.3 else x),
} | {
    name: (unary((name, 0)), getattr(math, name))
    for name in ("exp", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "erf")
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_against_the_standard_library(name):
    program, function = OPERATIONS[name]
    expected = torch.tensor([function(x) for x in POINTS.tolist()], dtype=torch.float64)
    # The libraries' functions agree to a few units in the last place.
    assert torch.allclose(program(POINTS[:, None]), expected, rtol=4e-15, atol=0)


def test_nothing_leaves_the_device_of_the_inputs():
    """The meta device has no numbers: a constant or value elsewhere would not combine, or be asked for in vain."""
    y = PLANE(torch.empty(4, 2, device="meta", dtype=torch.float16))
    assert (y.shape, y.device.type, y.dtype) == ((4, 3), "meta", torch.float16)


def test_inputs_are_broadcast():
    program = Program((("a", 1), ("b", 2)), (), (("mul", 0, 2),), (3, 0), (2,))
    a, b = torch.randn(4, 1, 1, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    y = program(a, b)
    assert y.shape == (4, 3, 2)
    assert torch.equal(y[..., 0], a[..., 0] * b[:, 1])
    assert torch.equal(y[..., 1], a[..., 0].expand(4, 3))


def test_derivatives():
    """√(x² + y²) + ½: the gradient is the direction, the Hessian (1 − n⊗n)/r."""
    x = torch.randn(6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    r = x.norm(dim=-1)[:, None, None]
    n = x[:, :, None] / r
    hessian = (torch.eye(2, dtype=torch.float64) - n @ n.mT) / r

    def first(p):
        return PLANE(p)[0]

    for derivative in (torch.func.jacrev, torch.func.jacfwd):
        assert torch.allclose(torch.func.vmap(derivative(PLANE))(x)[:, 0], n[..., 0], rtol=1e-14)
        assert torch.allclose(torch.func.vmap(derivative(derivative(first)))(x), hessian, rtol=1e-12, atol=1e-14)
    x.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: PLANE(x)[:, 0], x)


def test_json_round_trip():
    again = Program.from_json(json.loads(json.dumps(PLANE.to_json())))
    assert again == PLANE
    x = torch.randn(10, 2, dtype=torch.float64)
    assert torch.equal(again(x), PLANE(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": [["sqrt", 0], ["frobnicate", 6]]}, r"steps\[1\]: unknown operation 'frobnicate'"),
        ({"steps": [["sqrt", 6]]}, r"steps\[0\] \('sqrt'\): operand 6 is not the number of an earlier value, 0 to 5"),
        ({"steps": [["sqrt", -1]]}, r"steps\[0\] \('sqrt'\): operand -1"),
        ({"steps": [["sqrt", 0.0]]}, r"steps\[0\] \('sqrt'\): operand 0.0"),
        ({"steps": [["sqrt", True]]}, r"steps\[0\] \('sqrt'\): operand True"),
        ({"steps": [["add", 0]]}, r"steps\[0\]: 'add' has 1 operands, needs 2"),
        ({"steps": [["select", 0, 1, 2]]}, r"steps\[0\]: 'select' takes operands of kinds 'btt', not 'nnc'"),
        ({"steps": [["add", 2, 3]]}, r"steps\[0\]: 'add' has constant operands only"),
        ({"steps": ["sqrt"]}, r"steps\[0\] = 'sqrt'"),
        ({"steps": None}, "steps is a NoneType"),
        ({"constants": [0.5, float("nan"), 3.0, 7.0]}, r"constants\[1\] = nan"),
        ({"constants": [0.5, "2", 3.0, 7.0]}, r"constants\[1\] = '2'"),
        ({"outputs": [10, 11, 5]}, r"outputs\[1\] = 11 is a truth value"),
        ({"outputs": [10, 12]}, r"shape = \(3,\) does not fit 2 outputs"),
        ({"inputs": [["point", 0]]}, r"inputs\[0\] = \['point', 0\]"),
        ({"shape": [-3]}, r"shape\[0\] = -3"),
        ({"alien": 1}, "unknown field 'alien'"),
    ],
)
def test_damaged_programs_are_refused(change, message):
    with pytest.raises(ProgramError, match=message):
        Program.from_json(PLANE.to_json() | change)


def test_data_that_are_no_program_are_refused():
    with pytest.raises(ProgramError, match="'steps' is missing"):
        Program.from_json({k: v for k, v in PLANE.to_json().items() if k != "steps"})
    with pytest.raises(ProgramError, match="got a list"):
        Program.from_json([])


def test_unfit_inputs_are_refused():
    with pytest.raises(ValueError, match=r"point has shape \(4, 3\), need \(..., 2\)"):
        PLANE(torch.zeros(4, 3))
    with pytest.raises(TypeError, match="int64"):
        PLANE(torch.zeros(4, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="2 inputs, need 1: point"):
        PLANE(torch.zeros(2), torch.zeros(2))


# Laws in one dimension: σ = 3 ε, and σ = l with l³ + l = ε.

E, EL = (("strain", 1),), (("strain", 1), ("local", 1))
LINEAR = PhaseLaw(
    "linear",
    stress_program=Program(E, (3.0,), (("mul", 0, 1),), (2,), (1,)),
    tangent_program=Program(E, (3.0,), (), (1,), (1, 1)),
    energy_program=Program(E, (1.5,), (("mul", 0, 0), ("mul", 2, 1)), (3,), ()),
)
CUBIC = PhaseLaw(
    "cubic",
    stress_program=Program(EL, (), (), (1,), (1,)),
    tangent_program=Program(EL, (3.0, 1.0), (("mul", 1, 1), ("mul", 4, 2), ("add", 5, 3), ("div", 3, 6)), (7,), (1, 1)),
    local=LocalSolve(
        Program(
            EL,
            (3.0, 1.0),
            (
                ("mul", 1, 1),
                ("mul", 4, 1),
                ("add", 5, 1),
                ("sub", 6, 0),
                ("mul", 4, 2),
                ("add", 8, 3),
                ("div", 7, 9),
            ),
            (10,),
            (1,),
        )
    ),
)


def test_linear_law():
    assert LINEAR.linear
    e = torch.tensor([[0.5], [-2.0]], dtype=torch.float64)
    assert torch.equal(LINEAR.stress(e), 3 * e)
    assert torch.equal(LINEAR.tangent(e), torch.full((2, 1, 1), 3.0, dtype=torch.float64))
    assert torch.equal(LINEAR.energy(e), 1.5 * e[:, 0] ** 2)


def test_stress_at_rest_is_not_lost():
    """A constant tangent does not make a law linear: σ = 3 ε + 1."""
    stress = Program(E, (3.0, 1.0), (("mul", 0, 1), ("add", 3, 2)), (4,), (1,))
    law = PhaseLaw("prestressed", stress, LINEAR.tangent_program)
    assert not law.linear
    assert law.stress(torch.zeros(1, dtype=torch.float64)).item() == 1.0


def test_local_unknowns_are_implicit_functions():
    """l³ + l = ε: l' = 1/(3l² + 1), l'' = −6 l l'³, l''' = (−6 l'² + 108 l² l'³) l'²·… by differentiating once more."""
    assert not CUBIC.linear
    root = torch.tensor([0.0, 0.5, -2.0], dtype=torch.float64)
    e = (root**3 + root)[:, None].requires_grad_()
    slope = 1 / (3 * root**2 + 1)
    second = -6 * root * slope**3
    third = -6 * slope**4 - 18 * root * slope**2 * second
    y = CUBIC.stress(e)
    assert torch.allclose(y[:, 0], root, rtol=1e-15, atol=1e-16)
    assert torch.allclose(CUBIC.tangent(e)[:, 0, 0], slope, rtol=1e-14)
    for expected in (slope, second, third):
        (y,) = torch.autograd.grad(y.sum(), e, create_graph=True)
        assert torch.allclose(y[:, 0], expected, rtol=1e-12, atol=1e-12)


def test_local_unknowns_under_torch_func():
    e = torch.tensor([[0.3], [-5.0]], dtype=torch.float64)
    for derivative in (torch.func.jacrev, torch.func.jacfwd):
        assert torch.allclose(torch.func.vmap(derivative(CUBIC.stress))(e), CUBIC.tangent(e), rtol=1e-14)


def test_local_unknowns_that_are_not_found_are_nan():
    """The iteration l ← l − (l² + 1 + ε) from 0 stays there for ε = −1, and has no limit for ε = 1."""
    step = Program(EL, (1.0,), (("mul", 1, 1), ("add", 3, 2), ("add", 4, 0)), (5,), (1,))
    local = LocalSolve(step)(torch.tensor([[-1.0], [1.0]], dtype=torch.float64))
    assert local[0].item() == 0.0
    assert local[1].isnan().item()


# Points of two phases: three linear, then two cubic ones.
LAWS = LocalLaws((LINEAR, CUBIC), (3, 2))


def test_blocks_of_phases():
    e = torch.randn(4, 5, 1, dtype=torch.float64)
    for name in ("stress", "tangent"):
        expected = torch.cat([getattr(LINEAR, name)(e[:, :3]), getattr(CUBIC, name)(e[:, 3:])], dim=1)
        assert torch.equal(getattr(LAWS, name)(e), expected)
    with pytest.raises(ValueError, match="cubic is given by its stress and has no energy"):
        LAWS.energy(e)
    assert torch.equal(LocalLaws((LINEAR, LINEAR), (3, 2)).energy(e), 1.5 * e[..., 0] ** 2)
    with pytest.raises(ValueError, match=r"strain has shape \(4, 4, 1\), need \(..., 5, 1\)"):
        LAWS.stress(e[:, :4])


@pytest.mark.parametrize("indices", [[0, 2, 3], [2, 1], [4], []])
def test_subset(indices):
    e = torch.randn(5, 1, dtype=torch.float64)
    part = LAWS.subset(indices)
    assert part.size == len(indices)
    assert torch.equal(part.stress(e[indices]), LAWS.stress(e)[indices])
    assert torch.equal(part.tangent(e[indices]), LAWS.tangent(e)[indices])


def test_unfit_subsets_and_counts_are_refused():
    with pytest.raises(ValueError, match="sorted by phase"):
        LAWS.subset([3, 0])
    with pytest.raises(ValueError, match="index 5 is out of range"):
        LAWS.subset([5])
    with pytest.raises(ValueError, match="1 laws and 2 counts"):
        LocalLaws((LINEAR,), (1, 2))
    with pytest.raises(ValueError, match="-1 is not a number of points"):
        LocalLaws((LINEAR,), (-1,))


def test_laws_round_trip_and_damage():
    data = json.loads(json.dumps(LAWS.to_json()))
    assert LocalLaws.from_json(data) == LAWS
    with pytest.raises(ProgramError, match="'counts' is missing"):
        LocalLaws.from_json({"laws": []})
    data["laws"][0]["tangent"]["outputs"] = [7]
    with pytest.raises(ProgramError, match=r"linear, tangent: outputs\[0\]"):
        LocalLaws.from_json(data)
    with pytest.raises(ProgramError, match="the stress maps"):
        PhaseLaw("no vector", LINEAR.energy_program, LINEAR.tangent_program)


def test_a_law_first_used_in_inference_mode_can_be_trained_with():
    law = PhaseLaw.from_json(LINEAR.to_json())
    with torch.inference_mode():
        law.stress(torch.ones(2, 1, dtype=torch.float16))
    e = torch.ones(2, 1, dtype=torch.float16, requires_grad=True)
    law.stress(e).sum().backward()
    assert torch.equal(e.grad, torch.full((2, 1), 3.0, dtype=torch.float16))
