"""What came before GPT-2: an LSTM like the earlier article's, trained by the same trainer on the same windows as GPT-2.

    model = new_lstm(tokenizer)                          # embedding 512, one layer of 1,024 units
    model = new_lstm(tokenizer, parameters=5_900_000)    # as many parameters as a GPT-2, in the same proportions
    train(TrainConfig(size="lstm", parameters=5_900_000, …))
    model = open_model("checkpoints/lstm/best")

It answers to the names of a Hugging Face causal language model, so everything that trains or measures GPT-2 trains and
measures it too.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from jinyong_gpt2.devices import resolve_device
from jinyong_gpt2.model import load_model, quietly, trained_positions
from jinyong_gpt2.sampling import Settings, apply_temperature, candidate_generator, draw, top_p

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class LSTMConfig(PretrainedConfig):
    """The shape of an `LSTMLMHeadModel`. `n_positions` is how far it was trained to read; the network has no limit."""

    model_type = "character-lstm"

    def __init__(
        self,
        vocab_size: int = 4330,
        n_embd: int = 512,
        n_units: int = 1024,
        n_layer: int = 1,
        n_positions: int = 512,
        **kwargs: Any,
    ):
        self.vocab_size, self.n_embd, self.n_units, self.n_layer = vocab_size, n_embd, n_units, n_layer
        self.n_positions = n_positions
        super().__init__(**{"tie_word_embeddings": False, **kwargs})  # transformers 4 ties them unless told


class LSTMLMHeadModel(PreTrainedModel):
    """Embedding, LSTM (Hochreiter & Schmidhuber 1997), and a layer that gives every token's logit."""

    config_class = LSTMConfig
    main_input_name = "input_ids"

    def __init__(self, config: LSTMConfig):
        super().__init__(config)
        self.wte = torch.nn.Embedding(config.vocab_size, config.n_embd)
        self.lstm = torch.nn.LSTM(config.n_embd, config.n_units, config.n_layer, batch_first=True)
        self.lm_head = torch.nn.Linear(config.n_units, config.vocab_size)
        self.post_init()

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self.wte

    def _init_weights(self, module: torch.nn.Module) -> None:
        """PyTorch's own beginning is good for an LSTM; the embedding starts small, as in GPT-2."""
        if isinstance(module, torch.nn.Embedding):
            torch.nn.init.normal_(module.weight, std=0.02)

    def forward(
        self,
        input_ids: torch.Tensor,
        past_key_values: tuple[torch.Tensor, torch.Tensor] | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """`input_ids` (B, L) to logits (B, L or kept, V); `past_key_values` is the state (h, c) of what came before."""
        hidden, state = self.lstm(self.wte(input_ids), past_key_values)  # (B, L, units)
        logits = self.lm_head(hidden[:, -logits_to_keep:])
        return CausalLMOutputWithPast(logits=logits, past_key_values=state if use_cache else None)


def new_lstm(
    tokenizer: PreTrainedTokenizerFast, parameters: int | None = None, context_length: int | None = None
) -> LSTMLMHeadModel:
    """The article's LSTM for this vocabulary, or one of the same proportions with about `parameters` parameters.

    It is to read `context_length` tokens, 512 if not given. Random weights from torch's global generator. Raises
    ValueError for fewer parameters than one unit takes.
    """
    size = len(tokenizer)
    units = 1024
    if parameters is not None:
        # embedding V·u/2, LSTM 4(u·u/2 + u·u + 2u), output u·V + V: 6u² + (1.5V + 8)u + V = parameters
        linear = 1.5 * size + 8
        units = int((-linear + math.sqrt(linear**2 + 24 * max(parameters - size, 0))) / 12)
        if units < 2:
            raise ValueError(f"{parameters:,} parameters are too few for a vocabulary of {size:,}")
        units -= units % 2
    config = LSTMConfig(
        vocab_size=size, n_embd=units // 2, n_units=units, n_positions=context_length or 512,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return LSTMLMHeadModel(config)


def open_model(folder: str | os.PathLike[str], device: str | torch.device = "cpu") -> PreTrainedModel:
    """The GPT-2 or LSTM of a folder, in float32, ready to be measured; `device` as `resolve_device` takes it.

    Raises FileNotFoundError where there is none.
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"no checkpoint in {folder}: train one with scripts/train.py, or use data/pretrained")
    kind = PretrainedConfig.get_config_dict(folder)[0].get("model_type")
    with quietly():
        model = LSTMLMHeadModel.from_pretrained(folder).float() if kind == LSTMConfig.model_type else load_model(folder)
    return model.to(resolve_device(device)).eval()


@torch.inference_mode()
def continuations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    contexts: Sequence[tuple[int, Sequence[int]]],
    max_new_tokens: int = 200,
    temperature: float = Settings.temperature,
    nucleus: float = Settings.top_p,
    seed: int = 0,
    context_length: int | None = None,
) -> list[str]:
    """Continue each context (control id, token ids), GPT-2 and LSTM by the same plain loop: candidate i of `seed`.

    Contexts of one length are written side by side. A context too long to be continued within `context_length` tokens
    (`trained_positions` of the model if not given) loses its beginning. Control tokens are never written.
    """
    controls = (i for i, token in tokenizer.added_tokens_decoder.items() if token.special)
    special = torch.tensor(sorted({*tokenizer.all_special_ids, *controls}), device=model.device)
    longest = context_length or trained_positions(model.config)
    room = longest - max_new_tokens - 1
    if room < 1:
        raise ValueError(f"{max_new_tokens} new tokens leave no room for a context: at most {longest - 2}")
    prompts = [[control, *ids[-room:]] for control, ids in contexts]
    written: list[list[int]] = [[] for _ in prompts]
    model.eval()
    for length in sorted(set(map(len, prompts))):
        rows = [i for i, prompt in enumerate(prompts) if len(prompt) == length]
        generators = [candidate_generator(seed, i) for i in rows]
        inputs, past = torch.tensor([prompts[i] for i in rows], device=model.device), None  # (B, P)
        for _ in range(max_new_tokens):
            outputs = model(input_ids=inputs, past_key_values=past, use_cache=True, logits_to_keep=1)
            logits, past = outputs.logits[:, -1].float(), outputs.past_key_values  # (B, V)
            logits = logits.index_fill(-1, special, -math.inf)
            chosen = draw(top_p(apply_temperature(logits, temperature), nucleus).cpu(), generators)
            for i, token in zip(rows, chosen, strict=True):
                written[i].append(token)
            inputs = torch.tensor(chosen, device=model.device)[:, None]  # (B, 1)
    return [tokenizer.decode(ids) for ids in written]
