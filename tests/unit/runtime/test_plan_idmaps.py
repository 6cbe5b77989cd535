"""Which ids a mount shows is decided from the mount, its option words and the container's user namespace."""

from __future__ import annotations

import pytest

from runtime.errors import SpecFault
from runtime.plan.idmaps import IdMapPlan, plan_id_map
from runtime.plan.mounts import plan_mounts
from runtime.spec.model import IdMapping, Linux, Mount, Namespace, Spec

OWN = (IdMapping(container_id=0, host_id=100000, size=65536),)
OTHER = (IdMapping(container_id=5, host_id=7, size=1),)
MADE = Linux(namespaces=(Namespace(type="user"),), uid_mappings=OWN, gid_mappings=OTHER)
JOINED = Linux(namespaces=(Namespace(type="user", path="/proc/1/ns/user"),))


def decide(*options: str, linux: Linux = MADE, uids: tuple[IdMapping, ...] = (), gids: tuple[IdMapping, ...] = ()):
    mount = Mount(destination="/d", source="/s", options=("rbind", *options), uid_mappings=uids, gid_mappings=gids)
    return plan_id_map(mount, linux, "/mounts/0")


def test_nothing_is_mapped_unasked():
    assert decide() is None


def test_the_container_s_maps_are_meant_by_the_bare_word():
    assert decide("idmap") == IdMapPlan(uid_map="0 100000 65536\n", gid_map="5 7 1\n")
    assert decide("ridmap").recursive


def test_the_maps_of_a_joined_namespace_are_the_kernel_s_to_know():
    assert decide("idmap", linux=JOINED) == IdMapPlan()


def test_mappings_alone_ask_for_it_too():
    assert decide(uids=OTHER, gids=OWN, linux=Linux()) == IdMapPlan(uid_map="5 7 1\n", gid_map="0 100000 65536\n")


def test_ranges_in_the_option_count_from_the_file_system_to_the_host():
    found = decide("ridmap=uids=0-1-10#10-11-10;gids=0-3-2")
    assert found == IdMapPlan(uid_map="0 1 10\n10 11 10\n", gid_map="0 3 2\n", recursive=True)


def test_a_range_with_an_at_sign_counts_inside_the_container():
    assert decide("idmap=uids=@1-3-10;gids=0-0-1").uid_map == "1 100003 10\n"


@pytest.mark.parametrize(
    ("options", "linux", "uids", "gids"),
    [
        (("idmap",), Linux(), (), ()),
        ((), MADE, OWN, ()),
        ((), MADE, (), OWN),
        (("idmap=uids=0-1-10",), MADE, (), ()),
        (("idmap=users=0-1-10",), MADE, (), ()),
        (("idmap=uids=0-1;gids=0-1",), MADE, (), ()),
        (("idmap=uids=0-1-0;gids=0-1-1",), MADE, (), ()),
        (("idmap=uids=@0-70000-1;gids=0-1-1",), MADE, (), ()),
    ],
)
def test_what_cannot_be_meant_is_refused(options, linux, uids, gids):
    with pytest.raises(SpecFault) as caught:
        decide(*options, linux=linux, uids=uids, gids=gids)
    assert caught.value.pointer.startswith("/mounts/0/")


def test_only_binds_are_mapped():
    spec = Spec(oci_version="1.3.0", linux=MADE, mounts=(Mount(destination="/d", type="tmpfs", options=("idmap",)),))
    with pytest.raises(SpecFault, match="bind"):
        plan_mounts(spec, "/b")
