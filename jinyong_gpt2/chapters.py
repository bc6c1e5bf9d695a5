"""Lines → chapters: headings in all the forms they come in, tables of contents, prefaces, appendices, notes.

`第一回　　A    B`, `第一章大雨商家堡`, `一　灭门`, bare `一`, `第廿一回`, `第001回`, `第一回 灭门(2)`; but not
`一回頭，…` or `第四集的插圖`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from jinyong_gpt2.cleaning import Tally
from jinyong_gpt2.paragraphs import Layout, detect_layout, unwrap

LONGEST_HEADING = 48
SHORTEST_EPILOGUE = 800  # characters; a shorter 尾聲 is the last song of a play

_DIGITS = "〇零○一二三四五六七八九"
_N = "[0-9〇零○一二三四五六七八九十百千廿卅兩两—－─]"
_UNITS = "回迴章卷集節节部話话折冊册篇"
_HEAD = re.compile(
    rf"第\s*(?P<number>{_N}{{1,8}})\s*(?:(?P<chapter>[回迴](?!合))|(?P<unit>[{_UNITS}])(?!頭|头|來|来|去|程|子|課|课|下|身|擊|击|目|隊|队|門|门|落))|"
    rf"(?P<volume>卷之?|回|章)\s*(?P<number2>{_N}{{1,5}})(?=\s|$|[：:])"
)
_VOLUME = re.compile(rf"第\s*{_N}{{1,4}}\s*(?:部分?|[卷集冊册編编篇輯辑])(?:[\s：:][^，。！？；]{{1,14}})?$")
_PREFIX = re.compile(
    rf"^(?:正文|第{_N}{{1,4}}[部卷集冊册]\S{{0,10}}|卷{_N}{{1,4}}\S{{0,10}}|《[^》]{{1,12}}》|\S{{2,8}})[\s\-·:：]+(?=第{_N}{{1,8}}[回章節节])"
)
_MARKS = " \u3000=-~*#☆★【】[]〔〕◆◇■※"
_PART = re.compile(r"[\s]*[(（]([0-9一二三四五六七八九十]{1,2}|上|中|下)[)）]$")
_SENTENCE = re.compile("[。！？；!?;…」”]")
_WEAK = re.compile(
    rf"^[(（]?(?P<number>{_N}{{1,5}})[)）]?(?:[\s、.．]+(?P<title>[^\s，。！？；：、「」“”]{{1,16}}(?:\s[^\s，。！？；：「」“”]{{1,16}})?))?$"
)
_OPENING = re.compile(r"^(?:楔子|引子|引首|引言|[緣缘]起(?:首回)?|序幕|序章)(?:$|[\s：:])")
_CLOSING = re.compile(r"^(?:尾[聲声]|[終终]章|大?[結结]局)(?:$|[\s：:])")
_FRONT = re.compile(
    r"^(?:自?序|原序|序言|序[一二三]|前言|弁言|小引|凡例|[敘叙]|目\s*[錄录次]|[題题][詞词記记]|[導导][讀读]|出版[說说]明|主要人物表?|人物表)\b"
)
_BACK = re.compile(
    r"^(?:[後后]\s*[記记]|跋|附\s*[錄录]|附[：:]|修[訂订][後后][記记]|袁崇[煥焕][評评][傳传]|[卅三]十?三[劍剑]客[圖图]|"
    r"[註注][釋释]|校勘[記记]|[編编]後[記记]|康熙朝的?[機机]密奏摺)(?:$|[\s：:（(—]|.{0,12}$)"
)
_NOTES = re.compile(r"^[【\[(（]?\s*(?:[註注][釋释解]|校勘[記记]|[註注])\s*[】\])）]?\s*[：:]?$")
_NOTE = re.compile(r"[0-9①-⑳〔\[(（]|[^，。]{1,14}(?:——|－－|--|─|：|:|—)")
_VERSE = re.compile(r"^(?:又|正|有|後|后)?[詩诗詞词贊赞歌偈](?:曰|云)")
_STORY = re.compile("(?:話說|话说|且說|且说|卻說|却说|詩曰|诗曰|詞曰|词曰|話表|话表|古風|古风|原來|原来)")


@dataclass(frozen=True)
class Heading:
    """A heading line: its number (None where it has none), unit (回, 章, …) and title without them."""

    line: int
    number: int | None
    unit: str
    title: str
    rest: str = ""  # body text that stood on the same line
    part: str = ""  # (2) of a chapter in parts
    sure: bool = True  # False where it might be a sentence

    @property
    def full(self) -> str:
        """`第二十一回　A　B`, however it was written."""
        if self.number is None:
            return self.title or self.unit
        number = chinese_numeral(self.number)
        mark = {"": number, "卷": f"卷{number}"}.get(self.unit, f"第{number}{self.unit.removeprefix('第')}")
        return f"{mark}\u3000{self.title}" if self.title else mark


@dataclass
class Section:
    """A chapter before conversion: its heading (None for text outside chapters) and paragraphs."""

    title: str
    number: int | None
    paragraphs: list[str] = field(default_factory=list)
    story: bool = True  # False for prefaces, afterwords and appendices

    @property
    def size(self) -> int:
        return sum(map(len, self.paragraphs))


def parse_number(text: str) -> int | None:
    """`廿一`, `001`, `一百零八`, `一〇八` → 21, 1, 108, 108; None for what is no number. A dash is a lost 一."""
    text = re.sub("[—－─]", "一", text).translate(str.maketrans("两兩○零", "二二〇〇"))
    if text.isascii() and text.isdigit():
        return int(text)
    digits = {c: i for i, c in enumerate("〇一二三四五六七八九")}
    if all(c in digits for c in text):
        return int("".join(str(digits[c]) for c in text)) if text else None
    total, digit = 0, 0
    for c in text:
        if c in digits:
            digit = digits[c]
        elif c in "廿卅":
            total, digit = total + 20 + 10 * (c == "卅"), 0
        elif c in "十百千":
            total, digit = total + (digit or 1) * 10 ** ("十百千".index(c) + 1), 0
        else:
            return None
    return total + digit


def chinese_numeral(number: int) -> str:
    """21 → 二十一, 108 → 一百零八; numbers of five digits and more stay digits."""
    if not 0 < number < 10_000:
        return str(number) if number else "零"
    text = ""
    for place, unit in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // place % 10
        if digit:
            text += ("" if digit == 1 and place == 10 and not text else _DIGITS[digit + 2]) + unit
        elif text and number % place and not text.endswith("零"):
            text += "零"
    return text


def heading(line: str) -> Heading | None:
    """What heading a line is, or None. A doubtful one (`sure` is False) counts only beside its neighbours in number."""
    text = _PREFIX.sub("", line.strip().strip(_MARKS))
    found = _HEAD.match(text)
    if found is None:
        return None
    number = parse_number(found["number"] or found["number2"])
    if number is None:
        return None
    unit = "第回" if found["chapter"] else "第" + found["unit"] if found["unit"] else found["volume"][0]
    after = text[found.end() :]
    title = after.lstrip(" \u3000:：、.．-—】〕]")
    spaced = after == "" or after[0] in " \u3000:：、《「(（】〕]"
    if len(text) > LONGEST_HEADING or _SENTENCE.search(_ending_cut(title)):
        # A heading with body text after it; after a comma or without a space it is a sentence.
        if after[:1] not in " \u3000":
            return None
        title, rest = _cut_body(title)
        return Heading(-1, number, unit, title, rest, sure=False)
    if title.startswith(("，", ",")) or _HEAD.search(title):
        return None  # a sentence; a table of contents in two columns
    if not spaced and (title[0] == "的" or "，" in title or (unit != "第回" and title[0] in "裡里中上下分之是有")):
        return None
    part = _PART.search(title)
    title = re.sub(r"\s+", "\u3000", (_PART.sub("", title) if part else title).strip())
    return Heading(-1, number, unit, title, part=part[1] if part else "", sure=spaced)


def _ending_cut(title: str) -> str:
    return title.rstrip("。！？!?；;…") if len(title) <= 30 else title


def _cut_body(text: str) -> tuple[str, str]:
    """Title and body of a line that holds both: a couplet's halves are equally long, and stories begin with 話說."""
    halves = re.split(r"[ \u3000]+", text, maxsplit=1)
    if len(halves) == 2 and 4 <= len(halves[0]) <= 14 and not re.search("[，。：！？]", halves[0]):
        size = len(halves[0])
        return f"{halves[0]}\u3000{halves[1][:size]}", halves[1][size:].strip()
    story = _STORY.search(text[:40])
    if story and story.start() >= 4 and not re.search("[，。：！？]", text[: story.start()]):
        return text[: story.start()].strip(), text[story.start() :]
    return "", text


