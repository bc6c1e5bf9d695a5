"""Training speed: this loop, Hugging Face's Trainer, and a plain loop as the article's tool had it.

Same model, same windows, same machine, one after the other in fresh processes. On a CPU also this loop without what it
does for a CPU alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", default="data/prepared", help="a prepared corpus")
    parser.add_argument("--size", default="mini", help="a name in jinyong_gpt2.model.SIZES")
    parser.add_argument("--context_length", type=int, default=256)
    parser.add_argument("--batch_size", type=int, default=16, help="windows a step")
    parser.add_argument("--steps", type=int, default=20, help="measured steps after --warmup; both multiples of 10")
    parser.add_argument("--warmup", type=int, default=10, help="steps before the clock starts")
    parser.add_argument("--loop", choices=list(LOOPS), help=argparse.SUPPRESS)  # one loop, in this process


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    if args.loop:
        return [measure(args)]
    rows = []
    for loop in loops():
        options = [f"--{name}={value}" for name, value in vars(args).items() if name not in ("loop", "name")]
        command = [sys.executable, __file__, *options, f"--loop={loop}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise ValueError(f"{loop} failed: {done.stderr.strip().splitlines()[-1]}")
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    slowest = rows[-1]["characters/s"]
    return [row | {"× plain loop": row["characters/s"] / slowest} for row in rows]


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """One loop's row: characters per second, utilisation of the device's peak, peak memory."""
    import torch

    from jinyong_gpt2.devices import peak_flops, resolve_device
    from jinyong_gpt2.model import flops_per_token, new_model, parameter_count

    device = resolve_device()
    with tempfile.TemporaryDirectory() as folder:
        seconds = LOOPS[args.loop](args, Path(folder))
    speed = args.steps * args.batch_size * args.context_length / seconds
    from jinyong_gpt2.dataset import PreparedCorpus

    model = new_model(args.size, PreparedCorpus.open(args.data).tokenizer)
    on_gpu = device.type == "cuda"
    memory = torch.cuda.max_memory_allocated() if on_gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "loop": args.loop,
        "parameters": f"{parameter_count(model) / 1e6:.1f}M",
        "characters/s": speed,
        "utilisation": f"{speed * flops_per_token(model, args.context_length) / peak_flops(device):.1%}",
        "peak memory MB": memory / 1e6,
    }


def ours(args: argparse.Namespace, folder: Path, without: str | None = None) -> float:
    """This project's loop; `without` one of the functions that `jinyong_gpt2.training` calls on a CPU."""
    import torch

    from jinyong_gpt2 import training
    from jinyong_gpt2.training import TrainConfig, train

    if without is not None:
        with mock.patch.object(training, without, lambda *_: None):
            return ours(args, folder)

    total = args.warmup + args.steps
    config = TrainConfig(
        data=args.data, output_dir=str(folder), size=args.size, context_length=args.context_length,
        batch_size=args.batch_size, eval_every=0, save_every=0, max_steps=total + 10,  # the last step saves, too
        compile=torch.cuda.is_available() or None,  # as a run of more steps does
    )  # fmt: skip
    times = {}
    for metrics in train(config):  # told in tens: --warmup and --steps are multiples of it
        times[metrics["step"]] = time.perf_counter()
        if metrics["step"] == total:
            break
    return times[total] - times[args.warmup]


def trainer(args: argparse.Namespace, folder: Path) -> float:
    """transformers.Trainer as its documentation shows it: the device's arithmetic, fused AdamW, own data loader."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from jinyong_gpt2.dataset import PreparedCorpus
    from jinyong_gpt2.devices import product_dtype, resolve_device
    from jinyong_gpt2.model import new_model

    data = PreparedCorpus.open(args.data)
    ids = torch.from_numpy(
        data.train[: args.context_length * args.batch_size * (args.warmup + args.steps)].astype("int64")
    )
    windows = [{"input_ids": row, "labels": row} for row in ids.view(-1, args.context_length)]

    class Clock(TrainerCallback):
        start = 0.0

        def on_step_end(self, _arguments: Any, state: Any, _control: Any, **_: Any) -> None:
            if state.global_step == args.warmup:
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                Clock.start = time.perf_counter()

    half = {torch.bfloat16: {"bf16": True}, torch.float16: {"fp16": True}}.get(product_dtype(resolve_device()), {})
    arguments = TrainingArguments(
        output_dir=str(folder), per_device_train_batch_size=args.batch_size, max_steps=args.warmup + args.steps,
        save_strategy="no", report_to=[], logging_steps=1000, disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(), **half,
    )  # fmt: skip
    Trainer(new_model(args.size, data.tokenizer), arguments, train_dataset=windows, callbacks=[Clock()]).train()
    return time.perf_counter() - Clock.start


def plain(args: argparse.Namespace, folder: Path) -> float:
    """As the article's tool: Python lists, a tensor made of them each step, fp32, AdamW, the loss read every step."""
    import torch

    from jinyong_gpt2.dataset import PreparedCorpus
    from jinyong_gpt2.devices import resolve_device
    from jinyong_gpt2.model import new_model

    device, data = resolve_device(), PreparedCorpus.open(args.data)
    model = new_model(args.size, data.tokenizer).to(device)
    model.set_attn_implementation("eager")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-4)
    length, total = args.context_length, args.warmup + args.steps
    tokens = data.train[: length * args.batch_size * total].tolist()
    windows = [tokens[i : i + length] for i in range(0, len(tokens), length)]
    start = 0.0
    for step in range(total):
        if step == args.warmup:
            start = time.perf_counter()
        batch = torch.tensor(windows[step * args.batch_size : (step + 1) * args.batch_size]).long().to(device)
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()
    return time.perf_counter() - start


LOOPS = {
    "this project": ours,
    "… with PyTorch's attention": partial(ours, without="attend_in_blocks"),
    "… giving memory back": partial(ours, without="keep_freed_memory"),
    "HF Trainer": trainer,
    "plain loop": plain,
}


def loops() -> list[str]:
    """Those that say something on this machine."""
    import torch

    return [name for name in LOOPS if not (name.startswith("…") and torch.cuda.is_available())]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    print(json.dumps(run(parser.parse_args())[0]))
