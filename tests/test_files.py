"""Files are whole or as they were."""

from __future__ import annotations

import pytest

from jinyong_gpt2.files import read_json, write_whole


def test_a_file_is_replaced_and_its_folder_made(tmp_path):
    path = tmp_path / "sub" / "a.txt"
    assert write_whole(path, "雪") == path and path.read_text(encoding="utf-8") == "雪"
    write_whole(str(path), b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff" and [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_half_a_character_does_not_cost_the_file(tmp_path):
    assert write_whole(tmp_path / "a.txt", "雪\ud800").read_text(encoding="utf-8") == "雪?"


def test_a_write_that_fails_leaves_the_old_and_nothing_beside_it(tmp_path, monkeypatch):
    path = write_whole(tmp_path / "a.txt", "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jinyong_gpt2.files.os.replace", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_whole(tmp_path / "folder", "text")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("content", [b'{"step": 1', b"", b"\xff\xfe", b"[" * 100_000])
def test_damaged_json_says_which_file_and_what_to_do(tmp_path, content):
    path = tmp_path / "training.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"training\.json is damaged, train it again"):
        read_json(path, "train it again")
