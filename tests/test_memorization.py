"""Copied spans against a search written out by hand; greedy exactness against `generate`."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jinyong_gpt2.extraction import draw_examples, exact_runs, extractable_shares
from jinyong_gpt2.memorization import CopyIndex
from jinyong_gpt2.model import new_model
from jinyong_gpt2.passage import Passage
from jinyong_gpt2.tokenizer import build_tokenizer, control_id

FIRST = "第一回\n夜雨打在窗上，他放下書聽了一會，門外卻沒有人，只有風聲。\n"
SECOND = "第二回\n山道上積雪未消，兩匹馬一前一後，走得極慢。😀𠮷也在這裡。\n"
SECRET = "第三回\n這一章留作測驗，誰也不該先看過它的任何一個字。\n"


def corpus_of(*texts, held_out=()):
    chapters = [SimpleNamespace(title=text[:3], full_text=text, heldout=i in held_out) for i, text in enumerate(texts)]
    return SimpleNamespace(novels=[SimpleNamespace(title="甲", chapters=chapters)])


@pytest.fixture(scope="module")
def index():
    return CopyIndex(corpus_of(FIRST, SECOND, SECRET, held_out=(2,)))


def test_planted_copy_is_found_whole_with_its_source(index):
    planted = "山道上積雪未消，兩匹馬一前一後，走得極慢"
    (span,) = index.spans("他說：" + planted + "！然後走了。", min_chars=15)
    assert (span.start, span.stop, span.text) == (3, 3 + len(planted), planted)
    assert (span.novel, span.chapter, span.places) == ("甲", "第二回", 1)
    assert SECOND[span.offset :].startswith(planted)
    assert index.longest("他說：" + planted + "！") == span


def test_characters_beyond_the_basic_plane_keep_places_in_characters(index):
    (span,) = index.spans("見😀𠮷也在這裡。了", min_chars=5)
    assert (span.text, span.offset) == ("😀𠮷也在這裡。", SECOND.index("😀"))
    assert index.spans("𠮷😀丂丄", min_chars=2) == []


def test_held_out_chapters_are_not_indexed(index):
    assert index.spans(SECRET, min_chars=6) == []
    assert len(index) == len(FIRST) + len(SECOND)


def test_no_span_reaches_over_a_chapters_end(index):
    joined = FIRST[-8:] + SECOND[:8]
    assert [span.text for span in index.spans(joined, min_chars=8)] == [FIRST[-8:], SECOND[:8]]


@pytest.mark.parametrize("harm", ["text.bin", "suffixes.npy", "index.json", "starts.npy"])
def test_a_damaged_index_is_made_anew(tmp_path, harm):
    corpus = corpus_of(FIRST, SECOND)
    CopyIndex(corpus, tmp_path)
    for content in (None, b"", b"[]", b"\xff\xfe"):
        (tmp_path / harm).unlink()
        if content is not None:
            (tmp_path / harm).write_bytes(content)
        assert CopyIndex(corpus, tmp_path).copied_share([FIRST], 10) == 1.0
        assert CopyIndex.open(tmp_path).copied_share([FIRST], 10) == 1.0


def test_of_a_passage_only_what_was_written_counts(index):
    passage = Passage(prompt=FIRST[:20], continuation=FIRST[20:30] + "完")
    (span,) = index.spans(passage, min_chars=5)
    assert passage.text[span.start : span.stop] == span.text == FIRST[20:30]
    assert index.copied_share(passage, min_chars=5) == pytest.approx(10 / 11)
    assert passage.to_html(index.spans(passage, min_chars=5)).count("jy-copy") >= 10


def slow_spans(texts, passage, min_chars):
    """Every maximal span by trying all of them."""
    inside = {(i, j) for i in range(len(passage)) for j in range(i + min_chars, len(passage) + 1)
              if any(passage[i:j] in text for text in texts)}  # fmt: skip
    return sorted((i, j) for i, j in inside if (i - 1, j) not in inside and (i, j + 1) not in inside)


letters = st.text("天地玄黃", max_size=30)


@settings(max_examples=60, deadline=None)
@given(st.lists(letters.filter(bool), min_size=1, max_size=4), letters, st.integers(1, 5))
def test_agrees_with_trying_every_span(texts, passage, min_chars):
    index = CopyIndex(corpus_of(*texts))
    found = index.spans(passage, min_chars)
    assert [(span.start, span.stop) for span in found] == slow_spans(texts, passage, min_chars)
    for span in found:
        occurrences = [
            (i, offset)
            for i, text in enumerate(texts)
            for offset in range(len(text))
            if text.startswith(span.text, offset)
        ]
        assert span.places == len(occurrences)
        assert span.offset == occurrences[0][1]  # the first in the order of the corpus


def test_kept_index_opens_mapped_and_is_rebuilt_for_another_text(index, tmp_path):
    kept = CopyIndex(corpus_of(FIRST, SECOND, SECRET, held_out=(2,)), folder=tmp_path)
    opened = CopyIndex.open(tmp_path)
    text = SECOND[4:30] + FIRST[2:20]
    assert kept.spans(text, 3) == opened.spans(text, 3) == index.spans(text, 3)
    before = (tmp_path / "suffixes.npy").stat().st_mtime_ns
    CopyIndex(corpus_of(FIRST, SECOND, SECRET, held_out=(2,)), folder=tmp_path)
    assert (tmp_path / "suffixes.npy").stat().st_mtime_ns == before
    assert CopyIndex(corpus_of(FIRST), folder=tmp_path).spans(SECOND[4:30]) == []
    assert not list(tmp_path.glob(".*"))


def test_copied_share_counts_characters_once(index):
    copy = FIRST[5:25]
    assert index.copied_share([copy + "丂" * 20, "丂" * 40], min_chars=15) == pytest.approx(20 / 80)
    assert np.isnan(index.copied_share([]))


def test_what_cannot_be_asked_is_named(index, tmp_path):
    with pytest.raises(ValueError, match="min_chars"):
        index.spans("天", min_chars=0)
    with pytest.raises(ValueError, match="no training text"):
        CopyIndex(corpus_of(FIRST, held_out=(0,)))
    with pytest.raises(FileNotFoundError, match="no index in"):
        CopyIndex.open(tmp_path / "nowhere")
    assert index.longest("丂丄丅") is None
    assert index.spans("") == []


# ---------------------------------------------------------------- greedy exactness


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer([FIRST + SECOND], ["甲"], min_count=1)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    model = new_model("testing", tokenizer)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    return model.eval()


def test_one_forward_pass_tells_what_greedy_generation_would(tokenizer, model):
    random = np.random.default_rng(0)
    prompts = random.integers(257, len(tokenizer) - 1, (8, 12))
    prompts[:, 0] = control_id(tokenizer, "甲")
    ids = torch.from_numpy(prompts)
    written = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False, eos_token_id=None
    )[:, 12:].numpy()
    truths = written.copy()
    expected = [10, 0, 1, 2, 5, 9, 10, 7]
    for row, run in enumerate(expected):
        if run < 10:  # wrong once; what is right after it must not count
            truths[row, run] = 300 if truths[row, run] != 300 else 301
    assert exact_runs(model, prompts, truths, batch_size=3).tolist() == expected
    with pytest.raises(ValueError, match="the model has learnt 64"):
        exact_runs(model, prompts, np.zeros((8, 60), int))


def prepared_of(tokenizer, train, heldout):
    from jinyong_gpt2.dataset import PreparedCorpus
    from jinyong_gpt2.tokenizer import encode

    files, chapters = {"train": [], "heldout": []}, []
    for split, texts in (("train", train), ("heldout", heldout)):
        for i, text in enumerate(texts):
            start = len(files[split])
            files[split] += encode(tokenizer, text)
            chapters.append({"title": f"{i}", "split": split, "start": start, "stop": len(files[split])})
    arrays = [np.array(files[split], np.uint16) for split in ("train", "heldout")]
    return PreparedCorpus("memory", tokenizer, *arrays, {"novels": [{"title": "甲", "chapters": chapters}]})


def test_examples_stay_inside_a_chapter_and_do_not_repeat(tokenizer):
    prepared = prepared_of(tokenizer, [FIRST, SECOND, "短"], [FIRST])
    prompts, truths = draw_examples(prepared, "train", count=1000, prompt_tokens=6, truth_tokens=4)
    texts = [tokenizer.decode(np.concatenate([p[1:], t])) for p, t in zip(prompts, truths, strict=True)]
    assert set(prompts[:, 0]) == {control_id(tokenizer, "甲")}
    assert len(set(map(tuple, np.concatenate([prompts, truths], axis=1)))) == len(prompts)
    assert all(text in FIRST or text in SECOND for text in texts if "\ufffd" not in text)
    again, _ = draw_examples(prepared, "train", count=5, prompt_tokens=6, truth_tokens=4)
    assert len(again) == 5
    with pytest.raises(ValueError, match="no heldout chapter of 100 tokens"):
        draw_examples(prepared, "heldout")


def test_a_text_learnt_by_heart_is_extractable_and_another_is_not(tokenizer):
    torch.manual_seed(0)
    model = new_model("testing", tokenizer)
    prepared = prepared_of(tokenizer, [FIRST], [SECOND[:30]])
    ids = torch.tensor([[control_id(tokenizer, "甲"), *prepared.train.tolist()]])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(50):
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimizer.step()
    shares = extractable_shares(model, prepared, lengths=(2, 5), count=50, prompt_tokens=0)
    assert shares["heldout"] == {2: 0.0, 5: 0.0}
    index = CopyIndex(prepared)
    assert index.spans(FIRST)[0].chapter == "0"
    prompts, truths = draw_examples(prepared, "train", count=1000, prompt_tokens=10, truth_tokens=5)
    at_the_beginning = (prompts[:, 1:] == prepared.train[:10]).all(axis=1)
    assert exact_runs(model, prompts, truths)[at_the_beginning].tolist() == [5]
