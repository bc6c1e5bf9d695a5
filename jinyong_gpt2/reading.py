"""One file's bytes → a clean `Novel` with a `Report` of what was found in the file and done to it."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from jinyong_gpt2.chapters import Section, is_front_title, split_chapters
from jinyong_gpt2.cleaning import (
    MISSING,
    Tally,
    counts_in_digits,
    drop_noise,
    join_quotations,
    normalise,
    repair_glyphs,
    tidy,
)
from jinyong_gpt2.novels import NovelFacts, recognise_content, recognise_title
from jinyong_gpt2.overlap import Shingles, share_in, sketch
from jinyong_gpt2.script import convert, detect_script, simplified_names
from jinyong_gpt2.text_files import decode, is_text, other_format

DUPLICATE = 0.5  # share of a text that stands in another one, above which it is a copy


@dataclass
class Report:
    """What was found in one file and what was done to it."""

    file: str
    bytes: int = 0
    encoding: str = ""
    invalid: int = 0  # places that the encoding could not read, now □
    script_found: str = ""
    script: str = ""
    layout: str = ""
    characters: int = 0  # kept
    chapters: int = 0
    missing_chapters: list[int] = field(default_factory=list)
    missing_glyphs: int = 0
    unbalanced: int = 0  # paragraphs in which quotes open and close unequally often
    recognised: str = ""  # "by name", "by content" or nothing
    extras: dict[str, int] = field(default_factory=dict)  # front and back matter: title → characters
    dropped: Tally = field(default_factory=Tally)  # lines and marks dropped or repaired, by rule, with samples
    warnings: list[str] = field(default_factory=list)

    def row(self) -> dict[str, str | int]:
        """The report as one row of a table."""
        return {
            "file": self.file,
            "encoding": self.encoding,
            "invalid": self.invalid,
            "script": self.script_found,
            "layout": self.layout,
            "chapters": self.chapters,
            "missing": ranges(self.missing_chapters),
            "characters": self.characters,
            "□": self.missing_glyphs,
            "dropped": ", ".join(f"{rule} {n}" for rule, n in self.dropped.counts.most_common()),
            "extras": ", ".join(f"{title} {n}" for title, n in self.extras.items()),
            "warnings": "; ".join(self.warnings),
        }

    def __str__(self) -> str:
        lines = [f"{name}: {value}" for name, value in self.row().items() if value not in ("", 0)]
        for rule, samples in self.dropped.samples.items():
            lines += [f"  {rule}: {sample}" for sample in samples]
        return "\n".join(lines)


@dataclass
class Chapter:
    """A chapter: paragraphs separated by one newline, without indents, dialogue in 「」."""

    title: str
    text: str
    heldout: bool = False
    number: int | None = None
    story: bool = True  # False for prefaces and appendices that were kept on request
    known_as: str = ""  # its title in traditional script, whichever script the text is in

    def __post_init__(self) -> None:
        self.known_as = self.known_as or self.title

    @property
    def full_text(self) -> str:
        """Title and text, each with its newline: what training and evaluation see."""
        return f"{self.title}\n{self.text}\n"


@dataclass
class Novel:
    """A novel as it was read from a file (or from several, one a volume)."""

    title: str
    chapters: list[Chapter]
    report: Report
    known_as: str = ""  # its title in traditional script

    def __post_init__(self) -> None:
        self.known_as = self.known_as or self.title

    @property
    def text(self) -> str:
        """Titles and texts of all chapters, joined by newlines."""
        return "\n".join(f"{chapter.title}\n{chapter.text}" for chapter in self.chapters)

    @property
    def characters(self) -> int:
        return sum(len(chapter.full_text) for chapter in self.chapters)


def read_novel(
    data: bytes, name: str, script: str = "traditional", keep_extras: bool = False
) -> tuple[Novel, NovelFacts | None]:
    """The novel in a file's bytes, and which of the known ones it is. Never raises for any bytes.

    `name` is the file's, or its path below the folder of novels, with slashes.
    """
    decoded = decode(data)
    report = Report(name, len(data), decoded.encoding, decoded.invalid)
    if (kind := other_format(data)) or not is_text(decoded.text):
        report.warnings.append(f"left out: it is {f'{kind}, save it as text' if kind else 'no text file'}")
        return Novel(title_of_file(name), [], report), None
    text = normalise(decoded.text, report.dropped)
    report.script_found = detect_script(text)
    report.script = report.script_found if script == "as_found" else script
    lines = drop_noise(repair_glyphs(text, report.dropped).split("\n"), report.dropped)
    sections, layout = split_chapters(lines, report.dropped)
    digits = counts_in_digits(text)
    report.layout = layout.name
    telling = telling_name(name)
    facts, report.recognised = _recognise(telling, text)
    title = facts.title if facts else title_of_file(telling)
    known_as = convert(title, "traditional")
    if script != "as_found":
        title = convert(title, script)
    elif facts and report.script_found == "simplified":
        title = facts.simplified
    chapters = []
    for section in _kept(_mark_front(sections), keep_extras, report):
        paragraphs = [t for p in section.paragraphs if (t := tidy(p, report.dropped, digits))]
        text = "\n".join(join_quotations(paragraphs, report.dropped))
        heading = tidy(section.title, Tally(), digits).replace("\n", " ")
        chapters.append(
            Chapter(
                convert(heading or title, script, report.script_found),
                convert(text, script, report.script_found),
                number=section.number,
                story=section.story,
                known_as=convert(heading, "traditional", report.script_found) if heading else known_as,
            )
        )
    chapters = _without_copies(chapters, report)
    if not sections or not any(section.title for section in sections):
        _drop_title_lines(chapters, title, report)
    novel = Novel(title, chapters, report, known_as)
    describe(novel, facts)
    return novel, facts


MUCH = 1000  # characters before the first chapter that are not dropped without a word
_BESIDE = " -_·.、"  # what stands between a title and a number
_NUMBER = r"[\d零〇一二三四五六七八九十百上中下前後后]+"
# A file's name that says which part of a novel it is, and not of which.
_PART = re.compile(
    rf"第?{_NUMBER}[卷冊册部集回章篇]?|第{_NUMBER}[回章].*|正文|全文|全本|内容|內容|text|novel|book|content",
    re.IGNORECASE,
)


def telling_name(name: str) -> str:
    """What in a path below the folder of novels tells which novel it is: the file's name, else a folder's.

    >>> telling_name("天劍/01.txt"), telling_name("天劍/風雪夜行.txt")
    ('天劍', '風雪夜行.txt')
    """
    *folders, file = name.split("/")
    stem = re.sub(r"\.txt$", "", unicodedata.normalize("NFKC", file), flags=re.IGNORECASE)
    return file if not _PART.fullmatch(stem.strip()) else next((f for f in reversed(folders) if f.strip()), file)


def title_of_file(name: str) -> str:
    """A novel's title from its file's name: without author, number, volume and what the file's maker added."""
    stem = plain = re.sub(r"\.txt$", "", unicodedata.normalize("NFKC", name), flags=re.IGNORECASE)
    inside = re.search(r"《([^》]+)》", stem)
    if inside:
        stem = inside[1]
    stem = re.sub(r"[(\[【（][^)\]】）]*[)\]】）]", "", stem)
    stem = re.sub(
        r"(?:作者\s*[::]?.*|txt.*$|精校版?|全集|完整版|校[对對]版|[^\s_-]{1,6}\s*著$|_?(?:GBK|UTF-?8|BIG5|GB2312)\b)",
        "",
        stem,
        flags=re.IGNORECASE,
    )
    # A number before a title or after it is a volume's, unless it is a part of the title: 36計, 1Q84.
    stem = re.sub(r"^(?:0\d*|\d+(?=[\s\-_·.、]))|(?<=[^\da-zA-Z])\d+$", "", stem.strip(_BESIDE))
    stem = re.sub(r"^金庸(?:全集|作品集)?", "", stem.strip(_BESIDE))
    return stem.strip(_BESIDE) or plain or name


