#!/usr/bin/env python
"""A passage from the bundled checkpoint, streamed to the terminal, and its pages in out/. Run by quickstart.sh."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

PROMPT = "喬峯帶阿朱回到北方，喬峯對她說：「我們兩人永遠留在這裡！」"
NOTEBOOK = Path("notebooks/01_generate.ipynb")
LOOK_AT = 29  # characters in the attention pages, as many as the article shows
OUT = Path("out")


def main() -> int:
    parser = argparse.ArgumentParser(prog="quickstart.sh", description=__doc__)
    parser.add_argument("--prompt", default=PROMPT, help="the sentence to go on from")
    parser.add_argument("--length", type=int, default=200, help="characters to write")
    parser.add_argument("--seed", type=int, default=7, help="another seed, another passage")
    parser.add_argument("--notebook", action="store_true", help=f"open JupyterLab on {NOTEBOOK} instead")
    args = parser.parse_args()
    if args.notebook:
        os.execv(sys.executable, [sys.executable, "-m", "jupyter", "lab", str(NOTEBOOK)])
    try:
        write(args.prompt, args.length, args.seed)
    except (ValueError, FileNotFoundError) as error:
        print(f"quickstart.sh: {error}", file=sys.stderr)
        return 1
    return 0


def write(prompt: str, length: int, seed: int) -> None:
    """Stream a passage, then write passage.html and the three attention pages."""
    from jinyong_gpt2 import Writer

    writer = Writer.from_pretrained()
    print(prompt, end="", flush=True)
    for character in writer.stream(prompt, max_new_tokens=length, seed=seed):
        print(character, end="", flush=True)
    print()
    passage = writer.generate(prompt, max_new_tokens=length, seed=seed)[0]  # the same text, with its figures
    OUT.mkdir(exist_ok=True)
    pages = [OUT / "passage.html"]
    passage.save(pages[0])

    from jinyong_gpt2 import show  # after the first characters: drawing needs more packages than writing

    text = passage.text[:LOOK_AT]
    if text:
        for view in ("model", "head", "neuron"):
            pages.append(OUT / f"attention_{view}.html")
            show(writer.model, writer.tokenizer, text, view=view).save(pages[-1])
    print("\nOpen in a browser (no network needed):", *(f"\n    {page}" for page in pages))
    print("Open the notebook:\n    bash scripts/quickstart.sh --notebook")


if __name__ == "__main__":
    sys.exit(main())
