"""Which hosts serve a registry: containerd's convention of certs.d/HOST/hosts.toml (containerd, docs/hosts.md).

server = "https://registry-1.docker.io"          # asked last; the keys below may stand here too
[host."https://mirror.example:5000"]
  capabilities = ["pull", "resolve"]             # resolve: trusted to say what a tag means
  ca = "mirror.pem"                              # one file or several; relative to this directory
  client = [["client.cert", "client.key"]]
  skip_verify = false
  override_path = false                          # true: the address has its API path already, /v2 is not added
  [host."https://mirror.example:5000".header]
    x-name = ["value"]
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from shim.errors import FailedPrecondition
from shim.image.reference import DEFAULT_DOMAIN

MAX_FILE = 1024 * 1024
DOCKER_HUB = "registry-1.docker.io"
CAPABILITIES = frozenset(("pull", "resolve", "push"))
_KEYS = frozenset(("capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One server to ask."""

    scheme: str
    host: str
    """host[:port]"""
    path: str = "/v2"
    capabilities: frozenset[str] = CAPABILITIES
    ca: tuple[str, ...] = ()
    client: tuple[tuple[str, str], ...] = ()
    """Files of client certificates and their keys ("" when both are in one)."""
    skip_verify: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    guess_http: bool = False
    """A loopback registry nobody configured: plain HTTP when it does not speak TLS."""
    namespace: str = ""
    """The registry that this host mirrors, for its `ns` parameter; empty for the registry itself."""

    @property
    def url(self) -> str:
        """Its API, such as https://registry.example/v2."""
        return f"{self.scheme}://{self.host}{self.path}"


def hosts_for(domain: str, directories: tuple[str, ...]) -> tuple[Host, ...]:
    """Give the hosts of a registry in the order to ask them; raise FailedPrecondition for a malformed hosts.toml."""
    own = Host(scheme="https", host=DOCKER_HUB if domain == DEFAULT_DOMAIN else domain)
    folder = _folder(domain, directories)
    if not folder:
        return (replace(own, guess_http=is_loopback(own.host)),)
    path = os.path.join(folder, "hosts.toml")
    if not os.path.exists(path):  # Docker's convention: certificates only
        return (replace(own, ca=_certificates(folder), guess_http=is_loopback(own.host)),)
    return _parse(_load(path), path, own, domain)


def is_loopback(host: str) -> bool:
    """Say whether host[:port] is this machine by its very name."""
    name = urlsplit(f"//{host}").hostname or ""
    return name in {"localhost", "::1"} or (name.startswith("127.") and name.replace(".", "").isdigit())


def _folder(domain: str, directories: tuple[str, ...]) -> str:
    host, colon, port = domain.rpartition(":")
    names = [domain, *([f"{host}_{port}_"] if colon and port.isdigit() else []), "_default"]
    for directory in directories:
        for name in names:
            path = os.path.join(directory, name)
            if os.path.isdir(path):
                return path
    return ""


def _certificates(folder: str) -> tuple[str, ...]:
    return tuple(os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(".crt"))


def _load(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_FILE)
        return tomllib.loads(data.decode())
    except OSError as error:
        raise FailedPrecondition(f"registry configuration {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise FailedPrecondition(f"registry configuration {path} is not TOML: {error}") from error


def _parse(table: dict[str, Any], path: str, own: Host, domain: str) -> tuple[Host, ...]:
    mirrors = table.get("host", {})
    if not isinstance(mirrors, dict):
        raise FailedPrecondition(f"registry configuration {path}: [host] is not a table")
    hosts = []
    for address, settings in mirrors.items():
        if not isinstance(settings, dict):
            raise FailedPrecondition(f"registry configuration {path}: host {address!r} is not a table")
        hosts.append(_host(address, settings, path, own, domain))
    rest = {key: value for key, value in table.items() if key not in {"host", "server"}}
    server = table.get("server", f"{own.scheme}://{own.host}")
    hosts.append(_host(server, rest, path, own, domain))
    return tuple(hosts)


def _host(address: Any, settings: dict[str, Any], path: str, own: Host, domain: str) -> Host:
    unknown = sorted(set(settings) - _KEYS)
    if unknown:
        raise FailedPrecondition(f"registry configuration {path}: unknown key {unknown[0]!r}")
    try:
        parts = urlsplit(address if "//" in address else f"//{address}")
    except (ValueError, TypeError) as error:
        raise FailedPrecondition(f"registry configuration {path}: {address!r} is not an address") from error
    if not parts.netloc or parts.scheme not in {"http", "https", ""} or "@" in parts.netloc:
        raise FailedPrecondition(f"registry configuration {path}: {address!r} is not an http or https address")
    scheme = parts.scheme or ("http" if is_loopback(parts.netloc) else "https")
    host = DOCKER_HUB if parts.netloc == DEFAULT_DOMAIN else parts.netloc
    prefix = parts.path.rstrip("/")
    override = _boolean(settings, "override_path", path)
    if not override and not prefix.endswith("/v2"):
        prefix += "/v2"
    return Host(
        scheme=scheme,
        host=host,
        path=prefix,
        capabilities=_capabilities(settings, path),
        ca=_files(settings.get("ca", ()), path),
        client=_clients(settings.get("client", ()), path),
        skip_verify=_boolean(settings, "skip_verify", path),
        headers=_headers(settings.get("header", {}), path),
        namespace="" if host == own.host else domain,
    )


def _boolean(settings: dict[str, Any], key: str, path: str) -> bool:
    value = settings.get(key, False)
    if not isinstance(value, bool):
        raise FailedPrecondition(f"registry configuration {path}: {key} is not true or false")
    return value


def _capabilities(settings: dict[str, Any], path: str) -> frozenset[str]:
    value = settings.get("capabilities")
    if value is None:
        return CAPABILITIES
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value) or not CAPABILITIES.issuperset(value):
        raise FailedPrecondition(f"registry configuration {path}: capabilities are some of {', '.join(sorted(CAPABILITIES))}")
    return frozenset(value)


def _files(value: Any, path: str) -> tuple[str, ...]:
    files = [value] if isinstance(value, str) else value
    if not isinstance(files, list | tuple) or not all(isinstance(item, str) for item in files):
        raise FailedPrecondition(f"registry configuration {path}: ca is a file or a list of files")
    return tuple(os.path.join(os.path.dirname(path), item) for item in files)


def _clients(value: Any, path: str) -> tuple[tuple[str, str], ...]:
    if isinstance(value, str):
        value = [[value]]
    pairs = []
    for item in value if isinstance(value, list | tuple) else [None]:
        pair = [item] if isinstance(item, str) else item
        if not isinstance(pair, list) or len(pair) not in {1, 2} or not all(isinstance(name, str) for name in pair):
            raise FailedPrecondition(f"registry configuration {path}: client is a list of [certificate, key]")
        names = [os.path.join(os.path.dirname(path), name) if name else "" for name in pair]
        pairs.append((names[0], names[1] if len(names) == 2 else ""))
    return tuple(pairs)


def _headers(value: Any, path: str) -> tuple[tuple[str, str], ...]:
    headers: list[tuple[str, str]] = []
    for name, given in value.items() if isinstance(value, dict) else [("", None)]:
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, list) or not all(isinstance(text, str) and text.isprintable() for text in texts):
            raise FailedPrecondition(f"registry configuration {path}: header is a table of texts")
        headers.extend((name, text) for text in texts)
    return tuple(headers)
