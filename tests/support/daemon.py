"""Private daemons: a wherryd or a containerd with its own directories, socket, bridge and subnet."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from shim.gen.wherry.v1 import wherry_pb2
from tests.support.cri import Cri
from tests.support.images import TestImage, busybox_image, docker_archive
from tests.support.process import Process
from tests.support.snapshot import parent_of
from tests.support.tools import find_cni_plugins, find_tool
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Mapping

OWNER = "WHERRY_TEST_OWNER"
"""Environment variable that a daemon and its helpers carry; its value is the daemon's directory."""


class Endpoint:
    """A CRI daemon of our own: everything it makes lies below one short directory, or carries `name`."""

    def __init__(self, name: str, subnet: str) -> None:
        self.name = name
        self.subnet = subnet
        self.folder = self._new_folder()
        self.logs = self.folder / "logs"
        self.address = str(self.folder / "s")
        self.bridge = name[:15]
        self.cgroup_parent = f"/{name}"
        self.process = Process([], self.folder / "daemon.log")
        self._cri: Cri | None = None
        self.logs.mkdir(exist_ok=True)

    def _new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(prefix="wherry-t"))

    @property
    def cri(self) -> Cri:
        """A client, connected on first use."""
        if self._cri is None:
            self._cri = Cri(self.address)
        return self._cri

    def start(self) -> None:
        """Start it and wait until it answers Version."""
        self.process.start(lambda: _accepts(self.address) and self.cri.ready())

    def load(self, images: Mapping[str, TestImage]) -> None:
        """Put images into its store, without a registry."""
        raise NotImplementedError

    def disconnect(self) -> None:
        """Forget the client: a new one is made on next use."""
        if self._cri is not None:
            self._cri.close()
            self._cri = None

    def stop(self) -> None:
        """Remove all pods and stop it; the rest is `scrub`'s."""
        try:
            if self.process.running:
                self.cri.remove_all()
        finally:
            self.disconnect()
            self.process.stop()

    def scrub(self) -> list[str]:
        """Take away everything that is still there, and say what it was; for teardown, also after failures."""
        self.disconnect()
        self.process.kill()
        found = self._kill_helpers() + self._unmount()
        self._delete_bridge()
        found += self._remove_cgroups()
        shutil.rmtree(self.folder, ignore_errors=True)
        return found

    def helpers(self) -> list[int]:
        """Give the pids of all processes that descend from this daemon, also when it has died."""
        mark = f"{OWNER}={self.folder}".encode()
        return [pid for pid in _pids() if _carries(pid, mark)]

    def _kill_helpers(self) -> list[str]:
        found = []
        for _round in range(3):
            for pid in self.helpers():
                with suppress(OSError):
                    found.append(f"process {pid} {Path(f'/proc/{pid}/cmdline').read_bytes().replace(bytes(1), b' ').decode()}")
                    os.kill(pid, signal.SIGKILL)
        return found

    def _unmount(self) -> list[str]:
        with open("/proc/self/mountinfo", encoding="utf-8") as table:
            points = [line.split()[4] for line in table]
        ours = [point for point in points if point.startswith(f"{self.folder}/")]
        for point in reversed(ours):
            subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
        return [f"mount {point}" for point in ours]

    def _delete_bridge(self) -> None:
        """Delete the bridge: it is made once a network and stays by design."""
        if os.path.exists(f"/sys/class/net/{self.bridge}"):
            subprocess.run([find_tool("ip"), "link", "del", self.bridge], check=False, capture_output=True)

    def _remove_cgroups(self) -> list[str]:
        """Remove the cgroups below our parent; those with processes inside are reported, the empty parent itself is not."""
        found = []
        for top in _cgroup_parents(self.cgroup_parent):
            for folder, _subfolders, _files in os.walk(top, topdown=False):
                if folder != top:
                    found.append(f"cgroup {folder}")
                with suppress(OSError):
                    os.rmdir(folder)
        return found


