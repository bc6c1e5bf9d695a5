#!/usr/bin/env python
"""Draw the pictures of the README anew: each view of one sentence, as the bundled checkpoint reads it.

    python scripts/pictures.py

writes model.png, head.png, neuron.png and generation.png into notebooks/pictures. (studio.png, the picture of the
panel, is a browser's.) The same checkpoint draws the same pictures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from quickstart import PROMPT

PICTURES = Path(__file__).resolve().parent.parent / "notebooks" / "pictures"
PRONOUN, NAMES = "她", "喬峯峰阿朱"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="a folder; the bundled checkpoint where none is given")
    parser.add_argument("--out", default=PICTURES, type=Path, help="folder to write (default: notebooks/pictures)")
    options = parser.parse_args()
    for path in draw(options.checkpoint, options.out):
        print(f"{path}: {path.stat().st_size:,} bytes")


def draw(checkpoint: str | None, out: Path) -> list[Path]:
    """The four pictures, in `out`. Two of them end with the pronoun and show the head that looks most at names then."""
    from jinyong_gpt2 import Writer, show

    writer = Writer.from_pretrained(checkpoint)
    sentence, _ = writer.match(PROMPT)  # 喬峯 where the checkpoint knows 峯, else 喬峰
    model, tokenizer = writer.model, writer.tokenizer
    whole = show(model, tokenizer, sentence, view="model", layers=range(model.config.n_layer)[-4:])
    layer, head = looks_at_names(whole.attention)
    last = {"layer": layer, "head": head, "stop": sentence.index(PRONOUN) + 1}
    views = [
        whole,
        show(model, tokenizer, sentence, view="head", **last),
        show(model, tokenizer, sentence, view="neuron", **last),
        show(model, tokenizer, sentence, view="generation"),
    ]
    return [view.save(out / f"{view.view}.png") for view in views]


def looks_at_names(attention) -> tuple[int, int]:
    """(layer, head) with most of its attention on `NAMES` when it reads `PRONOUN`."""
    row = attention.labels.index(PRONOUN)
    names = [i for i, label in enumerate(attention.labels[:row]) if label in NAMES]
    scores = attention.weights[:, :, row, names].sum(-1)  # (layers, heads)
    return divmod(int(scores.argmax()), scores.size(1))


if __name__ == "__main__":
    main()
