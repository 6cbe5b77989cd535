"""mounts: add to and remove from a running container, as crun does."""

from __future__ import annotations

from runtime.errors import UsageFault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.cli.context import Context


def mounts(context: Context) -> int:
    """Add the mounts a file lists to a running container, or remove them."""
    from runtime.cli.lifecycle import read_document
    from runtime.launch.hotmounts import add_mounts, remove_mounts
    from runtime.spec.parse import parse_mounts

    verb, container_id, path = context.values.arguments
    doing = {"add": add_mounts, "remove": remove_mounts}.get(verb)
    if doing is None:
        raise UsageFault(f"unknown command {verb}: mounts are to add or to remove")
    doing(context.root, container_id, parse_mounts(read_document(path), path))
    return 0
