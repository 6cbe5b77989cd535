"""What kubelet asks about the node: Version, Status, RuntimeConfig, UpdateRuntimeConfig."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from functools import cache
from typing import TYPE_CHECKING

import structlog

from shim.errors import Internal
from shim.gen.runtime.v1 import api_pb2
from shim.pod.features import features_of
from shim.pod.files import write_file
from shim.pod.network import configured, parse_cidrs, render_template
from shim.store import meta

if TYPE_CHECKING:
    from shim.pod.node import Node

log = structlog.get_logger()

POD_CIDR = "pod_cidr"
TEMPLATE_FILE = "10-wherry.conflist"


@cache
def software_version() -> str:
    """Give the version of the installed package: it is part of its folder's name, which needs no package to be read."""
    for folder in sys.path:
        with contextlib.suppress(OSError):
            for name in os.listdir(folder or "."):
                if name.startswith("wherry-") and name.endswith(".dist-info"):
                    return name[len("wherry-") : -len(".dist-info")]
    from importlib.metadata import version  # noqa: PLC0415 - it brings 2 MB, and no other part of the daemon needs them

    return version("wherry")


def version() -> api_pb2.VersionResponse:
    """Say who we are; kubelet only knows 0.1.0 as the version of its own protocol."""
    return api_pb2.VersionResponse(
        version="0.1.0", runtime_name="wherry", runtime_version=software_version(), runtime_api_version="v1"
    )


def status(node: Node, *, verbose: bool) -> api_pb2.StatusResponse:
    """Give RuntimeReady, NetworkReady, the handlers and the features; from memory."""
    network = node.network.readiness()
    conditions = [
        api_pb2.RuntimeCondition(type="RuntimeReady", status=True),
        api_pb2.RuntimeCondition(type="NetworkReady", status=network.ready, reason=network.reason, message=network.message),
    ]
    return api_pb2.StatusResponse(
        status=api_pb2.RuntimeStatus(conditions=conditions),
        info=_info(node) if verbose else {},
        runtime_handlers=_handlers(node),
        features=api_pb2.RuntimeFeatures(
            supplemental_groups_policy=True,
            user_namespaces_host_network=_features(node, node.config.runtime.default_handler).user_namespaces,
            mount_options=True,
        ),
    )


def _handlers(node: Node) -> list[api_pb2.RuntimeHandler]:
    """Give all handlers; the default one also under the empty name, where kubelet looks for pods without a RuntimeClass."""
    runtime = node.config.runtime
    found = {"": runtime.default_handler} | {name: name for name in ("wherry", *runtime.handlers)}
    return [api_pb2.RuntimeHandler(name=name, features=_features(node, handler)) for name, handler in found.items()]


def _features(node: Node, handler: str) -> api_pb2.RuntimeHandlerFeatures:
    features = features_of(node, handler)
    return api_pb2.RuntimeHandlerFeatures(
        recursive_read_only_mounts=features.recursive_read_only_mounts, user_namespaces=features.user_namespaces
    )


def _info(node: Node) -> dict[str, str]:
    config = node.config
    info = {
        "root": config.root,
        "state": config.state,
        "address": config.socket_path,
        "version": software_version(),
        "cgroupDriver": config.cgroup.driver,
        "cgroupLayout": str(node.host.cgroup_layout),
        "handlers": {name: handler.path for name, handler in config.runtime.handlers.items()},
        "cni": {
            "confDir": config.cni.conf_dir,
            "binDirs": config.cni.bin_dirs,
            "defaultNetwork": config.cni.default_network,
        },
        "cdi": node.cdi.describe(),
        "nri": node.nri.describe(),
        "pods": len(node.pods),
        "containers": len(node.containers),
    }
    return {"config": json.dumps(info, separators=(",", ":"))}


def runtime_config(node: Node) -> api_pb2.RuntimeConfigResponse:
    """Give the cgroup driver that kubelet must use."""
    driver = api_pb2.SYSTEMD if node.config.cgroup.driver == "systemd" else api_pb2.CGROUPFS
    return api_pb2.RuntimeConfigResponse(linux=api_pb2.LinuxRuntimeConfiguration(cgroup_driver=driver))


async def update_pod_cidr(node: Node, text: str) -> None:
    """Take the node's pod CIDR: for the bundled network, and for the configured template when nobody has configured CNI."""
    if not text:
        return
    cidrs = parse_cidrs(text)
    node.network.use_pod_cidr(cidrs)
    await node.database.write(lambda connection: meta.put(connection, POD_CIDR, text))
    template, conf_dir = node.config.cni.conf_template, node.config.cni.conf_dir
    if not template:
        log.info("pod CIDR noted; no conf_template is configured", pod_cidr=text)
        return
    if configured(conf_dir):
        log.info("pod CIDR noted; a network configuration exists already", pod_cidr=text, conf_dir=conf_dir)
        return
    _write_configuration(template, conf_dir, cidrs)


def _write_configuration(template: str, conf_dir: str, cidrs: tuple[str, ...]) -> None:
    try:
        with open(template, encoding="utf-8") as file:
            text = render_template(file.read(1 << 20), cidrs)
        json.loads(text)
        os.makedirs(conf_dir, 0o755, exist_ok=True)
        path = f"{conf_dir}/{TEMPLATE_FILE}"
        write_file(path + ".tmp", text.encode(), 0o644)
        os.rename(path + ".tmp", path)
    except (OSError, ValueError) as error:
        raise Internal(f"network configuration from template {template} cannot be written: {error}") from error
    log.info("network configuration written", path=path)
