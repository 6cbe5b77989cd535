"""Seccomp, AppArmor and SELinux: which profile or label a container runs under."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from shim.container.spec.seccomp_default import default_profile
from shim.container.spec.seccomp_profile import convert_profile
from shim.errors import FailedPrecondition, InvalidArgument
from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shim.container.spec.host import HostFacts
    from shim.container.spec.inputs import SpecInputs
    from shim.gen.runtime.v1.api_pb2 import LinuxContainerSecurityContext, SecurityProfile, SELinuxOption

RUNTIME_DEFAULT = api_pb2.SecurityProfile.RuntimeDefault
UNCONFINED = api_pb2.SecurityProfile.Unconfined
LOCALHOST = api_pb2.SecurityProfile.Localhost
PREFIX = "localhost/"
_LABEL_WORD = re.compile(r"[^\s:\0]*")
_CATEGORIES = r"c\d{1,4}(?:\.c\d{1,4})?"
_SENSITIVITY = rf"s\d{{1,2}}(?::{_CATEGORIES}(?:,{_CATEGORIES})*)?"
_LEVEL = re.compile(rf"(?:{_SENSITIVITY}(?:-{_SENSITIVITY})?)?", re.ASCII)
_COMMON_LEVEL = "s0"
"""The lowest level, without categories: what has it is kept apart from nothing."""


class DefaultProfileMissing(FailedPrecondition):
    """The default AppArmor profile has to be loaded first; `asked`: the container cannot do without."""

    def __init__(self, message: str, *, asked: bool = False) -> None:
        super().__init__(message)
        self.asked = asked


def parse_profile(text: str, field: str) -> SecurityProfile | None:
    """Read the deprecated string form; "" means nothing was asked. Raises InvalidArgument naming `field`."""
    if text in {"runtime/default", "docker/default"}:
        return api_pb2.SecurityProfile(profile_type=RUNTIME_DEFAULT)
    if text == "unconfined":
        return api_pb2.SecurityProfile(profile_type=UNCONFINED)
    if text.startswith(PREFIX):
        return api_pb2.SecurityProfile(profile_type=LOCALHOST, localhost_ref=text.removeprefix(PREFIX))
    if text:
        raise InvalidArgument(f"{field} {text!r} is none of runtime/default, unconfined and localhost/…")
    return None


def check_profile(profile: SecurityProfile, field: str) -> None:
    """Raise InvalidArgument for an unknown type, or a localhost_ref that is missing or out of place."""
    if profile.profile_type not in {RUNTIME_DEFAULT, UNCONFINED, LOCALHOST}:
        raise InvalidArgument(f"{field}.profile_type {profile.profile_type} is unknown")
    if profile.profile_type == LOCALHOST and not profile.localhost_ref:
        raise InvalidArgument(f"{field}.localhost_ref is empty, and profile_type Localhost needs it")
    if profile.profile_type != LOCALHOST and profile.localhost_ref:
        raise InvalidArgument(f"{field}.localhost_ref must only be set if profile_type is Localhost")


def seccomp_request(security: LinuxContainerSecurityContext, unset: str, default: str = "") -> SecurityProfile | None:
    """Give the profile that was asked for; `unset` is the configured answer to a container that says nothing.

    `default` is the file of what RuntimeDefault means, "" the bundled profile. A privileged container has none, whatever it
    says.
    """
    if security.privileged:
        return None
    if security.HasField("seccomp"):
        check_profile(security.seccomp, "linux.security_context.seccomp")
        asked: SecurityProfile | None = security.seccomp
    else:
        asked = parse_profile(security.seccomp_profile_path or unset, "linux.security_context.seccomp_profile_path")
    if default and asked is not None and asked.profile_type == RUNTIME_DEFAULT:
        return api_pb2.SecurityProfile(profile_type=LOCALHOST, localhost_ref=default)
    return asked


def seccomp(inputs: SpecInputs, bounding: Sequence[str]) -> dict[str, Any] | None:
    """Give linux.seccomp, None for unconfined; the default profile depends on the container's bounding set.

    Raises FailedPrecondition where the kernel has no seccomp: a profile is never dropped silently.
    """
    settings = inputs.settings
    security = inputs.config.linux.security_context
    profile = seccomp_request(security, settings.unset_seccomp_profile, settings.default_seccomp_profile)
    if profile is None or profile.profile_type == UNCONFINED:
        return None
    if not inputs.host.seccomp:
        raise FailedPrecondition("linux.security_context.seccomp asks for a profile, and this kernel has no seccomp")
    if profile.profile_type == RUNTIME_DEFAULT:
        return default_profile(inputs.host.machine, bounding)
    if inputs.sources.seccomp_profile is None:
        raise InvalidArgument(f"linux.security_context.seccomp.localhost_ref {profile.localhost_ref!r} was not read")
    return convert_profile(inputs.sources.seccomp_profile, inputs.host, bounding)


def apparmor(inputs: SpecInputs) -> tuple[str, list[str]]:
    """Give process.apparmorProfile ("" for none) and notes.

    Without a request the default profile applies, except in privileged containers, and where it is known that it cannot be
    loaded. A request on a host without AppArmor fails, as containerd has it: the pod would run less confined than its author
    thinks. Raises DefaultProfileMissing where it has to be loaded first.
    """
    security = inputs.config.linux.security_context
    if security.HasField("apparmor"):
        profile: SecurityProfile | None = security.apparmor
    else:
        profile = parse_profile(security.apparmor_profile, "linux.security_context.apparmor_profile")
    if profile is not None:
        check_profile(profile, "linux.security_context.apparmor")
        return _asked_apparmor(inputs, profile)
    if not inputs.host.apparmor or security.privileged:
        return "", []
    default, problem = inputs.settings.apparmor_profile, inputs.settings.apparmor_problem
    if default in inputs.sources.apparmor_profiles:
        return default, []
    if not problem:
        raise DefaultProfileMissing(f"the default AppArmor profile {default} is not loaded")
    return "", [f"{problem}; the container runs without a profile"]


def _asked_apparmor(inputs: SpecInputs, profile: SecurityProfile) -> tuple[str, list[str]]:
    if profile.profile_type == UNCONFINED:
        return "", []
    if not inputs.host.apparmor:
        raise FailedPrecondition("linux.security_context.apparmor asks for a profile, and AppArmor is not enabled on this node")
    if profile.profile_type == LOCALHOST:
        name = profile.localhost_ref.removeprefix(PREFIX)
    elif inputs.config.linux.security_context.privileged:
        return "", []
    else:
        name = inputs.settings.apparmor_profile
        if name not in inputs.sources.apparmor_profiles:
            raise DefaultProfileMissing(f"the default AppArmor profile {name} is not loaded", asked=True)
    if name not in inputs.sources.apparmor_profiles:
        raise InvalidArgument(f"AppArmor profile {name!r} is not loaded on this node; load it with apparmor_parser")
    return name, []


def selinux_labels(inputs: SpecInputs) -> tuple[str, str]:
    """Give the process and the mount label, both "" where SELinux is off; the container's options win over the pod's.

    A container whose options name no level has its pod's, by which the containers of a pod may share files and those of two
    pods may not. A privileged one runs with the daemon's own label. Raises FailedPrecondition as `require_selinux` has it.
    """
    security = inputs.config.linux.security_context
    pod = inputs.pod.linux.security_context.selinux_options
    own = security.selinux_options if security.HasField("selinux_options") else pod
    if not inputs.host.selinux:
        require_selinux(
            own, "linux.security_context.selinux_options", inputs.host, ignored=inputs.settings.ignore_selinux_options
        )
        return "", ""
    level = own.level or pod.level or inputs.settings.selinux_level or "s0" if inputs.host.selinux_mls else ""
    process = "" if security.privileged else _label(own, "container_t", level)
    return process, _label(own, "container_file_t", level, mount=True)


def check_selinux(options: SELinuxOption, field: str) -> None:
    """Raise InvalidArgument for a part of a label that would run into the next one, or a level that is none.

    The parts are joined by colons (selinux(8)); only the level, such as s0-s1:c1,c2.c5, has some.
    """
    for name in ("user", "role", "type"):
        value = getattr(options, name)
        if not _LABEL_WORD.fullmatch(value):
            raise InvalidArgument(f"{field}.{name} {value!r} is no part of an SELinux label")
    if not _LEVEL.fullmatch(options.level):
        raise InvalidArgument(f"{field}.level {options.level!r} is no level of SELinux, such as s0:c1,c2")


def require_selinux(options: SELinuxOption, field: str, host: HostFacts, *, ignored: bool) -> None:
    """Raise FailedPrecondition where a label is asked for and the node has none to give, unless that is `ignored`.

    An option object in which nothing is set asks for nothing, and so does one with the level that is kept apart from no other:
    pods that shall run everywhere name it. Relabelling of volumes needs no answer: kubelet asks for it on every node.
    """
    asked = [name for name in ("user", "role", "type", "level") if getattr(options, name)]
    if not asked or (asked == ["level"] and options.level == _COMMON_LEVEL) or host.selinux or ignored:
        return
    raise FailedPrecondition(
        f"{field}.{asked[0]} asks for an SELinux label, and SELinux is not enabled on this node; "
        "set runtime.ignore_selinux_options to run such pods without one"
    )


def _label(options: SELinuxOption, default_type: str, level: str, *, mount: bool = False) -> str:
    role = "object_r" if mount else options.role or "system_r"
    kind = default_type if mount else options.type or default_type
    return ":".join((options.user or "system_u", role, kind, *([level] if level else [])))
