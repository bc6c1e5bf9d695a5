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

import functools
import gc
import math
import mmap
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from jinyong_gpt2.devices import product_dtype
from jinyong_gpt2.files import TAKE_ANEW, read_json
from jinyong_gpt2.model import trained_positions

DTYPES = ("auto", "int8", "float32", "bfloat16", "float16")
ONE_THREAD = 600  # up to this many numbers in the residual streams side by side, more threads do not pay
SHORTEST = 128  # places that are reserved for a text at first
PADDING = 16  # numbers after each row of keys: rows a power of two apart would all fall into the same few cache lines
MOST_IDLE = 3  # batch sizes whose recorded steps are kept on a GPU, each with a cache of its own
LONG = 32  # texts of so many tokens are read with `many` rows at a time


def resolve_dtype(dtype: str | torch.dtype, device: torch.device) -> str:
    """The arithmetic by name. `auto` is int8 on a CPU, bfloat16 (float16 on older cards) on a GPU, else float32.

    Raises ValueError where the name is unknown, or the device has no such arithmetic.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    if name == "auto":
        if device.type == "cuda":
            return str(product_dtype(device)).removeprefix("torch.")
        return "int8" if device.type == "cpu" else "float32"
    if name == "int8" and device.type != "cpu":
        raise ValueError(f'dtype="int8" is for the CPU: use "auto" on {device.type}')
    if name in ("bfloat16", "float16") and device.type == "cpu":
        raise ValueError(f'dtype="{name}" is for the GPU: use "int8" or "float32" on the CPU')
    return name


def read_checkpoint(folder: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """State dict and configuration of a `save_pretrained` folder, in shards or not, without importing transformers.

    Raises FileNotFoundError where the folder holds no `config.json`, or not all the safetensors files it should, and
    ValueError where one of them is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    index = folder / "model.safetensors.index.json"
    files = ["model.safetensors"]
    if index.is_file():
        files = sorted(set(read_json(index)["weight_map"].values()))
    for name in ("config.json", *files):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}: it is no whole checkpoint in the Hugging Face format")
    state: dict[str, torch.Tensor] = {}
    for name in files:
        try:
            state |= load_file(folder / name)
        except SafetensorError as error:
            raise ValueError(f"{folder / name} is damaged, {TAKE_ANEW}: {error}") from None
    return state, read_json(folder / "config.json")


class Dense:
    """`x @ weight + bias` in the weights' own arithmetic."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight, self.bias = weight, bias  # (in, out), (out,)

    def __call__(self, x: torch.Tensor, many: bool = False) -> torch.Tensor:
        return x @ self.weight if self.bias is None else torch.addmm(self.bias, x, self.weight)  # (N, in) -> (N, out)


class Int8:
    """The same with weights rounded to 8 bits, a scale for each output, symmetric about zero.

    `place` is where the weights go, given how many; their own memory if not given. Calls with `many` rows unpack the
    weights once for all of them; it rounds a little differently, so texts side by side must not decide it.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        place: Callable[[int], torch.Tensor] = lambda size: torch.empty(size, dtype=torch.int8),
    ) -> None:
        rows = weight.t().float()  # (out, in)
        scale = (rows.abs().amax(1, keepdim=True) / 127).clamp(min=1e-12).bfloat16()
        self.weight = place(rows.numel()).view(rows.shape)
        self.weight.copy_((rows / scale.float()).round_().clamp_(-127, 127))
        self.scale = scale.squeeze(1)  # (out,)
        self.bias = None if bias is None else bias.bfloat16()

    def __call__(self, x: torch.Tensor, many: bool = False) -> torch.Tensor:
        if many:  # (N, in) -> (N, out)
            quick = product_dtype(x.device)
            y = F.linear(x.to(quick), self.weight.to(quick)).to(x.dtype).mul_(self.scale)
        else:
            y = torch._weight_int8pack_mm(x, self.weight, self.scale)
        return y if self.bias is None else y.add_(self.bias)


