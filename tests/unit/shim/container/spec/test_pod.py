"""What a pod's files, kernel parameters and its validation are."""

from __future__ import annotations

import pytest

from shim.container.spec.inputs import HandlerFeatures, SpecSettings
from shim.container.spec.pod_files import LIMIT, hostname_file, hosts_file, resolv_conf
from shim.container.spec.sysctls import normalise, pod_sysctls
from shim.container.spec.validate import validate_pod
from shim.errors import InvalidArgument
from shim.gen.runtime.v1 import api_pb2

QUIET = SpecSettings(unprivileged_ports=False, unprivileged_icmp=False)


def test_hostname(kit):
    assert hostname_file(kit.pod(hostname="web-0"), "node") == b"web-0\n"
    assert hostname_file(kit.pod(hostname="web-0.sub.space.svc."), "node") == b"web-0.sub.space.svc.\n"
    assert hostname_file(kit.pod(hostname="x" * 64), "node") == b"x" * 64 + b"\n"
    assert hostname_file(kit.pod(hostname=""), "node") == b"node\n"


@pytest.mark.parametrize("name", ["a\nb", "-x", ".", "a..", "x" * 64 + ".", "x" * 65, "a b", "a/b", "ü"])
def test_bad_hostnames(kit, name):
    with pytest.raises(InvalidArgument, match="hostname"):
        validate_pod(kit.pod(hostname=name))


def test_hosts():
    assert hosts_file(b"1.2.3.4 x\n") == b"1.2.3.4 x\n"
    assert b"localhost" in hosts_file(None)
    with pytest.raises(InvalidArgument, match="/etc/hosts"):
        hosts_file(b"x" * (LIMIT + 1))


def dns(**lists):
    return api_pb2.DNSConfig(**lists)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, b"nameserver 9.9.9.9\n"),
        (dns(), b""),
        (dns(servers=["10.0.0.10", "fd00::a"]), b"nameserver 10.0.0.10\nnameserver fd00::a\n"),
        (
            dns(servers=["10.0.0.10"], searches=["a.svc", "b.svc"], options=["ndots:5", "edns0"]),
            b"search a.svc b.svc\nnameserver 10.0.0.10\noptions ndots:5 edns0\n",
        ),
    ],
)
def test_resolv_conf(config, expected):
    assert resolv_conf(config, b"nameserver 9.9.9.9\n") == expected


def test_resolv_conf_without_one_on_the_node():
    assert resolv_conf(None, None) == b""


@pytest.mark.parametrize("field", ["servers", "searches", "options"])
@pytest.mark.parametrize("word", ["", "a\nnameserver 6.6.6.6", "a b", "a\0b", "a\tb"])
def test_resolv_conf_is_not_injected(kit, field, word):
    with pytest.raises(InvalidArgument, match=rf"dns_config.{field}\[1\]"):
        resolv_conf(dns(**{field: ["ok", word]}), None)
    with pytest.raises(InvalidArgument, match="dns_config"):
        validate_pod(kit.pod(dnsConfig={field: [word]}))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, {}),
        ({"kernel.shmmax": "1", "fs.mqueue.msg_max": "2"}, {"kernel.shmmax": "1", "fs.mqueue.msg_max": "2"}),
        ({"net/ipv4/ip_forward": "1"}, {"net.ipv4.ip_forward": "1"}),
        ({"net/ipv4/conf/eth0.1/forwarding": "1"}, {"net/ipv4/conf/eth0.1/forwarding": "1"}),
        ({"kernel.sem": "250\t32000 100 128"}, {"kernel.sem": "250\t32000 100 128"}),
    ],
)
def test_sysctls(kit, asked, expected):
    assert pod_sysctls(kit.pod(linux={"sysctls": asked}), QUIET) == expected


def test_sysctl_defaults(kit):
    port, ping = "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range"
    assert pod_sysctls(kit.pod(), SpecSettings()) == {port: "0", ping: "0 2147483647"}
    assert pod_sysctls(kit.pod(linux={"sysctls": {port: "80"}}), SpecSettings())[port] == "80"
    host = kit.security(namespaceOptions={"network": "NODE"})
    assert pod_sysctls(kit.pod(**host), SpecSettings()) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kernel.shm_rmid_forced", "1+kernel.core_pattern=|/evil"),
        ("kernel.shmmax", "1\nkernel.core_pattern=x"),
        ("kernel.core_pattern", "|/evil"),
        ("kernel.shmmax+x", "1"),
        ("kernel.shmmax\n", "1"),
        ("net/../kernel/core_pattern", "x"),
        ("net.ipv4/../../kernel", "x"),
        ("../kernel.shmmax", "1"),
        ("vm.swappiness", "1"),
        ("kernel.shmx", "1"),
        ("net", "1"),
        ("net.", "1"),
        ("", "1"),
    ],
)
def test_bad_sysctls(kit, name, value):
    with pytest.raises(InvalidArgument, match="sysctls"):
        pod_sysctls(kit.pod(linux={"sysctls": {name: value}}), QUIET)


