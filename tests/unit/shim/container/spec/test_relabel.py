"""Which directories of the host get a container's label."""

from dataclasses import replace

import pytest

from shim.container.spec.host import HostSources, MountSource
from shim.container.spec.relabel import relabelling
from shim.errors import InvalidArgument

LABEL = "system_u:object_r:container_file_t:s0:c1"


def inputs(kit, *mounts, selinux=True, shm="/run/p/shm", **security):
    asked = kit.security(selinuxOptions={"level": "s0:c1"} | security.pop("options", {}), **security)
    asked["mounts"] = [{"containerPath": "/m", "hostPath": path, "selinuxRelabel": wanted} for path, wanted in mounts]
    given = kit.inputs(asked, host=replace(kit.HOST, selinux=selinux))
    files = replace(given.pod_files, hostname="", hosts="", resolv_conf="", shm=shm)
    sources = HostSources(mounts=tuple(MountSource(path=path) for path, _ in mounts))
    return replace(given, pod_files=files, sources=sources)


def test_what_asks_and_what_is_the_pod_s_own(kit):
    found = relabelling(replace(inputs(kit, ("/data", True), ("/other", False)), image_volumes={"/v": "/var/lib/wherry/v"}))
    assert found.label == LABEL
    assert found.trees == {"/run/p/shm": "", "/var/lib/wherry/v": "", "/data": "mounts[0].selinux_relabel"}


def test_the_node_s_own_shared_memory_is_left_alone(kit):
    assert not relabelling(inputs(kit, shm="/dev/shm")).trees


@pytest.mark.parametrize("place", ["/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/shm"])
def test_a_volume_in_the_place_of_a_pod_s_file_keeps_its_label(kit, place):
    """CVE-2021-43816: what is mounted where the runtime's own file would be is the host's, and is relabelled if asked for."""
    given = inputs(kit, ("/srv/host", False))
    given.config.mounts[0].container_path = place
    assert "/srv/host" not in relabelling(given).trees


@pytest.mark.parametrize("changes", [{"privileged": True}, {"options": {"type": "spc_t"}}])
def test_a_container_that_is_not_confined_takes_no_label_away(kit, changes):
    assert not relabelling(inputs(kit, ("/data", True), **changes)).trees


def test_without_selinux_nothing_is_done(kit):
    given = replace(inputs(kit, ("/etc", True)), settings=replace(kit.inputs().settings, ignore_selinux_options=True))
    assert not relabelling(replace(given, host=kit.HOST)).trees


@pytest.mark.parametrize("path", ["/", "/etc", "/etc/ssl", "/usr", "/usr/lib", "/var/lib", "/proc/1", "/home", "/tmp"])
def test_the_system_s_own_directories_are_refused_by_name(kit, path):
    """CVE-2021-43816: nobody has the host's own directories relabelled."""
    with pytest.raises(InvalidArgument, match=rf"mounts\[1\]\.selinux_relabel: {path} is the system's own"):
        relabelling(inputs(kit, ("/etc", False), (path, True)))
