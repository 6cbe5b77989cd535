"""The small JSON reader and writer agree with the standard one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.jsonlite import dumps, loads

VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False), st.text()
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)),
    max_leaves=20,
)


@given(value=VALUES)
def test_agrees_with_the_standard_package(value: Any) -> None:
    assert json.loads(dumps(value)) == value
    assert dumps(value, "\t") == json.dumps(value, indent="\t")
    assert loads(json.dumps(value)) == value


@pytest.mark.parametrize(
    "text", ["", " ", "{", "[1,]", "{} x", "NaN", '{"a":1', '"\x01"', "[" * 100_000, "1" * 5000, "tru", "'a'"]
)
def test_malformed_text_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads(text)


def test_white_space_around_a_document() -> None:
    assert loads(b" \r\n\t[1] \n") == [1]


def test_foreign_values_are_refused() -> None:
    with pytest.raises(TypeError):
        dumps({"a": {1, 2}})