def _recognise(name: str, text: str) -> tuple[NovelFacts | None, str]:
    facts = recognise_title(name)
    by_content = recognise_content(text, simplified_names())
    if facts and (len(text) < 5_000 or by_content is facts or any(n in text or s in text for n, s in _people(facts))):
        return facts, "by name"
    return by_content, "by content" if by_content else ""


def _people(facts: NovelFacts) -> list[tuple[str, str]]:
    simplified = simplified_names()
    return [(name, simplified[name]) for name in facts.people]


def _mark_front(sections: list[Section]) -> list[Section]:
    """Text before the first chapter is front matter, unless there is much of it: then it is an unnumbered chapter."""
    total = sum(section.size for section in sections)
    if len(sections) > 1 and not sections[0].title and sections[0].size > 0.2 * total and sections[0].size > 3000:
        sections[0].story = True
    return [section for section in sections if section.title or section.paragraphs]


def _kept(sections: list[Section], keep_extras: bool, report: Report) -> list[Section]:
    kept = []
    for section in sections:
        if not section.story:
            if len(section.paragraphs) == 1 and section.size < 40:
                report.dropped.add("title lines", section.paragraphs[0])
                continue
            called = section.title or next((p for p in section.paragraphs if is_front_title(p)), "")
            name = called or "front matter"
            report.extras[name[:20]] = report.extras.get(name[:20], 0) + section.size
            if not keep_extras:
                if not called and section.size > MUCH:
                    report.warnings.append(
                        f"{section.size:,} characters before the first chapter were left out: --keep-extras keeps them"
                    )
                for paragraph in section.paragraphs[:2]:
                    report.dropped.add("front and back matter", paragraph, 0)
                report.dropped.add("front and back matter", (section.paragraphs or [""])[0], len(section.paragraphs))
                continue
            section.title = section.title or name
        kept.append(section)
    return kept


