"""What is measured, in which unit, and how much of the peers' figure Wherry may use."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One line of the result: its budget is a ratio to each peer's figure, or an absolute bound."""

    key: str
    title: str
    unit: str
    more_is_better: bool = False
    of_runc: float | None = None
    of_crun: float | None = None
    bound: float | None = None
    digits: int = 1

    @property
    def budget(self) -> str:
        """The budget in words."""
        sign = "≥" if self.more_is_better else "≤"
        if self.bound is not None:
            return f"{sign} {self.bound:g} {self.unit}"
        parts = [_ratio(value) for value in (self.of_runc, self.of_crun) if value is not None]
        unique = list(dict.fromkeys(parts))
        return " and ".join(f"{sign} {part}" for part in unique)

    def met(self, own: float, runc: float | None, crun: float | None) -> bool | None:
        """Say whether the budget is kept; None when no peer's figure is there to say so."""
        if self.bound is not None:
            return own >= self.bound if self.more_is_better else own <= self.bound
        verdicts = [
            own >= peer * share if self.more_is_better else own <= peer * share
            for peer, share in ((runc, self.of_runc), (crun, self.of_crun))
            if peer is not None and share is not None
        ]
        return all(verdicts) if verdicts else None


def _ratio(value: float) -> str:
    if value >= 1:
        return f"{value:g}x"
    inverse = 1 / value
    return f"1/{inverse:.0f}" if abs(inverse - round(inverse)) < 0.01 else f"1/{inverse:g}"


STEPS = (
    Step(
        key="pod_start",
        title="RunPodSandbox + CreateContainer + StartContainer with bridge CNI, median",
        unit="ms",
        of_runc=1 / 5,
        of_crun=1 / 4,
    ),
    Step(
        key="pods_per_second", title="pods started a second, 8 at once", unit="/s", more_is_better=True, of_runc=5, of_crun=2.5
    ),
    Step(key="pod_stop", title="StopContainer … RemovePodSandbox, median", unit="ms", of_runc=1 / 3, of_crun=1 / 3),
    Step(key="exec", title="ExecSync of `true`, median", unit="ms", of_runc=1 / 6, of_crun=1 / 2),
    Step(key="probe", title="processor time of an exec probe, every pod probed once a second", unit="ms", of_runc=1 / 3),
    Step(
        key="memory_pod",
        title="memory a pod (PSS of everything but the user's process)",
        unit="MB",
        of_runc=1 / 3,
        of_crun=1 / 3,
        digits=2,
    ),
    Step(key="memory_idle", title="idle daemon (PSS)", unit="MB", of_runc=1, of_crun=1),
    Step(key="list_stats", title="ListContainerStats with 50 pods", unit="ms", of_runc=1 / 3, of_crun=1 / 3, digits=2),
    Step(key="list_containers", title="ListContainers with 50 pods", unit="ms", bound=2, digits=2),
    Step(key="list_pods", title="ListPodSandbox with 50 pods", unit="ms", bound=2, digits=2),
    Step(key="status", title="ContainerStatus with 50 pods", unit="ms", bound=2, digits=2),
    Step(
        key="logs",
        title="log throughput, 71-byte lines, nothing lost",
        unit="MB/s",
        more_is_better=True,
        of_runc=4,
        of_crun=4,
    ),
    Step(key="pull", title="pull and unpack, cold, median", unit="ms", of_runc=1 / 1.5, of_crun=1 / 1.5, digits=0),
    Step(key="oci_run", title="`run` of /bin/true by the OCI runtime itself, median", unit="ms", of_runc=1.2),
    Step(key="oci_cycle", title="create, start and delete by the OCI runtime itself, median", unit="ms", of_runc=1.2),
    Step(key="oci_exec", title="`exec` of /bin/true by the OCI runtime itself, median", unit="ms", of_runc=1.2),
    Step(key="oci_memory", title="the most memory that one of these commands takes", unit="MB", of_runc=1),
)
BY_KEY = {step.key: step for step in STEPS}
