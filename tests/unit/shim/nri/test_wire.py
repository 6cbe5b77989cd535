"""The wire contract of NRI: names are ours to choose, services, methods, numbers and types are not."""

from __future__ import annotations

from google.protobuf.descriptor import FieldDescriptor

from shim.gen.nri.v1alpha1 import api_pb2 as nri
from shim.gen.ttrpc.v1 import ttrpc_pb2
from shim.nri.calls import ALL_EVENTS, CALLS, PLUGIN, RUNTIME

FILE = nri.DESCRIPTOR
NUMBERS = {
    "RegisterPluginRequest": "plugin_name=1 plugin_idx=2 NRI_version=3",
    "ConfigureRequest": "config=1 runtime_name=2 runtime_version=3 registration_timeout=4 request_timeout=5 NRI_version=6",
    "ConfigureResponse": "events=2",
    "SynchronizeRequest": "pods=1 containers=2 more=3",
    "CreateContainerResponse": "adjust=1 update=2 evict=3",
    "ValidateContainerAdjustmentRequest": "pod=1 container=2 adjust=3 update=4 owners=5 plugins=6",
    "PodSandbox": "id=1 name=2 uid=3 namespace=4 labels=5 annotations=6 runtime_handler=7 linux=8 pid=9 ips=10",
    "ContainerAdjustment": "annotations=2 mounts=3 env=4 hooks=5 linux=6 rlimits=7 CDI_devices=8 args=9",
    "LinuxContainerAdjustment": "devices=1 resources=2 cgroups_path=3 oom_score_adj=4 io_priority=5 seccomp_policy=6 "
    "namespaces=7 sysctl=8 net_devices=9 scheduler=10 rdt=11 memory_policy=12",
    "LinuxResources": "memory=1 cpu=2 hugepage_limits=3 blockio_class=4 rdt_class=5 unified=6 devices=7 pids=8",
    "LinuxMemory": "limit=1 reservation=2 swap=3 kernel=4 kernel_tcp=5 swappiness=6 disable_oom_killer=7 use_hierarchy=8",
    "LinuxCPU": "shares=1 quota=2 period=3 realtime_runtime=4 realtime_period=5 cpus=6 mems=7",
    "POSIXRlimit": "type=1 hard=2 soft=3",
    "ContainerUpdate": "container_id=1 linux=2 ignore_failure=3",
}


def test_services() -> None:
    assert {service.full_name: len(service.methods) for service in FILE.services_by_name.values()} == {PLUGIN: 18, RUNTIME: 2}
    assert ttrpc_pb2.Request.DESCRIPTOR.full_name == "ttrpc.Request"


def test_numbers() -> None:
    found = {
        name: " ".join(f"{field.name}={field.number}" for field in FILE.message_types_by_name[name].fields) for name in NUMBERS
    }
    assert found == NUMBERS


def test_types() -> None:
    assert nri.OptionalUInt64.DESCRIPTOR.fields[0].type == FieldDescriptor.TYPE_UINT64
    assert nri.OptionalInt.DESCRIPTOR.fields[0].type == FieldDescriptor.TYPE_INT64
    assert nri.OptionalFileMode.DESCRIPTOR.fields[0].type == FieldDescriptor.TYPE_UINT32


def test_events() -> None:
    assert ALL_EVENTS == 0b11_1111_1111_1111
    assert [CALLS[event].method for event in (1, 5, 14)] == [
        "RunPodSandbox",
        "PostCreateContainer",
        "ValidateContainerAdjustment",
    ]
    methods = {method.name for method in FILE.services_by_name["Plugin"].methods}
    assert {call.method for call in CALLS.values()} == methods - {"Configure", "Synchronize", "Shutdown", "StateChange"}
    assert CALLS[nri.RUN_POD_SANDBOX].wanted(1)
    assert not CALLS[nri.STOP_POD_SANDBOX].wanted(1)


def test_the_last_field_that_can_be_owned() -> None:
    assert (nri.MemoryPolicy, nri.RdtClosID, nri.CgroupsUnified, nri.Annotations) == (40, 37, 27, 1)
