"""Fine-tuning: a checkpoint on novels it has not read, beside a new model given as many steps.

    python scripts/benchmark.py finetune --checkpoint data/pretrained --novels data/novels --steps 300

Held-out bits per character of those novels before, after, and from scratch; of each run the best checkpoint on the way
counts, since a small corpus is soon known by heart.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

GENTLE = {"learning_rate": 1e-3, "muon_learning_rate": 5e-3}  # the checkpoint's own rates would undo what it knows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", default="data/pretrained", help="any GPT-2 folder")
    parser.add_argument("--novels", default="data/sample", help="a folder of .txt novels, or a prepared one")
    parser.add_argument("--size", default="mini", help="of the model from scratch, a name in jinyong_gpt2.model.SIZES")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--context_length", type=int, default=256)
    parser.add_argument("--batch_size", type=int, default=8, help="windows a step")
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows: the checkpoint as it is, fine-tuned, and a model from scratch."""
    from transformers import AutoTokenizer

    from jinyong_gpt2.baselines import open_model
    from jinyong_gpt2.corpus import load_corpus
    from jinyong_gpt2.dataset import PreparedCorpus, prepare
    from jinyong_gpt2.evaluation import held_out, score_model

    with tempfile.TemporaryDirectory() as folder:
        novels, work = Path(args.novels), Path(folder)
        ready = (novels / "manifest.json").is_file()
        prepared = PreparedCorpus.open(novels) if ready else prepare(load_corpus(novels), work / "prepared")
        pieces = held_out(prepared)

        def bits(checkpoint: str | Path) -> float:
            model, tokenizer = open_model(checkpoint, "auto"), AutoTokenizer.from_pretrained(checkpoint)
            return score_model("", model, tokenizer, pieces, prepared, args.context_length).bits_per_char

        rows = [{"model": "as it is", "steps": 0, "held-out bits per character": bits(args.checkpoint)}]
        for name, changes in (
            ("fine-tuned", {"init_from": args.checkpoint, **GENTLE}),
            ("from scratch", {"size": args.size}),
        ):
            clock = time.perf_counter()
            best = trained(args, prepared.folder, work / name, changes)
            minutes = (time.perf_counter() - clock) / 60
            rows.append(
                {"model": name, "steps": args.steps, "held-out bits per character": bits(best), "minutes": minutes}
            )
    return rows


def trained(args: argparse.Namespace, data: Path, out: Path, changes: dict[str, Any]) -> Path:
    """Train with a progress bar; the folder of the best checkpoint."""
    from jinyong_gpt2.training import TrainConfig, train
    from jinyong_gpt2.watching import progress

    config = TrainConfig(
        data=str(data), output_dir=str(out), max_steps=args.steps, batch_size=args.batch_size, seed=args.seed,
        context_length=args.context_length, eval_every=max(1, args.steps // 10), save_every=0, **changes,
    )  # fmt: skip
    for _ in progress(train(config), args.steps, out.name):
        pass
    return out / "best"
