"""What every command gets: the global options, its own, and the report of faults."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.cli.options import Values
    from runtime.cli.report import Report


class Context:
    """One use of the command line."""

    __slots__ = ("criu", "report", "root", "root_given", "rootless", "systemd_cgroup", "values", "without_cgroups")

    def __init__(self, *, root: str, outer: Values, values: Values, report: Report) -> None:
        self.criu = outer.text("criu") or "criu"
        self.root = root
        self.root_given = bool(outer.text("root"))
        self.systemd_cgroup = outer.flag("systemd-cgroup") or outer.text("cgroup-manager") == "systemd"
        self.without_cgroups = outer.text("cgroup-manager") == "disabled"
        self.rootless = outer.text("rootless", "auto")
        self.values = values
        self.report = report

    @property
    def container_id(self) -> str:
        """Give the first argument."""
        return self.values.arguments[0]