def _without_copies(chapters: list[Chapter], report: Report) -> list[Chapter]:
    """Chapters without those that repeat an earlier one; empty chapters are dropped and named."""
    kept: list[Chapter] = []
    seen: dict[str, Chapter] = {}
    by_number: dict[int, list[tuple[Chapter, Shingles]]] = {}
    for chapter in chapters:
        if not chapter.text:
            report.dropped.add("empty chapters", chapter.title)
            continue
        digest = hashlib.sha256(re.sub(r"\W", "", chapter.text).encode("utf-8", "replace")).hexdigest()
        copy = seen.setdefault(digest, chapter) is not chapter
        if not copy and chapter.number is not None:
            rivals = by_number.setdefault(chapter.number, [])
            mine = sketch(chapter.text, every=1) if rivals else None
            copy = (
                any(share_in(mine, sketch(rival.text, every=1)) > DUPLICATE for rival, _ in rivals)
                if mine is not None
                else False
            )
            rivals.append((chapter, mine))
        if copy:
            report.dropped.add("repeated chapters", chapter.title)
        else:
            kept.append(chapter)
    return kept


def _drop_title_lines(chapters: list[Chapter], title: str, report: Report) -> None:
    for chapter in chapters[:1]:
        first, _, rest = chapter.text.partition("\n")
        if rest and re.sub(r"[《》\s]", "", first) == title:
            report.dropped.add("title lines", first)
            chapter.text = rest


def describe(novel: Novel, facts: NovelFacts | None) -> None:
    """Fill in what the finished chapters tell, and warn of what looks wrong."""
    report = novel.report
    texts = [chapter.text for chapter in novel.chapters]
    report.characters = novel.characters
    report.chapters = sum(chapter.story for chapter in novel.chapters)
    report.missing_glyphs = sum(text.count(MISSING) for text in texts)
    report.unbalanced = sum(p.count("「") != p.count("」") for text in texts for p in text.split("\n"))
    numbers = {chapter.number for chapter in novel.chapters if chapter.number is not None}
    if numbers:
        report.missing_chapters = sorted(set(range(min(numbers), max(numbers) + 1)) - numbers)
    warn = report.warnings.append
    if report.invalid:
        warn(f"{report.invalid} places are not valid {report.encoding} and became □")
    if report.missing_chapters:
        warn(f"no chapter {ranges(report.missing_chapters)}")
    if numbers and min(numbers) > 1:
        warn(f"begins with chapter {min(numbers)}")
    if facts and not 0.6 * facts.characters < report.characters < 1.6 * facts.characters:
        warn(f"{report.characters:,} characters where {facts.title} has about {facts.characters:,}")
    if not report.characters:
        warn("nothing left of it after cleaning")
    elif report.missing_glyphs > 0.01 * report.characters:
        warn(f"{report.missing_glyphs:,} glyphs are missing: a damaged file?")


def ranges(numbers: Sequence[int]) -> str:
    """[3, 4, 5, 9] → '3–5, 9'"""
    parts: list[list[int]] = []
    for n in numbers:
        if parts and parts[-1][-1] == n - 1:
            parts[-1][1:] = [n]
        else:
            parts.append([n])
    return ", ".join("–".join(map(str, part)) for part in parts)
