"""What a model knows by heart: greedy continuations that are the text itself, after a prompt or over a whole training.

    extractable_shares(model, prepared)            # of training and of held-out text
    for row in memorization_curve(config):         # the same at every checkpoint of a training run
        print(row)

An n-gram of the language itself can be guessed without having seen the text; so the held-out share is the control.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jinyong_gpt2.baselines import open_model
from jinyong_gpt2.dataset import PreparedCorpus
from jinyong_gpt2.evaluation import held_out, score_model
from jinyong_gpt2.model import trained_positions

if TYPE_CHECKING:
    import torch

    from jinyong_gpt2.training import TrainConfig


def exact_runs(model: torch.nn.Module, prompts: np.ndarray, truths: np.ndarray, batch_size: int = 16) -> np.ndarray:
    """(N,) how many tokens the model's greedy continuation of each prompt agrees with what really follows.

    `prompts` (N, P) and `truths` (N, T) are token ids, a control token first in every prompt. A sequence with a run of
    at least n is extractable with n tokens (Carlini et al. 2021, "Extracting Training Data from Large Language Models",
    and 2023, "Quantifying Memorization", section 3). As long as a greedy continuation agrees, what it has written is
    what stands in the text: so one forward pass over prompt and truth tells, and nothing has to be generated.
    """
    import torch

    wanted, learnt = prompts.shape[1] + truths.shape[1] - 1, trained_positions(model.config)
    if wanted > learnt:
        raise ValueError(f"prompt and truth take {wanted} positions, the model has learnt {learnt}")
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    runs = []
    try:
        with torch.inference_mode():
            for first in range(0, len(prompts), batch_size):
                rows = slice(first, first + batch_size)
                truth = torch.from_numpy(truths[rows].astype(np.int64)).to(device)  # (B, T)
                prompt = torch.from_numpy(prompts[rows].astype(np.int64)).to(device)  # (B, P)
                inputs = torch.cat([prompt, truth[:, :-1]], dim=1)
                logits = model(input_ids=inputs, use_cache=False, logits_to_keep=truth.shape[1]).logits  # (B, T, V)
                right = logits.argmax(-1) == truth  # (B, T)
                runs.append(right.long().cumprod(dim=1).sum(dim=1).cpu().numpy())
    finally:
        model.train(was_training)
    return np.concatenate(runs) if runs else np.zeros(0, np.int64)


def draw_examples(
    prepared: PreparedCorpus,
    split: str,
    count: int = 200,
    prompt_tokens: int = 50,
    truth_tokens: int = 50,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Prompts (N, 1 + prompt_tokens), control token first, and what follows them (N, truth_tokens).

    Places are drawn evenly over the chapters' tokens with `seed`, without repeats, so that no example crosses a
    chapter's end; fewer than `count` where there are not as many places. Raises ValueError where there is none.
    """
    wanted = prompt_tokens + truth_tokens
    segments = [segment for segment in prepared.segments(split, by_chapter=True) if len(segment) >= wanted]
    places = [np.arange(segment.start, segment.stop - wanted + 1) for segment in segments]
    if not places:
        raise ValueError(f"{prepared.folder} has no {split} chapter of {wanted} tokens to draw examples from")
    controls = np.repeat([segment.control_id for segment in segments], [len(some) for some in places])
    every = np.concatenate(places)
    chosen = np.sort(np.random.default_rng(seed).choice(len(every), min(count, len(every)), replace=False))
    tokens = prepared.tokens(split)
    rows = np.stack([tokens[place : place + wanted] for place in every[chosen]]).astype(np.int64)  # (N, P + T)
    prompts = np.concatenate([controls[chosen, None], rows[:, :prompt_tokens]], axis=1)
    return prompts, rows[:, prompt_tokens:]


def extractable_shares(
    model: torch.nn.Module,
    prepared: PreparedCorpus,
    lengths: Sequence[int] = (10, 20, 50),
    count: int = 200,
    prompt_tokens: int = 50,
    seed: int = 0,
) -> dict[str, dict[int, float]]:
    """For training and held-out text the share of prompts whose greedy continuation is exact for n tokens, for each n.

    >>> extractable_shares(model, prepared)
    {'train': {10: 0.12, 20: 0.04, 50: 0.0}, 'heldout': {10: 0.0, 20: 0.0, 50: 0.0}}
    """
    shares: dict[str, dict[int, float]] = {}
    for split in ("train", "heldout"):
        prompts, truths = draw_examples(prepared, split, count, prompt_tokens, max(lengths), seed)
        runs = exact_runs(model, prompts, truths)
        shares[split] = {n: float(np.mean(runs >= n)) for n in lengths}
    return shares


def memorization_curve(
    config: TrainConfig,
    lengths: Sequence[int] = (10, 20, 50),
    count: int = 200,
    prompt_tokens: int = 50,
    max_chars: int | None = 20_000,
) -> Iterator[dict[str, Any]]:
    """Train by `config`, and at each of its checkpoints (every `save_every` steps) yield what was learnt so far.

    A row has `step`, `epochs`, the bits per character of about `max_chars` `heldout` and `train` characters, and the
    shares of `extractable_shares` under `extractable`. Memorising begins where the training share leaves the held-out
    one. Raises ValueError where the run would save no checkpoint on the way, or reads fewer tokens than that takes.
    """
    from jinyong_gpt2.training import train
    from jinyong_gpt2.watching import progress

    if config.save_every < 1:
        raise ValueError("save_every must be at least 1: every checkpoint is a point of the curve")
    if config.context_length is not None and config.context_length < (wanted := prompt_tokens + max(lengths)):
        raise ValueError(f"context_length must be at least {wanted}: so long are the texts it is to know by heart")
    prepared = PreparedCorpus.open(config.data)
    measured = {split: held_out(prepared, split, max_chars) for split in ("train", "heldout")}
    for metrics in progress(train(config), config.max_steps):
        if metrics["step"] % config.save_every and metrics["step"] != config.max_steps:
            continue
        model = open_model(Path(config.output_dir) / "last", config.device)
        length = config.context_length or model.config.n_positions
        row: dict[str, Any] = {
            "step": metrics["step"],
            "epochs": metrics["step"] * config.batch_size * length / len(prepared.train),
        }
        for split, pieces in measured.items():
            score = score_model(split, model, prepared.tokenizer, pieces, prepared, context_length=length)
            row[split] = score.bits_per_char
        shares = extractable_shares(model, prepared, lengths, count, prompt_tokens)
        yield row | {"extractable": shares}
