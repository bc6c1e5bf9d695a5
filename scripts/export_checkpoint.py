#!/usr/bin/env python
"""A training checkpoint → the small folder that is bundled: half precision, shards below 15 MB, and a model card.

    python scripts/export_checkpoint.py checkpoints/bundled/best --out data/pretrained --evaluation out/evaluation.json

Plain transformers opens it, in float32: weights are stored in 16 bits and computed with in 32. The ten samples of the
card are seeds 0 to 9, not picked.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

PROMPT = "喬峯帶阿朱回到北方，喬峯對她說：「我們兩人永遠留在這裡！」"
SHARD = "15MB"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a folder that scripts/train.py wrote")
    parser.add_argument("--out", type=Path, default=Path("data/pretrained"))
    parser.add_argument("--evaluation", type=Path, help="the JSON that scripts/evaluate.py wrote")
    parser.add_argument("--commands", type=Path, help="a text file: the commands that made the checkpoint")
    args = parser.parse_args()

    from jinyong_gpt2.checkpoints import read_record

    if not (training := read_record(args.checkpoint)):
        print(f"export_checkpoint.py: no checkpoint of scripts/train.py in {args.checkpoint}", file=sys.stderr)
        return 1
    new = args.out.with_name(args.out.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    export(args.checkpoint, new)
    evaluation = json.loads(args.evaluation.read_text(encoding="utf-8")) if args.evaluation else None
    commands = args.commands.read_text(encoding="utf-8").strip() if args.commands else ""
    (new / "README.md").write_text(card(new, training, evaluation, commands), encoding="utf-8")
    shutil.rmtree(args.out, ignore_errors=True)
    os.replace(new, args.out)
    size = sum(path.stat().st_size for path in args.out.iterdir())
    print(f"{args.out}: {size / 1e6:.1f} MB")
    return 0


def export(checkpoint: Path, out: Path) -> None:
    """Weights in half precision, opened in float32."""
    import torch
    from transformers import AutoTokenizer

    from jinyong_gpt2.model import load_model, quietly
    from jinyong_gpt2.tokenizer import save_tokenizer

    with quietly():
        load_model(checkpoint, dtype=torch.float16).save_pretrained(out, max_shard_size=SHARD)
    config = json.loads((out / "config.json").read_text(encoding="utf-8")) | {"dtype": "float32"}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    save_tokenizer(AutoTokenizer.from_pretrained(checkpoint), out)
    shutil.copy(checkpoint / "training.json", out / "training.json")


def held_out_table(evaluation: dict[str, Any]) -> str:
    """Bits per character of this checkpoint beside its baselines on the same chapters."""
    rows = [f"| {score['model']} | {score['bits_per_char']:.3f} |" for score in evaluation["scores"]]
    return "\n".join(["| model | bits per character |", "| --- | --- |", *rows])


ABOUT = """It is the small one: trained on two CPU cores, so that a clone has something to write with.
Weights are stored in 16 bits and opened in 32."""

DATA = """77 Ming and Qing vernacular novels (俠義、公案、英雄傳奇 and other fiction), in the public domain everywhere:
their authors died more than a century ago, or they appeared before 1931 by unknown hands. And the fourteen tales of
`data/sample`, written for this project. No text of Jin Yong's is in it. Which chapters are held out, about 2%, is
decided by a hash."""

LIMITS = """It writes in the manner of its data: period vernacular, 話說 and 且聽下回分解, not the modern prose of the
1950s to 1970s. People, speech and fights are there; who does what to whom drifts after a sentence or two. Names may be
anyone's. The novels hold the views of their times on women, servants and foreigners, and so may what it writes. It
knows no facts."""


def card(folder: Path, training: dict[str, Any], evaluation: dict[str, Any] | None, commands: str) -> str:
    """The model card, from what training and evaluation recorded and ten samples."""
    from jinyong_gpt2 import Writer
    from jinyong_gpt2.cards import model_card

    writer = Writer.from_pretrained(folder)
    samples = [writer.generate(PROMPT, max_new_tokens=120, seed=seed)[0].continuation for seed in range(10)]
    quoted = "\n\n".join(f"**{i}** {' '.join(text.split())}" for i, text in enumerate(samples))
    not_picked = f"Not picked: seeds 0 to 9, default settings, after 「{PROMPT}」"
    return model_card(
        training,
        writer.model.config,
        title="The bundled checkpoint",
        license="mit",
        about=ABOUT,
        data=DATA,
        commands=commands,
        measured=held_out_table(evaluation) if evaluation else None,
        closing=f"\n## Samples\n\n{not_picked}\n\n{quoted}\n\n## Limits\n\n{LIMITS}\n",
    )


if __name__ == "__main__":
    sys.exit(main())
