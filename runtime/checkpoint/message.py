"""Protocol Buffers, as much of them as criu's RPC needs: varints and length-delimited fields (protobuf.dev "Encoding").

A message is a list of (field number, value) pairs. The numbers of criu's own messages stand below, named as its rpc.proto
names them; https://criu.org/RPC describes the conversation.
"""

from __future__ import annotations

from runtime.errors import ProtocolFault
from runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Value = bool | int | str | bytes
    Fields = list[tuple[int, Value]]

DUMP, RESTORE, CHECK, PRE_DUMP, NOTIFY, FEATURE_CHECK, VERSION = 1, 2, 3, 4, 6, 9, 10
"""Kinds of requests (criu_req_type)."""

TYPE, OPTS, NOTIFY_SUCCESS, FEATURES = 1, 2, 3, 5
"""Fields of a request (criu_req)."""

OPTIONS = {
    "images_dir_fd": 1, "pid": 2, "leave_running": 3, "ext_unix_sk": 4, "tcp_established": 5, "evasive_devices": 6,
    "shell_job": 7, "file_locks": 8, "log_level": 9, "log_file": 10, "ps": 11, "notify_scripts": 12, "root": 13,
    "parent_img": 14, "track_mem": 15, "auto_dedup": 16, "work_dir_fd": 17, "link_remap": 18, "ext_mnt": 23,
    "manage_cgroups": 24, "cg_root": 25, "rst_sibling": 26, "inherit_fd": 27, "manage_cgroups_mode": 34, "external": 37,
    "empty_ns": 38, "join_ns": 39, "freeze_cgroup": 44, "tcp_skip_in_flight": 46, "lazy_pages": 48,
    "orphan_pts_master": 50, "config_file": 51, "tcp_close": 52, "lsm_profile": 53, "lsm_mount_context": 63, "timeout": 45,
}  # fmt: skip
"""Fields of criu_opts."""

CGROUP_MODES = {"ignore": 0, "soft": 3, "full": 4, "strict": 5, "": 6}
"""criu_cg_mode by the words of --manage-cgroups-mode."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}


def encode(fields: Iterable[tuple[int, Value]]) -> bytes:
    """Give the bytes of a message."""
    parts = []
    for number, value in fields:
        if isinstance(value, int):
            parts.append(_varint(number << 3 | _VARINT) + _varint(int(value) & (1 << 64) - 1))
        else:
            data = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
            parts.append(_varint(number << 3 | _BYTES) + _varint(len(data)) + data)
    return b"".join(parts)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode(data: bytes) -> dict[int, int | bytes]:
    """Give the fields of a message by number, the last of each; raise ProtocolFault for what is none."""
    found: dict[int, int | bytes] = {}
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            found[key >> 3], at = _read_varint(data, at)
            continue
        if kind == _BYTES:
            size, at = _read_varint(data, at)
        elif kind in _SIZES:
            size = _SIZES[kind]
        else:
            raise ProtocolFault(f"a field has the wire type {kind}", step="read criu's answer")
        if at + size > len(data):
            raise ProtocolFault("a message is cut short", step="read criu's answer")
        found[key >> 3] = data[at : at + size]
        at += size
    return found


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
    raise ProtocolFault("a number is cut short", step="read criu's answer")


class Answer(Record):
    """A response (criu_resp). `script` and `pid` are those of a notification, `pid` also that of a restored init."""

    kind: int
    success: bool
    error: str = ""
    errno: int = 0
    script: str = ""
    pid: int = 0
    features: tuple[bool, bool] = (False, False)
    version: tuple[int, int, int] = (0, 0, 0)


def read_answer(data: bytes) -> Answer:
    """Give what criu said; raise ProtocolFault."""
    found = decode(data)
    notify, restored = _inner(found, 5), _inner(found, 4)
    features, version = _inner(found, 8), _inner(found, 10)
    return Answer(
        kind=_number(found, 1),
        success=bool(_number(found, 2)),
        error=_text(found, 9),
        errno=_number(found, 7),
        script=_text(notify, 1),
        pid=_number(notify, 2) or _number(restored, 1),
        features=(bool(_number(features, 1)), bool(_number(features, 2))),
        version=(_number(version, 1), _number(version, 2), _number(version, 4)),
    )


def _inner(found: dict[int, int | bytes], number: int) -> dict[int, int | bytes]:
    value = found.get(number, b"")
    return decode(value) if isinstance(value, bytes) else {}


def _number(found: dict[int, int | bytes], number: int) -> int:
    value = found.get(number, 0)
    return value if isinstance(value, int) else 0


def _text(found: dict[int, int | bytes], number: int) -> str:
    value = found.get(number, b"")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""
