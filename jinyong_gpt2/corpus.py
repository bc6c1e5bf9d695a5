"""A folder of novels, as the files people have them → a clean `Corpus` that tells what was done to each file.

>>> corpus = load_corpus("data/novels")
>>> print(corpus.report_table())
>>> corpus.sample_context(novel="天龍八部", length=100, seed=7)
"""

from __future__ import annotations

import os
import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jinyong_gpt2.holdout import HELDOUT_SHARE, audit, hold_out
from jinyong_gpt2.novels import TITLES, NovelFacts, recognise_title
from jinyong_gpt2.overlap import Shingles, share_in, sketch
from jinyong_gpt2.reading import DUPLICATE, Chapter, Novel, Report, describe, read_novel
from jinyong_gpt2.script import SCRIPTS, convert

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["SAMPLE", "Chapter", "Corpus", "Coverage", "Novel", "Report", "coverage", "load_corpus"]

SAMPLE = Path(__file__).resolve().parent.parent / "data" / "sample"  # fourteen tales written for this project
SERIAL_BELOW = 3_000_000  # bytes; starting worker processes costs more than it gains


@dataclass
class Corpus:
    """Novels in a fixed order: the fourteen as in their couplet, then the others by title."""

    novels: list[Novel]
    script: str = "traditional"
    heldout_share: float = HELDOUT_SHARE  # of the chapters, as asked for
    skipped: list[Report] = field(default_factory=list)  # files that were left out, and why
    audit: list[str] = field(default_factory=list)  # what of the held-out text also stood in the training text

    @property
    def titles(self) -> list[str]:
        return [novel.title for novel in self.novels]

    def novel(self, title: str) -> Novel:
        """The novel of that title, in either script or by an alias. Raises ValueError with the titles there are."""
        facts = recognise_title(title)
        wanted = {title, convert(title, "traditional"), facts.title if facts else title}
        for novel in self.novels:
            if {novel.title, novel.known_as} & wanted:
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
            text = chapter.text
            starts = [i for i in sentence_starts(text) if i + length <= len(text) and text[i + length - 1] != "\n"]
            if starts:
                start = draw.choice(starts)
                return text[start : start + length]
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
        cells = [[re.sub(r"\s+", " ", str(row[name])).replace("|", r"\|") for name in columns] for row in rows]
        lines += ["| " + " | ".join(row) + " |" for row in cells]
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
    Raises FileNotFoundError where there is no .txt file, ValueError where none can be read, and for an unknown script
    or share.
    """
    if script not in SCRIPTS:
        raise ValueError(f"script must be one of {', '.join(SCRIPTS)}, not {script!r}")
    if not 0 <= heldout < 1:
        raise ValueError(f"heldout is a share of the chapters from 0 up to 1, got {heldout}")
    given = [Path(folder)] if isinstance(folder, (str, os.PathLike)) else [Path(one) for one in folder]
    files = find_files(given)
    tasks = [(str(path), _name(path, given), script, keep_extras) for path in files]
    loaded = list(_run(tasks, sum(path.stat().st_size for path in files), workers, progress))
    novels, skipped = _merge(loaded)
    if not novels:
        found = "; ".join(f"{report.file} ({', '.join(report.warnings) or 'empty'})" for report in skipped)
        raise ValueError(f"no file holds a novel that can be read: {found}")
    hold_out(novels, heldout)
    return Corpus(novels, script, heldout, skipped, audit(novels))


def find_files(folder: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """The .txt files (.TXT, .Txt) in a folder and below it, or in several, and files given by name; sorted.

    Raises FileNotFoundError where a folder or file is missing, or none of them holds a .txt file.
    """
    given = [folder] if isinstance(folder, (str, os.PathLike)) else list(folder)
    found: set[Path] = set()
    for path in map(Path, given):
        if path.is_dir():
            texts = (p for p in path.rglob("*") if p.suffix.lower() == ".txt" and p.is_file())
            # Nothing hidden: Jupyter keeps copies of its own in .ipynb_checkpoints.
            found |= {p for p in texts if not any(part.startswith(".") for part in p.relative_to(path).parts)}
        elif path.is_file():
            found.add(path)
        else:
            raise FileNotFoundError(f"no file or folder {path}: put your novels there as .txt files")
    if not found:
        where = ", ".join(map(str, given))
        raise FileNotFoundError(f"no .txt files in {where}: put novels there, or use data/sample")
    return sorted(found, key=lambda p: p.as_posix())


def _name(path: Path, given: Sequence[Path]) -> str:
    """What to call a file: its path below the folder it was found in, or its own name."""
    folders = (folder for folder in given if path != folder and path.is_relative_to(folder))
    return next((path.relative_to(folder).as_posix() for folder in folders), path.name)


_Task = tuple[str, str, str, bool]  # path, name, script, whether extras are kept


def _run(tasks: Sequence[_Task], size: int, workers: int | None, progress: bool) -> Iterator[_Loaded]:
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


def _load(task: _Task) -> _Loaded:
    path, name, script, keep_extras = task
    novel, facts = read_novel(Path(path).read_bytes(), name, script, keep_extras)
    # As found, a novel may be there in both scripts: copies are told in one of them.
    text = convert(novel.text, "simplified") if script == "as_found" else novel.text
    return _Loaded(novel, sketch(text), facts)


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
            same = item.novel.known_as == other.novel.known_as
            if share > DUPLICATE or (same and share > 0.3):
                report.warnings.append(f"left out: {share:.0%} of it also stands in {other.novel.report.file}")
                skipped.append(report)
                break
            within = share_in(other.shingles, item.shingles)
            if share > 0.1:
                report.warnings.append(f"shares {share:.0%} of its text with {other.novel.report.file}")
            elif within > DUPLICATE:  # in a larger file with fewer headings
                report.warnings.append(f"holds {within:.0%} of {other.novel.report.file}, too: leave one of them out")
        else:
            kept.append(item)
    kept.sort(key=lambda item: item.novel.report.file)
    novels: dict[str, Novel] = {}
    facts: dict[str, NovelFacts | None] = {}
    for item in kept:
        title = item.novel.known_as
        facts[title] = item.facts
        if title in novels:
            _join(novels[title], item.novel, item.facts)
        else:
            novels[title] = item.novel
    order = {title: i for i, title in enumerate(TITLES)}
    known = {title: order.get(f.title if f else title, len(order)) for title, f in facts.items()}
    return sorted(novels.values(), key=lambda novel: (known[novel.known_as], novel.title)), skipped


def _join(first: Novel, second: Novel, facts: NovelFacts | None) -> None:
    """Add a volume's chapters to the novel they belong to, in the order of their numbers where these follow on."""
    again = {c.number for c in first.chapters} & {c.number for c in second.chapters} - {None}
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
    a.warnings = [w for w in a.warnings + b.warnings if w.startswith(("shares", "holds"))]
    describe(first, facts)
    if again:
        a.warnings.append(
            f"joined as volumes of 《{first.title}》, though both count chapter {min(again)}: two novels?"
        )


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
    vocabulary = tokenizer.get_vocab()
    unknown = Counter({c: n for c, n in Counter(text).items() if c not in vocabulary})
    return Coverage(len(text), sum(unknown.values()), unknown.most_common(commonest))
