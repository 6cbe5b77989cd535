import os

from shim.container.cleanup import FEW, clear_few, is_small


def test_few_entries_are_cleared_without_following_links(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").touch()
    layer = tmp_path / "layer"
    (layer / "etc" / "deep").mkdir(parents=True)
    (layer / "etc" / "hosts").touch()
    os.symlink(outside, layer / "link")
    os.symlink(outside, layer / "etc" / "link")
    clear_few(str(layer))
    assert os.listdir(layer) == []
    assert (outside / "keep").exists()


def test_many_entries_are_left_to_a_job(tmp_path):
    for number in range(FEW + 1):
        (tmp_path / f"{number}").touch()
    assert not is_small(str(tmp_path))
    clear_few(str(tmp_path))
    assert len(os.listdir(tmp_path)) == FEW + 1


def test_what_is_gone_is_no_error(tmp_path):
    assert is_small(str(tmp_path / "nothing"))
    clear_few(str(tmp_path / "nothing"))