def huge_pages(size: int) -> Callable[[int], torch.Tensor]:
    """A place for int8 tensors of `size` bytes in all, on pages of 2 MB where the system has them (Linux).

    A step reads all the weights; on pages of 4 KB it waits for some twenty thousand of them to be looked up.
    """
    memory = torch.empty(0, dtype=torch.int8)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):  # a system without them
            pages.madvise(mmap.MADV_HUGEPAGE)
        memory = torch.frombuffer(pages, dtype=torch.int8)
    used = 0

    def take(count: int) -> torch.Tensor:
        nonlocal used
        start, used = used, used + count
        return memory[start:used] if used <= len(memory) else torch.empty(count, dtype=torch.int8)

    return take


class Layer:
    """One block: its two projections of attention, its two of the feed-forward net, its two layer norms."""

    def __init__(self, get: Callable[[str], torch.Tensor], linear: Callable[..., Dense | Int8]) -> None:
        self.ln_1 = get("ln_1.weight"), get("ln_1.bias")
        self.ln_2 = get("ln_2.weight"), get("ln_2.bias")
        self.qkv = linear(get("attn.c_attn.weight"), get("attn.c_attn.bias"))
        self.project = linear(get("attn.c_proj.weight"), get("attn.c_proj.bias"))
        self.up = linear(get("mlp.c_fc.weight"), get("mlp.c_fc.bias"))
        self.down = linear(get("mlp.c_proj.weight"), get("mlp.c_proj.bias"))


