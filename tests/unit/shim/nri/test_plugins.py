"""Plugins over a real socket pair: registration, synchronization in parts, order, and what ends a plugin."""

from __future__ import annotations

import asyncio
import socket

import pytest

from shim.config import NriValidatorConfig
from shim.errors import FailedPrecondition
from shim.gen.nri.v1alpha1 import api_pb2 as nri
from shim.nri.calls import ALL_EVENTS, CALLS, RUNTIME
from shim.nri.errors import Gone, NriError, Oversized, ProtocolError, Refused
from shim.nri.launch import installed
from shim.nri.link import MOST_WAITING, Link
from shim.nri.plugin import Plugin
from shim.nri.plugins import Plugins

LINKS: list[Link] = []
"""Connections of the running test."""


class Peer:
    """The plugin's side, with its answers as functions of the request."""

    def __init__(self) -> None:
        self.link = Link(plugin=True)
        self.link.serve = self.serve
        self.heard: list[str] = []
        self.answers = {
            "Configure": lambda _: nri.ConfigureResponse(),
            "Synchronize": lambda request: nri.SynchronizeResponse(more=request.more),
        }

    async def serve(self, call):
        self.heard.append(call.method)
        request = getattr(nri, f"{call.method}Request", nri.StateChangeEvent).FromString(call.payload)
        answer = self.answers.get(call.method)
        if answer is None:
            raise Refused(12, "unimplemented")
        result = answer(request)
        return await result if asyncio.iscoroutine(result) else result

    async def register(self, name: str = "test", index: str = "10"):
        request = nri.RegisterPluginRequest(plugin_name=name, plugin_idx=index)
        return await self.link.call(RUNTIME, "RegisterPlugin", request, nri.Empty, 5)


async def connected() -> tuple[Plugin, Peer]:
    ours, theirs = socket.socketpair()
    loop = asyncio.get_running_loop()
    link, peer = Link(), Peer()
    LINKS.extend((link, peer.link))
    plugin = Plugin(link, updating)
    await loop.create_connection(lambda: link, sock=ours)
    await loop.create_connection(lambda: peer.link, sock=theirs)
    return plugin, peer


async def updating(_plugin, request: nri.UpdateContainersRequest) -> nri.UpdateContainersResponse:
    return nri.UpdateContainersResponse(failed=request.update)


async def begun(index: str = "10", name: str = "test") -> tuple[Plugin, Peer]:
    plugin, peer = await connected()
    await asyncio.gather(plugin.begin(5, 5, "1.0"), peer.register(name, index))
    return plugin, peer


def pods(count: int, size: int = 10) -> list[nri.PodSandbox]:
    return [nri.PodSandbox(id=f"p{number}", annotations={"a": "x" * size}) for number in range(count)]


@pytest.fixture(autouse=True)
async def quiet():
    """Let connections end within the test's loop."""
    yield
    for link in LINKS:
        link.close()
    LINKS.clear()
    for _ in range(5):
        await asyncio.sleep(0)


async def test_registration() -> None:
    plugin, peer = await begun("07", "a.b+c_d-e")
    assert (plugin.name, plugin.mask) == ("07-a.b+c_d-e", ALL_EVENTS)
    with pytest.raises(Refused, match="registered already"):
        await peer.register()
    with pytest.raises(Refused, match="method Nonsense is not served"):
        await peer.link.call(RUNTIME, "Nonsense", nri.Empty(), nri.Empty, 5)
    with pytest.raises(Refused, match="service x is not served"):
        await peer.link.call("x", "RegisterPlugin", nri.Empty(), nri.Empty, 5)
    plugin.drop()
    await peer.link.closed.wait()


@pytest.mark.parametrize(
    ("index", "name"), [("1", "x"), ("123", "x"), ("1a", "x"), ("", "x"), ("10", ""), ("10", "a/b"), ("10", "a b")]
)
async def test_a_plugin_without_a_proper_name(index: str, name: str) -> None:
    plugin, peer = await connected()
    begin = asyncio.create_task(plugin.begin(5, 5, "1.0"))
    with pytest.raises(Refused, match=r"is not made of two digits|has other characters"):
        await peer.register(name, index)
    with pytest.raises(ProtocolError):
        await begin
    plugin.drop()


