"""One token a character, and nothing lost."""

from __future__ import annotations

import functools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from jinyong_gpt2.tokenizer import (
    GENERIC_TOKEN,
    TableEncoder,
    base_characters,
    build_tokenizer,
    byte_ids,
    control_id,
    encode,
    is_character_start,
    novel_titles,
    save_tokenizer,
)

ARTICLE = "喬峯帶阿朱回到北方，喬峯對她說：「我們兩人永遠留在這裡！」"
AWKWARD = [
    "😀𠀀",
    "\r\n\t　 ",
    "……——「『』」～",
    "<|天龍八部|><|endoftext|>",
    "<0x41>",
    "",
    "\x00\x1a",
    "ａＡ1",
    "e\u0301",
]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer([ARTICLE], titles=["天龍八部", "鹿鼎記"], min_count=1)


@pytest.mark.parametrize("text", [ARTICLE, *AWKWARD])
def test_no_character_is_lost(tokenizer, text):
    assert tokenizer.decode(encode(tokenizer, text)) == text


@given(st.text())
def test_any_text_survives_and_the_table_agrees(text):
    tokenizer, table = any_text_tokenizer()
    ids = encode(tokenizer, text)
    assert tokenizer.decode(ids) == text
    assert table(text).tolist() == ids
    assert is_character_start(tokenizer)[ids].sum() == len(text)


@functools.cache
def any_text_tokenizer():
    tokenizer = build_tokenizer([ARTICLE], titles=["天龍八部"], min_count=1)
    return tokenizer, TableEncoder(tokenizer)


def test_one_token_per_known_character(tokenizer):
    assert len(encode(tokenizer, ARTICLE)) == len(ARTICLE)


def test_a_typed_control_token_is_ordinary_text(tokenizer):
    ids = encode(tokenizer, "<|天龍八部|>")
    assert control_id(tokenizer, "天龍八部") not in ids
    assert len(ids) == len("<|天龍八部|>")


def test_a_lone_surrogate_is_replaced_not_fatal(tokenizer):
    assert tokenizer.decode(encode(tokenizer, "喬\ud800峯")) == "喬\ufffd峯"
    assert TableEncoder(tokenizer)("喬\ud800峯").tolist() == encode(tokenizer, "喬\ud800峯")


def test_the_layout_others_rely_on(tokenizer):
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == control_id(tokenizer) == 0
    assert tokenizer.convert_ids_to_tokens(0) == GENERIC_TOKEN
    assert byte_ids(tokenizer) == {i + 1: i for i in range(256)}
    assert novel_titles(tokenizer) == ["天龍八部", "鹿鼎記"]
    assert control_id(tokenizer, "鹿鼎記") == len(tokenizer) - 1


def test_an_unknown_novel_is_refused_with_the_known_ones(tokenizer):
    with pytest.raises(ValueError, match="天龍八部、鹿鼎記"):
        control_id(tokenizer, "紅樓夢")


def test_rare_characters_go_to_bytes_and_frequent_ones_do_not():
    tokenizer = build_tokenizer(["㐀" * 5 + "㐁" * 4], min_count=5)
    assert len(encode(tokenizer, "㐀")) == 1
    assert len(encode(tokenizer, "㐁")) == 3


@pytest.mark.parametrize(("script", "count"), [("traditional", 5401), ("simplified", 3755)])
def test_common_characters_and_punctuation_always_have_a_token(script, count):
    base = base_characters(script)
    assert sum("\u4e00" <= c <= "\u9fff" for c in base) >= count - 4
    assert set("，。！？；：、…—「」『』《》“”\n　 ") <= base


def test_auto_tokenizer_opens_the_folder_in_transformers_4_and_5(tokenizer, tmp_path):
    save_tokenizer(tokenizer, tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"  # the name both know
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert set(again(ARTICLE)) == {"input_ids", "attention_mask"}  # all that GPT-2 should be given
    assert encode(again, ARTICLE) == encode(tokenizer, ARTICLE)
    assert novel_titles(again) == novel_titles(tokenizer)


def test_control_tokens_are_no_characters(tokenizer):
    starts = is_character_start(tokenizer)
    assert not starts[[control_id(tokenizer), control_id(tokenizer, "天龍八部")]].any()
    assert np.count_nonzero(~starts) == 64 + 3  # continuation bytes and control tokens
