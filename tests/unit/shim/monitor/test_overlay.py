"""The overlay that is mounted for other runtimes carries the label that config.json names."""

import json

import pytest

from shim.monitor import overlay
from shim.monitor.protocol import ContainerCreate, RootfsMount


@pytest.mark.parametrize(("label", "end"), [("", ""), ("u:r:t:s0:c1,c2", ',context="u:r:t:s0:c1,c2"')])
def test_the_mount_label(tmp_path, monkeypatch, label, end):
    calls = []
    monkeypatch.setattr(overlay, "mount", lambda *arguments: calls.append(arguments))
    linux = {"mountLabel": label} if label else {}
    (tmp_path / "config.json").write_text(json.dumps({"root": {"path": "boat"}, "linux": linux}))
    request = ContainerCreate(
        container_id="c",
        bundle=str(tmp_path),
        state_root="/s",
        handler="runc",
        rootfs=RootfsMount(lower=("/a", "/b"), upper="/u", work="/w"),
    )
    overlay.mount_rootfs(request)
    assert calls == [("overlay", str(tmp_path / "boat"), "overlay", 0, f"lowerdir=/a:/b,upperdir=/u,workdir=/w{end}")]
