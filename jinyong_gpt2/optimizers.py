"""What moves the weights: Muon for the matrices, AdamW for the rest, and a learning rate over the steps.

Muon (Jordan et al. 2024) takes the momentum of a weight matrix and makes it nearly orthogonal, so that no direction of
the matrix is left behind. Embeddings, norms and biases are no such matrices and stay with AdamW (Loshchilov & Hutter
2019).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from jinyong_gpt2.devices import product_dtype

if TYPE_CHECKING:
    from jinyong_gpt2.training import TrainConfig


class StackedMuon(torch.optim.Muon):
    """torch's Muon with all matrices of one shape in a stack: the same step, to rounding.

    A GPT-2 has four shapes of matrices. torch goes through them one by one, with 23 small operators for each, which a
    GPU can hardly be asked for as fast as it does them. Sharded matrices go torch's way.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        if any(hasattr(p, "full_tensor") for group in self.param_groups for p in group["params"]):
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            alike: dict[torch.Size, list[torch.Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    alike.setdefault(p.shape, []).append(p)
            for parameters in alike.values():
                self._step(parameters, group)
        return loss

    def _step(self, parameters: list[torch.Tensor], group: dict[str, Any]) -> None:
        """Step for N matrices (A, B)."""
        momentum, gradients = group["momentum"], [p.grad for p in parameters]
        for p in parameters:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p.grad)
        buffers = [self.state[p]["momentum_buffer"] for p in parameters]
        torch._foreach_lerp_(buffers, gradients, 1 - momentum)
        updates = torch._foreach_lerp(gradients, buffers, momentum) if group["nesterov"] else buffers
        update = orthogonal(torch.stack(updates), group["ns_coefficients"], group["ns_steps"], group["eps"])
        rows, columns = parameters[0].shape
        torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        rate = group["lr"] * math.sqrt(max(1, rows / columns))
        torch._foreach_add_(parameters, list(update.to(parameters[0].dtype).unbind()), alpha=-rate)


def orthogonal(
    matrices: torch.Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> torch.Tensor:
    """The nearest orthogonal matrices, roughly, to N matrices (N, A, B): `steps` of Newton and Schulz.

    The quintic iteration of Jordan et al. 2024, whose singular values end between a half and one and a half. They need
    no more digits than bf16 has; it is computed, and given, in the arithmetic the device is quick in.
    """
    a, b, c = coefficients
    tall = matrices.shape[1] > matrices.shape[2]
    quick = product_dtype(matrices.device)
    x = matrices.mT if tall else matrices
    x = x if quick == torch.float16 else x.to(quick)  # gradients may be too small for fp16 until they are divided
    x = (x / x.flatten(1).norm(dim=1).clamp(min=eps)[:, None, None]).to(quick)  # no singular value above one
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT.contiguous() if tall else x


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
    muon = StackedMuon(matrices, lr=config.muon_learning_rate, momentum=0.95, weight_decay=config.muon_weight_decay)
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
