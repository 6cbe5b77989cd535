import asyncio
import dataclasses
import os

import pytest

from shim.errors import AlreadyExists, DeadlineExceeded, FailedPrecondition, InvalidArgument, WherryError
from shim.gen.runtime.v1 import api_pb2
from shim.pod.capabilities import parse_quantity
from shim.pod.remove import remove_pod_sandbox
from shim.pod.run import run_pod_sandbox
from shim.pod.stop import stop_pod_sandbox
from shim.rpc import encode
from tests.unit.shim.fakes import pod_config


def files_below(folder):
    return os.listdir(folder) if os.path.exists(folder) else []


async def test_a_pod_is_ready_with_its_addresses_and_files(world):
    node, trace = world
    pod_id = await run_pod_sandbox(node, pod_config(), "")
    assert trace == ["monitor", "setup", "cni add"]
    status = encode.pod_status(node.pods.get(pod_id))
    assert status.state == api_pb2.SANDBOX_READY
    assert status.network.ip == "10.1.0.2"
    assert [one.ip for one in status.network.additional_ips] == ["fd00::2"]
    assert sorted(os.listdir(node.pod_dir(pod_id))) == ["hostname", "hosts", "resolv.conf"]


async def test_the_plugins_learn_about_the_pod(world):
    node, _ = world
    mapping = api_pb2.PortMapping(container_port=80, host_port=8080, protocol=api_pb2.UDP, host_ip="127.0.0.1")
    config = pod_config(
        port_mappings=[mapping, api_pb2.PortMapping(container_port=81)],
        annotations={"kubernetes.io/ingress-bandwidth": "10M", "kubernetes.io/egress-bandwidth": "1Ki"},
        dns_config=api_pb2.DNSConfig(servers=["1.2.3.4"], searches=["a.b"]),
    )
    pod_id = await run_pod_sandbox(node, config, "")
    attachment = node.jobs.params[-1]["attachment"]
    assert attachment["container_id"] == pod_id
    assert attachment["args"]["K8S_POD_NAMESPACE"] == "default"
    assert attachment["args"]["K8S_POD_UID"] == "u1"
    capabilities = attachment["capabilities"]
    assert capabilities["portMappings"] == [{"hostPort": 8080, "containerPort": 80, "protocol": "udp", "hostIP": "127.0.0.1"}]
    assert capabilities["bandwidth"]["ingressRate"] == 10_000_000
    assert capabilities["bandwidth"]["egressRate"] == 1024
    assert capabilities["dns"] == {"servers": ["1.2.3.4"], "searches": ["a.b"], "options": []}


@pytest.mark.parametrize(("text", "rate"), [("500m", 1), ("1.5k", 1500), ("2e6", 2_000_000), ("1n", 1)])
def test_a_rate_below_one_bit_is_one_bit_as_kubernetes_rounds(text, rate):
    assert parse_quantity(text, "x") == rate


async def test_a_host_network_pod_gets_no_network(world):
    node, trace = world
    config = pod_config(hostname="")
    config.linux.security_context.namespace_options.network = api_pb2.NODE
    pod_id = await run_pod_sandbox(node, config, "")
    assert trace == ["monitor", "setup"]
    request = node.monitors.get(pod_id).request
    assert (request.net_pin, request.uts, request.hostname) == ("", False, "")
    assert encode.pod_status(node.pods.get(pod_id)).network.ip == ""


@pytest.mark.parametrize(
    ("step", "undone"),
    [
        ("monitor", ["monitor.stop"]),
        ("setup", ["teardown", "monitor.stop"]),
        ("cni add", ["cni delete", "teardown", "monitor.stop"]),
    ],
)
async def test_a_failed_step_undoes_those_before_it(world, step, undone):
    node, trace = world
    trace.fail[step] = WherryError("no luck")
    with pytest.raises(WherryError, match="no luck"):
        await run_pod_sandbox(node, pod_config(), "")
    assert trace[trace.index(step) + 1 :] == undone
    assert len(node.pods) == 0
    assert files_below(f"{node.config.root}/pods") == []
    assert node.database.read(lambda connection: connection.execute("SELECT count(*) FROM pod").fetchone()) == (0,)


async def test_every_undo_runs_when_one_fails(world):
    node, trace = world
    trace.fail = {"cni add": WherryError("no luck"), "teardown": WherryError("worse")}
    with pytest.raises(WherryError, match="no luck"):
        await run_pod_sandbox(node, pod_config(), "")
    assert trace[-3:] == ["cni delete", "teardown", "monitor.stop"]


async def test_a_pod_whose_address_may_still_be_held_stays_until_it_is_freed(world):
    node, trace = world
    trace.fail = {"cni add": DeadlineExceeded("slow"), "cni delete": DeadlineExceeded("slow")}
    with pytest.raises(DeadlineExceeded):
        await run_pod_sandbox(node, pod_config(), "")
    (pod,) = node.pods
    assert encode.pod_state(pod) == api_pb2.SANDBOX_NOTREADY
    trace.fail = {}
    await remove_pod_sandbox(node, pod.id)
    assert trace.count("cni delete") == 2
    assert len(node.pods) == 0


async def test_a_repetition_joins_the_running_call(world):
    node, trace = world
    trace.block.add("cni add")
    calls = [asyncio.create_task(run_pod_sandbox(node, pod_config(), "")) for _ in range(3)]
    await trace.reached.wait()
    trace.release.set()
    ids = await asyncio.gather(*calls)
    assert len(set(ids)) == 1
    assert trace.count("cni add") == 1


