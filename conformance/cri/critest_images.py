"""The images that critest pulls, made from a static busybox: what its specs look for in them, under the names they use."""

from __future__ import annotations

import re
import subprocess
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.images import DOCKER, Layer, TestImage, busybox_entries, entry, files_layer, folder, layer
from tests.support.tools import find_tool

if TYPE_CHECKING:
    from collections.abc import Mapping

HOSTS = ("registry.k8s.io", "k8s.gcr.io", "gcr.io", "docker.io")
"""Registries whose names are used."""
NOT_MADE = {
    "public image with digest should be pulled": "its digest is that of an image elsewhere",
    "runtime should support MaskedPaths": "the shell of Debian's static busybox runs its own ls, which cannot be masked",
}
"""Specs that cannot pass with these images, whichever runtime: part of their name → why."""
STAGING = "k8s-staging-cri-tools/"
E2E = "e2e-test-images/"

_PGREP = """#!/bin/sh
[ "$1" = -f ] && shift
for folder in /proc/[0-9]*; do
  words=$(tr '\\0' ' ' < $folder/cmdline 2>/dev/null)
  case "$words" in *pgrep*) ;; *"$1"*) echo ${folder#/proc/};; esac
done
exit 0
"""
_IPCS = "#!/bin/sh\ncat /proc/sysvipc/shm\n"
_SERVER = """#!/bin/sh
mkdir -p /var/run
echo $$ > /var/run/nginx.pid
echo httpd
trap 'kill $!; exit 0' TERM QUIT
httpd -f -v -p 80 -h /var/www &
wait
"""
_PAGE = "<html><title>Welcome to nginx!</title>It works!</html>\n"
_PASSWD = "".join(
    f"{name}:x:{number}:{number}:{name}:{home}:/bin/sh\n"
    for name, number, home in (
        ("root", 0, "/root"),
        ("daemon", 1, "/usr/sbin"),
        ("bin", 2, "/bin"),
        ("www-data", 33, "/var/www"),
        ("nobody", 65534, "/home"),
        ("default-user", 1000, "/home"),
    )
)
_GROUP = "root:x:0:\ndaemon:x:1:\nwww-data:x:33:\nusers:x:100:\nnogroup:x:65534:\ndefault-user:x:1000:\n"
_PREDEFINED = _GROUP + "group-defined-in-image:x:50000:default-user\n"


def images() -> dict[str, TestImage]:
    """Give the images by repository and tag; only the one that is pulled by the digest it has elsewhere cannot be made."""
    root = _root()
    server = _image(root, files_layer({"var/www/index.html": _PAGE}), _scripts({"usr/bin/nginx": _SERVER}))
    run = {"Cmd": ["nginx", "master process nginx"], "WorkingDir": "/var/www"}
    users = {"uid": "1002", "username": "www-data", "uid-group": "1003:50000", "username-group": "www-data:100"}
    found = {
        f"{E2E}busybox:1.29-2": _image(root),
        f"{E2E}nginx:1.14-2": _with(server, run),
        f"{E2E}httpd:2.4.39-4": _with(server, run | {"Labels": {"name": "httpd"}}),
        f"{E2E}nonewprivs:1.3": _with(
            _image(root, _setuid()), {"Entrypoint": ["/bin/sh", "-c", "echo Effective uid: $(/usr/bin/whoareyou -u)"]}
        ),
        f"{STAGING}hostnet-nginx-amd64:latest": _with(server, {"Cmd": ["httpd", "-f", "-p", "12003", "-h", "/var/www"]}),
        f"{STAGING}test-image-predefined-group:latest": _with(
            _image(root, files_layer({"etc/group": _PREDEFINED})), {"User": "1000"}
        ),
        "pause:3.9": _with(_image(root), {"Entrypoint": ["/bin/sleep", "1000000"]}),
    }
    found |= {f"{STAGING}test-image-user-{name}:latest": _with(_image(root), {"User": user}) for name, user in users.items()}
    for name in ("latest:latest", "tag:test", "tag:all", "digest:test", "1:latest", "2:latest", "3:latest"):
        found[f"{STAGING}test-image-{name}"] = _image(root, files_layer({"name": name}))
    found |= {f"{STAGING}test-image-tags:{tag}": _image(root, files_layer({"name": "tags"})) for tag in "123"}
    return found


def mirrors(target: Path, registry: str) -> Path:
    """Write a certs.d that sends critest's registries to `registry` (host:port, plain HTTP), and give it."""
    for host in HOSTS:
        place = target / host
        place.mkdir(parents=True)
        text = f'server = "https://{host}"\n[host."http://{registry}"]\ncapabilities = ["pull", "resolve"]\n'
        (place / "hosts.toml").write_text(text)
    return target


def _root() -> Layer:
    """Give the files of a small distribution."""
    users = [entry("etc/passwd", _PASSWD), entry("etc/group", _GROUP)]
    entries = [(info, data) for info, data in busybox_entries() if info.name not in {"etc/passwd", "etc/group"}]
    more = [entry(f"bin/{name}", type=tarfile.LNKTYPE, linkname="bin/busybox", mode=0o755) for name in ("brctl", "logger")]
    return layer([*entries, *more, *users, folder("usr/bin"), folder("var/www")])


def _scripts(files: Mapping[str, str]) -> Layer:
    return layer([entry(path, text, mode=0o755) for path, text in files.items()])


def _image(root: Layer, *layers: Layer) -> TestImage:
    tools = _scripts({"usr/bin/pgrep": _PGREP, "usr/bin/ipcs": _IPCS})
    config = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]}
    return TestImage(layers=(root, tools, *layers), config=config, media=DOCKER)


def _with(image: TestImage, config: Mapping[str, object]) -> TestImage:
    return TestImage(layers=image.layers, config=dict(image.config) | dict(config), media=image.media)


def _setuid() -> Layer:
    """Give a program that tells its effective user and runs as root whoever starts it: the node's `id` with its libraries."""
    program = find_tool("id")
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    entries = [entry("usr/bin/whoareyou", Path(program).read_bytes(), mode=0o4755)]
    for path in sorted(set(re.findall(r"(/\S+) \(0x", listed))):
        inside = path.removeprefix("/")
        entries += [folder(str(parent)) for parent in reversed(Path(inside).parents) if str(parent) != "."]
        entries.append(entry(inside, Path(path).read_bytes(), mode=0o755))
    return layer(entries)
