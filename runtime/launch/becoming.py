"""Steps that init and the process of an exec share, before either becomes its program."""

from __future__ import annotations

import errno
import os

from runtime.apply.faults import Step
from runtime.kernel import keyring, prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.spec.lasting import MemoryPolicy, Personality
    from runtime.spec.model import Process


def become_root() -> None:
    """Take the ids of the new user namespace's root; until here the process had the host root's, to reach the bundle."""
    with Step("become root of the user namespace"):
        try:  # noqa: SIM105 - contextlib costs an import
            os.setgroups(())
        except PermissionError:
            pass  # setgroups is denied in namespaces made without privilege (user_namespaces(7))
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        prctl.set_dumpable(dumpable=False)


def join_keyring(name: str, label: str = "") -> None:
    """Leave the caller's session keyring; a kernel without keyrings has none to leave. `label` is the program's, of SELinux."""
    try:
        if label:
            from runtime.apply.labels import label_keyring

            label_keyring(label)
        serial = keyring.join_session_keyring(name)
        keyring.allow_owner(serial)
        if label:
            label_keyring("")
    except OSError as error:
        if error.errno != errno.ENOSYS:
            with Step("join a session keyring"):
                raise


def split_filter(payload: bytes) -> tuple[bytes, int]:
    """Take a CONFINED message apart: eight bytes of flags and the program; nothing at all without a profile."""
    if not payload:
        return b"", 0
    return payload[8:], int.from_bytes(payload[:8], "little")


def set_scheduling(process: Process, personality: Personality | None, policy: MemoryPolicy | None) -> None:
    """Set personality, memory policy, scheduler and I/O priority where the document asks for them."""
    if not (process.scheduler or process.io_priority or personality or policy):
        return
    from runtime.apply.scheduling import schedule, set_memory_policy, set_personality

    schedule(process)
    if policy is not None:
        set_memory_policy(policy)
    if personality is not None:
        set_personality(personality)