def find_headings(lines: Sequence[str]) -> list[Heading]:
    """The headings of a text's chapters in order, one level of them: the unit that most headings have."""
    found: list[Heading] = []
    for i, line in enumerate(lines):
        # A cheap look first: nearly all lines are none.
        if "第" in line[:24] or (len(line) < 60 and line.lstrip()[:1] in "卷回章"):
            head = heading(line)
            if head is not None:
                found.append(replace(head, line=i))
    found = [head for n, head in enumerate(found) if head.sure or _has_neighbour(found, n)]
    if not found:
        return _weak_headings(lines)
    main = Counter(head.unit for head in found).most_common(1)[0][0]
    return [head for head in found if head.unit == main]


def _has_neighbour(found: Sequence[Heading], n: int) -> bool:
    """Whether the number before, or the number after, is that of the heading before or after."""
    head = found[n]
    before = next((h for h in reversed(found[:n]) if h.unit == head.unit), None)
    after = next((h for h in found[n + 1 :] if h.unit == head.unit), None)
    return (before is not None and before.number == head.number - 1) or (
        after is not None and after.number == head.number + 1
    )


def _weak_headings(lines: Sequence[str]) -> list[Heading]:
    """`一　灭门` or bare `一`, where they count up from one through the text with real chapters between them."""
    found: list[Heading] = []
    for i, line in enumerate(lines):
        match = _WEAK.match(line.strip().strip(_MARKS)) if len(line) < 60 else None
        if match is None or parse_number(match["number"]) != len(found) + 1:
            continue
        found.append(Heading(i, len(found) + 1, "", re.sub(r"\s+", "\u3000", match["title"] or "")))
    between = [sum(len(line) for line in lines[a.line + 1 : b.line]) for a, b in pairwise(found)]
    return found if len(found) >= 2 and min(between) >= 200 else []


