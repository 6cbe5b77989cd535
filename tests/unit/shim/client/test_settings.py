"""The words of `wherry run` and what they become."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import pytest

from shim.client import output, settings
from shim.client.find import _fitting
from shim.gen.runtime.v1 import api_pb2

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("8080:80", (8080, 80, "", api_pb2.TCP)),
        ("53:53/udp", (53, 53, "", api_pb2.UDP)),
        ("127.0.0.1:1:2/tcp", (1, 2, "127.0.0.1", api_pb2.TCP)),
        ("[::1]:1:2", (1, 2, "::1", api_pb2.TCP)),
    ],
)
def test_port(word: str, expected: tuple[int, int, str, int]) -> None:
    found = settings.port(word)
    assert (found.host_port, found.container_port, found.host_ip, found.protocol) == expected


@pytest.mark.parametrize("word", ["", "80", "a:b", "0:80", "80:65536", "1:2/icmp", "1.2.3.4:80"])
def test_port_refuses(word: str) -> None:
    with pytest.raises(click.BadParameter):
        settings.port(word)


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_OUTSIDE", "x=y")
    assert settings.environment("A=b=c") == api_pb2.KeyValue(key="A", value=b"b=c")
    assert settings.environment("A=") == api_pb2.KeyValue(key="A", value=b"")
    assert settings.environment("FROM_OUTSIDE").value == b"x=y"
    assert settings.environment("A=\udcff").value == b"\xff"  # what Python makes of a byte that is no text
    with pytest.raises(click.BadParameter):
        settings.environment("=x")


def test_volume(tmp_path: Path) -> None:
    mount = settings.volume(f"{tmp_path}:/data:ro,rslave")
    assert (mount.host_path, mount.container_path, mount.readonly) == (str(tmp_path), "/data", True)
    assert mount.propagation == api_pb2.PROPAGATION_HOST_TO_CONTAINER
    for word in (f"{tmp_path}", f"{tmp_path}:data", f"{tmp_path}:/data:xx", f"{tmp_path}/none:/data"):
        with pytest.raises(click.BadParameter):
            settings.volume(word)


@pytest.mark.parametrize(("word", "expected"), [("1", 1), ("64m", 64 << 20), ("1G", 1 << 30), ("2kb", 2048)])
def test_size(word: str, expected: int) -> None:
    assert settings.size(word) == expected


def test_resources() -> None:
    found = settings.resources("", 0.5)
    assert (found.cpu_quota, found.cpu_period, found.memory_limit_in_bytes) == (50_000, 100_000, 0)
    with pytest.raises(click.BadParameter):
        settings.resources("much", 0)


def test_user() -> None:
    context = api_pb2.LinuxContainerSecurityContext()
    settings.apply_user("1000:5", context)
    assert (context.run_as_user.value, context.run_as_group.value) == (1000, 5)
    context = api_pb2.LinuxContainerSecurityContext()
    settings.apply_user("app", context)
    assert context.run_as_username == "app"
    assert not context.HasField("run_as_user")
    with pytest.raises(click.BadParameter):
        settings.apply_user("app:wheel", context)


def test_names_win_over_beginnings_of_ids() -> None:
    pods = [
        api_pb2.PodSandbox(id="abc1", metadata=api_pb2.PodSandboxMetadata(name="web")),
        api_pb2.PodSandbox(id="abd2", metadata=api_pb2.PodSandboxMetadata(name="abc")),
    ]
    assert _fitting(pods, "abc") == [pods[1]]
    assert _fitting(pods, "abc1") == [pods[0]]
    assert _fitting(pods, "ab") == pods
    assert _fitting(pods, "") == []


@pytest.mark.parametrize(("count", "text"), [(0, "0 B"), (999, "999 B"), (2_041_000, "2.0 MB"), (150_000_000, "150 MB")])
def test_sizes_for_people(count: int, text: str) -> None:
    assert output.size(count) == text


def test_ids_for_people() -> None:
    assert output.short("sha256:" + "ab" * 32) == "abababababab"
