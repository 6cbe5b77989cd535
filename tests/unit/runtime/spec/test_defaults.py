"""What `spec` writes is, but for names and versions, what runc's writes."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from runtime.spec.defaults import default_spec
from tests.support.tools import MissingToolError, find_tool, in_ci

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("rootless", [False, True])
def test_same_facts_as_runc(tmp_path: Path, rootless: bool) -> None:
    try:
        runc = find_tool("runc")
    except MissingToolError as error:
        if in_ci():
            raise
        pytest.skip(str(error))
    subprocess.run([runc, "spec", *(["--rootless"] if rootless else [])], cwd=tmp_path, check=True)
    theirs = json.loads((tmp_path / "config.json").read_text())
    unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    ours = default_spec(rootless=rootless, user=(os.geteuid(), os.getegid()), cgroup_namespace=unified)
    for document in (theirs, ours):
        del document["ociVersion"], document["hostname"]
        document["process"]["capabilities"].pop("ambient", None)  # runc has left the set out since 1.2
    assert ours == theirs