async def test_a_plugin_that_says_nothing() -> None:
    plugin, _peer = await connected()
    with pytest.raises(Gone, match=r"did not register within 0.05 s"):
        await plugin.begin(0.05, 5, "1.0")
    plugin.drop()


async def test_a_plugin_that_leaves_at_once() -> None:
    plugin, peer = await connected()
    begin = asyncio.create_task(plugin.begin(5, 5, "1.0"))
    peer.link.close()
    with pytest.raises(Gone, match="instead of registering"):
        await begin
    assert plugin.gone


async def test_events_that_do_not_exist() -> None:
    plugin, peer = await connected()
    peer.answers["Configure"] = lambda _: nri.ConfigureResponse(events=1 << 14)
    registered = asyncio.create_task(peer.register())
    with pytest.raises(ProtocolError, match="events that do not exist"):
        await plugin.begin(5, 5, "1.0")
    await registered
    plugin.drop()


async def test_everything_in_parts() -> None:
    plugin, peer = await begun()
    parts: list[tuple[list[str], list[str], bool]] = []

    def take(request: nri.SynchronizeRequest) -> nri.SynchronizeResponse:
        parts.append(([pod.id for pod in request.pods], [one.id for one in request.containers], request.more))
        update = [] if request.more else [nri.ContainerUpdate(container_id="c0")]
        return nri.SynchronizeResponse(more=request.more, update=update)

    peer.answers["Synchronize"] = take
    containers = [nri.Container(id=f"c{number}") for number in range(5)]
    updates = await plugin.synchronize(pods(40, 300_000), containers, 30)
    assert [update.container_id for update in updates] == ["c0"]
    assert [key for part in parts for key in part[0]] == [f"p{number}" for number in range(40)]
    assert [key for part in parts for key in part[1]] == [f"c{number}" for number in range(5)]
    assert [part[2] for part in parts] == [True] * (len(parts) - 1) + [False]
    assert 3 <= len(parts) <= 6
    plugin.drop()


async def test_parts_are_not_understood() -> None:
    plugin, peer = await begun()
    peer.answers["Synchronize"] = lambda _: nri.SynchronizeResponse()
    with pytest.raises(ProtocolError, match="in parts"):
        await plugin.synchronize(pods(20, 300_000), [], 30)
    with pytest.raises(Oversized):
        await plugin.synchronize(pods(8, 1_000_000), [], 30)
    plugin.drop()


async def test_state_changes_for_older_plugins() -> None:
    plugin, peer = await begun()
    peer.answers["StateChange"] = lambda _: nri.Empty()
    request = nri.StartContainerRequest(pod=nri.PodSandbox(id="p"), container=nri.Container(id="c"))
    for _ in range(2):
        await plugin.ask(CALLS[nri.START_CONTAINER], request, 5)
        assert await plugin.ask(CALLS[nri.UPDATE_POD_SANDBOX], nri.UpdatePodSandboxRequest(), 5) is None
    assert peer.heard[1:] == ["StartContainer", "StateChange", "UpdatePodSandbox", "StateChange"]
    plugin.drop()


async def test_out_of_turn() -> None:
    plugin, peer = await begun()
    request = nri.UpdateContainersRequest(update=[nri.ContainerUpdate(container_id="x")])
    answer = await peer.link.call(RUNTIME, "UpdateContainers", request, nri.UpdateContainersResponse, 5)
    assert answer.failed[0].container_id == "x"
    plugin.drop()


