import pytest

from shim.config import Config, default_text, parse
from shim.errors import InvalidArgument


def test_default_text_is_the_default_configuration():
    assert parse(default_text().encode()) == Config()


def test_every_line_of_the_default_text_is_explained():
    lines = default_text().splitlines()
    assert "# the CRI socket; empty: <state>/wherry.sock" in lines
    assert "[cni]" in lines


def test_values_reach_nested_tables():
    config = parse(b'root = "/r"\n[cni]\ntimeout = 3\nbin_dirs = ["/a"]\n[runtime.handlers.runc]\npath = "/usr/sbin/runc"\n')
    assert config.root == "/r"
    assert config.cni.timeout == 3.0
    assert config.cni.bin_dirs == ("/a",)
    assert config.runtime.handlers["runc"].path == "/usr/sbin/runc"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("rot = '/x'", "unknown key rot"),
        ("[cni]\nconfdir = '/x'", "unknown key cni.confdir"),
        ("[runtime.handlers.runc]\npth = ''", "unknown key runtime.handlers.runc.pth"),
        ("[runtime]\nunset_seccomp_profile = 'mine'", "unset_seccomp_profile 'mine' is no profile"),
        ("root = 3", "root must be a string"),
        ("[cni]\nbin_dirs = [1]", r"cni.bin_dirs\[0\] must be a string"),
        ("[cni]\nprefer_embedded = 1", "cni.prefer_embedded must be true or false"),
        ("cni = 1", "cni must be a table"),
        ("[log]\nlevel = 'loud'", "log.level must be one of"),
        ("[runtime]\ndefault_handler = 'kata'", "'kata' is not configured"),
        ("root = 'relative'", "absolute path"),
        ("root = ", "is not TOML"),
        ('root = "/a\\u0000b"', "root holds a NUL"),
        ("[limits]\nexec_sync_timeout = -5", "exec_sync_timeout must be a number from 0 on"),
        ("[limits]\nstop_timeout = nan", "stop_timeout must be a number from 0 on"),
        ("[limits]\nstop_timeout = inf", "stop_timeout must be a number from 0 on"),
        ("[cni]\ndefault_network = true\ndefault_subnets = ['10.1.0.0/99']", "default_subnets: '10.1.0.0/99'"),
    ],
)
def test_mistakes_are_named(text, part):
    with pytest.raises(InvalidArgument, match=part):
        parse(text.encode(), "file")


def test_a_file_that_is_not_utf8_is_refused():
    with pytest.raises(InvalidArgument, match="is not TOML"):
        parse(b"root = '\xff'")
