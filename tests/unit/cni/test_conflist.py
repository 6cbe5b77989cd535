from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni import conflist
from cni.errors import ConfigFault

if TYPE_CHECKING:
    from pathlib import Path

LIST = {
    "cniVersion": "1.0.0",
    "name": "net",
    "plugins": [{"type": "bridge", "capabilities": {"mac": True, "ips": False}}, {"type": "portmap"}],
}


def _write(folder: Path, name: str, document: Any) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_first_in_lexical_order(tmp_path: Path) -> None:
    _write(tmp_path, "20-b.conflist", LIST | {"name": "second"})
    _write(tmp_path, "10-a.conf", {"cniVersion": "0.4.0", "name": "first", "type": "ptp"})
    _write(tmp_path, "00-readme.txt", "no")
    found = conflist.load_directory(str(tmp_path))
    assert (found.name, [one.type for one in found.plugins], found.versions) == ("first", ["ptp"], ("0.4.0",))
    assert conflist.files(str(tmp_path)) == ["10-a.conf", "20-b.conflist"]


def test_capabilities_that_are_on(tmp_path: Path) -> None:
    found = conflist.load_file(str(_write(tmp_path, "x.conflist", LIST)))
    assert [one.capabilities for one in found.plugins] == [frozenset({"mac"}), frozenset()]


def test_no_file_says_where_it_looked(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ConfigFault, match=str(folder)):
            conflist.load_directory(str(folder))


def test_plugins_beside_the_list(tmp_path: Path) -> None:
    path = _write(tmp_path, "x.conflist", LIST)
    _write(tmp_path, "net/2.conf", {"type": "tuning"})
    _write(tmp_path, "net/1.conf", {"type": "firewall"})
    _write(tmp_path, "net/3.json", {"type": "ignored"})
    assert [one.type for one in conflist.load_file(str(path)).plugins] == ["bridge", "portmap", "firewall", "tuning"]
    path = _write(tmp_path, "x.conflist", LIST | {"loadOnlyInlinedPlugins": True})
    assert [one.type for one in conflist.load_file(str(path)).plugins] == ["bridge", "portmap"]


def test_list_may_be_all_beside(tmp_path: Path) -> None:
    path = _write(tmp_path, "x.conflist", {"name": "net", "cniVersion": "1.0.0"})
    with pytest.raises(ConfigFault, match="/plugins: names no plugin"):
        conflist.load_file(str(path))
    _write(tmp_path, "net/1.conf", {"type": "firewall"})
    assert [one.type for one in conflist.load_file(str(path)).plugins] == ["firewall"]


def test_fault_in_a_plugin_file_names_that_file(tmp_path: Path) -> None:
    path = _write(tmp_path, "x.conflist", LIST)
    _write(tmp_path, "net/1.conf", {"type": 4})
    with pytest.raises(ConfigFault) as fault:
        conflist.load_file(str(path))
    assert (fault.value.file, fault.value.pointer) == (str(tmp_path / "net/1.conf"), "/type")


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"name": ""}, "/name"),
        ({"name": "../net"}, "/name"),
        ({"name": "a/b"}, "/name"),
        ({"name": 7}, "/name"),
        ({"cniVersion": "1"}, "/cniVersion"),
        ({"cniVersions": ["1.0.0", "x"]}, "/cniVersions/1"),
        ({"cniVersions": "1.0.0"}, "/cniVersions"),
        ({"plugins": {}}, "/plugins"),
        ({"plugins": [3]}, "/plugins/0"),
        ({"plugins": [{"type": "a"}, {}]}, "/plugins/1/type"),
        ({"plugins": [{"type": "../../bin/sh"}]}, "/plugins/0/type"),
        ({"plugins": [{"type": ".."}]}, "/plugins/0/type"),
        ({"plugins": [{"type": "a", "ipam": {"type": "/bin/sh"}}]}, "/plugins/0/ipam/type"),
        ({"plugins": [{"type": "a", "ipam": []}, {"type": "b", "ipam": ["x"]}]}, "/plugins/1/ipam"),
        ({"plugins": [{"type": "a", "capabilities": {"ips": "yes"}}]}, "/plugins/0/capabilities/ips"),
        ({"plugins": [{"type": "a"}] * 65}, "/plugins"),
        ({"disableCheck": "maybe"}, "/disableCheck"),
    ],
)
def test_faults_name_file_and_pointer(tmp_path: Path, change: dict[str, Any], pointer: str) -> None:
    path = _write(tmp_path, "10-x.conflist", LIST | change)
    with pytest.raises(ConfigFault) as fault:
        conflist.load_directory(str(tmp_path))
    assert (fault.value.file, fault.value.pointer) == (str(path), pointer)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "[" * 100_000, "{}" + " " * (1 << 20)])
def test_files_that_are_no_configuration(tmp_path: Path, text: str) -> None:
    path = _write(tmp_path, "10-x.conflist", text)
    with pytest.raises(ConfigFault, match=str(path)):
        conflist.load_directory(str(tmp_path))


def test_offered_versions() -> None:
    both = conflist.parse(LIST | {"cniVersions": ["0.4.0", "1.1.0"]})
    assert both.versions == ("0.4.0", "1.1.0", "1.0.0")
    assert conflist.parse({"name": "n", "type": "t"}).versions == ("0.1.0",)


def test_flags_as_early_configurations_wrote_them() -> None:
    assert conflist.parse(LIST | {"disableCheck": "true", "disableGC": True}).disable_check
    assert not conflist.parse(LIST | {"disableCheck": "false"}).disable_check


def test_round_trip() -> None:
    one = conflist.parse(LIST | {"disableGC": True})
    assert conflist.parse(one.to_json()) == one


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "type", "plugins", "ipam", "capabilities", "cniVersion", "cniVersions"]), inner
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_read_or_refused(document: Any) -> None:
    with contextlib.suppress(ConfigFault):
        assert conflist.parse(document).name
