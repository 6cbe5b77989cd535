"""Credentials, challenges and hosts.toml."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, strategies

from shim.errors import FailedPrecondition, InvalidArgument
from shim.image.registry.auth import Auth, auth_from_cri, parse_challenges, parse_token
from shim.image.registry.hosts import hosts_for, is_loopback

if TYPE_CHECKING:
    from pathlib import Path


def packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_credentials_of_kubelet() -> None:
    assert auth_from_cri() is None
    assert auth_from_cri(server_address="https://x") is None
    assert auth_from_cri(username="u", password="p") == Auth(username="u", password="p")
    assert auth_from_cri(auth=packed("u:p:q")) == Auth(username="u", password="p:q")
    assert auth_from_cri(auth=packed("u:p").rstrip("=")) == Auth(username="u", password="p")
    assert auth_from_cri(auth=packed("u:p\0\0")) == Auth(username="u", password="p")
    assert auth_from_cri(identity_token="t", server_address="https://index.docker.io/v1/") == Auth(
        identity_token="t", server="registry-1.docker.io"
    )
    given = auth_from_cri(username="u", password="p", server_address="registry.example:5000/v2")
    assert given is not None
    assert given.is_for("registry.example:5000")
    assert not given.is_for("registry.example")


@pytest.mark.parametrize(
    "auth", ["!!!", packed("no colon"), packed(":p"), "x" * 100_000, base64.b64encode(b"\xff:\xff").decode()]
)
def test_malformed_credentials(auth: str) -> None:
    with pytest.raises(InvalidArgument):
        auth_from_cri(auth=auth)


def test_secrets_do_not_show() -> None:
    shown = repr(Auth(username="u", password="hidden", identity_token="hidden", registry_token="hidden"))
    assert "hidden" not in shown


def test_challenges() -> None:
    (bearer,) = parse_challenges(
        ['Bearer realm="https://auth.example/token",service="registry", scope="repository:a/b:pull,push"']
    )
    assert (bearer.scheme, bearer.realm) == ("bearer", "https://auth.example/token")
    assert (bearer.service, bearer.scope) == ("registry", "repository:a/b:pull,push")
    basic, second = parse_challenges(['BASIC realm="a \\"quoted\\", comma", bearer realm=x'])
    assert (basic.scheme, basic.realm, second.scheme, second.realm) == ("basic", 'a "quoted", comma', "bearer", "x")
    assert parse_challenges([""]) == ()
    assert [challenge.scheme for challenge in parse_challenges(["Negotiate", "Basic"])] == ["negotiate", "basic"]


@given(strategies.lists(strategies.text(max_size=200), max_size=5))
def test_challenges_of_anybody(headers: list[str]) -> None:
    assert len(parse_challenges(headers)) <= 8


def test_tokens() -> None:
    assert parse_token(b'{"token":"a"}', "r") == "a"
    assert parse_token(b'{"access_token":"b"}', "r") == "b"
    for bad in (b"", b"[]", b"{}", b'{"token":5}', b'{"token":"a\\r\\nb"}', b"[" * 100_000):
        with pytest.raises(FailedPrecondition):
            parse_token(bad, "r")


def test_hosts_nobody_configured(tmp_path: Path) -> None:
    (hub,) = hosts_for("docker.io", (str(tmp_path),))
    assert hub.url == "https://registry-1.docker.io/v2"
    assert not hub.guess_http
    (local,) = hosts_for("localhost:5000", ())
    assert local.guess_http


def test_hosts_toml(tmp_path: Path) -> None:
    folder = tmp_path / "docker.io"
    folder.mkdir()
    (folder / "hosts.toml").write_text(
        """
        server = "https://docker.io"
        skip_verify = true
        [host."https://mirror.example:5000/proxy"]
          capabilities = ["pull", "resolve"]
          ca = ["a.pem", "/abs/b.pem"]
          client = [["c.cert", "c.key"], ["d.pem"]]
          [host."https://mirror.example:5000/proxy".header]
            x-one = "1"
            x-two = ["2", "3"]
        [host."10.0.0.1"]
          override_path = true
        [host."127.0.0.1:80/v2/"]
        """
    )
    mirror, raw, loop, hub = hosts_for("docker.io", (str(tmp_path / "missing"), str(tmp_path)))
    assert mirror.url == "https://mirror.example:5000/proxy/v2"
    assert mirror.namespace == "docker.io"
    assert mirror.capabilities == {"pull", "resolve"}
    assert mirror.ca == (str(folder / "a.pem"), "/abs/b.pem")
    assert mirror.client == ((str(folder / "c.cert"), str(folder / "c.key")), (str(folder / "d.pem"), ""))
    assert mirror.headers == (("x-one", "1"), ("x-two", "2"), ("x-two", "3"))
    assert raw.url == "https://10.0.0.1"
    assert loop.url == "http://127.0.0.1:80/v2"
    assert (hub.url, hub.skip_verify, hub.namespace) == ("https://registry-1.docker.io/v2", True, "")


def test_hosts_by_escaped_port_default_and_certificates(tmp_path: Path) -> None:
    for name in ("registry.example_5000_", "_default", "certs.example"):
        (tmp_path / name).mkdir()
    (tmp_path / "registry.example_5000_/hosts.toml").write_text('server = "http://registry.example:5000"')
    (tmp_path / "_default/hosts.toml").write_text('[host."https://mirror.example"]')
    (tmp_path / "certs.example/ca.crt").write_text("")
    assert hosts_for("registry.example:5000", (str(tmp_path),))[0].scheme == "http"
    assert [host.host for host in hosts_for("any.example", (str(tmp_path),))] == ["mirror.example", "any.example"]
    assert hosts_for("certs.example", (str(tmp_path),))[0].ca == (str(tmp_path / "certs.example/ca.crt"),)


@pytest.mark.parametrize(
    "text",
    [
        "not toml", "server = 5", 'server = "ftp://x"', 'server = "https://u:p@x"', "host = 5", "[host]\nx = 1",
        '[host."https://x"]\nskip_verify = "yes"', '[host."https://x"]\ncapabilities = ["eat"]', '[host."https://x"]\nca = [1]',
        '[host."https://x"]\nclient = [["a","b","c"]]', '[host."https://x"]\nheader = 5', '[host."https://x"]\nunknown = 1',
    ],
)  # fmt: skip
def test_malformed_hosts_toml(tmp_path: Path, text: str) -> None:
    (tmp_path / "_default").mkdir()
    (tmp_path / "_default/hosts.toml").write_text(text)
    with pytest.raises(FailedPrecondition, match=r"hosts\.toml"):
        hosts_for("x.example", (str(tmp_path),))


def test_loopback() -> None:
    assert all(is_loopback(host) for host in ("localhost", "localhost:5000", "127.0.0.1", "127.9.9.9:1", "[::1]:5000"))
    assert not any(is_loopback(host) for host in ("127.example.com", "localhost.example", "10.0.0.1", "[::2]:1"))
