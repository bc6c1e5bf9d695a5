"""Copied spans: how long it takes to index a corpus, and to find what of a passage is copied.

    python scripts/benchmark.py copies --characters 10000000

Without --corpus the text is made up: it repeats itself about as often as real text, so the figures are alike.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from types import SimpleNamespace
from typing import Any

import numpy as np

from jinyong_gpt2.memorization import CopyIndex


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", help="a folder of .txt novels to index; made-up text if not given")
    parser.add_argument("--characters", type=int, default=10_000_000, help="index so many characters at most")
    parser.add_argument("--passages", type=int, default=20, help="passages of 1,000 characters to look up")


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    text = corpus_text(args.corpus, args.characters) if args.corpus else made_up_text(args.characters)
    held_out, training = text[: len(text) // 50], text[len(text) // 50 :]
    chapters = [
        SimpleNamespace(title=str(i), full_text=training[i : i + 5000], heldout=False)
        for i in range(0, len(training), 5000)
    ]
    corpus = SimpleNamespace(novels=[SimpleNamespace(title="", chapters=chapters)])
    with tempfile.TemporaryDirectory() as folder:
        clock = time.perf_counter()
        CopyIndex(corpus)
        in_memory = time.perf_counter() - clock
        CopyIndex(corpus, folder)
        clock = time.perf_counter()
        index = CopyIndex.open(folder)
        opening = time.perf_counter() - clock
        random = np.random.default_rng(0)
        rows = []
        for kind, source in (("held out", held_out), ("copied whole", training[: len(training) // 5000 * 5000])):
            starts = random.integers(0, max(len(source) - 1000, 1), args.passages)
            passages = [source[start : start + 1000] for start in starts]
            clock = time.perf_counter()
            found = [index.spans(passage) for passage in passages]
            seconds = (time.perf_counter() - clock) / len(passages)
            rows.append(
                {
                    "characters": len(training),
                    "index_seconds": round(in_memory, 2),
                    "open_ms": round(1000 * opening, 1),
                    "passage": kind,
                    "spans_per_passage": round(float(np.mean([len(spans) for spans in found])), 1),
                    "ms_per_1000_characters": round(1000 * seconds, 1),
                }
            )
    return rows


def corpus_text(folder: str, characters: int) -> str:
    from jinyong_gpt2.corpus import load_corpus

    return "".join(novel.text for novel in load_corpus(folder).novels)[:characters]


def made_up_text(characters: int) -> str:
    """Words of a skewed lexicon in a row: 5,000 different characters, many repeated phrases."""
    random = np.random.default_rng(0)
    lexicon = 0x4E00 + (random.zipf(1.3, (200_000, 4)) - 1) % 5000  # (words, 4) code points
    words = (random.zipf(1.2, characters // 4 + 1) - 1) % len(lexicon)
    return lexicon[words].astype("<u4").tobytes().decode("utf-32-le")[:characters]
