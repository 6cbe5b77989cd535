"""What the options of `wherry run` mean in CRI's words: pure functions from words to messages.

All raise click.BadParameter for a word they cannot read, naming the option.
"""

from __future__ import annotations

import os
import re

import click

from shim.gen.runtime.v1 import api_pb2

_SIZE = re.compile(r"(\d+)([kmgt]?)b?", re.IGNORECASE)
_FACTORS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
CPU_PERIOD = 100_000
"""Microseconds in which a CPU quota is spent."""
MOUNT_OPTIONS = {"rw", "ro", "rro", "rshared", "rslave", "rprivate"}


def environment(word: str) -> api_pb2.KeyValue:
    """Read NAME=VALUE; NAME alone takes the caller's value."""
    name, equals, value = word.partition("=")
    if not name:
        raise click.BadParameter(f"{word!r} has no name before the =", param_hint="--env")
    return api_pb2.KeyValue(key=name, value=os.fsencode(value) if equals else os.environb.get(os.fsencode(name), b""))


def volume(word: str) -> api_pb2.Mount:
    """Read SOURCE:TARGET[:OPTION,...]; a relative source begins at the working directory, a missing one is an error."""
    source, colon, rest = word.partition(":")
    target, _, options = rest.partition(":")
    if not colon or not target.startswith("/"):
        raise click.BadParameter(f"{word!r} is not SOURCE:/TARGET[:OPTIONS]", param_hint="--volume")
    chosen = set(options.split(",")) if options else set()
    if unknown := chosen - MOUNT_OPTIONS:
        raise click.BadParameter(f"{', '.join(sorted(unknown))} in {word!r} is unknown", param_hint="--volume")
    path = os.path.abspath(source)
    if not os.path.lexists(path):
        raise click.BadParameter(f"{path} does not exist", param_hint="--volume")
    propagation = api_pb2.PROPAGATION_PRIVATE
    if "rshared" in chosen:
        propagation = api_pb2.PROPAGATION_BIDIRECTIONAL
    elif "rslave" in chosen:
        propagation = api_pb2.PROPAGATION_HOST_TO_CONTAINER
    return api_pb2.Mount(
        container_path=target,
        host_path=path,
        readonly=bool(chosen & {"ro", "rro"}),
        recursive_read_only="rro" in chosen,
        propagation=propagation,
    )


def port(word: str) -> api_pb2.PortMapping:
    """Read [ADDRESS:]PORT:PORT[/tcp|udp|sctp], the host's port first; an IPv6 address stands in brackets."""
    mapping, _, protocol = word.partition("/")
    host, _, inside = mapping.rpartition(":")
    address, _, outside = host.rpartition(":")
    try:
        numbers = (int(outside), int(inside))
        kind = api_pb2.Protocol.Name(api_pb2.Protocol.Value(protocol.upper() or "TCP"))
    except ValueError:
        raise click.BadParameter(f"{word!r} is not [ADDRESS:]PORT:PORT[/PROTOCOL]", param_hint="--publish") from None
    if not all(0 < number < 65536 for number in numbers):
        raise click.BadParameter(f"{word!r} has a port outside 1 to 65535", param_hint="--publish")
    return api_pb2.PortMapping(protocol=kind, container_port=numbers[1], host_port=numbers[0], host_ip=address.strip("[]"))


def size(word: str) -> int:
    """Read a number of bytes with an optional binary unit: 64m, 1g."""
    match = _SIZE.fullmatch(word)
    if match is None:
        raise click.BadParameter(f"{word!r} is not a size such as 64m or 1g", param_hint="--memory")
    return int(match[1]) * _FACTORS[match[2].lower()]


def resources(memory: str, cpus: float) -> api_pb2.LinuxContainerResources:
    """Make limits; empty and 0 mean none."""
    return api_pb2.LinuxContainerResources(
        memory_limit_in_bytes=size(memory) if memory else 0,
        cpu_period=CPU_PERIOD if cpus else 0,
        cpu_quota=int(cpus * CPU_PERIOD),
    )


def apply_user(word: str, context: api_pb2.LinuxContainerSecurityContext) -> None:
    """Read USER[:GROUP] into a security context: a number or a name for the user, a number for the group."""
    user, colon, group = word.partition(":")
    if user.isdigit():
        context.run_as_user.value = int(user)
    else:
        context.run_as_username = user
    if colon:
        if not group.isdigit():
            raise click.BadParameter(f"the group in {word!r} must be a number", param_hint="--user")
        context.run_as_group.value = int(group)


def pairs(words: tuple[str, ...], option: str) -> dict[str, str]:
    """Read KEY=VALUE words into a dict."""
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{word!r} is not KEY=VALUE", param_hint=option)
        found[key] = value
    return found
