"""The daemon's configuration: TOML in, frozen values out.

A key that nobody reads is a mistake somebody will look for at night, so unknown keys are refused by name, and so are
values of the wrong type. `wherryd config default` prints every key with its default and what it means; the text is made
from the declarations below, so that the two cannot disagree.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
import types
import typing
from dataclasses import dataclass
from typing import Any, TypeVar

from shim.errors import InvalidArgument
from shim.image.config import ImageConfig

DEFAULT_PATH = "/etc/wherry/config.toml"
"""Read when it exists and no --config is given."""

T = TypeVar("T")


def setting(default: Any, doc: str) -> Any:
    """Declare a key with its default and the comment that `config default` prints above it."""
    return dataclasses.field(default=default, metadata={"doc": doc})


@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """How the daemon logs."""

    level: str = setting("info", "debug, info, warning or error")
    format: str = setting("auto", "json, console, or auto: console on a terminal")


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupConfig:
    """Where containers are put."""

    driver: str = setting("cgroupfs", "cgroupfs or systemd; kubelet asks for it")
    parent: str = setting("/wherry", "parent of a pod's cgroup when kubelet names none (cgroupfs)")
    slice: str = setting("system.slice", "parent slice when kubelet names none (systemd)")


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerConfig:
    """One runtime handler (the `handler` of a RuntimeClass)."""

    path: str = setting("", "OCI runtime binary; empty is Wherry's own runtime, inside the monitor")
    recursive_read_only_mounts: bool = setting(False, "the binary understands rro mounts, though its `features` do not say so")
    options: tuple[str, ...] = setting((), "options put before the binary's command")
    cni_conf_dir: str = setting("", "directory of the network configurations of its pods; empty: cni.conf_dir")
    seccomp_profile: str = setting("", "file of the profile that RuntimeDefault means for its pods; empty: the bundled one")
    privileged_without_host_devices: bool = setting(
        False, "give privileged containers no devices of the node but those asked for"
    )
    cgroup_writable: bool = setting(False, "let containers that are not privileged write to their own control group")
    pod_annotations: tuple[str, ...] = setting((), "annotations of pods that reach the runtime; patterns such as io.kata.*")
    container_annotations: tuple[str, ...] = setting((), "the same for annotations of containers")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeConfig:
    """Which OCI runtime executes a pod."""

    default_handler: str = setting("wherry", "handler of pods that name none")
    ignore_selinux_options: bool = setting(
        False, "run pods that ask for an SELinux label on a node without SELinux, unlabelled; they are refused otherwise"
    )
    unset_seccomp_profile: str = setting(
        "", "profile of containers that ask for none: runtime/default, unconfined or localhost/PATH; empty: unconfined"
    )
    device_ownership_from_security_context: bool = setting(
        False, "give devices to the container's user and group instead of the node's owner"
    )
    handlers: dict[str, HandlerConfig] = dataclasses.field(
        default_factory=dict,
        metadata={"doc": 'more handlers by name, such as [runtime.handlers.runc] path = "/usr/sbin/runc"'},
    )

    def handler(self, name: str) -> HandlerConfig | None:
        """Give the handler called `name`, or None."""
        if name == "wherry" and name not in self.handlers:
            return HandlerConfig(recursive_read_only_mounts=True)
        return self.handlers.get(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class CniConfig:
    """The pod network."""

    conf_dir: str = setting("/etc/cni/net.d", "directory of network configurations; the first by name is used")
    bin_dirs: tuple[str, ...] = setting(("/opt/cni/bin", "/usr/lib/cni"), "directories of plugin binaries")
    cache_dir: str = setting("", "results of ADD; empty: <root>/cni")
    netns_dir: str = setting("/run/netns", "where network namespaces are pinned, so that `ip netns` sees them")
    conf_template: str = setting("", "file written into conf_dir when kubelet sends a pod CIDR; {{.PodCIDR}} is replaced")
    prefer_embedded: bool = setting(False, "use the bundled plugins even when a binary of that name exists")
    default_network: bool = setting(False, "use the bundled bridge network while conf_dir has no configuration")
    default_subnets: tuple[str, ...] = setting(("10.88.0.0/16", "fd00:88::/64"), "subnets of the bundled network")
    default_bridge: str = setting("wherry0", "bridge of the bundled network")
    timeout: float = setting(60.0, "seconds one ADD or DEL of a whole network may take")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamingConfig:
    """Exec, attach and port-forward."""

    address: str = setting("127.0.0.1", "address of the streaming server; kubelet and crictl reach it on the node itself")
    port: int = setting(0, "its TCP port; 0: any free one")
    token_lifetime: float = setting(60.0, "seconds within which a client must use the URL it was given, once")
    idle_timeout: float = setting(14400.0, "seconds after which a connection on which nothing moves is closed; 0: never")


@dataclass(frozen=True, slots=True, kw_only=True)
class NriValidatorConfig:
    """What plugins may not ask for; a container for which one does is not created."""

    enable: bool = setting(False, "judge what plugins ask for")
    reject_oci_hook_adjustment: bool = setting(False, "hooks")
    reject_runtime_default_seccomp_adjustment: bool = setting(False, "another seccomp policy than the default profile")
    reject_unconfined_seccomp_adjustment: bool = setting(False, "a seccomp policy where the pod asks for none")
    reject_custom_seccomp_adjustment: bool = setting(False, "another seccomp policy than a profile of the node's own")
    reject_namespace_adjustment: bool = setting(False, "other namespaces")
    reject_sysctl_adjustment: bool = setting(False, "sysctls")
    required_plugins: tuple[str, ...] = setting((), "plugins without which no container is created")
    tolerate_missing_plugins_annotation: str = setting("", "annotation of pods that are created without them all the same")


@dataclass(frozen=True, slots=True, kw_only=True)
class NriConfig:
    """Plugins that hear of pods and containers and may change them (Node Resource Interface)."""

    enable: bool = setting(True, "serve plugins")
    socket: str = setting("/var/run/nri/nri.sock", "socket that plugins connect to; empty: only those started here are served")
    plugin_dir: str = setting("/opt/nri/plugins", "directory of plugins to start with the daemon, named like 10-name")
    plugin_config_dir: str = setting("/etc/nri/conf.d", "directory of their configurations, 10-name.conf or name.conf")
    registration_timeout: float = setting(5.0, "seconds a plugin has to register, and again to take what exists")
    request_timeout: float = setting(2.0, "seconds a plugin has to answer; one that takes longer is dropped")
    default_validator: NriValidatorConfig = dataclasses.field(default_factory=NriValidatorConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class CdiConfig:
    """Devices that vendors describe in files (Container Device Interface)."""

    spec_dirs: tuple[str, ...] = setting(("/etc/cdi", "/var/run/cdi"), "directories of their files; a later one wins")


METRIC_KINDS = ("advtcp", "cpuLoad", "memory_numa", "referenced_memory", "sched", "tcp", "udp")


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsConfig:
    """What ListPodSandboxMetrics tells of pods and containers."""

    also: tuple[str, ...] = setting(
        (), f"kinds that cost more to read, by cAdvisor's names: {', '.join(METRIC_KINDS)}; the usual ones are always given"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """Bounds on what a request may ask for."""

    exec_sync_timeout: float = setting(0.0, "seconds after which an ExecSync without a timeout ends; 0: never")
    stop_timeout: float = setting(30.0, "seconds allowed for a killed container's processes to vanish")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that may be configured."""

    root: str = setting("/var/lib/wherry", "what survives a reboot: database, images, containers")
    state: str = setting("/run/wherry", "what does not: sockets, pins, runtime state")
    address: str = setting("", "the CRI socket; empty: <state>/wherry.sock")
    group: str = setting("", "group (name or number) that may use the socket beside root")
    log: LogConfig = dataclasses.field(default_factory=LogConfig)
    cgroup: CgroupConfig = dataclasses.field(default_factory=CgroupConfig)
    runtime: RuntimeConfig = dataclasses.field(default_factory=RuntimeConfig)
    cni: CniConfig = dataclasses.field(default_factory=CniConfig)
    image: ImageConfig = dataclasses.field(default_factory=ImageConfig)
    streaming: StreamingConfig = dataclasses.field(default_factory=StreamingConfig)
    nri: NriConfig = dataclasses.field(default_factory=NriConfig)
    cdi: CdiConfig = dataclasses.field(default_factory=CdiConfig)
    metrics: MetricsConfig = dataclasses.field(default_factory=MetricsConfig)
    limits: LimitsConfig = dataclasses.field(default_factory=LimitsConfig)

    @property
    def socket_path(self) -> str:
        """Path of the CRI socket."""
        return (self.address or f"{self.state}/wherry.sock").removeprefix("unix://")

    @property
    def cni_cache_dir(self) -> str:
        """Directory of CNI results."""
        return self.cni.cache_dir or f"{self.root}/cni"


