"""Next-character cross-entropy that never holds two fp32 copies of the logits.

For a vocabulary of thousands the logits are by far the largest tensor of a small GPT. Autograd's cross-entropy keeps a
float32 copy of them for the backward pass; here the gradient is formed in the forward pass, some rows at a time, and
written over the logits themselves (the idea of Hsu et al. 2024, "Liger Kernel", section 3.2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from jinyong_gpt2.dataset import IGNORE

ROWS = 2048  # rows of logits in float32 at a time


class _CrossEntropySum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float32, device=logits.device)
        for start in range(0, len(targets), ROWS):
            rows, target = logits[start : start + ROWS], targets[start : start + ROWS]  # (R, V), (R,)
            log_p = F.log_softmax(rows.float(), dim=-1)
            kept = target != IGNORE
            index = torch.where(kept, target, 0).unsqueeze(1)  # (R, 1)
            total -= (log_p.gather(1, index).squeeze(1) * kept).sum()
            gradient = log_p.exp_()
            gradient.scatter_add_(1, index, torch.full_like(index, -1, dtype=torch.float32))
            rows.copy_(gradient.mul_(kept.unsqueeze(1)))
        ctx.save_for_backward(logits)
        return total

    @staticmethod
    def backward(ctx, grad_output: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output.to(gradient.dtype), None


def cross_entropy_sum(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy in nats, a float32 scalar. `logits` (N, V), overwritten; `targets` (N,), IGNORE left out."""
    if not (torch.is_grad_enabled() and logits.requires_grad):
        return F.cross_entropy(logits.float(), targets, ignore_index=IGNORE, reduction="sum")
    return _CrossEntropySum.apply(logits, targets)


class LanguageModelLoss(torch.nn.Module):
    """A causal language model with its loss inside, so that only a scalar leaves the forward pass.

    `forward(inputs, targets)`, both (B, L) int64, gives the summed cross-entropy in nats.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model
        # What accelerate asks a Hugging Face model for when it shards one.
        self._no_split_modules = getattr(model, "_no_split_modules", None)
        self.tie_weights = getattr(model, "tie_weights", lambda: None)

    def forward(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = self.model(input_ids=inputs, use_cache=False).logits  # (B, L, V)
        return cross_entropy_sum(logits.flatten(0, 1), targets.flatten())
