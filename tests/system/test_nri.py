"""NRI through the real daemon: a plugin process hears of a pod's life, changes containers, hangs, dies, is started."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from shim.gen.runtime.v1 import api_pb2
from tests.support.daemon import BUSYBOX
from tests.support.nri import NriPlugin
from tests.support.wait import wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.cri import PodMaker
    from tests.support.daemon import Wherryd

pytestmark = pytest.mark.system

SLEEP = ["/bin/sleep", "1000"]
CREATED = 40
"""Containers made by each of four threads while plugins join."""
LIFE = [
    "RunPodSandbox",
    "CreateContainer",
    "ValidateContainerAdjustment",
    "PostCreateContainer",
    "StartContainer",
    "PostStartContainer",
    "UpdateContainer",
    "PostUpdateContainer",
    "UpdatePodSandbox",
    "PostUpdatePodSandbox",
    "StopContainer",
    "RemoveContainer",
    "StopPodSandbox",
    "RemovePodSandbox",
]


@pytest.fixture
def plugin(wherryd: Wherryd) -> Iterator[Callable[..., NriPlugin]]:
    """Start plugins, and end them before the daemon."""
    made: list[NriPlugin] = []

    def start(index: str = "10", name: str = "test", until: str = "Synchronize", **config: Any) -> NriPlugin:
        made.append(NriPlugin(wherryd, index, name, **config))
        return made[-1].start(until)

    yield start
    for one in made:
        one.process.kill()


def adjust(**fields: Any) -> dict[str, Any]:
    return {"answers": {"CreateContainer": [{"adjust": fields}]}}


def make(wherryd: Wherryd, pods: PodMaker, *, start: bool = True, pod: str = "", **fields: Any) -> tuple[str, str]:
    """Run a pod (or use one) with a container, and give both ids."""
    config = pods.pod()
    pod = pod or wherryd.cri.run_pod(config)
    container = wherryd.cri.create(pod, pods.container(BUSYBOX, SLEEP, **fields), config)
    if start:
        wherryd.cri.start(container)
    return pod, container


def sh(wherryd: Wherryd, container: str, script: str) -> str:
    return str(wherryd.cri.execute(container, "/bin/sh", "-c", script).stdout.decode().strip())


@pytest.mark.parametrize("old", [False, True], ids=["methods", "state changes"])
def test_a_life(wherryd: Wherryd, pods: PodMaker, plugin: Callable[..., NriPlugin], old: bool) -> None:
    seen = plugin(old=old)
    cri = wherryd.cri
    config = pods.pod("life", labels={"app": "web"}, annotations={"note": "x"})
    pod = cri.run_pod(config)
    order = pods.container(BUSYBOX, SLEEP, labels={"a": "b"})
    container = cri.create(pod, order, config)
    cri.start(container)
    limits = api_pb2.LinuxContainerResources(cpu_shares=300)
    cri.runtime.UpdateContainerResources(
        api_pb2.UpdateContainerResourcesRequest(container_id=container, linux=limits), timeout=10
    )
    cri.runtime.UpdatePodSandboxResources(
        api_pb2.UpdatePodSandboxResourcesRequest(pod_sandbox_id=pod, resources=limits), timeout=10
    )
    cri.stop(container)
    cri.stop(container)
    cri.remove(container)
    cri.remove_pod(pod)
    if old:
        names = [message["event"] if name == "StateChange" else name for name, message in seen.requests()]
        names = [name.title().replace("_", "") if name.isupper() else name for name in names]
        expected = [name for name in LIFE if name not in {"UpdatePodSandbox", "ValidateContainerAdjustment"}]
    else:
        names, expected = seen.heard(), LIFE
    assert names == ["Configure", "Synchronize", *expected]
    if old:
        return
    told = seen.last("RunPodSandbox")["pod"]
    assert (told["id"], told["name"], told["labels"], told["annotations"]["note"]) == (pod, "life", {"app": "web"}, "x")
    assert told["annotations"]["io.kubernetes.cri.sandbox-id"] == pod
    assert told["ips"][0].startswith("10.189.")
    assert any(one["type"] == "network" for one in told["linux"]["namespaces"])
    created, started = (seen.last(name)["container"] for name in ("CreateContainer", "PostStartContainer"))
    assert (created["name"], created["args"], created["labels"]) == ("main", SLEEP, {"a": "b"})
    assert started["state"] == "CONTAINER_RUNNING"
    assert started["pid"] > 0
    assert seen.last("UpdateContainer")["linux_resources"] == {"cpu": {"shares": {"value": "300"}}}
    assert seen.last("StopContainer")["container"]["state"] == "CONTAINER_STOPPED"
    assert seen.last("Configure")["request_timeout"] == "2000"


def test_an_end_is_told_unasked(wherryd: Wherryd, pods: PodMaker, plugin: Callable[..., NriPlugin]) -> None:
    seen = plugin()
    config = pods.pod()
    pod = wherryd.cri.run_pod(config)
    container = wherryd.cri.create(pod, pods.container(BUSYBOX, ["/bin/sh", "-c", "exit 3"]), config)
    wherryd.cri.start(container)
    stopped = seen.last("StopContainer")["container"]
    assert (stopped["id"], stopped["exit_code"], stopped["status_reason"]) == (container, 3, "Error")
    wherryd.cri.remove_pod(pod)
    assert seen.heard().count("StopContainer") == seen.heard().count("RemoveContainer") == 1


def test_adjustments_are_what_the_container_sees(wherryd: Wherryd, pods: PodMaker, plugin: Callable[..., NriPlugin]) -> None:
    (wherryd.folder / "shared").mkdir()
    (wherryd.folder / "shared" / "note").write_text("from the plugin\n")
    (wherryd.folder / "cdi").mkdir()
    (wherryd.folder / "cdi" / "v.json").write_text(
        '{"cdiVersion": "0.5.0", "kind": "v.com/c", "devices": [{"name": "d", "containerEdits": {"env": ["CDI=here"]}}]}'
    )
    hook = wherryd.folder / "hook"
    plugin(
        **adjust(
            env=[{"key": "ADDED", "value": "a b"}, {"key": "-GONE"}],
            annotations={"plugin.io/x": "y"},
            mounts=[
                {"destination": "/note", "type": "bind", "source": str(wherryd.folder / "shared"), "options": ["rbind", "ro"]}
            ],
            hooks={"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", f"cat >{hook}"]}]},
            rlimits=[{"type": "RLIMIT_NOFILE", "hard": "77", "soft": "66"}],
            CDIDevices=[{"name": "v.com/c=d"}],
            args=["/bin/sleep", "999"],
            linux={
                "devices": [{"path": "/dev/zilch", "type": "c", "major": "1", "minor": "3", "fileMode": {"value": 438}}],
                "oomScoreAdj": {"value": 321},
                "sysctl": {"net.ipv4.ip_default_ttl": "55"},
                "ioPriority": {"ioClass": "IOPRIO_CLASS_BE", "priority": 6},
                "resources": {
                    "pids": {"limit": 50},
                    "cpu": {"shares": {"value": "512"}},
                    "memory": {"limit": {"value": "33554432"}},
                },
            },
        )
    )
    _, container = make(wherryd, pods, envs=[api_pb2.KeyValue(key="GONE", value=b"x")])
    assert sh(wherryd, container, "echo $ADDED-$GONE-$CDI; cat /note/note; ulimit -Sn; ulimit -Hn") == (
        "a b--here\nfrom the plugin\n66\n77"
    )
    assert sh(wherryd, container, "echo x >/note/new 2>&1 || echo read-only").endswith("read-only")
    assert sh(wherryd, container, "echo gone >/dev/zilch && wc -c </dev/zilch") == "0"
    assert sh(wherryd, container, "tr '\\0' ' ' </proc/1/cmdline; cat /proc/1/oom_score_adj") == "/bin/sleep 999 321"
    assert sh(wherryd, container, "cat /proc/sys/net/ipv4/ip_default_ttl") == "55"
    assert container in hook.read_text()
    status = wherryd.cri.runtime.ContainerStatus(
        api_pb2.ContainerStatusRequest(container_id=container, verbose=True), timeout=10
    )
    assert '"plugin.io/x":"y"' in status.info["info"]
    assert '"pids":{"limit":50}' in status.info["info"]
    assert '"limit":33554432' in status.info["info"]


def test_two_plugins_go_in_the_order_of_their_indices(
    wherryd: Wherryd, pods: PodMaker, plugin: Callable[..., NriPlugin]
) -> None:
    late = plugin("90", "late", **adjust(env=[{"key": "-E"}, {"key": "E", "value": "late"}]))
    early = plugin("05", "early", **adjust(env=[{"key": "E", "value": "early"}]))
    pod, container = make(wherryd, pods)
    assert sh(wherryd, container, "echo $E") == "late"
    assert "E=early" in late.last("CreateContainer")["container"]["env"]
    assert not [one for one in early.last("CreateContainer")["container"]["env"] if one.startswith("E=")]

    third = plugin("95", "third", **adjust(env=[{"key": "E", "value": "third"}]))
    with pytest.raises(grpc.RpcError, match="plugins '95-third' and '90-late' both want to set Env E"):
        make(wherryd, pods, pod=pod, name="second")
    assert [one.id for one in wherryd.cri.containers()] == [container]
    assert third.heard()[-2:] == ["StopContainer", "RemoveContainer"]  # of the one that was not created
    third.process.kill()
    wherryd.cri.remove(make(wherryd, pods, pod=pod, start=False, name="third")[1])


def test_updates_of_containers(wherryd: Wherryd, pods: PodMaker, plugin: Callable[..., NriPlugin]) -> None:
    pod, first = make(wherryd, pods)
    weight = {"linux": {"resources": {"cpu": {"shares": {"value": "777"}}}}}
    change = {"containerId": first, "linux": {"resources": {"memory": {"limit": {"value": "50331648"}}}}}
    asking = plugin(
        answers={
            "CreateContainer": [{"update": [{"containerId": first, **weight}]}],
            "UpdateContainer": [{"update": [{"containerId": first, "linux": {"resources": {"pids": {"limit": 40}}}}]}],
            "StopContainer": [{"update": [change]}],
        }
    )

    def limits() -> api_pb2.LinuxContainerResources:
        request = api_pb2.ContainerStatusRequest(container_id=first)
        return wherryd.cri.runtime.ContainerStatus(request, timeout=10).status.resources.linux

    second = wherryd.cri.create(pod, pods.container(BUSYBOX, SLEEP, name="second"), pods.pod())
    assert limits().cpu_shares == 777
    asked = api_pb2.LinuxContainerResources(cpu_quota=50000, cpu_period=100000)
    request = api_pb2.UpdateContainerResourcesRequest(container_id=first, linux=asked)
    wherryd.cri.runtime.UpdateContainerResources(request, timeout=10)
    assert (limits().cpu_shares, limits().cpu_quota) == (777, 50000)
    assert asking.last("PostUpdateContainer")["container"]["linux"]["resources"]["pids"] == {"limit": "40"}
    wherryd.cri.remove(second)
    assert limits().memory_limit_in_bytes == 50331648

    answer = asking.update(update=[{"containerId": first, "linux": {"resources": {"cpu": {"quota": {"value": "30000"}}}}}])
    assert answer == {}
    assert limits().cpu_quota == 30000
    wrong = {"containerId": first, "linux": {"resources": {"cpu": {"cpus": "nonsense"}}}}
    assert asking.update(update=[wrong, wrong | {"ignoreFailure": True}])["failed"][0]["container_id"] == first
    asking.update(evict=[{"containerId": first, "reason": "test"}])
    wait_for(lambda: wherryd.cri.status(first).state == api_pb2.CONTAINER_EXITED, "the eviction")


@pytest.mark.parametrize("method", ["RunPodSandbox", "CreateContainer", "StartContainer", "UpdatePodSandbox"])
def test_a_refusal_undoes_everything(wherryd: Wherryd, pods: PodMaker, plugin: Callable[..., NriPlugin], method: str) -> None:
    refusing = plugin(refuse={method: "not today"})

    def life() -> None:
        pod, _ = make(wherryd, pods)
        request = api_pb2.UpdatePodSandboxResourcesRequest(pod_sandbox_id=pod)
        wherryd.cri.runtime.UpdatePodSandboxResources(request, timeout=10)

    with pytest.raises(grpc.RpcError, match=f"NRI plugin 10-test refuses {method}: not today"):
        life()
    if method == "RunPodSandbox":
        assert wherryd.cri.pods() == []
        assert refusing.heard()[-3:] == ["RunPodSandbox", "StopPodSandbox", "RemovePodSandbox"]
    if method == "CreateContainer":
        assert wherryd.cri.containers() == []
    if method == "StartContainer":
        (container,) = wherryd.cri.containers()
        assert container.state == api_pb2.CONTAINER_EXITED


def test_validators_judge_what_others_ask(wherryd: Wherryd, pods: PodMaker, plugin: Callable[..., NriPlugin]) -> None:
    plugin("10", "mutator", **adjust(args=["/bin/sleep", "5"]))
    verdict = {"reject": True, "reason": "no new commands"}
    judge = plugin("99", "judge", events=1 << 13, answers={"ValidateContainerAdjustment": [verdict, {}]})
    with pytest.raises(grpc.RpcError, match="NRI plugin 99-judge rejects the adjustments of the container: no new commands"):
        make(wherryd, pods)
    question = judge.last("ValidateContainerAdjustment")
    assert question["adjust"]["args"] == ["/bin/sleep", "5"]
    assert question["container"]["args"] == SLEEP
    assert question["plugins"] == [{"name": "mutator", "index": "10"}, {"name": "judge", "index": "99"}]
    (owners,) = question["owners"]["owners"].values()
    assert owners["simple"] == {"7": "10-mutator"}
    (pod,) = wherryd.cri.pods()
    make(wherryd, pods, pod=pod.id)


@pytest.mark.parametrize("way", ["hang", "die"])
def test_who_hangs_or_dies_is_dropped(wherryd: Wherryd, pods: PodMaker, plugin: Callable[..., NriPlugin], way: str) -> None:
    bad = plugin("10", "bad", **{way: ["CreateContainer"]})
    good = plugin("20", "good")
    started = time.monotonic()
    pod, container = make(wherryd, pods)
    took = time.monotonic() - started
    assert took < 4
    assert (took > 1.9) == (way == "hang")
    assert good.last("CreateContainer")["container"]["id"] == container
    started = time.monotonic()
    wherryd.cri.remove(make(wherryd, pods, pod=pod, name="next")[1])
    assert time.monotonic() - started < 1.5
    assert bad.heard().count("CreateContainer") == 1


def test_who_hangs_before_it_has_joined_holds_nobody_up_for_long(
    wherryd: Wherryd, pods: PodMaker, plugin: Callable[..., NriPlugin]
) -> None:
    plugin("10", "mute", until="Configure", hang=["Configure"])
    started = time.monotonic()
    pod, _ = make(wherryd, pods)
    assert time.monotonic() - started < 1.5
    plugin("10", "stuck", hang=["Synchronize"])
    wherryd.cri.create(pod, pods.container(BUSYBOX, SLEEP, name="second"), pods.pod())
    assert 3 < time.monotonic() - started < 8
    assert "not served" in wherryd.process.log_tail(200)


def test_a_plugin_that_joins_learns_what_there_is(wherryd: Wherryd, pods: PodMaker, plugin: Callable[..., NriPlugin]) -> None:
    pod, running = make(wherryd, pods)
    created = make(wherryd, pods, pod=pod, start=False, name="created")[1]
    ended = make(wherryd, pods, pod=pod, name="ended")[1]
    wherryd.cri.stop(ended)
    told = plugin().last("Synchronize")
    assert [one["id"] for one in told["pods"]] == [pod]
    assert {one["id"]: one["state"] for one in told["containers"]} == {
        running: "CONTAINER_RUNNING",
        created: "CONTAINER_CREATED",
    }
    second = plugin("20", "second")
    wherryd.cri.remove_pod(pod)
    names = second.heard()
    assert (names.count("StopContainer"), names.count("StopPodSandbox"), names[-1]) == (2, 1, "RemovePodSandbox")


def test_no_container_is_lost_or_told_twice_while_a_plugin_joins(
    wherryd: Wherryd, pods: PodMaker, plugin: Callable[..., NriPlugin]
) -> None:
    pod = wherryd.cri.run_pod(pods.pod())
    config = pods.pod()

    def churn(number: int) -> list[str]:
        made = [
            wherryd.cri.create(pod, pods.container(BUSYBOX, SLEEP, name=f"c{number}-{turn}"), config) for turn in range(CREATED)
        ]
        wherryd.cri.remove(made[0])
        return made

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(churn, number) for number in range(4)]
        joined = [plugin(f"1{number}", "joins") for number in range(3)]
        created = {container for one in running for container in one.result()}
    assert len(created) == 4 * CREATED
    for one in joined:
        told = [item["id"] for item in one.last("Synchronize").get("containers", [])]
        told += [message["container"]["id"] for name, message in one.requests() if name == "CreateContainer"]
        gone = {message["container"]["id"] for name, message in one.requests() if name == "RemoveContainer"}
        assert len(told) == len(set(told))
        assert {item.id for item in wherryd.cri.containers()} <= set(told) <= created
        assert set(told) - gone == {item.id for item in wherryd.cri.containers()}


def test_installed_plugins_are_started_and_end_with_the_daemon(wherryd: Wherryd, pods: PodMaker) -> None:
    wherryd.process.stop()
    wherryd.disconnect()
    one = NriPlugin(wherryd, "07", "one", **adjust(env=[{"key": "ONE", "value": "1"}])).install()
    hanging = NriPlugin(wherryd, "08", "hanging", hang=["Configure"]).install()
    (wherryd.folder / "nri.d" / "README").write_text("not executable")
    wherryd.start()
    _, container = make(wherryd, pods)
    assert sh(wherryd, container, "echo $ONE") == "1"
    assert one.heard()[:2] == ["Configure", "Synchronize"]
    assert hanging.heard()[:1] == ["Configure"]
    wherryd.kill()
    wait_for(lambda: not [pid for pid in wherryd.helpers() if _is_plugin(pid)], "the plugins to end with a killed daemon")
    (wherryd.folder / "nri.d" / hanging.name).unlink()
    wherryd.start()
    assert [item["id"] for item in one.last("Synchronize")["containers"]] == [container]
    wherryd.cri.remove_all()
    wherryd.process.stop()
    wait_for(lambda: not [pid for pid in wherryd.helpers() if _is_plugin(pid)], "the plugins to end")
    assert one.heard()[-2:] == ["Shutdown", "closed"]


def _is_plugin(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return b"nri_plugin" in file.read()
    except OSError:
        return False


def test_garbage_on_the_socket(wherryd: Wherryd, pods: PodMaker) -> None:
    import socket

    for data in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 4096, os.urandom(4096), b""):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(f"{wherryd.folder}/nri")
            sock.sendall(data)
    make(wherryd, pods)
    assert os.stat(f"{wherryd.folder}/nri").st_mode & 0o777 == 0o600
