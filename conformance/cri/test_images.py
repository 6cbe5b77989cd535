"""Images: pull, list, status, removal, what they occupy."""

from __future__ import annotations

import json
import os
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from conformance.cri.subject import Code, refused
from shim.gen.runtime.v1 import api_pb2
from tests.support.images import TestImage, busybox_image, digest_of, files_layer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conformance.cri.subject import Pod, Subject
    from tests.support.registry import Registry


def _status(subject: Subject, reference: str) -> api_pb2.Image:
    request = api_pb2.ImageStatusRequest(image=api_pb2.ImageSpec(image=reference))
    found: api_pb2.Image = subject.images.images.ImageStatus(request, timeout=10).image
    return found


def _list(subject: Subject, reference: str = "") -> list[api_pb2.Image]:
    wanted = api_pb2.ImageFilter(image=api_pb2.ImageSpec(image=reference)) if reference else None
    return list(subject.images.images.ListImages(api_pb2.ListImagesRequest(filter=wanted), timeout=10).images)


def _small(user: str = "", note: str = "") -> TestImage:
    """Give an image unlike any other, small enough to be pulled at once."""
    layer = files_layer({"note": note or uuid.uuid4().hex})
    return TestImage(layers=(layer,), config={"Cmd": ["/x"], "User": user})


@pytest.fixture
def made(subject: Subject, registry: Registry) -> Iterator[tuple[str, TestImage]]:
    """Give the name of an image in the registry that the endpoint has not got."""
    image = _small()
    name = registry.push(f"small/{uuid.uuid4().hex[:8]}", "1", image)
    yield name, image
    subject.images.remove_image(name)


@pytest.fixture
def pulled(subject: Subject, made: tuple[str, TestImage]) -> tuple[str, TestImage, str]:
    name, image = made
    return name, image, subject.images.pull(name)


def test_pull_gives_the_id(pulled: tuple[str, TestImage, str]) -> None:
    _name, image, reference = pulled
    assert reference == image.id


def test_pull_again_gives_the_same(subject: Subject, pulled: tuple[str, TestImage, str]) -> None:
    assert subject.images.pull(pulled[0]) == pulled[2]


FIELDS = ("id", "repo_tags", "repo_digests", "size", "uid", "pinned")


@pytest.mark.parametrize("field", FIELDS)
def test_status_has(subject: Subject, pulled: tuple[str, TestImage, str], field: str) -> None:
    name, image, _reference = pulled
    found = _status(subject, name)
    repository = name.rpartition(":")[0]
    expected = {
        "id": image.id,
        "repo_tags": [name],
        "repo_digests": [f"{repository}@{digest_of(image.manifest)}"],
        "uid": api_pb2.Int64Value(value=0),
        "pinned": False,
    }
    if field == "size":
        assert found.size > 0
    else:
        assert getattr(found, field) == expected[field]


@pytest.mark.parametrize(
    ("user", "uid", "name"), [("1234", 1234, ""), ("1234:77", 1234, ""), ("app", None, "app"), ("app:x", None, "app")]
)
def test_status_has_the_user(subject: Subject, registry: Registry, user: str, uid: int | None, name: str) -> None:
    reference = registry.push(f"user/{uuid.uuid4().hex[:8]}", "1", _small(user))
    subject.images.pull(reference)
    found = _status(subject, reference)
    subject.images.remove_image(reference)
    assert found.HasField("uid") is (uid is not None)
    assert (found.uid.value, found.username) == (uid or 0, name)


def test_verbose_status_is_json(subject: Subject, pulled: tuple[str, TestImage, str]) -> None:
    request = api_pb2.ImageStatusRequest(image=api_pb2.ImageSpec(image=pulled[0]), verbose=True)
    info = subject.images.images.ImageStatus(request, timeout=10).info
    assert json.loads(info["info"])["imageSpec"]["config"]["Cmd"] == ["/x"]


