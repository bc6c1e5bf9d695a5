"""How memorising comes about: train, and at every checkpoint ask how much the model knows by heart.

    python scripts/prepare_corpus.py data/sample --out out/sample --heldout 0.15
    python scripts/memorize.py --data out/sample --output_dir out/memorize --context_length 128 --max_steps 400

The options are those of scripts/train.py; --save_every says how often it is measured.
Writes memorization.json and memorization.svg to --output_dir.
"""

from __future__ import annotations

import json
from pathlib import Path


def main() -> None:
    from transformers import HfArgumentParser

    from jinyong_gpt2.charts import chart_memorization
    from jinyong_gpt2.extraction import memorization_curve
    from jinyong_gpt2.training import TrainConfig

    (config,) = HfArgumentParser(TrainConfig).parse_args_into_dataclasses()
    config.eval_every = 0  # it is measured here
    rows = []
    for row in memorization_curve(config):
        rows.append(row)
        shares = ", ".join(f"{split} {share}" for split, share in row["extractable"].items())
        print(f"step {row['step']}, epoch {row['epochs']:.1f}: bits per character of training text {row['train']:.3f}, "
              f"of held-out text {row['heldout']:.3f}; exact continuations: {shares}", flush=True)  # fmt: skip
    out = Path(config.output_dir)
    (out / "memorization.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print("written:", out / "memorization.json,", chart_memorization(rows).save(out / "memorization.svg"))


if __name__ == "__main__":
    main()
