"""The "unpack" job: what wherryd asks the spawner to do with layers and archives, in a process of its own.

    op      descriptors           what it does
    unpack  source, recipe        a layer's bytes into params["path"]
    fix                           implicit directories and hard links of a layer, from the layers below it
    retar   recipe, out           the tar of an unpacked layer, byte for byte
    index   archive               the members of an uncompressed tar file and where their contents lie
    spool   source, out           decompress an archive into a file

Everything is imported before the process pivots: afterwards there is no interpreter's library to import from.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from shim.errors import FailedPrecondition, ResourceExhausted, WherryError
from shim.image.unpack import fix, sandbox, tar
from shim.image.unpack.recipe import Recorder, records
from shim.image.unpack.streams import READ_SIZE, Source, ZstdStream, open_stream
from shim.image.unpack.writer import LayerWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_DRAIN = 16 * 1024 * 1024
"""Bytes read after a fault, to say whether the transport or the image is at fault."""
MAX_MEMBERS = 100_000
"""Members of an archive that is loaded."""


def run(params: dict[str, Any], fds: list[int], report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Do params["op"]; raise the errors of shim.errors, or OSError."""
    del report
    operations = {"unpack": _unpack, "fix": fix.run, "retar": _retar, "index": _index, "spool": _spool}
    try:
        return operations[params["op"]](params, fds)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise ResourceExhausted(
                f"no space left on the disk of the image store while {params['what']} was written"
            ) from error
        raise


def _limits(params: dict[str, Any]) -> tar.Limits:
    return tar.Limits(max_bytes=params["max_bytes"], max_entries=params["max_entries"], max_ratio=params["max_ratio"])


def _unpack(params: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Unpack one layer.

    params: path, what (for messages), digest ("" when unknown), diff_id, offset and length (a file; absent: a pipe), limits.
    """
    what, digest, diff_id = params["what"], params["digest"], params["diff_id"]
    algorithm = digest.partition(":")[0] or "sha256"
    source = Source(fds[0], algorithm=algorithm, offset=params.get("offset"), length=params.get("length", 0))
    recorder = Recorder(fds[1])
    sandbox.enter(params["path"])
    try:
        plain = tar.TarInput(open_stream(source), source, _limits(params), algorithm=diff_id.partition(":")[0])
        writer = LayerWriter(tar.TarReader(plain, recorder, _limits(params)), recorder)
        writer.run()
        source.drain()
    except FailedPrecondition as error:
        if digest and _drained(source) and source.digest != digest:
            raise _mismatch(what, source.digest, digest) from error
        raise FailedPrecondition(f"{what}: {error}") from error
    except WherryError as error:
        raise type(error)(f"{what}: {error}") from error
    if digest and source.digest != digest:
        raise _mismatch(what, source.digest, digest)
    if plain.digest != diff_id:
        raise FailedPrecondition(f"{what}: the uncompressed layer has digest {plain.digest}, the image says {diff_id}")
    recorder.finish()
    return {
        "digest": source.digest,
        "compressed": source.count,
        "tar": plain.total,
        "bytes": writer.bytes,
        "inodes": writer.inodes,
        "root": list(writer.root) if writer.root else None,
        "implicit": [os.fsdecode(path) for path in writer.implicit],
        "links": [[os.fsdecode(path), os.fsdecode(target)] for path, target in writer.links.items()],
        "lost": recorder.lost,
    }


def _drained(source: Source) -> bool:
    return any(not source.read() for _ in range(MAX_DRAIN // READ_SIZE))


def _mismatch(what: str, actual: str, expected: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"{what}: the content has digest {actual}, expected {expected}: it was changed or damaged on its way"
    )


def _retar(params: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Write the tar of the layer in params["path"] and check that its digest is params["diff_id"]."""
    recipe, out = fds
    diff_id = params["diff_id"]
    sandbox.enter(params["path"], read_only=True)
    hashed = Source(-1, algorithm=diff_id.partition(":")[0])
    for record in records(ZstdStream(Source(recipe))):
        for data in (record,) if isinstance(record, bytes) else _content(*record):
            hashed.hash.update(data)
            hashed.count += len(data)
            _write_all(out, data)
    if hashed.digest != diff_id:
        raise FailedPrecondition(f"{params['what']}: its files were changed since it was unpacked; pull the image again")
    return {"tar": hashed.count}


def _content(path: bytes, size: int) -> Iterator[bytes]:
    try:
        fd = os.open(b"/" + path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise FailedPrecondition(f"the layer has lost {tar.shown(path)}: {error.strerror}; pull the image again") from error
    try:
        while size and (data := os.read(fd, min(size, READ_SIZE))):
            size -= len(data)
            yield data
    finally:
        os.close(fd)
    if size:
        raise FailedPrecondition(f"the layer's file {tar.shown(path)} is shorter than it was; pull the image again")


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


class _Seeking:
    """The blocks of an uncompressed tar file: headers are read, contents are stepped over."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.offset = 0
        self.end = os.fstat(fd).st_size

    def take(self, size: int) -> bytes:
        data = os.pread(self._fd, size, self.offset)
        self.offset += len(data)
        return data if len(data) == size else b""

    def pieces(self, size: int) -> Iterator[memoryview]:
        if self.offset + size > self.end:
            raise FailedPrecondition("the archive ends in the middle of a member")
        self.offset += size
        return iter(())

    def rest(self) -> Iterator[bytes]:
        return iter(())


class _NoTape:
    """Keeps nothing."""

    def raw(self, _data: bytes, /) -> None:
        return None


def _index(params: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Give the members of an archive: name → [kind, offset, size, link]; the last of a name counts."""
    sandbox.isolate()
    limits = tar.Limits(max_bytes=1 << 62, max_entries=MAX_MEMBERS, max_ratio=1)
    source = _Seeking(fds[0])
    reader = tar.TarReader(source, _NoTape(), limits)
    members: dict[str, list[Any]] = {}
    try:
        while (entry := reader.next()) is not None:
            if entry.layout is not None:
                raise FailedPrecondition(f"tar member {tar.shown(entry.name)} is a sparse file, which an archive cannot hold")
            name = "/".join(part for part in os.fsdecode(entry.name).split("/") if part not in {"", "."})
            members[name] = [entry.kind.decode("latin-1"), source.offset, entry.size, os.fsdecode(entry.link)]
    except WherryError as error:
        raise type(error)(f"{params['what']}: {error}") from error
    return {"members": members}


def _spool(params: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Write the plain bytes of an archive to a file."""
    sandbox.isolate()
    stream = open_stream(Source(fds[0]))
    total = 0
    while data := stream.read(READ_SIZE):
        total += len(data)
        if total > params["max_bytes"]:
            raise ResourceExhausted(f"{params['what']} is larger than {params['max_bytes']} bytes uncompressed")
        _write_all(fds[1], data)
    return {"bytes": total}