@pytest.mark.parametrize("kind", ["name", "id", "id without sha256:", "digest"])
def test_status_by(subject: Subject, pulled: tuple[str, TestImage, str], kind: str) -> None:
    name, image, _reference = pulled
    names = {
        "name": name,
        "id": image.id,
        "id without sha256:": image.id.removeprefix("sha256:"),
        "digest": f"{name.rpartition(':')[0]}@{digest_of(image.manifest)}",
    }
    assert _status(subject, names[kind]).id == image.id


@pytest.mark.parametrize("reference", ["127.0.0.1:9/no/such:1", "no-such-image-anywhere", "sha256:" + "0" * 64])
def test_status_of_an_unknown_image_is_empty(subject: Subject, reference: str) -> None:
    answer = subject.images.images.ImageStatus(api_pb2.ImageStatusRequest(image=api_pb2.ImageSpec(image=reference)), timeout=10)
    assert not answer.HasField("image")


def test_list_has_it_once(subject: Subject, pulled: tuple[str, TestImage, str]) -> None:
    name, image, _reference = pulled
    found = [one for one in _list(subject) if one.id == image.id]
    assert len(found) == 1
    assert found[0] == _status(subject, name)


def test_list_filters_by_name(subject: Subject, pulled: tuple[str, TestImage, str]) -> None:
    assert [one.id for one in _list(subject, pulled[0])] == [pulled[1].id]


def test_list_filters_by_id(subject: Subject, pulled: tuple[str, TestImage, str]) -> None:
    assert [one.id for one in _list(subject, pulled[1].id)] == [pulled[1].id]


def test_list_of_an_unknown_name_is_empty(subject: Subject) -> None:
    assert _list(subject, "127.0.0.1:9/no/such:1") == []


def test_pull_by_digest(subject: Subject, made: tuple[str, TestImage]) -> None:
    name, image = made
    reference = f"{name.rpartition(':')[0]}@{digest_of(image.manifest)}"
    assert subject.images.pull(reference) == image.id
    found = _status(subject, reference)
    assert (list(found.repo_tags), list(found.repo_digests)) == ([], [reference])
    subject.images.remove_image(image.id)


def test_two_tags_are_one_image(subject: Subject, registry: Registry) -> None:
    image, repository = _small(), f"tags/{uuid.uuid4().hex[:8]}"
    names = [registry.push(repository, tag, image) for tag in ("a", "b")]
    assert {subject.images.pull(name) for name in names} == {image.id}
    assert sorted(_status(subject, names[0]).repo_tags) == names
    subject.images.remove_image(names[0])
    assert not _status(subject, image.id).id


def test_a_moved_tag(subject: Subject, registry: Registry) -> None:
    old, new, repository = _small(), _small(), f"moved/{uuid.uuid4().hex[:8]}"
    name = registry.push(repository, "1", old)
    assert subject.images.pull(name) == old.id
    registry.push(repository, "1", new)
    assert subject.images.pull(name) == new.id
    assert _status(subject, name).id == new.id
    assert name not in _status(subject, old.id).repo_tags
    for image in (old, new):
        subject.images.remove_image(image.id)


@pytest.mark.parametrize("kind", ["name", "id"])
def test_remove_by(subject: Subject, pulled: tuple[str, TestImage, str], kind: str) -> None:
    subject.images.remove_image(pulled[0] if kind == "name" else pulled[1].id)
    assert not _status(subject, pulled[0]).id
    assert pulled[1].id not in {one.id for one in _list(subject)}


@pytest.mark.parametrize("reference", ["127.0.0.1:9/no/such:1", "sha256:" + "0" * 64])
def test_remove_of_an_unknown_image_is_no_error(subject: Subject, reference: str) -> None:
    for _ in range(2):
        subject.images.remove_image(reference)


@pytest.mark.parametrize("reference", ["127.0.0.1:9/x:1", "a b", "a//b:1", ""])
def test_pull_that_cannot_be_is_refused(subject: Subject, reference: str) -> None:
    refused(lambda: subject.images.pull(reference), *(Code.INVALID_ARGUMENT, Code.UNKNOWN, Code.UNAVAILABLE, Code.NOT_FOUND))


