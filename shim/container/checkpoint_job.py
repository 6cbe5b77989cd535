"""The "checkpoint" job: read and write the archives of checkpoints, in a process of its own.

    action  what it does
    look    what a source says of itself: the documents of its container or of its pod
    import  the files of a source, copied into the new folder params["folder"]
    apply   the changed files of a container, unpacked into its writable layer params["upper"]
    pack    the files of params["folder"] as the tar params["location"]

A source is a tar, compressed or not, or a folder with the same files. It may come from anywhere: names are checked, nothing
but plain files is taken, and what it says of itself is bounded.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import stat
import tarfile
from typing import IO, TYPE_CHECKING, Any

from shim.beneath import open_beneath
from shim.container.checkpoint_names import CONFIG, INVENTORY, LOG, SPEC
from shim.errors import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from shim.image.unpack import sandbox, tar
from shim.image.unpack.recipe import Recorder
from shim.image.unpack.streams import Source, open_stream
from shim.image.unpack.writer import LayerWriter
from shim.monitor.checkpoint import DELETED, IMAGES, ROOTFS_DIFF

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_FILES = frozenset((CONFIG, SPEC, ROOTFS_DIFF, DELETED))
MAX_DOCUMENT = 4 * 1024 * 1024
MAX_FILES = 100_000
_FULL = (28, 122)

Member = tuple[str, "Callable[[], IO[bytes]]"]


def run(params: dict[str, Any], _fds: list[int], _report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Do params["action"]; raise the errors of shim.errors, or OSError."""
    actions = {"look": _look, "import": _import, "apply": _apply, "pack": _pack}
    try:
        return actions[params["action"]](params)
    except tarfile.TarError as error:
        raise FailedPrecondition(f"checkpoint {params.get('source')}: {error}") from error
    except OSError as error:
        if error.errno in _FULL:
            raise ResourceExhausted(f"no space is left for a checkpoint: {error}") from error
        raise


def _look(params: dict[str, Any]) -> dict[str, Any]:
    """Give config.dump and spec.dump; raise FailedPrecondition where this is no checkpoint of a container."""
    source = params["source"]
    found: dict[str, Any] = {}
    for name, open_member in _members(source):
        if name in (CONFIG, SPEC):
            with open_member() as file:
                found[name] = _document(file, f"{name} of checkpoint {source}")
        elif name == INVENTORY:
            found[name] = True
    missing = [name for name in (CONFIG, INVENTORY) if name not in found]
    if missing:
        raise FailedPrecondition(f"{source} is not the checkpoint of a container: it has no {missing[0]}")
    return {"config": found[CONFIG], "spec": found.get(SPEC, {})}


def _document(file: IO[bytes], what: str) -> dict[str, Any]:
    text = file.read(MAX_DOCUMENT + 1)
    try:
        value = json.loads(text) if len(text) <= MAX_DOCUMENT else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise FailedPrecondition(f"{what} is not a JSON object of at most {MAX_DOCUMENT} bytes")
    return value


def _import(params: dict[str, Any]) -> dict[str, Any]:
    folder = params["folder"]
    os.makedirs(os.path.join(folder, IMAGES), 0o700)
    names = []
    for name, open_member in _members(params["source"]):
        if name not in _FILES and not name.startswith(f"{IMAGES}/"):
            continue
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open_member() as file, open(os.open(os.path.join(folder, name), flags, 0o600), "wb") as out:
            shutil.copyfileobj(file, out, 1 << 20)
        names.append(name)
    if INVENTORY not in names:
        raise FailedPrecondition(f"{params['source']} is not the checkpoint of a container: it has no {INVENTORY}")
    return {"diff": ROOTFS_DIFF in names}


def _members(source: str) -> Iterator[Member]:
    """Give the plain files of a source that lie where a checkpoint has them."""
    try:
        kind = os.stat(source).st_mode
    except OSError as error:
        raise NotFound(f"checkpoint {source}: {error.strerror}") from error
    if stat.S_ISDIR(kind):
        yield from _folder_members(source, "")
        yield from _folder_members(source, f"{IMAGES}/")
    elif stat.S_ISREG(kind):
        yield from _tar_members(source)
    else:
        raise InvalidArgument(f"checkpoint {source} is neither a file nor a folder")


