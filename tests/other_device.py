"""A device that is the CPU in disguise: where tensors of two devices meet, it says so, as a GPU would.

Inside `other_device()` tensors that are made on `DEVICE` or moved there are computed with on the CPU, but a function
that is given one of them beside one of the CPU raises RuntimeError. Only 0-dimensional tensors, indices and the source
of a copy may be the CPU's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = "meta"  # a device whose name every build of torch knows; nothing of the real one is used
ITEMS = (torch.Tensor.__getitem__, torch.Tensor.__setitem__)
INDEXING = (*ITEMS, torch.Tensor.index_put_)


@contextmanager
def other_device() -> Iterator[str]:
    with _Disguise():
        yield DEVICE


class Disguised(torch.Tensor):
    """A CPU tensor, `inside`, that says it is on `DEVICE`."""

    @staticmethod
    def __new__(cls, inside: torch.Tensor) -> Disguised:
        made = torch.empty(inside.shape, dtype=inside.dtype, device=DEVICE).as_subclass(cls)
        made.inside = inside
        return made


class _Disguise(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        everything = (args, kwargs or {})
        ours = any(isinstance(value, Disguised) for value in tree_leaves(everything))
        named = any(_is_device(value, DEVICE) for value in tree_leaves(everything))
        if func is torch.device or not (ours or named):
            return func(*args, **(kwargs or {}))
        if func == torch.Tensor.device.__get__:
            return torch.device(DEVICE)
        _require_one_device(func, args, kwargs or {})
        args, kwargs = tree_map(_inside, everything)
        found = func(*args, **kwargs)
        leaves = func is torch.Tensor.cpu or any(_is_device(value, "cpu") for value in tree_leaves(everything))
        return found if leaves else tree_map(_disguised, found)


def _require_one_device(func: Any, args: tuple, kwargs: dict) -> None:
    if func is torch.Tensor.copy_ or not any(isinstance(value, Disguised) for value in tree_leaves((args, kwargs))):
        return
    checked = (args[0], *args[2:]) if func in INDEXING else (args, kwargs)
    for value in tree_leaves(checked):
        if isinstance(value, torch.Tensor) and not isinstance(value, Disguised) and value.dim():
            raise RuntimeError(f"{func.__name__} was given tensors of two devices, {DEVICE} and cpu")


def _is_device(value: Any, kind: str) -> bool:
    return (isinstance(value, torch.device) and value.type == kind) or (isinstance(value, str) and value == kind)


def _inside(value: Any) -> Any:
    if isinstance(value, Disguised):
        return value.inside
    return torch.device("cpu") if _is_device(value, DEVICE) else value


def _disguised(value: Any) -> Any:
    return Disguised(value) if isinstance(value, torch.Tensor) else value
