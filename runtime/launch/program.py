"""From a set-up container to the user's program: ids, capabilities, seccomp, and execve(2). Shared by init and exec."""

from __future__ import annotations

import errno
import os
import stat

from runtime.apply import credentials
from runtime.apply.faults import Step
from runtime.errors import RuntimeFault, StartFault
from runtime.kernel import prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.launch.protocol import Link
    from runtime.plan.process import ProcessPlan


class Program:
    """The user's program on its way. Call `find`, `become`, and last `execute`."""

    __slots__ = ("confined", "environment", "filter", "filter_flags", "label_fd", "path", "plan", "traceable")

    def __init__(self, plan: ProcessPlan) -> None:
        self.plan = plan
        self.filter = b""
        self.filter_flags = 0
        self.label_fd = -1
        self.confined = False
        self.traceable = False
        """Whether its user may look into it before it is executed."""
        self.path = ""
        self.environment = dict(entry.split("=", 1) for entry in plan.environment)

    def find(self) -> None:
        """Change to the working directory and look the program up there; raise StartFault as runc words it."""
        cwd = self.plan.source.cwd
        denied = not _change_directory(cwd)
        self.path = find_program(self.plan.argv[0], self.plan.search_path)
        if denied:
            self.path = self.path if self.path.startswith("/") else self.plan.argv[0]

    def become(self) -> None:
        """Take the ids, the limits of privilege and everything else that can fail before the gate."""
        source = self.plan.source
        if not self.environment.get("HOME"):
            self.environment["HOME"] = credentials.home_of(source.user.uid)
        credentials.give_stdio(source.user.uid)
        if source.no_new_privileges:
            prctl.set_no_new_privs()
        credentials.take_ids(source.user, self.plan.capabilities)
        _change_directory(source.cwd, final=True)
        _verify_directory(source.cwd)
        if not self._filter_needs_privilege():
            credentials.take_capabilities(self.plan.capabilities)

    def _filter_needs_privilege(self) -> bool:
        return bool(self.filter) and not self.plan.source.no_new_privileges

    def has_listener(self) -> bool:
        """Tell whether somebody is to answer for system calls."""
        from runtime.kernel import seccomp

        return bool(self.filter and self.filter_flags & seccomp.NEW_LISTENER)

    def confine(self, link: Link) -> int:
        """Load the seccomp filter, once; who is at the other end of `link` takes its listener, where the profile has one.

        Gives the listener's descriptor here, or -1.
        Without no_new_privs that takes CAP_SYS_ADMIN, so the capabilities are dropped after it.
        """
        listener = -1
        if self.confined:
            return listener
        if not self.traceable:
            prctl.set_dumpable(dumpable=False)  # changing ids may have restored it (prctl(2))
        self.confined = True
        if self.filter:
            from runtime.kernel import seccomp

            with Step("load the seccomp filter"):
                loaded = seccomp.load(self.filter, self.filter_flags)
                if self.has_listener():
                    listener = loaded
                    link.hand_over_number(listener)
            if self._filter_needs_privilege():
                credentials.take_capabilities(self.plan.capabilities)
        return listener

    def execute(self, link: Link) -> None:
        """Execute the program; returns only by raising StartFault.

        The filter is loaded last, so that it need allow nothing of ours, unless hooks had to be under it before.
        """
        if self.label_fd >= 0:
            from runtime.apply.labels import write_label

            with Step("label the program"):
                write_label(self.label_fd, self.plan.source)
        self.confine(link)
        try:
            os.execve(self.path, list(self.plan.argv), self.environment)  # noqa: S606 - the purpose of it all
        except OSError as error:
            reason = os.strerror(error.errno or 0).lower()
            raise StartFault(f"exec {self.path}: {reason}", errno=error.errno, path=self.path) from error


def _change_directory(cwd: str, *, final: bool = False) -> bool:
    """Change to `cwd`; tell False when permission is denied, which may change with the ids, unless this is the final try."""
    try:
        os.chdir(cwd)
    except PermissionError as error:
        if final:
            raise StartFault(_cwd_text(cwd, error), errno=error.errno, path=cwd) from error
        return False
    except OSError as error:
        raise StartFault(_cwd_text(cwd, error), errno=error.errno, path=cwd) from error
    return True


def _cwd_text(cwd: str, error: OSError) -> str:
    return f'chdir to cwd ("{cwd}") set in config.json failed: {os.strerror(error.errno or 0).lower()}'


def _verify_directory(cwd: str) -> None:
    """Refuse a working directory that lies outside the root: a descriptor that leaked would be a way out (CVE-2024-21626)."""
    try:
        inside = os.getcwd().startswith("/")
    except FileNotFoundError:
        inside = False
    if not inside:
        raise RuntimeFault("the current directory is outside the container's root", step="verify the cwd", path=cwd)


def find_program(name: str, search_path: str) -> str:
    """Give the path to execute for argv[0]; raise StartFault worded as runc's users know it."""
    if "/" in name:
        problem = _problem(name)
        if problem:
            detail = f"stat {name}: no such file or directory" if problem == errno.ENOENT else _REASONS[problem]
            raise StartFault(f'exec: "{name}": {detail}', errno=problem, path=name)
        return name
    worst = errno.ENOENT
    for folder in search_path.split(":"):
        path = os.path.join(folder or ".", name)
        problem = _problem(path)
        if not problem:
            return path
        if problem == errno.EACCES:
            worst = problem
    text = "permission denied" if worst == errno.EACCES else "executable file not found in $PATH"
    raise StartFault(f'exec: "{name}": {text}', errno=worst, path=name)


_REASONS = {errno.EACCES: "permission denied", errno.EISDIR: "is a directory: permission denied"}
"""podman gives the exit code 126 where it reads "permission denied", which is also what execve(2) says of a directory."""


def _problem(path: str) -> int:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return errno.EACCES if error.errno == errno.EACCES else errno.ENOENT
    if stat.S_ISDIR(mode):
        return errno.EISDIR
    return 0 if mode & 0o111 else errno.EACCES
