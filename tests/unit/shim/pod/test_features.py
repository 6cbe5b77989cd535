import subprocess
import sys
from dataclasses import replace

import pytest

from shim.config import HandlerConfig
from shim.container.spec.host import HostFacts
from shim.errors import InvalidArgument
from shim.gen.runtime.v1 import api_pb2
from shim.pod.binaries import Binary
from shim.pod.features import handler_features
from shim.pod.run import run_pod_sandbox
from shim.rpc import node_status
from tests.unit.shim.fakes import pod_config

OWN = HandlerConfig(recursive_read_only_mounts=True)
HOST = HostFacts(capabilities=(), kernel=(6, 18), mapped_layers=True)


@pytest.mark.parametrize(
    ("handler", "kernel", "expected"),
    [
        (OWN, (6, 18), (True, True)),
        (OWN, (5, 10), (False, True)),
        (replace(OWN, path="/usr/sbin/runc"), (6, 18), (True, False)),
        (HandlerConfig(path="/usr/sbin/runc"), (6, 18), (False, False)),
        (HandlerConfig(), (6, 18), (True, True)),
        (None, (6, 18), (False, False)),
    ],
)
def test_features_are_facts(handler, kernel, expected):
    features = handler_features(handler, replace(HOST, kernel=kernel))
    assert (features.recursive_read_only_mounts, features.user_namespaces) == expected


@pytest.mark.parametrize("says", [(True, False), (False, True)])
def test_another_runtime_can_do_what_its_binary_says(says):
    features = handler_features(HandlerConfig(path="/x"), HOST, Binary(recursive_read_only_mounts=says[0], maps_ids=says[1]))
    assert (features.recursive_read_only_mounts, features.user_namespaces) == says


def test_user_namespaces_need_a_kernel_that_maps_the_root_s_layers():
    older = replace(HOST, mapped_layers=False)
    assert not handler_features(OWN, older).user_namespaces
    assert not handler_features(HandlerConfig(path="/x"), older, Binary(maps_ids=True)).user_namespaces


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("""echo '{"mountOptions": ["ro", "rro"]}'""", {"mount_options": ["ro", "rro"], "maps_ids": False}),
        ("echo '{}'", {"mount_options": [], "maps_ids": False}),
        (
            """echo '{"linux": {"namespaces": ["user"], "mountExtensions": {"idmap": {"enabled": true}}}}'""",
            {"mount_options": [], "maps_ids": True},
        ),
        (
            """echo '{"linux": {"namespaces": ["pid"], "mountExtensions": {"idmap": {"enabled": true}}}}'""",
            {"mount_options": [], "maps_ids": False},
        ),
        ("""echo '{"linux": {"mountExtensions": [1]}}'""", "no such document"),
        ("echo '[]'", "no such document"),
        ("echo unknown command features >&2; exit 1", "exited with 1"),
    ],
)
def test_a_binary_is_asked(tmp_path, monkeypatch, script, expected):
    monkeypatch.setattr(
        "runtime.kernel.fork.threads", lambda _task_fd=None: 1
    )  # those of tests that ran before; the child executes at once
    path = tmp_path / "binary"
    path.write_text(f'#!/bin/sh\n[ "$1" = features ] || exit 9\n{script}\n')
    path.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", ASK, str(path)], capture_output=True, text=True, check=False)
    if isinstance(expected, dict):
        assert done.stdout.strip() == str(expected), done.stderr
    else:
        assert expected in done.stderr


ASK = "import sys; from shim.pod.binaries_job import run; print(run({'command': sys.argv[1:]}, [], print))"
"""A job is a process without threads."""


async def test_what_status_denies_is_refused_before_anything_is_made(world):
    node, trace = world
    node.host = replace(node.host, mapped_layers=False)
    handlers = node_status.status(node, verbose=False).runtime_handlers
    assert not any(handler.features.user_namespaces for handler in handlers)
    config = pod_config()
    mapping = api_pb2.IDMapping(host_id=100000, container_id=0, length=65536)
    userns = api_pb2.UserNamespace(mode=api_pb2.POD, uids=[mapping], gids=[mapping])
    config.linux.security_context.namespace_options.userns_options.CopyFrom(userns)
    with pytest.raises(InvalidArgument, match="runtime handler lacks"):
        await run_pod_sandbox(node, config, "")
    assert trace == []
    node.host = replace(node.host, kernel=(6, 18), mapped_layers=True)
    await run_pod_sandbox(node, config, "")
    with pytest.raises(InvalidArgument, match="runtime handler lacks"):
        await run_pod_sandbox(node, config, "runc")