def split_chapters(lines: list[str], tally: Tally) -> tuple[list[Section], Layout]:
    """Sections of a text in order, front and back matter marked by `story=False`, and how its lines were set."""
    headings = find_headings(lines)
    lines, headings = _without_contents(headings, _without_volumes(lines, headings, tally), tally)
    if headings:
        headings = _with_unnumbered(headings, lines)
    starts = {head.line for head in headings}
    layout = detect_layout([line for i, line in enumerate(lines) if i not in starts])
    edges = [head.line for head in headings] + [len(lines)]
    sections = []
    if not headings or any(line.strip() for line in lines[: edges[0]]):
        sections.append(Section("", None, unwrap(lines[: edges[0]], layout), story=not headings))
    for head, start, stop in zip(headings, edges, edges[1:], strict=False):
        body = lines[start + 1 : stop]
        if head.rest:
            body = [head.rest, *body]
        if not head.title and head.number is not None:
            title, body = _title_below(body)
            head = replace(head, title=title)
        section = Section(head.full, head.number, unwrap(_without_notes(body, tally), layout))
        if head.part and sections and sections[-1].number == head.number:
            sections[-1].paragraphs += section.paragraphs
            continue
        sections.append(section)
    _cut_back_matter(sections)
    return sections, layout


def _without_volumes(lines: Sequence[str], headings: Sequence[Heading], tally: Tally) -> list[str]:
    """The lines, blank where a volume above the chapters is headed: 第一部, 第二卷　風雪, 第一部分."""
    chapters = {head.line for head in headings}
    kept = list(lines)
    for i, line in enumerate(lines):
        if len(line) < 40 and i not in chapters and headings and _VOLUME.match(line.strip().strip(_MARKS)):
            tally.add("volume headings", line)
            kept[i] = ""
    return kept


