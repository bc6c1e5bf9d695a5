"""The recipe: how many steps the default needs to reach the held-out loss of the article's.

The article's tool: AdamW, learning rate 1.5e-4, linear to zero. Ours is trained for a third of its steps, on the same
windows, for several seeds.

    python scripts/benchmark.py recipe                                       everything, on a model for tests
    python scripts/benchmark.py recipe --size mini --only article default    these two, on a larger one
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

AVERAGED = 20  # checkpoints over a run, of whose weights the last ones' mean is taken


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", default="data/prepared", help="a prepared corpus")
    parser.add_argument("--size", default="testing", help="a name in jinyong_gpt2.model.SIZES")
    parser.add_argument("--context_length", type=int, default=64)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=1500, help="steps of the article's recipe")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[""], help="recipes whose names begin so")


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows: recipe, steps, held-out bits per character of every seed and their mean."""
    article = {
        "embeddings": "random", "optimizer": "adamw", "learning_rate": 1.5e-4, "schedule": "linear",
        "warmup_steps": args.steps // 20,
    }  # fmt: skip
    third = args.steps // 3
    variants: dict[str, tuple[int, dict[str, Any]]] = {
        "article: AdamW 1.5e-4, linear": (args.steps, article),
        "default: Muon + AdamW, trapezoid": (third, {}),
        "random embeddings": (third, {"embeddings": "random"}),
        "random embeddings, AdamW 3e-3": (third, {"embeddings": "random", "optimizer": "adamw"}),
        "AdamW part at 1e-3": (third, {"learning_rate": 1e-3}),
        "AdamW part at 1e-2": (third, {"learning_rate": 1e-2}),
        "AdamW 3e-3, trapezoid": (third, {"optimizer": "adamw"}),
        "Muon, linear": (third, {"schedule": "linear"}),
        "Muon 0.01": (third, {"muon_learning_rate": 0.01}),
        "Muon 0.04": (third, {"muon_learning_rate": 0.04}),
        "dropout 0.1": (third, {"dropout": 0.1}),
    }
    averages: dict[str, tuple[float, dict[str, Any]]] = {  # over which share of the steps
        "mean of the weights over the last tenth": (0.1, {}),
        "mean of the weights over the last quarter": (0.25, {}),
        "rate constant, mean over the last half": (0.5, {"schedule": "constant"}),
    }
    runs = [(name, steps, 0.0, changes) for name, (steps, changes) in variants.items()]
    runs += [(name, third, share, changes) for name, (share, changes) in averages.items()]
    rows = []
    for name, steps, share, changes in runs:
        if not name.startswith(tuple(args.only)):
            continue
        bits = [held_out_bits(args, steps, seed, share, changes) for seed in range(args.seeds)]
        seeds = {f"seed {seed}": f"{value:.3f}" for seed, value in enumerate(bits)}
        rows.append({"recipe": name, "steps": steps, **seeds, "mean": f"{sum(bits) / len(bits):.3f}"})
        print(rows[-1], flush=True)
    return rows


def held_out_bits(args: argparse.Namespace, steps: int, seed: int, share: float, changes: dict[str, Any]) -> float:
    """Held-out bits per character at the end of one run, or of the weights' mean over the last `share` of it."""
    from jinyong_gpt2.training import TrainConfig, train

    with tempfile.TemporaryDirectory() as folder:
        common: dict[str, Any] = {
            "data": args.data, "size": args.size, "context_length": args.context_length, "batch_size": args.batch_size,
            "seed": seed, "eval_windows": 1000,
        }  # fmt: skip
        run, last = f"{folder}/run", Path(folder, "run", "last")
        if not share:
            config = TrainConfig(output_dir=run, max_steps=steps, eval_every=steps, save_every=0, **common, **changes)
            return list(train(config))[-1]["heldout_bits_per_char"]
        every = max(1, round(steps * share / AVERAGED))
        config = TrainConfig(output_dir=run, max_steps=steps, eval_every=0, save_every=every, **common, **changes)
        mean = Mean()
        for metrics in train(config):
            if metrics["step"] % every == 0 and metrics["step"] > steps * (1 - share):
                mean.add(last)
        mean.save(last)
        # A step that changes nothing, for the measurement after it.
        still = {"learning_rate": 0.0, "optimizer": "adamw", "max_steps": 1, "eval_every": 1, "save_every": 0}
        measured = TrainConfig(output_dir=f"{folder}/mean", init_from=str(last), **still, **common)
        return list(train(measured))[-1]["heldout_bits_per_char"]


class Mean:
    """The mean of several checkpoints' weights."""

    def __init__(self) -> None:
        self.sums: dict[str, Any] = {}
        self.count = 0

    def add(self, folder: Path) -> None:
        from safetensors.torch import load_file

        for name, value in load_file(folder / "model.safetensors").items():
            self.sums[name] = self.sums.get(name, 0) + value
        self.count += 1

    def save(self, folder: Path) -> None:
        """Put the mean in the place of this checkpoint's weights."""
        from safetensors.torch import save_file

        weights = {name: value / self.count for name, value in self.sums.items()}
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
