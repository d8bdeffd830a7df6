"""What an unfinished run keeps comes back bit for bit, or not at all."""

import math

import numpy as np
import pytest

from app.training.checkpoint import Checkpoint

VALUES = {"rows": [{"loss": 0.1 + 0.2, "stage": "block5"}], "best": math.inf, "wait": 3}
ARRAYS = [np.float32([0.1, -0.0, np.nan]), np.array(7, np.int64), np.zeros((2, 0), np.float32)]


def kept(folder) -> Checkpoint:
    checkpoint = Checkpoint(folder / "unfinished")
    checkpoint.save("epoch", VALUES, ARRAYS)
    return checkpoint


def test_a_record_comes_back_as_it_was(tmp_path):
    record = kept(tmp_path).load("epoch")
    assert record.values == VALUES
    for array, old in zip(record.arrays, ARRAYS, strict=True):
        assert (array.dtype, array.shape) == (old.dtype, old.shape)
        assert array.tobytes() == old.tobytes()


def test_a_new_record_replaces_the_old_one_and_no_other(tmp_path):
    checkpoint = kept(tmp_path)
    checkpoint.save("head", {"epoch": 0})
    checkpoint.save("epoch", {"epoch": 2})
    assert checkpoint.load("epoch").values == {"epoch": 2}
    assert checkpoint.load("epoch").arrays == []
    checkpoint.remove("epoch")
    checkpoint.remove("epoch")
    assert checkpoint.load("epoch") is None
    assert checkpoint.load("head").values == {"epoch": 0}


def test_what_was_never_kept_is_none(tmp_path, capsys):
    assert Checkpoint(tmp_path / "nowhere").load("epoch") is None
    assert capsys.readouterr().err == ""


def test_a_record_that_was_cut_short_or_has_a_turned_bit_is_none(tmp_path, capsys):
    checkpoint = kept(tmp_path)
    (path,) = checkpoint.folder.iterdir()
    good = path.read_bytes()
    for place in range(len(good)):
        turned = bytearray(good)
        turned[place] ^= 1 << place % 8
        for bad in (good[:place], bytes(turned)):
            path.write_bytes(bad)
            assert checkpoint.load("epoch") is None
    assert f"{path} is damaged" in capsys.readouterr().err
    path.write_bytes(good)
    assert checkpoint.load("epoch").values == VALUES


def test_a_full_disk_leaves_the_older_record(tmp_path, monkeypatch):
    checkpoint = kept(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save("epoch", {"epoch": 9})
    assert [path.name for path in checkpoint.folder.iterdir()] == ["epoch.record"]
    assert checkpoint.load("epoch").values == VALUES
