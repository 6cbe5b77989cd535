"""Namespaces, devices and processes, decided without a system call."""

from __future__ import annotations

import os
import stat

import pytest

from runtime.apply.sysctl import sysctl_path
from runtime.errors import SpecFault
from runtime.kernel.namespace import CLONE_NEWNET, CLONE_NEWPID, CLONE_NEWUSER
from runtime.plan.devices import DEFAULT_DEVICES, plan_devices
from runtime.plan.mounts import MountPlan
from runtime.plan.namespaces import plan_namespaces
from runtime.plan.process import DEFAULT_PATH, plan_process
from runtime.spec.model import Capabilities, Device, IdMapping, Linux, Namespace, Process, Rlimit, TimeOffset

MAPPING = (IdMapping(container_id=0, host_id=1000, size=10),)


def test_new_and_joined_namespaces():
    plan = plan_namespaces(
        Linux(namespaces=(Namespace(type="pid"), Namespace(type="network", path="/run/n"), Namespace(type="mount")))
    )
    assert plan.new == ("pid", "mount")
    assert plan.paths == (("network", "/run/n"),)
    assert plan.new_flags & CLONE_NEWPID
    assert not plan.new_flags & CLONE_NEWNET
    assert plan.has("network")
    assert not plan.has("ipc")
    assert not plan.in_user_namespace()


def test_a_user_namespace_has_maps():
    plan = plan_namespaces(Linux(namespaces=(Namespace(type="user"),), uid_mappings=MAPPING, gid_mappings=MAPPING))
    assert plan.new_flags == CLONE_NEWUSER
    assert plan.uid_map == plan.gid_map == "0 1000 10\n"
    with pytest.raises(SpecFault):
        plan_namespaces(Linux(namespaces=(Namespace(type="user"),)))


def test_a_joined_user_namespace_has_no_maps():
    plan = plan_namespaces(Linux(namespaces=(Namespace(type="user", path="/p"),), uid_mappings=MAPPING, gid_mappings=MAPPING))
    assert plan.in_user_namespace()
    assert plan.uid_map == ""
    assert plan.private() == ("user",)


def test_clock_offsets():
    offsets = (TimeOffset(clock="boottime", secs=5, nanosecs=6),)
    plan = plan_namespaces(Linux(namespaces=(Namespace(type="time"),), time_offsets=offsets))
    assert plan.time_offsets == "boottime 5 6\n"
    with pytest.raises(SpecFault):
        plan_namespaces(Linux(time_offsets=offsets))


def test_ptmx_is_always_the_container_s():
    plan = plan_devices((Device(type="c", path="/dev/ptmx", major=5, minor=2),), ())
    assert ("/dev/ptmx", "pts/ptmx") in plan.links
    assert len(plan.nodes) == len(DEFAULT_DEVICES)
    assert "/dev/ptmx" not in dict(plan_devices((Device(type="c", path="/dev/ptmx", major=1, minor=3),), ()).links)


def test_default_devices_can_be_replaced():
    own = Device(type="c", path="/dev/null", major=1, minor=5, file_mode=0o600, uid=3, gid=4)
    plan = plan_devices((own, Device(type="b", path="/dev/disk", major=8, minor=0)), ())
    nodes = {node.path: node for node in plan.nodes}
    assert len(nodes) == len(DEFAULT_DEVICES) + 1
    assert nodes["/dev/null"].device == os.makedev(1, 5)
    assert stat.S_IMODE(nodes["/dev/null"].mode) == 0o600
    assert (nodes["/dev/null"].uid, nodes["/dev/null"].gid) == (3, 4)
    assert stat.S_ISBLK(nodes["/dev/disk"].mode)
    with pytest.raises(SpecFault):
        plan_devices((Device(type="x", path="/dev/x"),), ())


def test_a_bound_dev_is_left_alone():
    assert plan_devices((), (MountPlan(destination="/dev", kind="bind"),)).nodes == ()
    assert plan_devices((), (MountPlan(destination="/dev", kind="new", fstype="tmpfs"),)).nodes


def test_the_last_of_equal_variables_counts():
    plan = plan_process(Process(args=("a",), env=("A=1", "PATH=/x", "B=2", "A=3=4", "E=")))
    assert set(plan.environment) == {"PATH=/x", "B=2", "A=3=4", "E="}
    assert plan.search_path == "/x"
    assert plan_process(Process(args=("a",))).search_path == DEFAULT_PATH


def test_capabilities_are_masks():
    sets = Capabilities(bounding=("CAP_CHOWN", "CAP_KILL"), effective=("CAP_KILL",))
    plan = plan_process(Process(args=("a",), capabilities=sets)).capabilities
    assert (plan.bounding, plan.effective, plan.ambient) == (0b100001, 0b100000, 0)


def test_capabilities_nobody_gets_are_left_out_with_a_word():
    sets = Capabilities(permitted=("CAP_KILL", "CAP_FLY"), ambient=("CAP_KILL", "CAP_FLY"))
    plan = plan_process(Process(args=("a",), capabilities=sets))
    assert plan.capabilities.permitted == 0b100000
    unknown, ambient = plan.cautions
    assert "[CAP_FLY]" in unknown
    assert ambient.startswith("can't raise ambient capability CAP_KILL: ")


def test_limits_and_nothing_to_execute():
    limits = (Rlimit(type="RLIMIT_NOFILE", soft=1, hard=2),)
    assert plan_process(Process(args=("a",), rlimits=limits)).rlimits == ((7, 1, 2),)
    with pytest.raises(SpecFault):
        plan_process(Process(args=("a",), rlimits=(Rlimit(type="RLIMIT_X", soft=1, hard=2),)))
    with pytest.raises(SpecFault):
        plan_process(Process())


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
    ],
)
def test_names_of_kernel_parameters(name, path):
    assert sysctl_path(name) == path
