"""Weights and optimizer states that are spread over processes (FSDP2), whole again for a checkpoint and back.

A checkpoint holds whole tensors, so that it opens anywhere and a run goes on with or without sharding, on any number of
processes. Where nothing is sharded these functions change nothing. All processes call them together.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from accelerate import Accelerator


def prepare_to_shard(accelerator: Accelerator) -> bool:
    """Whether `accelerator` shards models, which `accelerate launch --use_fsdp` chooses; sets its precision then.

    Computing is in the run's precision, gradients are summed in float32. Every process begins
    with the whole model, which is known to fit, instead of waiting for the first one's. Raises ValueError for the older
    FSDP, which flattens parameters.
    """
    if accelerator.distributed_type.value != "FSDP":
        return False
    if not accelerator.is_fsdp2:
        raise ValueError("training shards with FSDP2 alone: accelerate launch --use_fsdp --fsdp_version 2 …")
    from torch.distributed.fsdp import MixedPrecisionPolicy

    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"  # transformers, too, looks there
    accelerator.state.fsdp_plugin.cpu_ram_efficient_loading = False
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(accelerator.mixed_precision)
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    accelerator.state.fsdp_plugin.mixed_precision_policy = policy
    return True


def agree(model: torch.nn.Module) -> None:
    """Give every process the first one's weights, before they are sharded."""
    for parameter in model.parameters():
        torch.distributed.broadcast(parameter.data, 0)


def whole(values: Any, keep: bool = True) -> Any:
    """`values`, dicts and lists of tensors, with every sharded tensor gathered on the CPU.

    A process that does not `keep` them takes part, one tensor after another, and has None in their places: all the
    processes of a machine together would not have the memory.
    """
    if isinstance(values, dict):
        return {key: whole(value, keep) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        return type(values)(whole(value, keep) for value in values)
    if not hasattr(values, "full_tensor"):
        return values
    gathered = values.full_tensor()
    return gathered.cpu() if keep else None


def load_whole(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """`optimizer.load_state_dict` for a state of whole tensors: each process keeps its share."""
    optimizer.load_state_dict(saved)
    for parameter, state in optimizer.state.items():
        if not hasattr(parameter, "full_tensor"):
            continue
        from torch.distributed.tensor import distribute_tensor

        for name, value in state.items():
            if torch.is_tensor(value) and value.shape == parameter.shape:
                state[name] = distribute_tensor(value, parameter.device_mesh, parameter.placements)
