"""Sampling settings: how near to the book's own text each comes, for the same contexts and as many characters.

    python scripts/benchmark.py settings --checkpoint data/pretrained --heldout data/prepared

Repetition and variety as in `jinyong_gpt2.variety`. `own bits`: the model's surprise a character, before any setting
has changed its probabilities. `3-gram bits`: that of a Kneser–Ney 3-gram of the same training text, a judge from
outside; far above the book's it reads as noise, far below as phrases by rote. `distance`: the mean of
|ln(figure / the book's)| over all of these. The default is meant to have a small one.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

CHOICES: dict[str, dict[str, float]] = {
    "0.7, top_p 0.95": {"temperature": 0.7, "top_p": 0.95},
    "0.8, top_p 0.9": {"temperature": 0.8, "top_p": 0.9},
    "0.8, top_p 0.95": {"temperature": 0.8, "top_p": 0.95},
    "0.9, top_p 0.9": {"temperature": 0.9, "top_p": 0.9},
    "0.9, top_p 0.95": {"temperature": 0.9, "top_p": 0.95},
    "0.9, top_p 0.95, penalty 1.1": {"temperature": 0.9, "top_p": 0.95, "repetition_penalty": 1.1},
    "0.9, top_p 0.9, penalty 1.1": {"temperature": 0.9, "top_p": 0.9, "repetition_penalty": 1.1},
    "0.95, top_p 0.9": {"temperature": 0.95, "top_p": 0.9},
    "0.95, top_p 0.95": {"temperature": 0.95, "top_p": 0.95},
    "0.95, top_p 0.9, penalty 1.05": {"temperature": 0.95, "top_p": 0.9, "repetition_penalty": 1.05},
    "1.0, top_p 0.9": {"temperature": 1.0, "top_p": 0.9},
    "1.0, top_p 0.95": {"temperature": 1.0, "top_p": 0.95},
    "1.0, min_p 0.05": {"temperature": 1.0, "top_p": 1.0, "min_p": 0.05},
    "1.0, all": {"temperature": 1.0, "top_p": 1.0},
}
BOOK = "the book"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default="data/pretrained", help="a Hugging Face folder")
    parser.add_argument("--heldout", default="data/prepared", help="the prepared corpus whose held-out chapters begin")
    parser.add_argument("--examples", type=int, default=64, help="contexts")
    parser.add_argument("--characters", type=int, default=200, help="characters written after each")
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows: the book first, then each of `CHOICES`."""
    from tqdm import tqdm

    from jinyong_gpt2 import Writer
    from jinyong_gpt2.comparison import draw_examples_to_continue
    from jinyong_gpt2.dataset import PreparedCorpus
    from jinyong_gpt2.evaluation import training_chapters
    from jinyong_gpt2.ngrams import KneserNey

    prepared, writer = PreparedCorpus.open(args.heldout), Writer.from_pretrained(args.checkpoint)
    judge = KneserNey.train(training_chapters(prepared), len(prepared.tokenizer), order=3, progress=True)
    examples = draw_examples_to_continue(prepared, args.examples, 100, args.characters, seed=args.seed)
    contexts = [example.context for example in examples]
    rows = [
        figures(BOOK, [e.truth for e in examples], contexts, judge, prepared) | {"own bits": own_bits(writer, examples)}
    ]
    for name, settings in tqdm(CHOICES.items(), desc="settings"):
        passages = writer.generate(contexts, seed=args.seed, max_new_tokens=args.characters, **settings)
        texts = [passage.continuation[: args.characters] for passage in passages]
        own = sum(p.bits_per_char for p in passages) / len(passages)
        rows.append(figures(name, texts, contexts, judge, prepared) | {"own bits": own})
    return [row | {"distance": distance(row, rows[0])} for row in rows]


def figures(name: str, texts: list[str], contexts: list[str], judge: Any, prepared: Any) -> dict[str, Any]:
    import numpy as np

    from jinyong_gpt2.tokenizer import encode
    from jinyong_gpt2.variety import variety

    bits = characters = 0.0
    for context, text in zip(contexts, texts, strict=True):
        start = len(encode(prepared.tokenizer, context))
        ids = np.array(encode(prepared.tokenizer, context + text))
        bits -= judge.log2_probs(ids)[start:].sum()
        characters += len(text)
    return {"settings": name, **variety(texts), "3-gram bits": bits / characters}


def own_bits(writer: Any, examples: list[Any]) -> float:
    """The model's bits per character of what the book writes after each context."""
    from jinyong_gpt2 import bits_per_char

    whole = sum(
        bits_per_char(writer.model, writer.tokenizer, e.context + e.truth) * len(e.context + e.truth) for e in examples
    )
    before = sum(bits_per_char(writer.model, writer.tokenizer, e.context) * len(e.context) for e in examples)
    return (whole - before) / sum(len(e.truth) for e in examples)


def distance(row: dict[str, Any], book: dict[str, Any]) -> float:
    """Mean |ln(figure / the book's)|; a figure that is nothing in either is left out."""
    ratios = [
        abs(math.log(row[key] / book[key])) for key in book if key != "settings" and row[key] > 0 and book[key] > 0
    ]
    return sum(ratios) / len(ratios)
