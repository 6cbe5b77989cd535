"""SPEC.md sections 2 and 5: what every plugin owes its caller, whatever it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conformance.cni.support.node import Node
    from conformance.cni.support.plugins import Plugins

PLUGINS = ("loopback", "bridge", "ptp", "host-local", "portmap", "firewall", "bandwidth", "tuning")
INTERFACE = ("bridge", "ptp", "loopback")
CHAINED = ("portmap", "firewall", "bandwidth", "tuning")
pytestmark = pytest.mark.parametrize("plugin", PLUGINS)


@pytest.fixture(autouse=True)
def present(plugins: Plugins, plugin: str) -> None:
    if not plugins.has(plugin):
        pytest.skip(f"folder: there is no {plugin}")


def minimal(node: Node, plugin: str, **fields: Any) -> dict[str, Any]:
    """Give a configuration that a plugin can be asked with, of one that chains after nothing."""
    more: dict[str, Any] = {}
    if plugin in {"bridge", "ptp"}:
        more = {"ipam": node.ipam()} | ({"bridge": node.bridge} if plugin == "bridge" else {})
    if plugin == "host-local":
        more = {"ipam": node.ipam()}
    if plugin == "bandwidth":
        more = {"ingressRate": 8_000_000, "ingressBurst": 800_000}
    return node.config(plugin, **more) | fields


def previous(node: Node, **fields: Any) -> dict[str, Any]:
    """Give a result as a plugin before would have given it."""
    interface = {"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/none"}
    return {
        "cniVersion": node.plugins.newest,
        "interfaces": [interface],
        "ips": [{"address": "10.77.0.9/24", "interface": 0}],
    } | fields


def environment(**changes: str) -> dict[str, str]:
    """Give variables that are right, but for the changes; "" leaves one out."""
    good = {"CNI_CONTAINERID": "some-container", "CNI_NETNS": "/run/netns/none", "CNI_IFNAME": "eth0"}
    return good | changes


@pytest.mark.rule("SPEC.md#version-probe-plugin-version-support")
def test_version(plugins: Plugins, plugin: str) -> None:
    """VERSION names the versions a plugin speaks, and needs nothing but CNI_COMMAND and a version on standard input."""
    answer = plugins.call("VERSION", {"cniVersion": "1.0.0"}, plugin=plugin).result()
    assert isinstance(answer["cniVersion"], str)
    assert {"0.4.0", "1.0.0"} <= set(answer["supportedVersions"])


@pytest.mark.rule("SPEC.md#version-probe-plugin-version-support")
def test_version_in_the_form_asked_for(plugins: Plugins, plugin: str) -> None:
    """What VERSION answers has the version of the question."""
    assert plugins.call("VERSION", {"cniVersion": "0.4.0"}, plugin=plugin).result()["cniVersion"] == "0.4.0"


@pytest.mark.rule("SPEC.md#error")
@pytest.mark.parametrize("version", ["9.9.9", "0.0.1", "one"])
def test_unknown_version(node: Node, plugin: str, version: str) -> None:
    """A version that is not spoken is code 1, with nothing done."""
    config = minimal(node, plugin, cniVersion=version, prevResult=previous(node))
    node.plugins.call("ADD", config, environment=environment()).fault(1)


@pytest.mark.rule("SPEC.md#error")
@pytest.mark.parametrize("text", ["{", "no json", "[]", '"text"'])
def test_no_configuration(plugins: Plugins, plugin: str, text: str) -> None:
    """What is not a JSON object is code 6."""
    good = {"CNI_CONTAINERID": "c", "CNI_NETNS": "/run/netns/none", "CNI_IFNAME": "eth0"}
    plugins.call("ADD", text, plugin=plugin, environment=good).fault(6)


@pytest.mark.rule("SPEC.md#parameters")
@pytest.mark.parametrize(
    ("command", "variable"),
    [
        ("ADD", "CNI_CONTAINERID"),
        ("ADD", "CNI_NETNS"),
        ("ADD", "CNI_IFNAME"),
        ("DEL", "CNI_CONTAINERID"),
        ("DEL", "CNI_IFNAME"),
        ("CHECK", "CNI_CONTAINERID"),
        ("CHECK", "CNI_NETNS"),
        ("CHECK", "CNI_IFNAME"),
    ],
)
def test_missing_variable(node: Node, plugin: str, command: str, variable: str) -> None:
    """A variable that must be there and is not is code 4, and the message names it."""
    config = minimal(node, plugin, prevResult=previous(node))
    fault = node.plugins.call(command, config, environment=environment(**{variable: ""})).fault(4)
    assert variable in fault["msg"] + fault.get("details", "")


@pytest.mark.rule("SPEC.md#parameters")
@pytest.mark.parametrize("name", ["../up", "a/b", "-a", "a b", "a:b", "."])
def test_bad_container_id(node: Node, plugin: str, name: str) -> None:
    """A container id begins with a letter or digit, and goes on with those, and with _ . and -; else it is code 4."""
    config = minimal(node, plugin, prevResult=previous(node))
    node.plugins.call("ADD", config, environment=environment(CNI_CONTAINERID=name)).fault(4)


@pytest.mark.rule("SPEC.md#parameters")
@pytest.mark.parametrize("name", ["a/b", "a b", "a:b", ".", "..", "sixteen-letters-"])
def test_bad_interface_name(node: Node, plugin: str, name: str) -> None:
    """A name that the kernel does not take for a link is code 4."""
    config = minimal(node, plugin, prevResult=previous(node))
    node.plugins.call("ADD", config, environment=environment(CNI_IFNAME=name)).fault(4)


@pytest.mark.rule("SPEC.md#network-configuration-format")
@pytest.mark.parametrize("name", ["", "../up", "a/b", "-a", "a b"])
def test_bad_network_name(node: Node, plugin: str, name: str) -> None:
    """A network's name follows the rule of container ids; else the configuration is wrong, code 7."""
    config = minimal(node, plugin, name=name, prevResult=previous(node))
    node.plugins.call("ADD", config, environment=environment()).fault(7)