def _without_contents(headings: Sequence[Heading], lines: list[str], tally: Tally) -> tuple[list[str], list[Heading]]:
    """Lines and headings without those of a table of contents: no body of their own, and the number comes again."""
    last = {(head.unit, head.number): head.line for head in headings}
    kept = []
    for n, head in enumerate(headings):
        stop = headings[n + 1].line if n + 1 < len(headings) else len(lines)
        body = sum(len(line.strip()) for line in lines[head.line + 1 : stop]) + len(head.rest)
        if body < 40 and last[head.unit, head.number] != head.line:
            tally.add("table of contents", lines[head.line])
            lines[head.line] = ""
        else:
            kept.append(head)
    return lines, kept


def _with_unnumbered(headings: list[Heading], lines: Sequence[str]) -> list[Heading]:
    """The headings and, before, between and after them, those without a number: 楔子, 附錄, 尾聲."""
    first, last = headings[0].line, headings[-1].line
    more = []
    for i, line in enumerate(lines):
        text = line.strip().strip(_MARKS)
        if not 1 < len(text) <= 40 or _SENTENCE.search(text) or i in (first, last):
            continue
        title = re.sub(r"\s+", "\u3000", text)
        if (i < first and _OPENING.match(text)) or (
            i > last and _CLOSING.match(text) and sum(map(len, lines[i:])) > SHORTEST_EPILOGUE
        ):
            more.append(Heading(i, None, "", title))
        elif first < i < last and re.match(r"^附[錄录][\s　]+\S{4,}", text):
            more.append(Heading(i, None, "", title))  # a chapter that some editions only append
    # The last of several 楔子 is the chapter; those before are lines of a table of contents.
    openings = [head for head in more if head.line < first][:-1]
    return sorted([*headings, *(head for head in more if head not in openings)], key=lambda head: head.line)


def _title_below(body: list[str]) -> tuple[str, list[str]]:
    """The title of a bare `第一回`, where it stands on the next line."""
    for i, line in enumerate(body):
        text = line.strip()
        if text:
            plain = re.sub(r"[ \u3000]+", "\u3000", text)
            if (
                4 <= len(plain) <= 26
                and not re.search('[，。！？：；「」“”"、…《》]', plain)
                and not _VERSE.match(plain)
            ):
                return plain, body[i + 1 :]
            break
    return "", body


def _without_notes(body: list[str], tally: Tally) -> list[str]:
    """A chapter without the editor's notes that a line 註釋 or 【校勘記】 begins: as far as lines look like notes."""
    kept, inside = [], False
    for line in body:
        text = line.strip()
        if len(text) < 20 and _NOTES.match(text):
            inside = True
        elif text and inside and not (len(text) < 250 and _NOTE.match(text)):
            inside = False
        if inside and text:
            tally.add("editors' notes", text)
        else:
            kept.append(line)
    return kept


def _cut_back_matter(sections: list[Section]) -> None:
    """Afterwords and appendices after the last chapter become a section of their own, which is no story."""
    if not sections or sections[-1].number is None:
        return
    last = sections[-1]
    for i, paragraph in enumerate(last.paragraphs):
        if i and len(paragraph) <= 20 and _BACK.match(paragraph) and not _SENTENCE.search(paragraph):
            sections.append(Section(paragraph, None, last.paragraphs[i + 1 :], story=False))
            del last.paragraphs[i:]
            return


def is_front_title(paragraph: str) -> bool:
    """Whether a short paragraph is the heading of a preface or a table of contents."""
    return len(paragraph) <= 24 and bool(_FRONT.match(paragraph))