def test_pull_of_an_unknown_tag_is_not_found(subject: Subject, registry: Registry) -> None:
    refused(lambda: subject.images.pull(f"{registry.host}/conformance/busybox:none"), Code.NOT_FOUND)


def test_pull_of_an_unknown_repository_is_not_found(subject: Subject, registry: Registry) -> None:
    refused(lambda: subject.images.pull(f"{registry.host}/conformance/{uuid.uuid4().hex}:1"), Code.NOT_FOUND)


def test_pulls_at_once(subject: Subject, made: tuple[str, TestImage]) -> None:
    with ThreadPoolExecutor(6) as threads:
        assert set(threads.map(subject.images.pull, [made[0]] * 6)) == {made[1].id}


def test_cancelled_pull_can_be_repeated(subject: Subject, registry: Registry) -> None:
    image = busybox_image(extra=(files_layer({"noise": os.urandom(8_000_000)}),))
    name = registry.push(f"big/{uuid.uuid4().hex[:8]}", "1", image)
    request = api_pb2.PullImageRequest(image=api_pb2.ImageSpec(image=name))
    call = subject.images.images.PullImage.future(request, timeout=30)
    call.cancel()
    assert subject.images.pull(name) == image.id
    subject.images.remove_image(name)


def test_deadline_of_a_pull(subject: Subject, registry: Registry) -> None:
    image = busybox_image(extra=(files_layer({"noise": os.urandom(8_000_000)}),))
    name = registry.push(f"big/{uuid.uuid4().hex[:8]}", "1", image)
    request = api_pb2.PullImageRequest(image=api_pb2.ImageSpec(image=name))
    refused(lambda: subject.images.images.PullImage(request, timeout=0.003), Code.DEADLINE_EXCEEDED, Code.CANCELLED)
    assert subject.images.pull(name) == image.id
    subject.images.remove_image(name)


def test_filesystem(subject: Subject) -> None:
    answer = subject.images.images.ImageFsInfo(api_pb2.ImageFsInfoRequest(), timeout=10)
    (found,) = answer.image_filesystems
    assert os.path.isdir(found.fs_id.mountpoint)
    assert found.timestamp > 0
    assert found.used_bytes.value > 0


def test_filesystem_of_containers(subject: Subject) -> None:
    answer = subject.images.images.ImageFsInfo(api_pb2.ImageFsInfoRequest(), timeout=10)
    assert [os.path.isdir(one.fs_id.mountpoint) for one in answer.container_filesystems] == [True]


def test_an_image_in_use_can_be_named_by_its_id(subject: Subject, shared_pod: Pod) -> None:
    order = shared_pod.order(("true",))
    order.image.image = _status(subject, subject.image).id
    container = subject.cri.create(shared_pod.id, order, shared_pod.config)
    subject.cri.start(container)
    assert subject.cri.wait_exit(container).exit_code == 0


def test_a_container_of_an_unknown_image_is_refused(subject: Subject, shared_pod: Pod) -> None:
    order = shared_pod.order()
    order.image.image = "127.0.0.1:9/no/such:1"
    refused(lambda: subject.cri.create(shared_pod.id, order, shared_pod.config))


def test_status_names_the_image_of_a_volume(subject: Subject, registry: Registry, shared_pod: Pod) -> None:
    del registry
    mount = api_pb2.Mount(container_path="/vol", readonly=True, image=api_pb2.ImageSpec(image=subject.image))
    (shown,) = subject.cri.status(shared_pod.create(mounts=[mount])).mounts
    assert shown.image.image_ref == _status(subject, subject.image).id


@pytest.mark.parametrize("policy", ["whole", "path"])
def test_image_as_volume(subject: Subject, registry: Registry, shared_pod: Pod, policy: str) -> None:
    del registry
    mount = api_pb2.Mount(container_path="/vol", readonly=True, image=api_pb2.ImageSpec(image=subject.image))
    if policy == "path":
        mount.image_sub_path = "data/sub"
    path = "/vol/file" if policy == "path" else "/vol/data/sub/file"
    assert shared_pod.shell(f"cat {path}; touch /vol/x 2>/dev/null || echo no", mounts=[mount]) == "of the image\nno\n"
