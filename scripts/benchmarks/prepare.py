"""Preparing novels: seconds and memory to read, clean and encode them; and which decoder knows their encodings.

    python scripts/benchmark.py prepare data/novels

The decoders are tried on the first characters of every file, encoded anew in each of the encodings that novels have.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "gb18030", "cp950", "big5hkscs")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", nargs="?", default="data/sample", help="a folder of .txt novels")
    parser.add_argument("--workers", type=int, help="processes (default: one per core)")
    parser.add_argument("--characters", type=int, default=20_000, help="of each file, to try the decoders on")


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    return preparing(args.folder, args.workers) + decoding(args.folder, args.characters)


def preparing(folder: str, workers: int | None) -> list[dict[str, Any]]:
    from jinyong_gpt2.corpus import load_corpus
    from jinyong_gpt2.dataset import prepare
    from jinyong_gpt2.tokenizer import TableEncoder, encode

    clock = time.perf_counter()
    corpus = load_corpus(folder, workers=workers)
    read = time.perf_counter() - clock
    characters = sum(novel.characters for novel in corpus.novels)
    with tempfile.TemporaryDirectory() as out:
        clock = time.perf_counter()
        prepared = prepare(corpus, out)
        encoded = time.perf_counter() - clock
        tokenizer = prepared.tokenizer
    text = corpus.novels[0].text[:300_000]
    encoder = TableEncoder(tokenizer)
    rows = [
        {"what": "read and clean", "characters": characters, "seconds": read},
        {"what": "tokenizer and files", "characters": characters, "seconds": encoded},
        {"what": "both", "characters": characters, "seconds": read + encoded, "peak MB": _peak()},
    ]
    for name, function in (("encode by table", encoder), ("encode by tokenizer", lambda text: encode(tokenizer, text))):
        clock = time.perf_counter()
        function(text)
        rows.append({"what": name, "characters": len(text), "seconds": time.perf_counter() - clock})
    return rows


def _peak() -> float:
    """Peak memory of this process and the largest of its workers, in MB."""
    unit = 1e6 if sys.platform == "darwin" else 1e3
    return sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / unit


def decoding(folder: str, characters: int) -> list[dict[str, Any]]:
    """One row for each decoder: how many of all files in all encodings it decodes to the very text."""
    from jinyong_gpt2.corpus import find_files
    from jinyong_gpt2.text_files import decode

    decoders: dict[str, Callable[[bytes], str]] = {"scoring rule": lambda data: decode(data).text}
    try:
        import charset_normalizer

        decoders["charset-normalizer"] = lambda data: str(charset_normalizer.from_bytes(data).best())
    except ImportError:
        pass
    cases = []
    for path in find_files(folder):
        text = decode(path.read_bytes()).text.lstrip("\ufeff")[:characters]
        for encoding in ENCODINGS:
            data = text.encode(encoding, "ignore")
            original = data.decode(encoding)
            if len(original) > 0.97 * len(text):  # simplified text has no place in Big5
                cases.append((encoding, data, original))
    rows = []
    for name, decoder in decoders.items():
        row: dict[str, Any] = {"what": name}
        clock = time.perf_counter()
        right = [(encoding, decoder(data).lstrip("\ufeff") == text) for encoding, data, text in cases]
        row["seconds"] = time.perf_counter() - clock
        row["right"] = f"{sum(ok for _, ok in right)} of {len(right)}"
        for encoding in ENCODINGS:
            mine = [ok for e, ok in right if e == encoding]
            row[encoding] = f"{sum(mine)} of {len(mine)}"
        rows.append(row)
    return rows


def raw_files(folder: str | Path) -> list[dict[str, Any]]:
    """What the two decoders call each file of a folder, as found."""
    import charset_normalizer

    from jinyong_gpt2.corpus import find_files
    from jinyong_gpt2.text_files import decode

    rows = []
    for path in find_files(folder):
        data = path.read_bytes()
        ours, theirs = decode(data), charset_normalizer.from_bytes(data).best()
        rows.append(
            {
                "file": path.name,
                "scoring rule": ours.encoding,
                "unreadable places": ours.invalid,
                "charset-normalizer": theirs.encoding if theirs else "none",
                "same text": str(theirs) == ours.text,
            }
        )
    return rows
