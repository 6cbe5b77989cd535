"""Localhost seccomp profiles: a JSON file in Docker's format or OCI's, as linux.seccomp."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from shim.container.spec.seccomp_default import ARCHITECTURES
from shim.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shim.container.spec.host import HostFacts

Json = dict[str, Any]

LIMIT = 1 << 20  # bytes of a profile: Docker's own, indented, has 20 KiB

# uname(2)'s machine → Go's name for it, which Docker's conditions use
GO_ARCHITECTURE = {"x86_64": "amd64", "i686": "x86", "aarch64": "arm64", "armv7l": "arm", "loongarch64": "loong64"}
COPIED = ("defaultErrnoRet", "flags", "listenerPath", "listenerMetadata")
ACTIONS = frozenset(
    f"SCMP_ACT_{name}" for name in ("KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "TRACE", "ALLOW", "LOG", "NOTIFY")
)


def convert_profile(data: bytes, host: HostFacts, bounding: Sequence[str]) -> Json:
    """Give linux.seccomp of a profile file.

    Docker's additions to the OCI format are resolved for this host and container: archMap, a single "name", and the
    includes and excludes of a rule (arches, caps, minKernel). Raises InvalidArgument saying which part is wrong.
    """
    profile = _load(data)
    action = _action(profile.get("defaultAction"), "defaultAction")
    result: Json = {"defaultAction": action, "syscalls": []}
    result |= {name: profile[name] for name in COPIED if profile.get(name)}
    architectures = _architectures(profile, host.machine)
    if architectures:
        result["architectures"] = architectures
    for index, rule in enumerate(_list(profile, "syscalls", "profile")):
        where = f"syscalls[{index}]"
        if not isinstance(rule, dict):
            raise _wrong(f"{where} is not an object")
        if _applies(rule, host, bounding, where):
            result["syscalls"].append(_rule(rule, where))
    return result


def _load(data: bytes) -> Json:
    if len(data) > LIMIT:
        raise _wrong(f"it is longer than {LIMIT} bytes")
    try:
        profile = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"it is not JSON: {error}") from error
    if not isinstance(profile, dict):
        raise _wrong("it is not a JSON object")
    return profile


def _wrong(why: str) -> InvalidArgument:
    return InvalidArgument(f"the localhost seccomp profile cannot be used: {why}")


def _list(holder: Json, name: str, where: str) -> list[Any]:
    value = holder.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _wrong(f"{where} has a {name} that is no list")
    return value


def _strings(holder: Json, name: str, where: str) -> list[str]:
    values = _list(holder, name, where)
    if not all(isinstance(value, str) for value in values):
        raise _wrong(f"{where} has a {name} that is no list of strings")
    return values


def _action(value: object, where: str) -> str:
    if not isinstance(value, str) or value not in ACTIONS:
        raise _wrong(f"{where} {value!r} is no action")
    return value


def _architectures(profile: Json, machine: str) -> list[str]:
    """Give the architectures; an archMap names for each native one the others that its kernel runs too."""
    plain, mapped = _strings(profile, "architectures", "profile"), _list(profile, "archMap", "profile")
    if plain and mapped:
        raise _wrong("it has both architectures and archMap; use one")
    native = ARCHITECTURES.get(machine, ("", ""))[0].split()
    for index, entry in enumerate(mapped):
        if not isinstance(entry, dict) or not isinstance(entry.get("architecture"), str):
            raise _wrong(f"archMap[{index}] has no architecture")
        if _is_native(entry["architecture"], machine, native):
            return [entry["architecture"], *_strings(entry, "subArchitectures", f"archMap[{index}]")]
    return plain


def _is_native(architecture: str, machine: str, native: list[str]) -> bool:
    if len(native) == 1:
        return architecture == native[0]
    return architecture == f"SCMP_ARCH_{machine.upper()}"


def _applies(rule: Json, host: HostFacts, bounding: Sequence[str], where: str) -> bool:
    """Tell whether every include holds and no exclude does; an absent condition does neither."""
    arch = GO_ARCHITECTURE.get(host.machine, host.machine)
    includes, excludes = (_conditions(rule, name, where) for name in ("includes", "excludes"))
    arches, caps = _strings(includes, "arches", where), _strings(includes, "caps", where)
    needed = includes.get("minKernel")
    if (arches and arch not in arches) or not set(caps) <= set(bounding):
        return False
    if needed and host.kernel < _kernel(needed, where):
        return False
    if arch in _strings(excludes, "arches", where) or set(_strings(excludes, "caps", where)) & set(bounding):
        return False
    without = excludes.get("minKernel")
    return not (without and host.kernel >= _kernel(without, where))


def _conditions(rule: Json, name: str, where: str) -> Json:
    value = rule.get(name) or {}
    if not isinstance(value, dict):
        raise _wrong(f"{where}.{name} is no object")
    return value


def _kernel(text: object, where: str) -> tuple[int, int]:
    parts = str(text).split(".")
    if len(parts) < 2 or not all(part.isascii() and part.isdigit() for part in parts[:2]):
        raise _wrong(f"{where} has a minKernel {text!r} that is no version")
    return int(parts[0]), int(parts[1])


def _rule(rule: Json, where: str) -> Json:
    names, single = _strings(rule, "names", where), rule.get("name")
    if single and names:
        raise _wrong(f"{where} has both name and names; use one")
    if single:
        names = [str(single)]
    if not names:
        raise _wrong(f"{where} names no system call")
    result: Json = {"names": names, "action": _action(rule.get("action"), f"{where}.action")}
    arguments = _list(rule, "args", where)
    if arguments:
        result["args"] = [_argument(argument, where) for argument in arguments]
    if rule.get("errnoRet") is not None:
        result["errnoRet"] = rule["errnoRet"]
    return result


def _argument(argument: object, where: str) -> Json:
    if not isinstance(argument, dict) or not isinstance(argument.get("op"), str):
        raise _wrong(f"{where} has an argument without op")
    return {name: argument[name] for name in ("index", "value", "valueTwo", "op") if name in argument}
