"""What a person is told when something fails: one line, no traceback.

    ClientError          exit code 1, the message on stderr
    └ NotFoundError      no pod, container or image has that name

Usage errors are click's and end with code 2. `run` and `exec` end with the code of the container's process.
"""

from __future__ import annotations

import click


class ClientError(click.ClickException):
    """A failure with a message for people; click prints it and exits with 1."""

    exit_code = 1

    def show(self, file: object = None) -> None:
        """Print the message on stderr."""
        del file
        click.echo(f"wherry: {self.message}", err=True)


class NotFoundError(ClientError):
    """Nothing, or more than one thing, has the name or the beginning of the id."""
