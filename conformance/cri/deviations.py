"""What known runtimes do otherwise than the suite demands: by test, runtime and versions, each with its reason.

A test named here must fail on that runtime, or the table is out of date; one that fails elsewhere is a finding. Names are
FILE::TEST as pytest prints them, without the file's "test_" and ".py", and may hold the wildcards of fnmatch(3): "[[]" is "[".
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """One line of the table: versions are from `since` (included) until `before` (excluded), "" for no bound.

    `always` is False for what fails only at times, or only on some hosts. `run` is False for what must
    not even be tried, or would be waited for in vain.
    """

    test: str
    runtime: str
    reason: str
    since: str = ""
    before: str = ""
    always: bool = True
    run: bool = True


_OLD = "2.0"
_UNCHECKED = "it is not looked at; what the value means is left to the default of a switch"
_RESERVED = "the second call meets 'name is reserved' until the first one has ended"
_KEPT = "a cancelled call is not undone: its name stays reserved for what nobody knows of"
_NO_STREAMS = "the streaming lists of cri-api 0.36 are not served"
_NO_METRICS = "metrics of pods are not served"
_NO_EVENTS = "events are not served"
_NO_LISTS = "the filter of ListImages is ignored"
_NO_CHECKPOINTS = "checkpoints are not served"
_NO_PODS_SAVED = "CheckpointPod and RestorePod are of cri-api 0.37"
_NO_PRESSURE = "of cri-api 0.34, and on cgroup v2 alone"
_NO_DEVICES = "CDI is not known, or not switched on"
_NO_IMAGE_VOLUMES = "images as volumes are not known"


def _containerd(test: str, reason: str, **fields: Any) -> Deviation:
    return Deviation(test=test, runtime="containerd", reason=reason, **fields)


TABLE: tuple[Deviation, ...] = (
    _containerd("bad_input::test_pod[[]unknown network mode]", _UNCHECKED),
    _containerd("bad_input::test_pod[[]unknown pid mode]", _UNCHECKED),
    _containerd("bad_input::test_pod[[]unknown ipc mode]", _UNCHECKED),
    _containerd("bad_input::test_pod[[]an address that is none]", "the plugins take what they understand"),
    _containerd("bad_input::test_container[[]an unknown ipc mode]", _UNCHECKED),
    _containerd("bad_input::test_container[[]an unknown policy of groups]", "the field is not known", before=_OLD),
    _containerd("bad_input::test_container[[]a supplementary group beyond 32 bits]", "the number is cut to 32 bits"),
    _containerd("bad_input::test_after_the_removal_of_a_container[[]CheckpointContainer]", _NO_CHECKPOINTS, before=_OLD),
    _containerd("bad_input::test_after_the_removal_of_a_pod[[]UpdatePodSandboxResources]", "of cri-api 0.32", before="2.2"),
    _containerd("bad_input::test_after_the_removal_of_a_pod[[]CheckpointPod]", _NO_PODS_SAVED),
    _containerd("bad_input::test_a_log_that_is_a_link", "links are followed"),
    _containerd("bad_input::test_pod[[]another container's pids]", "TARGET is taken for CONTAINER"),
    _containerd("bad_input::test_pod[[]*user namespace*]", "user namespaces are not known", before=_OLD),
    _containerd("bad_input::test_container[[]a volume on a relative path]", "the path is taken from the root"),
    _containerd("bad_input::test_container[[]an unknown propagation]", _UNCHECKED),
    _containerd("bad_input::test_container[[]recursive read-only that may be written]", "not known yet", before=_OLD),
    _containerd("bad_input::test_container[[]the node's network in a pod of its own]", "the container joins its pod's"),
    _containerd("bad_input::test_container[[]an unknown pid mode]", _UNCHECKED),
    _containerd("bad_input::test_container[[]an unknown stop signal]", "the field is not known, or its range not checked"),
    _containerd("bad_input::test_label_of_a_*_without_selinux*", "SELinux options are ignored where there is no SELinux"),
    _containerd("bad_input::test_container[[]a log path that leaves]", "the paths are joined, wherever that leads"),
    _containerd("concurrency::test_equal_pods_at_once_all_get_the_answer", _RESERVED),
    _containerd("concurrency::test_equal_containers_at_once_all_get_the_answer", _RESERVED, always=False),
    _containerd("concurrency::test_a_container_whose_call_is_cancelled*", _KEPT, always=False),
    _containerd("concurrency::test_a_pod_whose_call_is_cancelled*", _KEPT, always=False),
    _containerd("concurrency::test_a_pod_whose_deadline_passes*", _KEPT, always=False),
    _containerd("concurrency::test_retry_of_a_cancelled_pod_need_not_wait", _KEPT, always=False),
    _containerd(
        "concurrency::test_the_end_of_a_pod_whose_call_is_cancelled*",
        "the second call may meet the first one's shim",
        always=False,
    ),
    _containerd("containers::test_life", "a process may end before its start is noted", always=False),
    _containerd("containers::test_status_has[[]image_id]", "ContainerStatus.image_id stays empty", before="2.2"),
    _containerd("containers::test_status_has[[]user]", "ContainerUser is not known", before=_OLD),
    _containerd("containers::test_status_has[[]supplemental groups]", "ContainerUser is not known", before=_OLD),
    _containerd("containers::test_*_container_is_no_error[[]StopContainer]", "NOT_FOUND is returned", before=_OLD),
    _containerd("containers::test_unknown_container_is_not_found[[]CheckpointContainer]", _NO_CHECKPOINTS, before=_OLD),
    _containerd("checkpoint::test_container_is_saved_whole_or_not", _NO_CHECKPOINTS, before=_OLD),
    _containerd("checkpoint::test_an_ended_container_is_not_saved", _NO_CHECKPOINTS, before=_OLD),
    _containerd("checkpoint::test_pod_is_saved_and_comes_back_whole_or_not", _NO_PODS_SAVED),
    _containerd("checkpoint::test_unknown_option_of_a_checkpoint_is_refused", _NO_PODS_SAVED),
    _containerd("checkpoint::test_container_of_another_pod_is_not_saved", _NO_PODS_SAVED),
    _containerd("checkpoint::test_nothing_is_restored_from_nothing", _NO_PODS_SAVED),
    _containerd("checkpoint::test_unknown_pod_is_not_saved", _NO_PODS_SAVED),
    _containerd("events::*", _NO_EVENTS, before="1.7"),
    _containerd("exec::test_timeout_kills_the_children", "the command alone is killed", run=False),
    _containerd("exec::test_a_child_that_keeps_the_output", "the end of the output is waited for", run=False),
    _containerd("images::test_list_filters_by_*", _NO_LISTS),
    _containerd("images::test_list_of_an_unknown_name_is_empty", _NO_LISTS),
    _containerd("images::test_filesystem_of_containers", "container_filesystems stays empty, or is a second entry"),
    _containerd("images::test_filesystem", "what is used is counted every 10 s", always=False),
    _containerd("images::test_image_as_volume[[]whole]", _NO_IMAGE_VOLUMES, before="2.1"),
    _containerd("images::test_image_as_volume[[]path]", "image_sub_path is not known"),
    _containerd("node::test_rpc_is_served[[]Stream*]", _NO_STREAMS),
    _containerd("node::test_rpc_is_served[[]CheckpointContainer]", _NO_CHECKPOINTS, before=_OLD),
    _containerd("node::test_rpc_is_served[[]CheckpointPod]", "of cri-api 0.37"),
    _containerd("node::test_rpc_is_served[[]RestorePod]", "of cri-api 0.37"),
    _containerd("node::test_rpc_is_served[[]GetContainerEvents]", _NO_EVENTS, before="1.7"),
    _containerd("node::test_rpc_is_served[[]ListMetricDescriptors]", _NO_METRICS),
    _containerd("node::test_rpc_is_served[[]ListPodSandboxMetrics]", _NO_METRICS),
    _containerd("node::test_rpc_is_served[[]RuntimeConfig]", "of cri-api 0.28", before="1.7"),
    _containerd("node::test_rpc_is_served[[]UpdatePodSandboxResources]", "of cri-api 0.32", before="2.2"),
    _containerd("containers::test_stop_signal", "the stop signal of a container is the image's", before="2.2"),
    _containerd("process::test_process_has[[]ambient capability of a user]", "ambient capabilities are left out"),
    _containerd("process::test_user_namespace*", "user namespaces are not known", before=_OLD),
    _containerd("process::test_user_namespace*", "not on every node, nor in the node's network", since=_OLD, always=False),
    _containerd("process::test_mount_options", "of cri-api 0.37"),
    _containerd("process::test_recursive_read_only", "not known yet", before=_OLD),
    _containerd("images::test_status_names_the_image_of_a_volume", "image_ref of a mount stays empty"),
    _containerd("node::test_status_tells_of_mount_options", "of cri-api 0.37"),
    _containerd("node::test_handlers_have_a_default", "of cri-api 0.29", before=_OLD),
    _containerd("node::test_default_handler_has_a_feature*", "of cri-api 0.29", before=_OLD),
    _containerd("node::test_status_tells_of_supplemental_groups_policy", "of cri-api 0.31", before=_OLD),
    _containerd("node::test_runtime_config_has_a_driver", "of cri-api 0.28", before="1.7"),
    _containerd("network::test_network_is_told_with_its_time", "NetworkUsage.timestamp stays 0"),
    _containerd("network::test_other_interfaces_are_told_once", "eth0 alone is told of", run=False),
    _containerd("registry::test_pull_with[[]for this host]", "server_address is parsed as a URL, which HOST:PORT is not"),
    _containerd("registry::test_status_keeps_what_the_user_wrote", "user_specified_image is not kept"),
    _containerd("resources::test_device_*", _NO_DEVICES, before=_OLD),
    _containerd("resources::test_update_of_a_pod_with_overhead", "of cri-api 0.32", before="2.2"),
    _containerd("pods::test_status_has_the_containers", "only when events are enabled in its configuration"),
    _containerd("pods::test_status_has_the_newest_container_first", "only when events are enabled, and then in no order"),
    _containerd("pods::test_*_pod_is_no_error[[]StopPodSandbox]", "NOT_FOUND is returned", before=_OLD),
    _containerd("pods::test_unknown_pod_is_not_found[[]UpdatePodSandboxResources]", "of cri-api 0.32", before="2.2"),
    _containerd("pods::test_a_container_in_a_stopped_pod_is_refused", "the pod's state is not looked at", since=_OLD),
    _containerd("process::test_process_has[[]strict groups]", "supplemental_groups_policy is not known", before=_OLD),
    _containerd(
        "process::test_process_has[[]read-only cgroups]",
        "on cgroup v1 the directory above the hierarchies can be written",
        always=False,
    ),
    _containerd("versions::test_unknown_fields_of_a_question[[]RuntimeConfig]", "of cri-api 0.28", before="1.7"),
    _containerd("node::test_status_tells_of_user_namespaces_in*", "user namespaces are not known", before=_OLD),
    _containerd("usage::test_pressure*", _NO_PRESSURE, always=False, run=False),
    _containerd("usage::test_container_has[[]*swap]", "of cri-api 0.28, and on cgroup v2 alone", always=False, run=False),
    _containerd("usage::test_container_has[[]IO]", _NO_PRESSURE, always=False, run=False),
    _containerd("usage::test_metrics_are_explained", _NO_METRICS),
    _containerd("usage::test_cpu_rate", "usage_nano_cores needs its own collection, every 10 s", since=_OLD, always=False),
    _containerd("usage::test_list_leaves_out_what_has_ended", "what has ended is listed with nothing used"),
    _containerd("usage::test_stats_while_a_pod_ends", "a list fails for a pod that ends meanwhile", always=False),
    _containerd("usage::test_stream_*", _NO_STREAMS),
    _containerd("usage::test_metrics_are_described", _NO_METRICS),
    _containerd("usage::test_update_of_an_exited_container_is_refused", "an ended container can be updated"),
    _containerd("usage::test_update_of_a_pod", "of cri-api 0.32", before="2.2"),
)


def deviation(runtime: str, version: str, test: str) -> Deviation | None:
    """Give the line of the table for a test, if there is one."""
    for line in TABLE:
        if line.runtime == runtime and fnmatchcase(test, line.test) and _within(line, version):
            return line
    return None


def _within(line: Deviation, version: str) -> bool:
    number = _number(version)
    return _number(line.since) <= number and (not line.before or number < _number(line.before))


def _number(version: str) -> tuple[int, ...]:
    """Give what orders versions: "1.6.20~ds1" → (1, 6, 20)."""
    found = []
    for word in version.split("."):
        digits = word[: len(word) - len(word.lstrip("0123456789"))]
        if not digits:
            break
        found.append(int(digits))
    return tuple(found)
