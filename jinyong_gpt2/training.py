"""Training: a prepared corpus to a checkpoint, as a generator of metrics.

    for metrics in train(TrainConfig(data="data/prepared", output_dir="checkpoints/mini", max_steps=2000)):
        print(metrics["step"], metrics["loss"])

Accelerate carries device, precision and processes, so the same code runs on a laptop and, started with
`accelerate launch`, on many GPUs. Which windows a step sees is a function of (seed, step), and so is the dropout, so a
resumed run repeats an uninterrupted one exactly; on a CPU to the bit.
"""

from __future__ import annotations

import json
import math
import shlex
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils._triton import has_triton

from jinyong_gpt2 import checkpoints
from jinyong_gpt2.allocator import keep_freed_memory
from jinyong_gpt2.blockwise import attend_causally, attend_in_blocks
from jinyong_gpt2.cards import model_card
from jinyong_gpt2.dataset import IGNORE, Batch, PreparedCorpus, TrainingOrder, Windows
from jinyong_gpt2.devices import peak_flops, product_dtype
from jinyong_gpt2.embeddings import begin_with_neighbours
from jinyong_gpt2.files import alone
from jinyong_gpt2.finetuning import model_from
from jinyong_gpt2.loss import LanguageModelLoss
from jinyong_gpt2.model import SIZES, flops_per_token, new_model, parameter_count, trained_positions
from jinyong_gpt2.optimizers import build_optimizers, learning_rate_factor
from jinyong_gpt2.sharding import agree, load_whole, prepare_to_shard, whole
from jinyong_gpt2.tokenizer import is_character_start

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel

WORTH_COMPILING = 500  # steps of a run on a GPU: fewer hardly win back a minute of compiling (a guess, not measured)
LOG_EVERY = 10  # steps whose losses are fetched from the device together
# What a run keeps from its beginning, besides its size: a resume takes it from the checkpoint.
KEPT = (
    *("parameters", "init_from", "embeddings", "seed", "generic_share", "dropout"),
    *("optimizer", "weight_decay", "muon_weight_decay", "beta2"),
)


def option(default: Any, help: str) -> Any:
    """A field of `TrainConfig` with its line of help on the command line."""
    return field(default=default, metadata={"help": help})


