"""Fetch manifests and blobs of one repository: hosts in order, credentials on demand, bounded retries, resume.

What kubelet shows a user begins with a word it knows: "RegistryUnavailable: …" when nothing could be reached or what
answered was broken; a refusal and a missing image are told as such.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from shim.errors import FailedPrecondition, NotFound, PermissionDenied, Unavailable, WherryError
from shim.image.oci import ACCEPT, MAX_MANIFEST, sha256, verify
from shim.image.registry.auth import MAX_TOKEN_ANSWER, Auth, Challenge, parse_challenges, parse_token
from shim.image.registry.hosts import Host, is_loopback
from shim.image.registry.http import Answer, Ask, ConnectionFailed, Transport

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from shim.image.config import ImageConfig
    from shim.image.oci import Descriptor
    from shim.image.reference import Reference

T = TypeVar("T")

MAX_ERROR_BODY = 16 * 1024
MAX_DELAY = 5.0
PROGRESS = 1024 * 1024
"""Bytes after which a broken transfer counts as a new one (within twenty times the retries)."""


class Repository:
    """One repository as one user sees it."""

    def __init__(
        self, reference: Reference, hosts: tuple[Host, ...], auth: Auth | None, transport: Transport, config: ImageConfig
    ) -> None:
        self._reference = reference
        self._hosts = hosts
        self._auth = auth
        self._transport = transport
        self._config = config
        self._authorization: dict[str, str] = {}
        self._logins: dict[str, asyncio.Lock] = {}

    async def manifest(self, target: str) -> tuple[bytes, str, str]:
        """Give (bytes, content type, digest) of a manifest or index by tag or digest.

        Raises NotFound, PermissionDenied, Unavailable ("RegistryUnavailable: …"), FailedPrecondition (wrong digest, too large).
        """
        by_digest = ":" in target
        what = f"{self._reference.name}{'@' if by_digest else ':'}{target}"
        capability = "pull" if by_digest else "resolve"

        async def fetch(host: Host) -> tuple[bytes, str, str]:
            answer = await self._get(host, f"/manifests/{target}", {"Accept": ACCEPT}, what)
            try:
                data = await answer.body(MAX_MANIFEST, f"the manifest of {what}")
                content_type = answer.header("Content-Type")
            finally:
                answer.close()
            if by_digest:
                verify(target, data, f"the manifest of {what}")
            return data, content_type, target if by_digest else sha256(data)

        return await self._any_host(capability, what, fetch)

    async def small_blob(self, descriptor: Descriptor, limit: int, what: str) -> bytes:
        """Give a whole blob of at most `limit` bytes, verified; raises what `manifest` raises."""
        if descriptor.size > limit:
            raise FailedPrecondition(f"{what} of {self._reference} is larger than {limit} bytes")
        for first in range(self.sources):
            data = bytearray()
            try:
                async for chunk in self.blob(descriptor, first):
                    data += chunk
                verify(descriptor.digest, bytes(data), f"{what} of {self._reference}")
            except FailedPrecondition:  # this host has something else under the name
                if first == self.sources - 1:
                    raise
            else:
                return bytes(data)
        raise AssertionError

    @property
    def sources(self) -> int:
        """Hosts that may be asked for blobs, at least one."""
        return max(1, sum("pull" in host.capabilities for host in self._hosts))

    async def blob(self, descriptor: Descriptor, first: int = 0) -> AsyncGenerator[bytes, None]:
        """Give exactly the descriptor's size in bytes, resuming where a connection broke; the digest is the reader's to check.

        `first` counts the hosts that are passed over because what they gave had another digest. Raises what `manifest` raises.
        """
        what = f"blob {descriptor.digest} of {self._reference.name}"
        done, failures, started = 0, 0, 0
        breaks = 20 * (self._config.retries + 1)
        hosts = self._able("pull", what)[first:]
        while done < descriptor.size:
            try:
                part = self._part(hosts[failures % len(hosts)], descriptor, done, what)
                async with contextlib.aclosing(part):
                    async for chunk in part:
                        done += len(chunk)
                        yield chunk
            except (ConnectionFailed, Unavailable, NotFound) as error:
                breaks -= 1
                if done - started >= PROGRESS:
                    failures = 0
                started = done
                failures += 1
                lost = isinstance(error, NotFound) and failures >= len(hosts)
                if lost or failures > self._config.retries or not breaks:
                    raise self._final(error, what) from error
                await self._pause(failures)

    async def _part(self, host: Host, descriptor: Descriptor, start: int, what: str) -> AsyncGenerator[bytes, None]:
        headers = {"Range": f"bytes={start}-"} if start else {}
        answer = await self._get(host, f"/blobs/{descriptor.digest}", headers, what)
        try:
            skip, left = (start if answer.status != 206 else 0), descriptor.size - start
            if answer.status == 206 and not answer.header("Content-Range").startswith(f"bytes {start}-"):
                raise ConnectionFailed("it resumed at another place than it was asked to")
            async for chunk in answer.chunks():
                data = chunk[skip:]
                skip -= len(chunk) - len(data)
                left -= len(data)
                if left < 0:
                    raise FailedPrecondition(f"{what} is longer than the {descriptor.size} bytes its manifest says")
                if data:
                    yield data
            if left:
                raise ConnectionFailed(f"it ended {left} bytes too early")
        finally:
            answer.close()

    # Hosts, retries

    def _able(self, capability: str, what: str) -> list[Host]:
        hosts = [host for host in self._hosts if capability in host.capabilities]
        if not hosts:
            raise FailedPrecondition(f"no configured host of {self._reference.domain} may {capability} {what} (hosts.toml)")
        return hosts

    async def _any_host(self, capability: str, what: str, fetch: Callable[[Host], Awaitable[T]]) -> T:
        """Ask the hosts in order, each with its retries; the most telling error of all is raised.

        Where a mirror has said what there is to say, the last host is not waited for as if it were the only one: behind a
        mirror the registry itself is often out of reach.
        """
        first: WherryError | None = None
        hosts = self._able(capability, what)
        for place, host in enumerate(hosts, 1):
            told = first is not None and not isinstance(first, Unavailable)
            retries = self._config.retries if place == len(hosts) and not told else 1
            try:
                return await self._retried(host, what, fetch, retries)
            except (NotFound, PermissionDenied, Unavailable, FailedPrecondition) as error:
                if first is None or (isinstance(first, Unavailable) and not isinstance(error, Unavailable)):
                    first = error
        assert first is not None
        raise first

    async def _retried(self, host: Host, what: str, fetch: Callable[[Host], Awaitable[T]], retries: int) -> T:
        failures = 0
        while True:
            try:
                return await fetch(host)
            except (ConnectionFailed, Unavailable) as error:
                failures += 1
                if failures > retries:
                    raise self._final(error, what) from error
                await self._pause(failures)

    @staticmethod
    def _final(error: Exception, what: str) -> WherryError:
        if isinstance(error, ConnectionFailed):
            return Unavailable(f"RegistryUnavailable: {what} could not be fetched: {error}")
        assert isinstance(error, WherryError)
        return error

    async def _pause(self, failures: int) -> None:
        await asyncio.sleep(min(self._config.retry_delay * 2 ** (failures - 1), MAX_DELAY))

    # One request

    async def _get(self, host: Host, path: str, headers: dict[str, str], what: str) -> Answer:
        """Give the answer to a GET below the repository when it is 200 or 206; log in when asked to."""
        url = f"{host.url}/{self._reference.path}{path}"
        if host.namespace:
            url += "?" + urlencode({"ns": host.namespace})
        for attempt in range(3):
            used = self._authorization.get(host.host) or self._given(host)
            secrets = dict(host.headers) | ({"Authorization": used} if used else {})
            answer = await self._transport.request(host, Ask(url=url, headers=headers, secrets=secrets))
            if answer.status in {200, 206}:
                return answer
            try:
                body = await answer.body(MAX_ERROR_BODY, "the answer") if answer.status != 401 else b""
            except FailedPrecondition:
                body = b""
            finally:
                answer.close()
            if answer.status != 401 or answer.foreign or attempt == 2:
                raise _failure(answer.status, body, host, what)
            await self._log_in(host, parse_challenges(answer.challenges), used, what)
        raise AssertionError

    def _given(self, host: Host) -> str:
        if self._auth is not None and self._auth.registry_token and self._auth.is_for(host.host):
            return f"Bearer {self._auth.registry_token}"
        return ""

    async def _log_in(self, host: Host, challenges: tuple[Challenge, ...], used: str, what: str) -> None:
        """Find the Authorization that the challenges ask for; parallel blobs log in once."""
        async with self._logins.setdefault(host.host, asyncio.Lock()):
            if self._authorization.get(host.host, used) != used:
                return
            auth = self._auth if self._auth is not None and self._auth.is_for(host.host) else None
            for challenge in challenges:
                if challenge.scheme == "bearer" and challenge.realm:
                    self._authorization[host.host] = f"Bearer {await self._token(host, challenge, auth, what)}"
                    return
                if challenge.scheme == "basic" and auth is not None and auth.basic and auth.basic != used:
                    self._authorization[host.host] = auth.basic
                    return
            raise _failure(401, b"", host, what)

    async def _token(self, host: Host, challenge: Challenge, auth: Auth | None, what: str) -> str:
        realm = challenge.realm
        parts = urlsplit(realm)
        secure = parts.scheme == "https" or (parts.scheme == "http" and (host.scheme == "http" or is_loopback(parts.netloc)))
        if not secure or not parts.netloc or "@" in parts.netloc:
            raise FailedPrecondition(f"{host.host} names the token server {realm[:120]!r}, which is not a trusted address")
        server = replace(host, host=parts.netloc, guess_http=False, headers=())
        query = {"service": challenge.service, "scope": challenge.scope or f"repository:{self._reference.path}:pull"}
        query = {key: value for key, value in query.items() if value}
        if auth is not None and auth.identity_token:
            form = query | {"grant_type": "refresh_token", "refresh_token": auth.identity_token, "client_id": "wherry"}
            ask = Ask(url=realm, form=form)
        else:
            joint = "&" if parts.query else "?"
            secrets = {"Authorization": auth.basic} if auth is not None and auth.basic else {}
            ask = Ask(url=realm + joint + urlencode(query, quote_via=quote), secrets=secrets)
        answer = await self._transport.request(server, ask)
        try:
            body = await answer.body(MAX_TOKEN_ANSWER, f"the answer of token server {parts.netloc}")
        finally:
            answer.close()
        if answer.status != 200:
            raise _failure(answer.status if answer.status not in {400, 404} else 401, body, server, what)
        return parse_token(body, realm)


def _failure(status: int, body: bytes, host: Host, what: str) -> WherryError:
    told = _message(body)
    if status in {401, 403}:
        return PermissionDenied(
            f"pull access denied for {what}: {host.host} refuses the credentials, or the repository does not exist{told}"
        )
    if status == 404:
        return NotFound(f"{what} is not in the registry {host.host}{told}")
    if status == 429 or status >= 500:
        return Unavailable(f"RegistryUnavailable: {host.host} answered {status} for {what}{told}")
    return FailedPrecondition(f"{host.host} answered {status} for {what}{told}")


def _message(body: bytes) -> str:
    """Give what a registry says about an error (distribution-spec, "Error Codes"), bounded."""
    try:
        errors = json.loads(body)["errors"]
        texts = [f"{error.get('code', '')}: {error.get('message', '')}" for error in errors[:3]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""
    text = "; ".join(texts)[:300]
    return f" ({text})" if text.isprintable() else ""
