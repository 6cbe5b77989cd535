"""Image references: the grammar of docker/distribution's reference package, and Docker's short names.

    reference = name [ ":" tag ] [ "@" digest ]
    name      = [ domain "/" ] component { "/" component }

Everything is bounded before a pattern looks at it, and the patterns have no nested quantifiers that overlap.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from shim.errors import InvalidArgument

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
MAX_NAME = 255
"""Characters in a name, its domain included (docker/distribution's NameTotalLengthMax)."""
MAX_REFERENCE = MAX_NAME + 1 + 128 + 1 + 256

DIGEST_SIZES = {"sha256": 64, "sha512": 128}
"""Algorithms served, and the hexadecimal digits of each."""

_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A normalised reference: the domain and at least one of tag and digest are always there."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """The repository with its domain, such as docker.io/library/busybox."""
        return f"{self.domain}/{self.path}"

    @property
    def tagged(self) -> str:
        """name:tag, or "" when only a digest was given."""
        return f"{self.name}:{self.tag}" if self.tag else ""

    @property
    def target(self) -> str:
        """What a registry is asked for: the digest when there is one, else the tag."""
        return self.digest or self.tag

    def with_digest(self, digest: str) -> str:
        """Give name@digest."""
        return f"{self.name}@{digest}"

    def __str__(self) -> str:
        return self.name + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse_digest(text: str) -> str:
    """Give `text` back when it is a digest this store can verify; raise InvalidArgument otherwise."""
    algorithm, colon, value = text[:256].partition(":")
    if not colon or algorithm not in DIGEST_SIZES:
        raise InvalidArgument(f"digest {_shown(text)} is not one of {', '.join(DIGEST_SIZES)}")
    if len(text) > 256 or len(value) != DIGEST_SIZES[algorithm] or not _HEX.fullmatch(value):
        raise InvalidArgument(f"digest {_shown(text)} must have {DIGEST_SIZES[algorithm]} lower-case hexadecimal digits")
    return text


def parse_reference(text: str) -> Reference:
    """Parse and normalise a reference; `busybox` becomes docker.io/library/busybox:latest.

    Raises InvalidArgument naming the part that is wrong. A bare image id is not a reference: ask the store for it.
    """
    if not text or len(text) > MAX_REFERENCE or not text.isascii():
        raise InvalidArgument(f"image reference {_shown(text)} must be 1 to {MAX_REFERENCE} ascii characters")
    rest, at, digest = text.partition("@")
    if at:
        parse_digest(digest)
    head, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        head, tag = rest, ""
    elif not _TAG.fullmatch(tag):
        raise InvalidArgument(f"image reference {_shown(text)} has an invalid tag {_shown(tag)}")
    domain, path = _split_name(head)
    _check_name(text, domain, path)
    if not tag and not digest:
        tag = DEFAULT_TAG
    return Reference(domain=domain, path=path, tag=tag, digest=digest)


def tag_only(reference: Reference) -> Reference:
    """Give the reference without its digest (a default tag when it had none)."""
    return replace(reference, tag=reference.tag or DEFAULT_TAG, digest="")


def tagged_name(text: str) -> str:
    """Give the normalised name:tag of what a user wrote, "" when that names no tag or is no reference at all."""
    try:
        return parse_reference(text).tagged
    except InvalidArgument:
        return ""


def _split_name(name: str) -> tuple[str, str]:
    first, slash, rest = name.partition("/")
    is_domain = bool(slash) and (any(mark in first for mark in ".:[") or first == "localhost" or first != first.lower())
    domain, path = (first, rest) if is_domain else (DEFAULT_DOMAIN, name)
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = f"library/{path}"
    return domain, path


def _check_name(text: str, domain: str, path: str) -> None:
    if len(domain) + 1 + len(path) > MAX_NAME:
        raise InvalidArgument(f"image reference {_shown(text)} has a name longer than {MAX_NAME} characters")
    if not _DOMAIN.fullmatch(domain):
        raise InvalidArgument(f"image reference {_shown(text)} has an invalid registry {_shown(domain)}")
    for component in path.split("/"):
        if not _COMPONENT.fullmatch(component):
            raise InvalidArgument(
                f"image reference {_shown(text)} has an invalid name component {_shown(component)}: "
                "lower-case letters, digits and single separators are allowed"
            )
    if len(text) == 64 and _HEX.fullmatch(text):
        raise InvalidArgument(f"image reference {text} is an image id, not a name")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
