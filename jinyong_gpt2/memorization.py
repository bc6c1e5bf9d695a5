"""What is copied: which spans of a passage stand word for word in the training text, and where.

    index = CopyIndex(corpus)                      # or CopyIndex(corpus, folder="out/copies"): built once, then opened
    index.spans(passage, min_chars=15)             # every maximal copied span, with novel, chapter and place
    index.longest(passage)

Common sayings stand in every book: judge a model's copied share against `copied_share` of held-out human text.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jinyong_gpt2.dataset import PreparedCorpus
from jinyong_gpt2.files import read_json, write_whole
from jinyong_gpt2.overlap import code_points

if TYPE_CHECKING:
    from jinyong_gpt2.corpus import Corpus
    from jinyong_gpt2.passage import Passage

CODE = np.dtype(">u2")  # big-endian, so that comparing bytes compares codes
CHAPTER_END = 0  # a code that no passage has: no span reaches over a chapter's end
UNKNOWN = 0xFFFF  # the code of a character that the corpus does not have
FORMAT = 1


@dataclass(frozen=True)
class Span:
    """Characters `start` to `stop` of a text, which stand word for word in the corpus."""

    start: int
    stop: int
    text: str
    novel: str
    chapter: str
    offset: int  # in characters from the beginning of the chapter (its title comes first), of the first place found
    places: int  # in how many places of the corpus it stands

    def __len__(self) -> int:
        return self.stop - self.start


class CopyIndex:
    """A suffix array over the training chapters of a corpus (Manber & Myers 1993): all its endings in sorted order.

    `corpus` is a `Corpus` or a `PreparedCorpus`; its held-out chapters are not indexed. With `folder` the index is
    kept there and opened memory-mapped the next time, as long as the text is the same. Takes about 10 bytes a character
    on disk and a second for five million characters. Raises ValueError where there is no training text.
    """

    def __init__(self, corpus: Corpus | PreparedCorpus, folder: str | os.PathLike[str] | None = None):
        chapters = _training_texts(corpus)
        if not any(text for _, _, text in chapters):
            raise ValueError("there is no training text to index: give a corpus with chapters that are not held out")
        fingerprint = _fingerprint(chapters)
        if folder is not None and _is_index_of(Path(folder), fingerprint):
            with suppress(OSError, ValueError, EOFError):  # damaged: it is made anew
                self._open(Path(folder))
                return
        self._build(chapters)
        if folder is not None:
            self._save(Path(folder), fingerprint)
            self._open(Path(folder))

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> CopyIndex:
        """An index that was kept in `folder`, without its corpus. Raises FileNotFoundError where there is none."""
        if not (Path(folder) / "index.json").is_file():
            raise FileNotFoundError(f"no index in {folder}: make one with CopyIndex(corpus, folder={str(folder)!r})")
        index = cls.__new__(cls)
        index._open(Path(folder))
        return index

    def __len__(self) -> int:
        """Characters in the index."""
        return len(self._suffixes) - len(self._chapters)

    # ---- asking

    def spans(self, passage: str | Passage, min_chars: int = 15) -> list[Span]:
        """Every maximal copied span of at least `min_chars` characters, in order; they may overlap.

        A span is maximal when neither the character before it nor the one after it could join it. Of a `Passage` what
        was written is looked at, not the prompt; `start` and `stop` are places in its whole `text`.
        Raises ValueError for `min_chars` below 1.
        """
        if min_chars < 1:
            raise ValueError(f"min_chars must be at least 1, not {min_chars}")
        text, shift = _written(passage)
        codes = self._encode(text)
        found, reached = [], 0
        for start in range(len(text) - min_chars + 1):
            length, place = self._longest_match(codes[2 * start :])
            if length >= min_chars and start + length > reached:
                reached = start + length
                found.append(self._span(text, codes, start, reached, place, shift))
        return found

    def longest(self, passage: str | Passage) -> Span | None:
        """The longest copied span, the first of several; None where not one character stands in the corpus."""
        return max(self.spans(passage, min_chars=1), key=len, default=None)

    def copied_share(self, texts: str | Passage | Iterable[str | Passage], min_chars: int = 15) -> float:
        """The share of the characters that stand in copied spans of at least `min_chars`; nan without characters."""
        copied = total = 0
        for passage in [texts] if isinstance(texts, str) or hasattr(texts, "continuation") else texts:
            inside = np.zeros(len(_written(passage)[0]) + _written(passage)[1], bool)
            for span in self.spans(passage, min_chars):
                inside[span.start : span.stop] = True
            copied, total = copied + int(inside.sum()), total + len(_written(passage)[0])
        return copied / total if total else float("nan")

    def _longest_match(self, codes: bytes) -> tuple[int, int]:
        """(length in characters, place in the suffix array) of the longest beginning of `codes` in the corpus."""
        place = self._insertion(codes)
        best = (0, place)
        for neighbour in (place - 1, place):  # whatever shares the longest beginning is next to it in sorted order
            if 0 <= neighbour < len(self._suffixes):
                best = max(best, (self._common(codes, neighbour), neighbour))
        return best

    def _insertion(self, codes: bytes) -> int:
        """How many suffixes are smaller than `codes`."""
        text, suffixes, length = self._text, self._suffixes, len(codes)
        low, high = 0, len(suffixes)
        while low < high:
            middle = (low + high) // 2
            at = 2 * int(suffixes[middle])
            if text[at : at + length] < codes:
                low = middle + 1
            else:
                high = middle
        return low

    def _common(self, codes: bytes, place: int) -> int:
        """How many first characters `codes` shares with the suffix at `place`."""
        at = 2 * int(self._suffixes[place])
        ours = np.frombuffer(codes, CODE)
        theirs = np.frombuffer(self._text[at : at + len(codes)], CODE)
        different = np.flatnonzero(ours[: len(theirs)] != theirs)
        return int(different[0]) if len(different) else len(theirs)

    def _span(self, text: str, codes: bytes, start: int, stop: int, place: int, shift: int) -> Span:
        first = self._insertion(codes[2 * start : 2 * stop])
        after = self._insertion(codes[2 * start : 2 * stop] + b"\xff\xff")
        position = int(self._suffixes[first:after].min())
        chapter = int(np.searchsorted(self._starts, position, side="right")) - 1
        novel, title = self._chapters[chapter]
        offset = position - int(self._starts[chapter])
        return Span(start + shift, stop + shift, text[start:stop], novel, title, offset, after - first)

    def _encode(self, text: str) -> bytes:
        points = code_points(text)
        places = np.searchsorted(self._alphabet, points)
        places[places == len(self._alphabet)] = 0
        known = self._alphabet[places] == points
        return np.where(known, places + 1, UNKNOWN).astype(CODE).tobytes()

    # ---- building and keeping

    def _build(self, chapters: list[tuple[str, str, str]]) -> None:
        from pydivsufsort import divsufsort

        texts = [code_points(text) for _, _, text in chapters]
        seen = np.zeros(0x110000, bool)
        for points in texts:
            seen[points] = True
        self._alphabet = np.flatnonzero(seen).astype(np.uint32)
        if len(self._alphabet) >= UNKNOWN:
            raise ValueError(f"{len(self._alphabet):,} different characters are more than this index can tell apart")
        code_of = np.zeros(0x110000, CODE)
        code_of[self._alphabet] = np.arange(1, len(self._alphabet) + 1)
        codes = np.zeros(sum(map(len, texts)) + len(texts), CODE)
        starts = np.cumsum([0, *(len(points) + 1 for points in texts)])
        for start, points in zip(starts, texts, strict=False):
            codes[start : start + len(points)] = code_of[points]
        of_bytes = divsufsort(codes.view(np.uint8))
        self._suffixes = of_bytes[(of_bytes & 1) == 0] >> 1  # those that begin with a character's first byte
        self._text = codes.tobytes()
        self._starts = starts[:-1]
        self._chapters = [(novel, title) for novel, title, _ in chapters]

    def _save(self, folder: Path, fingerprint: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "index.json").unlink(missing_ok=True)  # it comes last, and makes the folder valid
        arrays = {"suffixes": self._suffixes, "starts": self._starts, "alphabet": self._alphabet}
        for name, array in arrays.items():
            temporary = folder / f".{name}.{os.getpid()}.npy"
            np.save(temporary, array)
            os.replace(temporary, folder / f"{name}.npy")
        write_whole(folder / "text.bin", self._text)
        facts = {"format": FORMAT, "fingerprint": fingerprint, "chapters": self._chapters}
        write_whole(folder / "index.json", json.dumps(facts, ensure_ascii=False))

    def _open(self, folder: Path) -> None:
        facts = _facts(folder)
        self._chapters = [(novel, chapter) for novel, chapter in facts["chapters"]]
        # A plain view of the mapped array: numpy's own memmap class makes every look-up several times slower.
        self._suffixes = np.asarray(np.load(folder / "suffixes.npy", mmap_mode="r"))
        with open(folder / "text.bin", "rb") as file:
            self._text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._starts, self._alphabet = np.load(folder / "starts.npy"), np.load(folder / "alphabet.npy")
        characters = len(self._text) // CODE.itemsize
        if len(self._suffixes) != characters or len(self._starts) != len(self._chapters):
            raise ValueError(f"the index in {folder} is damaged: delete the folder and make it anew")


def _training_texts(corpus: Corpus | PreparedCorpus) -> list[tuple[str, str, str]]:
    """(novel, chapter, text) of every chapter that is not held out."""
    if isinstance(corpus, PreparedCorpus):
        decode = corpus.tokenizer.decode
        segments = corpus.segments("train", by_chapter=True)
        return [(s.novel, s.chapters[0], decode(np.asarray(corpus.train[s.start : s.stop]))) for s in segments]
    chapters = [(novel.title, chapter) for novel in corpus.novels for chapter in novel.chapters]
    return [(novel, chapter.title, chapter.full_text) for novel, chapter in chapters if not chapter.heldout]


def _fingerprint(chapters: Sequence[tuple[str, str, str]]) -> str:
    digest = hashlib.sha256()
    for chapter in chapters:
        digest.update("\0".join(chapter).encode("utf-8", "surrogatepass") + b"\1")
    return digest.hexdigest()


def _facts(folder: Path) -> dict:
    """What the index in `folder` says of itself. Raises ValueError where it is none, FileNotFoundError without any."""
    facts = read_json(folder / "index.json", "delete the folder, make it anew")
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ValueError(f"the index in {folder} is damaged or of another version: delete the folder, make it anew")
    return facts


def _is_index_of(folder: Path, fingerprint: str) -> bool:
    try:
        return _facts(folder).get("fingerprint") == fingerprint
    except (OSError, ValueError):
        return False


def _written(passage: str | Passage) -> tuple[str, int]:
    """What to look at, and where in the whole text it begins."""
    return (passage, 0) if isinstance(passage, str) else (passage.continuation, len(passage.prompt))
