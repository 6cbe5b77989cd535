"""Debian's docker-registry on a loopback port, and pushing images to it."""

from __future__ import annotations

import http.client
import json
import socket
from base64 import b64encode
from typing import TYPE_CHECKING

from tests.support.images import OCI, TestImage, digest_of
from tests.support.process import Process
from tests.support.tools import find_tool

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def free_port() -> int:
    """Give a TCP port of 127.0.0.1 that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Registry:
    """A private registry over plain HTTP, or TLS; with `users` (htpasswd lines) it wants basic authentication."""

    def __init__(self, folder: Path, *, users: str = "", certificate: Path | None = None, key: Path | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.folder = folder
        self.tls = certificate is not None
        self.credentials: tuple[str, str] | None = None
        config = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{self.port}"},
        }
        if certificate is not None:
            config["http"] |= {"tls": {"certificate": str(certificate), "key": str(key)}}  # type: ignore[operator]  # it is a dict
        if users:
            (folder / "htpasswd").write_text(users)
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
        (folder / "config.yml").write_text(json.dumps(config))  # JSON is YAML
        command = [find_tool("docker-registry"), "serve", str(folder / "config.yml")]
        self.process = Process(command, folder / "log", environment={"OTEL_TRACES_EXPORTER": "none"})

    @property
    def host(self) -> str:
        """Its name in image references."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> Registry:
        """Start it and wait until it answers."""
        self.process.start(self._answers)
        return self

    def stop(self) -> None:
        """Stop it."""
        self.process.stop()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False

    def push(self, repository: str, tag: str, image: TestImage) -> str:
        """Upload an image and give its full reference."""
        for digest, blob in image.blobs().items():
            self.push_blob(repository, digest, blob)
        self.push_manifest(repository, tag, image.manifest, image.media["manifest"])
        return f"{self.host}/{repository}:{tag}"

    def push_index(self, repository: str, tag: str, images: Mapping[str, TestImage], media: Mapping[str, str] = OCI) -> str:
        """Upload one image a platform ("linux/amd64", "linux/arm64/v8" …) under one name."""
        manifests = []
        for platform, image in images.items():
            self.push(repository, digest_of(image.manifest), image)
            system, architecture, *variant = platform.split("/")
            described = {"os": system, "architecture": architecture} | ({"variant": variant[0]} if variant else {})
            manifests.append(
                {
                    "mediaType": image.media["manifest"],
                    "digest": digest_of(image.manifest),
                    "size": len(image.manifest),
                    "platform": described,
                }
            )
        index = {"schemaVersion": 2, "mediaType": media["index"], "manifests": manifests}
        self.push_manifest(repository, tag, json.dumps(index).encode(), media["index"])
        return f"{self.host}/{repository}:{tag}"

    def push_blob(self, repository: str, digest: str, blob: bytes) -> None:
        """Upload one blob."""
        location = self._request("POST", f"/v2/{repository}/blobs/uploads/", b"", {}, 202)
        path = location.partition(self.host)[2] or location
        joint = "&" if "?" in path else "?"
        self._request("PUT", f"{path}{joint}digest={digest}", blob, {"Content-Type": "application/octet-stream"}, 201)

    def push_manifest(self, repository: str, tag: str, manifest: bytes, media_type: str) -> None:
        """Upload one manifest or index under a tag or its digest."""
        self._request("PUT", f"/v2/{repository}/manifests/{tag}", manifest, {"Content-Type": media_type}, 201)

    def _request(self, method: str, path: str, body: bytes, headers: dict[str, str], expected: int) -> str:
        if self.credentials:
            headers |= {"Authorization": "Basic " + b64encode(":".join(self.credentials).encode()).decode()}
        kind = http.client.HTTPSConnection if self.tls else http.client.HTTPConnection
        options = {"context": _unverified()} if self.tls else {}
        connection = kind("127.0.0.1", self.port, timeout=60, **options)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = response.read()
            if response.status != expected:
                raise RuntimeError(f"{method} {path}: {response.status} {answer[:300]!r}")
            return response.getheader("Location", "")
        finally:
            connection.close()


def _unverified() -> object:
    import ssl

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
