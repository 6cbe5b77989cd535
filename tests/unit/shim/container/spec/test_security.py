from __future__ import annotations

import json
from dataclasses import replace

import pytest

from shim.container.spec.build import build, build_spec
from shim.container.spec.capabilities import DEFAULT, KNOWN
from shim.container.spec.host import DeviceNode, HostSources
from shim.container.spec.inputs import SpecSettings
from shim.container.spec.seccomp_default import CLONE_NEW, default_profile
from shim.container.spec.seccomp_profile import LIMIT, convert_profile
from shim.container.spec.security import DefaultProfileMissing
from shim.errors import FailedPrecondition, InvalidArgument


def capabilities(kit, **asked):
    return build(kit.inputs(kit.security(capabilities=asked)))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, set(DEFAULT)),
        ({"addCapabilities": ["NET_ADMIN"]}, {*DEFAULT, "CAP_NET_ADMIN"}),
        ({"addCapabilities": ["net_admin", "CAP_SYS_TIME"]}, {*DEFAULT, "CAP_NET_ADMIN", "CAP_SYS_TIME"}),
        ({"dropCapabilities": ["CHOWN"]}, set(DEFAULT) - {"CAP_CHOWN"}),
        ({"dropCapabilities": ["ALL"]}, set()),
        ({"addCapabilities": ["ALL"]}, set(KNOWN)),
        ({"addCapabilities": ["all"], "dropCapabilities": ["CHOWN"]}, set(KNOWN) - {"CAP_CHOWN"}),
        ({"addCapabilities": ["CHOWN"], "dropCapabilities": ["ALL"]}, {"CAP_CHOWN"}),
        ({"addCapabilities": ["ALL", "CHOWN"], "dropCapabilities": ["ALL"]}, {"CAP_CHOWN"}),
        ({"addCapabilities": ["CHOWN"], "dropCapabilities": ["CHOWN"]}, set(DEFAULT) - {"CAP_CHOWN"}),
    ],
)
def test_capabilities(kit, asked, expected):
    given = capabilities(kit, **asked).config["process"]["capabilities"]
    for kind in ("bounding", "effective", "permitted"):
        assert set(given[kind]) == expected
        assert len(given[kind]) == len(expected)
    assert "inheritable" not in given
    assert "ambient" not in given


def test_ambient_capabilities(kit):
    given = capabilities(kit, addAmbientCapabilities=["NET_ADMIN"], dropCapabilities=["ALL"]).config["process"]["capabilities"]
    assert all(given[kind] == ["CAP_NET_ADMIN"] for kind in ("bounding", "effective", "permitted", "inheritable", "ambient"))


def test_capabilities_beyond_the_daemons_are_noted(kit):
    host = replace(kit.HOST, capabilities=tuple(name for name in KNOWN if name != "CAP_NET_ADMIN"))
    built = build(kit.inputs(kit.security(capabilities={"addCapabilities": ["NET_ADMIN", "FOO"]}), host=host))
    assert set(built.config["process"]["capabilities"]["bounding"]) == set(DEFAULT)
    assert any("CAP_NET_ADMIN" in note for note in built.notes)
    assert any("CAP_FOO is unknown" in note for note in built.notes)


def test_privileged(kit):
    privileged = kit.security(
        privileged=True,
        seccomp={"profileType": "RuntimeDefault"},
        maskedPaths=["/proc/kcore"],
        readonlyPaths=["/proc/sys"],
        capabilities={"dropCapabilities": ["ALL"]},
    )
    fuse = DeviceNode(path="/dev/fuse", kind="c", major=10, minor=229)
    spec = build_spec(kit.inputs(privileged, kit.security(privileged=True), sources=HostSources(host_devices=(fuse,))))
    assert spec["process"]["capabilities"]["bounding"] == list(KNOWN)
    linux = spec["linux"]
    assert not {"seccomp", "maskedPaths", "readonlyPaths"} & linux.keys()
    assert linux["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert [device["path"] for device in linux["devices"]] == ["/dev/fuse"]
    assert {"type": "cgroup"} not in linux["namespaces"]
    options = {mount["destination"]: mount["options"] for mount in spec["mounts"]}
    assert "rw" in options["/sys"]
    assert "rw" in options["/sys/fs/cgroup"]


def test_masked_and_readonly_paths_are_the_cris(kit):
    linux = build_spec(kit.inputs())["linux"]
    assert linux["maskedPaths"] == linux["readonlyPaths"] == []
    linux = build_spec(kit.inputs(kit.security(maskedPaths=["/proc/kcore"], readonlyPaths=["/proc/sys"])))["linux"]
    assert linux["maskedPaths"] == ["/proc/kcore"]
    assert linux["readonlyPaths"] == ["/proc/sys"]


def test_flags(kit):
    spec = build_spec(kit.inputs())
    assert (spec["process"]["noNewPrivileges"], spec["root"]["readonly"]) == (False, False)
    spec = build_spec(kit.inputs(kit.security(noNewPrivs=True, readonlyRootfs=True)))
    assert (spec["process"]["noNewPrivileges"], spec["root"]["readonly"]) == (True, True)


OCI_PROFILE = (
    b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}'
)


