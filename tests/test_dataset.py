"""Prepared corpora: the right tokens, in windows that never mix, in an order that can be had again."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import PlainChapter, PlainCorpus, PlainNovel, plain_corpus

from jinyong_gpt2.dataset import IGNORE, PreparedCorpus, TrainingOrder, Windows, prepare
from jinyong_gpt2.tokenizer import control_id, novel_titles


def text_of(prepared, split):
    return prepared.tokenizer.decode(prepared.tokens(split).tolist())


def test_every_character_is_in_its_split(prepared):
    chapters = [chapter for novel in plain_corpus().novels for chapter in novel.chapters]
    assert text_of(prepared, "train") == "".join(c.full_text for c in chapters if not c.heldout)
    assert text_of(prepared, "heldout") == "".join(c.full_text for c in chapters if c.heldout)


def test_preparing_twice_gives_the_same_bytes(prepared, tmp_path):
    prepare(plain_corpus(), tmp_path)
    for path in sorted(prepared.folder.iterdir()):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_failure_leaves_the_earlier_preparation_or_none(tmp_path):
    earlier = prepare(plain_corpus(), tmp_path / "again").hash

    class Unreadable(PlainChapter):
        reads = 0

        @property
        def full_text(self):
            Unreadable.reads += 1
            if Unreadable.reads > 1:
                raise OSError("the disk went away")
            return "天\n"

    for name in ("new", "again"):
        Unreadable.reads = 0
        with pytest.raises(OSError, match="went away"):
            prepare(PlainCorpus([PlainNovel("丁書", [Unreadable("一", "二")])]), tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"prepare_corpus\.py"):
        PreparedCorpus.open(tmp_path / "new")
    assert PreparedCorpus.open(tmp_path / "again").hash == earlier
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("text", ['{"format": 2', "[]"])
def test_a_damaged_manifest_says_what_to_do(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match=r"prepare the corpus again|run scripts/prepare_corpus\.py again"):
        PreparedCorpus.open(tmp_path)


def test_a_truncated_file_is_noticed(prepared, tmp_path):
    for path in prepared.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "train.bin").write_bytes(b"\0\0")
    with pytest.raises(ValueError, match=r"train\.bin"):
        PreparedCorpus.open(tmp_path)


def test_a_corpus_of_another_format_is_refused(prepared, tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 0}))
    with pytest.raises(ValueError, match="another version"):
        PreparedCorpus.open(tmp_path)


def test_an_empty_corpus_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no training text"):
        prepare(PlainCorpus([]), tmp_path)


def test_segments_end_where_a_held_out_chapter_was(prepared):
    by_novel = {title: [s for s in prepared.segments("train") if s.novel == title] for title in ("甲書", "丙書")}
    assert [segment.chapters for segment in by_novel["甲書"]] == [("第0回", "第1回"), ("第3回", "第4回")]
    assert [len(segment.chapters) for segment in by_novel["丙書"]] == [5]
    assert len(prepared.segments("heldout", by_chapter=True)) == 2


def test_a_window_never_straddles_two_novels(prepared):
    alphabets = {novel.title: set(novel.chapters[0].text) | set("第01234回\n") for novel in plain_corpus().novels}
    windows = Windows(prepared, "train", 16)
    controls = {control_id(prepared.tokenizer, title): title for title in novel_titles(prepared.tokenizer)}
    batch = windows.batch(windows.epoch(0, seed=0, generic_share=0.0))
    for inputs, targets in zip(batch.inputs, batch.targets, strict=True):
        text = prepared.tokenizer.decode(targets[targets != IGNORE].tolist(), errors="ignore").replace("\ufffd", "")
        assert set(text) <= alphabets[controls[inputs[0]]]
        kept = targets != IGNORE
        assert (inputs[1:][kept[1:]] == targets[:-1][kept[1:]]).all()


@pytest.mark.parametrize("length", [2, 7, 64, 10_000])
def test_an_epoch_holds_every_token_once(prepared, length):
    windows = Windows(prepared, "train", length)
    for rows in (windows.in_order(), windows.epoch(3, seed=5, generic_share=0.5)):
        places = np.concatenate([np.arange(start, stop) for start, stop, _ in rows])
        assert sorted(places) == list(range(len(prepared.train)))
        assert (rows[:, 1] - rows[:, 0]).max() <= length


def test_epochs_differ_in_cuts_and_order(prepared):
    windows = Windows(prepared, "train", 16)
    first, second = (set(windows.epoch(e, 0, 0.0)[:, 0]) for e in (0, 1))
    assert len(first & second) < len(first) / 2


def test_the_generic_token_takes_its_share(prepared):
    rows = Windows(prepared, "train", 2).epoch(0, seed=0, generic_share=0.25)
    assert 0.2 < (rows[:, 2] == control_id(prepared.tokenizer)).mean() < 0.3


def test_a_step_is_the_same_whatever_came_before(prepared):
    def order():
        return TrainingOrder(Windows(prepared, "train", 16), batch_size=7, seed=3)

    straight = order()
    steps = [straight.step(step) for step in range(60)]  # several epochs
    for step in (0, 13, 59):
        assert (order().step(step) == steps[step]).all()
    epoch = len(Windows(prepared, "train", 16).epoch(0, 3, 0.25))
    assert len({tuple(row) for row in np.concatenate(steps)[:epoch]}) == epoch  # none repeated within an epoch


def test_a_split_without_text_is_refused(tmp_path):
    corpus = PlainCorpus([PlainNovel("丁書", [PlainChapter("一", "天地" * 20)])])
    with pytest.raises(ValueError, match="no heldout text"):
        Windows(prepare(corpus, tmp_path), "heldout", 8)


def test_a_message_names_novel_and_chapter(prepared):
    second = prepared.segments("train", by_chapter=True)[1]
    assert "《甲書》第1回" in prepared.place("train", second.start)


def test_another_corpus_s_tokenizer_does_for_measuring(prepared, tmp_path):
    corpus = PlainCorpus([PlainNovel("丁書", [PlainChapter("一", "天地" * 20)])])
    other = prepare(corpus, tmp_path, tokenizer=prepared.tokenizer)
    assert [segment.control_id for segment in other.segments("train")] == [control_id(prepared.tokenizer)]
