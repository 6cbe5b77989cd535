"""Credentials: what kubelet sends (CRI AuthConfig), what registries ask for (RFC 9110, 11.6.1; distribution token spec)."""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from shim.errors import FailedPrecondition, InvalidArgument

MAX_AUTH = 64 * 1024
"""Characters accepted in any one part of the credentials (a registry token may be a large JWT)."""
MAX_TOKEN_ANSWER = 1024 * 1024
MAX_CHALLENGES = 8

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_PARAMETER = re.compile(r"""[ \t,]*([A-Za-z0-9_-]+)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """One registry's credentials; secrets do not show in repr()."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    server: str = ""
    """host[:port] they are for; empty: whatever the image names."""

    def is_for(self, host: str) -> bool:
        """Say whether `host` (host[:port]) may see these credentials."""
        return not self.server or self.server == host

    @property
    def basic(self) -> str:
        """The value of an Authorization header of the Basic scheme, "" without a name."""
        if not self.username:
            return ""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def auth_from_cri(
    *,
    username: str = "",
    password: str = "",
    auth: str = "",
    server_address: str = "",
    identity_token: str = "",
    registry_token: str = "",
) -> Auth | None:
    """Turn CRI's AuthConfig into a value, None when it says nothing; raise InvalidArgument for a malformed one."""
    given = (username, password, auth, server_address, identity_token, registry_token)
    if any(len(part) > MAX_AUTH for part in given):
        raise InvalidArgument(f"the registry credentials are longer than {MAX_AUTH} characters")
    if not any((username, auth, identity_token, registry_token)):
        return None
    if auth and not username:
        username, password = _decode(auth)
    return Auth(
        username=username,
        password=password,
        identity_token=identity_token,
        registry_token=registry_token,
        server=_server(server_address),
    )


def _decode(auth: str) -> tuple[str, str]:
    try:
        text = base64.b64decode(auth.strip() + "=" * (-len(auth.strip()) % 4), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise InvalidArgument("the registry credentials (auth) are not base64 of user:password") from error
    username, colon, password = text.partition(":")
    if not colon or not username:
        raise InvalidArgument("the registry credentials (auth) are not user:password")
    return username, password.strip("\0")


def _server(address: str) -> str:
    if not address:
        return ""
    try:
        host = urlsplit(address if "//" in address else f"//{address}").netloc
    except ValueError as error:
        raise InvalidArgument(f"the registry credentials are for a malformed server {address[:80]!r}") from error
    host = host.rpartition("@")[2]
    return "registry-1.docker.io" if host in {"index.docker.io", "docker.io"} else host


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One challenge of a WWW-Authenticate header; the scheme is in lower case."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""
    error: str = ""


def parse_challenges(headers: list[str]) -> tuple[Challenge, ...]:
    """Parse all challenges of all WWW-Authenticate headers; malformed rests are dropped."""
    challenges: list[Challenge] = []
    for header in headers[:MAX_CHALLENGES]:
        place = 0
        while len(challenges) < MAX_CHALLENGES and (match := _TOKEN.search(header, place)):
            place, parameters = _parameters(header, match.end())
            known = {key: parameters.get(key, "") for key in ("realm", "service", "scope", "error")}
            challenges.append(Challenge(scheme=match.group().lower(), **known))
    return tuple(challenges)


def _parameters(header: str, place: int) -> tuple[int, dict[str, str]]:
    parameters: dict[str, str] = {}
    while match := _PARAMETER.match(header, place):
        quoted, plain = match.group(2), match.group(3)
        value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
        parameters.setdefault(match.group(1).lower(), value)
        place = match.end()
    return place, parameters


def parse_token(body: bytes, realm: str) -> str:
    """Give the token of a token server's answer; raise FailedPrecondition."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise FailedPrecondition(f"the token server {realm} did not answer with JSON") from error
    token = ""
    if isinstance(document, dict):
        token = document.get("token") or document.get("access_token") or ""
    if not isinstance(token, str) or not token or len(token) > MAX_AUTH or not token.isprintable():
        raise FailedPrecondition(f"the token server {realm} gave no token")
    return token
