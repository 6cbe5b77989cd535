from __future__ import annotations

import json
import os

import pytest

from shim.container.spec.build import build_spec
from shim.container.spec.inputs import ResolvedUser
from shim.container.spec.process import clean_path, process_args, process_cwd, process_env
from shim.errors import InvalidArgument


@pytest.mark.parametrize(
    ("command", "args", "entrypoint", "cmd", "expected"),
    [
        ([], [], ["/e"], ["c"], ["/e", "c"]),
        ([], ["a"], ["/e"], ["c"], ["/e", "a"]),
        (["/x"], [], ["/e"], ["c"], ["/x"]),
        (["/x"], ["a"], ["/e"], ["c"], ["/x", "a"]),
        ([], ["a"], [], ["c"], ["a"]),
        ([], [], [], ["c"], ["c"]),
        ([], [], [""], ["c"], ["c"]),
        ([], [], ["/e"], [], ["/e"]),
        ([], [""], [], [], [""]),
    ],
)
def test_args(kit, command, args, entrypoint, cmd, expected):
    image = kit.Image(entrypoint=tuple(entrypoint), cmd=tuple(cmd))
    assert process_args(kit.container(command=command, args=args), image) == expected


@pytest.mark.parametrize("entrypoint", [(), ("",)])
def test_nothing_to_execute(kit, entrypoint):
    with pytest.raises(InvalidArgument, match="no command specified"):
        process_args(kit.container(), kit.Image(entrypoint=entrypoint, cmd=()))


def test_nul_in_args(kit):
    with pytest.raises(InvalidArgument, match="NUL"):
        process_args(kit.container(command=["a\0b"]), kit.Image())


def env(inputs):
    return dict(entry.split("=", 1) for entry in process_env(inputs))


def test_env_layers(kit):
    given = kit.inputs({"tty": True}, image=kit.Image(env=("FOO=image", "BAR=image", "TERM=vt100")))
    given.config.envs.add(key="FOO", value=b"cri")
    given.config.envs.add(key="EMPTY", value=b"")
    assert process_env(given) == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TERM=vt100",
        "HOSTNAME=pod-host",
        "FOO=cri",
        "BAR=image",
        "EMPTY=",
        "HOME=/",
    ]


def test_env_defaults(kit):
    values = env(kit.inputs(in_pod={"hostname": ""}))
    assert values["HOSTNAME"] == "node"
    assert "TERM" not in values
    assert env(kit.inputs({"tty": True}))["TERM"] == "xterm"


@pytest.mark.parametrize(("image", "expected"), [((), "/home/u"), (("HOME=/image",), "/image"), (("HOME=",), "/home/u")])
def test_home(kit, image, expected):
    given = kit.inputs(user=ResolvedUser(home="/home/u"), image=kit.Image(env=image))
    assert env(given)["HOME"] == expected


def test_env_without_equals_removes(kit):
    assert "HOSTNAME" not in env(kit.inputs(image=kit.Image(env=("HOSTNAME",))))


def test_env_bytes_survive_json(kit):
    given = kit.inputs()
    given.config.envs.add(key="RAW", value=b"\xff\xfe ok \xc3\xa9")
    spec = json.loads(json.dumps(build_spec(given)))
    entry = next(entry for entry in spec["process"]["env"] if entry.startswith("RAW="))
    assert os.fsencode(entry) == b"RAW=\xff\xfe ok \xc3\xa9"


@pytest.mark.parametrize(("key", "value"), [("", b"x"), ("A=B", b"x"), ("A\0", b"x"), ("A", b"x\0y")])
def test_bad_env(kit, key, value):
    given = kit.inputs()
    given.config.envs.add(key=key, value=value)
    with pytest.raises(InvalidArgument, match=r"envs\[0\]"):
        process_env(given)


@pytest.mark.parametrize(
    ("cri", "image", "expected"),
    [("", "", "/"), ("", "/app", "/app"), ("/cri", "/app", "/cri"), ("", "app/x", "/app/x"), ("/a/../../b/.", "", "/b")],
)
def test_cwd(kit, cri, image, expected):
    assert process_cwd(kit.container(working_dir=cri), kit.Image(working_dir=image)) == expected


def test_relative_cwd(kit):
    with pytest.raises(InvalidArgument, match="working_dir"):
        process_cwd(kit.container(working_dir="app"), kit.Image())


@pytest.mark.parametrize(
    ("path", "expected"), [("/a//b/", "/a/b"), ("//a", "/a"), ("/../..", "/"), ("/", "/"), ("/a/./b", "/a/b")]
)
def test_clean_path(path, expected):
    assert clean_path(path) == expected
