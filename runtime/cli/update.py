"""update: other resource limits for a container, from options or from a document."""

from __future__ import annotations

import sys

from runtime import api
from runtime.caution import caution
from runtime.errors import SpecFault, UsageFault
from runtime.record import replace
from runtime.spec.parse import decode
from runtime.spec.parse_resources import parse_resources
from runtime.spec.resources import BlockIo, Cpu, Memory, Resources
from runtime.spec.validate_resources import validate_resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.cli.context import Context
    from runtime.cli.options import Values

_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_IGNORED = ("kernel-memory", "kernel-memory-tcp")
_SCHEMAS = ("l3-cache-schema", "mem-bw-schema")


def update(context: Context) -> int:
    """Apply the limits that were given; what was not given stays."""
    values = context.values
    lines = tuple(values.text(name) for name in _SCHEMAS if values.text(name))
    if lines:
        from runtime.container import update_schemata

        update_schemata(context.root, context.container_id, lines)
    resources = _from_document(values.text("resources")) if values.given("resources") else from_options(values)
    try:
        validate_resources(resources, pointer="", update=True)
    except SpecFault as fault:
        fault.document = values.text("resources") or "options"
        raise
    api.update(context.root, context.container_id, resources)
    return 0


def _from_document(path: str) -> Resources:
    if path == "-":
        from runtime.spec.parse import DOCUMENT_LIMIT

        return parse_resources(decode(sys.stdin.buffer.read(DOCUMENT_LIMIT + 1), "standard input"))
    from runtime.cli.lifecycle import read_document

    return parse_resources(decode(read_document(path), path))


def from_options(values: Values) -> Resources:
    """Give the resources the options ask for; raise UsageFault."""
    cpu = Cpu(
        shares=_number(values, "cpu-share"),
        quota=_number(values, "cpu-quota"),
        burst=_number(values, "cpu-burst"),
        period=_number(values, "cpu-period"),
        realtime_runtime=_number(values, "cpu-rt-runtime"),
        realtime_period=_number(values, "cpu-rt-period"),
        idle=_number(values, "cpu-idle"),
        cpus=values.text("cpuset-cpus"),
        mems=values.text("cpuset-mems"),
    )
    memory = Memory(
        limit=_bytes(values, "memory"),
        reservation=_bytes(values, "memory-reservation"),
        swap=_bytes(values, "memory-swap"),
    )
    for name in _IGNORED:
        if _bytes(values, name) is not None:
            caution("Kernel memory settings are ignored and will be removed")
    resources = Resources(cpu=cpu, memory=memory, pids_limit=_number(values, "pids-limit"))
    weight = _number(values, "blkio-weight")
    return replace(resources, block_io=BlockIo(weight=weight)) if weight else resources


def _number(values: Values, name: str) -> int | None:
    return values.number(name) if values.given(name) else None


def _bytes(values: Values, name: str) -> int | None:
    return size(values.text(name), name) if values.given(name) else None


def size(text: str, name: str) -> int:
    """Give the bytes of "512m", "1.5GiB", "-1"; raise UsageFault for anything else."""
    if text == "-1":
        return -1
    number = text.strip().lower().removesuffix("b").removesuffix("i")
    unit = _UNITS.get(number[-1:], 1)
    if unit != 1:
        number = number[:-1]
    mantissa, power, exponent = number.strip().partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = whole + (fraction or "0")
    if not (whole and _is_short_number(digits, 20) and (not power or _is_short_number(exponent.removeprefix("+"), 3))):
        raise UsageFault(f'invalid value "{text}" for flag -{name}: give bytes, or a number with k, m, g or t')
    scale: int = 10 ** len(fraction or "0")
    factor: int = 10 ** int(exponent or 0)
    return int(digits) * unit * factor // scale


def _is_short_number(text: str, limit: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) < limit