@pytest.mark.parametrize(
    ("asked", "unset", "expected"),
    [
        ({}, "", None),
        ({"seccomp": {"profileType": "Unconfined"}}, "", None),
        ({"seccomp": {"profileType": "RuntimeDefault"}}, "", "SCMP_ACT_ERRNO"),
        ({"seccomp": {"profileType": "Localhost", "localhostRef": "/p.json"}}, "", "SCMP_ACT_ALLOW"),
        ({"seccompProfilePath": "runtime/default"}, "", "SCMP_ACT_ERRNO"),
        ({"seccompProfilePath": "docker/default"}, "", "SCMP_ACT_ERRNO"),
        ({"seccompProfilePath": "unconfined"}, "runtime/default", None),
        ({"seccompProfilePath": "localhost//p.json"}, "", "SCMP_ACT_ALLOW"),
        ({"seccomp": {"profileType": "Unconfined"}, "seccompProfilePath": "runtime/default"}, "", None),
        ({}, "runtime/default", "SCMP_ACT_ERRNO"),
    ],
)
def test_seccomp_choice(kit, asked, unset, expected):
    given = kit.inputs(kit.security(**asked), sources=HostSources(seccomp_profile=OCI_PROFILE))
    given = replace(given, settings=replace(given.settings, unset_seccomp_profile=unset))
    linux = build_spec(given)["linux"]
    assert linux.get("seccomp", {}).get("defaultAction") == expected


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"seccomp": {"profileType": "Localhost"}}, "localhost_ref is empty"),
        ({"seccomp": {"profileType": "RuntimeDefault", "localhostRef": "x"}}, "only be set if"),
        ({"seccompProfilePath": "nonsense"}, "nonsense"),
        ({"seccomp": {"profileType": 7}}, "unknown"),
    ],
)
def test_bad_seccomp(kit, asked, message):
    with pytest.raises(InvalidArgument, match=message):
        build(kit.inputs(kit.security(**asked)))


def test_seccomp_is_never_dropped_silently(kit):
    host = replace(kit.HOST, seccomp=False)
    with pytest.raises(FailedPrecondition, match="seccomp"):
        build(kit.inputs(kit.security(seccomp={"profileType": "RuntimeDefault"}), host=host))
    build(kit.inputs(kit.security(seccomp={"profileType": "Unconfined"}), host=host))


def allowed(profile, name):
    """Give the argument conditions of each rule that allows `name`."""
    rules = [rule for rule in profile["syscalls"] if name in rule["names"] and rule["action"] == "SCMP_ACT_ALLOW"]
    return [rule.get("args", []) for rule in rules]


def test_default_profile_denies_what_leaves_the_container():
    profile = default_profile("x86_64", DEFAULT)
    for name in ("mount", "unshare", "bpf", "init_module", "kexec_load", "add_key", "keyctl", "userfaultfd", "io_uring_setup"):
        assert not allowed(profile, name)
    for name in ("read", "execve", "openat2", "statx", "close_range", "futex", "ptrace", "chroot", "arch_prctl", "clone"):
        assert allowed(profile, name), name
    assert allowed(profile, "clone") == [[{"index": 0, "value": CLONE_NEW, "op": "SCMP_CMP_MASKED_EQ", "valueTwo": 0}]]
    assert {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38} in profile["syscalls"]
    families = [condition[0] for condition in allowed(profile, "socket")]
    holds = {"SCMP_CMP_LT": int.__lt__, "SCMP_CMP_EQ": int.__eq__, "SCMP_CMP_GT": int.__gt__}
    reachable = [family for family in range(46) if any(holds[c["op"]](family, c["value"]) for c in families)]
    assert set(range(46)) - set(reachable) == {38, 40}


@pytest.mark.parametrize(
    ("capability", "name"),
    [("CAP_SYS_ADMIN", "mount"), ("CAP_SYS_TIME", "settimeofday"), ("CAP_SYS_MODULE", "init_module"), ("CAP_BPF", "bpf")],
)
def test_default_profile_follows_capabilities(capability, name):
    assert not allowed(default_profile("x86_64", DEFAULT), name)
    assert allowed(default_profile("x86_64", [*DEFAULT, capability]), name) == [[]]


