"""Whether a document asks for nothing that takes a creator, so that one process can make its container and become its init."""

from __future__ import annotations

from runtime import jsonlite

_ASKS_MORE = ("netDevices", "intelRdt", "timeOffsets", "uidMappings", "gidMappings")
"""Fields of `linux` for which init would need somebody with the host's root at its side."""
_WORDS = (b"SCMP_ACT_NOTIFY", b"idmap", b"dMappings")
"""What may stand in a document only where nothing, not even a mount, asks for an agent or for mapped ids."""


def alone_in(text: bytes) -> str:
    """Give the cgroupsPath of a config.json for which one process is enough, and "" for any other; when in doubt, "".

    The document has not been judged yet. There must be new PID and mount namespaces, no user or time namespace, no hook, and a
    cgroup named from the root of the hierarchy.
    """
    if any(word in text for word in _WORDS):
        return ""
    try:
        document = jsonlite.loads(text)
        linux = document["linux"]
        kinds = {one["type"]: one.get("path") for one in linux["namespaces"]}
        asks_more = document.get("hooks") or any(linux.get(field) for field in _ASKS_MORE)
        new = all(kinds.get(kind, "host") in (None, "") for kind in ("pid", "mount"))
        path = str(linux["cgroupsPath"])
        return path if path.startswith("/") and new and not asks_more and not kinds.keys() & {"user", "time"} else ""
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""
