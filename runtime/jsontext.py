"""JSON without the json package: its C scanner is used directly, because importing json (and re) costs six milliseconds."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from json.encoder import encode_basestring_ascii
    from typing import Any

    def make_scanner(_context: object) -> Any:
        """Give a function (text, start) -> (value, end)."""
else:
    from _json import encode_basestring_ascii, make_scanner

_CONSTANTS = {None: "null", True: "true", False: "false"}


class _Context:
    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int

    @staticmethod
    def parse_constant(name: str) -> float:
        raise ValueError(f"{name} is not JSON")


_scan = make_scanner(_Context)


def loads(text: str | bytes) -> Any:
    """Parse one document; raise ValueError (json.JSONDecodeError among them) for anything else."""
    if isinstance(text, bytes):
        text = text.decode()
    text = text.strip(" \t\r\n")
    try:
        value, end = _scan(text, 0)
    except StopIteration as stop:
        raise ValueError(f"a JSON value was expected at character {stop.value}") from None
    except RecursionError:
        raise ValueError("the document is nested too deeply") from None
    if end != len(text):
        raise ValueError(f"there is more after the JSON value, at character {end}")
    return value


def dumps(value: Any) -> str:
    """Write plain values (dict with str keys, list, tuple, str, int, float, bool, None) as one line."""
    if isinstance(value, str):
        return encode_basestring_ascii(value)
    if value is None or isinstance(value, bool):
        return _CONSTANTS[value]
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{encode_basestring_ascii(key)}:{dumps(item)}" for key, item in value.items()) + "}"
    return "[" + ",".join([dumps(item) for item in value]) + "]"
