"""Judge what a user without privileges may ask of a container: what the kernel would refuse later is refused by name."""

from __future__ import annotations

from runtime.errors import SpecFault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runtime.spec.model import IdMapping, Linux, Mount, Process, Spec


def validate_rootless(spec: Spec) -> None:
    """Judge a valid config.json for a caller whose effective uid is not 0; raise SpecFault."""
    user = next((one for one in spec.linux.namespaces if one.type == "user"), None)
    if user is None:
        raise SpecFault(
            "rootless container requires user namespaces: add one, as `spec --rootless` does", pointer="/linux/namespaces"
        )
    if spec.linux.net_devices:
        raise SpecFault("network devices are not supported for rootless containers", pointer="/linux/netDevices")
    for index, mount in enumerate(spec.mounts):
        _mount(mount, spec.linux, f"/mounts/{index}", owned=not user.path)
    if spec.process is not None:
        validate_rootless_process(spec.process)


def validate_rootless_process(process: Process, pointer: str = "/process") -> None:
    """Judge a process, of config.json or of an exec; raise SpecFault."""
    if process.user.additional_gids:
        raise SpecFault("cannot set any additional groups in a rootless container", pointer=f"{pointer}/user/additionalGids")


def _mount(mount: Mount, linux: Linux, pointer: str, *, owned: bool) -> None:
    words = {word.partition("=")[0] for word in mount.options}
    if mount.uid_mappings or mount.gid_mappings or words & {"idmap", "ridmap"}:
        raise SpecFault("id-mapped mounts are not supported for rootless containers", pointer=pointer)
    for word in mount.options if owned else ():
        name, _, number = word.partition("=")
        if name in ("uid", "gid") and number.isascii() and number.isdigit():
            known = linux.uid_mappings if name == "uid" else linux.gid_mappings
            if not _is_mapped(int(number), known):
                raise SpecFault(
                    f"cannot specify {word} mount option for rootless container: the id is not mapped",
                    pointer=f"{pointer}/options",
                )


def _is_mapped(number: int, mappings: tuple[IdMapping, ...]) -> bool:
    return any(one.container_id <= number < one.container_id + one.size for one in mappings)