class Decoder:
    """The weights of one model, ready for decoding; `streams` makes room for texts.

    `state` and `config` are those of a `GPT2LMHeadModel`. float32 weights on the same device are shared with the model,
    not copied. Raises ValueError where the configuration is not plain GPT-2's.
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
        # Where tokens are drawn: moving the logits of many texts off a GPU takes longer. MPS lacks the float64 for it.
        self.drawing = torch.device("cpu") if self.device.type == "mps" else self.device
        self.heads, self.width = config["n_head"], config["n_embd"]
        self.context_length, self.vocab_size = trained_positions(config), config["vocab_size"]
        self.eps = config["layer_norm_epsilon"]
        # Between 8-bit weights everything is bfloat16, but for attention, which is slower so on a CPU, and the norms.
        int8 = self.dtype == "int8"
        self.compute = torch.bfloat16 if int8 else getattr(torch, self.dtype)
        self.attention = torch.float32 if int8 else self.compute

        names = {name.removeprefix("transformer."): name for name in state}

        def get(name: str) -> torch.Tensor:
            return state[names[name]].detach().to(self.device, self.attention)

        linear: Callable[..., Dense | Int8] = Dense
        if int8:
            matrices = (12 * config["n_layer"] * self.width + self.vocab_size) * self.width  # numbers in all of them
            linear = functools.partial(Int8, place=huge_pages(matrices))
        self.layers = [Layer(lambda name, i=i: get(f"h.{i}.{name}"), linear) for i in range(config["n_layer"])]
        self.ln_f = get("ln_f.weight"), get("ln_f.bias")
        wte, wpe = get("wte.weight"), get("wpe.weight")  # (V, D), (C, D)
        output = get("lm_head.weight") if "lm_head.weight" in names else wte
        self.head = linear(output.t(), None)  # (D, V)
        self.wte, self.wpe = wte.to(self.compute), wpe.to(self.compute)
        self._idle: list[GraphStreams] = []  # the newest last

    def streams(self, batch: int) -> Streams:
        """Room for `batch` texts side by side. On a GPU, `release` it afterwards: recording its graph took a while."""
        if self.device.type != "cuda":
            return Streams(self, batch)
        for i, streams in enumerate(self._idle):
            if streams.batch == batch:
                return self._idle.pop(i)
        return GraphStreams(self, batch)

    def release(self, streams: Streams) -> None:
        """Give back what `streams` gave, to be used again."""
        if isinstance(streams, GraphStreams):
            streams.reset()
            self._idle = [*self._idle, streams][-MOST_IDLE:]

    def upload(self, numbers: list[int] | list[list[int]]) -> torch.Tensor:
        """Whole numbers on the device. CUDA is not waited for: they have pinned memory of their own until then."""
        on_gpu = self.device.type == "cuda"
        return torch.tensor(numbers, pin_memory=on_gpu).to(self.device, non_blocking=on_gpu)

    def kernels(self) -> AbstractContextManager[None]:
        """Inside, attention on a GPU is not cuDNN's, which makes a plan for each length of a text it has not seen."""
        if self.device.type != "cuda":
            return nullcontext()
        from torch.nn.attention import SDPBackend, sdpa_kernel

        return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])

    def require_room(self, length: int) -> None:
        """ValueError where a text of `length` tokens is empty, or longer than the context."""
        if not 0 < length <= self.context_length:
            raise ValueError(f"a text must be 1 to {self.context_length} tokens long here, got {length}")

    def embed(self, ids: torch.Tensor, positions: torch.Tensor | slice) -> torch.Tensor:
        """Token ids (..., N) at (N,) positions -> (..., N, D)."""
        return self.wte[ids] + self.wpe[positions]

    def norm(self, h: torch.Tensor, weights: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Layer norm of (N, D)."""
        return torch.layer_norm(h, (self.width,), *weights, self.eps)

    def feed_forward(self, layer: Layer, h: torch.Tensor, many: bool = False) -> torch.Tensor:
        """What the second half of a block adds to (N, D)."""
        return layer.down(F.gelu(layer.up(self.norm(h, layer.ln_2), many), approximate="tanh"), many)

    def logits(self, h: torch.Tensor) -> torch.Tensor:
        """(N, D) -> (N, V) in float32, where they are drawn from."""
        return self.head(self.norm(h, self.ln_f)).to(self.drawing, torch.float32)


class Streams:
    """Texts that are decoded side by side, each with its own length.

    The cache is `keys` (L, B, H, D/H, C) and `values` (L, B, H, C, D/H): attention's two products read them in the
    order they lie in memory. Only what is filled is read, and C grows with the texts.
    """

    def __init__(self, decoder: Decoder, batch: int) -> None:
        self.decoder, self.batch = decoder, batch
        self.rows = list(range(batch))  # where in the cache each text lies
        self.lengths = [0] * batch  # tokens in each place of the cache
        self.kept: torch.Tensor | None = None  # `rows` on the device, once a text has ended
        self.reserve(min(SHORTEST, decoder.context_length))

    def reserve(self, capacity: int) -> None:
        """An empty cache for `batch` texts of up to `capacity` tokens."""
        decoder, self.capacity = self.decoder, capacity
        size = decoder.width // decoder.heads
        shape = (len(decoder.layers), self.batch, decoder.heads)
        new = {"dtype": decoder.attention, "device": decoder.device}
        self.keys = torch.zeros(*shape, size, capacity + PADDING, **new)
        self.values = torch.zeros(*shape, capacity, size, **new)

    def move(self, rows: Sequence[int], capacity: int) -> None:
        """Bring the texts in these places into a new cache, in this order."""
        keys, values, length = self.keys, self.values, max(self.lengths[row] for row in rows)
        self.batch, self.lengths = len(rows), [self.lengths[row] for row in rows]
        self.reserve(capacity)
        self.keys[..., :length] = keys[:, rows, ..., :length]
        self.values[..., :length, :] = values[:, rows, ..., :length, :]

    def make_room(self, length: int) -> None:
        """Let the cache hold texts of `length` tokens."""
        if length > self.capacity:
            self.move(range(self.batch), min(max(length, 2 * self.capacity), self.decoder.context_length))

    @contextmanager
    def threads(self) -> Iterator[None]:
        """One CPU thread while a small model is at work, and the caller's number again afterwards.

        Where an operator takes microseconds, two threads wait for one another as long as they work, and far longer on a
        machine with other work to do.
        """
        before = torch.get_num_threads()
        small = self.decoder.device.type == "cpu" and self.batch * self.decoder.width <= ONE_THREAD
        if not small or before == 1:
            yield
            return
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def copy(self, source: int, target: int, length: int) -> None:
        """Let the text in place `target` begin as the one in `source` does."""
        self.keys[:, target, ..., :length] = self.keys[:, source, ..., :length]
        self.values[:, target, :, :length] = self.values[:, source, :, :length]

    @torch.inference_mode()
    def prefill(self, texts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Start every text with its tokens; (B, V) logits after the last ones. Equal texts cost one.

        Raises ValueError where a text is empty or longer than the context.
        """
        keys = [tuple(ids) for ids in texts]
        first: dict[tuple[int, ...], int] = {}
        for i, ids in enumerate(keys):
            first.setdefault(ids, i)
        logits = self.read(list(first.values()), list(first))
        for i, ids in enumerate(keys):
            if (same := first[ids]) != i:
                self.copy(self.rows[same], self.rows[i], len(ids))
                self.lengths[self.rows[i]] = len(ids)
        numbers = {ids: number for number, ids in enumerate(first)}
        return logits[[numbers[ids] for ids in keys]]

    def read(self, texts: Sequence[int], ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """Start these texts anew, each with its tokens; (N, V) logits after the last ones."""
        return torch.stack([self.prefill_one(text, its) for text, its in zip(texts, ids, strict=True)])

    @torch.inference_mode()
    def prefill_one(self, text: int, ids: Sequence[int]) -> torch.Tensor:
        """Start one text anew with its tokens; (V,) logits after the last one. Raises as `prefill`."""
        decoder, length, row = self.decoder, len(ids), self.rows[text]
        decoder.require_room(length)
        self.make_room(length)
        many = length >= LONG
        h = decoder.embed(decoder.upload(ids), slice(length))  # (T, D)
        with decoder.kernels():
            for i, layer in enumerate(decoder.layers):
                qkv = layer.qkv(decoder.norm(h, layer.ln_1), many)  # (T, 3D)
                q, k, v = qkv.view(length, 3, decoder.heads, -1).permute(1, 2, 0, 3)  # each (H, T, D/H)
                self.keys[i, row, ..., :length], self.values[i, row, :, :length] = k.transpose(1, 2), v
                a = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]  # (H, T, D/H)
                h += layer.project(a.transpose(0, 1).reshape(length, -1), many)
                h += decoder.feed_forward(layer, h, many)
        self.lengths[row] = length
        return decoder.logits(h[-1:])[0]

    @torch.inference_mode()
    def step(self, ids: Sequence[int]) -> torch.Tensor:
        """One more token for each text; (B, V) logits after it.

        Raises ValueError where a text has filled the context: start it anew with `prefill_one`.
        """
        lengths = [self.lengths[row] for row in self.rows]
        if max(lengths) >= self.decoder.context_length:
            raise ValueError(f"the context of {self.decoder.context_length} tokens is full")
        self.make_room(max(lengths) + 1)
        tokens, positions = [0] * self.batch, [lengths[0]] * self.batch  # of a text that has ended: anything
        for row, token, length in zip(self.rows, ids, lengths, strict=True):
            tokens[row], positions[row] = token, length
            self.lengths[row] = length + 1
        logits = self.run(tokens, positions)
        return logits if len(self.rows) == self.batch else logits[self.kept]

    def run(self, tokens: list[int], positions: list[int]) -> torch.Tensor:
        """The step itself: (B, V) logits after `tokens` at `positions`."""
        decoder, batch, heads = self.decoder, self.batch, self.decoder.heads
        scale, longest = (decoder.width // heads) ** -0.5, max(positions)
        place = decoder.upload(positions)
        h = decoder.embed(decoder.upload(tokens), place)  # (B, D)
        even = min(positions) == longest
        # What is filled, L times: (BH, D/H, T) and (BH, T, D/H).
        keys = self.keys[..., : longest + 1].flatten(1, 2).unbind(0)
        values = self.values[..., : longest + 1, :].flatten(1, 2).unbind(0)
        if even:  # where the new ones go, L times (B, H, D/H)
            new_keys, new_values = self.keys[..., longest].unbind(0), self.values[..., longest, :].unbind(0)
            mask = self.keys.new_zeros(())
        else:
            each = torch.arange(batch, device=decoder.device)
            beyond = torch.arange(longest + 1, device=decoder.device) > place.repeat_interleave(heads)[:, None]
            mask = torch.zeros_like(beyond, dtype=self.keys.dtype).masked_fill(beyond, -math.inf)[:, None]  # (BH, 1, T)
        for i, layer in enumerate(decoder.layers):
            qkv = layer.qkv(decoder.norm(h, layer.ln_1)).view(batch, 3, heads, -1)
            q, k, v = qkv.unbind(1)  # each (B, H, D/H)
            if even:
                new_keys[i].copy_(k)
                new_values[i].copy_(v)
            else:
                self.keys[i][each, :, :, place] = k.to(decoder.attention)
                self.values[i][each, :, place] = v.to(decoder.attention)
            q = q.to(decoder.attention).reshape(batch * heads, 1, -1)
            scores = torch.baddbmm(mask, q, keys[i], beta=0 if even else 1, alpha=scale)  # (BH, 1, T)
            a = torch.bmm(scores.softmax(-1), values[i])  # (BH, 1, D/H)
            h += layer.project(a.view(batch, -1).to(decoder.compute))
            h += decoder.feed_forward(layer, h)
        return decoder.logits(h)

    def keep(self, texts: Sequence[int]) -> None:
        """Go on with these texts only, in this order."""
        self.rows = [self.rows[text] for text in texts]
        self.kept = torch.tensor(self.rows, device=self.decoder.drawing)
        if 2 * len(self.rows) <= self.batch:
            self.compact()

    def compact(self) -> None:
        """Free the places of texts that have ended."""
        self.move(self.rows, self.capacity)
        self.rows = list(range(self.batch))


class GraphStreams(Streams):
    """The same where every shape is fixed, so that a CUDA graph can replay the step.

    Tokens and positions are read from one small tensor on the device; attention runs over a span that is a power of
    two, masked beyond each text's position, and one graph is recorded for each span. On a CPU (in tests) the same step
    runs without a graph. Keys and values are both (L, B, H, C, D/H), as `scaled_dot_product_attention` reads them, with
    room for the whole context.
    """

    SHORTEST_SPAN = 128

    def reserve(self, capacity: int) -> None:
        decoder, self.capacity = self.decoder, self.decoder.context_length
        size = decoder.width // decoder.heads
        shape = (len(decoder.layers), self.batch, decoder.heads, self.capacity, size)
        self.keys, self.values = torch.zeros(2, *shape, dtype=decoder.attention, device=decoder.device)
        self.inputs = torch.zeros(2, self.batch, dtype=torch.long, device=decoder.device)  # tokens, positions
        self.each = torch.arange(self.batch, device=decoder.device)
        self.head = torch.arange(decoder.heads, device=decoder.device)
        self.columns = torch.arange(decoder.context_length, device=decoder.device)
        self.graphs: dict[int, tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}

    def reset(self) -> None:
        """Make all places free again. What they hold is never read: attention ends at a text's own position."""
        self.rows, self.lengths = list(range(self.batch)), [0] * self.batch

    @torch.inference_mode()
    def read(self, texts: Sequence[int], ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """As `Streams` does, but all in one pass, padded at their ends: what is stored there is never looked at."""
        decoder, count, longest = self.decoder, len(ids), max(map(len, ids))
        for its in ids:
            decoder.require_room(len(its))
        rows = [self.rows[text] for text in texts]
        padded = decoder.upload([[*its, *[0] * (longest - len(its))] for its in ids])  # (N, T)
        h = decoder.embed(padded, slice(longest)).flatten(0, 1)  # (N * T, D)
        with decoder.kernels():
            for i, layer in enumerate(decoder.layers):
                qkv = layer.qkv(decoder.norm(h, layer.ln_1)).view(count, longest, 3, decoder.heads, -1)
                q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (N, H, T, D/H)
                self.keys[i, rows, :, :longest], self.values[i, rows, :, :longest] = k, v
                a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
                h += layer.project(a.transpose(1, 2).reshape(count * longest, -1))
                h += decoder.feed_forward(layer, h)
        for row, its in zip(rows, ids, strict=True):
            self.lengths[row] = len(its)
        last = decoder.upload([number * longest + len(its) - 1 for number, its in enumerate(ids)])
        return decoder.logits(h[last])

    def prefill_one(self, text: int, ids: Sequence[int]) -> torch.Tensor:
        return self.read([text], [ids])[0]

    def copy(self, source: int, target: int, length: int) -> None:
        for cache in (self.keys, self.values):
            cache[:, target, :, :length] = cache[:, source, :, :length]

    def compact(self) -> None:
        """Nothing: the shapes stay, a text that has ended is computed along and ignored."""

    def run(self, tokens: list[int], positions: list[int]) -> torch.Tensor:
        self.inputs.copy_(self.decoder.upload([tokens, positions]))
        span = self.SHORTEST_SPAN
        while span <= max(positions):
            span *= 2
        span = min(span, self.decoder.context_length)
        if self.decoder.device.type != "cuda":
            return self.fixed_step(span)
        if span not in self.graphs:
            self.graphs[span] = self._record(span)
        graph, logits = self.graphs[span]
        graph.replay()
        return logits.clone()  # the next replay writes over them

    def fixed_step(self, span: int) -> torch.Tensor:
        """(B, V) logits from `self.inputs`, attention over the first `span` places."""
        decoder, (tokens, positions) = self.decoder, self.inputs  # each (B,)
        h = decoder.embed(tokens, positions)  # (B, D)
        seen = self.columns[:span] <= positions[:, None]  # (B, S)
        mask = torch.zeros_like(seen, dtype=decoder.attention).masked_fill(~seen, -math.inf)[:, None, None]
        place = self.each[:, None], self.head[None], positions[:, None]  # (B, H) places of D/H numbers
        for i, layer in enumerate(decoder.layers):
            qkv = layer.qkv(decoder.norm(h, layer.ln_1))  # (B, 3D)
            q, k, v = qkv.view(self.batch, 3, decoder.heads, -1).unbind(1)  # each (B, H, D/H)
            self.keys[i].index_put_(place, k)
            self.values[i].index_put_(place, v)
            keys, values = self.keys[i, :, :, :span], self.values[i, :, :, :span]  # (B, H, S, D/H) each
            a = F.scaled_dot_product_attention(q[:, :, None], keys, values, attn_mask=mask)  # (B, H, 1, D/H)
            h = h + layer.project(a.reshape(self.batch, -1))
            h = h + decoder.feed_forward(layer, h)
        return decoder.logits(h)

    def _record(self, span: int) -> tuple[torch.cuda.CUDAGraph, torch.Tensor]:
        """Record the step for one span. Running it writes only what the replay writes again."""
        with torch.cuda.device(self.decoder.device), self.decoder.kernels():
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # libraries set themselves up outside the recording
                for _ in range(3):
                    self.fixed_step(span)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            # Other threads may use the GPU meanwhile: a studio's attention view, say.
            with nothing_collected(), torch.cuda.graph(graph, capture_error_mode="thread_local"):
                logits = self.fixed_step(span)
        return graph, logits


@contextmanager
def nothing_collected() -> Iterator[None]:
    """Inside, no garbage is collected: an older decoder's graphs, dying while another is recorded, would spoil it."""
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _require_plain_gpt2(config: Mapping[str, Any]) -> None:
    """ValueError where the model is not the GPT-2 that `Decoder` computes."""
    expected = {
        "model_type": ("gpt2",),
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),  # two names of one function
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    }
    for name in ("n_head", "n_embd", "n_layer", "n_positions", "vocab_size", "layer_norm_epsilon"):
        if name not in config:
            raise ValueError(f"only plain GPT-2 can be decoded: config.json has no {name}")
    for name, allowed in expected.items():
        if (value := config.get(name, allowed[0])) not in allowed:
            raise ValueError(f"only plain GPT-2 can be decoded: config.json has {name}={value!r}, not {allowed[0]!r}")