class Wherryd(Endpoint):
    """A private wherryd with the bundled default network (or the standard plugins' configuration in `conf_dir`)."""

    def stop(self) -> None:
        """Also wait for the spawner and what it forked: they end by themselves, but after wherryd."""
        super().stop()
        with suppress(TimeoutError):
            wait_for(lambda: not self.helpers(), "the daemon's helpers to end", seconds=5)

    def __init__(
        self,
        name: str = "wtest0",
        subnet: str = "10.189.0.0/16",
        *,
        extra: str = "",
        standard_plugins: bool = False,
        driver: str = "cgroupfs",
    ) -> None:
        super().__init__(name, subnet)
        self.driver = driver
        self.root = self.folder / "root"
        self.state = self.folder / "state"
        self.netns = self.folder / "netns"
        self.conf_dir = self.folder / "net.d"
        for folder in (self.netns, self.conf_dir):
            folder.mkdir(exist_ok=True)
        self.config = self.folder / "wherryd.toml"
        self.config.write_text(self._configuration(standard_plugins=standard_plugins) + extra)
        if standard_plugins:
            write_bridge_network(self.conf_dir, self.bridge, subnet, str(self.folder / "ipam"))
        program = str(Path(sys.executable).parent / "wherryd")
        self.process = Process([program, "--config", str(self.config)], self.folder / "daemon.log", environment=self._mark())

    def _mark(self) -> Mapping[str, str]:
        return {OWNER: str(self.folder)}

    def _configuration(self, *, standard_plugins: bool) -> str:
        bundled = "false" if standard_plugins else "true"
        bin_dirs = f'["{find_cni_plugins()}"]' if standard_plugins else "[]"
        octet = int(self.subnet.split(".")[1])
        return f"""\
root = "{self.root}"
state = "{self.state}"
address = "{self.address}"

[cgroup]
driver = "{self.driver}"
parent = "{self.cgroup_parent}"

[cni]
conf_dir = "{self.conf_dir}"
bin_dirs = {bin_dirs}
netns_dir = "{self.netns}"
default_network = {bundled}
default_bridge = "{self.bridge}"
default_subnets = ["{self.subnet}", "fd00:{octet:x}::/64"]

[nri]
socket = "{self.folder}/nri"
plugin_dir = "{self.folder}/nri.d"
plugin_config_dir = "{self.folder}/nri.conf.d"

[cdi]
spec_dirs = ["{self.folder}/cdi", "{self.folder}/cdi.run"]
"""

    def _unmount(self) -> list[str]:
        return super()._unmount() + [f"netns {name}" for name in os.listdir(self.netns)]

    def load(self, images: Mapping[str, TestImage]) -> None:
        """Load images through wherry.v1."""
        archive = self.folder / "images.tar"
        archive.write_bytes(docker_archive(images))
        self.cri.wherry.Load(iter([wherry_pb2.LoadRequest(path=str(archive))]), timeout=60)
        archive.unlink()

    def kill(self) -> None:
        """Kill the daemon alone, as a crash would: monitors and containers stay."""
        self.disconnect()
        self.process.kill()


