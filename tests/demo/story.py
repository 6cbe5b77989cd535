"""The story: a pod of two containers lives through the crash of its daemon."""

from __future__ import annotations

import os
import select
import time
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shim.client import logfile
from shim.gen.runtime.v1 import api_pb2
from tests.support.cri import Cri, PodMaker
from tests.support.daemon import BUSYBOX, Endpoint
from tests.support.images import busybox_image, files_layer
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.demo.show import Show

PORT = 8080
PAGE = "hello from the pod\n"
COUNT = "i=0; while :; do echo tick $i; i=$((i+1)); usleep 20000; done"
BRIEF = "trap 'exit 7' TERM; echo waiting; while :; do usleep 10000; [ -e /tmp/go ] && exit 7; done"


@dataclass(slots=True, kw_only=True)
class Story:
    """The endpoint, what runs on it, and what it looked like before the crash."""

    endpoint: Endpoint
    show: Show
    crash: Callable[[], None]
    """Kill the daemon alone."""
    pod: str = ""
    address: str = ""
    containers: dict[str, str] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)
    config: api_pb2.PodSandboxConfig = field(default_factory=api_pb2.PodSandboxConfig)

    @property
    def cri(self) -> Cri:
        """The present connection: it is another one after the crash."""
        return self.endpoint.cri

    @property
    def make(self) -> PodMaker:
        """Makes configurations."""
        return PodMaker(logs=str(self.endpoint.logs), labels={"app": "demo"})

    def tell(self) -> None:
        """Go through all steps; raise CheckError, or what gRPC raises, at the first that fails."""
        for part in (self.begin, self.run_pod, self.look, self.talk, self.lose_the_daemon, self.find_everything, self.clean):
            part()

    def begin(self) -> None:
        """Start the daemon and give it an image."""
        with self.show.step("start wherryd in a temporary root, with the bundled default network"):
            self.endpoint.start()
            version = self.cri.runtime.Version(api_pb2.VersionRequest())
            self.show.say(f"{version.runtime_name} {version.runtime_version}, CRI {version.runtime_api_version}")
            self.show.say(f"pid {self.endpoint.process.pid}, socket {self.endpoint.address}")
        with self.show.step("make a small image from a static busybox and load it; no registry is involved"):
            page = files_layer({"www/index.html": PAGE})
            self.endpoint.load({BUSYBOX: busybox_image(extra=(page,))})
            images = self.cri.images.ListImages(api_pb2.ListImagesRequest()).images
            self.show.say("\n".join(f"{name}  {image.id[:19]}" for image in images for name in image.repo_tags))
            found = [name for image in images for name in image.repo_tags]
            self.show.check("the image is there", holds=BUSYBOX in found, found=found)

    def run_pod(self) -> None:
        """Run a pod, a web server in it, and a counter beside it."""
        with self.show.step("run a pod: RunPodSandbox"):
            self.config = self.make.pod("demo", cgroup_parent=self.endpoint.cgroup_parent)
            self.pod = self.cri.run_pod(self.config)
        with self.show.step("create and start its first container, a web server"):
            self._start("web", "httpd", "-f", "-p", str(PORT), "-h", "/www")
        with self.show.step("create and start its second container, which counts into its log"):
            self._start("counter", "sh", "-c", COUNT)

    def _start(self, name: str, *command: str) -> None:
        config = self.make.container(BUSYBOX, command, name=name)
        self.containers[name] = self.cri.create(self.pod, config, self.config)
        self.cri.start(self.containers[name])

    def look(self) -> None:
        """Show the pod's address, its containers and what exec and the log give."""
        with self.show.step("look at it: PodSandboxStatus, ListContainers"):
            status = self.cri.pod_status(self.pod)
            self.address = status.network.ip
            more = ", ".join(extra.ip for extra in status.network.additional_ips)
            self.show.say(f"pod {self.pod[:12]} has the IP {self.address}{f' and {more}' if more else ''}")
            self.show.check("the pod is ready and has an IP", holds=status.state == 0 and bool(self.address))
            running = {item.metadata.name for item in self.cri.containers() if item.state == api_pb2.CONTAINER_RUNNING}
            self.show.check("both containers run", holds=running == {"web", "counter"}, found=running)
            self.pids = {name: self._pid(name) for name in self.containers}
            self.show.say(", ".join(f"{name} is process {pid}" for name, pid in self.pids.items()))
        with self.show.step("run a command in it: ExecSync"):
            answer = self.cri.execute(self.containers["counter"], "sh", "-c", "hostname; id -u; ls /")
            self.show.say(answer.stdout.decode())
            self.show.check("the command ran in the pod", holds=answer.stdout.startswith(b"demo\n0\n"))
        with self.show.step("read its log"):
            lines = wait_for(lambda: (found := self._log("counter"))[5:] and found, "six lines in the log")
            self.show.say("\n".join(lines[:3]))
            self.show.check("the log counts from 0", holds=_numbers(lines)[:3] == [0, 1, 2], found=lines[:3])

    def talk(self) -> None:
        """Show that the containers share their localhost and that the host reaches the pod."""
        with self.show.step("the containers reach each other on localhost"):
            url = f"http://127.0.0.1:{PORT}/"
            answer = self.cri.execute(self.containers["counter"], "wget", "-q", "-O", "-", url)
            self.show.say(f"counter → {url}: {answer.stdout.decode().strip()}{answer.stderr.decode()}")
            self.show.check("the page came from the other container", holds=answer.stdout.decode() == PAGE)
        with self.show.step("the host reaches the pod by its IP"):
            self._fetch()

    def _fetch(self) -> None:
        with urllib.request.urlopen(f"http://{self.address}:{PORT}/", timeout=10) as response:
            page = response.read().decode()
        self.show.say(f"host → http://{self.address}:{PORT}/: {page.strip()}")
        self.show.check("the page came from the pod", holds=page == PAGE)

    def lose_the_daemon(self) -> None:
        """Kill the daemon, let a container end and others write, and start the daemon again."""
        with self.show.step("start a third container, which will end while wherryd is away"):
            self._start("brief", "sh", "-c", BRIEF)
            brief = self._pid("brief")
        with self.show.step("kill -9 wherryd"):
            descriptor = os.pidfd_open(brief)
            before = len(self._log("counter"))
            self.crash()
            self.show.check("wherryd is gone", holds=not self.endpoint.process.running)
        with self.show.step("meanwhile: the third container exits with 7, the second goes on counting"):
            started = time.time_ns()
            with open(f"/proc/{brief}/root/tmp/go", "w", encoding="ascii"):
                pass
            ended = select.select([descriptor], [], [], 10)[0]
            os.close(descriptor)
            self.show.check("the third container has ended", holds=bool(ended))
            wait_for(lambda: len(self._log("counter")) > before + 10, "ten more lines in the log")
            lines = [line for line in self._lines("counter") if _nanoseconds(line.time) > started]
            self.show.check("its log was written while nobody served", holds=len(lines) >= 5, found=len(lines))
        with self.show.step("start wherryd again"):
            self.endpoint.start()

    def find_everything(self) -> None:
        """Show that nothing was lost."""
        with self.show.step("nothing was lost"):
            status = self.cri.pod_status(self.pod)
            self.show.check(
                "the pod is ready, with the same IP",
                holds=status.state == 0 and status.network.ip == self.address,
                found=status,
            )
            pids = {name: self._pid(name) for name in self.pids}
            self.show.check("its containers are the same processes", holds=pids == self.pids, found=pids)
            brief = self.cri.status(self.containers["brief"])
            self.show.say(f"the third container: exit code {brief.exit_code}, {brief.reason}")
            exited = brief.state == api_pb2.CONTAINER_EXITED and brief.exit_code == 7
            self.show.check("the exit code of the third is known", holds=exited, found=brief)
            numbers = _numbers(self._log("counter"))
            continuous = numbers == list(range(len(numbers)))
            self.show.check(f"not one of {len(numbers)} log lines is missing", holds=continuous)
            answer = self.cri.execute(self.containers["counter"], "hostname")
            self.show.check("commands still run in it", holds=answer.stdout == b"demo\n", found=answer)
            self._fetch()

    def clean(self) -> None:
        """Remove everything and stop."""
        with self.show.step("stop and remove the containers and the pod"):
            for container in self.containers.values():
                self.cri.stop(container)
                self.cri.remove(container)
            self.cri.remove_pod(self.pod)
            self.show.check("no pod and no container is left", holds=not self.cri.pods() and not self.cri.containers())
        with self.show.step("remove the image and stop wherryd"):
            self.cri.remove_image(BUSYBOX)
            self.endpoint.stop()

    def _pid(self, name: str) -> int:
        return int(self.cri.info(self.containers[name])["pid"])

    def _lines(self, name: str) -> list[logfile.Line]:
        return list(logfile.read(f"{self.endpoint.logs}/demo/{name}_0.log"))

    def _log(self, name: str) -> list[str]:
        return [line.text.decode().rstrip("\n") for line in self._lines(name)]


def _numbers(lines: list[str]) -> list[int]:
    return [int(line.rpartition(" ")[2]) for line in lines]


def _nanoseconds(text: str) -> int:
    return int(logfile.moment(text).timestamp() * 1e9)
