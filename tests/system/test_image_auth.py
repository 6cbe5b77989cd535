"""Credentials, TLS and mirrors: what a registry gets to see, and what nobody else does."""

from __future__ import annotations

import asyncio
import base64
import ctypes
import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import ClientSession, web

from shim.errors import FailedPrecondition, NotFound, PermissionDenied, Unavailable
from shim.image.registry.auth import Auth, auth_from_cri
from tests.support import images
from tests.support.imagestore import image_store, remains
from tests.support.registry import Registry, free_port

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.system

IMAGE = images.TestImage(layers=(images.files_layer({"a": "1"}),))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    server = Registry(tmp_path_factory.mktemp("registry")).start()
    server.push("app", "1", IMAGE)
    yield server
    server.stop()


def bcrypt(password: str) -> str:
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    hashed = crypt(password.encode(), b"$2y$05$" + b"abcdefghijklmnopqrstuu")
    return str(hashed.decode())


@pytest.fixture(scope="module")
def basic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    server = Registry(tmp_path_factory.mktemp("basic"), users=f"alice:{bcrypt('secret')}\n").start()
    server.credentials = ("alice", "secret")
    server.push("app", "1", IMAGE)
    yield server
    server.stop()


async def test_basic(tmp_path: Path, basic: Registry) -> None:
    reference = f"{basic.host}/app:1"
    async with image_store(tmp_path) as store:
        for auth in (
            None,
            Auth(username="alice", password="wrong"),
            Auth(username="alice", password="secret", server="elsewhere:1"),
        ):
            with pytest.raises(PermissionDenied, match="pull access denied"):
                await store.pull(reference, auth)
        assert await store.pull(reference, Auth(username="alice", password="secret", server=basic.host)) == IMAGE.id
        await store.remove(IMAGE.id)
        packed = base64.b64encode(b"alice:secret").decode()
        assert await store.pull(reference, auth_from_cri(auth=packed, server_address=f"http://{basic.host}/v1/")) == IMAGE.id
        await store.remove(IMAGE.id)
    assert remains(tmp_path) == []


class Front:
    """An HTTP server in front of a registry: handlers may answer, the rest is passed on."""

    def __init__(self, registry: Registry, context: ssl.SSLContext | None = None) -> None:
        self.registry = registry
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.host = ""
        self._context = context
        self._runner: web.AppRunner

    async def start(self) -> Front:
        app = web.Application()
        app.router.add_route("*", "/{rest:.*}", self.handle)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        port = free_port()
        await web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=self._context).start()
        self.host = f"127.0.0.1:{port}"
        return self

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request.method, request.path, dict(request.headers)))
        own = await self.answer(request)
        return own if own is not None else await self.forward(request)

    async def answer(self, _request: web.Request) -> web.StreamResponse | None:
        return None

    async def forward(self, request: web.Request) -> web.StreamResponse:
        headers = {name: request.headers[name] for name in ("Accept", "Range") if name in request.headers}
        url = f"http://{self.registry.host}{request.path_qs}"
        async with (
            ClientSession(auto_decompress=False) as session,
            session.get(url, headers=headers, allow_redirects=False) as reply,
        ):
            kept = {name: reply.headers[name] for name in ("Content-Type", "Content-Range") if name in reply.headers}
            return web.Response(status=reply.status, body=await reply.read(), headers=kept)


class TokenFront(Front):
    """Wants a bearer token, and gives one to alice, to an identity token, and to everybody for the repository `public`."""

    error = 0

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        if request.path == "/token":
            return await self.token(request)
        if request.headers.get("Authorization") in {"Bearer good", "Bearer preset"}:
            return None
        challenge = f'Bearer realm="http://{self.host}/token",service="test, \\"quoted\\"",scope="repository:app:pull"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})

    async def token(self, request: web.Request) -> web.Response:
        if self.error:
            return web.Response(status=self.error)
        if request.method == "POST":
            form = await request.post()
            fits = form["refresh_token"] == "identity" and form["grant_type"] == "refresh_token"
            return web.json_response({"access_token": "good"}) if fits else web.Response(status=400)
        assert request.query["service"] == 'test, "quoted"'
        assert request.query["scope"] == "repository:app:pull"
        alice = "Basic " + base64.b64encode(b"alice:secret").decode()
        return (
            web.json_response({"token": "good"}) if request.headers.get("Authorization") == alice else web.Response(status=401)
        )


@pytest.fixture
async def token(registry: Registry) -> AsyncIterator[TokenFront]:
    server = TokenFront(registry)
    await server.start()
    yield server
    await server.stop()


