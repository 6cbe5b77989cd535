"""HTTP for registries: the one place that knows aiohttp. Import it when the first image is pulled; it costs 15 MB.

Redirects are followed here and not by aiohttp, because credentials and a registry's own headers must not follow them to
another host (CVE-2020-15157 and its kin), and https must not become http.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from shim.errors import FailedPrecondition
from shim.image.registry.hosts import Host, is_loopback

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from shim.image.config import ImageConfig

MAX_REDIRECTS = 10
BUFFER = 512 * 1024
PACE = 1024 * 1024
"""Bytes in which a body's pace is measured."""
USER_AGENT = "wherry"
_REDIRECTS = frozenset((301, 302, 303, 307, 308))


class ConnectionFailed(Exception):  # noqa: N818 - it says what happened
    """The server could not be reached, stalled, or cut the connection: trying again may help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request: GET, or POST when there is a form (which is never redirected)."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    """Headers that only the addressed host may see."""
    form: dict[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response whose body is still to be read; always close it."""

    response: aiohttp.ClientResponse
    foreign: bool
    """It came from another host than the registry's, after a redirect."""
    status: int = 0
    challenges: list[str] = field(default_factory=list)
    slow_timeout: float = 0.0
    """Seconds that each PACE bytes of the body may take; 0: for ever."""

    def header(self, name: str) -> str:
        """Give one header or ""."""
        return str(self.response.headers.get(name, ""))

    async def body(self, limit: int, what: str) -> bytes:
        """Read the whole body; raise FailedPrecondition beyond `limit` bytes, ConnectionFailed when it is cut."""
        data = bytearray()
        async for chunk in self.chunks():
            data += chunk
            if len(data) > limit:
                raise FailedPrecondition(f"{what} is larger than {limit} bytes")
        return bytes(data)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give the body as it comes; raise ConnectionFailed when it stalls, trickles or is cut."""
        loop = asyncio.get_running_loop()
        begun, counted = loop.time(), 0
        try:
            async for chunk in self.response.content.iter_any():
                yield chunk
                counted += len(chunk)
                now = loop.time()
                if counted >= PACE:
                    begun, counted = now, 0
                elif self.slow_timeout and now - begun > self.slow_timeout:
                    raise ConnectionFailed(f"only {counted} bytes came in {self.slow_timeout:g} s")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ConnectionFailed(_told(error)) from error

    def close(self) -> None:
        """Give the connection back, or drop it when the body was not read."""
        self.response.release()
        if not self.response.content.is_eof():
            self.response.close()


class Transport:
    """Connections to registries, shared by all pulls."""

    def __init__(self, config: ImageConfig) -> None:
        self._config = config
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[object, ssl.SSLContext] = {}
        self._plain: set[str] = set()

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(self, host: Host, ask: Ask) -> Answer:
        """Send a request to `host` and follow redirects.

        Raises ConnectionFailed, FailedPrecondition (redirects in a circle, TLS that cannot be trusted).
        """
        target = URL(ask.url, encoded=True)
        if host.guess_http and host.host in self._plain:
            target = target.with_scheme("http")
        home, secrets = target.origin(), ask.secrets
        for _ in range(MAX_REDIRECTS):
            foreign = target.origin() != home
            response = await self._send(target, host, ask, secrets)
            if response is None:  # it does not speak TLS
                self._plain.add(host.host)
                target = target.with_scheme("http")
                home = target.origin()
                continue
            location = response.headers.get("Location", "")
            if response.status not in _REDIRECTS or not location or ask.form is not None:
                challenges = response.headers.getall("WWW-Authenticate", [])
                return Answer(
                    response=response,
                    foreign=foreign,
                    status=response.status,
                    challenges=challenges,
                    slow_timeout=self._config.slow_timeout,
                )
            response.close()
            target = self._redirected(target, location, home)
            if target.origin() != home:  # gone for good, even when the next hop leads back
                secrets = {}
        raise FailedPrecondition(f"{host.host} redirects more than {MAX_REDIRECTS} times")

    @staticmethod
    def _redirected(target: URL, location: str, home: URL) -> URL:
        try:
            following = target.join(URL(location, encoded=True))
        except ValueError as error:
            raise FailedPrecondition(f"{home.host} redirects to a malformed address") from error
        if following.scheme not in {"http", "https"} or not following.host or following.user:
            raise FailedPrecondition(f"{home.host} redirects to an address that is not plain http or https")
        if following.scheme == "http" and target.scheme == "https" and not is_loopback(following.authority):
            raise FailedPrecondition(f"{home.host} redirects from https to http ({following.host}): refused")
        return following

    async def _send(self, target: URL, host: Host, ask: Ask, secrets: dict[str, str]) -> aiohttp.ClientResponse | None:
        own = target.authority == host.host
        try:
            return await self._opened().request(
                "GET" if ask.form is None else "POST",
                target,
                headers={"User-Agent": USER_AGENT, **ask.headers, **secrets},
                data=ask.form,
                allow_redirects=False,
                ssl=self._context(host if own else replace(host, client=())),
                proxy=_proxy(target),
            )
        except aiohttp.ClientConnectorCertificateError as error:
            raise FailedPrecondition(f"the certificate of {target.host} is not trusted: {error.certificate_error}") from error
        except aiohttp.InvalidURL as error:
            raise FailedPrecondition(f"{host.host} cannot be asked: {target.host} is not an address") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if own and host.guess_http and target.scheme == "https" and not _refused(error):
                return None
            raise ConnectionFailed(f"{target.host}: {_told(error)}") from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            config = self._config
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=15),
                timeout=aiohttp.ClientTimeout(
                    total=None,
                    connect=config.connect_timeout,
                    sock_connect=config.connect_timeout,
                    sock_read=config.stall_timeout,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                read_bufsize=BUFFER,
            )
        return self._session

    def _context(self, host: Host) -> ssl.SSLContext:
        key = (host.ca, host.client, host.skip_verify)
        context = self._contexts.get(key)
        if context is None:
            context = self._contexts[key] = _make_context(host)
        return context


def _make_context(host: Host) -> ssl.SSLContext:
    context = ssl.create_default_context()
    try:
        for path in host.ca:
            context.load_verify_locations(cafile=path)
        for certificate, key in host.client:
            context.load_cert_chain(certificate, key or None)
    except (OSError, ssl.SSLError) as error:
        raise FailedPrecondition(f"a certificate configured for {host.host} cannot be loaded: {error}") from error
    if host.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _proxy(target: URL) -> str | None:
    """Give the proxy the environment names; netrc, which aiohttp would read too, stays unread."""
    if target.host is None or is_loopback(target.authority) or proxy_bypass(target.host):
        return None
    return getproxies().get(target.scheme)


def _refused(error: BaseException) -> bool:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return isinstance(error, TimeoutError | aiohttp.ClientConnectorDNSError) or isinstance(cause, ConnectionRefusedError)


def _told(error: BaseException) -> str:
    if isinstance(error, aiohttp.SocketTimeoutError):
        return "no bytes came for too long"
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        return "it did not answer in time"
    if isinstance(error, aiohttp.ClientConnectorError):  # its own text shows objects of Python
        return f"no connection to port {error.port}: {(error.os_error.strerror or 'no address').lower()}"
    return str(error) or type(error).__name__
