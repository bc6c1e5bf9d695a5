"""Bits per character on held-out chapters: one yardstick for GPT-2, an LSTM, n-grams and a compressor.

    bits_per_char(model, tokenizer, text)                    # one number for one text
    pieces = held_out(PreparedCorpus.open("out/prepared"))   # every held-out chapter
    score = score_model("GPT-2", model, tokenizer, pieces)   # bits of each chapter
    score.bits_per_char, score.interval(), score.by_novel()

What is measured is the same for every model: the chapters' characters, all of them (title, punctuation and line breaks
too), each chapter by itself, from its first character on. The bits of a rare character are the sum over its byte
tokens. The control token before a chapter is given, not predicted, and neither its bits nor itself is counted.
A character's bits are −log₂ of its probability given all the characters before it that the model can see; since every
model here shares one unit of probability among all possible tokens, the sums are lengths of a code for the very same
text and can be compared.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from jinyong_gpt2.dataset import PreparedCorpus
from jinyong_gpt2.model import trained_positions
from jinyong_gpt2.ngrams import KneserNey
from jinyong_gpt2.tokenizer import control_id, encode, is_character_start, novel_titles

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Piece:
    """A chapter to be scored: its token ids under the prepared corpus' tokenizer, and its length in characters."""

    novel: str
    chapter: str
    control_id: int
    ids: np.ndarray  # (T,)
    characters: int


