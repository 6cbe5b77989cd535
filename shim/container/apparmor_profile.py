"""The text of the AppArmor profile that RuntimeDefault means, in the language of apparmor.d(5).

It allows what a container's capabilities, namespaces and seccomp filter leave, and forbids what reaches through them to the
host's kernel: files of /proc and /sys that no namespace divides, mounts, other processes than the container's own. A rule that
denies wins over each that allows. Nothing is included, so that the text means the same on every host.
"""

from __future__ import annotations

_RULES = """
  capability,
  dbus,
  file,
  network,
  unix,

  # Who may send a signal is for the sender's own profile to say: the runtime, a container of the pod with another profile.
  signal (receive),
  signal (send) peer=@NAME@,
  ptrace peer=@NAME@,

  # Mounts are the runtime's: it has made them before this profile begins. What it has put over /proc and /sys stays there.
  umount,
  deny mount,
  deny pivot_root,
  deny umount /proc/**,
  deny umount /sys/**,

  # Memory of the kernel, and what stops the host.
  deny /proc/{kcore,kmem,mem,sysrq-trigger} rwklx,

  # Files and folders of /proc that belong to no process; of /proc/sys only what an IPC or a network namespace has of its own.
  deny /proc/[^0-9]* wl,
  deny /proc/[^0-9s]*/** wl,
  deny /proc/s[^ey]*/** wl,
  deny /proc/sys/[^kn]** wl,
  deny /proc/sys/kernel/[^ms]** wl,
  deny /proc/sys/kernel/m[^s]** wl,
  deny /proc/sys/kernel/s[^eh]** wl,
  deny /proc/sys/kernel/se[^m]** wl,
  deny /proc/sys/kernel/sh[^m]** wl,

  # Of /sys only control groups are a container's, where it was given them.
  deny /sys/[^f]** wl,
  deny /sys/f[^s]** wl,
  deny /sys/fs/[^c]** wl,
  deny /sys/fs/c[^g]** wl,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/{debug,security,tracing}/** rwklx,
"""


def profile_text(name: str, *, abi: str = "") -> str:
    """Give the profile called `name`.

    `abi` is a file of features such as <abi/3.0>, by which a later parser knows which kinds of rules the text has considered:
    what it does not mention of a newer kind would be forbidden.
    """
    head = f"abi {abi},\n\n" if abi else ""
    return f"{head}profile {name} flags=(attach_disconnected,mediate_deleted) {{{_RULES.replace('@NAME@', name)}}}\n"
