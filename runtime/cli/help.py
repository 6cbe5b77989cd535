"""Help and version texts."""

from __future__ import annotations

import sys

from runtime.cli.table import COMMANDS, GLOBAL_OPTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION = "0.1.0"


def print_version() -> int:
    """Print the versions of the runtime, the specification and libseccomp, in runc's lines."""
    from runtime.kernel.libseccomp import version
    from runtime.spec.defaults import OCI_VERSION

    python = ".".join(map(str, sys.version_info[:3]))
    sys.stdout.write(f"wherry-oci version {VERSION}\nspec: {OCI_VERSION}\npython: {python}\n")
    if library := version():
        sys.stdout.write(f"libseccomp: {library}\n")
    return 0


def print_help(topic: Sequence[str]) -> int:
    """Print the help of one command, or of all."""
    name = topic[0] if topic else ""
    if name and name not in COMMANDS:
        sys.stderr.write(f"No help topic for '{name}'\n")
        return 3
    if name:
        summary, arguments, _, _, _, options, _ = COMMANDS[name]
        sys.stdout.write(f"NAME:\n   wherry-oci {name} - {summary}\n\n")
        sys.stdout.write(f"USAGE:\n   wherry-oci {name} [command options] {arguments}".rstrip() + "\n")
        if options.strip():
            sys.stdout.write(f"\nOPTIONS:\n{columns(options)}")
        return 0
    sys.stdout.write(
        "NAME:\n   wherry-oci - Open Container Initiative runtime: containers as the specification describes them\n\n"
    )
    sys.stdout.write("USAGE:\n   wherry-oci [global options] command [command options] [arguments...]\n\n")
    sys.stdout.write(f"VERSION:\n   {VERSION}\n\nCOMMANDS:\n")
    sys.stdout.write(columns("\n".join(f"{command}  {COMMANDS[command][0]}" for command in sorted(COMMANDS))))
    sys.stdout.write(f"\nGLOBAL OPTIONS:\n{columns(GLOBAL_OPTIONS)}")
    return 0


def columns(text: str) -> str:
    """Align lines of two parts, which two spaces divide."""
    rows = [line.strip().partition("  ") for line in text.splitlines() if line.strip()]
    width = max(len(head) for head, _, _ in rows)
    return "".join(f"   {head.ljust(width)}  {rest.strip()}\n" for head, _, rest in rows)
