#!/usr/bin/env python
"""Train a GPT-2 (or, to compare it with, an LSTM) on a prepared corpus.

    python scripts/train.py --data data/prepared --output_dir checkpoints/mini --size mini --max_steps 2000
    python scripts/train.py --data data/prepared --output_dir checkpoints/mini --size mini --max_steps 2000 --resume
    python scripts/train.py --data data/prepared --output_dir checkpoints/lstm --size lstm --parameters 5900000

One GPU (found by itself), the article's model:

    python scripts/train.py --data data/prepared --output_dir checkpoints/jinyong --size jinyong --batch_size 64 --max_steps 5000

Eight GPUs of one machine, and two machines of eight (run on each, with its own --machine_rank):

    accelerate launch --num_processes 8 scripts/train.py --size jinyong --batch_size 512 …
    accelerate launch --num_processes 16 --num_machines 2 --machine_rank 0 --main_process_ip HOST --main_process_port 29500 \\
        scripts/train.py --size jinyong --batch_size 1024 …

A model too large for one GPU, its weights, gradients and optimizer states spread over eight (FSDP2):

    accelerate launch --num_processes 8 --use_fsdp --fsdp_version 2 --fsdp_auto_wrap_policy TRANSFORMER_BASED_WRAP \\
        scripts/train.py --size gpt2-xl --batch_size 512 …

Every machine must see the same --output_dir. Ctrl-C saves and leaves. The options are the fields of `jinyong_gpt2.training.TrainConfig`.
"""  # noqa: E501

from __future__ import annotations

import os
import sys
from argparse import Action, ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import HfArgumentParser

from jinyong_gpt2.checkpoints import read_record
from jinyong_gpt2.training import TrainConfig, TrainingDiverged, train
from jinyong_gpt2.watching import progress


class Help(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """Defaults are told where there are any, and the examples keep their lines."""

    def _get_help_string(self, action: Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


def main() -> int:
    parser = HfArgumentParser(TrainConfig, description=__doc__, formatter_class=Help)
    first, step = os.environ.get("RANK", "0") == "0", 0
    try:
        (config,) = parser.parse_args_into_dataclasses()
        for metrics in progress(train(config), config.max_steps):
            step = metrics["step"]
            if first and "heldout_bits_per_char" in metrics:
                tqdm.write(f"step {step}: held-out {metrics['heldout_bits_per_char']:.3f} bits a character")
    except KeyboardInterrupt:
        return 130
    except torch.OutOfMemoryError as error:
        print(f"train.py: {str(error).splitlines()[0]} Try a smaller --micro_batch_size.", file=sys.stderr)
        return 1
    except (ValueError, OSError, ImportError, TrainingDiverged) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 1
    if first:
        print(ending(config, step))
    return 0


def ending(config: TrainConfig, step: int) -> str:
    """What there is now, after the last step taken (0: none), and what to do with it."""
    last, best = Path(config.output_dir) / "last", Path(config.output_dir) / "best"
    if not step and not last.is_dir():
        return "stopped before the first step"
    again = "go on with the same command and --resume" + (", without --stop_after" if config.stop_after else "")
    taken = step or read_record(last).get("step", 0)
    if taken < config.max_steps:
        return f"saved {last} after step {taken} of {config.max_steps}: {again}"
    if not step:
        return f"nothing to do: {last} has taken its steps already"
    made = best if best.is_dir() else last
    if config.size == "lstm":
        return f"made {made}: measure it with python scripts/evaluate.py --model LSTM={made} CHECKPOINT {config.data}"
    return f"made {made}: try it with python scripts/generate.py --checkpoint {made} --prompt 他說"


if __name__ == "__main__":
    sys.exit(main())
