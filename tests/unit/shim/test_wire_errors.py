"""Errors that cross as values, and sockets at paths of any length."""

from __future__ import annotations

import errno
from errno import EBUSY, EINVAL, ENOSPC
from typing import TYPE_CHECKING

import pytest

from runtime.errors import CgroupFault, NotFoundFault, SpecFault, StartFault
from shim import errors, wire

if TYPE_CHECKING:
    from pathlib import Path


KINDS = [kind for kind in errors.WherryError.__subclasses__() if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_class_comes_out_as_itself(kind: type[errors.WherryError]) -> None:
    back = wire.error_of(wire.value_of(kind("pod x: it broke")))
    assert type(back) is kind
    assert str(back) == "pod x: it broke"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (NotFoundFault("container x does not exist"), errors.NotFound),
        (SpecFault("must be a string", pointer="/process/cwd"), errors.InvalidArgument),
        (StartFault("", errno=2, path="/nope"), errors.WherryError),
        (CgroupFault("cpu shares 1 are too few", step="plan the cgroup"), errors.InvalidArgument),
        (CgroupFault("", step="limit the container", errno=EINVAL), errors.InvalidArgument),
        (CgroupFault("", step="limit the container", errno=EBUSY), errors.FailedPrecondition),
        (CgroupFault("", step="limit the container", errno=ENOSPC), errors.FailedPrecondition),  # a cpuset's word
        (CgroupFault("", step="make the cgroup", errno=ENOSPC), errors.ResourceExhausted),
        (CgroupFault("", step="make the cgroup", errno=EINVAL), errors.WherryError),
    ],
)
def test_faults_of_the_runtime(fault: Exception, kind: type[errors.WherryError]) -> None:
    back = wire.error_of(wire.value_of(fault))
    assert type(back) is kind
    assert back.details["fault"]["kind"] == fault.kind  # type: ignore[attr-defined] - the parameter types it as Exception
    assert str(back) == str(fault)


def test_os_errors_keep_errno_and_path() -> None:
    back = wire.error_of(wire.value_of(OSError(errno.ENOSPC, "no space", "/x")))
    assert dict(back.details) == {"errno": errno.ENOSPC, "path": "/x"}


@pytest.mark.parametrize("value", [None, 3, "x", {}, {"code": []}, {"code": "NOT_FOUND", "details": 3}])
def test_garbage_is_still_an_error(value: object) -> None:
    assert isinstance(wire.error_of(value), errors.WherryError)


def test_a_path_longer_than_the_kernel_allows(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100) / ("y" * 100)
    folder.mkdir(parents=True)
    path = str(folder / "monitor.sock")
    with wire.listen(path) as listener:
        assert (folder / "monitor.sock").stat().st_mode & 0o777 == 0o600
        with wire.connect(path) as client:
            server, _address = listener.accept()
            with server:
                wire.send(client, {"a": 1})
                assert wire.recv(server) == ({"a": 1}, [])
        with pytest.raises(errors.AlreadyExists):
            wire.listen(path)
    with wire.listen(path):  # the stale one is replaced
        pass


def test_deeply_nested_json_is_garbage() -> None:
    one, two = wire.pair()
    with one, two:
        one.send(b"J" + b"[" * 60000)
        with pytest.raises(wire.WireError):
            wire.recv(two)
