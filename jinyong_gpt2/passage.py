"""`Passage`: one continuation with all that was known when it was written, and how it looks on a page.

>>> passage = writer.generate("喬峯", seed=7)[0]
>>> print(passage)                      # prompt and continuation
>>> passage.bits_per_char               # how surprising the model found its own text
>>> passage.alternatives[0]             # what else could have come first: [("道", 0.21), ("大", 0.08), …]
>>> passage.save("out/passage.html")    # a page of its own, shaded by surprise
"""

from __future__ import annotations

import html
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from jinyong_gpt2.files import write_whole

VIEWS = Path(__file__).resolve().parent / "views"
FULL_SHADE = 12.0  # bits of surprise at which the shading is strongest


class Character(NamedTuple):
    """One character as it was written: its tokens, their log-probabilities, and what else its first could have been."""

    text: str
    token_ids: list[int]
    logprobs: list[float]
    alternatives: list[tuple[str, float]]


@dataclass(repr=False)
class Passage:
    """A prompt and what a `Writer` wrote after it.

    Lists with one entry per token: `token_ids`, `logprobs`. Per character of `continuation`: `probabilities`,
    `alternatives`. (A rare character is several tokens: its UTF-8 bytes.) All probabilities are the model's own, before
    temperature and filters. Where a passage begins with what this model did not write, they are those of its end.
    """

    prompt: str
    """what was given, whole, also where it is longer than the model's context"""
    continuation: str
    """what was written"""
    token_ids: list[int] = field(default_factory=list)
    """the tokens of the continuation"""
    seed: int | None = None
    """with `candidate`, what to give `Writer.generate` to have this text again"""
    settings: dict[str, Any] = field(default_factory=dict)
    """the sampling settings, as `Settings.to_dict` gives them"""
    logprobs: list[float] = field(default_factory=list)
    """natural logarithm of each token's probability"""
    alternatives: list[list[tuple[str, float]]] = field(default_factory=list)
    """for each character the most probable first tokens in its place, with their probabilities, best first"""
    probabilities: list[float] = field(default_factory=list)
    """for each character its probability, the product over its tokens"""
    novel: str | None = None
    """the novel whose control token was asked with"""
    candidate: int = 0
    """the number of this candidate under `seed`"""
    kept: int = 0
    """how many characters of the continuation were taken over from an earlier passage (`resample`, `continue_`)"""
    changes: list[str] = field(default_factory=list)
    """characters of the prompt that were replaced by ones the model knows: `["乔→喬"]`"""

    @property
    def text(self) -> str:
        """Prompt and continuation."""
        return self.prompt + self.continuation

    @property
    def bits_per_char(self) -> float:
        """Mean surprise of the continuation, in bits per character; nan where it is empty or not wholly known."""
        if not self.continuation or len(self.logprobs) != len(self.token_ids):
            return math.nan
        return -sum(self.logprobs) / math.log(2) / len(self.continuation)

    def add(self, character: Character) -> None:
        """Let the continuation grow by one character."""
        self.continuation += character.text
        self.token_ids += character.token_ids
        self.logprobs += character.logprobs
        self.alternatives.append(character.alternatives)
        self.probabilities.append(math.exp(sum(character.logprobs)))

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain values that `json.dumps` takes."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Passage:
        """The passage that `to_dict` gave `values` of. Raises ValueError for a field it does not know or has to."""
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"not fields of a Passage: {', '.join(sorted(unknown))}")
        if missing := {"prompt", "continuation"} - set(values):
            raise ValueError(f"a Passage needs {' and '.join(sorted(missing))}")
        wrong = [name for name, value in values.items() if not FITS[name](value)]
        if wrong:
            raise ValueError(f"not what a Passage holds: {', '.join(sorted(wrong))}")
        pairs = [[(token, p) for token, p in best] for best in values.get("alternatives") or []]
        return cls(**{**values, "alternatives": pairs})

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"[{_caption(self)}]\n{self.prompt}│{self.continuation}"

    def to_html(self, spans: Iterable[Any] = ()) -> str:
        """A fragment for a page: prompt and continuation apart, shaded by surprise, alternatives on hover.

        `spans` marks copies, with their source on hover: objects with `start` and `stop` (offsets in `text`), `novel`,
        `chapter` and `offset`, as `CopyIndex.spans` gives them.
        """
        return _style() + f'<div class="jy-passages">{_article(self, spans)}</div>'

    def _repr_html_(self) -> str:
        return self.to_html()

    def save(self, path: str | os.PathLike[str], spans: Iterable[Any] = ()) -> Path:
        """Write `to_html` as a page of its own, which needs no network, and return its path."""
        return _write_page(path, self.to_html(spans))


