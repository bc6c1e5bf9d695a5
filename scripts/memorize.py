"""How memorising comes about: train, and at every checkpoint ask how much the model knows by heart.

    python scripts/prepare_corpus.py data/sample --out out/sample --heldout 0.15
    python scripts/memorize.py --data out/sample --output_dir out/memorize --context_length 128 --max_steps 400

The options are those of scripts/train.py; --save_every says how often it is measured.
Writes memorization.json and memorization.svg to --output_dir, anew at every point; with --resume the curve goes on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinyong_gpt2.training import TrainConfig


def main() -> int:
    from transformers import HfArgumentParser

    from jinyong_gpt2.training import TrainConfig, TrainingDiverged

    try:
        (config,) = HfArgumentParser(TrainConfig).parse_args_into_dataclasses()
        config.eval_every = 0  # it is measured here
        draw_curve(config)
    except (ValueError, OSError, TrainingDiverged) as error:
        print(f"memorize.py: {error}", file=sys.stderr)
        return 1
    return 0


def draw_curve(config: TrainConfig) -> None:
    """Train, and write the curve anew at each of its points."""
    from jinyong_gpt2.charts import chart_memorization
    from jinyong_gpt2.extraction import memorization_curve
    from jinyong_gpt2.files import write_whole

    table, picture = (Path(config.output_dir, f"memorization.{kind}") for kind in ("json", "svg"))
    rows = earlier_rows(table) if config.resume and table.is_file() else []
    for row in memorization_curve(config):
        rows = [*(before for before in rows if before["step"] < row["step"]), row]
        write_whole(table, json.dumps(rows, indent=1) + "\n")
        chart_memorization(rows).save(picture)
        shares = ", ".join(f"{split} {share}" for split, share in row["extractable"].items())
        print(f"step {row['step']}, epoch {row['epochs']:.1f}: bits per character of training text {row['train']:.3f}, "
              f"of held-out text {row['heldout']:.3f}; exact continuations: {shares}", flush=True)  # fmt: skip
    print(f"written: {table}, {picture}" if rows else "nothing to do: the run has taken its steps already")


def earlier_rows(table: Path) -> list[dict[str, Any]]:
    """The points of a curve that was begun before; JSON has made words of their lengths."""
    rows = json.loads(table.read_text(encoding="utf-8"))
    for row in rows:
        by_split = row["extractable"].items()
        row["extractable"] = {split: {int(n): share for n, share in by.items()} for split, by in by_split}
    return rows


if __name__ == "__main__":
    sys.exit(main())
