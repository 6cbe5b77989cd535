"""The names of a uts namespace."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conformance.oci.support.case import Case

pytestmark = pytest.mark.rule("config.md#hostname")
DOMAIN = "cat /proc/sys/kernel/domainname"


def test_hostname(case: Case) -> None:
    """The host name is the document's."""
    case.config["hostname"] = "ferry"
    assert case.shell("hostname; uname -n") == "ferry\nferry"


def test_hosts_own_name(case: Case) -> None:
    """The host keeps its name."""
    before = os.uname().nodename
    case.config["hostname"] = "ferry"
    case.shell("true")
    assert os.uname().nodename == before


def test_without(case: Case) -> None:
    """Without a hostname the name is the host's."""
    del case.config["hostname"]
    assert case.shell("hostname") == os.uname().nodename


def test_long(case: Case) -> None:
    """A name may have 64 bytes."""
    case.config["hostname"] = "n" * 64
    assert case.shell("hostname") == "n" * 64


def test_too_long(case: Case) -> None:
    """A name of 65 bytes is an error."""
    case.config["hostname"] = "n" * 65
    case.refused("true")


def test_without_namespace(case: Case) -> None:
    """A hostname without a uts namespace would be the host's: it is an error."""
    before = os.uname().nodename
    case.drop_namespace("uts")
    case.config["hostname"] = before
    case.refused("true")
    assert os.uname().nodename == before


def test_before_hooks(case: Case) -> None:
    """A created container has its name already."""
    case.config["hostname"] = "ferry"
    case.create("true")
    case.config["hostname"] = "other"
    assert case.execute("hostname") == "ferry"


@pytest.mark.rule("config.md#domainname")
def test_domainname(case: Case) -> None:
    """The NIS domain name is the document's."""
    case.config["domainname"] = "harbour.example"
    assert case.shell(DOMAIN) == "harbour.example"


@pytest.mark.rule("config.md#domainname")
def test_domainname_without_namespace(case: Case) -> None:
    """A domain name without a uts namespace is an error."""
    case.drop_namespace("uts")
    del case.config["hostname"]
    case.config["domainname"] = "harbour.example"
    case.refused("true")


@pytest.mark.rule("config.md#domainname")
def test_domainname_alone(case: Case) -> None:
    """A domain name needs no host name beside it."""
    del case.config["hostname"]
    case.config["domainname"] = "harbour.example"
    assert case.shell(f"hostname; {DOMAIN}") == f"{os.uname().nodename}\nharbour.example"