async def test_token(tmp_path: Path, token: TokenFront) -> None:
    reference = f"{token.host}/app:1"
    good = (
        Auth(username="alice", password="secret"),
        Auth(identity_token="identity"),
        Auth(registry_token="preset"),
    )
    async with image_store(tmp_path) as store:
        for auth in good:
            assert await store.pull(reference, auth) == IMAGE.id
            await store.remove(IMAGE.id)
        for bad in (None, Auth(username="alice", password="no"), Auth(identity_token="no"), Auth(registry_token="no")):
            with pytest.raises(PermissionDenied):
                await store.pull(reference, bad)
        token.error = 503
        with pytest.raises(Unavailable, match=r"^RegistryUnavailable"):
            await store.pull(reference, Auth(username="alice", password="secret"))
    assert remains(tmp_path) == []


class RedirectFront(Front):
    """Sends blobs elsewhere, as registries with object stores behind them do, and asks for basic credentials."""

    elsewhere = ""

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        if not request.headers.get("Authorization", "").startswith("Basic"):
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        if "/blobs/" in request.path and self.elsewhere:
            return web.Response(status=307, headers={"Location": self.elsewhere + request.path})
        return None


class ThiefFront(Front):
    """Asks everybody for credentials."""

    steal = False

    async def answer(self, _request: web.Request) -> web.StreamResponse | None:
        if not self.steal:
            return None
        return web.Response(status=401, headers={"WWW-Authenticate": f'Bearer realm="http://{self.host}/token",service="x"'})