@dataclass
class TrainConfig:
    """One training run. Every field is an option of `scripts/train.py`."""

    data: str = option("data/prepared", "the folder that scripts/prepare_corpus.py wrote")
    output_dir: str = option(
        "checkpoints/mini", "where last/ (to resume from), best/ (on held-out text) and metrics.jsonl go"
    )
    size: str = option("mini", "mini, jinyong (the article's), gpt2, gpt2-medium, gpt2-large, gpt2-xl, testing, lstm")
    parameters: int | None = option(None, "of an lstm: about so many; if not given, the earlier article's shape")
    context_length: int | None = option(
        None, "tokens a training window, control token counted; all there is room for if not given"
    )
    init_from: str | None = option(None, "start from this checkpoint's weights: any GPT-2 folder, data/pretrained say")
    embeddings: str = option("neighbours", "of a new model: neighbours (characters in like company alike) or random")
    resume: bool = option(False, "go on from output_dir/last where there is one")
    seed: int = option(0, "of weights, data order and dropout")

    max_steps: int = option(2000, "optimizer steps in all, those before a --resume counted")
    stop_after: int | None = option(None, "save and leave after this step; the schedule stays that of max_steps")
    batch_size: int = option(16, "windows per optimizer step over all processes")
    micro_batch_size: int | None = option(None, "windows per forward pass of a process; halved where memory runs out")
    generic_share: float = option(0.25, "share of windows that carry the generic control token")
    dropout: float = option(0.0, "of a GPT-2, after embeddings, attention and blocks")

    optimizer: str = option("muon", "muon (a GPT-2's blocks; AdamW for the rest, and for an lstm) or adamw")
    learning_rate: float = option(3e-3, "AdamW's, at its full height")
    muon_learning_rate: float = option(0.02, "Muon's")
    weight_decay: float = option(0.01, "AdamW's, where it moves the matrices too")
    muon_weight_decay: float = option(0.1, "Muon's")
    beta2: float = option(0.95, "decay of AdamW's second moment")
    schedule: str = option("trapezoid", "of the learning rate: trapezoid, linear or constant")
    warmup_steps: int = option(50, "steps to the full learning rate")
    decay_share: float = option(0.5, "trapezoid: share of the steps over which the rate falls to zero")
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm")

    eval_every: int = option(200, "steps between measurements on the held-out chapters (0: never)")
    eval_windows: int = option(64, "held-out windows measured each time, spread evenly")
    save_every: int = option(200, "steps between checkpoints (0: only at the end)")
    mixed_precision: str = option("auto", "auto (bf16 where supported, fp16 on older GPUs), bf16, fp16 or no")
    compile: bool | None = option(None, "torch.compile the step; if not given, on a GPU for 500 steps and more")
    device: str = option("auto", "auto, cuda or cpu")
    tensorboard: bool = option(False, "write TensorBoard logs to output_dir/tensorboard")

    def __post_init__(self) -> None:
        choices = {
            "size": (*SIZES, "lstm"),
            "embeddings": ("neighbours", "random"),
            "optimizer": ("muon", "adamw"),
            "schedule": ("trapezoid", "linear", "constant"),
            "mixed_precision": ("auto", "bf16", "fp16", "no"),
            "device": ("auto", "cuda", "cpu"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}")
        if self.size == "lstm" and (self.dropout or self.init_from):
            raise ValueError("an lstm has no dropout and starts from no checkpoint: leave dropout and init_from out")
        if self.size != "lstm" and self.parameters is not None:
            raise ValueError(f"parameters is for size lstm: {self.size} has a shape of its own")
        least = dict.fromkeys(
            ("max_steps", "stop_after", "batch_size", "micro_batch_size", "parameters", "eval_windows"), 1
        )
        least |= {"context_length": 2} | dict.fromkeys(("seed", "warmup_steps", "eval_every", "save_every"), 0)
        for name, number in least.items():
            if getattr(self, name) is not None and getattr(self, name) < number:
                raise ValueError(f"{name} must be at least {number}, got {getattr(self, name)}")
        if self.max_grad_norm <= 0:
            raise ValueError(f"max_grad_norm must be above 0, got {self.max_grad_norm}")
        for name in ("dropout", "generic_share", "decay_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")

    def command(self) -> str:
        """The command line that says the same."""
        words = ["python", "scripts/train.py"]
        for setting in fields(self):
            value = getattr(self, setting.name)
            if setting.name in ("data", "output_dir", "size", "max_steps") or value != setting.default:
                flag = value is True and setting.default is False
                words += [f"--{setting.name}"] if flag else [f"--{setting.name}", str(value)]
        return shlex.join(words)


class TrainingDiverged(RuntimeError):
    """The loss is no number any more; the message says at which step, on which text, and what to try."""


def train(config: TrainConfig) -> Iterator[dict[str, Any]]:
    """Train, and yield the metrics of every step.

    Every dict has `step` (from 1), `loss` (nats a token) and `learning_rate` (factor of the full one); every
    `LOG_EVERY`th also `characters_per_second`, `utilisation` (of the device's peak) and `seconds_left`; after a
    measurement `heldout_bits_per_char`. The same lines are in `output_dir/metrics.jsonl`.

    `output_dir/last` is the newest checkpoint with all that a resume needs, `output_dir/best` the one with the fewest
    held-out bits per character (the last, where none were measured); both are plain Hugging Face folders. Closing the
    generator early, Ctrl-C and SIGTERM save first. Raises FileNotFoundError without a prepared corpus, ValueError for a
    run that is there already and is not to be resumed, or that was begun with other settings, TrainingDiverged when the
    loss is not finite.
    """
    run = _Run(config)
    try:
        yield from run.steps()
    finally:
        run.close()


class _Run:
    """What one call of `train` holds: data, model, optimizers, place."""

    def __init__(self, config: TrainConfig) -> None:
        self.folder = Path(config.output_dir)
        self.data = PreparedCorpus.open(config.data)
        state = checkpoints.load_state(self.folder) if config.resume else None
        began: dict[str, Any] = {}
        if state is None:
            checkpoints.require_room(self.folder, config.resume)
        else:
            last = checkpoints.last_folder(self.folder)
            began = checkpoints.read_record(last)
            if not began:
                raise ValueError(
                    f"{last} has no {checkpoints.RECORD} to resume by: go on from its weights with --init_from {last} "
                    "and another --output_dir"
                )
            config = _as_begun(config, began["config"])
        self.config = config
        self.accelerator = _accelerator(config)
        self.sharded = prepare_to_shard(self.accelerator)
        self.device = self.accelerator.device
        self.processes, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        if config.batch_size % self.processes:
            raise ValueError(f"batch_size {config.batch_size} must be a multiple of the {self.processes} processes")

        if self.device.type == "cpu":
            keep_freed_memory()
        torch.manual_seed(config.seed)
        self.model = self._first_model() if state is None else self._resumed_model()
        self.length = config.context_length or self.model.config.n_positions
        gpt2 = self.model.config.model_type == "gpt2"
        if not gpt2:
            self.model.config.n_positions = self.length  # an LSTM has room for any length
        room = self.model.config.n_positions
        if self.length > room:
            raise ValueError(f"context_length {self.length} is more than the {room} tokens the checkpoint has room for")
        if gpt2:
            before = 0 if state is None and config.init_from is None else trained_positions(self.model.config)
            self.model.config.trained_positions = max(self.length, before)
        self.windows = Windows(self.data, "train", self.length)
        self.order = TrainingOrder(self.windows, config.batch_size, config.seed, config.generic_share)
        self.heldout = Windows(self.data, "heldout", self.length) if self.data.heldout.size else None
        starts = is_character_start(self.data.tokenizer)
        self._counts = torch.from_numpy(starts).to(self.device)
        self._corpus = {
            "hash": self.data.hash,
            "script": self.data.manifest["script"],
            "heldout_share": self.data.manifest["heldout_share"],
            "tokens": self.data.manifest["tokens"],
            "characters": {split: int(starts[self.data.tokens(split)].sum()) for split in ("train", "heldout")},
            "titles": [novel["title"] for novel in self.data.manifest["novels"]],
        }

        self.model.to(self.device)
        if gpt2 and self.device.type == "cuda":
            attend_causally(self.model)
        elif gpt2 and not self.sharded and self.accelerator.mixed_precision == "bf16":
            attend_in_blocks(self.model)
        if self.sharded:
            agree(self.model)
        loss = LanguageModelLoss(self.model)
        optimizers = build_optimizers(loss, config)
        self.loss, *self.optimizers = self.accelerator.prepare(loss, *optimizers)
        pays = gpt2 and not self.sharded and self.device.type == "cuda" and config.max_steps >= WORTH_COMPILING
        compiled = config.compile or (config.compile is None and pays and has_triton())
        self.training_loss = torch.compile(self.loss) if compiled else self.loss  # what is measured is not compiled for
        self.full_rates = [[group["lr"] for group in o.param_groups] for o in self.optimizers]
        self.micro_batch = min(config.micro_batch_size or config.batch_size, config.batch_size // self.processes)

        self.step, self.tokens_seen, self.best, self._saved = 0, 0, math.inf, -1
        self._seen_before = began["characters_seen_before"] if began else _characters_seen(config.init_from)
        self._measured = (-1, math.inf)  # at which step last, and the bits per character
        self._measured_on = [self.length, config.eval_windows]  # what `best` was measured on
        self._pending: list[dict[str, Any]] = []
        self._batch: list[torch.Tensor] | None = None  # the newest step's
        self._half_made = False  # whether only some of the optimizers have taken the step
        if state is not None:
            self._restore(state)
        self.utilisation_unit = flops_per_token(self.model, self.length) / (peak_flops(self.device) * self.processes)

    def _first_model(self) -> PreTrainedModel:
        config = self.config
        if config.init_from is not None:
            model = model_from(config.init_from, self.data.tokenizer, config.dropout)
            shape = {name: getattr(model.config, name) for name in ("n_layer", "n_head", "n_embd")}
            if config.size != TrainConfig.size and not shape.items() <= SIZES[config.size].items():
                raise ValueError(f"{config.init_from} is not of size {config.size} but has {shape}: leave size out")
            return model
        if config.size == "lstm":
            from jinyong_gpt2.baselines import new_lstm

            model = new_lstm(self.data.tokenizer, config.parameters, config.context_length)
        else:
            model = new_model(config.size, self.data.tokenizer, config.context_length, config.dropout)
        if config.embeddings == "neighbours":
            begin_with_neighbours(model, self.data.train)
        return model

    def _resumed_model(self) -> PreTrainedModel:
        from jinyong_gpt2.baselines import open_model

        return open_model(checkpoints.last_folder(self.folder))

    def _restore(self, state: dict[str, Any]) -> None:
        if state["corpus"] != self.data.hash:
            raise ValueError(f"{self.folder} was trained on another corpus than {self.data.folder}: it cannot resume")
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            load_whole(optimizer, saved)
        self.step, self.tokens_seen = state["step"], state["tokens_seen"]
        self.best, self.micro_batch = state["best"], min(state["micro_batch"], self.micro_batch)
        self._saved = self.step
        if self.accelerator.scaler is not None and state.get("scaler"):
            self.accelerator.scaler.load_state_dict(state["scaler"])
        before = state.get("measured_on", self._measured_on)
        if not self.config.eval_every:
            self._measured_on = before
        elif before != self._measured_on and not math.isinf(self.best):
            self.best = self._measure_best()

    # ---- the loop

    def steps(self) -> Iterator[dict[str, Any]]:
        """The whole run. Left early on request it saves; left by an error it keeps the last checkpoint as it was."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            if self.accelerator.is_main_process:
                busy = f"another process is training in {self.folder}: wait for it, or choose another --output_dir"
                stack.enter_context(alone(self.folder / ".lock", busy))
                checkpoints.tidy(self.folder, self.step)
            stopped = stack.enter_context(_stop_signals())
            pool = stack.enter_context(ThreadPoolExecutor(1))
            self._log = stack.enter_context(open(self.folder / "metrics.jsonl", "a", encoding="utf-8"))
            self._board = stack.enter_context(_tensorboard(self.folder)) if self.config.tensorboard else None
            try:
                yield from self._loop(stopped, pool)
            except (GeneratorExit, KeyboardInterrupt):
                self._write(self._fetch())
                if not self._half_made:
                    self.save()
                raise
            rows = self._fetch()
            self._write(rows)
            self.save()
            if self.step >= self.config.max_steps and math.isinf(self.best):
                self._save("best")  # nothing was held out, or measured, to tell a better one by
            yield from rows

    def _loop(self, stopped: threading.Event, pool: ThreadPoolExecutor) -> Iterator[dict[str, Any]]:
        config = self.config
        upcoming = pool.submit(self._load, self.step)
        clock, clock_step, clock_tokens = time.perf_counter(), self.step, self.tokens_seen
        end = min(config.max_steps, config.stop_after or config.max_steps)
        while self.step < end and not self._agree(stopped.is_set()):
            (batch, tokens), upcoming = upcoming.result(), pool.submit(self._load, self.step + 1)
            factor = learning_rate_factor(self.step, config)
            loss = self._optimizer_step(batch, factor)
            self.step += 1
            self.tokens_seen += tokens
            self._half_made = False
            self._pending.append({"step": self.step, "loss": loss, "learning_rate": factor})
            measure = self._due(config.eval_every) or (config.eval_every and self.step == end)
            if self._due(LOG_EVERY) or measure or self._due(config.save_every):
                rows = self._fetch()
                seconds = time.perf_counter() - clock
                rows[-1] |= self._speed((self.step - clock_step) / seconds, (self.tokens_seen - clock_tokens) / seconds)
                better = False
                if measure and self.heldout is not None:
                    bits = rows[-1]["heldout_bits_per_char"] = self._measure_heldout(self.loss)
                    if not math.isfinite(bits):
                        self._report_divergence(f"the held-out loss after step {self.step}", self.step)
                    self._measured, better, self.best = (self.step, bits), bits < self.best, min(bits, self.best)
                self._write(rows)
                if better:
                    self._save("best")
                if self._due(config.save_every) or self.step == end:
                    self.save()
                yield from rows
                clock, clock_step, clock_tokens = time.perf_counter(), self.step, self.tokens_seen

    def _due(self, every: int) -> bool:
        return bool(every) and self.step % every == 0

    def _load(self, step: int) -> tuple[list[torch.Tensor], int]:
        """This process's share of a step's windows on the device: inputs and targets (B/P, L), target count ().

        And that count as a number: of the whole batch, in which short windows are padded.
        """
        rows = self.order.step(step)
        batch: Batch = self.windows.batch(rows[self.rank :: self.processes])
        # All processes divide by the same count: that of the whole batch, known from the rows alone.
        count = int((rows[:, 1] - rows[:, 0]).sum())
        tensors = [torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets), torch.tensor(float(count))]
        if self.device.type == "cuda":
            tensors = [tensor.pin_memory() for tensor in tensors]
        return [tensor.to(self.device, non_blocking=True) for tensor in tensors], count

    def _optimizer_step(self, batch: list[torch.Tensor], factor: float) -> torch.Tensor:
        """One step at `factor` of the full learning rates; the mean loss in nats, a scalar still on the device."""
        self._batch = batch
        while True:
            try:
                loss = self._backward(batch)
                break
            except torch.OutOfMemoryError:
                if self.micro_batch == 1 or self.processes > 1:
                    raise
            self._halve()  # only here, where the error holds no tensors any more
        norm = self.accelerator.clip_grad_norm_(self.loss.parameters(), self.config.max_grad_norm)
        for optimizer, rates in zip(self.optimizers, self.full_rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        scaler = self.accelerator.scaler
        # Under fp16 a gradient may overflow. It has spoiled all the others by way of the norm: no optimizer may step,
        # where the scaler would only hold back the one whose gradient it was.
        sound = scaler is None or math.isfinite(whole(norm))
        self._half_made = True
        for optimizer in self.optimizers:
            if scaler is None:
                optimizer.step()
            elif sound:  # not accelerate's own step, which updates the scaler after each: the next would unscale twice
                scaler.step(optimizer.optimizer)
        if scaler is not None:
            scaler.update()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        return loss

    def _halve(self) -> None:
        """Take half as many windows at a time, the batch being the same."""
        self.micro_batch = math.ceil(self.micro_batch / 2)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        print(f"out of memory: going on with {self.micro_batch} windows at a time, the batch stays the same")

    def _backward(self, batch: list[torch.Tensor]) -> torch.Tensor:
        inputs, targets, count = batch
        # A function of step and process, not of what came before: a resumed run drops out the same units.
        seed = np.random.SeedSequence([self.config.seed, self.step, self.rank]).generate_state(1)[0]
        torch.manual_seed(int(seed))
        self.loss.train()
        total = torch.zeros((), device=self.device)
        starts = range(0, len(inputs), self.micro_batch)
        for start in starts:
            last = start == starts[-1]
            with nullcontext() if last else self.accelerator.no_sync(self.loss):
                piece = slice(start, start + self.micro_batch)
                loss = self.training_loss(inputs[piece], targets[piece]) / count
                # DDP averages over processes what is to be a sum.
                self.accelerator.backward(loss * self.processes)
            total += loss.detach()
        return total

    # ---- measuring and logging

    def _fetch(self) -> list[dict[str, Any]]:
        """The steps since the last call with their losses as numbers, over all processes: one transfer for all."""
        rows, self._pending = self._pending, []
        if not rows:
            return rows
        losses = torch.stack([row["loss"] for row in rows])
        for i, (row, loss) in enumerate(zip(rows, self.accelerator.reduce(losses, "sum").tolist(), strict=True)):
            row["loss"] = loss
            if not math.isfinite(loss):
                self._write(rows[:i])
                self._report_divergence(f"the loss of step {row['step']}", row["step"])
        return rows

    def _report_divergence(self, what: str, step: int) -> None:
        places = [self.data.place("train", start) for start in self.order.step(step - 1)[:3, 0]]
        last = self.folder / "last"
        raise TrainingDiverged(
            f"{what} is not a finite number (first windows: {'; '.join(places)}). "
            f"Try a lower learning rate or mixed_precision='no'"
            + (f"; {last} is from before: go on from there with --resume." if last.is_dir() else ".")
        )

    @torch.no_grad()
    def _require_sound_weights(self) -> None:
        """Raise TrainingDiverged rather than replace a good checkpoint: a step's loss is of the weights before it."""
        if self._batch is None or self._measured[0] == self.step:  # the held-out loss has told already
            return
        inputs, targets, _ = self._batch
        self.loss.eval()
        loss = self.loss(inputs[: self.micro_batch], targets[: self.micro_batch])
        if not math.isfinite(self.accelerator.reduce(loss, "sum").item()):
            self._report_divergence(f"the loss after step {self.step}", self.step)

    def _measure_best(self) -> float:
        """What `best` holds, measured on this run's windows: its figure is of windows of another length or number."""
        from jinyong_gpt2.baselines import open_model

        folder = self.folder / "best"
        if self.heldout is None or not folder.is_dir():
            return math.inf
        if self.accelerator.is_main_process:
            print(f"measuring {folder} on this run's windows: it was measured on others")
        with self.accelerator.autocast():
            return self._measure_heldout(LanguageModelLoss(open_model(folder, self.device)))

    @torch.no_grad()
    def _measure_heldout(self, loss: torch.nn.Module) -> float:
        """Bits per character over evenly spread held-out windows, without overlap; each process measures its share."""
        rows = self.heldout.in_order()
        wanted = np.linspace(0, len(rows) - 1, min(self.config.eval_windows, len(rows))).round().astype(int)
        rows = rows[wanted]
        share = rows[self.rank :: self.processes]
        # Sharded processes go through the model together: one with a window less takes one that does not count.
        taken = np.concatenate([share, rows[: math.ceil(len(rows) / self.processes) - len(share)]])
        totals = torch.zeros(2, dtype=torch.float64, device=self.device)
        loss.eval()
        for start in range(0, len(taken), self.micro_batch):
            batch = self.heldout.batch(taken[start : start + self.micro_batch])
            batch.targets[max(len(share) - start, 0) :] = IGNORE
            inputs, targets = (torch.from_numpy(a).to(self.device) for a in (batch.inputs, batch.targets))
            totals[0] += loss(inputs, targets)
            totals[1] += self._counts[targets[targets >= 0]].sum()
        nats, characters = self.accelerator.reduce(totals, "sum").tolist()
        return nats / math.log(2) / characters

    def _speed(self, steps_per_second: float, characters_per_second: float) -> dict[str, float]:
        computed = steps_per_second * self.config.batch_size * self.length  # the ends of short windows, too
        return {
            "characters_per_second": characters_per_second,
            "utilisation": computed * self.utilisation_unit,
            "seconds_left": (self.config.max_steps - self.step) / steps_per_second,
        }

    def _write(self, rows: list[dict[str, Any]]) -> None:
        if not rows or not self.accelerator.is_main_process:
            return
        for row in rows:
            self._log.write(json.dumps(row) + "\n")
            if self._board is not None:
                for name, value in row.items():
                    self._board.add_scalar(name, value, row["step"])
        self._log.flush()

    def save(self) -> None:
        """Write `last`: model, tokenizer and everything a resume needs."""
        if self._saved == self.step:
            return
        self._require_sound_weights()
        state = {
            "step": self.step,
            "tokens_seen": self.tokens_seen,
            "best": self.best,
            "measured_on": self._measured_on,
            "micro_batch": self.micro_batch,
            "corpus": self.data.hash,
            "optimizers": [whole(o.state_dict(), self.accelerator.is_main_process) for o in self.optimizers],
            "scaler": self.accelerator.scaler and self.accelerator.scaler.state_dict(),
        }
        self._save("last", state)
        self._saved = self.step

    def _save(self, name: str, state: dict[str, Any] | None = None) -> None:
        """Write a checkpoint: the first process does, with the weights of all where they are sharded."""
        writes = self.accelerator.is_main_process
        weights = whole(dict(self.model.named_parameters()), writes) if self.sharded else None
        if writes:
            checkpoints.save(self.folder / name, self.model, self.data.tokenizer, self._texts(), state, weights)

    def _texts(self) -> dict[str, str]:
        """What is written beside a checkpoint: where it comes from, for programs and for people."""
        measured_at, bits = self._measured
        record = {
            "config": asdict(self.config),
            "command": self.config.command(),
            "versions": {name: _version(name) for name in ("jinyong_gpt2", "torch", "transformers")},
            "step": self.step,
            "parameters": parameter_count(self.model),
            "characters_seen": self.tokens_seen,
            "characters_seen_before": self._seen_before,
            "heldout_bits_per_char": bits if measured_at == self.step else None,
            "best_heldout_bits_per_char": None if math.isinf(self.best) else self.best,
            "corpus": self._corpus,
        }
        lines = json.dumps(record, ensure_ascii=False, indent=1) + "\n"
        return {checkpoints.RECORD: lines, "README.md": model_card(record, self.model.config)}

    def _agree(self, stopped: bool) -> bool:
        """Whether any process was asked to stop: one alone knows at once, many ask each other now and then."""
        if self.processes == 1 or self.step % LOG_EVERY:
            return stopped and self.processes == 1
        return bool(self.accelerator.reduce(torch.tensor(float(stopped), device=self.device), "sum").item())

    def close(self) -> None:
        self.accelerator.free_memory()
        if self.training_loss is not self.loss:
            torch.compiler.reset()  # torch compiles only so many models of one class in a process
        self.accelerator.end_training()


def _accelerator(config: TrainConfig) -> Accelerator:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    on_cpu = config.device == "cpu" or not torch.cuda.is_available()
    if config.device == "cuda" and on_cpu:
        raise ValueError('no CUDA device on this machine: use device="auto" or "cpu"')
    precision = config.mixed_precision
    if precision == "fp16" and on_cpu:
        raise ValueError("fp16 is for a GPU: mixed_precision must be auto, bf16 or no on a CPU")
    if precision == "auto":
        quick = product_dtype(torch.device("cpu" if on_cpu else "cuda"))
        precision = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "no"}[quick]
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        # Accelerate remembers the first run's precision for the whole process; in a notebook the next may have another.
        AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(mixed_precision=precision, cpu=on_cpu)


def _as_begun(config: TrainConfig, began: dict[str, Any]) -> TrainConfig:
    """`config` with what a run was begun with and keeps. ValueError where it asks for something else."""
    changed = {name: began[name] for name in ("size", *KEPT) if getattr(config, name) != began[name]}
    defaults = {setting.name: setting.default for setting in fields(TrainConfig)}
    for name, value in changed.items():
        if name == "size" or getattr(config, name) != defaults[name]:
            again = f"leave --{name} out" if value == defaults[name] else f"go on with --{name} {value}"
            raise ValueError(
                f"{config.output_dir} holds a run of {name} {value}, not {getattr(config, name)}: "
                f"{again}, or choose another --output_dir"
            )
    return replace(config, **changed)


def _characters_seen(folder: str | None) -> int | None:
    """How many characters the checkpoint that a run begins from has seen in all; None where nobody knows."""
    known = checkpoints.read_record(folder) if folder is not None else {}
    seen = known.get("characters_seen")
    return None if seen is None else seen + (known.get("characters_seen_before") or 0)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # used from its folder, not installed
        return None


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that a step ends before the run does; a second Ctrl-C does not wait.

    Elsewhere than in the main thread (a notebook's worker, say) signals stay as they are.
    """

    def heed(number: int, frame: Any) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    event, main = threading.Event(), threading.current_thread() is threading.main_thread()
    signals = (signal.SIGINT, signal.SIGTERM) if main else ()
    previous = {number: signal.signal(number, heed) for number in signals}
    try:
        yield event
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _tensorboard(folder: Path) -> Iterator[Any]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("tensorboard is not installed: pip install tensorboard") from error
    with SummaryWriter(str(folder / "tensorboard")) as writer:
        yield writer
