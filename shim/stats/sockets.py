"""What a network namespace's /proc/net tells of its sockets (proc_pid_net(5)); pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shim.stats.values import Datagrams, Sockets

if TYPE_CHECKING:
    from collections.abc import Mapping

FILES = {"tcp": ("tcp", "tcp6"), "udp": ("udp", "udp6"), "advtcp": ("snmp", "netstat")}
"""What a kind of metrics reads below /proc/net."""
TCP_STATES = (
    "established", "synsent", "synrecv", "finwait1", "finwait2", "timewait", "close", "closewait", "lastack", "listen",
    "closing",
)  # fmt: skip
"""In the kernel's order, from 1 (include/net/tcp_states.h)."""
_LISTEN = b"07"
"""TCP_CLOSE: what an unconnected UDP socket is in."""


def sockets(files: Mapping[str, bytes]) -> Sockets:
    """Read those files that are there."""
    tcp = {name: _tcp(files[name]) for name in ("tcp", "tcp6") if name in files}
    udp = {name: _udp(files[name]) for name in ("udp", "udp6") if name in files}
    advanced: dict[str, int] = {}
    for name, prefix in (("snmp", b"Tcp:"), ("netstat", b"TcpExt:")):
        advanced.update(_counters(files.get(name, b""), prefix))
    return Sockets(tcp=tcp, udp=udp, advanced=advanced)


def _tcp(text: bytes) -> dict[str, int]:
    counts = dict.fromkeys(TCP_STATES, 0)
    for line in text.splitlines()[1:]:
        words = line.split(None, 4)
        state = int(words[3], 16) if len(words) > 3 else 0
        state = 3 if state == 12 else state  # TCP_NEW_SYN_RECV, which /proc shows as the older one's number on most kernels
        if 0 < state <= len(TCP_STATES):
            counts[TCP_STATES[state - 1]] += 1
    return counts


def _udp(text: bytes) -> Datagrams:
    listen = dropped = received = sent = 0
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) < 13:
            continue
        listen += words[3] == _LISTEN
        waiting_out, _, waiting_in = words[4].partition(b":")
        sent += int(waiting_out, 16)
        received += int(waiting_in, 16)
        dropped += int(words[-1])
    return Datagrams(listen=listen, dropped=dropped, rxqueued=received, txqueued=sent)


def _counters(text: bytes, prefix: bytes) -> dict[str, int]:
    """Read a pair of lines, names and values, that begin with `prefix`; names in lower case, what may be -1 as 0."""
    lines = [line.split()[1:] for line in text.splitlines() if line.startswith(prefix)]
    if len(lines) != 2:
        return {}
    return {name.decode().lower(): max(int(value), 0) for name, value in zip(*lines, strict=False)}
