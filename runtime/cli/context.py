"""What every command gets: the global options, its own, and the report of faults."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.cli.options import Values
    from runtime.cli.report import Report


class Context:
    """One use of the command line."""

    __slots__ = ("report", "root", "rootless", "systemd_cgroup", "values")

    def __init__(self, *, root: str, systemd_cgroup: bool, rootless: str, values: Values, report: Report) -> None:
        self.root = root
        self.systemd_cgroup = systemd_cgroup
        self.rootless = rootless
        self.values = values
        self.report = report

    @property
    def container_id(self) -> str:
        """Give the first argument."""
        return self.values.arguments[0]
