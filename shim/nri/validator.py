"""The rules of the node's own for what plugins may ask ([nri.default_validator]), as containerd's default validator has them.

Pure. It judges after all plugins, and also where there is none: a required plugin that is missing lets no container through.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from shim.gen.nri.v1alpha1 import api_pb2 as nri

if TYPE_CHECKING:
    from shim.config import NriValidatorConfig

REQUIRED = "required-plugins.noderesource.dev"
"""Annotation of a pod with a list of the plugins that its containers need."""
TRUE, FALSE = {"1", "t", "true"}, {"0", "f", "false"}


def objection(rules: NriValidatorConfig, question: nri.ValidateContainerAdjustmentRequest) -> str:
    """Say what is wrong with the adjustments of a container, "" when nothing is."""
    owners = nri.FieldOwners()
    if question.container.id in question.owners.owners:
        owners = question.owners.owners[question.container.id]
    return (
        _hooks(rules, owners)
        or _seccomp(rules, owners, question.container)
        or _entries(owners, nri.Namespace, "namespaces", reject=rules.reject_namespace_adjustment)
        or _entries(owners, nri.Sysctl, "sysctls", reject=rules.reject_sysctl_adjustment)
        or _required(rules, question)
    )


def _hooks(rules: NriValidatorConfig, owners: nri.FieldOwners) -> str:
    if not rules.reject_oci_hook_adjustment or nri.OciHooks not in owners.simple:
        return ""
    return f"hooks may not be added, as {owners.simple[nri.OciHooks]} asks"


def _seccomp(rules: NriValidatorConfig, owners: nri.FieldOwners, container: nri.Container) -> str:
    if nri.SeccompPolicy not in owners.simple:
        return ""
    kind = nri.SecurityProfile.UNCONFINED
    if container.linux.HasField("seccomp_profile"):
        kind = container.linux.seccomp_profile.profile_type
    rejected = {
        nri.SecurityProfile.UNCONFINED: rules.reject_unconfined_seccomp_adjustment,
        nri.SecurityProfile.RUNTIME_DEFAULT: rules.reject_runtime_default_seccomp_adjustment,
        nri.SecurityProfile.LOCALHOST: rules.reject_custom_seccomp_adjustment,
    }
    if not rejected[kind]:
        return ""
    name = nri.SecurityProfile.ProfileType.Name(kind).lower().replace("_", " ")
    return f"a seccomp profile that is {name} may not be changed, as {owners.simple[nri.SeccompPolicy]} asks"


def _entries(owners: nri.FieldOwners, field: int, what: str, *, reject: bool) -> str:
    if not reject or field not in owners.compound:
        return ""
    claims = sorted(owners.compound[field].owners.items())
    return f"{what} may not be changed, as {', '.join(f'{plugin} asks for {key}' for key, plugin in claims)}"


def _required(rules: NriValidatorConfig, question: nri.ValidateContainerAdjustmentRequest) -> str:
    container = question.container.name
    if rules.tolerate_missing_plugins_annotation:
        value = _annotation(question.pod, rules.tolerate_missing_plugins_annotation, container)
        if value.lower() in TRUE:
            return ""
        if value and value.lower() not in FALSE:
            return f"annotation {rules.tolerate_missing_plugins_annotation} is neither true nor false: {value!r}"
    needed = list(rules.required_plugins)
    asked = _annotation(question.pod, REQUIRED, container)
    if asked:
        try:
            names = json.loads(asked)
        except ValueError:
            names = None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return f"annotation {REQUIRED} is no list of names: {asked!r}"
        needed += names
    there = {name for plugin in question.plugins for name in (plugin.name, f"{plugin.index}-{plugin.name}")}
    missing = [name for name in dict.fromkeys(needed) if name not in there]
    return f"plugins it needs are not there: {', '.join(missing)}" if missing else ""


def _annotation(pod: nri.PodSandbox, key: str, container: str) -> str:
    """Give an annotation of one container, or else of the pod; "" without any."""
    for name in (f"{key}/container.{container}", f"{key}/pod", key):
        if name in pod.annotations:
            return pod.annotations[name]
    return ""