@pytest.mark.parametrize(("options", "name"), [({"network": "NODE"}, "net.core.somaxconn"), ({"ipc": "NODE"}, "kernel.shmmax")])
def test_sysctls_of_the_node(kit, options, name):
    asked = {"linux": {"sysctls": {name: "1"}, "securityContext": {"namespaceOptions": options}}}
    with pytest.raises(InvalidArgument, match="shares that namespace"):
        validate_pod(kit.pod(**asked))


def test_normalise():
    assert normalise("net.ipv4.conf.all.rp_filter") == "net.ipv4.conf.all.rp_filter"
    with pytest.raises(InvalidArgument):
        normalise("net.x/y")


MAPS = {"hostId": 100000, "containerId": 0, "length": 65536}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"metadata": {}}, "metadata"),
        ({"metadata": {"name": "a\nb"}}, "metadata.name"),
        ({"logDirectory": "relative"}, "log_directory"),
        ({"portMappings": [{"containerPort": 70000}]}, r"port_mappings\[0\].container_port"),
        ({"portMappings": [{"containerPort": 80, "hostPort": -1}]}, r"port_mappings\[0\].host_port"),
        ({"portMappings": [{"hostPort": 80}]}, r"port_mappings\[0\].container_port is 0"),
        ({"portMappings": [{"containerPort": port, "hostPort": 8080} for port in (80, 81)]}, "8080 is mapped already"),
        ({"portMappings": [{"protocol": 9}]}, "protocol 9"),
        ({"portMappings": [{"hostIp": "localhost"}]}, "host_ip"),
        ({"linux": {"cgroupParent": "/a/../b"}}, "cgroup_parent"),
    ],
)
def test_bad_pods(kit, fields, message):
    with pytest.raises(InvalidArgument, match=message):
        validate_pod(kit.pod(**fields))


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"namespaceOptions": {"network": "CONTAINER"}}, "network CONTAINER"),
        ({"namespaceOptions": {"ipc": "TARGET"}}, "ipc TARGET"),
        ({"namespaceOptions": {"pid": "TARGET"}}, "pid TARGET"),
        ({"namespaceOptions": {"pid": 9}}, "pid 9"),
        ({"namespaceOptions": {"targetId": "x"}}, "target_id"),
        ({"namespaceOptions": {"usernsOptions": {"mode": "POD"}}}, "needs mappings"),
        ({"namespaceOptions": {"usernsOptions": {"mode": "CONTAINER"}}}, "CONTAINER"),
        ({"namespaceOptions": {"usernsOptions": {"mode": "NODE", "uids": [MAPS]}}}, "NODE"),
        ({"namespaceOptions": {"usernsOptions": {"mode": "POD", "uids": [MAPS, MAPS], "gids": [MAPS]}}}, "one is supported"),
        ({"namespaceOptions": {"usernsOptions": {"mode": "POD", "uids": [MAPS | {"length": 0}], "gids": [MAPS]}}}, "uids"),
        ({"namespaceOptions": {"pid": "NODE", "usernsOptions": {"mode": "POD", "uids": [MAPS], "gids": [MAPS]}}}, "pid NODE"),
        ({"namespaceOptions": {"ipc": "NODE", "usernsOptions": {"mode": "POD", "uids": [MAPS], "gids": [MAPS]}}}, "ipc NODE"),
        ({"runAsUser": {"value": -1}}, "run_as_user"),
        ({"runAsGroup": {"value": 1}}, "without a user"),
        ({"supplementalGroups": [2**40]}, "supplemental_groups"),
        ({"supplementalGroupsPolicy": 5}, "supplemental_groups_policy"),
        ({"seccomp": {"profileType": "Localhost"}}, "localhost_ref"),
    ],
)
def test_bad_pod_security(kit, context, message):
    with pytest.raises(InvalidArgument, match=message):
        validate_pod(kit.pod(**kit.security(**context)))


@pytest.mark.parametrize(
    "context",
    [
        {},
        {"namespaceOptions": {"network": "NODE", "pid": "NODE", "ipc": "NODE"}, "privileged": True},
        {"namespaceOptions": {"pid": "CONTAINER", "usernsOptions": {"mode": "NODE"}}},
        {"namespaceOptions": {"usernsOptions": {"mode": "POD", "uids": [MAPS], "gids": [MAPS]}}},
        {"runAsUser": {"value": 0}, "runAsGroup": {"value": 0}, "supplementalGroups": [0, 2**31 - 1]},
    ],
)
def test_good_pods(kit, context):
    validate_pod(kit.pod(**kit.security(**context)))


def test_a_handler_without_user_namespaces(kit):
    maps = {"usernsOptions": {"mode": "POD", "uids": [MAPS], "gids": [MAPS]}}
    pod = kit.pod(**kit.security(namespaceOptions=maps))
    validate_pod(pod, HandlerFeatures(user_namespaces=True))
    with pytest.raises(InvalidArgument, match="runtime handler lacks"):
        validate_pod(pod, HandlerFeatures())
    validate_pod(kit.pod(), HandlerFeatures())
