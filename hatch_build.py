"""Generate the gRPC stubs from proto/ into shim/gen while a wheel or an editable install is built."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
SERVICES = ("runtime/v1/api.proto", "wherry/v1/wherry.proto")


def generate(root: Path = ROOT) -> None:
    """Write shim/gen/**/*_pb2{,_grpc}.py and .pyi below `root`; raise RuntimeError when protoc refuses a file.

    protoc derives a Python import path from the virtual path of a file, so proto/ is mapped to shim/gen.
    """
    import grpc_tools
    from grpc_tools import _protoc_compiler

    out = root / "shim" / "gen"
    for source in SERVICES:
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
            f"--grpc_python_out={root}",
            f"shim/gen/{source}",
        ]
        if _protoc_compiler.run_main([argument.encode() for argument in arguments]) != 0:
            raise RuntimeError(f"protoc could not compile proto/{source}")


class StubsHook(BuildHookInterface[Any]):
    """Hatchling's hook: runs before the files of a wheel or an editable install are gathered."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate the stubs and add them to what is packed (they are ignored by git)."""
        del version
        generate(Path(self.root))
        build_data["artifacts"].append("shim/gen/**/*.py")
        build_data["artifacts"].append("shim/gen/**/*.pyi")


if __name__ == "__main__":
    sys.exit(generate())
