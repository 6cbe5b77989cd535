"""What callers ask of a checkpoint and of a restore, as frozen values."""

from __future__ import annotations

from runtime.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.request import CreateRequest


class CriuOptions(Record):
    """What both directions take.

    `images` is the folder of criu's images, `work` that of its log (by default the same). `cgroups_mode` is one of criu's
    words soft, full, strict and ignore, or empty for its own choice. `tcp_close` gives connections up, at the
    checkpoint and at the restore. `program` is a path, or a name to look for in PATH.
    """

    images: str
    work: str = ""
    program: str = "criu"
    tcp_established: bool = False
    tcp_close: bool = False
    ext_unix_sk: bool = False
    shell_job: bool = False
    file_locks: bool = False
    lazy_pages: bool = False
    auto_dedup: bool = False
    cgroups_mode: str = ""


class DumpRequest(Record):
    """A checkpoint of a running or paused container, which ends by it unless `leave_running` or `pre_dump` says otherwise.

    `parent` is the folder of an earlier pre-dump, relative to the images. `page_server` takes the memory instead of the
    images. `status_fd` is told a zero byte when lazy pages can be asked for.
    """

    container_id: str
    state_root: str
    options: CriuOptions
    parent: str = ""
    leave_running: bool = False
    tcp_skip_in_flight: bool = False
    link_remap: bool = False
    pre_dump: bool = False
    page_server: tuple[str, int] | None = None
    status_fd: int = -1


class RestoreRequest(Record):
    """A container made from images instead of from a program; `create` is the order its creation would have been."""

    create: CreateRequest
    options: CriuOptions
    lsm_profile: str = ""
    lsm_mount_context: str = ""
