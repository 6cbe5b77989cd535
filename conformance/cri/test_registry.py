"""PullImage from a registry that wants to know who asks, and what else a pull may say."""

from __future__ import annotations

import base64
import ctypes
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from conformance.cri.subject import refused
from shim.gen.runtime.v1 import api_pb2
from tests.support.images import TestImage, files_layer
from tests.support.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.cri.subject import Subject


@pytest.fixture(scope="module")
def closed(endpoint: Subject) -> Iterator[Registry]:
    """Give a registry that serves alice only."""
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    hashed = crypt(b"secret", b"$2y$05$abcdefghijklmnopqrstuu").decode()
    registry = Registry(endpoint.logs / "closed", users=f"alice:{hashed}\n").start()
    registry.credentials = ("alice", "secret")
    yield registry
    registry.stop()


@pytest.fixture
def kept(subject: Subject, closed: Registry) -> Iterator[tuple[str, TestImage]]:
    """Give the name of an image in that registry, which nobody has yet."""
    image = TestImage(layers=(files_layer({"note": uuid.uuid4().hex}),))
    name = closed.push(f"kept/{uuid.uuid4().hex[:8]}", "1", image)
    yield name, image
    subject.images.remove_image(name)


PACKED = base64.b64encode(b"alice:secret").decode()
ALLOWED: dict[str, dict[str, str]] = {
    "name and password": {"username": "alice", "password": "secret"},
    "both in one": {"auth": PACKED},
    "for this host": {"username": "alice", "password": "secret", "server_address": "HOST"},
    "for this host by URL": {"username": "alice", "password": "secret", "server_address": "http://HOST/v1/"},
}
FORBIDDEN: dict[str, dict[str, str]] = {
    "nothing": {},
    "wrong password": {"username": "alice", "password": "guess"},
    "nobody known": {"username": "bob", "password": "secret"},
    "for another host": {"username": "alice", "password": "secret", "server_address": "elsewhere.test"},
    "an identity token": {"identity_token": "token"},
    "a registry token": {"registry_token": "token"},
    "no base64": {"auth": "%%%"},
    "no colon": {"auth": base64.b64encode(b"alice").decode()},
}


def _auth(registry: Registry, words: dict[str, str]) -> api_pb2.AuthConfig:
    return api_pb2.AuthConfig(**{name: text.replace("HOST", registry.host) for name, text in words.items()})


@pytest.mark.parametrize("name", ALLOWED)
def test_pull_with(subject: Subject, closed: Registry, kept: tuple[str, TestImage], name: str) -> None:
    assert subject.images.pull(kept[0], _auth(closed, ALLOWED[name])) == kept[1].id


@pytest.mark.parametrize("name", FORBIDDEN)
def test_no_pull_with(subject: Subject, closed: Registry, kept: tuple[str, TestImage], name: str) -> None:
    message = refused(lambda: subject.images.pull(kept[0], _auth(closed, FORBIDDEN[name])), *_denials())
    assert "secret" not in message
    assert PACKED not in message
    assert not _shown(subject, kept[0]).id


def _denials() -> tuple[Any, ...]:
    from conformance.cri.subject import REFUSALS, Code

    return (*REFUSALS, Code.PERMISSION_DENIED, Code.UNAUTHENTICATED)


def _shown(subject: Subject, name: str) -> api_pb2.Image:
    request = api_pb2.ImageStatusRequest(image=api_pb2.ImageSpec(image=name))
    answer: api_pb2.ImageStatusResponse = subject.images.images.ImageStatus(request, timeout=10)
    return answer.image


def test_credentials_are_not_kept(subject: Subject, closed: Registry, kept: tuple[str, TestImage]) -> None:
    subject.images.pull(kept[0], _auth(closed, ALLOWED["name and password"]))
    subject.images.remove_image(kept[0])
    refused(lambda: subject.images.pull(kept[0]), *_denials())


def test_pull_for_a_pod(subject: Subject, registry: Registry) -> None:
    """kubelet says for which pod and handler it pulls, and what the user wrote; none of it changes what is pulled."""
    image = TestImage(layers=(files_layer({"note": uuid.uuid4().hex}),))
    name = registry.push(f"said/{uuid.uuid4().hex[:8]}", "1", image)
    spec = api_pb2.ImageSpec(
        image=name, user_specified_image=name, annotations={"x.test/note": "1"}, runtime_handler=subject.handler or ""
    )
    request = api_pb2.PullImageRequest(image=spec, sandbox_config=subject.pod())
    assert subject.images.images.PullImage(request, timeout=60).image_ref == image.id
    subject.images.remove_image(name)


def test_status_keeps_what_the_user_wrote(subject: Subject, registry: Registry, shared_pod: Any) -> None:
    """kubelet asks for the image by its id and shows people the name they gave."""
    del registry
    order = shared_pod.order(("true",))
    order.image.CopyFrom(
        api_pb2.ImageSpec(
            image=_shown(subject, subject.image).id, user_specified_image=subject.image, annotations={"x.test/note": "1"}
        )
    )
    container = subject.cri.create(shared_pod.id, order, shared_pod.config)
    status = subject.cri.status(container)
    assert status.image.user_specified_image == subject.image
    assert status.image.image in (subject.image, status.image_id)
