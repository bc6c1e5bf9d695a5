#!/usr/bin/env python
"""Train a GPT-2 on a prepared corpus.

    python scripts/train.py --data data/prepared --output_dir checkpoints/mini --size mini --max_steps 2000
    python scripts/train.py --data data/prepared --output_dir checkpoints/mini --resume

One GPU (found by itself), the article's model:

    python scripts/train.py --data data/prepared --output_dir checkpoints/jinyong --size jinyong --batch_size 64 --max_steps 5000

Eight GPUs of one machine, and two machines of eight (run on each, with its own --machine_rank):

    accelerate launch --num_processes 8 scripts/train.py --size jinyong --batch_size 512 …
    accelerate launch --num_processes 16 --num_machines 2 --machine_rank 0 --main_process_ip HOST --main_process_port 29500 \\
        scripts/train.py --size jinyong --batch_size 1024 …

The options are the fields of `jinyong_gpt2.training.TrainConfig`.
"""  # noqa: E501

from __future__ import annotations

import os
import sys

from tqdm import tqdm
from transformers import HfArgumentParser

from jinyong_gpt2.training import TrainConfig, TrainingDiverged, train


def main() -> int:
    parser = HfArgumentParser(TrainConfig, description=__doc__.split("\n")[0])
    try:
        (config,) = parser.parse_args_into_dataclasses()
        main_process = os.environ.get("RANK", "0") == "0"
        with tqdm(total=config.max_steps, unit="step", dynamic_ncols=True, disable=not main_process) as bar:
            for metrics in train(config):
                bar.update(metrics["step"] - bar.n)
                shown = {"loss": f"{metrics['loss']:.3f}"}
                if "characters_per_second" in metrics:
                    shown["chars/s"] = f"{metrics['characters_per_second']:,.0f}"
                    shown["util"] = f"{metrics['utilisation']:.0%}"
                    bar.set_postfix(shown, refresh=False)
                if "heldout_bits_per_char" in metrics:
                    bar.write(
                        f"step {metrics['step']}: held-out {metrics['heldout_bits_per_char']:.3f} bits a character"
                    )
    except (ValueError, FileNotFoundError, TrainingDiverged) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