def test_default_profile_of_an_administrator_lets_clone_be():
    profile = default_profile("x86_64", ["CAP_SYS_ADMIN"])
    assert allowed(profile, "clone") == [[]]
    assert allowed(profile, "clone3") == [[]]


def test_default_profile_by_machine():
    assert default_profile("aarch64", ())["architectures"] == ["SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64"]
    assert not allowed(default_profile("aarch64", ()), "arch_prctl")
    assert allowed(default_profile("s390x", ()), "clone")[0][0]["index"] == 1
    assert "architectures" not in default_profile("vax", ())


def convert(kit, profile, bounding=DEFAULT):
    return convert_profile(json.dumps(profile).encode(), kit.HOST, bounding)


def rule(name, **more):
    return {"names": [name], "action": "SCMP_ACT_ALLOW"} | more


def test_docker_profile_is_resolved(kit):
    profile = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "archMap": [
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
        ],
        "syscalls": [
            rule("always", comment="dropped", args=None, includes={}, excludes={}),
            {
                "name": "single",
                "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": 1, "valueTwo": 0, "op": "SCMP_CMP_EQ"}],
            },
            rule("yes_arch", includes={"arches": ["amd64", "x32"]}),
            rule("no_arch", includes={"arches": ["s390"]}),
            rule("yes_cap", includes={"caps": ["CAP_CHOWN"]}),
            rule("no_cap", includes={"caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}),
            rule("yes_kernel", includes={"minKernel": "4.8"}),
            rule("no_kernel", includes={"minKernel": "99.0"}),
            rule("no_excluded_cap", excludes={"caps": ["CAP_CHOWN"]}),
            rule("yes_excluded_cap", excludes={"caps": ["CAP_SYS_ADMIN"]}),
            rule("no_excluded_arch", excludes={"arches": ["amd64"]}),
            rule("no_excluded_kernel", excludes={"minKernel": "4.8"}),
        ],
    }
    result = convert(kit, profile)
    assert result["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert result["defaultErrnoRet"] == 38
    names = [entry["names"][0] for entry in result["syscalls"]]
    assert names == ["always", "single", "yes_arch", "yes_cap", "yes_kernel", "yes_excluded_cap"]
    assert result["syscalls"][0] == {"names": ["always"], "action": "SCMP_ACT_ALLOW"}
    assert result["syscalls"][1]["args"] == [{"index": 0, "value": 1, "valueTwo": 0, "op": "SCMP_CMP_EQ"}]


def test_oci_profile_stays(kit):
    assert convert_profile(OCI_PROFILE, kit.HOST, ()) == json.loads(OCI_PROFILE)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"[" * 100_000, "not JSON"),
        (b"{}", "defaultAction None"),
        (b'{"defaultAction": "EXPLODE"}', "EXPLODE"),
        (b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}}', "no list"),
        (b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [1]}', r"syscalls\[0\]"),
        (b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ALLOW"}]}', "names no system call"),
        (b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["x"]}]}', "action None"),
        (
            b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["x"], "name": "y", "action": "SCMP_ACT_LOG"}]}',
            "both name",
        ),
        (b'{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["A"], "archMap": [{"architecture": "A"}]}', "both arch"),
        (b'{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [1], "action": "SCMP_ACT_LOG"}]}', "list of strings"),
        (b" " * (LIMIT + 1), "longer than"),
    ],
)
def test_bad_profiles(kit, data, message):
    with pytest.raises(InvalidArgument, match=message):
        convert_profile(data, kit.HOST, ())


@pytest.mark.parametrize(
    ("asked", "enabled", "loaded", "expected"),
    [
        ({}, False, (), ""),
        ({}, True, ("wherry-default",), "wherry-default"),
        ({"apparmor": {"profileType": "Unconfined"}}, True, ("wherry-default",), ""),
        ({"apparmor": {"profileType": "Unconfined"}}, False, (), ""),
        ({"apparmor": {"profileType": "RuntimeDefault"}}, True, ("wherry-default",), "wherry-default"),
        ({"apparmor": {"profileType": "Localhost", "localhostRef": "localhost/mine"}}, True, ("mine",), "mine"),
        ({"apparmorProfile": "localhost/mine"}, True, ("mine",), "mine"),
        ({"privileged": True}, True, ("wherry-default",), ""),
        ({"privileged": True, "apparmor": {"profileType": "RuntimeDefault"}}, True, ("wherry-default",), ""),
    ],
)
def test_apparmor(kit, asked, enabled, loaded, expected):
    given = kit.inputs(
        kit.security(**asked),
        host=replace(kit.HOST, apparmor=enabled),
        sources=HostSources(apparmor_profiles=frozenset(loaded)),
    )
    assert build_spec(given)["process"].get("apparmorProfile", "") == expected


