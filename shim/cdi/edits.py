"""Carry out the edits of CDI devices on a config.json: plain JSON values, changed in place."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

from shim.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shim.cdi.model import Edits, Mount, Node

Json = dict[str, Any]

KINDS = {stat.S_IFBLK: "b", stat.S_IFCHR: "c", stat.S_IFIFO: "p"}


def apply(spec: Json, edits: Iterable[Edits]) -> None:
    """Apply edits one after the other; raise FailedPrecondition for a device that the host has not got."""
    process, linux = spec["process"], spec["linux"]
    userns = any(namespace["type"] == "user" for namespace in linux.get("namespaces", []))
    for one in edits:
        process["env"] = _with_variables(process.get("env", []), one.env)
        for node in one.nodes:
            _apply_node(process, linux, node)
        for host, name in one.net_devices.items():
            linux.setdefault("netDevices", {})[host] = {"name": name}
        _apply_mounts(spec, one.mounts, userns=userns)
        for hook in one.hooks:
            entry: Json = {"path": hook.path, "args": list(hook.args), "env": list(hook.env)}
            if hook.timeout is not None:
                entry["timeout"] = hook.timeout
            spec.setdefault("hooks", {}).setdefault(hook.name, []).append(entry)
        if one.intel_rdt is not None:
            linux["intelRdt"] = dict(one.intel_rdt)
        gids = process["user"].setdefault("additionalGids", [])
        gids += [gid for gid in dict.fromkeys(one.gids) if gid and gid not in gids]


def _with_variables(env: list[str], added: Iterable[str]) -> list[str]:
    """Give variables with others set; one that is there keeps its place."""
    values = {one.partition("=")[0]: one for one in env}
    values |= {one.partition("=")[0]: one for one in added}
    return list(values.values())


def _apply_node(process: Json, linux: Json, node: Node) -> None:
    entry = _complete(node)
    user = process["user"]
    for name, own in (("uid", node.uid), ("gid", node.gid)):
        value = own if own is not None else user.get(name) or None  # a device is its user's, unless that is root
        if value is not None:
            entry[name] = value
    linux["devices"] = [*(one for one in linux.get("devices", []) if one["path"] != node.path), entry]
    if entry["type"] in {"b", "c"}:
        access = {"": "rwm", "none": ""}.get(node.permissions, node.permissions)
        rule = {"allow": True, "type": entry["type"], "major": entry["major"], "minor": entry["minor"], "access": access}
        linux.setdefault("resources", {}).setdefault("devices", []).append(rule)


def _complete(node: Node) -> Json:
    """Give the node with what the file leaves to the host's own node."""
    path = node.host_path or node.path
    complete = bool(node.kind) and (node.major > 0 or node.kind == "p")
    entry: Json = {"path": node.path, "type": node.kind, "major": node.major, "minor": node.minor}
    if node.mode is not None:
        entry["fileMode"] = node.mode
    try:
        status = os.lstat(path)
    except OSError as error:
        if complete:
            return entry
        raise FailedPrecondition(f"CDI device node {path} cannot be looked at: {error.strerror}") from error
    kind = KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is not None:
        entry.setdefault("fileMode", stat.S_IMODE(status.st_mode))
    if complete:
        return entry
    if kind is None or node.kind not in {"", kind}:
        raise FailedPrecondition(f"CDI device node {path} is not of type {node.kind or 'b, c or p'} on this node")
    entry["type"] = kind
    if kind != "p" and not node.major:
        entry |= {"major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev)}
    return entry


def _apply_mounts(spec: Json, added: Iterable[Mount], *, userns: bool) -> None:
    """Replace mounts by destination; what belongs below another mount comes after it.

    A mount without type and options is bound. In a user namespace binds are mapped, so that their owners are the same inside.
    """
    mounts = list(spec.get("mounts", []))
    for mount in added:
        options = list(mount.options) or ([] if mount.kind else ["rbind"])
        bound = {"bind", "rbind"} & set(options)
        if userns and bound and not {"idmap", "ridmap"} & set(options):
            options.append("idmap")
        entry = {"destination": mount.container_path, "source": mount.host_path, "options": options}
        if mount.kind or bound:
            entry["type"] = mount.kind or "bind"
        mounts = [*(one for one in mounts if one["destination"] != mount.container_path), entry]
        mounts.sort(key=lambda one: one["destination"].rstrip("/").count("/"))
    spec["mounts"] = mounts
