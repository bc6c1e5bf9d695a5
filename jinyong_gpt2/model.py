"""GPT-2 in the sizes this project speaks of, always a stock Hugging Face `GPT2LMHeadModel`.

>>> model = new_model("mini", tokenizer)
>>> parameter_count(model)
5_900_000  # or so: the vocabulary decides
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import GPT2LMHeadModel, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

PRETRAINED = Path(__file__).resolve().parent.parent / "data" / "pretrained"

SIZES: dict[str, dict[str, int]] = {
    # The article's: 82M parameters with its vocabulary of 13,317.
    "jinyong": {"n_layer": 10, "n_head": 12, "n_embd": 768, "n_positions": 1024},
    # Layers and heads as in the article, so that the views look the same, and narrow enough for a CPU.
    "mini": {"n_layer": 10, "n_head": 12, "n_embd": 192, "n_positions": 512},
    # For tests: everything there is, as small as can be.
    "testing": {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 64},
    # Radford et al. 2019, table 2, by their published weights.
    "gpt2": {"n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024},
    "gpt2-medium": {"n_layer": 24, "n_head": 16, "n_embd": 1024, "n_positions": 1024},
    "gpt2-large": {"n_layer": 36, "n_head": 20, "n_embd": 1280, "n_positions": 1024},
    "gpt2-xl": {"n_layer": 48, "n_head": 25, "n_embd": 1600, "n_positions": 1024},
}


def new_model(
    size: str, tokenizer: PreTrainedTokenizerFast, context_length: int | None = None, dropout: float = 0.0
) -> GPT2LMHeadModel:
    """A GPT-2 with random weights for this tokenizer, seeded by torch's global generator.

    `context_length` (tokens, the control token counted) is room for at least so many, where that is more than the
    size's own; `dropout` is used in all three places GPT-2 has one. Raises ValueError for an unknown size.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}: choose one of {', '.join(SIZES)}")
    shape = dict(SIZES[size])
    if context_length is not None:
        shape["n_positions"] = max(context_length, shape["n_positions"])
    config = GPT2Config(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        activation_function="gelu_pytorch_tanh",  # GPT-2's own "gelu_new", as one operator
        **shape,
    )
    model = GPT2LMHeadModel(config)
    # For `generate` alone: with it in the model's own config every forward pass would look for padding, and so wait for
    # the GPU.
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return model


def trained_positions(config: PretrainedConfig | Mapping[str, Any]) -> int:
    """How many tokens a model has learnt to read at once: its room (`n_positions`), unless its training noted fewer.

    `new_model` makes room for longer windows than a run may ever use; places beyond are random. The note stands in
    `config.json`, which other programs pass over.
    """
    values = config if isinstance(config, Mapping) else vars(config)
    return min(values.get("trained_positions", values["n_positions"]), values["n_positions"])


def load_model(folder: str | os.PathLike[str], **options: Any) -> GPT2LMHeadModel:
    """The GPT-2 of a Hugging Face folder, in float32 unless `options` (of `from_pretrained`) say otherwise.

    Raises ValueError where its weights are damaged or do not fit its configuration.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import GPT2LMHeadModel

    try:
        with quietly():
            return GPT2LMHeadModel.from_pretrained(folder, **{"dtype": torch.float32, **options})
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"the weights in {folder} are damaged or do not fit its config.json: {reason}") from error


@contextmanager
def quietly() -> Iterator[None]:
    """Without transformers' own progress bars, which would break up ours, and the text that is being streamed."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def parameter_count(model: torch.nn.Module) -> int:
    """Trainable numbers in `model`; the output layer shares the embedding's and is not counted twice."""
    return sum(parameter.numel() for parameter in model.parameters())


def flops_per_token(model: PreTrainedModel, context_length: int) -> float:
    """Floating-point operations of a forward and backward pass, a token (Chowdhery et al. 2022, appendix B).

    Six a weight that multiplies: the matrices inside a GPT-2 or an LSTM and the output layer, not the embedding
    look-ups; and the attention's own products, of which the causal mask needs half.
    """
    look_ups_and_output = ("wte.", "wpe.", "lm_head.")
    inside = [p for name, p in model.named_parameters() if not any(part in name for part in look_ups_and_output)]
    matrices = sum(p.numel() for p in [*inside, model.lm_head.weight] if p.ndim == 2)
    config = model.config
    attention = config.n_layer * config.n_embd * context_length if config.model_type == "gpt2" else 0
    return 6 * (matrices + attention)