class Passages(list[Passage]):
    """A list of passages that stand side by side on a page."""

    def __getitem__(self, place: Any) -> Any:
        found = super().__getitem__(place)
        return Passages(found) if isinstance(place, slice) else found

    def __repr__(self) -> str:
        return "\n\n".join(map(repr, self))

    def to_html(self) -> str:
        """A fragment for a page, the passages side by side where there is room."""
        return _style() + f'<div class="jy-passages">{"".join(_article(passage, ()) for passage in self)}</div>'

    def _repr_html_(self) -> str:
        return self.to_html()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write `to_html` as a page of its own, which needs no network, and return its path."""
        return _write_page(path, self.to_html())


def _is(*types: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, types) and not isinstance(value, bool)


def _list_of(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, (list, tuple)) and all(map(fits, value))


def _pair(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and _is(str)(value[0]) and _is(int, float)(value[1])


# Whether a value, from a file say, can be that field.
FITS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("prompt", "continuation"), _is(str)),
    **dict.fromkeys(("candidate", "kept"), _is(int)),
    **dict.fromkeys(("logprobs", "probabilities"), _list_of(_is(int, float))),
    "token_ids": _list_of(_is(int)),
    "seed": _is(int, type(None)),
    "novel": _is(str, type(None)),
    "settings": _is(dict),
    "changes": _list_of(_is(str)),
    "alternatives": lambda value: value is None or _list_of(_list_of(_pair))(value),
}


def _caption(passage: Passage) -> str:
    parts = [f"《{passage.novel}》"] if passage.novel else []
    if passage.seed is not None:
        parts.append(f"seed {passage.seed} · candidate {passage.candidate}")
    if not math.isnan(passage.bits_per_char):
        parts.append(f"{passage.bits_per_char:.2f} bits/char")
    if passage.changes:
        parts.append(" ".join(dict.fromkeys(passage.changes)))
    return " · ".join(parts)


def _style() -> str:
    return f"<style>{(VIEWS / 'passage.css').read_text(encoding='utf-8')}</style>"


def _article(passage: Passage, spans: Iterable[Any]) -> str:
    sources = _sources(spans, len(passage.text))
    prompt = "".join(_character(c, "", sources[i]) for i, c in enumerate(passage.prompt))
    known = len(passage.probabilities) == len(passage.alternatives) == len(passage.continuation)
    written = []
    for i, character in enumerate(passage.continuation):
        source = sources[len(passage.prompt) + i]
        if known:
            surprise = max(0.0, -math.log2(max(passage.probabilities[i], 1e-12)))
            shade = f"{min(surprise / FULL_SHADE, 1):.2f}"
            written.append(_character(character, _alternatives(passage, i), source, shade))
        else:
            written.append(_character(character, "", source))
    return (
        f'<article><header>{html.escape(_caption(passage))}</header><p><span class="jy-prompt">{prompt}</span>'
        f'<span class="jy-written">{"".join(written)}</span></p></article>'
    )


def _sources(spans: Iterable[Any], length: int) -> list[str]:
    sources = [""] * length
    for span in spans:
        chapter = f" {span.chapter}" if span.chapter else ""
        source = f"《{span.novel}》{chapter} @{span.offset}"
        for i in range(max(span.start, 0), min(span.stop, length)):
            sources[i] = f"{sources[i]}\n{source}" if sources[i] else source
    return sources


def _alternatives(passage: Passage, i: int) -> str:
    lines = [f"{_visible(passage.continuation[i])} {passage.probabilities[i]:.1%}", "—"]
    lines += [f"{_visible(token)} {p:.1%}" for token, p in passage.alternatives[i]]
    return "\n".join(lines)


def _visible(token: str) -> str:
    return {"\n": "⏎", " ": "␣", "\t": "⇥"}.get(token, token)


def _character(character: str, hover: str, source: str, shade: str | None = None) -> str:
    title = "\n".join(part for part in (source, hover) if part)
    if not title and shade is None:
        return html.escape(character)
    attributes = f' title="{html.escape(title)}"' if title else ""
    attributes += f' style="--s:{shade}"' if shade is not None else ""
    name = ' class="jy-copy"' if source else ""
    return f"<b{name}{attributes}>{html.escape(character)}</b>"


def _write_page(path: str | os.PathLike[str], fragment: str) -> Path:
    page = (VIEWS / "passage.html").read_text(encoding="utf-8").replace("<!-- passage -->", fragment)
    return write_whole(path, page)
