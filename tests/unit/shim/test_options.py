import pytest

from shim.errors import InvalidArgument
from shim.options import parse, print_only


def test_options_win_over_the_file(tmp_path):
    file = tmp_path / "c.toml"
    file.write_text('root = "/file"\nstate = "/state"\n[log]\nlevel = "error"\n')
    options = parse(["--config", str(file), "--root=/line", "--log-level", "debug", "--cni-bin-dir", "/a", "--cni-bin-dir=/b"])
    assert options.command == "serve"
    assert options.config.root == "/line"
    assert options.config.state == "/state"
    assert options.config.log.level == "debug"
    assert options.config.cni.bin_dirs == ("/a", "/b")
    assert options.config.socket_path == "/state/wherry.sock"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--rot", "/x"], "--rot"),
        (["--root"], "needs a value"),
        (["run"], "unknown command 'run'"),
        (["--log-level", "loud"], "log.level"),
        (["--root", "here"], "absolute"),
        (["--config", "/no/such/file"], "/no/such/file"),
    ],
)
def test_mistakes_are_named(arguments, part):
    with pytest.raises(InvalidArgument, match=part):
        parse(arguments)


@pytest.mark.parametrize(
    ("arguments", "part"), [(["--help"], "usage:"), (["config", "default"], "[cni]"), (["--version"], "wherryd")]
)
def test_what_only_prints(arguments, part, capsys):
    assert print_only(parse(arguments)) == 0
    assert part in capsys.readouterr().out


def test_serving_prints_nothing(capsys):
    assert print_only(parse([])) is None
    assert capsys.readouterr().out == ""
