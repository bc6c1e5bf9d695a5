"""The same contexts continued by several models and by the book itself, side by side, each with its figures.

examples = draw_examples_to_continue(prepared, count=20)
compared = compare({"LSTM": (lstm, tokenizer), "GPT-2": (gpt2, tokenizer)}, examples, names, index)
compared                                       # in a notebook: the continuations in columns
print(compared.table())                        # repetition, variety, people, copies; the book's own text beside them
"""

from __future__ import annotations

import html
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jinyong_gpt2.baselines import continuations
from jinyong_gpt2.corpus import sentence_starts
from jinyong_gpt2.dataset import PreparedCorpus
from jinyong_gpt2.evaluation import held_out
from jinyong_gpt2.files import write_whole
from jinyong_gpt2.people import keeping
from jinyong_gpt2.sampling import Settings
from jinyong_gpt2.tokenizer import control_id, encode, novel_titles
from jinyong_gpt2.variety import variety

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from jinyong_gpt2.memorization import CopyIndex

HUMAN = "the book"
STYLE = """<style>
.jy-compare{font:16px/1.8 serif}.jy-compare section{display:grid;gap:0 1.5em;margin:1em 0;
grid-template-columns:repeat(auto-fit,minmax(16em,1fr))}.jy-compare p{white-space:pre-wrap;margin:.3em 0}
.jy-compare h4{margin:0;font:600 12px sans-serif;opacity:.7}.jy-compare .context{grid-column:1/-1;opacity:.65}
.jy-compare mark{background:#f6d7a7;color:inherit}</style>"""


@dataclass(frozen=True)
class Example:
    """A context from a chapter and what follows it there."""

    novel: str
    chapter: str
    context: str
    truth: str


@dataclass(frozen=True)
class Comparison:
    """The continuations of each model (and of the book) for every example, and their figures."""

    examples: list[Example]
    continuations: dict[str, list[str]]
    figures: dict[str, dict[str, float]]
    index: CopyIndex | None = field(default=None, repr=False)
    min_chars: int = 15

    def table(self) -> str:
        """The figures as a Markdown table, one column for each model and one for the book."""
        lines = [f"| | {' | '.join(self.figures)} |", "|---" + "|---:" * len(self.figures) + "|"]
        for name in next(iter(self.figures.values())):
            values = [_shown(figures[name]) for figures in self.figures.values()]
            lines.append(f"| {name.replace('_', ' ')} | {' | '.join(values)} |")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; not-a-number becomes None."""
        plain = {
            name: {key: None if math.isnan(value) else round(value, 4) for key, value in figures.items()}
            for name, figures in self.figures.items()
        }
        return {"figures": plain, "examples": [asdict(e) for e in self.examples], "continuations": self.continuations}

    def to_html(self, limit: int | None = None) -> str:
        """The continuations in columns, copies marked with their source on hover."""
        parts = []
        for i, example in enumerate(self.examples[:limit]):
            source = html.escape(f"《{example.novel}》{example.chapter}")
            parts.append(f'<section><p class="context" title="{source}">{html.escape(example.context)}</p>')
            for name, texts in self.continuations.items():
                parts.append(f"<div><h4>{html.escape(name)}</h4><p>{self._marked(texts[i])}</p></div>")
            parts.append("</section>")
        return f'{STYLE}<div class="jy-compare" lang="zh-Hant">{"".join(parts)}</div>'

    def _repr_html_(self) -> str:
        return self.to_html(limit=4)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write all of it as a page of its own and return its path."""
        head = '<!doctype html><meta charset="utf-8"><title>Side by side</title>'
        return write_whole(path, head + self.to_html())

    def _marked(self, text: str) -> str:
        source = [""] * len(text)
        for span in self.index.spans(text, self.min_chars) if self.index is not None else ():
            source[span.start : span.stop] = [f"《{span.novel}》{span.chapter}"] * len(span)
        marked = ""
        for i, character in enumerate(text):
            if source[i] and (i == 0 or source[i] != source[i - 1]):
                marked += f'<mark title="{html.escape(source[i])}">'
            marked += html.escape(character)
            if source[i] and (i + 1 == len(text) or source[i] != source[i + 1]):
                marked += "</mark>"
        return marked


def draw_examples_to_continue(
    prepared: PreparedCorpus,
    count: int = 20,
    context_chars: int = 100,
    truth_chars: int = 150,
    split: str = "heldout",
    seed: int = 0,
) -> list[Example]:
    """Contexts that begin with a sentence, from chapters of a split drawn with `seed`, longer chapters more often.

    Raises ValueError where no chapter is long enough.
    """
    places = []
    for piece in held_out(prepared, split):
        text = prepared.tokenizer.decode(piece.ids)
        starts = [start for start in sentence_starts(text) if start + context_chars + truth_chars <= len(text)]
        places += [(piece.novel, piece.chapter, text, start) for start in starts]
    if not places:
        wanted = context_chars + truth_chars
        raise ValueError(f"no {split} chapter has {wanted} characters after the beginning of a sentence")
    chosen = np.random.default_rng(seed).choice(len(places), min(count, len(places)), replace=False)
    examples = []
    for place in chosen:
        novel, chapter, text, start = places[place]
        middle = start + context_chars
        examples.append(Example(novel, chapter, text[start:middle], text[middle : middle + truth_chars]))
    return examples


def compare(
    models: Mapping[str, tuple[PreTrainedModel, PreTrainedTokenizerFast]],
    examples: Sequence[Example],
    names: Mapping[str, Sequence[str]],
    index: CopyIndex | None = None,
    min_chars: int = 15,
    temperature: float = Settings.temperature,
    top_p: float = Settings.top_p,
    seed: int = 0,
    context_length: int | None = None,
) -> Comparison:
    """Let each model continue each example as far as the book's own continuation goes, and measure them all alike.

    `names` are people by novel (`load_names`). With `index` the share of copied characters is among the figures.
    Context and continuation have to fit `context_length` tokens, by default the models' longest.
    """
    length = max(len(example.truth) for example in examples)
    written = {}
    for name, (model, tokenizer) in models.items():
        known = set(novel_titles(tokenizer))
        contexts = [
            (control_id(tokenizer, e.novel if e.novel in known else None), encode(tokenizer, e.context))
            for e in examples
        ]
        texts = continuations(model, tokenizer, contexts, length, temperature, top_p, seed, context_length)
        written[name] = [text[: len(e.truth)] for text, e in zip(texts, examples, strict=True)]
    written[HUMAN] = [example.truth for example in examples]
    figures = {name: passage_figures(examples, texts, names, index, min_chars) for name, texts in written.items()}
    return Comparison(list(examples), written, figures, index, min_chars)


def passage_figures(
    examples: Sequence[Example],
    texts: Sequence[str],
    names: Mapping[str, Sequence[str]],
    index: CopyIndex | None = None,
    min_chars: int = 15,
) -> dict[str, float]:
    """Repetition, variety, people and copies of one continuation for each example."""
    people = keeping([(e.context, text, e.novel) for e, text in zip(examples, texts, strict=True)], names)
    figures = variety(texts) | {
        "name_mentions": float(people.mentions),
        "names_in_context": people.in_context,
        "names_in_novel": people.in_novel,
        "names_from_elsewhere": people.elsewhere,
    }
    if index is not None:
        figures[f"copied_share_{min_chars}"] = index.copied_share(texts, min_chars)
    return figures


def _shown(value: float) -> str:
    if math.isnan(value):
        return "–"
    return str(int(value)) if value > 1 and value == int(value) else f"{value:.3f}"
