"""From logits to the next token: pure functions, the settings that choose among them, and when to stop.

Every filter takes logits `(..., V)` and returns new ones in which what may not be drawn is -inf:

>>> logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
>>> top_k(logits, 2)
tensor([[2., 1., -inf, -inf]])
>>> top_p(logits, 0.6)
tensor([[2., -inf, -inf, -inf]])
>>> draw(top_k(logits, 2), [candidate_generator(seed=7, candidate=0)])
[0]

A filter keeps at least the most probable token, so filters can follow one another in any order.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from numbers import Real
from typing import Any

import numpy as np
import torch

SENTENCE_ENDS = "。！？"
CLOSING = {"」": "「", "』": "『", "”": "“", "’": "‘", "）": "（", "》": "《"}
NUCLEUS = 256  # top_p looks at so many tokens first and sorts the whole vocabulary only where they do not suffice
REMEMBERED = 2048  # characters of a text that stops and repetitions look back on, however long it grows
REDRAWS = 8  # outside the nucleus; after so many the filter itself is used


def _setting(default: Any, help: str) -> Any:
    return field(default=default, metadata={"help": help})


@dataclass(frozen=True)
class Settings:
    """How to write; the names are those of Hugging Face's GenerationConfig where it has one.

    With the defaults the bundled checkpoint repeats itself as little as held-out chapters do (BENCHMARKS.md).
    Raises ValueError, with the setting's name and range, where a value is outside it.
    """

    max_new_tokens: int = _setting(200, "tokens to write at most: a character is one, a rare one two to four")
    min_new_tokens: int = _setting(0, "stop_strings and stop_at_sentence are not heeded before this many tokens")
    temperature: float = _setting(1.0, "below 1 safer, above 1 wilder, 0 always the most probable (greedy)")
    top_k: int = _setting(0, "draw from the k most probable only; 0 is off")
    top_p: float = _setting(0.9, "draw from the fewest tokens that hold this much probability; 1 is off")
    min_p: float = _setting(0.0, "leave out what is less probable than this times the most probable; 0 is off")
    typical_p: float = _setting(1.0, "draw from the tokens whose surprise is nearest the expected; 1 is off")
    repetition_penalty: float = _setting(1.0, "above 1 makes what was just written less probable; 1 is off")
    no_repeat_ngram_size: int = _setting(
        0, "no n characters in a row stand twice in the last repetition_window; 0 is off"
    )
    repetition_window: int = _setting(256, "how many of the last tokens, the prompt's too, the two above look back on")
    banned_characters: str = _setting("", "characters never to write")
    stop_strings: tuple[str, ...] = _setting((), "stop where one of these has been written; it stays in the text")
    stop_at_sentence: bool = _setting(False, "stop after a whole sentence: 。！？ or ……, every quotation mark closed")

    def __post_init__(self) -> None:
        strings = (self.stop_strings,) if isinstance(self.stop_strings, str) else self.stop_strings
        if not isinstance(strings, Iterable) or not all(isinstance(s, str) and s for s in strings):
            raise ValueError(f"stop_strings must be one or more non-empty strings, got {self.stop_strings!r}")
        object.__setattr__(self, "stop_strings", tuple(strings))
        if not isinstance(self.banned_characters, str):
            banned = self.banned_characters
            if not isinstance(banned, Iterable) or not all(isinstance(c, str) for c in banned):
                raise ValueError(f"banned_characters must be a string of characters, got {banned!r}")
            object.__setattr__(self, "banned_characters", "".join(banned))
        for name, text in (("stop_strings", "".join(self.stop_strings)), ("banned_characters", self.banned_characters)):
            if any("\ud800" <= character <= "\udfff" for character in text):
                raise ValueError(f"{name} must be whole characters, got {text!r}")
        if not isinstance(self.stop_at_sentence, bool):
            raise ValueError(f"stop_at_sentence must be True or False, got {self.stop_at_sentence!r}")
        for name, least in (
            ("max_new_tokens", 0),
            ("min_new_tokens", 0),
            ("top_k", 0),
            ("no_repeat_ngram_size", 0),
            ("repetition_window", 1),
        ):
            object.__setattr__(self, name, require_integer(name, getattr(self, name), least))
        if self.repetition_window > REMEMBERED:
            raise ValueError(f"repetition_window must be at most {REMEMBERED}, got {self.repetition_window}")
        for name, interval, inside in (
            ("temperature", "[0, inf)", lambda x: 0 <= x < math.inf),
            ("top_p", "(0, 1]", lambda x: 0 < x <= 1),
            ("min_p", "[0, 1]", lambda x: 0 <= x <= 1),
            ("typical_p", "(0, 1]", lambda x: 0 < x <= 1),
            ("repetition_penalty", "(0, inf)", lambda x: 0 < x < math.inf),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real) or not inside(value):
                raise ValueError(f"{name} must be in {interval}, got {value!r}")
            object.__setattr__(self, name, float(value))

    def to_dict(self) -> dict:
        """Every setting by name, ready for JSON and for `Settings(**...)`."""
        return asdict(self) | {"stop_strings": list(self.stop_strings)}


def require_integer(name: str, value: object, least: int) -> int:
    """`value` as an int; ValueError naming the setting where it is none, or is below `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be an integer >= {least}, got {value!r}")
    return int(value)


# ---------------------------------------------------------------- filters on logits


def apply_temperature(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Logits over `temperature` > 0. (Greedy, temperature 0, is no scaling but `logits.argmax(-1)`.)"""
    return logits if temperature == 1 else logits / min(max(temperature, 1e-6), 1e30)  # float32 has no room for others


def top_k(logits: torch.Tensor, k: int) -> torch.Tensor:
    """Keep the k most probable tokens, and any that tie with the last of them; 0 keeps all."""
    if k == 0 or k >= logits.shape[-1]:
        return logits
    least = logits.topk(k, dim=-1).values[..., -1:]  # (..., 1)
    return logits.masked_fill(logits < least, -math.inf)


def top_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """Keep the fewest most probable tokens that together hold `p`, and any that tie with the last of them.

    Nucleus sampling: Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", section 3.1.
    """
    if p >= 1:
        return logits
    probabilities = logits.softmax(-1)  # (..., V)
    if logits.is_cuda:  # a GPU sorts many rows as soon as one
        least = _nucleus_end(probabilities.sort(dim=-1, descending=True).values, p)
        return logits.masked_fill(probabilities < least, -math.inf)
    most = probabilities.topk(min(NUCLEUS, logits.shape[-1]), dim=-1).values  # (..., 256)
    least = _nucleus_end(most, p)  # (..., 1)
    short = (most.sum(-1) < p) & (most.shape[-1] < logits.shape[-1])
    for row in short.nonzero().tolist():  # one row at a time: torch sorts many far more slowly
        place = tuple(row)
        least[place] = _nucleus_end(probabilities[place].sort(descending=True).values, p)
    return logits.masked_fill(probabilities < least, -math.inf)


def _nucleus_end(descending: torch.Tensor, p: float) -> torch.Tensor:
    """The last of the descending probabilities (..., N) that is needed to hold `p`; (..., 1)."""
    before = descending.cumsum(-1) - descending  # what the more probable ones hold
    needed = (before < p).sum(-1, keepdim=True).clamp(min=1)  # float32 may have rounded p to 0
    return descending.gather(-1, needed - 1)


def min_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """Keep tokens at least `p` times as probable as the most probable (Nguyen et al. 2024, section 3)."""
    if p <= 0:
        return logits
    least = logits.amax(-1, keepdim=True) + math.log(p)
    return logits.masked_fill(logits < least, -math.inf)


def typical_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """Keep the tokens whose surprise is nearest the entropy, until they hold `p`.

    Meister et al. 2023, "Locally Typical Sampling", equation 5. Ties with the last token kept are kept.
    """
    if p >= 1:
        return logits
    logprobs = logits.log_softmax(-1)  # (..., V)
    probabilities = logprobs.exp()
    entropy = -(probabilities * logprobs.nan_to_num(neginf=0.0)).sum(-1, keepdim=True)
    distance = (-logprobs - entropy).abs()  # +inf where a token is out already
    nearest, order = distance.sort(dim=-1)
    held = probabilities.gather(-1, order)
    kept = (held.cumsum(-1) - held < p).sum(-1, keepdim=True).clamp(min=1)
    return logits.masked_fill(distance > nearest.gather(-1, kept - 1), -math.inf)


def apply_repetition_penalty(logits: torch.Tensor, recent: Sequence[Sequence[int]], penalty: float) -> torch.Tensor:
    """Make the `recent` tokens of each row less probable: a positive logit is divided, a negative one multiplied.

    Keskar et al. 2019, section 4.1, with the sign seen to: dividing a negative logit would raise it.
    `logits` is (B, V), `recent` has B rows of token ids.
    """
    seen = [(row, i) for row, ids in enumerate(recent) for i in set(ids)] if penalty != 1 else []
    if not seen:
        return logits
    rows, ids = torch.tensor(seen, device=logits.device).unbind(1)
    values = logits[rows, ids]
    changed = torch.where(values > 0, values / penalty, values * penalty).clamp(-1e30, 1e30)
    return logits.index_put((rows, ids), changed)


def repeated_endings(text: str, size: int) -> set[str]:
    """The characters that would make the last `size` characters of `text` a repetition.

    >>> repeated_endings("東風吹，東風", 3)
    {'吹'}
    """
    if size < 1 or len(text) < size:
        return set()
    stem = text[len(text) - size + 1 :]
    found = set()
    start = text.find(stem)
    while start != -1 and start + size <= len(text):
        found.add(text[start + size - 1])
        start = text.find(stem, start + 1)
    return found


def filter_logits(logits: torch.Tensor, settings: Settings) -> torch.Tensor:
    """Temperature, top_k, top_p, typical_p and min_p of `settings`, in this order, on logits (..., V)."""
    logits = apply_temperature(logits, settings.temperature)
    logits = top_k(logits, settings.top_k)
    logits = top_p(logits, settings.top_p)
    logits = typical_p(logits, settings.typical_p)
    return min_p(logits, settings.min_p)


# ---------------------------------------------------------------- drawing


def candidate_generator(seed: int, candidate: int) -> torch.Generator:
    """The random numbers of one candidate, the same whatever else is drawn beside it."""
    mixed = np.random.SeedSequence((seed, candidate)).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed) >> 1)


def draw(logits: torch.Tensor, generators: Sequence[torch.Generator]) -> list[int]:
    """One token id for each row of logits (B, V), by its own generator.

    Each row costs one uniform number, looked up in its cumulative distribution: near-equal logits (of another batch
    size, say) draw the same token.
    """
    return _look_up(logits.softmax(-1).cumsum(-1, dtype=torch.float64), generators).squeeze(-1).tolist()


def draw_nucleus(logits: torch.Tensor, p: float, generators: Sequence[torch.Generator]) -> list[int]:
    """`draw(top_p(logits, p), generators)` without sorting: draw from all, and again where it fell outside.

    A token is inside where the more probable ones hold less than `p`, so one look at the row tells; what is accepted
    has just the distribution of `top_p`.
    """
    if p >= 1 or logits.is_cuda:  # sorting is quick on a GPU, waiting for it again and again is not
        return draw(top_p(logits, p), generators)
    probabilities = logits.softmax(-1)  # (B, V)
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    tokens = [0] * len(generators)
    rows = list(range(len(tokens)))  # still to be drawn
    for _ in range(1 + REDRAWS):
        found = _look_up(cumulative, [generators[row] for row in rows])  # (R, 1)
        before = torch.where(probabilities > probabilities.gather(-1, found), probabilities, 0.0).sum(-1)
        for row, token in zip(rows, found.squeeze(-1).tolist(), strict=True):
            tokens[row] = token
        outside = [place for place, held in enumerate(before.tolist()) if held >= p]
        if not outside:
            return tokens
        rows = [rows[place] for place in outside]
        probabilities, cumulative = probabilities[outside], cumulative[outside]
    for row, token in zip(rows, draw(top_p(logits[rows], p), [generators[row] for row in rows]), strict=True):
        tokens[row] = token
    return tokens


def sample(logits: torch.Tensor, settings: Settings, generators: Sequence[torch.Generator]) -> list[int]:
    """One token id for each row of logits (B, V), as `settings` wants it drawn."""
    if settings.temperature == 0:
        return logits.argmax(-1).tolist()
    if settings.typical_p < 1 or settings.min_p > 0:
        return draw(filter_logits(logits, settings), generators)
    logits = top_k(apply_temperature(logits, settings.temperature), settings.top_k)
    return draw_nucleus(logits, settings.top_p, generators)


def _look_up(cumulative: torch.Tensor, generators: Sequence[torch.Generator]) -> torch.Tensor:
    """(B, 1) int64: the tokens in whose share of `cumulative` (B, V) the generators' next numbers fall."""
    uniform = torch.stack([torch.rand(1, generator=g, dtype=torch.float64) for g in generators])  # (B, 1)
    return torch.searchsorted(cumulative, uniform.to(cumulative.device) * cumulative[:, -1:], right=True)


# ---------------------------------------------------------------- when to stop


def sentence_ended(text: str) -> bool:
    """Whether `text` ends with a whole sentence: 。！？ or ……, each quotation mark and bracket of its paragraph closed.

    >>> sentence_ended("他道：「走罷。"), sentence_ended("他道：「走罷。」")
    (False, True)
    """
    paragraph = text[text.rfind("\n") + 1 :]
    bare = paragraph.rstrip("".join(CLOSING))
    if not (bare.endswith(tuple(SENTENCE_ENDS)) or bare.endswith("……")):
        return False
    return all(paragraph.count(opening) <= paragraph.count(closing) for closing, opening in CLOSING.items())


def stopped(text: str, written: str, settings: Settings) -> bool:
    """Whether `text` (the tail of prompt and continuation) may end here; `written` is the tail of what is new."""
    if settings.stop_at_sentence and sentence_ended(text):
        return True
    return any(written.endswith(stop) for stop in settings.stop_strings)
