"""The result object: nothing lost in JSON, nothing unescaped on a page."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jinyong_gpt2.passage import Character, Passage, Passages

TEXT = st.text(max_size=12)
PROBABILITY = st.floats(1e-6, 1)


@dataclass
class Span:
    start: int
    stop: int
    novel: str = "天龍八部"
    chapter: str = "第一回 <青衫>"
    offset: int = 12345


@st.composite
def passages(draw):
    passage = Passage(draw(TEXT), "", seed=draw(st.integers(0, 2**31)), settings={"top_p": 0.9, "stop_strings": ["。"]})
    passage.candidate, passage.novel = draw(st.integers(0, 9)), draw(st.none() | TEXT)
    for character in draw(TEXT):
        logprobs = [math.log(draw(PROBABILITY)) for _ in range(draw(st.integers(1, 3)))]
        alternatives = draw(st.lists(st.tuples(st.text(min_size=1, max_size=4), PROBABILITY), max_size=3))
        passage.add(Character(character, [draw(st.integers(0, 9))] * len(logprobs), logprobs, alternatives))
    return passage


class Reader(HTMLParser):
    """The text of a page as a browser would show it, its titles, and its tags."""

    def __init__(self, html):
        super().__init__()
        self.shown, self.titles, self.tags, self.inside = {"prompt": "", "written": ""}, [], set(), None
        self.depth = 0
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.add(tag)
        if tag == "span":
            self.inside = attributes["class"].removeprefix("jy-")
        if "title" in attributes:
            self.titles.append(attributes["title"])

    def handle_endtag(self, tag):
        if tag == "span":
            self.inside = None

    def handle_data(self, data):
        if self.inside:
            self.shown[self.inside] += data


@given(passages())
def test_json_round_trip_loses_nothing(passage):
    assert Passage.from_dict(json.loads(json.dumps(passage.to_dict()))) == passage


def test_a_passage_without_its_text_is_refused():
    with pytest.raises(ValueError, match="needs continuation and prompt"):
        Passage.from_dict({})
    assert Passage.from_dict({"prompt": "", "continuation": "", "alternatives": None}).alternatives == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", None), ("continuation", 3), ("token_ids", ["1"]), ("logprobs", [None]), ("probabilities", [True]),
        ("alternatives", [[["道"]]]), ("alternatives", [3]), ("settings", []), ("changes", [1]), ("kept", "1"),
        ("seed", 1.5), ("novel", 4),
    ],
)  # fmt: skip
def test_a_value_that_no_passage_holds_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"not what a Passage holds: {name}"):
        Passage.from_dict({"prompt": "", "continuation": ""} | {name: value})


def test_an_unknown_field_is_refused():
    with pytest.raises(ValueError, match="colour"):
        Passage.from_dict(Passage("雪", "夜").to_dict() | {"colour": "red"})


@given(passages())
def test_a_page_shows_prompt_and_continuation_apart_and_whole(passage):
    page = Reader(passage.to_html())
    assert page.shown == {"prompt": passage.prompt, "written": passage.continuation}
    assert page.tags <= {"style", "div", "article", "header", "p", "span", "b"}
    assert len(page.titles) == len(passage.continuation)
    for title, character, best in zip(page.titles, passage.continuation, passage.alternatives, strict=True):
        assert len(title.split("\n")) >= 2 + len(best) or not character.isprintable() or not best


def test_markup_in_a_text_is_text():
    evil = "<script>alert('x')</script>&amp;\"<img src=x onerror=alert(1)>"
    passage = Passage(evil, "", novel=evil, changes=[evil])
    for character in evil:
        passage.add(Character(character, [1], [-1.0], [(evil, 0.5)]))
    for html in (passage.to_html([Span(0, 5, evil, evil)]), Passages([passage])._repr_html_()):
        assert "<script" not in html and "<img" not in html
        assert Reader(html).shown == {"prompt": evil, "written": evil}


def test_shading_grows_with_surprise():
    passage = Passage("", "")
    for p in (1.0, 0.5, 0.01, 1e-9):
        passage.add(Character("雪", [1], [math.log(p)], []))
    shades = [float(s) for s in re.findall(r"--s:([\d.]+)", passage.to_html())]
    assert shades == sorted(shades) and shades[0] == 0 and shades[-1] == 1


def test_copied_spans_name_their_source():
    passage = Passage("風雪夜", "")
    for character in "他上山":
        passage.add(Character(character, [1], [-1.0], []))
    html = passage.to_html([Span(2, 4), Span(3, 99, novel="俠客行", chapter="")])
    marked = re.findall(r'<b class="jy-copy" title="([^"]*)"[^>]*>(.)</b>', html)
    assert [c for _, c in marked] == list("夜他上山")
    assert marked[0][0] == "《天龍八部》 第一回 &lt;青衫&gt; @12345"
    assert "天龍八部" in marked[1][0] and "俠客行" in marked[1][0] and "天龍八部" not in marked[2][0]


def test_bits_per_character():
    passage = Passage("雪", "")
    assert math.isnan(passage.bits_per_char)
    passage.add(Character("夜", [1], [math.log(1 / 8)], []))
    passage.add(Character("😀", [2, 3], [math.log(1 / 2), math.log(1 / 4)], []))
    assert passage.bits_per_char == pytest.approx(3)
    assert passage.probabilities == pytest.approx([1 / 8, 1 / 8])
    assert (passage.text, str(passage)) == ("雪夜😀", "雪夜😀")
    assert "雪" in repr(passage) and "夜😀" in repr(passage)


def test_a_page_of_its_own_needs_nothing_from_elsewhere(tmp_path):
    passage = Passage("雪\ud800", "夜", seed=3)
    path = passage.save(tmp_path / "out" / "passage.html")
    page = path.read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and "夜" in page
    assert not re.search(r"https?://|src=|@import|url\(", page)
    assert [p.name for p in path.parent.iterdir()] == ["passage.html"]  # no temporary file is left


def test_passages_stand_side_by_side(tmp_path):
    several = Passages([Passage("雪", "夜", seed=1, candidate=i) for i in range(3)])
    html = several.to_html()
    assert several[1:].to_html().count("<article>") == 2 and several[1] is several[1:][0]
    assert html.count("<article>") == 3 and html.count("<style>") == 1
    assert all(f"candidate {i}" in html and f"candidate {i}" in repr(several) for i in range(3))
    assert "candidate 2" in several.save(tmp_path / "p.html").read_text(encoding="utf-8")