@pytest.mark.rule("SPEC.md#overview-1")
@pytest.mark.parametrize("command", ["SWIM", "add"])
def test_unknown_command(node: Node, plugin: str, command: str) -> None:
    """A command that is none is code 4."""
    node.plugins.call(command, minimal(node, plugin), environment=environment()).fault(4)


@pytest.mark.rule("SPEC.md#check-check-containers-networking-is-as-expected")
def test_check_before_it_existed(node: Node, plugin: str) -> None:
    """CHECK is refused by code 1 for a configuration of a version that did not have it."""
    config = minimal(node, plugin, cniVersion="0.3.1", prevResult=previous(node, cniVersion="0.3.1", ips=[]))
    node.plugins.call("CHECK", config, environment=environment()).fault(1)


@pytest.mark.rule("SPEC.md#status-check-plugin-status")
def test_status(node: Node, plugin: str) -> None:
    """STATUS succeeds, and says nothing, where a plugin is ready."""
    if "1.1.0" not in node.plugins.spoken:
        pytest.skip("version: STATUS came with 1.1.0")
    answer = node.plugins.call("STATUS", minimal(node, plugin))
    answer.done()
    assert not answer.out


@pytest.mark.rule("SPEC.md#gc-clean-up-any-stale-resources")
def test_gc_of_nothing(node: Node, plugin: str) -> None:
    """GC succeeds where there is nothing to collect."""
    if "1.1.0" not in node.plugins.spoken:
        pytest.skip("version: GC came with 1.1.0")
    node.plugins.call("GC", minimal(node, plugin) | {"cni.dev/valid-attachments": []}).done()


