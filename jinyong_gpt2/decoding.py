"""One token at a time, fast: GPT-2's forward step over a cache of keys and values, written out for decoding.

The only file that knows the model's insides. It reads the weights of a stock `GPT2LMHeadModel` (a state dict, or the
`model.safetensors` of a checkpoint) and computes what the model computes, in one of three arithmetics:

    float32             on any device: the model's own numbers, exactly the same operations
    int8                on a CPU: weights in 8 bits with a scale per row, a quarter of the bytes to read for each token
    bfloat16, float16   on a GPU: the step is recorded once as a CUDA graph and replayed, without Python in between

>>> decoder = Decoder(model.state_dict(), model.config.to_dict(), dtype="float32")
>>> streams = decoder.streams(2)                  # two texts side by side
>>> logits = streams.prefill([[0, 5, 6], [0, 7]])  # (2, V), after each text's last token
>>> logits = streams.step([8, 9])                  # (2, V), one more token for each
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

DTYPES = ("auto", "int8", "float32", "bfloat16", "float16")
WIDE = 32  # from this many rows on, 8-bit weights are unpacked for one matrix product


def resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> str:
    """The arithmetic by name. `auto` is int8 on a CPU, bfloat16 (float16 on older cards) on a GPU, else float32.

    Raises ValueError where the name is unknown, or the device has no such arithmetic.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if name == "auto":
        if device.type == "cuda":
            return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float16"
        return "int8" if device.type == "cpu" else "float32"
    if name == "int8" and device.type != "cpu":
        raise ValueError(f'dtype="int8" is for the CPU: use "auto" on {device.type}')
    if name in ("bfloat16", "float16") and device.type == "cpu":
        raise ValueError(f'dtype="{name}" is for the GPU: use "int8" or "float32" on the CPU')
    return name


def read_checkpoint(folder: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """State dict and configuration of a `save_pretrained` folder, without importing transformers.

    Raises FileNotFoundError where the folder holds no `model.safetensors` with its `config.json`.
    """
    folder = Path(folder)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}: it is no checkpoint in the Hugging Face format")
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return load_file(folder / "model.safetensors"), config


class Dense:
    """`x @ weight + bias` in the weights' own arithmetic."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        self.weight, self.bias = weight, bias  # (in, out), (out,)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.bias, x, self.weight)  # (N, in) -> (N, out)


class Int8:
    """The same with weights rounded to 8 bits, a scale per output, symmetric about zero (absmax)."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        rows = weight.t().float()  # (out, in)
        scale = (rows.abs().amax(1, keepdim=True) / 127).clamp(min=1e-12).bfloat16()
        self.weight = (rows / scale.float()).round().clamp(-127, 127).to(torch.int8).contiguous()
        self.scale = scale.squeeze(1)  # (out,)
        self.bias = None if bias is None else bias.bfloat16()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] >= WIDE:  # (N, in) -> (N, out)
            return F.linear(x, self.weight.bfloat16() * self.scale[:, None], self.bias)
        y = torch._weight_int8pack_mm(x, self.weight, self.scale)
        return y if self.bias is None else y.add_(self.bias)


class Layer:
    """One block: its two projections of attention, its two of the feed-forward net, its two layer norms."""

    def __init__(self, state: Mapping[str, torch.Tensor], linear: Any) -> None:
        self.ln_1 = state["ln_1.weight"], state["ln_1.bias"]
        self.ln_2 = state["ln_2.weight"], state["ln_2.bias"]
        self.qkv = linear(state["attn.c_attn.weight"], state["attn.c_attn.bias"])
        self.project = linear(state["attn.c_proj.weight"], state["attn.c_proj.bias"])
        self.up = linear(state["mlp.c_fc.weight"], state["mlp.c_fc.bias"])
        self.down = linear(state["mlp.c_proj.weight"], state["mlp.c_proj.bias"])


