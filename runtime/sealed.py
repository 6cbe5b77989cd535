"""Run from an image of the interpreter that nobody can write to.

A container that makes its runtime execute /proc/self/exe, as its program or as an interpreter named in a script, could
otherwise open the host's Python for writing once that program runs (the way of CVE-2019-5736). So the process puts an image in
the place of its executable that has the same bytes: a sealed memfd, or, when the binary is big, the file as it looks through a
detached read-only overlay of its directory, which costs no copy and shares the page cache. Where the kernel does not let, as
without privileges, the process replaces itself, once and before it imports anything of weight, by the same interpreter
executed from such an image.

Every start of `wherry-oci` that makes a process passes here, so what comes before a second start takes no more than `posix`
has: even `os` takes a millisecond.
"""

from __future__ import annotations

import posix
import sys

OPTION = "wherry-sealed"
"""The `-X` option that marks the second run; its value is "1" when LD_LIBRARY_PATH was set for the loader's sake."""

_COPY_LIMIT = 1 << 20
_READ = posix.O_RDONLY | posix.O_CLOEXEC
_MFD_SEALED = posix.MFD_ALLOW_SEALING | posix.MFD_CLOEXEC
_MFD_EXEC = 0x10  # known since Linux 6.3
_F_ADD_SEALS = 1033
_ESTALE = 116
_ALL_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # SEAL, SHRINK, GROW, WRITE


def seal() -> None:
    """Have nobody find the host's Python behind this process's /proc/self/exe: in place where that can be, else by `reexec`.

    Raises OSError when no image can be made.
    """
    if OPTION in sys._xoptions or posix.geteuid() != 0 or not _exchange():  # noqa: SLF001 - documented under this name
        reexec()


def _exchange() -> bool:
    """Put a sealed image in the place of the executable; tell whether that could be."""
    try:
        from runtime.kernel.exefile import exchange

        image = _image()
        try:
            exchange(image)
        finally:
            posix.close(image)
    except OSError:
        return False  # a kernel or C library without it, or a policy against it
    return True


def is_sealed() -> bool:
    """Tell whether /proc/self/exe is the sealed image rather than a file of the host."""
    if OPTION not in sys._xoptions:  # noqa: SLF001 - documented by the sys module under this name
        return False
    try:
        running, installed = posix.stat("/proc/self/exe"), posix.stat(sys.executable)
    except OSError:
        return True
    return (running.st_dev, running.st_ino) != (installed.st_dev, installed.st_ino)


def reexec() -> None:
    """Run the same command line again from a sealed image; do nothing when it runs from one already. Returns only then.

    Raises OSError when no image can be made.
    """
    if is_sealed():
        if sys._xoptions[OPTION] == "1":  # noqa: SLF001 - as above
            import os

            os.environ.pop("LD_LIBRARY_PATH", None)
        return
    environment = posix.environ.copy()
    library = b"" if b"LD_LIBRARY_PATH" in environment else _library_folder()
    if library:
        environment[b"LD_LIBRARY_PATH"] = library
    sys.stdout.flush()
    sys.stderr.flush()
    posix.execve(_image(), [sys.executable, "-X", f"{OPTION}={int(bool(library))}", *sys.orig_argv[1:]], environment)


def _library_folder() -> bytes:
    """Give the folder of libpython: the loader cannot find it beside an executable that has no path ($ORIGIN, ld.so(8))."""
    with open("/proc/self/maps", "rb", buffering=0) as maps:
        text = maps.read()
    for line in text.splitlines():
        if b"/libpython" in line:
            return line[line.find(b"/") : line.rfind(b"/")]
    return b""


def _image() -> int:
    """Open something that has the executable's bytes, and that nobody can write to."""
    binary = posix.open("/proc/self/exe", _READ)
    try:
        status = posix.fstat(binary)
        if status.st_size > _COPY_LIMIT and posix.geteuid() == 0:
            try:
                return _overlay(posix.readlink("/proc/self/exe"), status)
            except OSError:
                pass  # no overlay here (a nested one, a foreign file system): a copy is as safe, it only costs more
        return _memfd(binary, status.st_size)
    finally:
        posix.close(binary)


def _memfd(binary: int, size: int) -> int:
    from fcntl import fcntl

    try:
        image = posix.memfd_create("wherry", _MFD_SEALED | _MFD_EXEC)
    except OSError:
        image = posix.memfd_create("wherry", _MFD_SEALED)
    offset = 0
    while offset < size:
        offset += posix.sendfile(image, binary, offset, size - offset)
    fcntl(image, _F_ADD_SEALS, _ALL_SEALS)
    sealed = posix.open(f"/proc/self/fd/{image}", _READ)
    posix.close(image)
    return sealed


def _overlay(path: str, status: posix.stat_result) -> int:
    """Open `path`, the file with that status, in a detached read-only overlay of its directory."""
    from runtime.kernel.mount import fsconfig_string, fsmount, fsopen

    folder, _, name = path.rpartition("/")
    opened = []
    try:
        opened.append(fsopen("tmpfs"))
        opened.append(empty := fsmount(opened[0]))
        opened.append(context := fsopen("overlay"))
        fsconfig_string(context, "lowerdir", f"{folder}:/proc/self/fd/{empty}")
        opened.append(root := fsmount(context, 0x1))  # MOUNT_ATTR_RDONLY; there is no upper directory to write to anyway
        image = posix.open(name, _READ, dir_fd=root)
    finally:
        for fd in opened:
            posix.close(fd)
    found = posix.fstat(image)
    if (found.st_size, found.st_mtime_ns, found.st_ctime_ns) == (status.st_size, status.st_mtime_ns, status.st_ctime_ns):
        return image
    posix.close(image)
    raise OSError(_ESTALE, "another file has its name now", path)
