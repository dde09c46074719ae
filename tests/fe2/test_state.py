# SPDX-License-Identifier: MIT
"""State rows: fields by name, rows within rows, and laws that name no fields."""

import numpy as np
import pytest

import fe2
from fe2.state import layout_of


def nested():
    rve = fe2.StateLayout(strain=3, fluctuation=(2, 2))
    return fe2.StateLayout(number=(), law=fe2.StateLayout(rve=rve, work=()), count=())


def test_fields_are_views_by_name():
    layout = nested()
    assert layout.size == 10
    rows = np.arange(20.0).reshape(2, 10)
    assert layout.view(rows, "number").tolist() == [0, 10]
    assert layout.view(rows, "count").tolist() == [9, 19]
    assert layout.view(rows, "law").shape == (2, 8)
    assert (
        layout.view(rows, "law.rve.strain").tolist()
        == layout.view(rows, "strain").tolist()
        == [[1, 2, 3], [11, 12, 13]]
    )
    assert layout.view(rows[0], "fluctuation").tolist() == [[4, 5], [6, 7]]
    layout.view(rows, "fluctuation")[1] = -1
    assert (rows[1, 4:8] == -1).all() and (rows[0] == np.arange(10)).all()
    assert layout.view(rows[:0], "work").shape == (0,)


def test_rows_are_made_of_fields():
    layout = nested()
    rows = layout.rows(2, number=[5, 6], strain=[[1, 2, 3], [4, 5, 6]], work=1.0)
    assert rows.tolist() == [[5, 1, 2, 3, 0, 0, 0, 0, 1, 0], [6, 4, 5, 6, 0, 0, 0, 0, 1, 0]]


def test_what_is_not_there_is_told():
    layout = fe2.StateLayout(a=fe2.StateLayout(x=1), b=fe2.StateLayout(x=2))
    with pytest.raises(KeyError, match=r"several fields 'x': the fields are a\.x, b\.x"):
        layout.view(np.zeros((1, 3)), "x")
    with pytest.raises(KeyError, match=r"no field 'y': the fields are a, a\.x, b, b\.x"):
        layout.view(np.zeros((1, 3)), "y")
    with pytest.raises(ValueError, match=r"rows have the shape \(1, 4\), need \(\.\.\., 3\)"):
        layout.view(np.zeros((1, 4)), "a")
    assert "a.x" in layout and "x" not in layout and "y" not in layout
    assert layout == fe2.StateLayout(a=fe2.StateLayout(x=1), b=fe2.StateLayout(x=2)) != fe2.StateLayout(a=1, b=2)


def test_a_law_without_layout_has_one_field():
    class Own:
        state_size = 4

    assert layout_of(Own()) == fe2.StateLayout(state=4)
    assert fe2.UFLLaw(fe2.LinearElastic(2.0, 1.0)).layout.size == 0


def test_a_response_takes_that_of_some_points():
    """Also through views of its rows; the other points keep what they have."""
    rows = fe2.StateLayout(law=2, count=())
    out = fe2.Response(np.zeros((3, 2)), np.zeros((3, 2, 2)), np.zeros((3, rows.size)))
    part = fe2.Response(np.ones((2, 2)), np.ones((2, 2, 2)), np.ones((2, 2)))
    fe2.Response(out.stress, out.tangent, rows.view(out.state, "law")).put(np.array([True, False, True]), part)
    assert out.stress[:, 0].tolist() == out.tangent[:, 0, 0].tolist() == rows.view(out.state, "law")[:, 0].tolist()
    assert out.stress[:, 1].tolist() == [1, 0, 1] and not rows.view(out.state, "count").any()