async def test_a_repetition_of_a_finished_call_gives_the_same_pod(world):
    node, trace = world
    first = await run_pod_sandbox(node, pod_config(), "")
    assert await run_pod_sandbox(node, pod_config(), "") == first
    assert trace.count("monitor") == 1


async def test_the_same_name_with_another_configuration_is_refused(world):
    node, trace = world
    await run_pod_sandbox(node, pod_config(), "")
    with pytest.raises(AlreadyExists, match="next attempt"):
        await run_pod_sandbox(node, pod_config(labels={"a": "b"}), "")
    trace.block.add("cni add")
    running = asyncio.create_task(run_pod_sandbox(node, pod_config("other"), ""))
    await trace.reached.wait()
    with pytest.raises(AlreadyExists, match="another configuration"):
        await run_pod_sandbox(node, pod_config("other", labels={"a": "b"}), "")
    trace.release.set()
    await running


async def test_a_cancelled_call_is_undone_when_nobody_else_waits(world):
    node, trace = world
    trace.block.add("cni add")
    call = asyncio.create_task(run_pod_sandbox(node, pod_config(), ""))
    await trace.reached.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert trace[-3:] == ["cni delete", "teardown", "monitor.stop"]
    assert len(node.pods) == 0


async def test_a_cancelled_call_goes_on_for_who_has_joined(world):
    node, trace = world
    trace.block.add("cni add")
    first = asyncio.create_task(run_pod_sandbox(node, pod_config(), ""))
    await trace.reached.wait()
    second = asyncio.create_task(run_pod_sandbox(node, pod_config(), ""))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    trace.release.set()
    assert await second in node.pods


async def test_a_repetition_during_the_undoing_starts_anew(world):
    node, trace = world
    trace.block.add("teardown")
    trace.fail["cni add"] = WherryError("no luck")
    first = asyncio.create_task(run_pod_sandbox(node, pod_config(), ""))
    await trace.reached.wait()
    first.cancel()
    await asyncio.sleep(0)
    trace.fail = {}
    second = asyncio.create_task(run_pod_sandbox(node, pod_config(), ""))
    await asyncio.sleep(0)
    trace.release.set()
    assert node.pods.get(await second).ready
    assert len(node.pods) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda config: config.metadata.ClearField("name"),
        lambda config: config.metadata.ClearField("uid"),
        lambda config: config.annotations.update({"kubernetes.io/ingress-bandwidth": "fast"}),
        lambda config: setattr(config.linux.security_context.namespace_options, "network", api_pb2.TARGET),
        lambda config: setattr(config.linux.security_context.namespace_options, "network", api_pb2.CONTAINER),
    ],
)
async def test_bad_configurations_are_refused_before_anything_is_made(world, spoil):
    node, trace = world
    config = pod_config()
    spoil(config)
    with pytest.raises(InvalidArgument):
        await run_pod_sandbox(node, config, "")
    assert trace == []


async def test_an_unknown_handler_is_named(world):
    node, _ = world
    with pytest.raises(InvalidArgument, match="kata"):
        await run_pod_sandbox(node, pod_config(), "kata")


async def test_stop_and_remove_are_idempotent(world):
    node, trace = world
    pod_id = await run_pod_sandbox(node, pod_config(), "")
    await stop_pod_sandbox(node, pod_id[:10])
    assert trace[-2:] == ["cni delete", "teardown"]
    done = len(trace)
    await stop_pod_sandbox(node, pod_id)
    assert len(trace) == done
    await remove_pod_sandbox(node, pod_id)
    await remove_pod_sandbox(node, pod_id)
    await stop_pod_sandbox(node, pod_id)
    await remove_pod_sandbox(node, "0" * 64)
    assert len(node.pods) == 0


async def test_a_stop_that_fails_half_way_is_tried_again(world):
    node, trace = world
    pod_id = await run_pod_sandbox(node, pod_config(), "")
    trace.fail["cni delete"] = WherryError("busy")
    with pytest.raises(WherryError, match="busy"):
        await stop_pod_sandbox(node, pod_id)
    assert trace[-1] == "teardown"
    assert not node.pods.get(pod_id).ready
    trace.fail = {}
    await stop_pod_sandbox(node, pod_id)
    assert trace.count("cni delete") == 2
    assert not node.pods.get(pod_id).status.namespaces


async def test_an_ambiguous_or_empty_id_is_refused(world):
    node, _ = world
    for name in ("a", "b"):
        await run_pod_sandbox(node, pod_config(name), "")
    with pytest.raises(InvalidArgument, match="must not be empty"):
        await stop_pod_sandbox(node, "")


async def test_a_pod_that_wants_a_label_of_selinux_is_refused_where_there_is_none(world):
    node, trace = world
    config = pod_config()
    config.linux.security_context.selinux_options.level = "s0:c1,c2"
    with pytest.raises(FailedPrecondition, match=r"selinux_options\.level asks for .*ignore_selinux_options"):
        await run_pod_sandbox(node, config, "")
    assert not trace
    runtime = dataclasses.replace(node.config.runtime, ignore_selinux_options=True)
    node.config = dataclasses.replace(node.config, runtime=runtime)
    await run_pod_sandbox(node, config, "")
    assert trace


async def test_files_that_cannot_be_written_undo_the_namespaces(world, monkeypatch):
    node, trace = world

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shim.pod.run.write_pod_files", fail)
    with pytest.raises(OSError, match="No space left"):
        await run_pod_sandbox(node, pod_config(), "")
    assert trace == ["monitor", "setup", "teardown", "monitor.stop"]
    assert len(node.pods) == 0
