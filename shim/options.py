"""The command line of wherryd."""

from __future__ import annotations

import dataclasses
import os
import sys
from dataclasses import dataclass
from typing import Any

from shim import config as configuration
from shim.config import Config
from shim.errors import InvalidArgument

HELP = f"""\
usage: wherryd [options]            serve
       wherryd config default      print the default configuration with all keys explained
       wherryd config check        read the configuration and say what is wrong with it
       wherryd --version

options (each may be set in the configuration file, and wins over it):
  --config PATH          configuration file (default: {configuration.DEFAULT_PATH} when it exists)
  --root PATH            what survives a reboot: database, images, containers
  --state PATH           what does not: sockets, pins, runtime state
  --address PATH         the CRI socket
  --group NAME           group that may use the socket beside root
  --log-level LEVEL      debug, info, warning, error
  --log-format FORMAT    json, console, auto
  --cgroup-driver NAME   cgroupfs, systemd
  --cni-conf-dir PATH    directory of network configurations
  --cni-bin-dir PATH     directory of plugin binaries; may be repeated
  --default-network      use the bundled network while there is no configuration
"""

_VALUES = {
    "--root": "root",
    "--state": "state",
    "--address": "address",
    "--group": "group",
    "--log-level": "log.level",
    "--log-format": "log.format",
    "--cgroup-driver": "cgroup.driver",
    "--cni-conf-dir": "cni.conf_dir",
    "--cni-bin-dir": "cni.bin_dirs",
}
_FLAGS = {"--default-network": "cni.default_network"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A parsed command line: what to do, and the configuration to do it with."""

    command: str
    config: Config


def parse(arguments: list[str]) -> Options:
    """Parse the arguments after the program's name; raise InvalidArgument naming what is wrong.

    `command` is "serve", "help", "version", "config default" or "config check".
    """
    words: list[str] = []
    path = ""
    settings: dict[str, Any] = {}
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name in {"-h", "--help", "--version"}:
            return Options(command="version" if name == "--version" else "help", config=Config())
        if name in _FLAGS and not equals:
            settings[_FLAGS[name]] = True
        elif name == "--config":
            path = value if equals else _next(rest, name)
        elif name in _VALUES:
            _set(settings, _VALUES[name], value if equals else _next(rest, name))
        elif name.startswith("-"):
            raise InvalidArgument(f"unknown option {name}; see wherryd --help")
        else:
            words.append(argument)
    command = " ".join(words) or "serve"
    if command not in {"serve", "config default", "config check"}:
        raise InvalidArgument(f"unknown command {command!r}; see wherryd --help")
    if command == "config default":
        return Options(command=command, config=Config())
    return Options(command=command, config=_configure(path, settings))


def _next(rest: Any, name: str) -> str:
    value = next(rest, None)
    if value is None:
        raise InvalidArgument(f"option {name} needs a value")
    return str(value)


def _set(settings: dict[str, Any], key: str, value: str) -> None:
    if key == "cni.bin_dirs":
        settings[key] = (*settings.get(key, ()), value)
    else:
        settings[key] = value


def _configure(path: str, settings: dict[str, Any]) -> Config:
    if not path and os.path.exists(configuration.DEFAULT_PATH):
        path = configuration.DEFAULT_PATH
    try:
        config = configuration.load(path) if path else Config()
    except OSError as error:
        raise InvalidArgument(f"configuration {path} cannot be read: {error.strerror}") from error
    for key, value in settings.items():
        section, _, name = key.rpartition(".")
        if section:
            changed = dataclasses.replace(getattr(config, section), **{name: value})
            config = dataclasses.replace(config, **{section: changed})
        else:
            config = dataclasses.replace(config, **{name: value})
    configuration.check(config, "command line" if settings else path or "defaults")
    return config


def print_only(options: Options) -> int | None:
    """Carry out a command that only prints, and give its exit status; None for one that serves."""
    if options.command == "help":
        sys.stdout.write(HELP)
    elif options.command == "version":
        from shim.rpc.node_status import software_version  # noqa: PLC0415 - serving does not need it yet

        sys.stdout.write(f"wherryd {software_version()}\n")
    elif options.command == "config default":
        sys.stdout.write(configuration.default_text())
    elif options.command == "config check":
        sys.stdout.write("the configuration is valid\n")
    else:
        return None
    return 0
