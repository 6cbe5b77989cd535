"""A command line's options, read the way Go's flag package does: -name, --name, -name value, -name=value, no clusters.

Options are declared by the text that documents them, one a line: names, a word in capitals when a value follows, "..." when it
may be given again, two spaces, and what it does. So help and parser cannot disagree, and only the command in use costs time.
"""

from __future__ import annotations

from runtime.errors import UsageFault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


class Option:
    """One declared option."""

    __slots__ = ("name", "repeats", "takes_value")

    def __init__(self, name: str, *, takes_value: bool, repeats: bool) -> None:
        self.name = name
        self.takes_value = takes_value
        self.repeats = repeats


class Values:
    """What a command line gave: options by their long names, and the arguments."""

    def __init__(self, options: dict[str, Option]) -> None:
        self._given: dict[str, list[str]] = {}
        self._options = options
        self.arguments: list[str] = []

    def add(self, option: Option, value: str) -> None:
        """Note one use of an option; the last one of an option that does not repeat counts."""
        if option.repeats:
            self._given.setdefault(option.name, []).append(value)
        else:
            self._given[option.name] = [value]

    def given(self, name: str) -> bool:
        """Tell whether the option was used at all."""
        return name in self._given

    def flag(self, name: str) -> bool:
        """Give an option that takes no value."""
        return self._given.get(name) == ["true"]

    def text(self, name: str, default: str = "") -> str:
        """Give an option's value."""
        return self._given[name][0] if name in self._given else default

    def texts(self, name: str) -> tuple[str, ...]:
        """Give every value of an option that repeats."""
        return tuple(self._given.get(name, ()))

    def number(self, name: str, default: int = 0) -> int:
        """Give an option's value as an integer; raise UsageFault when it is none."""
        if name not in self._given:
            return default
        text = self._given[name][0]
        digits = text[1:] if text[:1] in ("-", "+") else text
        if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
            raise UsageFault(f'invalid value "{text}" for flag -{name}: it must be a number')
        return int(text)


def declare(text: str) -> dict[str, Option]:
    """Give the options a help text declares, by every name they have."""
    options: dict[str, Option] = {}
    for line in text.splitlines():
        head = line.strip().split("  ")[0]
        if not head.startswith("-"):
            continue
        words = head.replace(",", " ").split()
        names = [word.lstrip("-") for word in words if word.startswith("-")]
        option = Option(names[0], takes_value=len(words) > len(names), repeats=words[-1] == "...")
        for name in names:
            options[name] = option
    return options


def parse(options: dict[str, Option], words: Sequence[str], *, interleaved: bool) -> Values:
    """Read options and arguments; `interleaved` allows options after arguments. Raises UsageFault.

    "--" ends the options. "-h" and "--help" are always known, as the flag "help".
    """
    values = Values(options)
    known = {"help": _HELP, "h": _HELP} | options
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if word == "--":
            values.arguments += words[index:]
            break
        if len(word) < 2 or word[0] != "-":
            values.arguments.append(word)
            if not interleaved:
                values.arguments += words[index:]
                break
            continue
        index = _option(known, values, words, index)
    return values


_HELP = Option("help", takes_value=False, repeats=False)


def _option(known: dict[str, Option], values: Values, words: Sequence[str], index: int) -> int:
    """Read the option before `index` and its value; give the index after them."""
    word = words[index - 1]
    name, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
    option = known.get(name)
    if option is None:
        raise UsageFault(f"flag provided but not defined: -{name}")
    if option.takes_value:
        if not equals:
            if index >= len(words):
                raise UsageFault(f"flag needs an argument: -{name}")
            value, index = words[index], index + 1
        values.add(option, value)
    elif not equals or value in _TRUE:
        values.add(option, "true")
    elif value in _FALSE:
        values.add(option, "false")
    else:
        raise UsageFault(f'invalid boolean value "{value}" for -{name}')
    return index
