"""create, run, start, kill, delete, pause and resume."""

from __future__ import annotations

import os

from runtime import api
from runtime.errors import HookFault, RuntimeFault, UsageFault
from runtime.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from runtime.cli.context import Context
    from runtime.cli.notify import NotifySocket
    from runtime.cli.terminal import Terminal
    from runtime.request import CreateRequest
    from runtime.spec.model import Process, Spec
    from runtime.state import ContainerState

    T = TypeVar("T")

_LISTEN_FIRST = 3
"""The first descriptor of socket activation (sd_listen_fds(3))."""


def read_spec(bundle: str, config: str | None = None) -> Spec:
    """Give a bundle's config.json, or the document `config`, parsed; raise SpecFault, or RuntimeFault for no file."""
    from runtime.spec.parse import parse_spec

    return parse_spec(read_document(config or os.path.join(bundle, "config.json")))


def read_document(path: str) -> bytes:
    """Give a file's content, no more of it than a document may have; raise RuntimeFault."""
    from runtime.spec.parse import DOCUMENT_LIMIT

    try:
        with open(path, "rb", buffering=0) as file:
            parts = []
            left = DOCUMENT_LIMIT + 1  # one more, so that the parser sees that it is too long
            while left > 0 and (part := file.read(left)):
                parts.append(part)
                left -= len(part)
            return b"".join(parts)
    except OSError as error:
        raise RuntimeFault.from_os(error, f"read {os.path.basename(path)}", path=path) from error


def create(context: Context) -> int:
    """Make a container whose init waits for `start`."""
    request = create_request(context, detached=True)
    console = console_socket(context, request.spec, detached=True)
    try:
        state = api.create(replace(request, console_socket=console))
    finally:
        if console is not None:
            os.close(console)
    _or_delete(context, lambda: _send_pidfd(context, state.pid))
    return 0


def run(context: Context) -> int:
    """Make a container, start it and, unless detached, stay until it ends and give its exit code."""
    if not context.values.flag("detach"):
        return _run_attended(context)
    request = create_request(context, detached=True)
    console = console_socket(context, request.spec, detached=True)
    try:
        state = api.create(replace(request, console_socket=console))
    finally:
        if console is not None:
            os.close(console)
    _or_delete(context, lambda: _run_detached(context, state.pid))
    return 0


def _run_detached(context: Context, pid: int) -> None:
    _send_pidfd(context, pid)
    notify = _notify_socket(context, pid)
    api.start(context.root, context.container_id)
    if notify is not None:
        notify.wait(pid)
        notify.close()


def _notify_socket(context: Context, main_pid: int) -> NotifySocket | None:
    if "NOTIFY_SOCKET" not in os.environ:
        return None
    from runtime.cli.notify import listen

    return listen(context.root, context.container_id, main_pid)


def _run_attended(context: Context) -> int:
    from runtime.cli import foreground

    request = create_request(context, detached=False)
    foreground.adopt()
    terminal, pid = make_attended(context, request, api.create)
    try:
        return _or_delete(context, lambda: _attend(context, pid, terminal))
    finally:
        if terminal is not None:
            terminal.close()


def _attend(context: Context, pid: int, terminal: Terminal | None) -> int:
    from runtime.cli import foreground

    if context.values.flag("no-subreaper"):
        foreground.stop_adopting()
    watch = foreground.Watch()
    _send_pidfd(context, pid)
    notify = _notify_socket(context, os.getpid())
    api.start(context.root, context.container_id)
    code = foreground.attend(pid, watch, terminal, foreground.forward_to(pid), notify)
    if notify is not None:
        notify.close()
    if not context.values.flag("keep"):
        api.delete(context.root, context.container_id, force=True)
    return code


def make_attended(
    context: Context, request: CreateRequest, make: Callable[[CreateRequest], ContainerState]
) -> tuple[Terminal | None, int]:
    """Create or restore with a terminal that is carried here; a console socket is for those who do not stay."""
    spec = request.spec
    wants_terminal = spec is not None and spec.process is not None and spec.process.terminal
    if context.values.given("console-socket"):
        raise UsageFault("cannot use console socket if the runtime will not detach: add --detach")
    if not wants_terminal:
        return None, make(request).pid
    from runtime.cli import sockets
    from runtime.cli.terminal import Terminal

    ours, theirs = sockets.pair()
    try:
        state = make(replace(request, console_socket=theirs))
        return Terminal(sockets.receive_fd(ours, "receive the terminal")), state.pid
    finally:
        os.close(ours)
        os.close(theirs)


def _or_delete(context: Context, work: Callable[[], T]) -> T:
    """Do what comes after the creation; when that fails, whatever the reason, the container is gone again."""
    try:
        return work()
    except BaseException:
        api.delete(context.root, context.container_id, force=True)
        raise


