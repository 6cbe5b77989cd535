"""Run from an image of the interpreter that nobody can write to.

A container that makes its runtime execute /proc/self/exe, as its program or as an interpreter named in a script, could
otherwise open the host's Python for writing once that program runs (the way of CVE-2019-5736). So the process replaces
itself, once and before it imports anything of weight, by the same interpreter executed from a sealed memfd, or, when the
binary is big, from a detached read-only overlay of its directory, which costs no copy and shares the page cache.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

OPTION = "wherry-sealed"
"""The `-X` option that marks the second run; its value is "1" when LD_LIBRARY_PATH was set for the loader's sake."""

_COPY_LIMIT = 1 << 20
_MFD_ALLOW_SEALING_EXEC = 0x2 | 0x10  # MFD_EXEC is known since Linux 6.3
_F_ADD_SEALS = 1033
_ALL_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # SEAL, SHRINK, GROW, WRITE


def is_sealed() -> bool:
    """Tell whether /proc/self/exe is the sealed image rather than a file of the host."""
    if OPTION not in sys._xoptions:  # noqa: SLF001 - documented by the sys module under this name
        return False
    try:
        running, installed = os.stat("/proc/self/exe"), os.stat(sys.executable)
    except OSError:
        return True
    return (running.st_dev, running.st_ino) != (installed.st_dev, installed.st_ino)


def reexec(module: str = "", arguments: Sequence[str] = (), *, name: str = "") -> None:
    """Run this process again from a sealed image; do nothing when it is sealed already. Returns only then.

    Without `module` the same command line runs again, site packages and all. With one, `module`.main() runs in an isolated
    interpreter (-I -S: only the standard library and this package's root on the path), with sys.argv = [name, *arguments];
    that start costs a third less. Raises OSError when no image can be made.
    """
    if is_sealed():
        if sys._xoptions[OPTION] == "1":  # noqa: SLF001 - as above
            os.environ.pop("LD_LIBRARY_PATH", None)
        return
    from runtime.kernel.execute import fexecve

    library = "" if "LD_LIBRARY_PATH" in os.environ else _library_folder()
    mark = ["-X", f"{OPTION}={int(bool(library))}"]
    if module:
        root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        forget = "os.environ.pop('LD_LIBRARY_PATH', None);" if library else ""
        code = (  # no collection and no finalisation: together they cost a short process three milliseconds
            f"import sys,os,gc;gc.disable();sys.path.insert(0,{root!r});sys.argv[0]={name!r};{forget}"
            f"from {module} import main;code=main();sys.stdout.flush();sys.stderr.flush();os._exit(code)"
        )
        argv = [sys.executable, "-I", "-S", *mark, "-c", code, *arguments]
    else:
        argv = [sys.executable, *mark, *sys.orig_argv[1:]]
    environment = [f"{key}={value}" for key, value in os.environ.items()]
    if library:
        environment.append(f"LD_LIBRARY_PATH={library}")
    sys.stdout.flush()
    sys.stderr.flush()
    fexecve(_image(), argv, environment)


def _library_folder() -> str:
    """Give the folder of libpython: the loader cannot find it beside an executable that has no path ($ORIGIN, ld.so(8))."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        for line in maps:
            path = line[line.find("/") :].rstrip("\n")
            if "/libpython" in path:
                return os.path.dirname(path)
    return ""


def _image() -> int:
    binary = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
    size = os.fstat(binary).st_size
    if size > _COPY_LIMIT and os.geteuid() == 0:
        try:
            return _overlay(os.readlink("/proc/self/exe"))
        except OSError:
            pass  # no overlay here (a nested one, a foreign file system): a copy is as safe, it only costs more
    return _memfd(binary, size)


def _memfd(binary: int, size: int) -> int:
    import fcntl

    try:
        image = os.memfd_create("wherry", _MFD_ALLOW_SEALING_EXEC | os.MFD_CLOEXEC)
    except OSError:
        image = os.memfd_create("wherry", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    offset = 0
    while offset < size:
        offset += os.sendfile(image, binary, offset, size - offset)
    fcntl.fcntl(image, _F_ADD_SEALS, _ALL_SEALS)
    return os.open(f"/proc/self/fd/{image}", os.O_RDONLY | os.O_CLOEXEC)


def _overlay(path: str) -> int:
    from runtime.kernel.mount import fsconfig_string, fsmount, fsopen

    empty = fsmount(fsopen("tmpfs"))
    context = fsopen("overlay")
    fsconfig_string(context, "lowerdir", f"{os.path.dirname(path)}:/proc/self/fd/{empty}")
    root = fsmount(context, 0x1)  # MOUNT_ATTR_RDONLY; without an upper directory nothing could be written anyway
    return os.open(os.path.basename(path), os.O_RDONLY | os.O_CLOEXEC, dir_fd=root)
