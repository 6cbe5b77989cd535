"""JSON without the import cost of the json package, whose regular expressions take longer to load than a container to start.

The C scanner and encoder behind that package are used directly. Text that is not UTF-8 keeps its bytes as lone surrogates
(PEP 383), because environment values and paths are bytes to the kernel.
"""

from __future__ import annotations

import _json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_SPACE = " \t\n\r"


class _Settings:
    """What the C scanner asks of a decoder object."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = None
    memo: dict[str, str]


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


_Settings.parse_constant = staticmethod(_refuse_constant)  # type: ignore[assignment]  # None only until here
_make_scanner: Any = _json.make_scanner
_scan: Any = _make_scanner(_Settings())


def loads(data: bytes | str) -> Any:
    """Parse one JSON document; raise ValueError saying what is wrong and where."""
    text = data if isinstance(data, str) else data.decode("utf-8", "surrogateescape")
    start = len(text) - len(text.lstrip(_SPACE))
    try:
        value, end = _scan(text, start)
    except StopIteration as stop:
        raise ValueError(f"a value is missing at character {stop.value}") from None
    except RecursionError:
        raise ValueError("the document is nested too deeply") from None
    except SystemError:  # the scanner knows its error's class only where json.decoder is imported already
        import json.decoder  # noqa: F401 - for its effect on the scanner

        value, end = _scan(text, start)
    except ValueError as error:
        if "string conversion" not in str(error):
            raise
        raise ValueError("a number has thousands of digits") from None
    rest = text[end:].lstrip(_SPACE)
    if rest:
        raise ValueError(f"something follows the document at character {len(text) - len(rest)}")
    return value


def _refuse_value(value: object) -> object:
    raise TypeError(f"a {type(value).__name__} is not a JSON value")


_encode: Any = _json.make_encoder(None, _refuse_value, _json.encode_basestring_ascii, None, ":", ",", False, False, False)


def dumps(value: Any, indent: str = "") -> str:
    """Give the JSON text of plain values, in one line, or indented by `indent` a level."""
    return "".join(_lines(value, indent, "\n") if indent else _encode(value, 0))


def _lines(value: Any, indent: str, margin: str) -> Iterator[str]:
    if not value or not isinstance(value, (dict, list, tuple)):
        yield from _encode(value, 0)
        return
    inner = margin + indent
    is_map = isinstance(value, dict)
    yield "{" if is_map else "["
    separator = ""
    for item in value:
        yield separator + inner
        if is_map:
            yield from _encode(str(item), 0)
            yield ": "
        yield from _lines(value[item] if is_map else item, indent, inner)
        separator = ","
    yield margin + ("}" if is_map else "]")
