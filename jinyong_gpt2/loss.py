"""Next-character cross-entropy that never holds two fp32 copies of the logits.

For a vocabulary of thousands the logits are by far the largest tensor of a small GPT. Autograd's cross-entropy keeps a
float32 copy of them for the backward pass; here the gradient is formed in the forward pass, some rows at a time, and
written over the logits themselves (the idea of Hsu et al. 2024, "Liger Kernel", section 3.2). torch.compile makes the
same of the plain formula: one pass over all rows, in which nothing of their size is held in float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from jinyong_gpt2.dataset import IGNORE

ROWS = 2048  # rows of logits in float32 at a time


class _CrossEntropySum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_compiling():
            total, gradient = _with_gradient(logits, targets)
            ctx.save_for_backward(gradient)
            return total
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


def _with_gradient(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The summed cross-entropy and its gradient (N, V), in formulas that fuse."""
    kept = targets != IGNORE
    index = torch.where(kept, targets, 0).unsqueeze(1)  # (N, 1)
    log_p = F.log_softmax(logits.float(), dim=-1)
    hot = torch.arange(logits.shape[1], device=logits.device) == index  # (N, V)
    gradient = (log_p.exp() - hot.float()) * kept.unsqueeze(1)
    return -(log_p.gather(1, index).squeeze(1) * kept).sum(), gradient.to(logits.dtype)


def cross_entropy_sum(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy in nats, a float32 scalar. `logits` (N, V), overwritten; `targets` (N,), IGNORE left out."""
    if not (torch.is_grad_enabled() and logits.requires_grad):
        parts = zip(logits.split(ROWS), targets.split(ROWS), strict=True)
        return sum(F.cross_entropy(part.float(), t, ignore_index=IGNORE, reduction="sum") for part, t in parts)
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
