"""Plugins that the daemon starts itself: which there are, and the spawner job that becomes one."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, NoReturn

from shim.container.spec.regular import read_regular

if TYPE_CHECKING:
    from collections.abc import Callable

PLUGIN_FILE = re.compile(r"([0-9]{2})-([A-Za-z0-9._+-]+)")
SOCKET_FD = 3
MOST_CONFIG = 1 << 20
"""Bytes of a plugin's configuration."""


def installed(directory: str, config_dir: str) -> list[tuple[str, str, str, str]]:
    """Give path, index, name and configuration of the plugins in a directory: executables named like 10-name.

    In their order; none when the directory does not exist. Raises OSError and ValueError, naming the file.
    """
    try:
        with os.scandir(directory) as entries:
            found = sorted((entry.name, entry.path) for entry in entries if entry.is_file() and os.access(entry.path, os.X_OK))
    except FileNotFoundError:
        return []
    plugins = []
    for file_name, path in found:
        name = PLUGIN_FILE.fullmatch(file_name)
        if name is None:
            raise ValueError(f"{path} is not named like a plugin: two digits, a dash, a name")
        plugins.append((path, name[1], name[2], configuration(config_dir, name[1], name[2])))
    return plugins


def configuration(directory: str, index: str, name: str) -> str:
    """Read a plugin's configuration, INDEX-NAME.conf or else NAME.conf; "" for none. Raises OSError, ValueError."""
    for path in (f"{directory}/{index}-{name}.conf", f"{directory}/{name}.conf"):
        try:
            data = read_regular(path, MOST_CONFIG, follow=True)
        except FileNotFoundError:
            continue
        if data is None or len(data) > MOST_CONFIG:
            raise ValueError(f"{path} is no regular file of at most {MOST_CONFIG} bytes")
        return data.decode()
    return ""


def run(params: dict[str, Any], fds: list[int], report: Callable[[dict[str, Any]], None]) -> NoReturn:
    """Become the plugin `path`, whose connection is descriptor 3; the entry point of the "nri" job.

    Its standard input and output lead nowhere, its errors where the daemon's go. It has no environment but what tells it its
    name and its socket, as other runtimes start plugins too. The job's own link closes, and the job ends with the plugin.
    """
    (sock,) = fds
    report({"started": os.getpid()})
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.dup2(null, 1)
    if sock == SOCKET_FD:
        os.set_inheritable(sock, True)
    else:
        os.dup2(sock, SOCKET_FD)  # perhaps over the job's link, which nobody needs any more
    environment = {
        "NRI_PLUGIN_NAME": params["name"],
        "NRI_PLUGIN_IDX": params["index"],
        "NRI_PLUGIN_SOCKET": str(SOCKET_FD),
    }
    try:
        os.execve(params["path"], [params["path"]], environment)  # noqa: S606 - a program given as a path needs no shell
    except OSError as error:
        os.write(2, f"wherryd: NRI plugin {params['path']} cannot be executed: {error.strerror}\n".encode())
        os._exit(127)
