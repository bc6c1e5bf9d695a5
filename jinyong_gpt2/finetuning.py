"""Fine-tuning: another checkpoint's weights under this corpus's vocabulary.

    >>> model = model_from("data/pretrained", tokenizer)   # a tokenizer with other characters and other novels

The blocks are taken over as they are. Embeddings go by the token's own text: what both vocabularies know keeps its
row, and a token the old one lacks begins as the mean of its UTF-8 bytes' rows, or of all rows where the old vocabulary
has no byte tokens. So a user's novels continue from the bundled checkpoint, from any Hugging Face GPT-2 folder, or from
a GPT2-Chinese one (`vocab.txt`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from jinyong_gpt2.model import load_model
from jinyong_gpt2.tokenizer import GENERIC_TOKEN

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json")  # where a checkpoint keeps its own
# What a BERT-style vocabulary (GPT2-Chinese's) calls our tokens: what begins a text, and a line's end.
BERT_NAMES = {GENERIC_TOKEN: "[CLS]", "\n": "[SEP]"}


def model_from(
    folder: str | os.PathLike[str], tokenizer: PreTrainedTokenizerFast, dropout: float | None = None
) -> GPT2LMHeadModel:
    """The model of a checkpoint, in float32, with the vocabulary of `tokenizer`.

    `dropout` replaces the checkpoint's own where given. Raises FileNotFoundError where there is no checkpoint, or none
    with a tokenizer, ValueError where it is no GPT-2.
    """
    from transformers import GPT2Config

    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"no checkpoint in {folder} (config.json is missing): init_from is a Hugging Face folder"
        )
    values = GPT2Config.get_config_dict(folder)[0]
    # Before transformers 3 a config.json did not name its model: GPT2-Chinese's do not.
    kind = values.get("model_type", "gpt2" if {"n_embd", "n_layer", "n_head"} <= set(values) else None)
    if kind != "gpt2":
        raise ValueError(f"{folder} holds a {kind} model: only a GPT-2 can be fine-tuned")
    config = GPT2Config.from_pretrained(folder)
    if dropout is not None:
        config.resid_pdrop = config.embd_pdrop = config.attn_pdrop = dropout
    model = load_model(folder, config=config)
    known = _vocabulary(folder)
    tables = [model.get_input_embeddings(), model.get_output_embeddings()]  # one and the same where they are tied
    old = [table.weight.detach().clone() for table in tables]  # (V_old, C) each
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    with torch.no_grad():
        for table, rows in zip((model.get_input_embeddings(), model.get_output_embeddings()), old, strict=True):
            table.weight.copy_(_rows(rows, known, tokenizer))
    model.config.bos_token_id = model.config.eos_token_id = tokenizer.bos_token_id
    model.config.pad_token_id = None  # see new_model
    model.generation_config.bos_token_id = model.generation_config.eos_token_id = tokenizer.bos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def _vocabulary(folder: Path) -> dict[str, int]:
    """Token → id of a checkpoint, from its tokenizer or from a bare `vocab.txt`, a token a line."""
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise FileNotFoundError(f"{folder} has no tokenizer: copy its {' or '.join(VOCABULARIES)} there")
    if (folder / "vocab.txt").is_file() and not (folder / "tokenizer.json").is_file():
        tokens = (folder / "vocab.txt").read_text(encoding="utf-8").split("\n")  # U+2028 ends no line here
        return {token.rstrip("\r"): i for i, token in enumerate(tokens) if token.rstrip("\r")}
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder).get_vocab()


def _rows(old: torch.Tensor, known: dict[str, int], tokenizer: PreTrainedTokenizerFast) -> torch.Tensor:
    """(V, C): the new vocabulary's embeddings out of the old one's (V_old, C)."""
    known = {token: i for token, i in known.items() if i < len(old)}
    mean = old.mean(dim=0)
    generic = known.get(GENERIC_TOKEN)
    rows = mean.repeat(len(tokenizer), 1)
    for token, i in tokenizer.get_vocab().items():
        place = known.get(token, known.get(BERT_NAMES.get(token, token)))
        if place is not None:
            rows[i] = old[place]
        elif token.startswith("<|") and generic is not None:  # a novel not met before begins as no particular one
            rows[i] = old[generic]
        elif len(token) == 1:
            pieces = [known.get(f"<0x{byte:02X}>") for byte in token.encode("utf-8")]
            if None not in pieces:
                rows[i] = old[pieces].mean(dim=0)
    return rows