def _folder_members(source: str, below: str) -> Iterator[Member]:
    folder = os.path.join(source, below)
    if not os.path.isdir(folder) or os.path.islink(folder.rstrip("/")):
        return
    with os.scandir(folder) as entries:
        for count, entry in enumerate(entries):
            if count > MAX_FILES:
                raise FailedPrecondition(f"checkpoint {source} has more than {MAX_FILES} files")
            if entry.is_file(follow_symlinks=False):
                yield below + entry.name, functools.partial(_open_plain, entry.path)


def _open_plain(path: str) -> IO[bytes]:
    return open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")


def _tar_members(source: str) -> Iterator[Member]:
    with tarfile.open(source, "r:*") as archive:
        for count, member in enumerate(archive):
            if count > MAX_FILES:
                raise FailedPrecondition(f"checkpoint {source} has more than {MAX_FILES} files")
            name = "/".join(part for part in member.name.split("/") if part not in ("", "."))
            plain = member.isreg() and name.count("/") <= 1 and ".." not in name.split("/")
            if plain:
                yield name, functools.partial(_extract, archive, member)


def _extract(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = archive.extractfile(member)
    if file is None:
        raise FailedPrecondition(f"{member.name} of the checkpoint cannot be read")
    return file


def _apply(params: dict[str, Any]) -> dict[str, Any]:
    """Unpack the changed files; what only deleted.files names becomes a whiteout."""
    folder = params["folder"]
    diff = os.open(os.path.join(folder, params.get("diff", ROOTFS_DIFF)), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    deleted = _deleted(os.path.join(folder, DELETED))
    limits = tar.Limits(max_bytes=params["max_bytes"], max_entries=params["max_entries"], max_ratio=params["max_ratio"])
    source = Source(diff, offset=0, length=os.fstat(diff).st_size)
    recorder = Recorder(os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC))
    sandbox.enter(params["upper"])
    plain = tar.TarInput(open_stream(source), source, limits)
    LayerWriter(tar.TarReader(plain, recorder, limits), recorder).run()
    for name in deleted:
        _white_out(name)
    return {}


def _deleted(path: str) -> list[str]:
    try:
        with _open_plain(path) as file:
            names = json.loads(file.read(MAX_DOCUMENT))
    except (FileNotFoundError, ValueError):
        return []
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _white_out(name: str) -> None:
    """Delete a name of the layers below, in this process's root; what is there already, or has no folder, is left alone."""
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    if not parts:
        return
    folder = "/" + "/".join(parts[:-1])
    if os.path.isdir(folder) and not os.path.lexists(os.path.join(folder, parts[-1])):
        os.mknod(os.path.join(folder, parts[-1]), stat.S_IFCHR, 0)


def _pack(params: dict[str, Any]) -> dict[str, Any]:
    """Write the tar beside its place, then move it there; the container's log goes with it."""
    folder, location = params["folder"], params["location"]
    if params.get("log"):
        _copy_log(params["log"], params["log_directory"], os.path.join(folder, LOG))
    partial = f"{location}.partial"
    try:
        with tarfile.open(partial, "w") as archive:
            os.chmod(partial, 0o600)
            for name in sorted(os.listdir(folder)):
                archive.add(os.path.join(folder, name), name)
        os.rename(partial, location)
    except BaseException:
        if os.path.lexists(partial):
            os.unlink(partial)
        raise
    return {"bytes": os.stat(location).st_size}


def _copy_log(log: str, directory: str, copy: str) -> None:
    try:
        with open(open_beneath(log, directory, os.O_RDONLY | os.O_NONBLOCK), "rb") as file, open(copy, "wb") as out:
            shutil.copyfileobj(file, out, 1 << 20)
    except FileNotFoundError:
        return
