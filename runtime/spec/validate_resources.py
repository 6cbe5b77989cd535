"""Judge linux.resources: words, device rules and sizes that contradict each other."""

from __future__ import annotations

from runtime.errors import SpecFault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.spec.resources import BlockIo, Cpu, DeviceRule, Memory, Resources

_WEIGHTS = (10, 1000)
_RULES_LIMIT = 8192
"""Device rules: the kernel goes through all of v1's with each, and whenever a device is opened."""


def validate_resources(resources: Resources, pointer: str = "/linux/resources", *, update: bool = False) -> None:
    """Judge resources of config.json, or of an update, whose limits stand beside those there are; raise SpecFault."""
    if len(resources.devices) > _RULES_LIMIT:
        raise SpecFault(f"has more than {_RULES_LIMIT} rules", pointer=f"{pointer}/devices")
    for index, rule in enumerate(resources.devices):
        _device_rule(rule, f"{pointer}/devices/{index}")
    _memory(resources.memory, f"{pointer}/memory", alone=not update)
    _cpu(resources.cpu, f"{pointer}/cpu")
    _block_io(resources.block_io, f"{pointer}/blockIO")
    for index, huge in enumerate(resources.hugepage_limits):
        number = huge.page_size[:-2]
        if huge.page_size[-2:] not in ("KB", "MB", "GB") or not (number.isascii() and number.isdigit()):
            where = f"{pointer}/hugepageLimits/{index}/pageSize"
            raise SpecFault(f'"{huge.page_size}" is not a page size such as 2MB', pointer=where)
    for index, rdma in enumerate(resources.rdma):
        if rdma.hca_handles is None and rdma.hca_objects is None:
            raise SpecFault("needs hcaHandles or hcaObjects", pointer=f"{pointer}/rdma/{rdma.device or index}")
    for name, _ in resources.unified:
        # A file name of the container's own cgroup: a slash or a dot-dot would reach another group.
        if "/" in name or name in ("", ".", "..") or "." not in name:
            raise SpecFault(f'"{name}" is not the name of a cgroup file', pointer=f"{pointer}/unified")


def _device_rule(rule: DeviceRule, where: str) -> None:
    if rule.type not in ("a", "c", "b", "u", "p"):
        raise SpecFault(f'"{rule.type}" is not a device type (a, c, u, b, p)', pointer=f"{where}/type")
    if not rule.access or set(rule.access) - set("rwm"):
        raise SpecFault(f'"{rule.access}" is not made of r, w and m', pointer=f"{where}/access")


def _memory(memory: Memory, where: str, *, alone: bool) -> None:
    limit, swap = memory.limit, memory.swap
    if swap is not None and swap > 0 and limit is not None and limit > 0 and swap < limit:
        raise SpecFault(f"{swap} (memory and swap) is less than the memory limit {limit}", pointer=f"{where}/swap")
    if swap is not None and swap > 0 and (limit == -1 or (limit is None and alone)):
        raise SpecFault("needs a memory limit beside it", pointer=f"{where}/swap")
    reservation = memory.reservation
    if reservation is not None and limit is not None and 0 < limit < reservation:
        raise SpecFault(f"{reservation} is more than the memory limit {limit}", pointer=f"{where}/reservation")


def _cpu(cpu: Cpu, where: str) -> None:
    for name in ("cpus", "mems"):
        if value := getattr(cpu, name):
            from runtime.spec.numbers import WANTED, is_number_list

            if not is_number_list(value):
                raise SpecFault(f'"{value}" is not {WANTED}', pointer=f"{where}/{name}")
    if cpu.idle is not None and cpu.idle not in (0, 1):
        raise SpecFault(f"{cpu.idle} is not 0 or 1", pointer=f"{where}/idle")
    if cpu.burst is not None and cpu.quota is not None and 0 < cpu.quota < cpu.burst:
        raise SpecFault(f"{cpu.burst} is more than the quota {cpu.quota}", pointer=f"{where}/burst")


def _block_io(block_io: BlockIo, where: str) -> None:
    weights = [("weight", block_io.weight), ("leafWeight", block_io.leaf_weight)]
    for index, device in enumerate(block_io.weight_devices):
        weights.append((f"weightDevice/{index}/weight", device.weight))
        weights.append((f"weightDevice/{index}/leafWeight", device.leaf_weight))
    for name, weight in weights:
        if weight and not _WEIGHTS[0] <= weight <= _WEIGHTS[1]:
            raise SpecFault(f"{weight} is not between {_WEIGHTS[0]} and {_WEIGHTS[1]}", pointer=f"{where}/{name}")
