"""A folder of novels, as the files people have them → a clean `Corpus` that tells what was done to each file.

>>> corpus = load_corpus("data/novels")
>>> print(corpus.report_table())
>>> corpus.sample_context(novel="天龍八部", length=100, seed=7)
"""

from __future__ import annotations

import hashlib
import os
import random
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jinyong_gpt2.chapters import Section, is_front_title, split_chapters
from jinyong_gpt2.cleaning import MISSING, Tally, drop_noise, normalise, join_quotations, repair_glyphs, tidy
from jinyong_gpt2.novels import TITLES, NovelFacts, recognise_content, recognise_title
from jinyong_gpt2.overlap import Shingles, share_in, sketch
from jinyong_gpt2.script import SCRIPTS, convert, detect_script, simplified_names
from jinyong_gpt2.text_files import decode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

HELDOUT_SHARE = 0.02
SERIAL_BELOW = 3_000_000  # bytes; starting worker processes costs more than it gains
DUPLICATE = 0.5  # share of a text that stands in another one, above which it is a copy
LEAKED = 0.5  # the same for a held-out paragraph


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
            "missing": _ranges(self.missing_chapters),
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

    @property
    def text(self) -> str:
        """Titles and texts of all chapters, joined by newlines."""
        return "\n".join(f"{chapter.title}\n{chapter.text}" for chapter in self.chapters)

    @property
    def characters(self) -> int:
        return sum(len(chapter.full_text) for chapter in self.chapters)


@dataclass
class Corpus:
    """Novels in a fixed order: the fourteen as in their couplet, then the others by title."""

    novels: list[Novel]
    script: str = "traditional"
    skipped: list[Report] = field(default_factory=list)  # files that were left out, and why
    audit: list[str] = field(default_factory=list)  # what of the held-out text also stood in the training text

    @property
    def titles(self) -> list[str]:
        return [novel.title for novel in self.novels]

    def novel(self, title: str) -> Novel:
        """The novel of that title, in either script or by an alias. Raises ValueError with the titles there are."""
        facts = recognise_title(title)
        wanted = {title, facts.title if facts else title}
        for novel in self.novels:
            if novel.title in wanted:
                return novel
        if self.script != "as_found":
            converted = convert(title, self.script)
            for novel in self.novels:
                if novel.title == converted:
                    return novel
        raise ValueError(f"no novel {title!r} in this corpus; it has: {'、'.join(self.titles)}")

    def sample_context(
        self, novel: str | None = None, length: int = 100, seed: int | None = None, heldout: bool = False
    ) -> str:
        """A passage of `length` characters that begins at a sentence's start, outside any quotation.

        Drawn from the training chapters, or with `heldout=True` from the held-out ones; the same for the same seed.
        Shorter only where no chapter has `length` characters left after any of its sentences. Raises ValueError where
        the novel is unknown, `length` is below 1 or there is no such chapter.
        """
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}")
        novels = [self.novel(novel)] if novel is not None else self.novels
        chapters = [c for n in novels for c in n.chapters if c.heldout == heldout and c.story and c.text]
        if not chapters:
            kind = "held-out" if heldout else "training"
            raise ValueError(f"no {kind} chapter in {novel or 'this corpus'} to draw a context from")
        draw = random.Random(seed)
        order = [draw.choices(chapters, [len(c.text) for c in chapters])[0] for _ in range(4)]
        order += sorted(chapters, key=lambda c: len(c.text), reverse=True)[:1]
        for chapter in order:
            starts = [i for i in sentence_starts(chapter.text) if i + length <= len(chapter.text)]
            if starts:
                start = draw.choice(starts)
                return chapter.text[start : start + length].rstrip("\n")
        chapter = order[-1]
        return chapter.text[:length].rstrip("\n")

    def report_table(self) -> str:
        """The reports of all files as a Markdown table, then the warnings in full."""
        reports = [novel.report for novel in self.novels] + self.skipped
        columns = [
            "file",
            "encoding",
            "invalid",
            "script",
            "layout",
            "chapters",
            "missing",
            "characters",
            "□",
            "dropped",
        ]
        rows = [report.row() for report in reports]
        lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        lines += ["| " + " | ".join(str(row[name]) for name in columns) + " |" for row in rows]
        notes = [f"- {report.file}: {warning}" for report in reports for warning in report.warnings]
        return "\n".join([*lines, "", *notes, *(f"- {line}" for line in self.audit)]).rstrip()

    def __repr__(self) -> str:
        total = sum(novel.characters for novel in self.novels)
        return f"Corpus({len(self.novels)} novels, {total:,} characters, script={self.script!r})"


