"""Before the crash: pods run, images come from a registry and from archives, containers come and go, and the power fails."""

from __future__ import annotations

import itertools
import json
import os
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc

from tests.support.cri import Cri, PodMaker
from tests.support.daemon import BUSYBOX
from tests.support.images import busybox_image
from tests.support.wait import wait_for
from tests.vm.crash.daemon import EARLY, FACTS, FINISHED, Lasting, cargo, mount, name_of

READY = Path("/job/ready")
LATER = 2
"""Images to be loaded after the flush, before the machine may crash."""
ENDLESS = cargo(1000)


class Registry(BaseHTTPRequestHandler):
    """Serves an image whose layers never come to their end."""

    def do_GET(self) -> None:
        """Answer; of a layer a part only, and then nothing more."""
        blob = ENDLESS.blobs().get(self.path.rpartition("/")[2], ENDLESS.manifest)
        self.send_response(200)
        self.send_header("Content-Type", ENDLESS.media["manifest"])
        self.send_header("Content-Length", str(len(blob)))
        self.end_headers()
        whole = blob in (ENDLESS.manifest, ENDLESS.config_blob)
        self.wfile.write(blob if whole else blob[: len(blob) // 2])
        self.wfile.flush()
        if not whole:
            PULLING.set()
            threading.Event().wait()

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


PULLING = threading.Event()


def main() -> None:
    """Get there and go on until the machine ends."""
    mount()
    wherryd = Lasting()
    wherryd.start()
    wherryd.load({BUSYBOX: busybox_image(), **{name_of(number): cargo(number) for number in range(EARLY)}})
    FACTS.write_text(json.dumps(occupy(wherryd.cri, PodMaker(logs=str(wherryd.logs)))))
    os.sync()
    for work in (load, pull, churn):
        threading.Thread(target=work, args=(wherryd,), daemon=True).start()
    wait_for(lambda: FINISHED.exists() and FINISHED.read_text().count("\n") >= LATER, "images to be loaded", seconds=60)
    PULLING.wait()
    READY.touch()
    threading.Event().wait()


def occupy(cri: Cri, pods: PodMaker) -> dict[str, object]:
    """Have two pods run and one container end; give what is to be found again."""
    running = []
    for name in ("one", "two"):
        config = pods.pod(name=name)
        pod = cri.run_pod(config)
        order = pods.container("busybox", ["sh", "-c", f"echo {name} was here; exec sleep 10000"], name="runs")
        container = cri.create(pod, order, config)
        cri.start(container)
        running.append({"pod": pod, "container": container, "said": f"{name} was here"})
    ended = cri.create(pod, pods.container("busybox", ["sh", "-c", "exit 7"], name="ended"), config)
    cri.start(ended)
    cri.wait_exit(ended)
    return {"running": running, "ended": ended}


def load(wherryd: Lasting) -> None:
    """Load one image after the other, and write down which are there."""
    for number in itertools.count(EARLY):
        wherryd.load({name_of(number): cargo(number)})
        with FINISHED.open("a") as finished:
            finished.write(f"{number}\n")


def pull(wherryd: Lasting) -> None:
    """Pull an image that will not be there."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Registry) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Cri(wherryd.address).pull(f"127.0.0.1:{server.server_port}/endless:1")


def churn(wherryd: Lasting) -> None:
    """Make and remove containers."""
    cri, pods = Cri(wherryd.address), PodMaker(logs=str(wherryd.logs))
    config = pods.pod(name="churn")
    pod = cri.run_pod(config)
    for number in itertools.count():
        with suppress(grpc.RpcError):
            container = cri.create(pod, pods.container("busybox", ["sleep", "1000"], name=f"c{number}"), config)
            cri.start(container)
            cri.stop(container)
            cri.remove(container)


if __name__ == "__main__":
    main()
