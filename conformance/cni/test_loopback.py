"""loopback: the link lo of a namespace (https://www.cni.dev/plugins/current/main/)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conformance.cni.support.node import Node
    from conformance.cni.support.pod import Place

pytestmark = pytest.mark.rule("https://www.cni.dev/plugins/current/main/")


def is_up(place: Place) -> bool:
    return "UP" in place.links()["lo"]["flags"]


def test_add_and_delete(node: Node) -> None:
    """ADD brings lo up and says so, DEL brings it down."""
    place = node.place()
    place.run("ip", "link", "set", "lo", "down")
    result = node.add(place, node.config("loopback"), ifname="lo")
    assert is_up(place)
    (link,) = result["interfaces"]
    assert (link["name"], link["sandbox"]) == ("lo", place.path)
    assert "127.0.0.1/8" in {ip["address"] for ip in result["ips"]}
    node.delete(place)
    assert not is_up(place)


def test_check(node: Node) -> None:
    """CHECK is not content when lo is down."""
    place = node.place()
    node.add(place, node.config("loopback"), ifname="lo")
    (answer,) = node.check(place)
    answer.done()
    place.run("ip", "link", "set", "lo", "down")
    (answer,) = node.check(place)
    answer.fault()
