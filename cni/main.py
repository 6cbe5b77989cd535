"""wherry-cni: the bundled plugins as programs.

Called by the name of a plugin (a link made by `wherry-cni install DIR`), or with it as first argument, it is that plugin.
"""

from __future__ import annotations

import os
import sys

from cni import plugins, skel
from cni import version as versions
from cni.executor import Executor

_USAGE = "usage: wherry-cni PLUGIN | wherry-cni install DIRECTORY"


def main() -> int:
    """Run what argv names and give its exit status; what cannot be said to the caller is a line on standard error."""
    if None in (sys.stdin, sys.stdout, sys.stderr):  # closed by the caller: no plugin can be asked, or answer
        if sys.stderr is not None:
            sys.stderr.write("wherry-cni: standard input, output and error must be open\n")
        return 1
    try:
        code = _main()
        sys.stdout.flush()
    except OSError as error:
        what = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"wherry-cni: {what}{(error.strerror or str(error)).lower()}\n")
        sys.stdout = None  # nobody is to try again
        return 1
    return code


def _main() -> int:
    name = os.path.basename(sys.argv[0])
    arguments = sys.argv[1:]
    if plugins.find(name) is None:
        if len(arguments) == 2 and arguments[0] == "install":
            return install(arguments[1])
        name = arguments[0] if len(arguments) == 1 else ""
    plugin = plugins.find(name)
    if plugin is None:
        known = ", ".join(plugins.MODULES)
        sys.stderr.write(f"{_USAGE}\nplugins: {known}\n")
        return 2
    if "CNI_COMMAND" not in os.environ:
        return about(name)
    paths = [path for path in os.environ.get("CNI_PATH", "").split(":") if path]
    return skel.main(plugin, os.environ, sys.stdin.buffer, sys.stdout, Executor(paths))


def about(name: str) -> int:
    """Say on standard error what plugin this is and which versions it speaks, in the words of the standard plugins."""
    from importlib.metadata import version  # noqa: PLC0415 - for people only, and slow to import

    spoken = ", ".join(versions.SUPPORTED)
    sys.stderr.write(f"CNI {name} plugin of wherry-cni {version('wherry')}\nCNI protocol versions supported: {spoken}\n")
    return 0


def install(directory: str) -> int:
    """Make a link in `directory` for every plugin; what has the name of a plugin there already is replaced atomically."""
    target = os.path.realpath(sys.argv[0])
    os.makedirs(directory, exist_ok=True)
    for name in plugins.MODULES:
        temporary = os.path.join(directory, f".{name}.{os.getpid()}")
        os.symlink(target, temporary)
        os.replace(temporary, os.path.join(directory, name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
