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
    except KeyboardInterrupt:
        return 130
    return 0


def draw_curve(config: TrainConfig) -> None:
    """Train, and write the curve anew at each of its points."""
    from tqdm import tqdm

    from jinyong_gpt2.charts import chart_memorization
    from jinyong_gpt2.checkpoints import read_record
    from jinyong_gpt2.extraction import memorization_curve
    from jinyong_gpt2.files import write_whole

    table, picture = (Path(config.output_dir, f"memorization.{kind}") for kind in ("json", "svg"))
    rows = earlier_rows(table) if config.resume and table.is_file() else []
    for row in memorization_curve(config):
        rows = [*(before for before in rows if before["step"] < row["step"]), row]
        write_whole(table, json.dumps(rows, indent=1) + "\n")
        chart_memorization(rows).save(picture)
        shares = ", ".join(f"{split} {share}" for split, share in row["extractable"].items())
        tqdm.write(
            f"step {row['step']}, epoch {row['epochs']:.1f}: bits per character of training text {row['train']:.3f}, "
            f"of held-out text {row['heldout']:.3f}; exact continuations: {shares}"
        )
    last = Path(config.output_dir, "last")
    taken = read_record(last).get("step", 0)
    if taken < config.max_steps:
        print(f"saved {last} after step {taken} of {config.max_steps}: go on with the same command and --resume")
    print(f"written: {table}, {picture}" if rows else "no point of the curve has been reached yet")


def earlier_rows(table: Path) -> list[dict[str, Any]]:
    """The points of a curve that was begun before; JSON has made words of their lengths."""
    rows = json.loads(table.read_text(encoding="utf-8"))
    for row in rows:
        by_split = row["extractable"].items()
        row["extractable"] = {split: {int(n): share for n, share in by.items()} for split, by in by_split}
    return rows


if __name__ == "__main__":
    sys.exit(main())
