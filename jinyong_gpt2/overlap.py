"""Which spans of a text also stand in another: hashes of all its 24-character shingles, compared with numpy.

The hash of a shingle is a polynomial in a fixed odd number modulo 2⁶⁴ (Rabin and Karp), taken from prefix sums; white
space and punctuation are left out, so that two editions of a text still agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

SHINGLE = 24  # characters
SKETCH = 64  # a sketch keeps one hash of so many

_BASE = 0x9E3779B97F4A7C15
_MIX = np.uint64(0xBF58476D1CE4E5B9)


@dataclass(frozen=True)
class Shingles:
    """Hashes of shingles, sorted and without repeats; (N,) uint64."""

    hashes: np.ndarray

    def __len__(self) -> int:
        return len(self.hashes)

    @classmethod
    def of_all(cls, texts: Iterable[str]) -> Shingles:
        parts = [shingle_hashes(text) for text in texts]
        return cls(np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.uint64))

    def found_in(self, texts: Iterable[str]) -> Shingles:
        """Those of these shingles that stand in any of `texts`."""
        # Most shingles are told apart by 24 bits of their hash; only the rest is searched for.
        table = np.zeros(1 << 24, dtype=bool)
        table[self.hashes & np.uint64(0xFFFFFF)] = True
        hits = []
        for text in texts:
            hashes = shingle_hashes(text)
            likely = hashes[table[hashes & np.uint64(0xFFFFFF)]]
            hits.append(likely[_are_in(likely, self.hashes)])
        return Shingles(np.unique(np.concatenate(hits)) if hits else np.zeros(0, np.uint64))


def is_chinese(points: np.ndarray) -> np.ndarray:
    """(N,) bool: which code points are Chinese characters."""
    return (points >= 0x3400) & ((points < 0xE000) | (points >= 0x20000))


def code_points(text: str) -> np.ndarray:
    """(N,) uint32"""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


def shingle_hashes(text: str) -> np.ndarray:
    """(N,) uint64, one for each run of `SHINGLE` Chinese characters, in order; empty for a shorter text."""
    points = code_points(text)
    points = points[is_chinese(points)].astype(np.uint64)
    if len(points) < SHINGLE:
        return np.zeros(0, np.uint64)
    powers = _powers(SHINGLE)
    count = len(points) - SHINGLE + 1
    hashes = np.zeros(count, np.uint64)
    with np.errstate(over="ignore"):
        for i, power in enumerate(powers):
            hashes += points[i : i + count] * power
        # The sum's low bits are poor; mix the high ones in.
        hashes ^= hashes >> np.uint64(31)
        hashes *= _MIX
        hashes ^= hashes >> np.uint64(29)
    return hashes


def _powers(count: int) -> list[np.uint64]:
    return [np.uint64(pow(_BASE, i + 1, 1 << 64)) for i in range(count)]


def sketch(text: str, every: int = SKETCH) -> Shingles:
    """One of `every` shingles of a text, chosen by their hashes, so that two texts keep the same ones."""
    hashes = shingle_hashes(text)
    if every > 1:
        hashes = hashes[hashes % np.uint64(every) == 0]
    return Shingles(np.unique(hashes))


def share_in(part: Shingles, whole: Shingles) -> float:
    """Which share of `part`'s shingles stands in `whole`; 0 where it has none."""
    return float(_are_in(part.hashes, whole.hashes).mean()) if len(part) else 0.0


def copied_shares(parts: Sequence[str], whole: Shingles) -> list[float]:
    """Which share of each part's Chinese characters lies in shingles of `whole`; 0 where a part has none.

    Shingles run on from part to part, so that short ones within a copied run are found, too.
    """
    if not parts:
        return []
    chinese = [is_chinese(code_points(part)) for part in parts]
    ends = np.cumsum([part.sum() for part in chinese])  # of each part, in Chinese characters
    starts = np.flatnonzero(_are_in(shingle_hashes("".join(parts)), whole.hashes))
    edges = np.zeros(ends[-1] + 1, np.int64)
    np.add.at(edges, starts, 1)
    np.add.at(edges, starts + SHINGLE, -1)
    inside = edges.cumsum() > 0
    return [float(piece.mean()) if len(piece) else 0.0 for piece in np.split(inside[:-1], ends[:-1])]


def _are_in(hashes: np.ndarray, sorted_hashes: np.ndarray) -> np.ndarray:
    """(N,) bool"""
    if not len(sorted_hashes):
        return np.zeros(len(hashes), bool)
    places = np.minimum(np.searchsorted(sorted_hashes, hashes), len(sorted_hashes) - 1)
    return sorted_hashes[places] == hashes
