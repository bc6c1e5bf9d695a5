"""What moves the weights: Muon for the matrices, AdamW for the rest, and a learning rate over the steps.

Muon (Jordan et al. 2024; torch.optim.Muon) takes the momentum of a weight matrix and makes it nearly orthogonal, so
that no direction of the matrix is left behind. Embeddings, norms and biases are no such matrices and stay with AdamW
(Loshchilov & Hutter 2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from jinyong_gpt2.training import TrainConfig


def build_optimizers(model: torch.nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """The optimizers of `config.optimizer` for every parameter of `model`, each at its full learning rate.

    `muon` is Muon for the matrices of a GPT-2's blocks and AdamW for the rest; `adamw` is AdamW alone, and so is `muon`
    for an LSTM, whose matrices are several in one. Weight decay is for matrices, never for norms and biases.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if p.ndim == 2 and ".h." in name]  # of the blocks
    embeddings = [p for name, p in named if p.ndim == 2 and ".h." not in name]  # and an output layer of its own
    vectors = [p for _, p in named if p.ndim != 2]
    fused = {"fused": True} if all(p.device.type in ("cuda", "cpu") for _, p in named) else {}
    if config.optimizer == "adamw" or not matrices:
        groups = [
            {"params": [*matrices, *embeddings], "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        return [torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, config.beta2), **fused)]
    muon = torch.optim.Muon(
        matrices, lr=config.muon_learning_rate, momentum=0.95, weight_decay=config.muon_weight_decay
    )
    adamw = torch.optim.AdamW(
        [{"params": [*embeddings, *vectors], "weight_decay": 0.0}],
        lr=config.learning_rate,
        betas=(0.9, config.beta2),
        **fused,
    )
    return [muon, adamw]


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """The share (0 to 1) of the full learning rate that step `step` (from 0) is taken with.

    `trapezoid`: linear warm-up, constant, then linear to zero over the last `decay_share` of the steps (Hägele et al.
    2024). `linear`: warm-up, then linear to zero, as the article's tool did. `constant`: warm-up alone.
    """
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    left = (config.max_steps - step) / max(1, config.max_steps)
    if config.schedule == "trapezoid":
        return min(warm, left / config.decay_share) if config.decay_share > 0 else warm
    if config.schedule == "linear":
        return min(warm, left)
    return warm
