from __future__ import annotations

import pytest

from shim.container.spec.validate import validate_container
from shim.errors import InvalidArgument

MOUNT = {"containerPath": "/m", "hostPath": "/h"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metadata": {}}, "metadata"),
        ({"image": {}}, "image.image"),
        ({"logPath": "../x"}, "log_path"),
        ({"stopSignal": 99}, "stop_signal 99"),
        ({"mounts": [MOUNT | {"hostPath": ""}]}, r"mounts\[0\].host_path"),
        ({"mounts": [MOUNT, MOUNT | {"hostPath": "rel"}]}, r"mounts\[1\].host_path"),
        ({"mounts": [MOUNT | {"propagation": 7}]}, "propagation 7"),
        ({"mounts": [MOUNT | {"containerPath": "x"}]}, "container_path"),
        ({"mounts": [MOUNT | {"uidMappings": [{"length": 0}]}]}, "uidMappings"),
        ({"devices": [{"hostPath": "/dev/null", "permissions": "q"}]}, "permissions"),
    ],
)
def test_bad_containers(kit, fields, message):
    with pytest.raises(InvalidArgument, match=message):
        validate_container(kit.container(**fields), kit.pod(logDirectory="/var/log"))


IMAGE = {"containerPath": "/v", "readonly": True, "image": {"image": "x"}}


@pytest.mark.parametrize(
    ("mount", "message"),
    [
        (MOUNT | {"image": {"image": "x"}}, "^ImageVolumeMountFailed.*host_path"),
        (IMAGE | {"readonly": False}, "^ImageVolumeMountFailed.*readonly must be true"),
        (IMAGE | {"image": {}}, "^ImageVolumeMountFailed.*image is empty"),
        (IMAGE | {"imageSubPath": "/a"}, "^ImageVolumeMountFailed.*image_sub_path '/a'"),
        (IMAGE | {"imageSubPath": "a/../../b"}, "^ImageVolumeMountFailed.*image_sub_path"),
        (MOUNT | {"imageSubPath": "a"}, "image_sub_path is set, and image is not"),
        (MOUNT | {"mountOptions": ["noexec", "rw"]}, "mount_options has 'rw'"),
        (MOUNT | {"mountOptions": ["remount,exec"]}, "mount_options has"),
    ],
)
def test_mounts_that_cannot_be(kit, mount, message):
    with pytest.raises(InvalidArgument, match=message):
        validate_container(kit.container(mounts=[mount]), kit.pod(logDirectory="/var/log"))


@pytest.mark.parametrize("mount", [IMAGE, IMAGE | {"imageSubPath": "a/b"}, MOUNT | {"mountOptions": ["noexec", "rnosuid"]}])
def test_mounts_that_can_be(kit, mount):
    validate_container(kit.container(mounts=[mount]), kit.pod(logDirectory="/var/log"))


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"privileged": True}, "no privileged container allowed"),
        ({"runAsUsername": "a:b"}, "run_as_username"),
        ({"runAsUser": {"value": 2**31}}, "run_as_user"),
        ({"runAsGroup": {"value": 5}}, "without a user"),
        ({"supplementalGroups": [-1]}, "supplemental_groups"),
        ({"supplementalGroupsPolicy": 3}, "supplemental_groups_policy"),
        ({"apparmor": {"profileType": "Localhost"}}, "localhost_ref"),
        ({"maskedPaths": ["proc/kcore"]}, "masked_paths"),
        ({"selinuxOptions": {"user": "a:b"}}, "selinux_options.user 'a:b'"),
        ({"selinuxOptions": {"type": "t t"}}, "selinux_options.type"),
        ({"selinuxOptions": {"level": "high"}}, "selinux_options.level 'high'"),
        ({"selinuxOptions": {"level": "s0:c1,"}}, "selinux_options.level"),
        ({"readonlyPaths": ["x"]}, "readonly_paths"),
    ],
)
def test_bad_security(kit, context, message):
    with pytest.raises(InvalidArgument, match=message):
        validate_container(kit.container(**kit.security(**context)), kit.pod())


@pytest.mark.parametrize("level", ["", "s0", "s0-s15", "s0:c1,c2", "s0-s0:c0.c1023", "s0:c1.c3-s1:c1.c3,c7"])
def test_levels_of_selinux(kit, level):
    label = {"user": "system_u", "role": "system_r", "type": "container_t", "level": level}
    validate_container(kit.container(**kit.security(selinuxOptions=label)), kit.pod())


MAPS = {"hostId": 100000, "containerId": 0, "length": 65536}
USERNS = {"usernsOptions": {"mode": "POD", "uids": [MAPS], "gids": [MAPS]}}


@pytest.mark.parametrize(
    ("own", "pod", "message"),
    [
        ({"network": "NODE"}, {}, "network is NODE for the container, and POD"),
        ({"network": "CONTAINER"}, {}, "network CONTAINER"),
        ({"ipc": "NODE"}, {}, "ipc is NODE"),
        ({"pid": "NODE"}, {"pid": "CONTAINER"}, "pid is NODE"),
        ({"pid": "POD"}, {"pid": "CONTAINER"}, "pid is POD"),
        ({"pid": "TARGET"}, {}, "target_id"),
        ({"targetId": "x"}, {}, "target_id"),
        ({"pid": 8}, {}, "pid 8"),
        (USERNS, {}, "userns_options"),
        ({}, USERNS, "userns_options"),
    ],
)
def test_contradictions_with_the_pod(kit, own, pod, message):
    config = kit.container(**kit.security(namespaceOptions=own))
    with pytest.raises(InvalidArgument, match=message):
        validate_container(config, kit.pod(**kit.security(namespaceOptions=pod)))


@pytest.mark.parametrize(
    ("own", "pod"),
    [
        ({}, {}),
        ({}, {"network": "NODE", "ipc": "NODE", "pid": "NODE"}),
        ({"network": "NODE", "ipc": "NODE", "pid": "NODE"}, {"network": "NODE", "ipc": "NODE", "pid": "NODE"}),
        ({"pid": "CONTAINER"}, {}),
        ({"pid": "TARGET", "targetId": "x"}, {"pid": "CONTAINER"}),
        (USERNS, USERNS),
        ({"usernsOptions": {"mode": "NODE"}}, {}),
    ],
)
def test_agreements_with_the_pod(kit, own, pod):
    validate_container(kit.container(**kit.security(namespaceOptions=own)), kit.pod(**kit.security(namespaceOptions=pod)))


def test_without_options_a_container_follows_its_pod(kit):
    validate_container(kit.container(), kit.pod(**kit.security(namespaceOptions={"pid": "CONTAINER", **USERNS})))
