"""A corpus on disk, and the batches drawn from it.

`prepare` writes one folder: the tokenizer, `train.bin` and `heldout.bin` (uint16 token ids, chapter after chapter,
novel after novel, no control tokens inside) and `manifest.json` (which tokens are which novel's and chapter's, with a
hash). The same corpus gives the same bytes.

A *segment* is a run of neighbouring chapters of one novel in one split. A *window* is a control token and the tokens
after it, cut from one segment, so that it never straddles two novels:

    [control] t₀ t₁ … t_{L-1}      inputs  = window[:-1]   (L,)
                                   targets = window[1:]    (L,)  padding is IGNORE

Every epoch tiles each segment anew from a random offset, so that every token is a target once an epoch, and shuffles
the windows. All of it is a function of (seed, step) alone: that is what makes a resume exact.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from jinyong_gpt2.files import read_json, write_whole
from jinyong_gpt2.tokenizer import TableEncoder, build_tokenizer, control_id, novel_titles, save_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from jinyong_gpt2.corpus import Corpus

FORMAT = 2
GENERIC_ID = 0  # the generic control token is first in every vocabulary
IGNORE = -100  # the target that torch's cross_entropy leaves out
Split = Literal["train", "heldout"]


@dataclass(frozen=True)
class Segment:
    """Tokens `start` to `stop` of a split's file: neighbouring chapters of one novel."""

    novel: str
    chapters: tuple[str, ...]
    start: int
    stop: int
    control_id: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class PreparedCorpus:
    """What `prepare` wrote. `train` and `heldout` are (T,) uint16, memory-mapped."""

    folder: Path
    tokenizer: PreTrainedTokenizerFast
    train: np.ndarray
    heldout: np.ndarray
    manifest: dict

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> PreparedCorpus:
        """Raises FileNotFoundError where there is no prepared corpus, ValueError where its files do not fit."""
        from transformers import AutoTokenizer

        folder = Path(folder)
        if not (folder / "manifest.json").is_file():
            raise FileNotFoundError(
                f"no prepared corpus in {folder}: make one with python scripts/prepare_corpus.py NOVELS --out {folder}"
            )
        manifest = read_json(folder / "manifest.json", "prepare the corpus again")
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise ValueError(f"{folder} was prepared by another version: run scripts/prepare_corpus.py again")
        try:
            sizes = {split: int(manifest["tokens"][split]) for split in ("train", "heldout")}
            titles = [novel["title"] for novel in manifest["novels"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{folder / 'manifest.json'} is damaged, prepare the corpus again: {error!r}") from None
        if not titles:
            raise ValueError(f"{folder / 'manifest.json'} names no novel: prepare the corpus again")
        splits = {split: _memmap(folder / f"{split}.bin", size) for split, size in sizes.items()}
        return cls(folder, AutoTokenizer.from_pretrained(folder), splits["train"], splits["heldout"], manifest)

    @property
    def hash(self) -> str:
        """SHA-256 of the training and held-out tokens."""
        return self.manifest["hash"]

    def tokens(self, split: Split) -> np.ndarray:
        """(T,) uint16"""
        return self.train if split == "train" else self.heldout

    def segments(self, split: Split, by_chapter: bool = False) -> list[Segment]:
        """The segments of a split in the order of its file; with `by_chapter` one for each chapter.

        A novel that the tokenizer has no control token for (it is another corpus's) goes under the generic one.
        """
        segments: list[Segment] = []
        known = set(novel_titles(self.tokenizer))
        for novel in self.manifest["novels"]:
            control = control_id(self.tokenizer, novel["title"] if novel["title"] in known else None)
            previous = None
            for place, chapter in enumerate(novel["chapters"]):
                if chapter["split"] != split:
                    continue
                segment = Segment(novel["title"], (chapter["title"],), chapter["start"], chapter["stop"], control)
                if previous == place - 1 and not by_chapter:
                    last = segments.pop()
                    segment = Segment(last.novel, last.chapters + segment.chapters, last.start, segment.stop, control)
                segments.append(segment)
                previous = place
        return [segment for segment in segments if len(segment)]

    def place(self, split: Split, position: int) -> str:
        """Which novel and chapter a token position is in, for messages."""
        for segment in self.segments(split, by_chapter=True):
            if segment.start <= position < segment.stop:
                return f"《{segment.novel}》{segment.chapters[0]}, token {position - segment.start} of {len(segment)}"
        raise ValueError(f"position {position} is outside the {split} split")


def _memmap(path: Path, tokens: int) -> np.ndarray:
    if path.stat().st_size != 2 * tokens:
        raise ValueError(f"{path} does not hold the {tokens:,} tokens its manifest names: prepare the corpus again")
    return np.memmap(path, dtype=np.uint16, mode="r") if tokens else np.zeros(0, dtype=np.uint16)


def prepare(
    corpus: Corpus,
    out: str | os.PathLike[str],
    min_count: int = 5,
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> PreparedCorpus:
    """Write a corpus as a prepared folder and open it.

    A new tokenizer is built from the training chapters (characters seen `min_count` times or more have their own
    token), unless `tokenizer` is given. Nothing half-written is ever left under its final name, and the manifest, which
    makes the folder valid, comes last. Raises ValueError for a corpus without training text.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    train_texts = [c.full_text for novel in corpus.novels for c in novel.chapters if not c.heldout]
    if not any(train_texts):
        raise ValueError("the corpus holds no training text: give it novels as .txt files")
    if tokenizer is None:
        titles = [novel.title for novel in corpus.novels]
        tokenizer = build_tokenizer(train_texts, titles, min_count, corpus.script)

    encode = TableEncoder(tokenizer)
    digest, positions, novels = hashlib.sha256(), {"train": 0, "heldout": 0}, []
    parts = {split: out / f"{split}.bin.part" for split in positions}
    with ExitStack() as stack:
        for part in parts.values():
            stack.callback(part.unlink, missing_ok=True)  # of a full disk, say
        files = {split: stack.enter_context(open(part, "wb")) for split, part in parts.items()}
        for novel in corpus.novels:
            chapters = []
            for chapter in novel.chapters:
                split = "heldout" if chapter.heldout else "train"
                ids = encode(chapter.full_text)
                files[split].write(ids.tobytes())
                digest.update(split.encode() + ids.tobytes())
                start, positions[split] = positions[split], positions[split] + len(ids)
                chapters.append({"title": chapter.title, "split": split, "start": start, "stop": positions[split]})
            novels.append({"title": novel.title, "chapters": chapters})
        for file in files.values():
            file.close()
        (out / "manifest.json").unlink(missing_ok=True)  # an earlier preparation is valid to this moment
        for split, part in parts.items():
            os.replace(part, out / f"{split}.bin")
    save_tokenizer(tokenizer, out)
    manifest = {
        "format": FORMAT,
        "hash": digest.hexdigest(),
        "script": corpus.script,
        "heldout_share": corpus.heldout_share,
        "vocabulary": len(tokenizer),
        "tokens": positions,
        "novels": novels,
    }
    write_whole(out / "manifest.json", json.dumps(manifest, ensure_ascii=False, indent=1) + "\n")
    return PreparedCorpus.open(out)


@dataclass(frozen=True)
class Batch:
    """Some windows: `inputs` and `targets` (B, L) int64, `starts` (B,) their places in the split's file."""

    inputs: np.ndarray
    targets: np.ndarray
    starts: np.ndarray


def _tile(segment: Segment, length: int, first: int) -> np.ndarray:
    """(windows, 3) int64 start, stop, control id: cuts after `first` tokens and then every `length`."""
    cuts = [0, *range(first, len(segment), length), len(segment)]
    rows = [(segment.start + a, segment.start + b, segment.control_id) for a, b in pairwise(cuts) if a < b]
    return np.array(rows, dtype=np.int64)


class Windows:
    """The windows of a split: in order for measuring, or numbered without end for training, newly cut every epoch.

    `length` is L, the context length in tokens. Raises ValueError where the split is empty or `length` below 2.
    """

    def __init__(self, data: PreparedCorpus, split: Split, length: int) -> None:
        if length < 2:
            raise ValueError(f"context_length must be at least 2, got {length}")
        self.length, self._tokens, self._segments = length, data.tokens(split), data.segments(split)
        if not self._segments:
            raise ValueError(f"{data.folder} has no {split} text")

    def in_order(self) -> np.ndarray:
        """(windows, 3) int64 start, stop, control id: every token of the split once, in the order of the file."""
        return np.concatenate([_tile(segment, self.length, self.length) for segment in self._segments])

    def batch(self, rows: np.ndarray) -> Batch:
        """The windows that `rows` (B, 3) name; short ones are padded at the end, with IGNORE as target."""
        inputs = np.zeros((len(rows), self.length), dtype=np.int64)
        targets = np.full((len(rows), self.length), IGNORE, dtype=np.int64)
        for i, (start, stop, control) in enumerate(rows):
            inputs[i, 0] = control
            inputs[i, 1 : stop - start] = self._tokens[start : stop - 1]
            targets[i, : stop - start] = self._tokens[start:stop]
        return Batch(inputs, targets, rows[:, 0])

    def epoch(self, epoch: int, seed: int, generic_share: float) -> np.ndarray:
        """(windows, 3) int64: one epoch, every segment cut at an offset of its own, shuffled.

        A share `generic_share` of the windows carries the generic control token, so that a model can be asked with a
        novel's title or without.
        """
        random = np.random.default_rng([seed, epoch])
        firsts = random.integers(1, self.length + 1, size=len(self._segments))
        tiles = [_tile(segment, self.length, first) for segment, first in zip(self._segments, firsts, strict=True)]
        rows = random.permutation(np.concatenate(tiles))
        rows[random.random(len(rows)) < generic_share, 2] = GENERIC_ID
        return rows


class TrainingOrder:
    """Which windows an optimizer step sees: a function of (seed, step), so that any process can resume at any step.

    >>> order = TrainingOrder(windows, batch_size=16, seed=0)
    >>> rows = order.step(100)  # (16, 3): the same in every run, whatever came before
    """

    def __init__(self, windows: Windows, batch_size: int, seed: int, generic_share: float = 0.25) -> None:
        self._windows, self._batch_size, self._seed, self._generic_share = windows, batch_size, seed, generic_share
        self._epochs: dict[int, np.ndarray] = {}
        self._ends: list[int] = []  # windows in all epochs up to and with this one

    def step(self, step: int) -> np.ndarray:
        """(batch_size, 3) int64 rows for `Windows.batch`: numbers step × batch_size and on, across epochs."""
        first, last = step * self._batch_size, (step + 1) * self._batch_size
        while not self._ends or self._ends[-1] < last:
            self._ends.append(len(self._rows(len(self._ends))) + (self._ends[-1] if self._ends else 0))
        pieces = []
        for epoch, end in enumerate(self._ends):
            begin = self._ends[epoch - 1] if epoch else 0
            if end <= first:
                self._epochs.pop(epoch, None)  # steps come in order: done with it
            elif begin < last:
                pieces.append(self._rows(epoch)[max(first - begin, 0) : last - begin])
        return np.concatenate(pieces)

    def _rows(self, epoch: int) -> np.ndarray:
        if epoch not in self._epochs:
            self._epochs[epoch] = self._windows.epoch(epoch, self._seed, self._generic_share)
        return self._epochs[epoch]