# ---------------------------------------------------------------------------------------------------------------------
# Loading


def load_corpus(
    folder: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    script: str = "traditional",
    keep_extras: bool = False,
    heldout: float = HELDOUT_SHARE,
    workers: int | None = None,
    progress: bool = True,
) -> Corpus:
    """Read every .txt file in a folder (or the files given), clean it, and hold out about `heldout` of its chapters.

    `script`: 'traditional' (as Taiwan writes it), 'simplified' or 'as_found'. `keep_extras` keeps prefaces, afterwords
    and appendices. `workers`: processes, all cores by default. Each novel's `report` says what was done to its file.
    Raises FileNotFoundError where there is no .txt file, ValueError for an unknown script or share.
    """
    if script not in SCRIPTS:
        raise ValueError(f"script must be one of {', '.join(SCRIPTS)}, not {script!r}")
    if not 0 <= heldout < 1:
        raise ValueError(f"heldout is a share of the chapters from 0 up to 1, got {heldout}")
    files = find_files(folder)
    tasks = [(str(path), script, keep_extras) for path in files]
    loaded = list(_run(tasks, sum(path.stat().st_size for path in files), workers, progress))
    novels, skipped = _merge(loaded)
    corpus = Corpus(novels, script, skipped)
    hold_out(corpus, heldout)
    _audit(corpus)
    return corpus


