"""Checkpoints on disk: plain Hugging Face folders, written beside and renamed, so that a kill leaves a whole one.

`last/` also holds `training_state.pt`, what a resume needs; every folder holds `training.json`, where it comes from,
and the model card made of it.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from jinyong_gpt2.files import write_whole
from jinyong_gpt2.model import quietly
from jinyong_gpt2.tokenizer import save_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

STATE = "training_state.pt"


def save(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    texts: dict[str, str],
    state: dict[str, Any] | None = None,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Write a checkpoint to `folder`, replacing an older one only when the new one is whole.

    `texts` are the files to go beside it, name → content; `weights` replace those that `model` holds.
    """
    new, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    with quietly():
        model.save_pretrained(new, state_dict=weights)
    save_tokenizer(tokenizer, new)
    for name, text in texts.items():
        (new / name).write_text(text, encoding="utf-8")
    if state is not None:
        torch.save(state, new / STATE)
    # A folder cannot replace another in one move: between the two renames the old one is still there under its
    # second name, where `last_folder` finds it.
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def last_folder(output_dir: Path) -> Path | None:
    """The newest whole checkpoint of a run that can be resumed, or None."""
    candidates = (output_dir / "last", output_dir / "last.old")
    return next((folder for folder in candidates if (folder / STATE).is_file()), None)


def load_state(output_dir: Path) -> dict[str, Any] | None:
    """The training state of the newest checkpoint, on the CPU, or None where there is nothing to resume."""
    folder = last_folder(output_dir)
    return None if folder is None else torch.load(folder / STATE, map_location="cpu", weights_only=True)


def trim_metrics(path: Path, step: int) -> None:
    """Drop the lines of `metrics.jsonl` that come after `step`, and a half-written last one."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except json.JSONDecodeError:
            break
    write_whole(path, "".join(kept))
