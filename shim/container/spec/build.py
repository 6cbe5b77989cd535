"""Put a container's config.json together; the parts each have a module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shim.container.spec.annotations import spec_annotations
from shim.container.spec.capabilities import process_capabilities
from shim.container.spec.devices import linux_devices
from shim.container.spec.inputs import BuiltSpec
from shim.container.spec.mounts import mounts
from shim.container.spec.namespaces import linux_namespaces, user_mappings
from shim.container.spec.paths import cgroups_path
from shim.container.spec.process import process_args, process_cwd, process_env
from shim.container.spec.resources import linux_resources, oom_score_adj
from shim.container.spec.security import apparmor, seccomp, selinux_labels

if TYPE_CHECKING:
    from shim.container.spec.inputs import SpecInputs

Json = dict[str, Any]

# The version that has all we write, and no later one: crun before 1.12 refuses 1.1 and up.
OCI_VERSION = "1.0.2"


def build_spec(inputs: SpecInputs) -> Json:
    r"""Give the container's config.json (OCI runtime-spec) as plain JSON values; see `build` for errors.

    Bytes of CRI environment values that are not UTF-8 are kept as lone surrogates ("surrogateescape"): json.dumps writes
    them as \udcXX, json.loads gives them back, and os.fsencode makes the original bytes of them for execve.
    """
    return build(inputs).config


def build(inputs: SpecInputs) -> BuiltSpec:
    """Give the config and the notes on what this host limits.

    The request is expected to have passed `validate`; what it cannot judge without the host's facts raises
    InvalidArgument, FailedPrecondition or Unimplemented here, naming the CRI field.
    """
    notes: list[str] = []
    process = _process(inputs, notes)
    bind_mounts, propagation = mounts(inputs)
    linux = _linux(inputs, process["capabilities"]["bounding"], notes)
    if propagation:
        linux["rootfsPropagation"] = propagation
    config: Json = {
        "ociVersion": OCI_VERSION,
        "process": process,
        "root": {"path": inputs.rootfs, "readonly": inputs.config.linux.security_context.readonly_rootfs},
        "mounts": bind_mounts,
        "annotations": spec_annotations(inputs),
        "linux": linux,
    }
    if {"type": "uts"} in linux["namespaces"] and inputs.pod.hostname:
        # only a uts namespace of the container's own needs naming: a pod's got its name when it was pinned
        config["hostname"] = inputs.pod.hostname
    return BuiltSpec(config=config, notes=tuple(notes))


def _process(inputs: SpecInputs, notes: list[str]) -> Json:
    config = inputs.config
    security = config.linux.security_context
    capabilities, refused = process_capabilities(security, inputs.host)
    profile, unconfined = apparmor(inputs)
    notes += [*refused, *unconfined]
    process: Json = {
        "terminal": config.tty,
        "user": {"uid": inputs.user.uid, "gid": inputs.user.gid, "additionalGids": list(inputs.user.groups)},
        "args": process_args(config, inputs.image),
        "env": process_env(inputs),
        "cwd": process_cwd(config, inputs.image),
        "capabilities": capabilities,
        "noNewPrivileges": security.no_new_privs,
    }
    label, _ = selinux_labels(inputs)
    process |= {key: value for key, value in (("apparmorProfile", profile), ("selinuxLabel", label)) if value}
    if config.linux.HasField("resources"):
        process["oomScoreAdj"], clamped = oom_score_adj(config.linux.resources, inputs.host)
        notes += clamped
    return process


def _linux(inputs: SpecInputs, bounding: list[str], notes: list[str]) -> Json:
    security = inputs.config.linux.security_context
    resources, limited = linux_resources(inputs.config.linux.resources, inputs.host, inputs.settings)
    notes += limited
    devices, resources["devices"] = linux_devices(inputs)
    linux: Json = {
        "namespaces": linux_namespaces(inputs),
        "resources": resources,
        "cgroupsPath": cgroups_path(inputs.pod, inputs.container_id, inputs.settings),
        **user_mappings(inputs),
    }
    if devices:
        linux["devices"] = devices
    if not security.privileged:
        # kubelet spells out both lists for procMount Default and leaves them empty for Unmasked
        linux["maskedPaths"] = list(security.masked_paths)
        linux["readonlyPaths"] = list(security.readonly_paths)
    _, mount_label = selinux_labels(inputs)
    if mount_label:
        linux["mountLabel"] = mount_label
    filters = seccomp(inputs, bounding)
    if filters is not None:
        linux["seccomp"] = filters
    return linux
