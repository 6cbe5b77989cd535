"""Lists of CPUs and memory nodes as cpuset(7) spells them, "0-3,7"; loaded only where a document has one."""

from __future__ import annotations

LIMIT = 8192
"""No kernel has as many CPUs or memory nodes: CONFIG_NR_CPUS and 1 << CONFIG_NODES_SHIFT are at most this anywhere."""
LENGTH_LIMIT = 100 + 6 * LIMIT
"""Characters of a list that the kernel's cpuset files take (kernel/cgroup/cpuset.c)."""
WANTED = f"a list such as 0-3,7, below {LIMIT}"
"""What a message says is wanted."""


def is_number_list(text: str) -> bool:
    """Say whether `text` is a list, of numbers that a kernel could know; empty is one."""
    if len(text) > LENGTH_LIMIT:
        return False
    for part in text.split(",") if text.strip() else ():
        first, dash, last = part.strip().partition("-")
        if not (first.isascii() and first.isdigit() and (not dash or (last.isascii() and last.isdigit()))):
            return False
        if len(first) > 6 or len(last) > 6 or (dash and int(first) > int(last)) or int(last or first) >= LIMIT:
            return False
    return True


def bits(text: str) -> int:
    """Give a valid list as a mask: bit n for the number n."""
    mask = 0
    for part in text.split(",") if text.strip() else ():
        first, _, last = part.strip().partition("-")
        mask |= (1 << int(last or first) + 1) - (1 << int(first))
    return mask


def numbers(text: str) -> set[int]:
    """Give the numbers of a valid list."""
    mask = bits(text)
    return {number for number in range(mask.bit_length()) if mask >> number & 1}