@pytest.mark.parametrize("asked", [{}, {"apparmor": {"profileType": "RuntimeDefault"}}])
def test_the_default_apparmor_profile_has_to_be_loaded_first(kit, asked):
    """Once it is known that it cannot be, a container that has not asked for it does without."""
    given = {"host": replace(kit.HOST, apparmor=True)}
    with pytest.raises(DefaultProfileMissing) as missing:
        build(kit.inputs(kit.security(**asked), **given))
    assert missing.value.asked == bool(asked)
    given["settings"] = SpecSettings(apparmor_problem="no parser")
    if asked:
        with pytest.raises(DefaultProfileMissing):
            build(kit.inputs(kit.security(**asked), **given))
        return
    built = build(kit.inputs(kit.security(), **given))
    assert "apparmorProfile" not in built.config["process"]
    assert built.notes == ("no parser; the container runs without a profile",)


@pytest.mark.parametrize(("enabled", "error"), [(False, FailedPrecondition), (True, InvalidArgument)])
def test_apparmor_is_never_dropped_silently(kit, enabled, error):
    asked = kit.security(apparmor={"profileType": "Localhost", "localhostRef": "mine"})
    with pytest.raises(error):
        build(kit.inputs(asked, host=replace(kit.HOST, apparmor=enabled)))


def test_selinux(kit):
    asked = kit.security(selinuxOptions={"type": "spc_t", "level": "s0:c1,c2"})
    ignoring = SpecSettings(ignore_selinux_options=True)
    assert "selinuxLabel" not in build_spec(kit.inputs(asked, settings=ignoring))["process"]
    spec = build_spec(kit.inputs(asked, host=replace(kit.HOST, selinux=True)))
    assert spec["process"]["selinuxLabel"] == "system_u:system_r:spc_t:s0:c1,c2"
    assert spec["linux"]["mountLabel"] == "system_u:object_r:container_file_t:s0:c1,c2"


@pytest.mark.parametrize(
    ("own", "pod", "mls", "level"),
    [
        ({}, {}, True, "s0:c7,c9"),
        ({"type": "t"}, {"level": "s0:c1,c2"}, True, "s0:c1,c2"),
        ({"level": "s0:c3"}, {"level": "s0:c1,c2"}, True, "s0:c3"),
        ({"level": "s0:c3"}, {}, False, ""),
    ],
)
def test_a_container_without_a_level_has_its_pod_s(kit, own, pod, mls, level):
    host = replace(kit.HOST, selinux=True, selinux_mls=mls)
    context = {"linux": {"securityContext": {"selinuxOptions": pod}}}
    given = kit.inputs(kit.security(selinuxOptions=own), context, host=host, settings=SpecSettings(selinux_level="s0:c7,c9"))
    spec = build_spec(given)
    for label in (spec["process"]["selinuxLabel"], spec["linux"]["mountLabel"]):
        assert label.split(":", 3)[3:] == ([level] if level else [])


@pytest.mark.parametrize("part", [{"user": "u"}, {"role": "r"}, {"type": "t"}, {"level": "s0:c1"}, {"level": "s1"}])
def test_selinux_labels_are_never_dropped_silently(kit, part):
    context = {"linux": {"securityContext": {"selinuxOptions": part}}}
    for given in (kit.inputs(kit.security(selinuxOptions=part)), kit.inputs(in_pod=context)):
        with pytest.raises(
            FailedPrecondition, match=rf"selinux_options\.{next(iter(part))} .*set runtime.ignore_selinux_options"
        ):
            build(given)


@pytest.mark.parametrize(
    ("own", "in_pod"), [({}, {}), ({}, {"type": "t"}), (None, {}), ({"level": "s0"}, {}), (None, {"level": "s0"})]
)
def test_selinux_options_that_ask_for_nothing_are_no_error(kit, own, in_pod):
    asked = {} if own is None else kit.security(selinuxOptions=own)
    context = {"linux": {"securityContext": {"selinuxOptions": in_pod}}}
    assert "selinuxLabel" not in build_spec(kit.inputs(asked, context))["process"]


def test_relabelling_is_accepted_without_selinux(kit):
    mount = {"containerPath": "/m", "hostPath": "/h", "selinuxRelabel": True}
    assert any(one["destination"] == "/m" for one in build_spec(kit.inputs({"mounts": [mount]}))["mounts"])
