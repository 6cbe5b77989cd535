"""exec: one more process in a running container."""

from __future__ import annotations

import os

from runtime import api
from runtime.errors import UsageFault
from runtime.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.cli.context import Context
    from runtime.cli.options import Values
    from runtime.spec.model import Capabilities, Process, User

_ID_LIMIT = 1 << 32


def execute(context: Context) -> int:
    """Run the process and, unless detached, give its exit code."""
    values = context.values
    process = _process(context)
    console_path = values.text("console-socket")
    detached = values.flag("detach")
    if process.terminal and detached and not console_path:
        raise UsageFault("cannot allocate tty if the runtime will detach without setting console socket")
    if console_path and not (process.terminal and detached):
        raise UsageFault("cannot use console socket if the runtime will not detach or allocate tty")
    request = _request(context, process)
    if not detached:
        return _attended(request, values, terminal=process.terminal)
    socket = None
    if console_path:
        from runtime.cli.sockets import connect

        socket = connect(console_path, "connect to the console socket").detach()
    pid = api.exec_process(replace(request, console_socket=socket))
    _send_pidfd(values, pid)
    return 0


def _attended(request: api.ExecRequest, values: Values, *, terminal: bool) -> int:
    from runtime.cli import foreground

    foreground.adopt()
    carried = None
    if terminal:
        from runtime.cli import sockets
        from runtime.cli.terminal import Terminal

        ours, theirs = sockets.pair()
        try:
            pid = api.exec_process(replace(request, console_socket=theirs))
            carried = Terminal(sockets.receive_fd(ours, "receive the terminal"))
        finally:
            os.close(ours)
            os.close(theirs)
    else:
        pid = api.exec_process(request)
    try:
        _send_pidfd(values, pid)
        return foreground.attend(pid, foreground.Watch(), carried, foreground.forward_to(pid))
    finally:
        if carried is not None:
            carried.close()


def _send_pidfd(values: Values, pid: int) -> None:
    if values.text("pidfd-socket"):
        from runtime.cli.lifecycle import send_pidfd

        send_pidfd(values.text("pidfd-socket"), pid)


def _request(context: Context, process: Process) -> api.ExecRequest:
    from runtime.cli.lifecycle import with_listen_fds

    values = context.values
    process, listening = with_listen_fds(process)
    groups = values.texts("cgroup")
    if len(groups) > 1 and not all(":" in group for group in groups):
        raise UsageFault("several --cgroup options need controllers: controller[,controller]:path")
    return api.ExecRequest(
        container_id=context.container_id,
        state_root=context.root,
        process=process,
        pid_file=os.path.abspath(values.text("pid-file")) if values.text("pid-file") else None,
        preserve_fds=values.number("preserve-fds") + listening,
        cgroup="\n".join(groups) or None,
        ignore_paused=values.flag("ignore-paused"),
    )


def _process(context: Context) -> Process:
    """Give the process of --process, or the container's own with what the options change."""
    values = context.values
    from runtime.cli.lifecycle import read_document, read_spec

    if values.text("process"):
        from runtime.spec.parse import parse_process

        return parse_process(read_document(values.text("process")), document=values.text("process"))
    state = api.state(context.root, context.container_id)
    base = read_spec(state.bundle, state.config).process
    if base is None or len(values.arguments) < 2:
        raise UsageFault("exec args cannot be empty: give a command, or a process with --process")
    capabilities = base.capabilities
    if values.texts("cap"):
        capabilities = with_capabilities(capabilities, values.texts("cap"))
    return replace(
        base,
        args=tuple(values.arguments[1:]),
        env=(*base.env, *values.texts("env")),
        cwd=values.text("cwd") or base.cwd,
        terminal=values.flag("tty"),
        user=_user(base.user, values),
        capabilities=capabilities,
        no_new_privileges=values.flag("no-new-privs") if values.given("no-new-privs") else base.no_new_privileges,
        apparmor_profile=values.text("apparmor") or base.apparmor_profile,
        selinux_label=values.text("process-label") or base.selinux_label,
    )


def with_capabilities(held: Capabilities | None, added: tuple[str, ...]) -> Capabilities:
    """Add capabilities to every set a program can use them from."""
    from runtime.spec.model import Capabilities

    held = held or Capabilities()
    return replace(
        held,
        bounding=(*held.bounding, *added),
        effective=(*held.effective, *added),
        permitted=(*held.permitted, *added),
        ambient=(*held.ambient, *added),
    )


def _user(base: User, values: Values) -> User:
    groups = base.additional_gids + tuple(_id(text, "additional-gids") for text in values.texts("additional-gids"))
    user = values.text("user")
    if not user:
        return replace(base, additional_gids=groups)
    uid, colon, gid = user.partition(":")
    return replace(base, uid=_id(uid, "user"), gid=_id(gid, "user") if colon else base.gid, additional_gids=groups)


def _id(text: str, option: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 11 and int(text) < _ID_LIMIT - 1):
        raise UsageFault(f'invalid value "{text}" for flag -{option}: ids are numbers')
    return int(text)