@dataclass(frozen=True)
class Score:
    """How many bits one model needs for each of some chapters."""

    name: str
    novels: tuple[str, ...]  # of each chapter
    bits: np.ndarray  # (chapters,)
    characters: np.ndarray  # (chapters,)
    facts: dict[str, Any] = field(default_factory=dict)  # parameters, context, whatever else should stand in a report

    @property
    def bits_per_char(self) -> float:
        """All bits over all characters; nan where there are none."""
        return _ratio(self.bits.sum(), self.characters.sum())

    def by_novel(self) -> dict[str, float]:
        """Bits per character of each novel."""
        novels = np.array(self.novels)
        chosen = {novel: novels == novel for novel in dict.fromkeys(self.novels)}
        return {novel: _ratio(self.bits[of].sum(), self.characters[of].sum()) for novel, of in chosen.items()}

    def interval(self, level: float = 0.95, draws: int = 2000, seed: int = 0) -> tuple[float, float]:
        """Confidence interval of `bits_per_char`: percentile bootstrap, chapters drawn with replacement.

        (nan, nan) for fewer than two chapters. Efron & Tibshirani 1993, chapter 13.
        """
        return _bootstrap(self.bits, self.characters, level, draws, seed)

    def difference(self, other: Score, level: float = 0.95, draws: int = 2000, seed: int = 0) -> tuple[float, ...]:
        """This model's bits per character minus the other's, and its confidence interval: (difference, low, high).

        The same chapters are drawn for both, so that what makes a chapter hard for everyone cancels out.
        Raises ValueError when the two were not scored on the same chapters.
        """
        if self.novels != other.novels or not np.array_equal(self.characters, other.characters):
            raise ValueError(f"{self.name} and {other.name} were scored on different chapters")
        bits = self.bits - other.bits
        return _ratio(bits.sum(), self.characters.sum()), *_bootstrap(bits, self.characters, level, draws, seed)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; not-a-number becomes None."""
        low, high = self.interval()
        values = {"bits_per_char": self.bits_per_char, "low": low, "high": high}
        plain = {name: None if math.isnan(value) else round(value, 4) for name, value in values.items()}
        novels = {novel: round(value, 4) for novel, value in self.by_novel().items()}
        counted = {"chapters": len(self.novels), "characters": int(self.characters.sum())}
        chapters = {
            "novels": list(self.novels),
            "bits": [round(float(bits), 2) for bits in self.bits],
            "characters": self.characters.tolist(),
        }
        facts = {"facts": self.facts, "by_novel": novels, "by_chapter": chapters}
        return {"model": self.name, **plain, **counted, **facts}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Score:
        """The score that `to_dict` gave `values` of, its bits rounded to hundredths."""
        chapters = values["by_chapter"]
        bits, characters = np.array(chapters["bits"], float), np.array(chapters["characters"])
        return cls(values["model"], tuple(chapters["novels"]), bits, characters, values["facts"])


def held_out(
    prepared: PreparedCorpus, split: str = "heldout", max_chars: int | None = None, seed: int = 0
) -> list[Piece]:
    """The chapters of a split; with `max_chars` whole ones, drawn with `seed`, until they hold that many characters.

    Raises ValueError where the split is empty.
    """
    tokens = prepared.tokens(split)
    starts = is_character_start(prepared.tokenizer)
    pieces = []
    for segment in prepared.segments(split, by_chapter=True):
        ids = np.asarray(tokens[segment.start : segment.stop])
        pieces.append(Piece(segment.novel, segment.chapters[0], segment.control_id, ids, int(starts[ids].sum())))
    if not pieces:
        raise ValueError(f"{prepared.folder} has no {split} chapters to measure on: prepare it with some held out")
    if max_chars is None:
        return pieces
    order = np.random.default_rng(seed).permutation(len(pieces))
    enough = np.searchsorted(np.cumsum([pieces[i].characters for i in order]), max_chars) + 1
    return [pieces[i] for i in sorted(order[:enough])]


# ---------------------------------------------------------------- neural models


def bits_per_char(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    text: str,
    novel: str | None = None,
    context_length: int | None = None,
    stride: int | None = None,
    batch_size: int = 16,
) -> float:
    """Bits per character of a model on one text, read in windows as `token_bits` says.

    `novel` chooses the control token it is read after, the generic one by default. Raises ValueError for an empty text.
    """
    if not text:
        raise ValueError("there is nothing to measure: the text is empty")
    ids = np.array(encode(tokenizer, text))
    (bits,) = token_bits(model, [(control_id(tokenizer, novel), ids)], context_length, stride, batch_size)
    return float(bits.sum()) / len(text)


def token_bits(
    model: torch.nn.Module,
    texts: Sequence[tuple[int, np.ndarray]],
    context_length: int | None = None,
    stride: int | None = None,
    batch_size: int = 16,
    progress: bool = False,
) -> list[np.ndarray]:
    """−log₂ P of every token of each text, a list of (T,) arrays; a text is (control id, token ids).

    A window is the control token and `context_length - 1` tokens (by default the model's longest). Windows move on by
    `stride` tokens (by default half the context) and each scores only what the one before it did not: a token is
    predicted from at least `context_length - stride` tokens and at most `context_length`, near the beginning from all
    there are. A smaller stride gives every token more context and so slightly fewer bits, at a greater cost; the batch
    size changes nothing but rounding. The model is put in evaluation mode and left in the mode it was in.
    """
    import torch

    context_length, stride = window_sizes(model, context_length, stride)
    windows = [
        (text, start, stop, scored)
        for text, (_, ids) in enumerate(texts)
        for start, stop, scored in scoring_windows(len(ids), context_length, stride)
    ]
    windows.sort(key=lambda window: (window[2] - window[1], window[3] - window[1]))  # alike ones share a batch
    bits = [np.zeros(len(ids)) for _, ids in texts]
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    try:
        with torch.inference_mode():
            for first in tqdm(range(0, len(windows), batch_size), "scoring", unit="batch", disable=not progress):
                batch = windows[first : first + batch_size]
                inputs, targets = _window_batch(texts, batch)  # (B, L)
                skipped = min(scored - start for _, start, _, scored in batch)
                keep = inputs.shape[1] - skipped  # the first positions of these windows need no logits
                outputs = model(input_ids=torch.from_numpy(inputs).to(device), use_cache=False, logits_to_keep=keep)
                wanted = torch.from_numpy(targets[:, skipped:]).to(device)  # (B, K)
                logits = outputs.logits.float().flatten(0, 1)  # (B·K, V)
                nats = torch.nn.functional.cross_entropy(logits, wanted.flatten(), reduction="none")
                nats = nats.view(wanted.shape).cpu().numpy().astype(np.float64)  # (B, K)
                for row, (text, start, stop, scored) in zip(nats, batch, strict=True):
                    bits[text][scored:stop] = row[scored - start - skipped : stop - start - skipped] / math.log(2)
    finally:
        model.train(was_training)
    return bits


def window_sizes(model: torch.nn.Module, context_length: int | None, stride: int | None) -> tuple[int, int]:
    """The context length and stride to use: what the model was trained on and half of it, unless given.

    Raises ValueError for a context the model does not have or a stride that would leave tokens out.
    """
    longest = model.config.n_positions
    context_length = trained_positions(model.config) if context_length is None else context_length
    if not 1 <= context_length <= longest:
        raise ValueError(f"context_length must lie between 1 and the model's {longest}, not {context_length}")
    stride = max(context_length // 2, 1) if stride is None else stride
    if not 1 <= stride <= context_length:
        raise ValueError(f"stride must lie between 1 and the context length {context_length}, not {stride}")
    return context_length, stride


def scoring_windows(length: int, context_length: int, stride: int) -> list[tuple[int, int, int]]:
    """(start, stop, scored): the window predicts tokens start … stop and answers for scored … stop.

    >>> scoring_windows(10, context_length=4, stride=3)
    [(0, 4, 0), (3, 7, 4), (6, 10, 7)]
    """
    stops = [*range(min(context_length, length), length, stride), length] if length else []
    scored = [0, *stops][: len(stops)]
    return [(max(0, stop - context_length), stop, first) for first, stop in zip(scored, stops, strict=True)]


def _window_batch(
    texts: Sequence[tuple[int, np.ndarray]], windows: Sequence[tuple[int, ...]]
) -> tuple[np.ndarray, ...]:
    """Inputs and targets (B, L) of windows; shorter ones are filled up on the right, where no scored token looks."""
    longest = max(stop - start for _, start, stop, _ in windows)
    inputs = np.zeros((len(windows), longest), np.int64)
    targets = np.zeros((len(windows), longest), np.int64)
    for row, (text, start, stop, _) in enumerate(windows):
        control, ids = texts[text]
        inputs[row, 0] = control
        inputs[row, 1 : stop - start] = ids[start : stop - 1]
        targets[row, : stop - start] = ids[start:stop]
    return inputs, targets


def score_model(
    name: str,
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    pieces: Sequence[Piece],
    prepared: PreparedCorpus,
    context_length: int | None = None,
    stride: int | None = None,
    batch_size: int = 16,
    progress: bool = False,
) -> Score:
    """Score a GPT-2 or an LSTM, each chapter after the control token of its novel (the generic one if it knows none).

    A model with another tokenizer than the prepared corpus' reads the same characters in its own tokens.
    """
    context_length, stride = window_sizes(model, context_length, stride)
    texts = _texts_for(tokenizer, pieces, prepared)
    bits = token_bits(model, texts, context_length, stride, batch_size, progress)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    facts = {"parameters": parameters, "context_length": context_length, "stride": stride}
    return _score(name, pieces, [text.sum() for text in bits], facts)


def _texts_for(
    tokenizer: PreTrainedTokenizerFast, pieces: Sequence[Piece], prepared: PreparedCorpus
) -> list[tuple[int, np.ndarray]]:
    """(control id, token ids) of each chapter in the model's own tokens."""
    if tokenizer.get_vocab() == prepared.tokenizer.get_vocab():
        return [(piece.control_id, piece.ids) for piece in pieces]
    known = set(novel_titles(tokenizer))
    texts = [prepared.tokenizer.decode(piece.ids) for piece in pieces]
    controls = [control_id(tokenizer, piece.novel if piece.novel in known else None) for piece in pieces]
    return [(control, np.array(encode(tokenizer, text))) for control, text in zip(controls, texts, strict=True)]


# ---------------------------------------------------------------- counting models


def training_chapters(prepared: PreparedCorpus) -> list[np.ndarray]:
    """The token ids of every training chapter."""
    segments = prepared.segments("train", by_chapter=True)
    return [np.asarray(prepared.train[segment.start : segment.stop]) for segment in segments]


def score_ngrams(prepared: PreparedCorpus, pieces: Sequence[Piece], order: int, progress: bool = False) -> Score:
    """Score interpolated Kneser–Ney n-grams of the training chapters; `order=1` is the unigram model."""
    vocab_size = len(prepared.tokenizer)
    model = KneserNey.train(training_chapters(prepared), vocab_size, order, progress)
    name = "unigram" if order == 1 else f"Kneser–Ney {order}-gram"
    return _score(name, pieces, [-model.log2_probs(piece.ids).sum() for piece in pieces], {"order": order})


def score_ppmd(prepared: PreparedCorpus, pieces: Sequence[Piece], order: int = 8, memory: int = 1 << 31) -> Score:
    """Score PPMd (variant I, `pyppmd`): the bytes each chapter adds to a stream that begins with the training text.

    It reads token ids of two bytes, so `order` 8 looks four characters back. It cannot stop learning: a chapter profits
    from the held-out chapters before it, so that its figure is a little too good. Its state takes `memory` bytes at
    most.
    """
    import pyppmd

    encoder = pyppmd.Ppmd8Encoder(order, memory, pyppmd.PPMD8_RESTORE_METHOD_CUT_OFF)
    for chapter in training_chapters(prepared):
        encoder.encode(chapter.astype(">u2").tobytes())
    sizes = [len(encoder.encode(piece.ids.astype(">u2").tobytes())) for piece in pieces]
    sizes[-1] += len(encoder.flush(False))
    return _score("PPMd", pieces, [8 * size for size in sizes], {"order": order})


def score_table(scores: Sequence[Score]) -> str:
    """The scores as a Markdown table; the last column is the paired difference to the last row, with its interval."""
    lines = ["| model | parameters | bits/char | 95% interval | against the last |", "|---|---:|---:|---|---|"]
    for score in scores:
        parameters = f"{score.facts['parameters'] / 1e6:.1f}M" if "parameters" in score.facts else "–"
        low, high = score.interval()
        difference = "–" if score is scores[-1] else "{:+.3f} ({:+.3f} … {:+.3f})".format(*score.difference(scores[-1]))
        cells = " | ".join([parameters, f"{score.bits_per_char:.3f}", f"{low:.3f} … {high:.3f}", difference])
        lines.append(f"| {score.name} | {cells.replace('nan', '?')} |")
    return "\n".join(lines)


# ---------------------------------------------------------------- arithmetic


def _score(name: str, pieces: Sequence[Piece], bits: Iterable[float], facts: dict[str, Any]) -> Score:
    characters = np.array([piece.characters for piece in pieces])
    return Score(name, tuple(piece.novel for piece in pieces), np.array(list(bits), float), characters, facts)


def _ratio(bits: float, characters: int) -> float:
    return float(bits / characters) if characters else math.nan


def _bootstrap(bits: np.ndarray, characters: np.ndarray, level: float, draws: int, seed: int) -> tuple[float, float]:
    if len(bits) < 2:
        return math.nan, math.nan
    random = np.random.default_rng(seed)
    ratios = np.empty(draws)
    for i in range(draws):
        chosen = random.integers(len(bits), size=len(bits))
        ratios[i] = bits[chosen].sum() / characters[chosen].sum()
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