def load(path: str) -> Config:
    """Read `path`; raise InvalidArgument naming the file and the key, OSError when it cannot be read."""
    with open(path, "rb") as file:
        data = file.read(1 << 20)
    return parse(data, path)


def parse(data: bytes, name: str = "configuration") -> Config:
    """Decode TOML; raise InvalidArgument naming `name` and the key."""
    try:
        table = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{name} is not TOML: {error}") from error
    config = decode(Config, table, name)
    check(config, name)
    return config


def decode(kind: type[T], table: dict[str, Any], name: str, prefix: str = "") -> T:
    """Make a `kind` (a dataclass) of `table`; `name` and `prefix` say in errors where the table stands."""
    fields = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # kind is a dataclass
    hints = typing.get_type_hints(kind)
    values = {}
    for key, value in table.items():
        if key not in fields:
            known = ", ".join(sorted(fields))
            raise InvalidArgument(f"{name}: unknown key {prefix}{key}; known here: {known}")
        values[key] = _value(hints[key], value, name, prefix + key)
    return kind(**values)


def _value(hint: Any, value: Any, name: str, key: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in {typing.Union, types.UnionType}:
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
        return _value(hint, value, name, key)
    if origin is tuple and isinstance(value, list):
        (item, *_) = typing.get_args(hint)
        return tuple(_value(item, entry, name, f"{key}[{index}]") for index, entry in enumerate(value))
    if origin is dict and isinstance(value, dict):
        item = typing.get_args(hint)[1]
        return {entry: _value(item, inner, name, f"{key}.{entry}") for entry, inner in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return decode(hint, value, name, key + ".")
    if hint is float and type(value) is int:
        value = float(value)
    if origin is None and type(value) is hint:
        _check_leaf(value, name, key)
        return value
    raise InvalidArgument(f"{name}: {key} must be {_kind(hint)}, not {value!r}")


def _check_leaf(value: Any, name: str, key: str) -> None:
    """Refuse what no setting may be: text that the kernel would cut, a number that is none, or below zero."""
    if isinstance(value, str) and "\0" in value:
        raise InvalidArgument(f"{name}: {key} holds a NUL character")
    if isinstance(value, float | int) and not (0 <= value < math.inf):
        raise InvalidArgument(f"{name}: {key} must be a number from 0 on, not {value!r}")


def _kind(hint: Any) -> str:
    names = {str: "a string", int: "an integer", float: "a number", bool: "true or false"}
    return names.get(hint, "an array" if typing.get_origin(hint) is tuple else "a table")


def check(config: Config, name: str) -> None:
    """Raise InvalidArgument for values that no type excludes; `name` says in the message where they come from."""
    choices = {
        "log.level": (config.log.level, ("debug", "info", "warning", "error")),
        "log.format": (config.log.format, ("auto", "json", "console")),
        "cgroup.driver": (config.cgroup.driver, ("cgroupfs", "systemd")),
    }
    for key, (value, known) in choices.items():
        if value not in known:
            raise InvalidArgument(f"{name}: {key} must be one of {', '.join(known)}, not {value!r}")
    unset = config.runtime.unset_seccomp_profile
    if unset not in {"", "unconfined", "runtime/default"} and not unset.startswith("localhost//"):
        raise InvalidArgument(f"{name}: runtime.unset_seccomp_profile {unset!r} is no profile; see `wherryd config default`")
    if config.runtime.handler(config.runtime.default_handler) is None:
        raise InvalidArgument(f"{name}: runtime.default_handler {config.runtime.default_handler!r} is not configured")
    for key, path in (("root", config.root), ("state", config.state), ("address", config.socket_path)):
        if not path.startswith("/"):
            raise InvalidArgument(f"{name}: {key} must be an absolute path, not {path!r}")
    for kind in config.metrics.also:
        if kind not in METRIC_KINDS:
            raise InvalidArgument(f"{name}: metrics.also must be of {', '.join(METRIC_KINDS)}, not {kind!r}")
    if config.cni.default_network:
        _check_subnets(config.cni.default_subnets, name)


def _check_subnets(subnets: tuple[str, ...], name: str) -> None:
    import ipaddress  # noqa: PLC0415 - only a node with the bundled network needs it

    for subnet in subnets:
        try:
            ipaddress.ip_network(subnet, strict=False)
        except ValueError as error:
            raise InvalidArgument(f"{name}: cni.default_subnets: {error}") from error


def default_text() -> str:
    """Write every key, its default and its meaning as TOML; a key without a default of its own is a comment."""
    head = "# Configuration of wherryd. Every key is shown with its default.\n"
    return head + "\n".join(_lines(Config(), ""))


def _lines(config: Any, section: str) -> list[str]:
    lines: list[str] = []
    tables: list[str] = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        doc = field.metadata.get("doc", "")
        if dataclasses.is_dataclass(value):
            path = f"{section}{field.name}"
            summary = (type(value).__doc__ or "").partition("\n")[0]
            tables += ["", f"# {summary}", f"[{path}]", *_lines(value, path + ".")]
            continue
        if doc:
            lines.append(f"# {doc}")
        lines.append(f"# {field.name}" if value is None or isinstance(value, dict) else f"{field.name} = {_toml(value)}")
    return lines + tables + ([] if section else [""])


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps(value)
