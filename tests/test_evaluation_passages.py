"""Repetition, variety and people, on texts whose figures can be counted by hand."""

from __future__ import annotations

import json
import math

import pytest

from jinyong_gpt2.people import keeping, load_names, people_in
from jinyong_gpt2.variety import distinct, loops, repeated, self_bleu, variety


def test_distinct_counts_over_the_whole_set():
    assert distinct(["甲乙甲乙", "甲乙"], 1) == pytest.approx(2 / 6)
    assert distinct(["甲乙甲乙", "甲乙"], 2) == pytest.approx(2 / 4)  # 甲乙 乙甲 甲乙 | 甲乙, none across the two
    assert math.isnan(distinct(["甲"], 2))


def test_repeated_counts_within_one_passage():
    assert repeated("甲乙丙丁", 2) == 0
    assert repeated("甲乙甲乙甲", 2) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("他說道" * 3, True),
        ("開頭各不相同。" + "走罷，走罷。" * 3, True),
        ("他笑道：「哈哈哈」", False),
        ("他不說話……", False),
        ("哈" * 9, True),
        ("走罷走罷走罷", False),
        ("走罷" * 5, True),
        ("他說道他說道", False),
        ("他說道" * 3 + "，忽然", False),
        ("", False),
    ],
)
def test_loops_at_the_end_only(text, expected):
    assert loops(text) is expected


def test_self_bleu_is_one_for_copies_and_low_for_strangers():
    assert self_bleu(["夜雨打在窗上，他放下書。"] * 3) == pytest.approx(1)
    assert self_bleu(["天地玄黃宇宙洪荒", "日月盈昃辰宿列張"]) < 0.2
    assert math.isnan(self_bleu(["只有一篇"]))


def test_self_bleu_agrees_with_the_formula():
    # Against 甲乙丙丁: of 甲乙丙戊 3/4 characters match, 2/3 pairs, 1/2 triples, none of one (counts as a half).
    one_way = (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25
    assert self_bleu(["甲乙丙丁", "甲乙丙戊"]) == pytest.approx(one_way)
    shorter = math.exp(1 - 4 / 2) * 1.0  # 甲乙 is whole in 甲乙丙丁 but half as long; it has no triples
    longer = (2 / 4 * 1 / 3 * 0.5 / 2 * 0.5 / 1) ** 0.25
    assert self_bleu(["甲乙丙丁", "甲乙"]) == pytest.approx((shorter + longer) / 2)


def test_variety_of_nothing_is_not_a_number_and_no_crash():
    assert all(math.isnan(value) for value in variety([]).values())
    assert set(variety(["甲乙丙丁戊"])) >= {"distinct_1", "distinct_4", "repeated_4", "loop_rate", "self_bleu"}


def test_the_longest_name_wins_where_names_overlap():
    assert people_in("完顏康不是楊康", ["完顏康", "楊康", "康"]) == ["完顏康", "楊康"]
    assert people_in("沒有人", ["完顏康"]) == people_in("完顏康", []) == []


def test_people_of_context_novel_and_elsewhere_are_told_apart():
    names = {"一書": ["甲公", "乙婆"], "二書": ["丙叔"]}
    examples = [("甲公來了。", "甲公見乙婆，丙叔也在，甲公笑了。", "一書"), ("丙叔來了。", "無人。", None)]
    kept = keeping(examples, names)
    assert (kept.mentions, kept.in_context, kept.in_novel, kept.elsewhere) == (4, 0.5, 0.75, 0.25)
    assert kept.named == 0.5
    assert math.isnan(keeping([("", "", None)], names).in_context)


def test_names_from_a_file_join_the_known_novels(tmp_path):
    path = tmp_path / "characters.json"
    path.write_text(json.dumps({"我的書": ["張三"], "天龍八部": ["李四", "段譽"]}), encoding="utf-8")
    names = load_names(tmp_path)
    assert names == load_names(path)
    assert names["我的書"] == ["張三"] and names["天龍八部"].count("段譽") == 1 and "李四" in names["天龍八部"]
    assert "阿朱" in load_names()["天龍八部"]
    with pytest.raises(FileNotFoundError, match="no list of names"):
        load_names(tmp_path / "none.json")
    path.write_text('["張三"]', encoding="utf-8")
    with pytest.raises(ValueError, match="must hold"):
        load_names(path)