class Decoder:
    """The weights of one model, ready for decoding; `streams` makes room for texts.

    `state` and `config` are those of a `GPT2LMHeadModel`. float32 weights on the same device are shared with the model,
    not copied. Raises ValueError where the configuration is no plain GPT-2 (nothing is computed approximately).
    """

    def __init__(
        self,
        state: Mapping[str, torch.Tensor],
        config: Mapping[str, Any],
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = "auto",
    ) -> None:
        _require_plain_gpt2(config)
        self.device = torch.device(device)
        self.dtype = resolve_dtype(dtype, self.device)
        self.heads, self.width = config["n_head"], config["n_embd"]
        self.context_length, self.vocab_size = config["n_positions"], config["vocab_size"]
        self.eps = config["layer_norm_epsilon"]
        # With 8-bit weights the activations between them are bfloat16; the residual stream stays float32.
        self.compute = torch.bfloat16 if self.dtype == "int8" else getattr(torch, self.dtype)
        self.residual = torch.float32 if self.dtype == "int8" else self.compute

        state = {name.removeprefix("transformer."): tensor.detach() for name, tensor in state.items()}
        state = {name: tensor.to(self.device, self.residual) for name, tensor in state.items()}
        linear = Int8 if self.dtype == "int8" else Dense
        self.layers = []
        for i in range(config["n_layer"]):
            prefix = f"h.{i}."
            own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
            self.layers.append(Layer(own, linear))
        self.ln_f = state["ln_f.weight"], state["ln_f.bias"]
        self.wte, self.wpe = state["wte.weight"], state["wpe.weight"]  # (V, D), (C, D)
        head = state.get("lm_head.weight", self.wte).t()  # (D, V)
        self.head = Int8(head, None) if self.dtype == "int8" else head

    def streams(self, batch: int) -> Streams:
        """Room for `batch` texts side by side."""
        return Streams(self, batch)

    def norm(self, h: torch.Tensor, weights: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Layer norm of (N, D), in the arithmetic of the products."""
        x = F.layer_norm(h, (self.width,), *weights, self.eps)
        return x if x.dtype == self.compute else x.to(self.compute)

    def logits(self, h: torch.Tensor) -> torch.Tensor:
        """(N, D) -> (N, V) in float32."""
        x = self.norm(h, self.ln_f)
        return (self.head(x) if isinstance(self.head, Int8) else x @ self.head).float()

    def feed_forward(self, layer: Layer, h: torch.Tensor) -> torch.Tensor:
        """What the second half of a block adds to (N, D)."""
        return layer.down(F.gelu(layer.up(self.norm(h, layer.ln_2)), approximate="tanh"))


class Streams:
    """Texts that are decoded side by side, each with its own length; (L, 2, B, H, C, D/H) keys and values."""

    def __init__(self, decoder: Decoder, batch: int) -> None:
        self.decoder = decoder
        self.lengths = [0] * batch
        layers, heads, context = len(decoder.layers), decoder.heads, decoder.context_length
        shape = (layers, 2, batch, heads, context, decoder.width // heads)
        # Attention over a short filled part is faster in float32 than in bfloat16 on a CPU.
        self.cache = torch.zeros(shape, dtype=decoder.residual, device=decoder.device)

    @torch.inference_mode()
    def prefill(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Start each text anew with its tokens; (B, V) logits after the last ones, on the CPU.

        Equal texts are computed once. Raises ValueError where one is empty or longer than the context.
        """
        done: dict[tuple[int, ...], int] = {}
        rows = []
        for row, ids in enumerate(texts):
            first = done.setdefault(tuple(ids), row)
            if first == row:
                rows.append(self.prefill_one(row, ids))
            else:
                self.cache[:, :, row, :, : len(ids)] = self.cache[:, :, first, :, : len(ids)]
                self.lengths[row] = len(ids)
                rows.append(rows[first])
        return torch.stack(rows)

    @torch.inference_mode()
    def prefill_one(self, row: int, ids: Sequence[int]) -> torch.Tensor:
        """Start the text in `row` anew; (V,) logits after its last token, on the CPU."""
        decoder, heads, length = self.decoder, self.decoder.heads, len(ids)
        if not 0 < length <= decoder.context_length:
            raise ValueError(f"a text must be 1 to {decoder.context_length} tokens long here, got {length}")
        h = decoder.wte[torch.tensor(ids, device=decoder.device)] + decoder.wpe[:length]  # (T, D)
        for layer, cache in zip(decoder.layers, self.cache, strict=True):
            qkv = layer.qkv(decoder.norm(h, layer.ln_1))  # (T, 3D)
            q, k, v = qkv.view(length, 3, heads, -1).permute(1, 2, 0, 3)  # each (H, T, D/H)
            cache[0, row, :, :length] = k
            cache[1, row, :, :length] = v
            a = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]  # (H, T, D/H)
            h = h + layer.project(a.transpose(0, 1).reshape(length, -1))
            h = h + decoder.feed_forward(layer, h)
        self.lengths[row] = length
        return decoder.logits(h[-1:])[0].cpu()

    @torch.inference_mode()
    def step(self, ids: Sequence[int]) -> torch.Tensor:
        """One more token for each text; (B, V) logits after it, on the CPU.

        Raises ValueError where a text has filled the context: start it anew with `prefill_one`.
        """
        decoder, batch, longest = self.decoder, len(self.lengths), max(self.lengths)
        if longest >= decoder.context_length:
            raise ValueError(f"the context of {decoder.context_length} tokens is full")
        even = min(self.lengths) == longest
        rows, positions = torch.arange(batch), torch.tensor(self.lengths)
        mask = None if even else (torch.arange(longest + 1) <= positions[:, None])[:, None, None]  # (B, 1, 1, T)
        h = decoder.wte[torch.tensor(ids)] + decoder.wpe[positions]  # (B, D)
        for layer, cache in zip(decoder.layers, self.cache, strict=True):
            qkv = layer.qkv(decoder.norm(h, layer.ln_1))  # (B, 3D)
            q, k, v = qkv.view(batch, 3, decoder.heads, -1).to(cache.dtype).unbind(1)  # each (B, H, D/H)
            if even:
                cache[0, :, :, longest] = k
                cache[1, :, :, longest] = v
            else:
                cache[0, rows, :, positions] = k
                cache[1, rows, :, positions] = v
            keys, values = cache[:, :, :, : longest + 1]  # each (B, H, T, D/H)
            a = F.scaled_dot_product_attention(q[:, :, None], keys, values, attn_mask=mask)  # (B, H, 1, D/H)
            h = h + layer.project(a.reshape(batch, -1).to(decoder.compute))
            h = h + decoder.feed_forward(layer, h)
        self.lengths = [length + 1 for length in self.lengths]
        return decoder.logits(h).cpu()

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, in this order."""
        self.cache = self.cache[:, :, list(rows)]
        self.lengths = [self.lengths[row] for row in rows]


def _require_plain_gpt2(config: Mapping[str, Any]) -> None:
    """ValueError where the model is not the GPT-2 that `Decoder` computes."""
    expected = {
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
    }
    for name, value in expected.items():
        if config.get(name, value) != value:
            raise ValueError(f"only plain GPT-2 can be decoded: config.json has {name}={config[name]!r}, not {value!r}")
