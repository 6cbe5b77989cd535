"""One judgement's bundle and containers: the same command line for every runtime, and nothing left at the end."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conformance.oci.support import leaks, wait
from conformance.oci.support.bundle import default_config, make_rootfs

if TYPE_CHECKING:
    from conformance.oci.support.runtime import Runtime

Done = subprocess.CompletedProcess[str]


class Case:
    """A bundle with a root and a state folder of its own, and the containers made of it."""

    def __init__(self, runtime: Runtime, busybox: Path, scratch: Path) -> None:
        self.runtime = runtime
        self.bundle = Path(tempfile.mkdtemp(prefix="b", dir=scratch))
        os.chmod(self.bundle, 0o755)  # a user namespace's root is another user on the way to the rootfs
        self.root = self.bundle / "state"
        self.rootfs = self.bundle / "rootfs"
        self.out, self.err = self.bundle / "out", self.bundle / "err"
        self.ids: list[str] = []
        self.prefix: list[str] = []
        self.background: list[subprocess.Popen[str]] = []
        make_rootfs(self.rootfs, busybox)
        self.config = default_config(self.cgroups_path(self.new_id()))

    # names

    def new_id(self) -> str:
        """Give a new id; the cgroup of the containers that follow is named after it."""
        name = f"judge-{secrets.token_hex(5)}"
        if self.ids and isinstance(self.linux, dict) and self.linux.get("cgroupsPath") == self.cgroups_path(self.ids[-1]):
            self.linux["cgroupsPath"] = self.cgroups_path(name)
        self.ids.append(name)
        return name

    def cgroups_path(self, name: str) -> str:
        """Give a cgroupsPath in the form of the cgroup driver in use."""
        return f"system.slice:judge:{name}" if self.runtime.systemd else f"/{name}"

    @property
    def id(self) -> str:
        """The newest container's id."""
        return self.ids[-1]

    # the document

    @property
    def process(self) -> dict[str, Any]:
        """The document's process."""
        found: dict[str, Any] = self.config["process"]
        return found

    @property
    def linux(self) -> dict[str, Any]:
        """The document's Linux part."""
        found: dict[str, Any] = self.config["linux"]
        return found

    def namespace(self, kind: str, path: str | None = None) -> None:
        """Ask for a namespace, a new one or that of a path."""
        self.drop_namespace(kind)
        self.linux["namespaces"].append({"type": kind} | ({"path": path} if path else {}))

    def drop_namespace(self, *kinds: str) -> None:
        """Ask for the runtime's own namespaces."""
        self.linux["namespaces"] = [entry for entry in self.linux["namespaces"] if entry["type"] not in kinds]

    def userns(self, size: int = 65536, host: int = 200000) -> None:
        """Ask for a user namespace with one range; the root belongs to its root, as the specification leaves owners alone."""
        self.namespace("user")
        for kind in ("uidMappings", "gidMappings"):
            self.linux[kind] = [{"containerID": 0, "hostID": host, "size": size}]
        for folder, _, _ in os.walk(self.rootfs):
            os.chown(folder, host, host)

    def mount(self, destination: str, source: str | Path, *options: str, kind: str | None = None) -> dict[str, Any]:
        """Add a mount; without a kind it is a bind mount's. Gives the entry."""
        entry: dict[str, Any] = {"destination": destination, "source": str(source), "options": list(options)}
        entry["type"] = kind or "none"
        self.config["mounts"].append(entry)
        return entry

    def resources(self, **parts: Any) -> dict[str, Any]:
        """Add to linux.resources."""
        found: dict[str, Any] = self.linux.setdefault("resources", {})
        found.update(parts)
        return found

    def grant(self, *capabilities: str, kinds: tuple[str, ...] = ("bounding", "effective", "permitted")) -> None:
        """Add capabilities to sets of the process."""
        for kind in kinds:
            present = self.process["capabilities"].setdefault(kind, [])
            present += [name for name in capabilities if name not in present]

    def write(self, *args: str) -> None:
        """Write config.json, with another program when given."""
        if args:
            self.process["args"] = list(args)
        (self.bundle / "config.json").write_text(json.dumps(self.config), encoding="utf-8")

    # the command line

    def call(self, *arguments: str, **options: Any) -> Done:
        """Run one command in the bundle; it is not judged."""
        return self.runtime.call("--root", str(self.root), *arguments, prefix=self.prefix, **({"cwd": self.bundle} | options))

    def ok(self, *arguments: str, **options: Any) -> str:
        """Run one command that must succeed; give what it printed."""
        done = self.call(*arguments, **options)
        said = (done.stderr or "") + (done.stdout or "")
        assert done.returncode == 0, f"`{' '.join(arguments)}` must succeed, and ended with {done.returncode}: {said}"
        return done.stdout or ""

    def fails(self, *arguments: str, **options: Any) -> str:
        """Run one command that must fail; give what it said, which must be something."""
        done = self.call(*arguments, **options)
        assert done.returncode != 0, f"`{' '.join(arguments)}` must fail, and succeeded: {done.stdout}"
        said = (done.stderr or "") + (done.stdout or "")
        if options.get("stderr") is None:
            assert said.strip(), f"`{' '.join(arguments)}` failed with {done.returncode} and said nothing"
        return said

    def run(self, *args: str, flags: tuple[str, ...] = (), **options: Any) -> Done:
        """Run a program in a new container to its end."""
        name = self.new_id()
        self.write(*args)
        return self.call("run", *flags, name, **options)

    def output(self, *args: str, **options: Any) -> str:
        """Run a program in a new container; it must succeed; give what it printed."""
        done = self.run(*args, **options)
        assert done.returncode == 0, f"`run` of {args[-1]!r} ended with {done.returncode}: {done.stderr}{done.stdout}"
        return done.stdout

    def shell(self, script: str, **options: Any) -> str:
        """Run a shell script in a new container; give what it printed without the last newline."""
        return self.output("sh", "-ec", script, **options).rstrip("\n")

    def try_create(self, *args: str, flags: tuple[str, ...] = (), **options: Any) -> Done:
        """Create a container whose output goes to files; what was said on stderr is in the answer."""
        name = self.new_id()
        self.write(*args)
        with open(self.out, "w", encoding="utf-8") as out, open(self.err, "w", encoding="utf-8") as err:
            done = self.call("create", *flags, name, **({"stdout": out, "stderr": err} | options))
        done.stderr = self.err.read_text(encoding="utf-8", errors="replace")
        return done

    def create(self, *args: str, flags: tuple[str, ...] = (), **options: Any) -> str:
        """Create a container; give its id."""
        done = self.try_create(*args, flags=flags, **options)
        assert done.returncode == 0, f"`create` ended with {done.returncode}: {done.stderr}"
        return self.id

    def start(self, *args: str, flags: tuple[str, ...] = (), **options: Any) -> str:
        """Create and start a container; give its id."""
        name = self.create(*args, flags=flags, **options)
        self.ok("start", name)
        return name

    def sleeper(self, **options: Any) -> str:
        """Start a container that stays until it is told to end."""
        return self.start("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done", **options)

    def refused(self, *args: str) -> str:
        """Make `create` fail, and nothing be left of it; give what it said."""
        done = self.try_create(*args)
        assert done.returncode != 0, "`create` must fail, and succeeded"
        assert done.stderr.strip(), "`create` failed and said nothing"
        assert "Traceback" not in done.stderr, done.stderr
        assert self.call("state", self.id).returncode != 0, "a container is left of a failed `create`"
        left = leaks.find(self.bundle, self.root, self.ids)
        assert not left, f"left of a failed `create`: {', '.join(left)}"
        return done.stderr

    def run_refused(self, *args: str, want: str = "") -> str:
        """Make `run` fail before the program runs (it would write to the root); give what was said."""
        done = self.run(*args)
        assert done.returncode != 0, f"`run` must fail{want and f', because {want}'}, and succeeded: {done.stdout}"
        assert done.stderr.strip(), "`run` failed and said nothing"
        return done.stderr

    def popen(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Run a command in the background; it is ended after the test."""
        given: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "cwd": self.bundle,
            **options,
        }
        command = [self.runtime.path, *self.runtime.args, "--root", str(self.root), *arguments]
        process: subprocess.Popen[str] = subprocess.Popen(command, text=True, **given)
        wait.ours.add(process.pid)
        self.background.append(process)
        return process

    # what it tells

    def state(self, name: str | None = None) -> dict[str, Any]:
        """Query the state."""
        answer: dict[str, Any] = json.loads(self.ok("state", name or self.id))
        return answer

    def status(self, name: str | None = None) -> str:
        """Give the state's status."""
        return str(self.state(name)["status"])

    def pid(self, name: str | None = None) -> int:
        """Give the process id of a container's process as the runtime sees it."""
        return int(self.state(name)["pid"])

    def until(self, status: str, name: str | None = None) -> None:
        """Wait for a status."""
        wait.wait_for(lambda: self.status(name) == status, f"the container to be {status}")

    def printed(self) -> str:
        """Give what the newest created container has printed."""
        return self.out.read_text(encoding="utf-8", errors="replace").rstrip("\n")

    def until_printed(self, text: str) -> str:
        """Wait until the newest created container has printed a text; give all it printed."""
        wait.wait_for(lambda: text in self.printed(), f"the container to print {text!r} (it printed {self.printed()!r})")
        return self.printed()

    def execute(self, script: str, *flags: str, **options: Any) -> str:
        """Run a shell script by `exec` in the newest container; give what it printed."""
        return self.ok("exec", *flags, self.id, "sh", "-ec", script, **options).rstrip("\n")

    # the end

    def close(self) -> list[str]:
        """Delete the containers; give what they left behind."""
        errors = []
        for process in self.background:
            if process.poll() is None:
                process.kill()
            process.wait()
            wait.ours.discard(process.pid)
        for name in leaks.left_state(self.root):
            if name in self.ids:
                done = self.call("delete", "--force", name)
                if done.returncode != 0:
                    errors.append(f"`delete --force` of {name} ended with {done.returncode}: {done.stderr.strip()}")
        errors += leaks.find(self.bundle, self.root, self.ids)
        if errors:
            leaks.sweep(self.bundle, self.ids)
        for process in self.background:
            process.communicate(timeout=5)
        if not leaks.mounts_below(self.bundle):
            shutil.rmtree(self.bundle, ignore_errors=True)
        return errors