async def test_credentials_stay_at_home(tmp_path: Path, registry: Registry) -> None:
    """CVE-2020-15157: neither a redirect nor the challenge of the host it leads to gets credentials."""
    front, thief = RedirectFront(registry), ThiefFront(registry)
    await front.start()
    await thief.start()
    try:
        front.elsewhere = f"http://{thief.host}"
        auth = Auth(username="alice", password="secret")
        async with image_store(tmp_path) as store:
            assert await store.pull(f"{front.host}/app:1", auth) == IMAGE.id
            await store.remove(IMAGE.id)
            thief.steal = True
            with pytest.raises(PermissionDenied):
                await store.pull(f"{front.host}/app:1", auth)
            for location in ("http://registry.example/x", "file:///etc/passwd", "http://user@127.0.0.1/"):
                front.elsewhere = location
                with pytest.raises((FailedPrecondition, Unavailable)):
                    await store.pull(f"{front.host}/app:1", auth)
        assert thief.seen
        for _method, path, headers in thief.seen:
            assert "Authorization" not in headers
            assert not path.startswith("/token")
    finally:
        await front.stop()
        await thief.stop()
    assert remains(tmp_path) == []


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ca")
    run = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    run += ["-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(run, cwd=folder, check=True, capture_output=True)
    return folder


async def test_tls(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, authority: Path) -> None:
    server = Registry(tmp_path_factory.mktemp("tls"), certificate=authority / "ca.pem", key=authority / "ca.key").start()
    try:
        reference = server.push("app", "1", IMAGE)
        certs = tmp_path / "certs.d" / server.host
        certs.mkdir(parents=True)
        hosts = certs / "hosts.toml"
        async with image_store(tmp_path / "a", registry_config_dirs=(str(tmp_path / "certs.d"),)) as store:
            certs.rename(tmp_path / "aside")
            with pytest.raises(FailedPrecondition, match=r"certificate of 127\.0\.0\.1 is not trusted"):
                await store.pull(reference, None)
            (tmp_path / "aside").rename(certs)
            hosts.write_text(f'server = "https://{server.host}"\nca = "ca.pem"\n')
            with pytest.raises(FailedPrecondition, match="cannot be loaded"):
                await store.pull(reference, None)
            (certs / "ca.pem").write_bytes((authority / "ca.pem").read_bytes())
            assert await store.pull(reference, None) == IMAGE.id
        async with image_store(tmp_path / "b", registry_config_dirs=(str(tmp_path / "certs.d"),)) as store:
            hosts.write_text(f'server = "https://{server.host}"\nskip_verify = true\n')
            assert await store.pull(reference, None) == IMAGE.id
    finally:
        server.stop()


async def test_mirrors(tmp_path: Path, registry: Registry) -> None:
    """Mirrors come first, in order, with their own headers; the registry itself is asked last."""
    front = Front(registry)
    await front.start()
    dead = f"127.0.0.1:{free_port()}"
    certs = tmp_path / "certs.d" / "registry.example"
    certs.mkdir(parents=True)
    try:
        (certs / "hosts.toml").write_text(
            f'server = "http://{dead}"\n'
            f'[host."http://127.0.0.1:{free_port()}"]\ncapabilities = ["pull", "resolve"]\n'
            f'[host."http://{front.host}"]\ncapabilities = ["pull", "resolve"]\n'
            f'[host."http://{front.host}".header]\nx-team = ["blue"]\n'
        )
        async with image_store(tmp_path / "a", registry_config_dirs=(str(tmp_path / "certs.d"),)) as store:
            assert await store.pull("registry.example/app:1", None) == IMAGE.id
            assert store.resolve("registry.example/app:1").repo_digests[0].startswith("registry.example/app@sha256:")
            assert all(headers["x-team"] == "blue" for _method, _path, headers in front.seen)
            (certs / "hosts.toml").write_text(
                f'server = "http://{dead}"\n[host."http://{front.host}"]\ncapabilities = ["pull"]\n'
            )
            with pytest.raises(Unavailable):  # a mirror without "resolve" may not say what a tag means
                await store.pull("registry.example/app:1", None)
            (certs / "hosts.toml").write_text("server = 5")
            with pytest.raises(FailedPrecondition, match=r"hosts\.toml"):
                await store.pull("registry.example/app:1", None)
    finally:
        await front.stop()


async def test_behind_a_mirror_that_has_answered_the_registry_itself_is_not_waited_for(
    tmp_path: Path, registry: Registry
) -> None:
    """Where nothing but a mirror can be reached, what it has not got is told at once, not after all retries of the rest."""
    asked = 0

    def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        writer.close()

    unreachable = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = unreachable.sockets[0].getsockname()[1]
    certs = tmp_path / "certs.d" / "registry.example"
    certs.mkdir(parents=True)
    (certs / "hosts.toml").write_text(
        f'server = "http://127.0.0.1:{port}"\n[host."http://{registry.host}"]\ncapabilities = ["pull", "resolve"]\n'
    )
    async with unreachable, image_store(tmp_path / "a", registry_config_dirs=(str(tmp_path / "certs.d"),)) as store:
        with pytest.raises(NotFound, match=f"not in the registry {registry.host}"):
            await store.pull("registry.example/no-such-app:1", None)
    assert asked <= 4  # two attempts, each of which may find its connection closed and open another


class BrokenFront(Front):
    """Answers manifests from a table."""

    documents: dict[str, tuple[str, bytes]]

    async def answer(self, request: web.Request) -> web.StreamResponse | None:
        kind, body = self.documents[request.path.rpartition("/")[2]]
        return web.Response(body=body, headers={"Content-Type": kind})


async def test_documents_that_are_none(tmp_path: Path, registry: Registry) -> None:
    manifest = images.OCI["manifest"]
    loop = json.dumps(
        {"schemaVersion": 2, "manifests": [{"mediaType": images.OCI["index"], "digest": "sha256:" + "0" * 64, "size": 1}]}
    )
    cases: dict[str, tuple[Any, bytes, str]] = {
        "garbage": (manifest, b"garbage", "not JSON"),
        "list": (manifest, b"[]", "not a JSON object"),
        "deep": (manifest, b"[" * 100_000, "not JSON"),
        "large": (manifest, b" " * 5_000_000, "larger than"),
        "schema1": ("application/vnd.docker.distribution.manifest.v1+prettyjws", b'{"schemaVersion":1}', "schema 1"),
        "config": (manifest, b'{"schemaVersion":2,"config":5,"layers":[]}', "not a descriptor"),
        "layers": (manifest, b'{"schemaVersion":2,"config":{},"layers":5}', "no layers"),
        "digest": (manifest, b'{"schemaVersion":2,"config":{"digest":"md5:1","size":1},"layers":[]}', "digest"),
        "loop": (images.OCI["index"], loop.encode(), "expected sha256"),
        "artifact": (
            "application/json",
            b'{"schemaVersion":2,"mediaType":"application/vnd.cncf.helm"}',
            "unsupported media type",
        ),
        "sha256:" + "0" * 64: (manifest, b"{}", ""),
    }
    front = BrokenFront(registry)
    front.documents = {name: (kind, body) for name, (kind, body, _told) in cases.items()}
    await front.start()
    try:
        async with image_store(tmp_path) as store:
            for name, (_kind, _body, told) in cases.items():
                if told:
                    with pytest.raises(FailedPrecondition, match=told):
                        await store.pull(f"{front.host}/app:{name}", None)
    finally:
        await front.stop()
    assert remains(tmp_path) == []
