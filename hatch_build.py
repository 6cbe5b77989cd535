"""What is made while a wheel or an editable install is built: the gRPC stubs, and the launcher of `wherry-oci`.

The launcher takes the place of the script an installer would write, which starts an interpreter with everything in it.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
SERVICES = ("runtime/v1/api.proto", "wherry/v1/wherry.proto")
MESSAGES = ("nri/v1alpha1/api.proto", "ttrpc/v1/ttrpc.proto")
"""Spoken without gRPC: no client and no server is made for them."""


def generate(root: Path = ROOT) -> None:
    """Write shim/gen/**/*_pb2{,_grpc}.py and .pyi below `root`; raise RuntimeError when protoc refuses a file.

    protoc derives a Python import path from the virtual path of a file, so proto/ is mapped to shim/gen.
    """
    import grpc_tools
    from grpc_tools import _protoc_compiler

    out = root / "shim" / "gen"
    for source in SERVICES + MESSAGES:
        folder = out / Path(source).parent
        folder.mkdir(parents=True, exist_ok=True)
        for package in (out, folder.parent, folder):
            (package / "__init__.py").touch()
        arguments = [
            "protoc",
            f"-Ishim/gen={root / 'proto'}",
            f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
            f"--python_out={root}",
            f"--pyi_out={root}",
            *([f"--grpc_python_out={root}"] if source in SERVICES else []),
            f"shim/gen/{source}",
        ]
        if _protoc_compiler.run_main([argument.encode() for argument in arguments]) != 0:
            raise RuntimeError(f"protoc could not compile proto/{source}")


def write_launcher(root: Path, *, editable: bool) -> Path:
    """Write build/…/wherry-oci and give its path; an editable one knows where the checkout is, else it looks beside itself."""
    text = (root / "runtime/wherry-oci.sh").read_text()
    launcher = root / "build" / ("editable" if editable else "wheel") / "wherry-oci"
    launcher.parent.mkdir(parents=True, exist_ok=True)
    launcher.write_text(text.replace("\nroot=\n", f"\nroot={shlex.quote(str(root))}\n") if editable else text)
    launcher.chmod(0o755)
    return launcher


class BuildHook(BuildHookInterface[Any]):
    """Hatchling's hook: runs before the files of a wheel or an editable install are gathered."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate the stubs and the launcher, and add them to what is packed (they are ignored by git)."""
        generate(Path(self.root))
        launcher = write_launcher(Path(self.root), editable=version == "editable")
        build_data["shared_scripts"][str(launcher)] = launcher.name
        build_data["artifacts"].append("shim/gen/**/*.py")
        build_data["artifacts"].append("shim/gen/**/*.pyi")


if __name__ == "__main__":
    sys.exit(generate())
