from __future__ import annotations

import io
import json
from typing import Any

import pytest

from cni import plugins, skel
from cni.errors import CniFault, Code
from cni.executor import Executor
from cni.skel import Plugin, Request
from cni.types import Interface, Result

GIVEN: list[Request] = []


def _add(request: Request) -> Result:
    GIVEN.append(request)
    return request.prev_result or Result(interfaces=(Interface(name="i", mtu=9),))


def _note(request: Request) -> None:
    GIVEN.append(request)


def _fail(_request: Request) -> None:
    raise OSError(2, "No such file or directory", "/x")


PLUGIN = Plugin(name="test", add=_add, delete=_note, check=_note, gc=_note, status=_fail)
ENVIRON = {"CNI_CONTAINERID": "c", "CNI_NETNS": "/n", "CNI_IFNAME": "eth0", "CNI_PATH": "/bin", "CNI_ARGS": "A=1;B=x=y"}


def _main(command: str, config: Any, **change: str) -> tuple[int, Any]:
    GIVEN.clear()
    environ = {key: value for key, value in (ENVIRON | {"CNI_COMMAND": command} | change).items() if value}
    text = config if isinstance(config, bytes) else json.dumps(config).encode()
    out = io.StringIO()
    status = skel.main(PLUGIN, environ, io.BytesIO(text), out, Executor(()))
    return status, json.loads(out.getvalue()) if out.getvalue() else None


def test_add_answers_in_the_version_asked_for() -> None:
    assert _main("ADD", {"cniVersion": "1.0.0", "name": "n"}) == (
        0,
        {"cniVersion": "1.0.0", "interfaces": [{"name": "i"}], "dns": {}},
    )
    assert _main("ADD", {"cniVersion": "1.1.0", "name": "n"})[1]["interfaces"] == [{"name": "i", "mtu": 9}]
    request = GIVEN[0]
    assert (request.container_id, request.netns, request.ifname, request.network) == ("c", "/n", "eth0", "n")
    assert request.args == {"A": "1", "B": "x=y"}


def test_previous_result_is_read() -> None:
    config = {"cniVersion": "1.1.0", "name": "n", "prevResult": {"interfaces": [{"name": "before"}]}}
    assert _main("ADD", config)[1]["interfaces"] == [{"name": "before"}]
    status, answer = _main("ADD", config | {"prevResult": {"ips": 1}})
    assert (status, answer["code"]) == (1, Code.DECODING_FAILURE)


def test_a_defect_is_an_error_object(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_runner: Any) -> None:
        raise LookupError("lost")

    monkeypatch.setattr(skel, "_dispatch", lambda _plugin, request: broken(request.runner))
    status, answer = _main("ADD", {"cniVersion": "1.1.0", "name": "n"})
    assert (status, answer["code"]) == (1, Code.INTERNAL)
    assert answer["msg"] == "a defect of the plugin test: LookupError: lost"
    assert "test_skel.py:" in answer["details"]


def test_version() -> None:
    status, answer = _main("VERSION", b"")
    assert status == 0
    assert answer["cniVersion"] == answer["supportedVersions"][-1] == "1.1.0"
    assert _main("VERSION", {"cniVersion": "0.4.0"})[1]["cniVersion"] == "0.4.0"


def test_gc_gets_the_valid_ones() -> None:
    config = {"cniVersion": "1.1.0", "name": "n", "cni.dev/valid-attachments": [{"containerID": "c", "ifname": "eth0"}]}
    assert _main("GC", config) == (0, None)
    assert GIVEN[0].valid_attachments == {("c", "eth0")}


def test_fault_of_the_system_is_an_error_object() -> None:
    assert _main("STATUS", {"cniVersion": "1.1.0", "name": "n"}) == (
        1,
        {"cniVersion": "1.1.0", "code": Code.IO_FAILURE, "msg": "/x: No such file or directory"},
    )


@pytest.mark.parametrize(
    ("command", "config", "change", "code"),
    [
        ("", {}, {}, Code.INVALID_ENVIRONMENT),
        ("JUMP", {}, {}, Code.INVALID_ENVIRONMENT),
        ("ADD", {"cniVersion": "1.0.0"}, {"CNI_NETNS": ""}, Code.INVALID_ENVIRONMENT),
        ("DEL", {"cniVersion": "1.0.0"}, {"CNI_CONTAINERID": ""}, Code.INVALID_ENVIRONMENT),
        ("ADD", {"cniVersion": "1.0.0"}, {"CNI_IFNAME": "a/b"}, Code.INVALID_ENVIRONMENT),
        ("ADD", {"cniVersion": "1.0.0"}, {"CNI_CONTAINERID": "../x"}, Code.INVALID_ENVIRONMENT),
        ("ADD", {"cniVersion": "1.0.0", "name": "n"}, {"CNI_ARGS": "novalue"}, Code.INVALID_ENVIRONMENT),
        ("ADD", {"cniVersion": "2.0.0"}, {}, Code.INCOMPATIBLE_VERSION),
        ("CHECK", {"cniVersion": "0.3.1"}, {}, Code.INCOMPATIBLE_VERSION),
        ("GC", {"cniVersion": "1.0.0"}, {}, Code.INCOMPATIBLE_VERSION),
        ("ADD", b"{", {}, Code.DECODING_FAILURE),
        ("ADD", b"[]", {}, Code.DECODING_FAILURE),
        ("ADD", b" " * ((1 << 20) + 1), {}, Code.IO_FAILURE),
        ("ADD", {"cniVersion": 3}, {}, Code.INVALID_CONFIG),
        ("ADD", {"cniVersion": "1.0.0"}, {}, Code.INVALID_CONFIG),
        ("ADD", {"cniVersion": "1.0.0", "name": "../up"}, {}, Code.INVALID_CONFIG),
        ("DEL", {"cniVersion": "1.0.0", "name": "../up"}, {}, Code.INVALID_CONFIG),
        ("GC", {"cniVersion": "1.1.0", "name": "a/b"}, {}, Code.INVALID_CONFIG),
    ],
)
def test_refusals(command: str, config: Any, change: dict[str, str], code: Code) -> None:
    status, answer = _main(command, config, **change)
    assert (status, answer["code"]) == (1, code)
    assert answer["msg"]
    assert GIVEN == []


def test_delete_needs_no_namespace() -> None:
    assert _main("DEL", {"cniVersion": "1.0.0", "name": "n"}, CNI_NETNS="") == (0, None)


def test_every_bundled_plugin_is_complete() -> None:
    for name in plugins.MODULES:
        found = plugins.find(name)
        assert found is not None
        assert found.name == name
    assert plugins.find("dhcp") is None


def test_identifiers() -> None:
    skel.check_identifiers("a" * 64, "eth0")
    with pytest.raises(CniFault):
        skel.check_identifiers("a", "..")
