"""Entry point of `wherry`."""

from __future__ import annotations

import click

from shim.client.commands import forward, images, inspect, lifecycle, lists, logs, pull, run, session, usage
from shim.client.connection import DEFAULT_ADDRESS, VARIABLES, default_address
from shim.client.context import Context

COMMANDS = (
    run.run,
    lists.ps,
    lists.pods,
    lists.images,
    usage.stats,
    usage.events,
    session.exec_command,
    session.attach,
    logs.logs,
    forward.port_forward,
    lifecycle.stop,
    lifecycle.remove,
    pull.pull,
    images.load,
    images.save,
    images.tag,
    images.remove_image,
    images.prune,
    inspect.inspect,
    inspect.version,
    inspect.info,
)


class InOrder(click.Group):
    """A group whose help lists the commands in the order in which one meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the names as they were added."""
        del ctx
        return list(self.commands)


@click.group(cls=InOrder, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": None})
@click.option(
    "-a",
    "--address",
    default=default_address,
    show_default=DEFAULT_ADDRESS,
    envvar=VARIABLES,
    show_envvar=True,
    help="Endpoint of the daemon.",
)
@click.version_option(package_name="wherry")
@click.pass_context
def main(context: click.Context, address: str) -> None:
    """Run pods and containers, and look after images, on any node that speaks CRI.

    A container, pod or image is named by its name, its id, or the beginning of its id. A container made by `wherry run`
    lives in a pod of its own and the two are handled as one. Exit codes: 0 for success, 1 when something failed, 2 for a
    wrong command line; `run`, `exec` and `attach` end with the exit code of the process.
    """
    context.obj = Context(address=address)


for _command in COMMANDS:
    main.add_command(_command)
