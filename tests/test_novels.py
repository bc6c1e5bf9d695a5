"""What is known of the fourteen novels, their names in both scripts, and the small rules that reading rests on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jinyong_gpt2.chapters import chinese_numeral, heading, parse_number
from jinyong_gpt2.novels import COUPLET, NOVELS, TITLES, recognise_content, recognise_title
from jinyong_gpt2.overlap import Shingles, share_in, sketch
from jinyong_gpt2.paragraphs import Layout, detect_layout, unwrap
from jinyong_gpt2.reading import read_novel
from jinyong_gpt2.script import convert, detect_script, match_script, simplified_names
from jinyong_gpt2.text_files import decode

PEOPLE = sorted({(name, facts.title) for facts in NOVELS for name in facts.people})


def test_the_novels_stand_in_the_order_of_their_couplet():
    assert "".join(title[0] for title in TITLES[:14]) == COUPLET.replace("，", "")
    assert TITLES[14:] == ("越女劍",)
    assert len({facts.simplified for facts in NOVELS}) == 15


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("金庸-天龙八部txt精校版.txt", "天龍八部"),
        ("金庸04天龙八部.txt", "天龍八部"),
        ("金庸 白马啸西风.txt", "白馬嘯西風"),
        ("射雕英雄传.TXT", "射鵰英雄傳"),
        ("射雕英雄傳.Txt", "射鵰英雄傳"),
        ("大漠英雄傳.txt", "射鵰英雄傳"),
        ("《神鵰俠侶》.txt", "神鵰俠侶"),
        ("神雕.txt", "神鵰俠侶"),
        ("书剑恩仇录(世纪新修版).txt", "書劍恩仇錄"),
        ("素心劍.txt", "連城訣"),
        ("倚天_屠龙记.txt", "倚天屠龍記"),
        ("12 俠客行.txt", "俠客行"),
        ("越女剑.txt", "越女劍"),
        ("水滸傳.txt", None),
        ("雪山.txt", None),
    ],
)
def test_a_file_name_names_its_novel(name, title):
    found = recognise_title(name)
    assert (found.title if found else None) == title


@pytest.mark.parametrize("facts", NOVELS, ids=[facts.title for facts in NOVELS])
@pytest.mark.parametrize("simple", [False, True])
def test_a_novel_is_known_by_its_people(facts, simple):
    names = [simplified_names()[name] if simple else name for name in facts.people]
    text = "".join(f"{name}走進門來，看了看眾人，坐下喝了一口茶，什麼話也沒有說。" for name in names[:14] * 3)
    assert recognise_content(text, simplified_names()) is facts


def test_historical_people_alone_do_not_make_a_novel_jin_yongs():
    text = "吳三桂、康熙、李自成、陳圓圓與索額圖、施琅說了半天，朱元璋和徐達、常遇春、陳友諒在一旁聽著。" * 30
    assert recognise_content(text, simplified_names()) is None


def test_an_unknown_novel_is_titled_by_its_file_and_a_known_one_by_its_content():
    people = "、".join(NOVELS[3].people[:12])
    data = "\n".join(f"{people}都到了無量山下第{n}座茶亭。" for n in range(20)).encode()
    novel, facts = read_novel(data, "無題.txt")
    assert (novel.title, novel.report.recognised) == ("天龍八部", "by content") and facts is NOVELS[3]
    assert any("where 天龍八部 has about" in warning for warning in novel.report.warnings)
    novel, facts = read_novel("雪夜無人。".encode(), "無題.txt")
    assert (novel.title, facts) == ("無題", None)


# ---------------------------------------------------------------------------------------------------------------------
# Script


def test_every_name_survives_conversion_there_and_back():
    """余滄海 → 餘滄海, 岳不群 → 嶽不群, 范遙 → 範遙: what a plain s2tw does."""
    broken = {}
    for name, title in PEOPLE:
        back = convert(f"只見{simplified_names()[name]}走了过来。", "traditional", "simplified")[2:-5]
        if back != "".join(convert(name, "traditional", "traditional")):
            broken[name] = (back, title)
    assert not broken


@pytest.mark.parametrize(
    "name", ["余滄海", "游坦之", "余魚同", "范遙", "于萬亭", "岳不群", "干光豪", "里飛沙", "岳靈珊", "公冶乾"]
)
def test_the_names_known_to_break_do_not(name):
    assert name in convert(convert(f"這裡是{name}。", "simplified"), "traditional", "simplified")


@pytest.mark.parametrize(
    ("simple", "traditional"),
    [
        ("其余师兄弟都走了。", "其餘師兄弟都走了。"),
        ("对于大人的话，百姓于心何忍。", "對於大人的話，百姓於心何忍。"),
        ("五岳剑派在泰山。", "五嶽劍派在泰山。"),
        ("岳父和岳母", "岳父和岳母"),
        ("这是模范，不在范围之内。", "這是模範，不在範圍之內。"),
        ("后来皇后头发白了，里面的面条凉了。", "後來皇后頭髮白了，裡面的麵條涼了。"),
        ("这里那里，心里手里", "這裡那裡，心裡手裡"),
    ],
)
def test_exceptions_do_not_reach_into_other_words(simple, traditional):
    assert convert(simple, "traditional", "simplified") == traditional


def test_traditional_text_is_only_unified():
    text = "喬峯在裏面，衆人為之一驚；后土、余某、干戈、于是、里長、岳飛"
    assert convert(text, "traditional", "traditional") == text.replace("峯", "峰").replace("裏", "裡").replace(
        "衆", "眾"
    )
    assert convert("他这样说", "traditional", "traditional") == "他這樣說", "stray simplified characters"
    assert convert(text, "as_found") == text
    with pytest.raises(ValueError, match="script must be one of"):
        convert(text, "japanese")


@given(st.text(max_size=80), st.sampled_from(["traditional", "simplified"]))
def test_conversion_keeps_every_character_in_its_place(text, script):
    assert len(convert(text, script)) == len(text)
    assert len(convert(text, script, "simplified")) == len(text)


def test_the_script_is_told_by_what_only_one_of_them_has():
    assert detect_script("他们说这话时，没有对不起谁。") == "simplified"
    assert detect_script("他們說這話時，沒有對不起誰。") == "traditional"
    assert detect_script("绣云阁") == "simplified" and detect_script("繡雲閣") == "traditional"


KNOWN = set("喬峰帶阿朱回到北方，對她說：「我們兩人永遠留在這裡！」後來余滄海岳不群")


def test_a_prompt_in_another_script_or_variant_meets_the_model():
    article = "喬峯帶阿朱回到北方，喬峯對她說：「我們兩人永遠留在這裡！」"
    text, changes = match_script(article, KNOWN)
    assert text == article.replace("峯", "峰")
    assert [str(change) for change in changes] == ["峯→峰", "峯→峰"] and changes[0].place == 1
    assert match_script("乔峰带阿朱，后来余沧海", KNOWN)[0] == "喬峰帶阿朱，後來余滄海"
    assert match_script("喬峰", {"乔", "峯"})[0] == "乔峯", "to a model of simplified script, or of old variants"
    assert match_script("在這裏", set("在這裡"))[0] == "在這裡" and match_script("在這裡", set("在這裏"))[0] == "在這裏"


def test_a_prompt_that_the_model_knows_is_left_alone():
    text = "後來余滄海到了這裡"
    assert match_script(text, set(text)) == (text, [])
    assert match_script("😀abc鱻", KNOWN) == ("😀abc鱻", [])


def test_variants_are_matched_without_opencc(monkeypatch):
    monkeypatch.setattr("jinyong_gpt2.script._converter", _no_opencc)
    assert match_script("喬峯帶阿朱", KNOWN)[0] == "喬峰帶阿朱"


def _no_opencc(configuration: str):
    raise ImportError("no OpenCC here")


@given(st.text(max_size=60), st.sets(st.characters(), max_size=30))
def test_matching_never_changes_a_length_or_a_known_character(text, known):
    matched, changes = match_script(text, known)
    assert len(matched) == len(text)
    assert all(matched[change.place] in known for change in changes)


# ---------------------------------------------------------------------------------------------------------------------
# Decoding, unwrapping, numbers, overlap


CHINESE = "的一是不了人我他在有這來們個說道大之上下中到也出得去你那就天地玄黃，。：「」！？劍氣江湖"


@given(st.text(alphabet=CHINESE + "\n", min_size=40, max_size=200), st.sampled_from(["utf-8", "utf-16", "gb18030"]))
def test_decoding_of_encoded_text_is_exact(text, encoding):
    assert decode(text.encode(encoding)).text == text


@given(st.text(alphabet=CHINESE[:30], min_size=60, max_size=200))
def test_decoding_of_big5_is_exact(text):
    text = f"他們說這話的時候，{text}。我不知道，你也不知道。"
    assert decode(text.encode("cp950")).text == text


@given(
    st.lists(st.text(alphabet="天地玄黃宇宙。，「」 \u3000a1", max_size=40), max_size=30),
    st.builds(Layout, st.booleans(), st.integers(20, 80), st.booleans(), st.booleans()),
)
def test_unwrapping_never_loses_a_character_that_is_not_white_space(lines, layout):
    def solid(parts):
        return "".join("".join(parts).split())

    for found in (layout, detect_layout(lines)):
        assert solid(unwrap(lines, found)) == solid(lines)


def test_numbers_are_read_in_every_form():
    forms = {"一": 1, "十": 10, "廿一": 21, "卅": 30, "卅三": 33, "001": 1, "一〇八": 108, "一百零八": 108, "二十—": 21}
    forms |= {"一百一十": 110, "一百十": 110, "兩百": 200, "一八七": 187, "五千": 5000}
    assert {text: parse_number(text) for text in forms} == forms
    assert parse_number("一回") is None


@given(st.integers(1, 9999))
def test_numerals_come_back(number):
    assert parse_number(chinese_numeral(number)) == number
    found = heading(f"第{chinese_numeral(number)}回　風雪夜歸人")
    assert found is not None and found.number == number


@given(st.text(alphabet="天地玄黃宇宙洪荒日月盈昃，。", max_size=120), st.text(alphabet="天地玄黃宇宙，", max_size=60))
def test_a_text_shares_all_of_itself_with_what_holds_it(text, more):
    whole = sketch(more + text + more, every=1)
    part = sketch(text, every=1)
    assert share_in(part, whole) == (1.0 if len(part) else 0.0)
    assert len(Shingles.of_all([text]).found_in([more, text])) == len(part)
