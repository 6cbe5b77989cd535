"""checkpoint and restore: the flags of runc for criu."""

from __future__ import annotations

import os

from runtime import api
from runtime.checkpoint.request import CriuOptions, DumpRequest, RestoreRequest
from runtime.errors import UsageFault
from runtime.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.cli.context import Context
    from runtime.request import CreateRequest
    from runtime.state import ContainerState

_DEFAULT_IMAGES = "checkpoint"


def checkpoint(context: Context) -> int:
    """Save a container; it ends, unless it is to run on."""
    values = context.values
    request = DumpRequest(
        container_id=context.container_id,
        state_root=context.root,
        options=_options(context),
        parent=values.text("parent-path"),
        leave_running=values.flag("leave-running"),
        tcp_skip_in_flight=values.flag("tcp-skip-in-flight"),
        link_remap=values.flag("link-remap"),
        pre_dump=values.flag("pre-dump"),
        page_server=_page_server(values.text("page-server")),
        status_fd=_status_fd(values.number("status-fd", -1)),
    )
    api.checkpoint(request)
    return 0


def _options(context: Context) -> CriuOptions:
    values = context.values
    for kind in values.texts("empty-ns"):
        if kind != "network":
            raise UsageFault(f"namespace {kind!r} is not supported by --empty-ns: only network is")
    return CriuOptions(
        images=os.path.abspath(values.text("image-path") or _DEFAULT_IMAGES),
        work=os.path.abspath(values.text("work-path")) if values.text("work-path") else "",
        program=context.criu,
        tcp_established=values.flag("tcp-established"),
        ext_unix_sk=values.flag("ext-unix-sk"),
        shell_job=values.flag("shell-job"),
        file_locks=values.flag("file-locks"),
        lazy_pages=values.flag("lazy-pages"),
        auto_dedup=values.flag("auto-dedup"),
        cgroups_mode=values.text("manage-cgroups-mode"),
    )


def _page_server(text: str) -> tuple[str, int] | None:
    if not text:
        return None
    address, _, port = text.rpartition(":")
    address = address.removeprefix("[").removesuffix("]")
    if not address or not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 1 << 16):
        raise UsageFault("use --page-server ADDRESS:PORT to specify the page server")
    return address, int(port)


def _status_fd(number: int) -> int:
    """Give --status-fd; raise UsageFault when it is no descriptor that can be written to."""
    if number < 0:
        return -1
    import fcntl

    try:
        writable = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
    except (OSError, OverflowError) as error:
        raise UsageFault(f"invalid --status-fd argument {number}: bad file descriptor") from error
    if not writable:
        raise UsageFault(f"invalid --status-fd argument {number}: not writable")
    return number


def restore(context: Context) -> int:
    """Make a container from images and, unless detached, stay until it ends and give its exit code."""
    from runtime.cli import lifecycle

    options = _options(context)

    def make(order: CreateRequest) -> ContainerState:
        return api.restore(
            RestoreRequest(
                create=order,
                options=options,
                lsm_profile=context.values.text("lsm-profile"),
                lsm_mount_context=context.values.text("lsm-mount-context"),
            )
        )

    if not context.values.flag("detach"):
        return _restore_attended(context, lifecycle.create_request(context, detached=False), make)
    order = lifecycle.create_request(context, detached=True)
    console = lifecycle.console_socket(context, order.spec, detached=True)
    try:
        make(replace(order, console_socket=console))
    finally:
        if console is not None:
            os.close(console)
    return 0


def _restore_attended(context: Context, order: CreateRequest, make: Callable[[CreateRequest], ContainerState]) -> int:
    from runtime.cli import foreground, lifecycle

    foreground.adopt()
    terminal, pid = lifecycle.make_attended(context, order, make)
    try:
        if context.values.flag("no-subreaper"):
            foreground.stop_adopting()
        code = foreground.attend(pid, foreground.Watch(), terminal, foreground.forward_to(pid))
        api.delete(context.root, context.container_id, force=True)
        return code
    finally:
        if terminal is not None:
            terminal.close()