def find_files(folder: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The .txt files (.TXT, .Txt) in a folder and below it, by name. Raises FileNotFoundError where there is none."""
    if isinstance(folder, (str, os.PathLike)):
        path = Path(folder)
        if path.is_file():
            return [path]
        if not path.is_dir():
            raise FileNotFoundError(f"no folder {path}: put your novels there as .txt files")
        found = [
            p for p in path.rglob("*") if p.suffix.lower() == ".txt" and p.is_file() and not p.name.startswith(".")
        ]
    else:
        found = [Path(p) for p in folder]
        for p in found:
            if not p.is_file():
                raise FileNotFoundError(f"no file {p}")
    if not found:
        raise FileNotFoundError(f"no .txt files in {folder}: put novels there, or use data/sample")
    return sorted(found, key=lambda p: p.as_posix())


def _run(tasks: Sequence[tuple[str, str, bool]], size: int, workers: int | None, progress: bool) -> Iterator[_Loaded]:
    from tqdm.auto import tqdm

    workers = min(workers or os.cpu_count() or 1, len(tasks))
    bar = {
        "total": len(tasks),
        "desc": "reading novels",
        "unit": "file",
        "disable": not progress or size < SERIAL_BELOW,
    }
    if workers < 2 or size < SERIAL_BELOW:
        yield from tqdm(map(_load, tasks), **bar)
        return
    import multiprocessing

    # Fork where it is the custom (a notebook's __main__ cannot be imported by a fresh process).
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        # The largest first, so that none is left over at the end; results in the order of the files.
        order = sorted(range(len(tasks)), key=lambda i: -os.path.getsize(tasks[i][0]))
        futures = {i: pool.submit(_load, tasks[i]) for i in order}
        yield from tqdm((futures[i].result() for i in range(len(tasks))), **bar)


@dataclass
class _Loaded:
    novel: Novel
    shingles: Shingles
    facts: NovelFacts | None


def _load(task: tuple[str, str, bool]) -> _Loaded:
    path, script, keep_extras = task
    novel, facts = read_novel(Path(path).read_bytes(), Path(path).name, script, keep_extras)
    return _Loaded(novel, sketch(novel.text), facts)


def read_novel(
    data: bytes, name: str, script: str = "traditional", keep_extras: bool = False
) -> tuple[Novel, NovelFacts | None]:
    """The novel in a file's bytes, and which of the known ones it is. Never raises for any bytes."""
    decoded = decode(data)
    report = Report(name, len(data), decoded.encoding, decoded.invalid)
    text = normalise(decoded.text, report.dropped)
    report.script_found = detect_script(text)
    report.script = report.script_found if script == "as_found" else script
    lines = drop_noise(repair_glyphs(text, report.dropped).split("\n"), report.dropped)
    sections, layout = split_chapters(lines, report.dropped)
    report.layout = layout.name
    facts, report.recognised = _recognise(name, text)
    title = facts.title if facts else title_of_file(name)
    if script != "as_found":
        title = convert(title, script)
    elif facts and report.script_found == "simplified":
        title = facts.simplified
    chapters = []
    for section in _kept(_mark_front(sections), keep_extras, report):
        paragraphs = [t for p in section.paragraphs if (t := tidy(p, report.dropped))]
        text = "\n".join(join_quotations(paragraphs, report.dropped))
        heading = tidy(section.title, Tally()).replace("\n", " ") or title
        chapters.append(
            Chapter(
                convert(heading, script, report.script_found),
                convert(text, script, report.script_found),
                number=section.number,
                story=section.story,
            )
        )
    chapters = _without_copies(chapters, report)
    if not sections or not any(section.title for section in sections):
        _drop_title_lines(chapters, title, report)
    novel = Novel(title, chapters, report)
    _describe(novel, facts)
    return novel, facts


def title_of_file(name: str) -> str:
    """A novel's title from its file's name: without author, number, volume and what the file's maker added."""
    stem = unicodedata.normalize("NFKC", name)
    stem = re.sub(r"\.txt$", "", stem, flags=re.IGNORECASE)
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
    stem = re.sub(r"^金庸(?:全集|作品集)?", "", stem.strip(" -_·.、0123456789"))
    return stem.strip(" -_·.、0123456789") or name


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
            name = section.title or next((p for p in section.paragraphs if is_front_title(p)), "front matter")
            report.extras[name[:20]] = report.extras.get(name[:20], 0) + section.size
            if not keep_extras:
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


def _describe(novel: Novel, facts: NovelFacts | None) -> None:
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
        warn(f"no chapter {_ranges(report.missing_chapters)}")
    if numbers and min(numbers) > 1:
        warn(f"begins with chapter {min(numbers)}")
    if facts and not 0.6 * facts.characters < report.characters < 1.6 * facts.characters:
        warn(f"{report.characters:,} characters where {facts.title} has about {facts.characters:,}")
    if not report.characters:
        warn("nothing left of it after cleaning")
    elif report.missing_glyphs > 0.01 * report.characters:
        warn(f"{report.missing_glyphs:,} glyphs are missing: a damaged file?")


def _ranges(numbers: Sequence[int]) -> str:
    """[3, 4, 5, 9] → '3–5, 9'"""
    parts: list[list[int]] = []
    for n in numbers:
        if parts and parts[-1][-1] == n - 1:
            parts[-1][1:] = [n]
        else:
            parts.append([n])
    return ", ".join("–".join(map(str, part)) for part in parts)


# ---------------------------------------------------------------------------------------------------------------------
# Several files, one novel


def _merge(loaded: Sequence[_Loaded]) -> tuple[list[Novel], list[Report]]:
    """Novels in their order, volumes of one joined, copies left out; and the reports of files that were left out."""
    skipped: list[Report] = []
    kept: list[_Loaded] = []
    # The fullest copy stays: most chapters, then most characters.
    for item in sorted(
        loaded, key=lambda item: (-len(item.novel.chapters), -item.novel.characters, item.novel.report.file)
    ):
        report = item.novel.report
        if not item.novel.characters:
            skipped.append(report)
            continue
        for other in kept:
            share = share_in(item.shingles, other.shingles)
            same = item.novel.title == other.novel.title
            if share > DUPLICATE or (same and share > 0.3):
                report.warnings.append(f"left out: {share:.0%} of it also stands in {other.novel.report.file}")
                skipped.append(report)
                break
            if share > 0.1:
                report.warnings.append(f"shares {share:.0%} of its text with {other.novel.report.file}")
        else:
            kept.append(item)
    kept.sort(key=lambda item: item.novel.report.file)
    novels: dict[str, Novel] = {}
    facts: dict[str, NovelFacts | None] = {}
    for item in kept:
        title = item.novel.title
        facts[title] = item.facts
        if title in novels:
            _join(novels[title], item.novel, item.facts)
        else:
            novels[title] = item.novel
    order = {title: i for i, title in enumerate(TITLES)}
    known = {title: order.get(f.title if f else title, len(order)) for title, f in facts.items()}
    return sorted(novels.values(), key=lambda novel: (known[novel.title], novel.title)), skipped


def _join(first: Novel, second: Novel, facts: NovelFacts | None) -> None:
    """Add a volume's chapters to the novel they belong to, in the order of their numbers where these follow on."""
    first.chapters += second.chapters
    numbers = [chapter.number for chapter in first.chapters]
    if None not in numbers and len(set(numbers)) == len(numbers):
        first.chapters.sort(key=lambda chapter: chapter.number)
    a, b = first.report, second.report
    a.file, a.bytes, a.invalid = f"{a.file} + {b.file}", a.bytes + b.bytes, a.invalid + b.invalid
    a.encoding = a.encoding if a.encoding == b.encoding else f"{a.encoding}, {b.encoding}"
    a.dropped.counts += b.dropped.counts
    for rule, samples in b.dropped.samples.items():
        a.dropped.samples[rule] = (a.dropped.samples.get(rule, []) + samples)[:5]
    for title, size in b.extras.items():
        a.extras[title] = a.extras.get(title, 0) + size
    # What the volumes lacked by themselves (a beginning, a size) they may have together.
    a.warnings = [w for w in a.warnings + b.warnings if "shares" in w]
    _describe(first, facts)


# ---------------------------------------------------------------------------------------------------------------------
# Holding out


def chapter_hash(novel: str, chapter: str) -> float:
    """A number from 0 to 1 that depends on the two titles alone."""
    digest = hashlib.sha256(f"{novel}\n{chapter}".encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def hold_out(corpus: Corpus, share: float = HELDOUT_SHARE) -> None:
    """Mark about `share` of each novel's chapters as held out, by a hash: adding a novel moves none of them.

    Novels of 20 chapters and more hold out the chapters with the smallest hashes, one at least; smaller ones those
    below `share`. Where that leaves a whole corpus with none, the one chapter with the smallest hash is taken.
    """
    if not share:
        return
    candidates: list[tuple[float, Chapter]] = []
    for novel in corpus.novels:
        story = [c for c in novel.chapters if c.story]
        ranked = sorted(((chapter_hash(novel.title, c.title), i, c) for i, c in enumerate(story)), key=lambda r: r[:2])
        count = max(1, round(share * len(ranked))) if len(ranked) >= 20 else sum(h < share for h, _, _ in ranked)
        for _, _, chapter in ranked[:count]:
            chapter.heldout = True
        candidates += [(h, chapter) for h, _, chapter in ranked]
    if len(candidates) > 1 and not any(chapter.heldout for _, chapter in candidates):
        min(candidates, key=lambda pair: pair[0])[1].heldout = True


def _audit(corpus: Corpus) -> None:
    """Drop held-out paragraphs that also stand in the training text, and say so in `corpus.audit`."""
    held = [(novel, chapter) for novel in corpus.novels for chapter in novel.chapters if chapter.heldout]
    if not held:
        return
    wanted = Shingles.of_all(chapter.text for _, chapter in held)
    seen = wanted.found_in(c.text for novel in corpus.novels for c in novel.chapters if not c.heldout)
    for novel, chapter in held:
        paragraphs = chapter.text.split("\n")
        clean = [p for p in paragraphs if share_in(sketch(p, every=1), seen) <= LEAKED]
        lost = sum(map(len, paragraphs)) - sum(map(len, clean))
        if not lost:
            continue
        what = f"《{novel.title}》{chapter.title}: {lost} of {len(chapter.text)} held-out characters"
        if clean:
            chapter.text = "\n".join(clean)
            corpus.audit.append(f"{what} also stand in the training text and were dropped")
        else:
            chapter.heldout = False
            corpus.audit.append(f"{what} also stand in the training text; the chapter is not held out")


# ---------------------------------------------------------------------------------------------------------------------
# Sentences and coverage

_SENTENCE_END = re.compile("[。！？…][」』）]*|\n")


def sentence_starts(text: str) -> list[int]:
    """Where the sentences of a text begin, those inside quotations left out."""
    starts, depth, last = ([0] if text else []), 0, 0
    for found in _SENTENCE_END.finditer(text):
        for c in text[last : found.end()]:
            depth += (c in "「『（") - (c in "」』）")
        last = found.end()
        if found[0] == "\n":
            depth = 0  # an unclosed quotation ends with its paragraph
        if depth <= 0 and last < len(text) and text[last] not in "」』）。，、！？；：…\n":
            starts.append(last)
            depth = 0
    return sorted(set(starts))


@dataclass(frozen=True)
class Coverage:
    """How many characters of a text have no token of their own and go through byte fallback."""

    characters: int
    fallback: int
    commonest: list[tuple[str, int]]  # the characters that fall back most often

    def __str__(self) -> str:
        share = self.fallback / self.characters if self.characters else 0.0
        names = " ".join(f"{c}×{n}" for c, n in self.commonest)
        return f"{self.fallback:,} of {self.characters:,} characters fall back to bytes ({share:.3%}): {names}"


def coverage(text: str, tokenizer: PreTrainedTokenizerFast, commonest: int = 20) -> Coverage:
    """Count the characters of `text` that `tokenizer` has no token for."""
    from collections import Counter

    vocabulary = tokenizer.get_vocab()
    unknown = Counter({c: n for c, n in Counter(text).items() if c not in vocabulary})
    return Coverage(len(text), sum(unknown.values()), unknown.most_common(commonest))
