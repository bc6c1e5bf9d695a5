"""Causal attention for training, over whole texts without padding before them.

On a CPU in bf16 block by block, no query with keys that come after its block: a few batched products over blocks of 64
queries take about half the time of PyTorch's own kernel for a CPU, forward and backward (BENCHMARKS.md). On a GPU by
PyTorch's kernel, told that attention is causal instead of given a mask. The numbers are those of plain attention, to
rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import dropout as drop
from torch.nn.functional import pad

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

BLOCK = 64  # queries at a time: fewer cost calls, more cost keys that are masked


def causal_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, dropout: float = 0.0
) -> torch.Tensor:
    """softmax(query · keyᵀ · scaling) · value over this and earlier places: (N, T, D) each, and the result too."""
    query, key = query * scaling, key.transpose(1, 2)
    length = query.shape[1]
    future = torch.full((BLOCK, BLOCK), float("-inf"), dtype=query.dtype, device=query.device).triu(1)
    results = []
    for start in range(0, length, BLOCK):
        stop = min(start + BLOCK, length)
        rows = stop - start
        mask = pad(future[:rows, :rows], (start, 0))  # (rows, stop)
        weights = torch.baddbmm(mask, query[:, start:stop], key[:, :, :stop]).softmax(-1)
        weights = drop(weights, dropout) if dropout else weights
        results.append(weights @ value[:, :stop])
    return torch.cat(results, dim=1)


def attend_in_blocks(model: GPT2LMHeadModel) -> None:
    """Let `model` compute attention so wherever it runs in bf16 over whole texts.

    In another precision, with padding or with a cache it goes on as before. Only this object changes; nothing of it is
    saved.
    """
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    def attention(module, query, key, value, mask, **options):  # (B, H, T, D) each → (B, T, H, D)
        if query.dtype != torch.bfloat16 or mask is not None or query.shape != key.shape:
            return sdpa_attention_forward(module, query, key, value, mask, **options)
        flat = [tensor.flatten(0, 1) for tensor in (query, key, value)]
        scaling = options.get("scaling") or query.shape[-1] ** -0.5
        result = causal_attention(*flat, scaling, options.get("dropout") or 0.0)
        return result.view(query.shape).transpose(1, 2).contiguous(), None

    AttentionInterface.register("blockwise", attention)
    AttentionMaskInterface.register("blockwise", sdpa_mask)
    model.set_attn_implementation("blockwise")


def attend_causally(model: GPT2LMHeadModel) -> None:
    """Let `model` attend to all that came before, whatever it is given: no mask is made, and no padding looked for.

    transformers asks every batch for packed texts, for which a GPU is waited for; a compiled step, which cannot ask,
    makes a mask, and with one there is no flash attention. Only this object changes; nothing of it is saved.
    """
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    AttentionInterface.register("causal", sdpa_attention_forward)  # and no mask of this name: it gets none
    model.set_attn_implementation("causal")
