"""Interpolated modified Kneser–Ney language models over token ids, in numpy.

A character n-gram model is the yardstick every neural model has to beat. It is trained here on millions of characters
in under a minute, because all n-grams of one length are sorted at once instead of being put into a dictionary:

    model = KneserNey.train([chapter_ids, ...], vocab_size=len(tokenizer), order=5)
    model.log2_probs(heldout_ids)          # (T,) log2 P(token | the tokens before it)

Kneser & Ney (1995); the interpolated form with three discounts is that of Chen & Goodman (1998), section 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

TOKEN_BITS = np.uint64(20)  # an n-gram is (number of its first n-1 tokens, last token) in one 64-bit integer
FALLBACK_DISCOUNTS = np.array([0.0, 0.5, 1.0, 1.5])  # where a text is too small to estimate them


@dataclass(frozen=True)
class Level:
    """All n-grams of one length, numbered by their place in the sorted `keys`."""

    keys: np.ndarray  # (N,) uint64, sorted: context number << 20 | last token
    probs: np.ndarray  # (N,) float32: the discounted share of the context's count
    backoffs: np.ndarray  # (number of contexts,) float32: the weight left to the shorter n-grams


class KneserNey:
    """P(w | h) = max(c(hw) − D, 0) / c(h) + γ(h) P(w | h without its first token), down to the uniform 1 / V.

    The longest n-grams use their counts; shorter ones the number of different tokens seen before them. Every text
    begins after `order - 1` copies of an unseen start mark, so its first tokens are predicted too. All V ids of the
    vocabulary, the fallback bytes among them, share the probability: over V it sums to one after any history.
    """

    def __init__(self, levels: Sequence[Level], vocab_size: int):
        self.levels = list(levels)
        self.vocab_size = vocab_size

    @property
    def order(self) -> int:
        return len(self.levels)

    @classmethod
    def train(cls, texts: Iterable[np.ndarray], vocab_size: int, order: int = 5, progress: bool = False) -> KneserNey:
        """Count the texts (arrays of token ids, n-grams never reach across two of them) and smooth the counts.

        `order=1` is the unigram model. 27 million tokens at order 5 take about a minute and 3 GB.
        Raises ValueError without any token, or when an id does not fit the vocabulary.
        """
        if order < 1:
            raise ValueError(f"order must be at least 1, not {order}")
        if vocab_size >= 1 << int(TOKEN_BITS):
            raise ValueError(f"a vocabulary of {vocab_size} is too large: use one below {1 << int(TOKEN_BITS):,}")
        stream, real = _padded(texts, vocab_size, order)
        bar = tqdm(total=order, desc=f"Kneser–Ney {order}-gram", unit="order", disable=not progress)

        levels: list[Level] = []
        # ids[i] is the number of the n-gram that starts at i, places[g] where n-gram g stands; first the empty one.
        n_contexts, keys, ids = 1, np.zeros(1, np.uint64), np.zeros(len(stream) + 1, np.int32)
        for n in range(1, order + 1):
            packed = (ids[:-1].astype(np.uint64) << TOKEN_BITS) | stream[n - 1 :]
            longer_keys, longer_ids, places = _number(packed)
            counts = np.bincount(longer_ids[real[n - 1 :]], minlength=len(longer_keys))
            if n > 1:  # a shorter n-gram counts the different tokens that stand before it
                endings = ids[1:][places[counts > 0]]
                levels.append(_smooth(keys, np.bincount(endings, minlength=len(keys)), n_contexts))
            if n == order:
                levels.append(_smooth(longer_keys, counts, len(keys)))
            n_contexts, keys, ids = len(keys), longer_keys, longer_ids
            bar.update()
        bar.close()
        return cls(levels, vocab_size)

    def log2_probs(self, text: np.ndarray) -> np.ndarray:
        """(T,) log2 P of every token of one text given all before it in that text."""
        return np.log2(self.probs(text))

    def probs(self, text: np.ndarray) -> np.ndarray:
        """(T,) P of every token of one text given all before it in that text."""
        stream, _ = _padded([text], self.vocab_size, self.order)
        return self._interpolate(np.lib.stride_tricks.sliding_window_view(stream, self.order))

    def distribution(self, history: Sequence[int]) -> np.ndarray:
        """(V,) P of every token after `history`, which is the beginning of a text."""
        stream, _ = _padded([np.asarray(history, np.int64)], self.vocab_size, self.order)
        grams = np.empty((self.vocab_size, self.order), np.uint64)  # (V, n)
        grams[:, :-1] = stream[len(stream) - self.order + 1 :]
        grams[:, -1] = np.arange(self.vocab_size)
        return self._interpolate(grams)

    def _interpolate(self, grams: np.ndarray) -> np.ndarray:
        """(T,) P of the last token of every row of `grams` (T, order) given the others."""
        probs = np.full(len(grams), 1.0 / self.vocab_size)  # (T,)
        for n in range(1, self.order + 1):
            contexts = self._find(grams[:, self.order - n : -1])  # (T,) -1 where never seen
            known = contexts >= 0
            level = self.levels[n - 1]
            probs[known] *= level.backoffs[contexts[known]]
            found = _lookup(level.keys, contexts, grams[:, -1])
            seen = found >= 0
            probs[seen] += level.probs[found[seen]]
        return probs

    def _find(self, grams: np.ndarray) -> np.ndarray:
        """(T,) the number of every row of `grams` (T, n) among the n-grams, -1 for one that was never seen."""
        ids = np.zeros(len(grams), np.int64)
        for level, tokens in zip(self.levels, grams.T, strict=False):
            ids = _lookup(level.keys, ids, tokens)
        return ids


def _padded(texts: Iterable[np.ndarray], vocab_size: int, order: int) -> tuple[np.ndarray, np.ndarray]:
    """The texts in one array (uint64), each after `order - 1` start marks, and which places are real tokens."""
    start = np.full(order - 1, vocab_size, np.uint64)  # the id after the last: it is never predicted
    parts = []
    for text in texts:
        text = np.asarray(text)
        if len(text) and not 0 <= int(text.min()) <= int(text.max()) < vocab_size:
            raise ValueError(f"token ids must lie between 0 and {vocab_size - 1}: {text.min()} to {text.max()} found")
        parts += [start, text.astype(np.uint64)]
    stream = np.concatenate(parts) if parts else start
    real = stream != vocab_size
    if not parts:
        raise ValueError("there is no text to count: give at least one array of token ids")
    return stream, real


def _number(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorted distinct keys, the number of every key among them (int32), and a place where each stands."""
    places = np.argsort(packed)
    ordered = packed[places]
    new = np.empty(len(ordered), bool)
    new[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    numbers = np.empty(len(packed), np.int32)
    numbers[places] = np.cumsum(new, dtype=np.int32) - 1
    return ordered[new], numbers, places[new]


def _lookup(keys: np.ndarray, contexts: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """(T,) places in `keys` of (context, token); -1 where either is unknown."""
    wanted = (np.maximum(contexts, 0).astype(np.uint64) << TOKEN_BITS) | tokens.astype(np.uint64)
    places = np.searchsorted(keys, wanted)
    places[places == len(keys)] = 0
    return np.where((contexts >= 0) & (keys[places] == wanted), places, -1)


def _smooth(keys: np.ndarray, counts: np.ndarray, n_contexts: int) -> Level:
    """Discount the counts and give what was taken to the shorter n-grams (Chen & Goodman 1998, section 3)."""
    contexts = (keys >> TOKEN_BITS).astype(np.int64)
    taken = _discounts(counts)[np.minimum(counts, 3)]
    totals = np.bincount(contexts, counts, minlength=n_contexts)
    freed = np.bincount(contexts, taken, minlength=n_contexts)
    seen = totals > 0
    backoffs = np.ones(n_contexts, np.float32)  # a context that nothing follows leaves everything to shorter ones
    backoffs[seen] = freed[seen] / totals[seen]
    probs = (counts - taken) / np.where(seen, totals, 1.0)[contexts]
    return Level(keys, probs.astype(np.float32), backoffs)


def _discounts(counts: np.ndarray) -> np.ndarray:
    """(4,) what is taken from counts of 0, 1, 2, and 3 or more (Chen & Goodman 1998, equation 17)."""
    n1, n2, n3, n4 = (int(np.count_nonzero(counts == c)) for c in (1, 2, 3, 4))
    if not (n1 and n2 and n3 and n4):
        return FALLBACK_DISCOUNTS
    y = n1 / (n1 + 2 * n2)
    estimated = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    sensible = np.all((estimated >= 0) & (estimated <= np.arange(4)))
    return estimated if sensible else FALLBACK_DISCOUNTS
