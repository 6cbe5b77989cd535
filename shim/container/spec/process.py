"""The process: what to execute, with which environment, where."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from shim.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shim.container.spec.inputs import ImageView, SpecInputs
    from shim.gen.runtime.v1.api_pb2 import ContainerConfig

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def process_args(config: ContainerConfig, image: ImageView) -> list[str]:
    """Merge the CRI's command and args with the image's entrypoint and cmd.

    A command replaces the entrypoint and drops the image's cmd; args alone keep the entrypoint and replace cmd. An
    entrypoint of one empty string is a Dockerfile's way to reset it. Raises InvalidArgument when nothing is left.
    """
    command, args = list(config.command), list(config.args)
    if not command:
        args = args or list(image.cmd)
        command = [] if list(image.entrypoint) == [""] else list(image.entrypoint)
    argv = command + args
    if not argv:
        raise InvalidArgument("no command specified: neither the container's command and args nor the image name one")
    for word in argv:
        if "\0" in word:
            raise InvalidArgument("command and args of a container cannot hold a NUL byte")
    return argv


def process_env(inputs: SpecInputs) -> list[str]:
    """Layer the environment: PATH, TERM on a terminal, HOSTNAME, the image's, the CRI's, and HOME where nobody set it.

    A later setting of a name replaces the earlier one in its place; an image entry without "=" removes the name.
    """
    config = inputs.config
    layers = [DEFAULT_PATH]
    if config.tty:
        layers.append("TERM=xterm")
    layers.append(f"HOSTNAME={inputs.pod.hostname or inputs.host.hostname}")
    layers.extend(inputs.image.env)
    layers.extend(_cri_env(config))
    merged = _merge(layers)
    if not merged.get("HOME"):
        merged["HOME"] = inputs.user.home
    return [f"{name}={value}" for name, value in merged.items()]


def _cri_env(config: ContainerConfig) -> Iterable[str]:
    for index, pair in enumerate(config.envs):
        if not pair.key or "=" in pair.key or "\0" in pair.key:
            raise InvalidArgument(f"envs[{index}].key {pair.key!r} is no name of an environment variable")
        if b"\0" in pair.value:
            raise InvalidArgument(f"envs[{index}].value of {pair.key!r} holds a NUL byte, which no environment can carry")
        yield f"{pair.key}={pair.value.decode('utf-8', 'surrogateescape')}"


def _merge(entries: Iterable[str]) -> dict[str, str]:
    merged: dict[str, str] = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if equals:
            merged[name] = value
        else:
            merged.pop(name, None)
    return merged


def process_cwd(config: ContainerConfig, image: ImageView) -> str:
    """Give the working directory: the CRI's, else the image's, else "/".

    A relative one of an image counts from "/", as Docker builds it; a relative one in the CRI raises InvalidArgument.
    """
    if config.working_dir:
        if not config.working_dir.startswith("/"):
            raise InvalidArgument(f"working_dir {config.working_dir!r} is not an absolute path")
        chosen = config.working_dir
    else:
        chosen = posixpath.join("/", image.working_dir)
    if "\0" in chosen:
        raise InvalidArgument("working_dir cannot hold a NUL byte")
    return clean_path(chosen)


def clean_path(path: str) -> str:
    """Resolve "." and ".." of an absolute path by its text alone, never above "/"; one leading slash."""
    return posixpath.normpath("/" + path.lstrip("/"))
