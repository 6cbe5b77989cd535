"""Options of a pod's checkpoint, and the directory RestorePod reads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from shim.errors import FailedPrecondition, InvalidArgument, NotFound
from shim.gen.runtime.v1 import api_pb2
from shim.pod.checkpoint import criu_choice
from shim.pod.restore import checkpoint_folders, match_configs

if TYPE_CHECKING:
    from pathlib import Path


def test_options_are_runcs_flags() -> None:
    assert criu_choice({}) == {"tcp_close": True, "file_locks": True, "ext_unix_sk": True}
    assert criu_choice({"tcp-established": "true", "leave-running": "true"}) == {
        "tcp_close": False, "tcp_established": True, "file_locks": True, "ext_unix_sk": True,
    }  # fmt: skip
    assert criu_choice({"file-locks": "false"})["file_locks"] is False


@pytest.mark.parametrize("options", [{"tcp-close": "1"}, {"what": "true"}, {"leave-running": "false"}, {"leave-running": ""}])
def test_other_options_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(InvalidArgument):
        criu_choice(options)


def write(path: Path, document: Any) -> str:
    (path / "pod.options").write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


def test_folders_are_inside(tmp_path: Path) -> None:
    path = write(tmp_path, {"version": 1, "containers": {"a": "a", "b": "container-b"}})
    assert checkpoint_folders(path) == {"a": f"{path}/a", "b": f"{path}/container-b"}


@pytest.mark.parametrize(
    "document",
    ["", "[]", {"version": 1}, {"version": 2, "containers": {}}, {"version": 1, "containers": {"a": "../x"}},
     {"version": 1, "containers": {"a": "/etc"}}, {"version": 1, "containers": ["a"]}],
)  # fmt: skip
def test_a_damaged_description_is_named(tmp_path: Path, document: Any) -> None:
    with pytest.raises(FailedPrecondition, match=r"version|pod\.options"):
        checkpoint_folders(write(tmp_path, document))


def test_a_path_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="is not the checkpoint of a pod"):
        checkpoint_folders(str(tmp_path))
    with pytest.raises(InvalidArgument, match="not an absolute path"):
        checkpoint_folders("relative")


def test_each_container_needs_its_configuration() -> None:
    def config(name: str) -> api_pb2.ContainerConfig:
        return api_pb2.ContainerConfig(metadata=api_pb2.ContainerMetadata(name=name))

    folders = {"a": "/p/a", "b": "/p/b"}
    assert list(match_configs("/p", folders, [config("b"), config("a")])) == ["b", "a"]
    for names in (["a"], ["a", "b", "c"], ["a", "a", "b"]):
        with pytest.raises(InvalidArgument):
            match_configs("/p", folders, [config(name) for name in names])