async def test_a_plugin_that_floods() -> None:
    plugin, peer = await begun()
    calls = [
        peer.link.call(RUNTIME, "UpdateContainers", nri.UpdateContainersRequest(), nri.UpdateContainersResponse, 5)
        for _ in range(MOST_WAITING * 20)
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert any(isinstance(result, Gone) for result in results)
    assert plugin.gone


async def joined(*names: str, rules: NriValidatorConfig | None = None) -> tuple[Plugins, list[Peer]]:
    plugins, peers = Plugins(0.2, rules or NriValidatorConfig()), []

    async def nothing() -> tuple[list[nri.PodSandbox], list[nri.Container]]:
        return [], []

    for name in names:
        plugin, peer = await begun(*name.split("-"))
        peers.append(peer)
        await plugins.join(plugin, nothing, 5)
    return plugins, peers


async def test_the_order_of_indices() -> None:
    plugins, peers = await joined("20-b", "10-a", "30-c")
    assert plugins.names() == ["10-a", "20-b", "30-c"]
    order: list[str] = []
    for peer, name in zip(peers, "bac", strict=True):
        peer.answers["CreateContainer"] = lambda _, name=name: order.append(name) or nri.CreateContainerResponse()
    await plugins.create(nri.CreateContainerRequest(container=nri.Container(id="x")))
    assert order == ["a", "b", "c"]
    await plugins.close(1)


async def test_a_hanging_plugin_is_dropped_and_the_rest_goes_on() -> None:
    plugins, (hanging, good) = await joined("10-a", "20-b")

    async def hang() -> None:
        await asyncio.Event().wait()

    hanging.answers["CreateContainer"] = lambda _: hang()
    adjust = nri.ContainerAdjustment(args=["x"])
    good.answers["CreateContainer"] = lambda _: nri.CreateContainerResponse(adjust=adjust)
    creation = await plugins.create(nri.CreateContainerRequest(container=nri.Container(id="x")))
    assert creation.asked == adjust
    await hanging.link.closed.wait()
    await plugins.close(1)


async def test_a_validator_that_hangs_fails_the_creation() -> None:
    plugins, (peer,) = await joined("10-a")

    async def hang() -> None:
        await asyncio.Event().wait()

    peer.answers["ValidateContainerAdjustment"] = lambda _: hang()
    with pytest.raises(FailedPrecondition, match="10-a did not judge"):
        await plugins.create(nri.CreateContainerRequest(container=nri.Container(id="x")))


async def test_the_rules_of_the_node_hold_with_and_without_plugins() -> None:
    rules = NriValidatorConfig(enable=True, reject_oci_hook_adjustment=True, required_plugins=("a",))
    plugins, (peer,) = await joined("10-a", rules=rules)
    request = nri.CreateContainerRequest(container=nri.Container(id="x"))
    peer.answers["CreateContainer"] = lambda _: nri.CreateContainerResponse()
    await plugins.create(request)
    adjust = nri.ContainerAdjustment(hooks=nri.Hooks(poststop=[nri.Hook(path="/x")]))
    peer.answers["CreateContainer"] = lambda _: nri.CreateContainerResponse(adjust=adjust)
    with pytest.raises(FailedPrecondition, match="rejected: hooks may not be added, as 10-a asks"):
        await plugins.create(request)
    with pytest.raises(FailedPrecondition, match="rejected: plugins it needs are not there: a"):
        await Plugins(1, rules).create(request)


async def test_answers_that_are_none_end_the_plugin() -> None:
    plugins, (peer,) = await joined("10-a")
    peer.answers["CreateContainer"] = lambda _: nri.KeyValue(key="\x7f" * 3)
    await plugins.create(nri.CreateContainerRequest(container=nri.Container(id="x")))
    await peer.link.closed.wait()


async def test_a_join_that_fails_leaves_nobody_behind() -> None:
    plugins = Plugins(1, NriValidatorConfig())
    plugin, peer = await begun()
    peer.answers["Synchronize"] = lambda _: (_ for _ in ()).throw(ValueError("no"))

    async def nothing() -> tuple[list[nri.PodSandbox], list[nri.Container]]:
        return [], []

    with pytest.raises(NriError, match="no"):
        await plugins.join(plugin, nothing, 5)
    assert len(plugins) == 0
    assert not plugins.lock.locked()
    plugin.drop()


def test_installed(tmp_path) -> None:
    assert installed(f"{tmp_path}/absent", "") == []
    folder, conf = tmp_path / "p", tmp_path / "c"
    folder.mkdir()
    conf.mkdir()
    for name in ("20-b", "10-a", "30-c"):
        (folder / name).touch(mode=0o755)
    (folder / "README").touch(mode=0o644)
    (folder / "folder").mkdir()
    (conf / "20-b.conf").write_text("exact")
    (conf / "b.conf").write_text("not this")
    (conf / "a.conf").write_text("by name")
    assert installed(str(folder), str(conf)) == [
        (f"{folder}/10-a", "10", "a", "by name"),
        (f"{folder}/20-b", "20", "b", "exact"),
        (f"{folder}/30-c", "30", "c", ""),
    ]
    (folder / "nonsense").touch(mode=0o755)
    with pytest.raises(ValueError, match=r"nonsense is not named like a plugin"):
        installed(str(folder), str(conf))
