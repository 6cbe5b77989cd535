"""What the device cgroup allows, worked out from the rules as the kernel's v1 lists would (device_cgroup.c): pure.

Rules apply in order. The result is a default and the exceptions to it; v1 takes it as writes, v2 as a BPF program.
"""

from __future__ import annotations

from runtime.errors import CgroupFault
from runtime.plan.cgroup import Write
from runtime.record import Record
from runtime.spec.resources import DeviceRule

ALWAYS_ALLOWED = (
    DeviceRule(allow=True, type="c", access="m"),
    DeviceRule(allow=True, type="b", access="m"),
    DeviceRule(allow=True, type="c", major=1, minor=3),  # null
    DeviceRule(allow=True, type="c", major=1, minor=8),  # random
    DeviceRule(allow=True, type="c", major=1, minor=7),  # full
    DeviceRule(allow=True, type="c", major=5, minor=0),  # tty
    DeviceRule(allow=True, type="c", major=1, minor=5),  # zero
    DeviceRule(allow=True, type="c", major=1, minor=9),  # urandom
    DeviceRule(allow=True, type="c", major=136),  # pts
    DeviceRule(allow=True, type="c", major=5, minor=2),  # ptmx
)
"""What every container may do: make any node, and use the devices the runtime itself puts into /dev."""

Key = tuple[str, int | None, int | None]
"""Type (c or b), major and minor; None is any."""


class DevicePolicy(Record):
    """The default and the exceptions to it, sorted: each is a key and the accesses that differ from the default."""

    allow: bool
    exceptions: tuple[tuple[Key, str], ...] = ()


def device_policy(rules: tuple[DeviceRule, ...]) -> DevicePolicy:
    """Work out what `rules` and then ALWAYS_ALLOWED leave allowed; nothing is, before the first rule.

    Raises CgroupFault for a rule that would cut a hole into a wildcard, which v1 ignores in silence.
    """
    allow = False
    exceptions: dict[Key, frozenset[str]] = {}
    for rule in (*rules, *ALWAYS_ALLOWED):
        if rule.type == "a":
            allow, exceptions = rule.allow, {}
            continue
        key: Key = ("c" if rule.type == "u" else rule.type, rule.major, rule.minor)
        access = frozenset(rule.access)
        if rule.allow != allow:
            exceptions[key] = exceptions.get(key, frozenset()) | access
            continue
        _refuse_holes(key, access, exceptions)
        rest = exceptions.pop(key, frozenset()) - access
        if rest:
            exceptions[key] = rest
    ordered = sorted(exceptions.items(), key=lambda item: (item[0][0], item[0][1] or -1, item[0][2] or -1))
    return DevicePolicy(allow=allow, exceptions=tuple((key, _spell(access)) for key, access in ordered))


def _spell(access: frozenset[str]) -> str:
    return "".join(letter for letter in "rwm" if letter in access)


def _refuse_holes(key: Key, access: frozenset[str], exceptions: dict[Key, frozenset[str]]) -> None:
    kind, major, minor = key
    for other in ((kind, None, minor), (kind, major, None), (kind, None, None)):
        if other != key and exceptions.get(other, frozenset()) & access:
            raise CgroupFault(
                f"the device rule for {spell(key)} {_spell(access)} would cut a hole into the one for {spell(other)}:"
                " list the devices one by one instead",
                step="plan the device cgroup",
            )


def spell(key: Key) -> str:
    """Spell a key as the kernel does: "c 1:3", "b *:*"."""
    kind, major, minor = key
    return f"{kind} {'*' if major is None else major}:{'*' if minor is None else minor}"


def device_writes(policy: DevicePolicy) -> tuple[Write, ...]:
    """Give the writes to a v1 device cgroup; the first one sets the default and forgets what was there."""
    default, other = ("devices.allow", "devices.deny") if policy.allow else ("devices.deny", "devices.allow")
    writes = [Write(controller="devices", choices=((default, "a"),))]
    writes += [Write(controller="devices", choices=((other, f"{spell(key)} {access}"),)) for key, access in policy.exceptions]
    return tuple(writes)


def device_changes(policy: DevicePolicy, listed: str) -> tuple[Write, ...]:
    """Give the writes that turn what devices.list shows into `policy`, allowing first: nothing kept is forbidden meanwhile.

    A list that allows everything, or is to, cannot be changed so: it is set anew.
    """
    held = [line for line in listed.splitlines() if line]
    if policy.allow or any(line.startswith("a") for line in held):
        return device_writes(policy)
    wanted = {spell(key): access for key, access in policy.exceptions}
    known = set(held)
    allowed = [f"{device} {access}" for device, access in wanted.items() if f"{device} {access}" not in known]
    denied = []
    for line in held:
        device, _, access = line.rpartition(" ")
        rest = "".join(letter for letter in access if letter not in wanted.get(device, ""))
        if rest:
            denied.append(f"{device} {rest}")
    changes = [("devices.allow", one) for one in allowed] + [("devices.deny", one) for one in denied]
    return tuple(Write(controller="devices", choices=(change,)) for change in changes)