@pytest.mark.rule("SPEC.md#section-5-result-types")
@pytest.mark.parametrize("version", ["0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_result_in_the_version_asked_for(node: Node, plugin: str, version: str) -> None:
    """A result has the form of the configuration's version, whichever that is, and says which one it is."""
    if version not in node.plugins.spoken:
        pytest.skip(f"version: {version} is not spoken")
    if plugin in CHAINED and version == "0.2.0":
        pytest.skip("version: results of 0.2.0 know no interfaces, which this plugin wants to see")
    place = node.place()
    first = node.on_bridge() | {"cniVersion": version}
    chain = [minimal(node, plugin, cniVersion=version)]
    if plugin in CHAINED:
        chain.insert(0, first)
    result = node.add(place, *chain)
    assert result["cniVersion"] == version
    if plugin == "loopback":
        return
    if version == "0.2.0":
        assert result["ip4"]["ip"].startswith("10.77.0.")
    else:
        (ip,) = result["ips"]
        assert ip.get("version") == ("4" if version < "1" else None)
        assert ip["address"].startswith("10.77.0.")
        assert plugin == "host-local" or {"name", "mac", "sandbox"} <= result["interfaces"][-1].keys()


@pytest.mark.rule("SPEC.md#del-remove-container-from-network-or-un-apply-modifications")
def test_delete_what_never_was(node: Node, plugin: str) -> None:
    """DEL of an attachment that does not exist, in a namespace that does, is no error."""
    place = node.place()
    config = minimal(node, plugin)
    for _time in range(2):
        node.call("DEL", config, place).done()


@pytest.mark.rule("SPEC.md#del-remove-container-from-network-or-un-apply-modifications")
@pytest.mark.parametrize("netns", ["", "/run/netns/gone"], ids=["without", "with a path that is gone"])
def test_delete_without_namespace(node: Node, plugin: str, netns: str) -> None:
    """DEL completes without error when the namespace is gone."""
    given = environment(CNI_NETNS=netns)
    node.plugins.call("DEL", minimal(node, plugin), environment=given).done()


@pytest.mark.rule("SPEC.md#add-add-container-to-network-or-apply-modifications")
def test_namespace_that_is_not_there(node: Node, plugin: str) -> None:
    """ADD into a namespace that is not there fails and leaves nothing; what does nothing inside may not notice."""
    if plugin in {"host-local", "portmap", "firewall", "bandwidth"}:
        pytest.skip("plugin: it does its work outside")
    config = minimal(node, plugin, **({"prevResult": previous(node), "mtu": 1300} if plugin == "tuning" else {}))
    node.plugins.call("ADD", config, environment=environment()).fault()
    assert not node.leases()


@pytest.mark.rule("CONVENTIONS.md#cni_args")
def test_arguments_nobody_knows(node: Node, plugin: str) -> None:
    """CNI_ARGS may hold what a plugin does not know when they say so."""
    place = node.place()
    chain = [minimal(node, plugin)]
    if plugin in CHAINED:
        chain.insert(0, node.on_bridge())
    node.add(place, *chain, args="IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID=1-2-3")


@pytest.mark.rule("SPEC.md#add-add-container-to-network-or-apply-modifications")
def test_result_of_a_chain(node: Node, plugin: str) -> None:
    """A plugin that only modifies hands on what it was given."""
    if plugin not in CHAINED:
        pytest.skip("plugin: it does not follow others")
    place = node.place()
    before = node.add(place, node.on_bridge())
    after = node.add(place, minimal(node, plugin, prevResult=before))
    assert after["ips"] == before["ips"]
    assert {link["name"] for link in before["interfaces"]} <= {link["name"] for link in after["interfaces"]}
    assert after.get("dns", {}) == before.get("dns", {})


@pytest.mark.rule("SPEC.md#add-add-container-to-network-or-apply-modifications")
def test_first_of_a_chain(node: Node, plugin: str) -> None:
    """A plugin that only modifies refuses to be the first."""
    if plugin not in CHAINED:
        pytest.skip("plugin: it does not follow others")
    config = minimal(node, plugin)
    if plugin == "portmap":
        config["runtimeConfig"] = {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}
    node.refused(config, node.place())
