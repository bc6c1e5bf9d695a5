"""Repetition and variety of written passages. Every figure means something only beside that of human text as long.

    variety(continuations)      # all of it for one set of passages, as a dictionary
    distinct(continuations, 2)  # one figure

Passages are strings; n-grams are of characters. Shorter texts look more varied, so compare equal lengths.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np


def variety(passages: Sequence[str]) -> dict[str, float]:
    """distinct-1 … 4, repeated-4, loop rate and self-BLEU of a set of passages."""
    figures = {f"distinct_{n}": distinct(passages, n) for n in (1, 2, 3, 4)}
    return figures | {
        "repeated_4": mean([repeated(passage, 4) for passage in passages]),
        "loop_rate": mean([loops(passage) for passage in passages]),
        "self_bleu": self_bleu(passages),
    }


def ngrams(text: str, n: int) -> list[str]:
    """All runs of n characters, in order."""
    return [text[i : i + n] for i in range(len(text) - n + 1)]


def distinct(passages: Sequence[str], n: int) -> float:
    """Different n-grams over all n-grams of the set (Li et al. 2016, section 5.2); nan without any."""
    grams = [gram for passage in passages for gram in ngrams(passage, n)]
    return len(set(grams)) / len(grams) if grams else math.nan


def repeated(passage: str, n: int) -> float:
    """The share of n-grams that stood in the same passage before (Welleck et al. 2020, section 4); nan without any."""
    return 1 - distinct([passage], n)


def loops(passage: str, times: int = 3, longest: int = 60) -> bool:
    """Whether the passage ends in a loop: one phrase of up to `longest` characters, `times` times in a row.

    Holtzman et al. 2020, section 4.3, count generations that end so. A row of one single character is a loop from
    nine on: 「哈哈哈」 and 「……」 are not.
    """
    for period in range(1, min(longest, len(passage) // times) + 1):
        rounds = max(times, 9 if period == 1 else 5 if period == 2 else times)
        tail = passage[-period * rounds :]
        if len(tail) == period * rounds and tail == tail[:period] * rounds and len(set(tail)) >= min(period, 2):
            return True
    return False


def self_bleu(passages: Sequence[str], max_n: int = 4) -> float:
    """Mean BLEU of every passage against all the others (Zhu et al. 2018, "Texygen"): 1 where all are the same.

    Characters are the words, n = 1 … `max_n` weigh alike, and a precision of nothing counts as half a match (so that
    short passages do not give zero). nan for fewer than two passages.
    """
    if len(passages) < 2:
        return math.nan
    counted = [[Counter(ngrams(passage, n)) for n in range(1, max_n + 1)] for passage in passages]
    return mean([_bleu(i, passages, counted) for i in range(len(passages))])


def _bleu(i: int, passages: Sequence[str], counted: list[list[Counter[str]]]) -> float:
    """BLEU of passage i against the rest (Papineni et al. 2002, section 2.3)."""
    logs = []
    for n, ours in enumerate(counted[i]):
        total = sum(ours.values())
        if not total:
            continue
        others = [counts[n] for j, counts in enumerate(counted) if j != i]
        matched = sum(min(count, max(other[gram] for other in others)) for gram, count in ours.items())
        logs.append(math.log(max(matched, 0.5) / total))
    if not logs:
        return math.nan
    length = len(passages[i])
    nearest = min((len(other) for j, other in enumerate(passages) if j != i), key=lambda other: abs(other - length))
    brevity = 1.0 if length >= nearest else math.exp(1 - nearest / length)
    return brevity * math.exp(sum(logs) / len(logs))


def mean(values: Sequence[float]) -> float:
    """Mean of the values that are numbers; nan without any."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
