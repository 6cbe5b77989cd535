"""The frame around a plugin: protocol in, one function call, protocol out.

A plugin is five functions that take a Request and may give a Result. `call` runs one for the embedded executor; `main` runs
one as a program, its environment, standard input and standard output handed in, so that tests need no process.

Source: CNI specification 1.1 section 2.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Protocol

from cni import version as versions
from cni import wire
from cni.errors import CniFault, Code, Malformed, VersionFault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cni.types import Result

MAX_STDIN_BYTES = 1 << 20
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")
_MAX_IFNAME = 15  # IFNAMSIZ less the final zero, netdevice(7)

# What each command must find in its environment; the rest of the commands need nothing.
_REQUIRED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME"),
    "GC": ("CNI_PATH",),
    "STATUS": ("CNI_PATH",),
}
_SINCE = {"CHECK": versions.CHECK_SINCE, "GC": versions.GC_SINCE, "STATUS": versions.STATUS_SINCE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One command for one plugin, as it goes over the wire; `args` is the text of CNI_ARGS."""

    plugin: str
    command: str
    config: Mapping[str, Any]
    container_id: str = ""
    netns: str = ""
    ifname: str = ""
    args: str = ""


class Runner(Protocol):
    """What a plugin needs to delegate to another one (cni.executor.Executor)."""

    def run(self, invocation: Invocation) -> dict[str, Any] | None:
        """Run one command of one plugin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a plugin function is given; `args` is CNI_ARGS split, `netns` "" when the namespace is gone (DEL only)."""

    invocation: Invocation
    version: str
    container_id: str
    netns: str
    ifname: str
    args: Mapping[str, str]
    config: Mapping[str, Any]
    prev_result: Result | None
    runner: Runner

    @property
    def network(self) -> str:
        """Name of the network."""
        return str(self.config.get("name", ""))

    @property
    def runtime_config(self) -> Mapping[str, Any]:
        """Capability arguments."""
        return wire.mapping(self.config.get("runtimeConfig") or {}, "/runtimeConfig")

    @property
    def valid_attachments(self) -> frozenset[tuple[str, str]]:
        """Container id and interface name of the attachments that GC must keep."""
        kept = wire.each(
            self.config,
            "cni.dev/valid-attachments",
            lambda one, pointer: (wire.text(one, "containerID", pointer), wire.text(one, "ifname", pointer)),
        )
        return frozenset(kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """The commands of one plugin. A handler raises CniFault or OSError; what it began, it has undone by then."""

    name: str
    add: Callable[[Request], Result]
    delete: Callable[[Request], None]
    check: Callable[[Request], None]
    gc: Callable[[Request], None]
    status: Callable[[Request], None]


def call(plugin: Plugin, invocation: Invocation, runner: Runner) -> dict[str, Any] | None:
    """Run one command of `plugin` and give the JSON value of its answer; raise CniFault with the spec's code."""
    if invocation.command == "VERSION":
        asked = invocation.config.get("cniVersion")
        return {
            "cniVersion": asked if isinstance(asked, str) and asked else versions.CURRENT,
            "supportedVersions": list(versions.SUPPORTED),
        }
    try:
        request = _request(invocation, runner)
        return _dispatch(plugin, request)
    except Malformed as fault:
        raise CniFault(f"configuration {fault.pointer or '/'}: {fault.reason}", code=Code.INVALID_CONFIG) from None
    except OSError as error:
        raise CniFault(_describe(error), code=Code.IO_FAILURE) from error


def main(plugin: Plugin, environ: Mapping[str, str], stdin: IO[bytes], stdout: IO[str], runner: Runner) -> int:
    """Run `plugin` as a program and give its exit status; faults go to `stdout` as an error object."""
    version = versions.CURRENT
    try:
        config = _read_config(stdin)
        version = str(config.get("cniVersion") or versions.UNSTATED)
        invocation = _invocation(plugin.name, environ, config)
        answer = call(plugin, invocation, runner)
        code = 0
    except Exception as error:  # noqa: BLE001 - a caller that gets no error object can tell its user nothing
        answer, code = _fault(plugin, error).to_json(version), 1
    if answer is not None:
        json.dump(answer, stdout)
        stdout.write("\n")
    return code


def check_identifiers(container_id: str, ifname: str) -> None:
    """Refuse a container id or interface name that the kernel or a file name could not take (code 4)."""
    if not _IDENTIFIER.fullmatch(container_id):
        raise CniFault(
            f"container id {container_id!r} must hold only letters, digits, '_', '.' and '-'", code=Code.INVALID_ENVIRONMENT
        )
    bad = not ifname or len(ifname) > _MAX_IFNAME or ifname in {".", ".."} or re.search(r"[/:\s]", ifname)
    if bad:
        raise CniFault(
            f"interface name {ifname!r} must have 1 to {_MAX_IFNAME} characters without '/', ':' and blanks",
            code=Code.INVALID_ENVIRONMENT,
        )


def check_network_name(name: str) -> None:
    """Refuse a network name that is none (code 7): plugins make paths of it."""
    if not _IDENTIFIER.fullmatch(name):
        raise CniFault(
            f"network name {name!r} must begin with a letter or digit and hold only letters, digits, '_', '.' and '-'",
            code=Code.INVALID_CONFIG,
        )


def split_args(text: str) -> dict[str, str]:
    """Split CNI_ARGS ("A=1;B=2"); raise CniFault (code 4) for a pair without "="."""
    pairs: dict[str, str] = {}
    for part in filter(None, text.split(";")):
        key, equals, value = part.partition("=")
        if not equals:
            raise CniFault(f"CNI_ARGS holds {part!r}, which is not KEY=VALUE", code=Code.INVALID_ENVIRONMENT)
        pairs[key.strip()] = value.strip()
    return pairs


def _invocation(plugin: str, environ: Mapping[str, str], config: Mapping[str, Any]) -> Invocation:
    command = environ.get("CNI_COMMAND", "")
    if command not in {*_REQUIRED, "VERSION"}:
        raise CniFault(f"CNI_COMMAND {command!r} is not a command", code=Code.INVALID_ENVIRONMENT)
    missing = [name for name in _REQUIRED.get(command, ()) if not environ.get(name)]
    if missing:
        raise CniFault(f"{command} needs {', '.join(missing)} in the environment", code=Code.INVALID_ENVIRONMENT)
    return Invocation(
        plugin=plugin,
        command=command,
        config=config,
        container_id=environ.get("CNI_CONTAINERID", ""),
        netns=environ.get("CNI_NETNS", ""),
        ifname=environ.get("CNI_IFNAME", ""),
        args=environ.get("CNI_ARGS", ""),
    )


def _request(invocation: Invocation, runner: Runner) -> Request:
    config = invocation.config
    version = wire.text(config, "cniVersion") or versions.UNSTATED
    if version not in versions.SUPPORTED:
        raise VersionFault(
            f"the configuration asks for cni version {version!r}", details=f"spoken: {', '.join(versions.SUPPORTED)}"
        )
    since = _SINCE.get(invocation.command)
    if since is not None and not versions.at_least(version, since):
        raise VersionFault(f"{invocation.command} needs cni version {since} or newer, the configuration asks for {version}")
    if invocation.command in {"ADD", "DEL", "CHECK"}:
        check_identifiers(invocation.container_id, invocation.ifname)
    check_network_name(wire.text(config, "name"))
    previous = config.get("prevResult")
    return Request(
        invocation=invocation,
        version=version,
        container_id=invocation.container_id,
        netns=invocation.netns,
        ifname=invocation.ifname,
        args=split_args(invocation.args),
        config=config,
        prev_result=None if previous is None else wire.read_result(previous, version),
        runner=runner,
    )


def _dispatch(plugin: Plugin, request: Request) -> dict[str, Any] | None:
    command = request.invocation.command
    if command == "ADD":
        return wire.write_result(plugin.add(request), request.version)
    handlers = {"DEL": plugin.delete, "CHECK": plugin.check, "GC": plugin.gc, "STATUS": plugin.status}
    handlers[command](request)
    return None


def _read_config(stdin: IO[bytes]) -> dict[str, Any]:
    data = stdin.read(MAX_STDIN_BYTES + 1)
    if len(data) > MAX_STDIN_BYTES:
        raise CniFault(f"configuration is larger than {MAX_STDIN_BYTES} bytes", code=Code.IO_FAILURE)
    try:
        config = json.loads(data or b"{}")
    except (ValueError, RecursionError) as error:
        raise CniFault(f"configuration is not json: {error}", code=Code.DECODING_FAILURE) from None
    if not isinstance(config, dict):
        raise CniFault("configuration is not a json object", code=Code.DECODING_FAILURE)
    return config


def _fault(plugin: Plugin, error: Exception) -> CniFault:
    """Give what is told of a failure; of a defect, the line it showed in."""
    if isinstance(error, CniFault):
        return error
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
    return CniFault(f"a defect of the plugin {plugin.name}: {type(error).__name__}: {error}", details=where)


def _describe(error: OSError) -> str:
    what = f"{error.filename}: " if error.filename else ""
    return f"{what}{error.strerror or error}"