def create_request(context: Context, *, detached: bool) -> CreateRequest:
    """Give what the command line orders to be created."""
    values = context.values
    bundle = os.path.abspath(values.text("bundle", "."))
    config = os.path.abspath(values.text("config")) if values.text("config") else ""
    spec = read_spec(bundle, config)
    preserve_fds = values.number("preserve-fds")
    if preserve_fds < 0:
        raise UsageFault(f'invalid value "{preserve_fds}" for flag -preserve-fds: it must not be negative')
    if spec.process is not None:
        process, listening = with_listen_fds(spec.process)
        spec = replace(spec, process=process)
        preserve_fds += listening
        if detached and process.terminal and not values.text("console-socket"):
            raise UsageFault("cannot allocate tty if the runtime will detach without setting console socket")
    request = api.CreateRequest(
        container_id=context.container_id,
        state_root=context.root,
        bundle=bundle,
        spec=spec,
        pid_file=os.path.abspath(values.text("pid-file")) if values.text("pid-file") else None,
        preserve_fds=preserve_fds,
        no_pivot=values.flag("no-pivot"),
        no_new_keyring=values.flag("no-new-keyring"),
        systemd_cgroup=context.systemd_cgroup,
        rootless=context.rootless,
        without_cgroups=context.without_cgroups,
        config=config,
    )
    if "NOTIFY_SOCKET" not in os.environ:
        return request
    from runtime.cli.notify import with_notify

    return with_notify(request)


def with_listen_fds(process: Process) -> tuple[Process, int]:
    """Pass socket activation on: give the process with LISTEN_FDS, and how many descriptors from 3 on belong to it."""
    count, owner = os.environ.get("LISTEN_FDS", ""), os.environ.get("LISTEN_PID", "")
    if not count.isdigit() or owner != str(os.getpid()) or len(count) > 4:
        return process, 0
    names = os.environ.get("LISTEN_FDNAMES")
    added = [f"LISTEN_FDS={count}", "LISTEN_PID=1"] + ([f"LISTEN_FDNAMES={names}"] if names else [])
    return replace(process, env=(*process.env, *added)), int(count)


def console_socket(context: Context, spec: Spec | None, *, detached: bool) -> int | None:
    """Connect to the socket that is to have the terminal, when one is named; raise UsageFault where nothing would come."""
    path = context.values.text("console-socket")
    if not path:
        return None
    if not detached or spec is None or spec.process is None or not spec.process.terminal:
        raise UsageFault("cannot use console socket if the process has no terminal: set process.terminal")
    from runtime.cli.sockets import connect

    return connect(path, "connect to the console socket").detach()


def _send_pidfd(context: Context, pid: int) -> None:
    path = context.values.text("pidfd-socket")
    if path:
        send_pidfd(path, pid)


def send_pidfd(path: str, pid: int) -> None:
    """Send a pidfd of a process to a listening socket; raise RuntimeFault."""
    from runtime.cli.sockets import send_fd

    fd = os.pidfd_open(pid)
    try:
        send_fd(path, fd, "send the pidfd")
    finally:
        os.close(fd)


def start(context: Context) -> int:
    """Execute the program of a created container; with a notification socket, return when it is ready."""
    notify = None
    if "NOTIFY_SOCKET" in os.environ:
        pid = api.state(context.root, context.container_id).pid
        notify = _notify_socket(context, pid)
    try:
        api.start(context.root, context.container_id)
    except HookFault:
        api.delete(context.root, context.container_id, force=True)  # runtime-spec, "Lifecycle": it is destroyed
        raise
    if notify is not None:
        notify.wait(pid)
        notify.close()
    return 0


def kill(context: Context) -> int:
    """Send a signal to init, or with --all to every process."""
    from runtime.cli.signals import parse_signal

    arguments = context.values.arguments
    signal = parse_signal(arguments[1] if len(arguments) > 1 else "SIGTERM")
    api.kill(context.root, context.container_id, signal, all_processes=context.values.flag("all"))
    return 0


def delete(context: Context) -> int:
    """Remove a stopped container, or with --force any; with --regex all whose ids match."""
    names = [context.container_id]
    if context.values.flag("regex"):
        import re

        try:
            pattern = re.compile(context.container_id)
        except re.error as error:
            raise UsageFault(f'"{context.container_id}" is not a regular expression: {error}') from None
        names = [state.id for state in api.list_containers(context.root) if pattern.search(state.id)]
    for name in names:
        api.delete(context.root, name, force=context.values.flag("force"))
    return 0


def pause(context: Context) -> int:
    """Freeze every process of a container."""
    api.pause(context.root, context.container_id)
    return 0


def resume(context: Context) -> int:
    """Let a paused container run on."""
    api.resume(context.root, context.container_id)
    return 0
