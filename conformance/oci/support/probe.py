"""Read what a container printed about itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line of /proc/self/mountinfo."""

    destination: str
    root: str
    options: frozenset[str]
    optional: tuple[str, ...]
    kind: str
    source: str
    super_options: frozenset[str]

    @property
    def propagation(self) -> str:
        """Give shared, slave, unbindable or private."""
        words = [word.partition(":")[0] for word in self.optional]
        if "shared" in words:
            return "shared"
        return "slave" if "master" in words else "unbindable" if "unbindable" in words else "private"


def mounts(mountinfo: str) -> list[Mount]:
    """Parse the text of a mountinfo file; lines of other things are passed over."""
    found = []
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if " - " not in line or len(fields) < 9:
            continue
        dash = fields.index("-")
        found.append(
            Mount(
                destination=fields[4],
                root=fields[3],
                options=frozenset(fields[5].split(",")),
                optional=tuple(fields[6:dash]),
                kind=fields[dash + 1],
                source=fields[dash + 2],
                super_options=frozenset(fields[dash + 3].split(",")),
            )
        )
    return found


def mount_at(mountinfo: str, destination: str) -> Mount:
    """Give the topmost mount on a path; AssertionError when there is none."""
    found = [mount for mount in mounts(mountinfo) if mount.destination == destination]
    assert found, f"{destination} is no mount point:\n{mountinfo}"
    return found[-1]


def sections(text: str) -> dict[str, str]:
    """Split at lines `== name`."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line.startswith("== "):
            name = line[3:]
            found[name] = ""
        elif name:
            found[name] += f"{line}\n"
    return {key: value.strip("\n") for key, value in found.items()}


def script(**parts: str) -> str:
    """Make the script whose output `sections` splits; one failing part does not stop the rest."""
    return "\n".join(f"echo; echo '== {name}'; ({part}) 2>&1 || :" for name, part in parts.items())


def status(text: str) -> dict[str, str]:
    """Parse /proc/PID/status and its like: `Name:\tvalue`."""
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def limits(text: str) -> dict[str, tuple[str, str]]:
    """Parse /proc/PID/limits: soft and hard by the kernel's words."""
    found = {}
    for line in text.splitlines()[1:]:
        words = line[26:].split()
        found[line[:26].strip()] = (words[0], words[1])
    return found
