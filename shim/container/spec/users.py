"""Decide who a container runs as, from the CRI, the image's USER and the image's passwd and group."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from shim.container.spec.inputs import ResolvedUser
from shim.errors import InvalidArgument
from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shim.container.spec.layers import RootfsReader
    from shim.gen.runtime.v1.api_pb2 import LinuxContainerSecurityContext

# OCI runtimes keep ids in a signed int; beyond it "2147483648" became root once (CVE-2024-40635).
MAX_ID = 2**31 - 1
MAX_GROUPS = 65536  # NGROUPS_MAX, limits.h
MAX_FILE = 4 << 20
NUMBER = re.compile(r"[+-]?[0-9]+", re.ASCII)


class Passwd(NamedTuple):
    """One line of passwd(5), as far as it is needed."""

    name: str
    uid: int
    gid: int
    home: str


class Group(NamedTuple):
    """One line of group(5)."""

    name: str
    gid: int
    members: tuple[str, ...]


def resolve_user(reader: RootfsReader, security: LinuxContainerSecurityContext, image_user: str) -> ResolvedUser:
    """Give the ids, groups and home; reads files, so call it in a thread.

    The CRI's run_as_username or run_as_user, with run_as_group, replaces the image's USER as a whole. A number without group
    takes the group of its passwd entry, 0 without one. A name must be in passwd. Under the policy Merge the groups of
    group(5) that list the user join the CRI's supplemental groups. Raises InvalidArgument.
    """
    text = user_string(security) or image_user
    users = list(_passwd(reader))
    groups = list(_group(reader))
    uid, gid = _ids(text, users, groups) if text else (0, 0)
    supplemental = [check_id(value, "linux.security_context.supplemental_groups") for value in security.supplemental_groups]
    if security.supplemental_groups_policy == api_pb2.Merge:
        supplemental += _memberships(text.partition(":")[0] or "0", users, groups)
    every = tuple(sorted({gid, *supplemental}))
    if len(every) > MAX_GROUPS:
        raise InvalidArgument(f"the container's user is in {len(every)} groups, and the kernel takes {MAX_GROUPS}")
    home = next((user.home for user in users if user.uid == uid), "") or "/"
    return ResolvedUser(uid=uid, gid=gid, groups=every, home=home)


def user_string(security: LinuxContainerSecurityContext) -> str:
    """Give what the CRI asks for in the form of an image's USER, "" when it asks for nothing."""
    user = security.run_as_username
    if not user and security.HasField("run_as_user"):
        user = str(check_id(security.run_as_user.value, "linux.security_context.run_as_user"))
    if not security.HasField("run_as_group"):
        return user
    group = check_id(security.run_as_group.value, "linux.security_context.run_as_group")
    if not user:
        raise InvalidArgument(f"linux.security_context.run_as_group {group} is specified without a user")
    return f"{user}:{group}"


def check_id(value: int, field: str) -> int:
    """Give `value`; raise InvalidArgument naming `field` when it is no id that OCI runtimes can take."""
    if not 0 <= value <= MAX_ID:
        raise InvalidArgument(f"{field} {value} is outside 0..{MAX_ID}")
    return value


def _ids(text: str, users: list[Passwd], groups: list[Group]) -> tuple[int, int]:
    user, _, group = text.partition(":")
    if ":" in group:
        raise InvalidArgument(f"invalid USER value {text!r}: it has more than one colon")
    if NUMBER.fullmatch(user):
        uid = check_id(int(user), f"invalid USER value {text!r}: uid")
        default = _primary(uid, users)
    elif user:
        entry = next((entry for entry in users if entry.name == user), None)
        if entry is None:
            raise InvalidArgument(f"invalid USER value {text!r}: user {user!r} is not in the image's /etc/passwd")
        uid, default = entry.uid, entry.gid
    else:
        uid, default = 0, 0
    if not group:
        return uid, default
    if NUMBER.fullmatch(group):
        return uid, check_id(int(group), f"invalid USER value {text!r}: gid")
    named = next((entry for entry in groups if entry.name == group), None)
    if named is None:
        raise InvalidArgument(f"invalid USER value {text!r}: group {group!r} is not in the image's /etc/group")
    return uid, named.gid


def _primary(uid: int, users: list[Passwd]) -> int:
    return next((entry.gid for entry in users if entry.uid == uid), 0)


def _memberships(user: str, users: list[Passwd], groups: list[Group]) -> list[int]:
    """Give the groups that list the user by name; a group of the user's own name is no supplemental one."""
    name = user
    if NUMBER.fullmatch(user):
        found = next((entry.name for entry in users if entry.uid == int(user)), None)
        if found is None:
            return []
        name = found
    return [group.gid for group in groups if group.name != name and name in group.members]


def _fields(reader: RootfsReader, path: str, least: int) -> Iterator[list[str]]:
    data = reader.read(path, limit=MAX_FILE) or b""
    for line in data.decode("utf-8", "surrogateescape").split("\n"):
        fields = line.strip().split(":")
        if len(fields) >= least and fields[0] and not fields[0].startswith("#"):
            yield fields


def _passwd(reader: RootfsReader) -> Iterator[Passwd]:
    """Read /etc/passwd; a line whose ids are no ids is passed over, where reading it as 0 would give away root."""
    for name, _, uid, gid, *rest in _fields(reader, "/etc/passwd", 4):
        if _is_id(uid) and _is_id(gid):
            yield Passwd(name, int(uid), int(gid), rest[1] if len(rest) > 1 else "")


def _group(reader: RootfsReader) -> Iterator[Group]:
    for name, _, gid, *rest in _fields(reader, "/etc/group", 3):
        if _is_id(gid):
            yield Group(name, int(gid), tuple(rest[0].split(",")) if rest and rest[0] else ())


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= MAX_ID
