from __future__ import annotations

import pytest
from google.protobuf import json_format

from shim.container.spec.users import MAX_GROUPS, resolve_user
from shim.errors import InvalidArgument
from shim.gen.runtime.v1 import api_pb2

PASSWD = """root:x:0:0:root:/root:/bin/sh
# comment:x:5:5::/:
alice:x:1000:1001:Alice:/home/alice:/bin/sh
bob:x:1002:1003
broken:x:zero:0::/:
short:x
huge:x:4294967296:0::/:
negative:x:-1:0::/:

nohome:x:1005:1005::
"""
GROUP = """root:x:0:
wheel:x:10:root,alice
alice:x:1001:alice
staff:x:50:alice,bob
odd:x:none:alice
big:x:2147483648:alice
"""


class Files:
    def __init__(self, **files: str | None) -> None:
        self.files = {"/etc/passwd": PASSWD, "/etc/group": GROUP} | {f"/etc/{name}": text for name, text in files.items()}

    def read(self, path: str, *, limit: int) -> bytes | None:
        text = self.files.get(path)
        assert limit > 1 << 16
        return None if text is None else text.encode()


NONE = Files(passwd=None, group=None)


def resolve(image_user="", files=None, **fields):
    security = json_format.ParseDict(fields, api_pb2.LinuxContainerSecurityContext())
    return resolve_user(files or Files(), security, image_user)


def number(value):
    return {"value": value}


@pytest.mark.parametrize(
    ("image", "uid", "gid", "home"),
    [
        ("", 0, 0, "/root"),
        ("root", 0, 0, "/root"),
        ("alice", 1000, 1001, "/home/alice"),
        ("1000", 1000, 1001, "/home/alice"),
        ("1234", 1234, 0, "/"),
        ("alice:staff", 1000, 50, "/home/alice"),
        ("alice:77", 1000, 77, "/home/alice"),
        ("1234:staff", 1234, 50, "/"),
        ("1234:5678", 1234, 5678, "/"),
        ("alice:", 1000, 1001, "/home/alice"),
        (":staff", 0, 50, "/root"),
        ("bob", 1002, 1003, "/"),
        ("nohome", 1005, 1005, "/"),
        ("2147483647", 2147483647, 0, "/"),
        ("+5", 5, 0, "/"),
    ],
)
def test_image_user(image, uid, gid, home):
    user = resolve(image)
    assert (user.uid, user.gid, user.home) == (uid, gid, home)
    assert gid in user.groups


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("nobody", "not in the image's /etc/passwd"),
        ("alice:nogroup", "not in the image's /etc/group"),
        ("a:b:c", "more than one colon"),
        ("2147483648", "outside"),
        ("4294967296", "outside"),
        ("18446744073709551616", "outside"),
        ("-1", "outside"),
        ("1000:4294967296", "outside"),
        ("broken", "not in"),
        ("huge", "not in"),
        ("negative", "not in"),
        ("٣", "not in"),
    ],
)
def test_bad_image_user(image, message):
    with pytest.raises(InvalidArgument, match=message):
        resolve(image)


@pytest.mark.parametrize(
    ("fields", "uid", "gid"),
    [
        ({"runAsUser": number(0)}, 0, 0),
        ({"runAsUser": number(1000)}, 1000, 1001),
        ({"runAsUser": number(1000), "runAsGroup": number(7)}, 1000, 7),
        ({"runAsUsername": "bob"}, 1002, 1003),
        ({"runAsUsername": "bob", "runAsUser": number(5)}, 1002, 1003),
        ({"runAsUsername": "bob", "runAsGroup": number(0)}, 1002, 0),
    ],
)
def test_cri_user_wins_over_the_image(fields, uid, gid):
    user = resolve("alice:staff", **fields)
    assert (user.uid, user.gid) == (uid, gid)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"runAsGroup": number(5)}, "without a user"),
        ({"runAsUser": number(-1)}, "run_as_user -1"),
        ({"runAsUser": number(2**31)}, "run_as_user"),
        ({"runAsUser": number(1), "runAsGroup": number(2**32)}, "run_as_group"),
        ({"supplementalGroups": [2**32]}, "supplemental_groups"),
        ({"runAsUsername": "ghost"}, "ghost"),
    ],
)
def test_bad_cri_user(fields, message):
    with pytest.raises(InvalidArgument, match=message):
        resolve("alice", **fields)


@pytest.mark.parametrize(
    ("image", "fields", "groups"),
    [
        ("", {}, (0, 10)),
        ("alice", {}, (10, 50, 1001)),
        ("1000", {}, (10, 50, 1001)),
        ("1000:77", {}, (10, 50, 77)),
        ("4321", {}, (0,)),
        ("alice", {"supplementalGroups": [5, 10]}, (5, 10, 50, 1001)),
        ("alice", {"supplementalGroups": [5], "supplementalGroupsPolicy": "Strict"}, (5, 1001)),
        ("alice", {"runAsUser": number(1002), "supplementalGroups": [5]}, (5, 50, 1003)),
        ("", {"runAsUsername": "alice", "runAsGroup": number(9)}, (9, 10, 50)),
    ],
)
def test_groups(image, fields, groups):
    assert resolve(image, **fields).groups == groups


def test_image_without_passwd_and_group():
    assert resolve("1000", NONE).groups == (0,)
    assert resolve("", NONE).home == "/"
    assert resolve("1:2", NONE).gid == 2
    with pytest.raises(InvalidArgument, match="passwd"):
        resolve("alice", NONE)
    with pytest.raises(InvalidArgument, match="group"):
        resolve("1:staff", NONE)


def test_a_user_in_too_many_groups():
    group = "".join(f"g{gid}:x:{gid}:alice\n" for gid in range(1, MAX_GROUPS + 2))
    with pytest.raises(InvalidArgument, match="groups"):
        resolve("alice", Files(group=group))


def test_bytes_that_are_no_text_do_not_stop_the_reading():
    class Latin(Files):
        def read(self, path: str, *, limit: int) -> bytes | None:
            return b"caf\xe9:x:7:7::/:\n" + (super().read(path, limit=limit) or b"")

    assert resolve("alice", Latin()).uid == 1000
