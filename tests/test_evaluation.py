"""Bits per character against slow references, and what must not change them."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from jinyong_gpt2.dataset import PreparedCorpus
from jinyong_gpt2.evaluation import (
    Score,
    bits_per_char,
    held_out,
    score_model,
    score_ngrams,
    score_ppmd,
    score_table,
    scoring_windows,
    token_bits,
)
from jinyong_gpt2.model import new_model
from jinyong_gpt2.ngrams import KneserNey
from jinyong_gpt2.tokenizer import build_tokenizer, control_id, encode, is_character_start

TEXT = "夜雨打在窗上，他放下書，聽了一會。\n「誰在外面？」沒有人答應。😀𠮷" * 4


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer([TEXT.replace("😀", "").replace("𠮷", "")], ["甲", "乙"], min_count=1)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    model = new_model("testing", tokenizer)  # 64 positions
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)  # so that context matters
    return model.eval()


class Prepared:
    """As much of a prepared corpus as the evaluation reads."""

    def __init__(self, tokenizer, train, heldout):
        self.tokenizer, self.folder, self.manifest = tokenizer, "memory", {"novels": []}
        files = {"train": [], "heldout": []}
        for title in ("甲", "乙"):
            chapters = []
            for split, texts in (("train", train), ("heldout", heldout)):
                for i, text in enumerate(texts.get(title, [])):
                    ids, start = encode(tokenizer, text), len(files[split])
                    files[split] += ids
                    stop = start + len(ids)
                    chapters.append({"title": f"{split} {i}", "split": split, "start": start, "stop": stop})
            self.manifest["novels"].append({"title": title, "chapters": chapters})
        self.train, self.heldout = (np.array(files[split], np.uint16) for split in ("train", "heldout"))

    tokens, segments = PreparedCorpus.tokens, PreparedCorpus.segments


@pytest.fixture(scope="module")
def prepared(tokenizer):
    return Prepared(
        tokenizer, {"甲": [TEXT, TEXT[::-1]], "乙": [TEXT[5:90]]}, {"甲": [TEXT[7:60]], "乙": [TEXT, TEXT[3:9]]}
    )


def test_uniform_model_needs_log2_of_the_vocabulary(tokenizer, model):
    uniform = new_model("testing", tokenizer)
    for parameter in uniform.parameters():
        parameter.data.zero_()
    text = TEXT.replace("😀", "").replace("𠮷", "")
    assert bits_per_char(uniform, tokenizer, text) == pytest.approx(math.log2(len(tokenizer)), rel=1e-5)
    four_bytes_each = bits_per_char(uniform, tokenizer, "😀𠮷")
    assert four_bytes_each == pytest.approx(4 * math.log2(len(tokenizer)), rel=1e-5)


def slow_bits(model, control, ids, context_length, stride):
    """One forward pass a token, no batches, no padding."""
    bits = []
    stop = min(context_length, len(ids))
    for i in range(len(ids)):
        if i >= stop:
            stop = min(stop + stride, len(ids))
        start = max(0, stop - context_length)
        window = torch.tensor([[control, *ids[start:i]]])
        with torch.no_grad():
            bits.append(-model(window).logits[0, -1].log_softmax(-1)[ids[i]].item() / math.log(2))
    return bits


@pytest.mark.parametrize(("context_length", "stride"), [(16, 8), (16, 16), (16, 1), (7, 3), (1, 1)])
def test_agrees_with_one_forward_pass_a_token(tokenizer, model, context_length, stride):
    texts = [(control_id(tokenizer, "乙"), np.array(encode(tokenizer, text))) for text in (TEXT[:40], "夜", TEXT[3:24])]
    fast = token_bits(model, texts, context_length, stride, batch_size=3)
    for (control, ids), bits in zip(texts, fast, strict=True):
        np.testing.assert_allclose(bits, slow_bits(model, control, ids, context_length, stride), rtol=1e-3, atol=1e-3)


def test_batch_size_changes_nothing_and_mode_is_restored(tokenizer, model):
    model.train()
    values = [bits_per_char(model, tokenizer, TEXT, stride=5, batch_size=size) for size in (1, 4, 64)]
    assert model.training
    model.eval()
    assert values == pytest.approx([values[0]] * 3, rel=1e-5)


def test_stride_matters_only_where_windows_move(tokenizer, model):
    short, long = TEXT[:16], TEXT
    of_short = [bits_per_char(model, tokenizer, short, None, 16, stride) for stride in (1, 8, 16)]
    assert of_short == pytest.approx([of_short[0]] * 3, rel=1e-5)  # it fits one window
    of_long = [bits_per_char(model, tokenizer, long, None, 16, stride) for stride in (1, 16)]
    assert of_long[0] != pytest.approx(of_long[1], rel=1e-5)


@pytest.mark.parametrize("length", [0, 1, 15, 16, 17, 100])
@pytest.mark.parametrize(("context_length", "stride"), [(16, 1), (16, 7), (16, 16), (2, 1)])
def test_every_token_is_scored_once_with_enough_context(length, context_length, stride):
    windows = scoring_windows(length, context_length, stride)
    assert [i for _, stop, scored in windows for i in range(scored, stop)] == list(range(length))
    for start, stop, scored in windows:
        assert stop - start <= context_length
        assert start == 0 or scored - start >= context_length - stride


def test_wrong_sizes_and_empty_text_are_named(tokenizer, model):
    with pytest.raises(ValueError, match="context_length must lie between 1 and the model's 64"):
        bits_per_char(model, tokenizer, TEXT, context_length=65)
    with pytest.raises(ValueError, match="stride"):
        bits_per_char(model, tokenizer, TEXT, stride=0)
    with pytest.raises(ValueError, match="empty"):
        bits_per_char(model, tokenizer, "")
    with pytest.raises(ValueError, match="甲、乙"):
        bits_per_char(model, tokenizer, TEXT, novel="丙")


def test_same_characters_whatever_the_tokenizer(prepared, tokenizer, model):
    """A checkpoint with another vocabulary and no titles is scored on the very same characters."""
    other = build_tokenizer(["一二三"], min_count=1)
    torch.manual_seed(0)
    foreign = new_model("testing", other)
    pieces = held_out(prepared)
    score = score_model("foreign", foreign, other, pieces, prepared)
    assert score.characters.tolist() == [53, len(TEXT), 6]
    assert score.bits[2] / 6 == pytest.approx(bits_per_char(foreign, other, TEXT[3:9]), rel=1e-5)
    own = score_model("own", model, tokenizer, pieces, prepared)
    assert own.bits[1] / len(TEXT) == pytest.approx(bits_per_char(model, tokenizer, TEXT, novel="乙"), rel=1e-5)
    assert own.difference(score)[0] == pytest.approx(own.bits_per_char - score.bits_per_char)


def test_byte_tokens_count_as_one_character(prepared, tokenizer):
    pieces = held_out(prepared)
    assert sum(len(piece.ids) for piece in pieces) > sum(piece.characters for piece in pieces)
    assert [piece.characters for piece in pieces] == [53, len(TEXT), 6]
    assert is_character_start(tokenizer)[pieces[0].ids].sum() == 53


def test_max_chars_takes_whole_chapters_the_same_every_time(prepared):
    some = held_out(prepared, max_chars=10)
    assert 1 <= len(some) < 3
    assert [piece.chapter for piece in some] == [piece.chapter for piece in held_out(prepared, max_chars=10)]
    assert len(held_out(prepared, max_chars=10**6)) == 3


def test_counting_models_learn_the_training_text_alone(prepared):
    pieces = held_out(prepared)
    scores = [score_ngrams(prepared, pieces, order) for order in (1, 3, 5)] + [score_ppmd(prepared, pieces)]
    assert [score.name for score in scores] == ["unigram", "Kneser–Ney 3-gram", "Kneser–Ney 5-gram", "PPMd"]
    train = [encode(prepared.tokenizer, text) for text in (TEXT, TEXT[::-1], TEXT[5:90])]
    model = KneserNey.train([np.array(ids) for ids in train], len(prepared.tokenizer), 3)
    expected = [-model.log2_probs(piece.ids).sum() for piece in pieces]
    assert scores[1].bits == pytest.approx(expected)
    assert scores[3].bits.sum() > 0
    table = score_table(scores)
    assert table.count("\n") == 5 and "nan" not in table
    unknown = replace(scores[0], name="nanoGPT", bits=scores[0].bits * math.nan)
    assert "| nanoGPT | – | ? |" in score_table([unknown, *scores])


def test_interval_covers_and_narrows():
    random = np.random.default_rng(0)
    covered, widths = 0, []
    for chapters in [30] * 100:
        characters = random.integers(500, 1500, chapters)
        score = Score("", ("甲",) * chapters, characters * random.normal(6, 0.5, chapters), characters)
        low, high = score.interval(draws=300)
        covered += low <= 6 <= high
        widths.append(high - low)
    assert covered >= 85  # of 95 expected; the percentile bootstrap is a little narrow
    big = np.full(3000, 1000)
    wide = Score("", ("甲",) * 3000, big * random.normal(6, 0.5, 3000), big).interval(draws=300)
    assert wide[1] - wide[0] < np.mean(widths) / 5
    assert all(map(math.isnan, Score("", ("甲",), np.ones(1), np.ones(1)).interval()))


def test_by_novel_weighs_by_characters():
    score = Score("", ("甲", "乙", "甲"), np.array([10.0, 4.0, 2.0]), np.array([1, 2, 3]))
    assert score.by_novel() == {"甲": 3.0, "乙": 2.0}
    assert score.bits_per_char == pytest.approx(16 / 6)
    assert score.to_dict()["low"] < score.to_dict()["high"]
    again = Score.from_dict(json.loads(json.dumps(score.to_dict())))
    assert (again.by_novel(), again.interval()) == (score.by_novel(), score.interval())


def test_different_chapters_are_not_compared():
    one = Score("one", ("甲",), np.ones(1), np.ones(1))
    two = Score("two", ("乙",), np.ones(1), np.ones(1))
    with pytest.raises(ValueError, match="one and two"):
        one.difference(two)