class Containerd(Endpoint):
    """A private containerd with one runtime (runc, crun …) as the default, standard CNI plugins and no registry access."""

    def __init__(self, name: str, subnet: str, *, runtime: str = "runc", binary: str = "", tidy: bool = True) -> None:
        """`tidy`: what it leaves is told by scrub(); calls that are cancelled leave its own runtime's cgroups and processes."""
        super().__init__(name, subnet)
        self.runtime = runtime
        self._tidy = tidy
        daemon = binary or find_tool("containerd")
        conf_dir = self.folder / "net.d"
        conf_dir.mkdir()
        write_bridge_network(conf_dir, self.bridge, subnet, str(self.folder / "ipam"))
        self.config = self.folder / "config.toml"
        self.config.write_text(self._configuration(conf_dir, runtime, newer=_major(daemon) >= 2))
        folder = os.path.dirname(daemon)
        environment = {OWNER: str(self.folder), "PATH": f"{folder}:{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"}
        command = [*without_hybrid(runtime), daemon, "--config", str(self.config), "--log-level", "warn"]
        self.process = Process(command, self.folder / "daemon.log", environment=environment)
        self.ctr = shutil.which("ctr", path=folder) or find_tool("ctr")

    def _configuration(self, conf_dir: Path, runtime: str, *, newer: bool) -> str:
        path = runtime if "/" in runtime else find_tool(runtime)
        disabled = json.dumps([f"io.containerd.snapshotter.v1.{name}" for name in ("aufs", "btrfs", "devmapper", "zfs")])
        head = f"""\
version = {3 if newer else 2}
root = "{self.folder}/root"
state = "{self.folder}/state"
disabled_plugins = {disabled}
[grpc]
  address = "{self.address}"
[ttrpc]
  address = "{self.address}.ttrpc"
"""
        cni = f'bin_dir = "{find_cni_plugins()}"\n    conf_dir = "{conf_dir}"'
        options = f"""runtime_type = "io.containerd.runc.v2"
    [plugins.{{cri}}.containerd.runtimes.peer.options]
      BinaryName = "{path}"
"""
        cri = '"io.containerd.cri.v1.runtime"' if newer else '"io.containerd.grpc.v1.cri"'
        pause = f'[plugins.{cri}]\n  sandbox_image = "{PAUSE}"\n'
        if newer:
            pause = f'[plugins."io.containerd.cri.v1.images".pinned_images]\n  sandbox = "{PAUSE}"\n[plugins.{cri}]\n'
            pause += f'  cdi_spec_dirs = ["{self.folder}/cdi"]\n'
        return (
            head
            + f"""\
{pause}  restrict_oom_score_adj = true
[plugins.{cri}.cni]
    {cni}
[plugins.{cri}.containerd]
    default_runtime_name = "peer"
[plugins.{cri}.containerd.runtimes.peer]
    {options.format(cri=cri)}
"""
        )

    def load(self, images: Mapping[str, TestImage]) -> None:
        """Import images, and the pause image with the first, as `ctr` does it."""
        pause = busybox_image(config={"Entrypoint": ["/bin/sleep", "100000000"], "Cmd": None})
        archive = self.folder / "images.tar"
        archive.write_bytes(docker_archive({PAUSE: pause, **images}))
        command = [self.ctr, "--address", self.address, "--namespace", "k8s.io", "images", "import", str(archive)]
        subprocess.run(command, check=True, capture_output=True)
        archive.unlink()

    def scrub(self) -> list[str]:
        """Also end the shims: they outlive containerd by design."""
        found = super().scrub()
        return [thing for thing in found if self._tidy and "containerd-shim" not in thing]


BUSYBOX = "docker.io/library/busybox:latest"
"""Name of the image that every daemon of ours has; "busybox" finds it."""
PAUSE = "localhost/test/pause:1"
"""Name of the image of containerd's sandbox container."""


def write_bridge_network(conf_dir: Path, bridge: str, subnet: str, ipam_dir: str) -> None:
    """Write a configuration for the standard plugins: bridge, host-local, masquerading and host ports."""
    ipam = {"type": "host-local", "dataDir": ipam_dir, "ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}]}
    plugins = [
        {"type": "bridge", "bridge": bridge, "isGateway": True, "ipMasq": True, "hairpinMode": True, "ipam": ipam},
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ]
    document = {"cniVersion": "1.0.0", "name": bridge, "plugins": plugins}
    (conf_dir / "10-test.conflist").write_text(json.dumps(document))


def without_hybrid(runtime: str) -> list[str]:
    """Give the command that hides the unified hierarchy of a hybrid host from crun, which refuses to run beside it."""
    unified = "/sys/fs/cgroup/unified"
    if not runtime.endswith("crun") or not os.path.ismount(unified):
        return []
    return ["unshare", "--mount", "--propagation", "slave", "sh", "-c", f'umount {unified} && exec "$@"', "sh"]


def _major(containerd: str) -> int:
    output = subprocess.run([containerd, "--version"], capture_output=True, text=True, check=True).stdout
    return int(output.split()[2].lstrip("v").partition(".")[0])


def _accepts(path: str) -> bool:
    """Say whether somebody listens; a gRPC channel that tries too early waits a second before it tries again."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]


def _carries(pid: int, mark: bytes) -> bool:
    """Say whether a process or an ancestor of it carries the mark."""
    with suppress(OSError):
        while pid > 1:
            if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                return True
            pid = parent_of(pid)
    return False


def _cgroup_parents(path: str) -> list[str]:
    base = "/sys/fs/cgroup"
    candidates = [base + path, *(f"{base}/{name}{path}" for name in os.listdir(base))]
    return [folder for folder in candidates if os.path.isdir(folder)]
