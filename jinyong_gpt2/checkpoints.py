"""Checkpoints on disk: plain Hugging Face folders, written beside and renamed, so that a kill leaves a whole one.

`last/` also holds `training_state.pt`, what a resume needs; every folder holds `training.json`, where it comes from,
and the model card made of it.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from jinyong_gpt2.files import read_json, wait_for_disk, write_whole
from jinyong_gpt2.model import quietly
from jinyong_gpt2.tokenizer import save_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

STATE = "training_state.pt"
RECORD = "training.json"


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
    new, old = folder.with_name(folder.name + ".new"), _second_name(folder)
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        with quietly():
            model.save_pretrained(new, state_dict=weights)
        save_tokenizer(tokenizer, new)
        for name, text in texts.items():
            (new / name).write_text(text, encoding="utf-8")
        if state is not None:
            torch.save(state, new / STATE)
        for path in new.iterdir():
            wait_for_disk(path)
    except BaseException as error:
        shutil.rmtree(new, ignore_errors=True)  # it would fill the disk further
        if isinstance(error, RuntimeError | SafetensorError):  # what torch and safetensors make of a full disk
            raise OSError(f"{folder} could not be written, is the disk full? {error}".splitlines()[0]) from error
        raise
    # A folder cannot replace another in one move: between the two renames the old one is still there under its
    # second name, where `last_folder` finds it.
    _restore_name(folder)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def _second_name(folder: Path) -> Path:
    return folder.with_name(folder.name + ".old")


def _restore_name(folder: Path) -> None:
    """Give back its name to a checkpoint that a kill between two renames has left under its second one alone."""
    if not folder.exists() and _second_name(folder).exists():
        os.replace(_second_name(folder), folder)


def tidy(output_dir: Path, step: int) -> None:
    """Make a run's folder ready to go on after `step`: whole checkpoints under their names, no metrics beyond it."""
    for name in ("last", "best"):
        _restore_name(output_dir / name)
    trim_metrics(output_dir / "metrics.jsonl", step)


def require_room(output_dir: Path, resume: bool) -> None:
    """ValueError where a new run in this folder would replace what is there.

    A run that was killed before its first save has only `best`, which `resume` lets it make anew.
    """
    last, best = output_dir / "last", output_dir / "best"
    if last_folder(output_dir) is not None:
        raise ValueError(f"{output_dir} holds a run already: add --resume, or choose another --output_dir")
    if last.exists():
        raise ValueError(f"{last} has no {STATE} to resume from and would be replaced: choose another --output_dir")
    if best.exists() and not resume:
        raise ValueError(f"{best} would be replaced: choose another --output_dir, or add --resume")


def last_folder(output_dir: Path) -> Path | None:
    """The newest whole checkpoint of a run that can be resumed, or None."""
    candidates = (output_dir / "last", output_dir / "last.old")
    return next((folder for folder in candidates if (folder / STATE).is_file()), None)


def load_state(output_dir: Path) -> dict[str, Any] | None:
    """The training state of the newest checkpoint, on the CPU, or None where there is nothing to resume.

    Raises ValueError where it is damaged.
    """
    folder = last_folder(output_dir)
    if folder is None:
        return None
    try:
        return torch.load(folder / STATE, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{folder / STATE} is damaged: go on from its weights with --init_from {folder} and another --output_dir"
        ) from error


def read_record(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What its run recorded of a checkpoint in `training.json`; nothing of one from elsewhere.

    Raises ValueError where the file is damaged.
    """
    path = Path(folder) / RECORD
    record = read_json(path) if path.is_file() else {}
    return record if isinstance(record, dict) else {}


def trim_metrics(path: Path, step: int) -> None:
    """Drop the lines of `metrics.jsonl` that come after `step`, and a half-written last one."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError, TypeError):
            break
    write_whole(path, "".join(kept))
