"""Parse config.json into frozen values: types, integer ranges and missing parts (config.md of runtime-spec 1.3).

What the parts mean together is `runtime.spec.validate`'s. Members this runtime does not know are ignored.
"""

from __future__ import annotations

from runtime.errors import SpecFault
from runtime.record import replace
from runtime.spec.lasting import Hook, Hooks
from runtime.spec.model import (
    Capabilities,
    ConsoleSize,
    ExecCpuAffinity,
    IdMapping,
    IoPriority,
    Linux,
    Mount,
    Process,
    Rlimit,
    Root,
    Scheduler,
    Spec,
    User,
)
from runtime.spec.parse_linux import parse_id_mapping, parse_linux
from runtime.spec.reader import I32, I64, ID, U16, U32, U64, Reader
from runtime.spec.resources import as_meant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DOCUMENT_LIMIT = 16 * 1024 * 1024
"""Bytes of a config.json or process.json that are read."""


def decode(data: bytes | str | dict[str, Any], document: str) -> Reader:
    """Give a cursor on the whole of a bounded document; raise SpecFault when it is not one JSON object."""
    if isinstance(data, dict):
        return Reader(data, document=document)
    if len(data) > DOCUMENT_LIMIT:
        raise SpecFault(f"is longer than {DOCUMENT_LIMIT} bytes", document=document)
    from runtime.jsonlite import loads

    try:
        value = loads(data)
    except ValueError as error:
        raise SpecFault(f"is not JSON: {error}", document=document) from None
    return Reader(value, document=document)


def parse_spec(data: bytes | str | dict[str, Any]) -> Spec:
    """Parse a config.json; raise SpecFault naming the JSON pointer of what is wrong."""
    top = decode(data, "config.json")
    spec = Spec(
        oci_version=top.need_text("ociVersion"),
        process=top.maybe("process", _process),
        root=top.maybe("root", _root),
        hostname=top.text("hostname"),
        domainname=top.text("domainname"),
        mounts=top.each("mounts", _mount),
        hooks=top.part("hooks", _hooks, Hooks()),
        annotations=top.pairs("annotations"),
        linux=top.part("linux", parse_linux, Linux()),
    )
    resources = as_meant(spec.linux.resources, spec.oci_version)
    if resources is spec.linux.resources:
        return spec
    return replace(spec, linux=replace(spec.linux, resources=resources))


def parse_process(data: bytes | str | dict[str, Any], document: str = "process.json") -> Process:
    """Parse the process object that `exec --process` is given; raise SpecFault."""
    return _process(decode(data, document))


def parse_mounts(data: bytes, document: str) -> tuple[Mount, ...]:
    """Parse a list of mounts, as /mounts of a config.json; raise SpecFault."""
    text = data.lstrip()
    if text.startswith(b"["):
        data = b'{"mounts":%b}' % text
    return decode(data, document).each("mounts", _mount)


def _process(at: Reader) -> Process:
    return Process(
        args=at.texts("args"),
        env=at.texts("env"),
        cwd=at.text("cwd"),
        terminal=at.flag("terminal"),
        console_size=at.maybe("consoleSize", _console_size),
        user=at.part("user", _user, User()),
        capabilities=at.maybe("capabilities", _capabilities),
        rlimits=at.each("rlimits", _rlimit),
        no_new_privileges=at.flag("noNewPrivileges"),
        apparmor_profile=at.text("apparmorProfile"),
        selinux_label=at.text("selinuxLabel"),
        oom_score_adj=at.integer("oomScoreAdj", I32),
        scheduler=at.maybe("scheduler", _scheduler),
        io_priority=at.maybe("ioPriority", _io_priority),
        exec_cpu_affinity=at.maybe("execCPUAffinity", _exec_cpu_affinity),
    )


def _console_size(at: Reader) -> ConsoleSize:
    return ConsoleSize(height=at.number("height", U16), width=at.number("width", U16))


def _user(at: Reader) -> User:
    return User(
        uid=at.number("uid", ID),
        gid=at.number("gid", ID),
        umask=at.integer("umask", U32),
        additional_gids=at.integers("additionalGids", ID),
    )


def _capabilities(at: Reader) -> Capabilities:
    return Capabilities(
        bounding=at.texts("bounding"),
        effective=at.texts("effective"),
        inheritable=at.texts("inheritable"),
        permitted=at.texts("permitted"),
        ambient=at.texts("ambient"),
    )


def _rlimit(at: Reader) -> Rlimit:
    return Rlimit(type=at.need_text("type"), soft=at.need_integer("soft", U64), hard=at.need_integer("hard", U64))


def _scheduler(at: Reader) -> Scheduler:
    return Scheduler(
        policy=at.need_text("policy"),
        nice=at.number("nice", I32),
        priority=at.number("priority", I32),
        flags=at.texts("flags"),
        runtime=at.integer("runtime", U64),
        deadline=at.integer("deadline", U64),
        period=at.integer("period", U64),
    )


def _io_priority(at: Reader) -> IoPriority:
    return IoPriority(io_class=at.need_text("class"), priority=at.number("priority", I32))


def _exec_cpu_affinity(at: Reader) -> ExecCpuAffinity:
    return ExecCpuAffinity(initial=at.text("initial"), final=at.text("final"))


def _root(at: Reader) -> Root:
    return Root(path=at.need_text("path"), readonly=at.flag("readonly"))


def _mount(at: Reader) -> Mount:
    return Mount(
        destination=at.need_text("destination"),
        type=at.text("type"),
        source=at.text("source"),
        options=at.texts("options"),
        uid_mappings=_mappings(at, "uidMappings"),
        gid_mappings=_mappings(at, "gidMappings"),
    )


def _mappings(at: Reader, key: str) -> tuple[IdMapping, ...]:
    return at.each(key, parse_id_mapping)


def _hooks(at: Reader) -> Hooks:
    return Hooks(
        prestart=at.each("prestart", _hook),
        create_runtime=at.each("createRuntime", _hook),
        create_container=at.each("createContainer", _hook),
        start_container=at.each("startContainer", _hook),
        poststart=at.each("poststart", _hook),
        poststop=at.each("poststop", _hook),
    )


def _hook(at: Reader) -> Hook:
    timeout = at.integer("timeout", I64)
    if timeout is not None and timeout <= 0:
        raise at.fault(f"{timeout} seconds is no time: it must be greater than 0", "timeout")
    return Hook(path=at.need_text("path"), args=at.texts("args"), env=at.texts("env"), timeout=timeout)
