# SPDX-License-Identifier: MIT
"""Laws as micro simulations under preCICE's Micro Manager: what it calls, what travels, and pickles."""

import abc
import importlib
import itertools
import pickle
import sys
import types

import numpy as np
import pytest

pytest.importorskip("dolfinx")
pytest.importorskip("torch")
pytest.importorskip("safetensors")

import ufl
from hypothesis import given, settings
from hypothesis import strategies as st

import coupling
import fe2

STEEL = fe2.J2(bulk=100.0, shear=40.0, yield_stress=0.5, hardening=5.0)
VOIGT = ("xx", "yy", "zz", "yz", "xz", "xy")
CMAT = [f"cmat{k}" for k in range(1, 8)]

# Every entry of its stiffness is another number.
FACTOR = np.random.default_rng(0).standard_normal((6, 6))
CRYSTAL = fe2.UFLLaw(fe2.Anisotropic(FACTOR @ FACTOR.T + 6 * np.eye(6)), dim=3)
PLANE = fe2.UFLLaw(STEEL)

LAW = fe2.UFLLaw(STEEL, dim=3)

# A file of a user's, as the manager's configuration names it.
FILE = """
import coupling
from test_manager import LAW as law
MicroSimulation = coupling.micro_simulation(law)
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Imports the user's file in the way of the manager."""

    def load(text=FILE):
        (tmp_path / "micro_of_a_test.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "micro_of_a_test", raising=False)
        importlib.invalidate_caches()
        return importlib.import_module("micro_of_a_test")

    yield load
    sys.modules.pop("micro_of_a_test", None)


def path(steps=4):
    """Engineering strains (steps, 6) into the plastic range and back."""
    direction = np.array([0.02, -0.01, 0.0, 0.004, 0.006, 0.02])
    return np.linspace(0, 1, steps + 1)[1:, None] * direction * np.array([1, 2, 1, -1])[:, None]


def sent(strain):
    return {"strains1to3": strain[:3], "strains4to6": strain[3:]}


def stress(found):
    return np.concatenate([found["stresses1to3"], found["stresses4to6"]])


def right(strains):
    """Stress and tangent of each step by the law itself, in engineering notation."""
    respond = coupling.PointLaw(LAW, 1, notation="engineering")
    for strain in strains:
        found = respond(strain[None])
        respond.accept()
        yield found[0][0], found[1][0]


def test_steps_and_iterations(load):
    """Iterations of a coupling step go back to the state that was saved; published names and order."""
    simulation = load().MicroSimulation(7)
    assert (stress(simulation.initialize()) == 0.0).all()
    for strain, (s, c) in zip(path(), right(path()), strict=True):
        saved = simulation.get_state()
        for trial in (0.3, 2.0):  # iterations that do not converge
            simulation.solve(sent(trial * strain), 0.1)
            simulation.set_state(saved)
        found = simulation.solve(sent(strain), 0.1)
        assert list(found) == ["stresses1to3", "stresses4to6", *CMAT]
        assert np.array_equal(stress(found), s)
        assert np.array_equal(np.concatenate([found[name] for name in CMAT]), c[np.triu_indices(6)])


def test_steps_without_saved_states(load):
    """As in an explicit coupling, where each step is final."""
    simulation = load().MicroSimulation(7)
    for strain, (s, _) in zip(path(), right(path()), strict=True):
        assert np.array_equal(stress(simulation.solve(sent(strain), 0.1)), s)


def test_initial_data_change_no_state(load):
    simulation, fresh = (load().MicroSimulation(k) for k in (0, 1))
    strain = path()[1]
    found = simulation.initialize(sent(3 * strain))
    assert np.array_equal(stress(found), stress(fresh.solve(sent(3 * strain), 0.1)))
    fresh = load().MicroSimulation(2)
    assert np.array_equal(stress(simulation.solve(sent(strain), 0.1)), stress(fresh.solve(sent(strain), 0.1)))


def test_a_simulation_moves_to_another_rank(load):
    """By its state, or whole; the class is found by its name."""
    micro = load()
    simulation, other = micro.MicroSimulation(7), micro.MicroSimulation(8)
    simulation.solve(sent(path()[1]), 0.1)
    other.set_state(simulation.get_state())
    whole = pickle.loads(pickle.dumps(simulation))
    assert pickle.loads(pickle.dumps(micro.MicroSimulation)) is micro.MicroSimulation is type(whole)
    assert (whole.get_global_id(), other.get_global_id()) == (7, 8)
    want = stress(simulation.solve(sent(path()[0]), 0.1))
    assert np.array_equal(stress(other.solve(sent(path()[0]), 0.1)), want)
    assert np.array_equal(stress(whole.solve(sent(path()[0]), 0.1)), want)
    assert not np.allclose(stress(micro.MicroSimulation(9).solve(sent(path()[0]), 0.1)), want)


def test_more_micro_data_in_a_class_of_ones_own(load):
    micro = load(
        FILE.replace("MicroSimulation = coupling.micro_simulation(law)", "Base = coupling.micro_simulation(law)")
        + "class MicroSimulation(Base):\n"
        "    def solve(self, macro_data, dt):\n"
        "        return super().solve(macro_data, dt) | {'conv': 1}\n"
    )
    simulation = pickle.loads(pickle.dumps(micro.MicroSimulation(3)))
    assert simulation.solve(sent(path()[0]), 0.1)["conv"] == 1


# What the manager demands.


class Interface(abc.ABC):
    """The manager's own interface in version 0.12."""

    @abc.abstractmethod
    def solve(self, micro_sim_input, dt): ...

    @abc.abstractmethod
    def get_state(self): ...

    @abc.abstractmethod
    def set_state(self, state): ...

    @abc.abstractmethod
    def get_global_id(self): ...

    @abc.abstractmethod
    def set_global_id(self, global_id): ...

    def initialize(self, *args, **kwargs):
        return None

    def requires_initialize(self):
        return type(self).initialize is not Interface.initialize


def check(simulation):
    """The manager's checks of an object, those of `MicroSimulationClass.check_initialize` of version 0.12."""
    assert simulation.requires_initialize()
    assert type(simulation.initialize()) is dict
    assert type(simulation.solve(sent(np.zeros(6)), 1.0)) is dict
    simulation.set_state(simulation.get_state())
    simulation.set_global_id(12)
    assert simulation.get_global_id() == 12


def test_it_is_derived_from_the_managers_interface(load, monkeypatch):
    monkeypatch.setitem(sys.modules, "micro_manager", types.SimpleNamespace(MicroSimulationInterface=Interface))
    micro = load()
    assert issubclass(micro.MicroSimulation, Interface)
    check(micro.MicroSimulation(-1))  # the number that a simulation has which is to get its state later
    assert pickle.loads(pickle.dumps(micro.MicroSimulation(3))).get_global_id() == 3


def test_it_needs_no_manager(load, monkeypatch):
    """Nor one with an interface; such versions count the parameters of `initialize`."""
    for manager in (None, types.SimpleNamespace()):
        monkeypatch.setitem(sys.modules, "micro_manager", manager)
        cls = load().MicroSimulation
        assert cls.initialize.__code__.co_argcount == 1
        assert all(callable(getattr(cls, name)) for name in Interface.__abstractmethods__)


def test_the_manager_itself_takes_it(load):
    """Its way to load the class, and its checks."""
    manager = pytest.importorskip("micro_manager", reason="no micro-manager-precice with preCICE here")
    loading = pytest.importorskip("micro_manager.micro_simulation")
    if not hasattr(manager, "MicroSimulationInterface"):
        pytest.skip("micro-manager-precice is older than 0.11")
    load()
    cls = loading.load_backend_class("micro_of_a_test")
    assert issubclass(cls, manager.MicroSimulationInterface) and cls.__name__ == "MicroSimulation"
    log = types.SimpleNamespace(log_info_rank_zero=pytest.fail)
    made = loading.create_simulation_class(log, cls, "micro_of_a_test", 1)
    simulation = made(4)
    has, needs_data, returns, _ = made.check_initialize(simulation, None)
    assert (has, needs_data, returns, made.check_output()) == (True, False, True, False)
    check(cls(4))
    assert np.array_equal(stress(simulation.solve(sent(path()[0]), 0.1)), next(iter(right(path())))[0])


# What travels.


def tensors(strain):
    """Strain (3, 3), stress (3, 3) and stiffness (3, 3, 3, 3) of the crystal at a Mandel strain."""
    basis = fe2.mandel.basis(3)
    stress, tangent = coupling.PointLaw(CRYSTAL, 1)(strain[None])
    stiffness = np.einsum("ab,aij,bkl->ijkl", tangent[0], basis, basis)
    return fe2.mandel.tensor(strain), fe2.mandel.tensor(stress[0]), stiffness


@pytest.mark.parametrize(
    ("shears", "notation"),
    [
        (("yz", "xz", "xy"), "engineering"),  # Voigt
        (("yz", "xz", "xy"), "Mandel"),  # the structure of two-scale-mechanics in FEniCSx
        (("xy", "xz", "yz"), "engineering"),  # in CalculiX
        (("xy", "yz", "zx"), "engineering"),  # in Abaqus
        (("xy", "xz", "yz"), "Mandel"),  # FANS
    ],
)
def test_published_conventions(shears, notation):
    """From the tensors, component by component."""
    e = 0.01 * np.random.default_rng(1).standard_normal(6)
    strain, stress, stiffness = tensors(e)
    order = ("xx", "yy", "zz", *shears)
    ij = [["xyz".index(letter) for letter in component] for component in order]
    shear = np.array([i != j for i, j in ij])
    of_strain = np.where(shear, {"engineering": 2.0, "Mandel": np.sqrt(2)}[notation], 1.0)
    of_stress = np.where(shear, {"engineering": 1.0, "Mandel": np.sqrt(2)}[notation], 1.0)
    strains = of_strain * [strain[i, j] for i, j in ij]
    stresses = of_stress * [stress[i, j] for i, j in ij]
    stiff = np.outer(of_stress, of_stress) * [[stiffness[i, j, k, l] for k, l in ij] for i, j in ij]

    data = coupling.MicroData.published(order=order, notation=notation)
    found = coupling.micro_simulation(CRYSTAL, data)(0).solve(sent(strains), 1.0)
    assert np.allclose(found["stresses1to3"], stresses[:3], rtol=1e-12)
    assert np.allclose(found["stresses4to6"], stresses[3:], rtol=1e-12)
    packed = [(i, j) for i in range(6) for j in range(i, 6)]
    for k, name in enumerate(CMAT):
        assert np.allclose(found[name], [stiff[i, j] for i, j in packed[3 * k : 3 * k + 3]], rtol=1e-12)
    assert np.allclose(stiff @ strains, stresses, rtol=1e-12)


def test_two_dimensions():
    """Vectors of two components, and scalars, which arrive as numbers."""
    data = coupling.MicroData.published(2)
    assert data.strain == {"strains1to2": ("xx", "yy"), "strains3": ("xy",)}
    assert data.tangent == {"cmat1": ("xxxx", "xxyy"), "cmat2": ("xxxy", "yyyy"), "cmat3": ("yyxy", "xyxy")}
    e = np.array([0.001, -0.002, 0.0015])
    found = coupling.micro_simulation(PLANE)(0).solve({"strains1to2": e[:2], "strains3": np.float64(e[2])}, 1.0)
    s, c = coupling.PointLaw(PLANE, 1, notation="engineering")(e[None])
    assert np.array_equal(found["stresses1to2"], s[0, :2]) and found["stresses3"] == s[0, 2]
    assert isinstance(found["stresses3"], float)
    assert np.array_equal(np.concatenate([found[f"cmat{k}"] for k in (1, 2, 3)]), c[0][np.triu_indices(3)])


def test_names_of_other_programs():
    data = coupling.MicroData.published(names=("Strains", "Stresses", "Cmat"))
    assert list(data.strain) == ["Strains1to3", "Strains4to6"] and list(data.tangent)[6] == "Cmat7"
    whole = {"e": VOIGT}
    found = coupling.micro_simulation(CRYSTAL, coupling.MicroData(whole, {"s": VOIGT}, {}, "Mandel"))(0).solve(
        {"e": np.arange(6.0), "temperature": 3.0}, 1.0
    )
    assert list(found) == ["s"]
    assert np.array_equal(found["s"], coupling.PointLaw(CRYSTAL, 1)(np.arange(6.0)[None])[0][0])


@settings(max_examples=15, deadline=None)
@given(st.permutations(VOIGT), st.lists(st.integers(1, 5), max_size=4, unique=True), st.data())
def test_any_splitting(order, cuts, draw):
    """Whatever is cut where, each component is what it is in one piece."""
    parts = [order[a:b] for a, b in itertools.pairwise([0, *sorted(cuts), 6])]
    pairs = [a + b for a in VOIGT for b in VOIGT]
    chosen = draw.draw(st.lists(st.sampled_from(pairs), min_size=1, max_size=4))
    data = coupling.MicroData(
        {f"e{k}": part for k, part in enumerate(parts)},
        {f"s{k}": part for k, part in enumerate(reversed(parts))},
        {"c": [*chosen, *(p[2:] + p[:2] for p in chosen)]},
    )
    e = dict(zip(VOIGT, np.linspace(0.01, 0.06, 6), strict=True))
    strain = {f"e{k}": [e[c] for c in part] for k, part in enumerate(parts)}
    found = coupling.micro_simulation(CRYSTAL, data)(0).solve(strain, 1.0)
    s, c = coupling.PointLaw(CRYSTAL, 1, notation="engineering")(np.array([list(e.values())]))
    for k, part in enumerate(reversed(parts)):
        assert np.array_equal(np.atleast_1d(found[f"s{k}"]), [s[0, VOIGT.index(x)] for x in part])
    assert np.array_equal(found["c"][: len(chosen)], [c[0, VOIGT.index(p[:2]), VOIGT.index(p[2:])] for p in chosen])


def test_half_of_a_tangent_that_is_not_symmetric_warns():
    turned = fe2.UFLLaw(fe2.Stress(lambda e: 3 * e + ufl.as_tensor([[e[1, 1], 0, 0], [0, 0, 0], [0, 0, 0]])), dim=3)
    with pytest.warns(UserWarning, match="the law's tangent is not symmetric, and only one half of it is sent"):
        coupling.micro_simulation(turned)(0).solve(sent(path()[0]), 1.0)
    pairs = [a + b for a in VOIGT for b in VOIGT]
    data = coupling.MicroData.published()
    whole = coupling.MicroData(data.strain, data.stress, {"c": pairs})
    found = coupling.micro_simulation(turned, whole)(0).solve(sent(path()[0]), 1.0)["c"].reshape(6, 6)
    assert (found[0, 1], found[1, 0]) == pytest.approx((1.0, 0.0), abs=1e-12)


def test_wrong_data_raise():
    simulation = coupling.micro_simulation(CRYSTAL)(0)
    with pytest.raises(KeyError, match=r"no 'strains4to6', only 'strains1to3', 't'; .* 'strains1to3', 'strains4to6'"):
        simulation.solve({"strains1to3": np.zeros(3), "t": 1.0}, 0.1)
    with pytest.raises(ValueError, match=r"'strains4to6' has the shape \(2,\), need 3 numbers: yz, xz, xy"):
        simulation.solve({"strains1to3": np.zeros(3), "strains4to6": np.zeros(2)}, 0.1)
    with pytest.raises(ValueError, match="the strain of point 0 is"):
        simulation.solve(sent(np.full(6, np.nan)), 0.1)
    with pytest.raises(ValueError, match="the state has 1 numbers, the law needs 0"):
        simulation.set_state(np.zeros(1).tobytes())
    published = coupling.MicroData.published
    for make, message in (
        (lambda: published(4), "dim = 4, need 1, 2 or 3"),
        (lambda: published(order=VOIGT[:5]), r"order = .*, need xx, yy, zz, yz, xz, xy in any order"),
        (lambda: coupling.micro_simulation(PLANE, published(3)), "data.strain has the component 'zz' in 'strains1to3'"),
        (lambda: coupling.micro_simulation(CRYSTAL, published(2)), "data.strain holds xx, yy, xy; need each of xx, yy"),
        (
            lambda: coupling.micro_simulation(PLANE, coupling.MicroData(published(2).strain, {}, {"c": ["xxx"]})),
            "data.tangent has the component 'x' in 'c'; a law in 2 dimensions has xx, yy, xy",
        ),
        (
            lambda: coupling.micro_simulation(
                PLANE, coupling.MicroData(published(2).strain, {"c": ["xx"]}, {"c": ["xxxx"]})
            ),
            "data.stress and data.tangent both have 'c'",
        ),
        (
            lambda: coupling.micro_simulation(PLANE, coupling.MicroData(published(2).strain, {}, {}, "Voigt")),
            "notation = 'Voigt', need",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match=r"the law is J2.*: give fe2.UFLLaw\(material\)"):
        coupling.micro_simulation(STEEL)


@pytest.mark.parametrize(
    "law, components",
    [
        (fe2.UFLLaw(fe2.Conductive([[2.0, 0.6], [0.6, 1.0]])), "x y"),
        (fe2.UFLLaw(fe2.Conductive(np.diag([1.0, 2.0, 3.0])), dim=3), "x y z"),
        (fe2.UFLLaw(fe2.NeoHookean(9.0, 2.0)), "xx xy yx yy"),
        (fe2.UFLLaw(fe2.NeoHookean(9.0, 2.0), dim=3), "xx xy xz yx yy yz zx zy zz"),
    ],
)
def test_laws_of_other_measures_name_their_components(law, components):
    """Each component goes its own way, without factors; xy and yx are different ones."""
    names = components.split()
    data = coupling.MicroData(
        {f"G{c}": (c,) for c in reversed(names)},
        {f"S{c}": (c,) for c in names},
        {f"C{a}{b}": (a + b,) for a in names for b in names},
    )
    simulation = coupling.micro_simulation(law, data)(0)
    strain = np.random.default_rng(1).uniform(-0.2, 0.2, law.strain_size)
    rest = law.initial_state(1)
    right = law.evaluate(strain[None], rest, rest)
    found = simulation.solve({f"G{c}": e for c, e in zip(names, strain)}, 1.0)
    assert [found[f"S{c}"] for c in names] == right.stress[0].tolist()
    assert [found[f"C{a}{b}"] for a in names for b in names] == right.tangent[0].ravel().tolist()
    with pytest.raises(ValueError, match=f"the law takes a {law.measure.name}: name the data, with the components"):
        coupling.micro_simulation(law)
    with pytest.raises(ValueError, match=r"data\.strain has the component '(xx|xyz)' in|need each of"):
        coupling.micro_simulation(law, coupling.MicroData.published(law.measure.dimension(law.strain_size)))
