"""The recipe: how many steps the default needs to reach the held-out loss of the article's.

The article's tool: AdamW, learning rate 1.5e-4, linear to zero. Ours is trained for a third of its steps, on the same
windows, for several seeds.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", default="data/prepared", help="a prepared corpus")
    parser.add_argument("--size", default="testing", help="a name in jinyong_gpt2.model.SIZES")
    parser.add_argument("--context_length", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=1500, help="steps of the article's recipe")
    parser.add_argument("--seeds", type=int, default=3)


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows: recipe, steps, held-out bits per character of every seed and their mean."""
    article = {
        "embeddings": "random", "optimizer": "adamw", "learning_rate": 1.5e-4, "schedule": "linear",
        "warmup_steps": args.steps // 20,
    }  # fmt: skip
    variants: dict[str, tuple[int, dict[str, Any]]] = {
        "article: AdamW 1.5e-4, linear": (args.steps, article),
        "default: Muon + AdamW, trapezoid": (args.steps // 3, {}),
        "random embeddings": (args.steps // 3, {"embeddings": "random"}),
        "AdamW part at 1e-2": (args.steps // 3, {"learning_rate": 1e-2}),
        "AdamW 3e-3, trapezoid": (args.steps // 3, {"optimizer": "adamw"}),
        "Muon, linear": (args.steps // 3, {"schedule": "linear"}),
        "Muon 0.01": (args.steps // 3, {"muon_learning_rate": 0.01}),
        "Muon 0.04": (args.steps // 3, {"muon_learning_rate": 0.04}),
        "Muon, dropout 0.1": (args.steps // 3, {"dropout": 0.1}),
    }
    rows = []
    for name, (steps, changes) in variants.items():
        bits = [held_out_bits(args, steps, seed, changes) for seed in range(args.seeds)]
        seeds = {f"seed {seed}": f"{value:.3f}" for seed, value in enumerate(bits)}
        rows.append({"recipe": name, "steps": steps, **seeds, "mean": f"{sum(bits) / len(bits):.3f}"})
        print(rows[-1], flush=True)
    return rows


def held_out_bits(args: argparse.Namespace, steps: int, seed: int, changes: dict[str, Any]) -> float:
    """Held-out bits per character at the end of one run."""
    from jinyong_gpt2.training import TrainConfig, train

    with tempfile.TemporaryDirectory() as folder:
        config = TrainConfig(
            data=args.data, output_dir=folder, size=args.size, context_length=args.context_length, max_steps=steps,
            batch_size=args.batch_size, seed=seed, eval_every=steps, eval_windows=1000, save_every=0, **changes,
        )  # fmt: skip
        return list(train(config))[-1]["heldout_bits_per_char"]
