"""The node's own rules for what plugins may ask."""

from __future__ import annotations

from typing import Any

import pytest

from shim.config import NriValidatorConfig
from shim.gen.nri.v1alpha1 import api_pb2 as nri
from shim.nri.owners import Owners
from shim.nri.validator import objection

PROFILE = nri.SecurityProfile


def judge(
    *claims: tuple[Any, ...],
    profile: int | None = None,
    annotations: dict[str, str] | None = None,
    plugins: str = "",
    **rules: Any,
) -> str:
    owners = Owners()
    for field, *key in claims:
        owners.claim("c", field, "10-a", *key)
    container = nri.Container(id="c", name="main")
    if profile is not None:
        container.linux.seccomp_profile.profile_type = profile
        container.linux.seccomp_profile.SetInParent()
    question = nri.ValidateContainerAdjustmentRequest(
        pod=nri.PodSandbox(annotations=annotations or {}),
        container=container,
        owners=owners.message(),
        plugins=[nri.PluginInstance(index="10", name=name) for name in plugins.split()],
    )
    return objection(NriValidatorConfig(enable=True, **rules), question)


def test_without_rules_everything_goes() -> None:
    assert judge((nri.OciHooks,), (nri.SeccompPolicy,), (nri.Namespace, "network"), (nri.Sysctl, "a")) == ""


@pytest.mark.parametrize(
    ("claims", "rule", "message"),
    [
        ([(nri.OciHooks,)], "reject_oci_hook_adjustment", "hooks may not be added, as 10-a asks"),
        (
            [(nri.Namespace, "pid"), (nri.Namespace, "network")],
            "reject_namespace_adjustment",
            "namespaces may not be changed, as 10-a asks for network, 10-a asks for pid",
        ),
        ([(nri.Sysctl, "a.b")], "reject_sysctl_adjustment", "sysctls may not be changed, as 10-a asks for a.b"),
    ],
)
def test_rejections(claims: list[tuple[Any, ...]], rule: str, message: str) -> None:
    assert judge(*claims, **{rule: True}) == message
    assert judge(**{rule: True}) == ""


@pytest.mark.parametrize(
    ("profile", "rule", "name"),
    [
        (None, "reject_unconfined_seccomp_adjustment", "unconfined"),
        (PROFILE.UNCONFINED, "reject_unconfined_seccomp_adjustment", "unconfined"),
        (PROFILE.RUNTIME_DEFAULT, "reject_runtime_default_seccomp_adjustment", "runtime default"),
        (PROFILE.LOCALHOST, "reject_custom_seccomp_adjustment", "localhost"),
    ],
)
def test_seccomp(profile: int | None, rule: str, name: str) -> None:
    found = judge((nri.SeccompPolicy,), profile=profile, **{rule: True})
    assert found == f"a seccomp profile that is {name} may not be changed, as 10-a asks"
    others = {
        "reject_unconfined_seccomp_adjustment",
        "reject_runtime_default_seccomp_adjustment",
        "reject_custom_seccomp_adjustment",
    }
    assert judge((nri.SeccompPolicy,), profile=profile, **dict.fromkeys(others - {rule}, True)) == ""


def test_required_plugins() -> None:
    needed = {"required-plugins.noderesource.dev": '["x", "10-y"]'}
    assert judge(required_plugins=("z",), annotations=needed, plugins="x y") == "plugins it needs are not there: z"
    assert judge(annotations=needed, plugins="x y") == ""
    assert judge(annotations=needed) == "plugins it needs are not there: x, 10-y"
    own = needed | {"required-plugins.noderesource.dev/container.main": "[]"}
    assert judge(annotations=own) == ""
    assert judge(annotations={"required-plugins.noderesource.dev/pod": "nonsense"}).endswith("is no list of names: 'nonsense'")


@pytest.mark.parametrize(("value", "message"), [("true", ""), ("false", "plugins"), ("perhaps", "annotation t is neither")])
def test_a_pod_may_do_without(value: str, message: str) -> None:
    found = judge(required_plugins=("z",), tolerate_missing_plugins_annotation="t", annotations={"t": value})
    assert found.startswith(message)
    assert bool(found) == bool(message)
