"""Writing: characters per second of this decoder, Hugging Face's `generate`, CTranslate2, and a decoder without a cache.

    python scripts/benchmark.py generate                          the bundled checkpoint's shape (mini), random weights
    python scripts/benchmark.py generate --size jinyong           the article's 82M
    python scripts/benchmark.py generate --checkpoint data/pretrained --heldout data/prepared    and what int8 costs
    python scripts/benchmark.py generate --size jinyong --decoders this "this exact" generate compiled    on a GPU

Each decoder runs in a process of its own, with the same checkpoint and settings: temperature 0.9, top_p 0.95. CTranslate2
takes part where it is installed. `floor` is the share of the speed at which the weights and the cache could be read from
memory once for each step, at the bandwidth measured in the same run.
"""  # noqa: E501

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PROMPT = "風雪之夜，他獨自上山，忽聽得林中有人長笑一聲，"
DECODERS = ("this", "this exact", "generate", "compiled", "ctranslate2", "ctranslate2 int8", "no cache")
SAMPLING = {"temperature": 0.9, "top_p": 0.95}
BYTES = {"this": 1, "this exact": 4, "generate": 4, "compiled": 4, "ctranslate2": 4, "ctranslate2 int8": 1}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", default="mini", help="a name from SIZES, with random weights (default mini)")
    parser.add_argument("--vocabulary", type=int, default=7000, help="its vocabulary (the article's has 13317)")
    parser.add_argument("--checkpoint", help="a checkpoint instead")
    parser.add_argument("--decoders", nargs="+", choices=DECODERS, default=[d for d in DECODERS if d != "compiled"])
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 8], help="texts side by side")
    parser.add_argument("--tokens", type=int, default=128, help="tokens to write each time")
    parser.add_argument("--repeats", type=int, default=3, help="of which the best counts: others use the machine too")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--heldout", help="a prepared corpus: what int8 costs in bits per character")


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    from jinyong_gpt2.decoding import read_checkpoint
    from jinyong_gpt2.devices import resolve_device

    device = resolve_device(args.device)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = args.checkpoint or random_checkpoint(args.size, args.vocabulary, folder)
        state, config = read_checkpoint(checkpoint)
        # What a step reads: every weight but the embeddings' other rows; the output layer shares the token embedding.
        weights = sum(x.numel() for name, x in state.items() if "wpe" not in name and "lm_head" not in name)
        del state
        bandwidth = memory_bandwidth(device)
        cache = 2 * config["n_layer"] * config["n_embd"] * (len(PROMPT) + args.tokens / 2)  # numbers, a stream
        rows: list[dict[str, Any]] = []
        for decoder in args.decoders:
            if decoder.startswith("ctranslate2") and (
                device.type != "cpu" or importlib.util.find_spec("ctranslate2") is None
            ):
                continue
            found = measure(decoder, checkpoint, device.type, folder, args)
            size = 2 if device.type == "cuda" and decoder != "this exact" else BYTES.get(decoder, 4)
            row: dict[str, Any] = {"decoder": decoder}
            for streams, rate in zip(args.streams, found["rates"], strict=True):
                row[f"{streams} stream{'s' * (streams > 1)}, chars/s"] = rate
                if decoder != "no cache":
                    read = weights * size + cache * streams * (size if device.type == "cuda" else 4)
                    row[f"floor, {streams}"] = f"{rate * read / streams / bandwidth:.0%}"
            row |= {"first character, s": found["first"], "peak memory, MB": found["memory"]}
            rows.append(row)
            print(
                "; ".join(
                    f"{key} {value if isinstance(value, str) else round(value, 2)}" for key, value in row.items()
                ),
                file=sys.stderr,
            )
        reference = next((row for row in rows if row["decoder"] == "generate"), None)
        key = next(k for k in rows[0] if k.endswith("chars/s"))
        for row in rows:
            row["× generate"] = row[key] / reference[key] if reference else float("nan")
        print(f"{weights / 1e6:.1f}M weights read a step, bandwidth {bandwidth / 1e9:.0f} GB/s, {device}")
        if args.heldout:
            print(int8_cost(checkpoint, args.heldout))
    return rows


def random_checkpoint(size: str, vocabulary: int, folder: str) -> str:
    """A model with random weights and a tokenizer of about `vocabulary` tokens. The work is that of a trained one."""
    import torch

    from jinyong_gpt2.model import new_model
    from jinyong_gpt2.tokenizer import base_characters, build_tokenizer, save_tokenizer

    rest = (chr(code) for code in range(0x4E00, 0x9FFF) if chr(code) not in base_characters())
    known = len(base_characters()) + 257
    tokenizer = build_tokenizer(
        ["".join(c for c, _ in zip(rest, range(vocabulary - known), strict=False))], min_count=1
    )
    torch.manual_seed(0)
    model = new_model(size, tokenizer)
    with torch.no_grad():
        model.transformer.ln_f.weight.mul_(6)  # as peaked as a trained model: top_p has as much to do
    with contextlib.redirect_stderr(io.StringIO()):
        model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return folder


def memory_bandwidth(device: Any) -> float:
    """Bytes per second that a sum over half a gigabyte reads, best of ten."""
    import torch

    x = torch.ones(1 << 27, device=device)
    best = 0.0
    for _ in range(10):
        clock = time.perf_counter()
        x.sum().item()
        best = max(best, 4 * x.numel() / (time.perf_counter() - clock))
    return best


def measure(decoder: str, checkpoint: str, device: str, scratch: str, args: argparse.Namespace) -> dict[str, Any]:
    """One decoder in a fresh process: rates by number of streams, seconds to the first character, peak memory."""
    root = Path(__file__).resolve().parent.parent.parent
    job: dict[str, Any] = {"decoder": decoder, "checkpoint": checkpoint, "device": device, "scratch": scratch}
    job |= {"started": time.time(), "streams": args.streams, "tokens": args.tokens, "repeats": args.repeats}
    environment = os.environ | {"PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    # Once to bring the files into the cache of the system; the second start is the one that counts.
    command = [sys.executable, __file__]
    subprocess.run([*command, json.dumps(job | {"streams": []})], env=environment, capture_output=True, text=True)
    job["started"] = time.time()
    done = subprocess.run([*command, json.dumps(job)], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"the decoder {decoder!r} failed: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


# ---------------------------------------------------------------- in the process of one decoder

Write = Callable[[int, int], Iterator[int]]  # (streams, tokens) -> how many tokens are there now


def work(job: dict[str, Any]) -> dict[str, Any]:
    make = {"this": this, "this exact": this, "generate": generate, "compiled": generate, "no cache": no_cache}
    write: Write = make.get(job["decoder"], ctranslate2)(job)
    next(write(1, 1))
    first = time.time() - job["started"]
    memory = peak_memory()
    rates = []
    for streams in job["streams"]:
        best = 0.0
        for _ in write(streams, 8):
            pass
        for _ in range(job["repeats"]):
            clock = time.perf_counter()
            count = sum(write(streams, job["tokens"]))
            best = max(best, count / (time.perf_counter() - clock))
        rates.append(best)
        memory = peak_memory() if streams == 1 else memory
    return {"first": first, "memory": memory, "rates": rates}


def peak_memory() -> float:
    """Of this process, in MB; of the GPU's memory where it uses one."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status")
    if status.is_file():  # Linux counts in `ru_maxrss` what the parent had, too
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)


def this(job: dict[str, Any]) -> Write:
    from jinyong_gpt2.writer import Writer

    dtype = "float32" if job["decoder"] == "this exact" else "auto"
    writer = Writer.from_pretrained(job["checkpoint"], job["device"], dtype)

    def write(streams: int, tokens: int) -> Iterator[int]:
        if streams == 1:
            return (1 for _ in writer.stream(PROMPT, seed=0, max_new_tokens=tokens, **SAMPLING))
        writing = writer.write(PROMPT, num_return_sequences=streams, seed=0, max_new_tokens=tokens, **SAMPLING)
        return (len(character.token_ids) for _, character in writing)

    return write


def load(job: dict[str, Any]) -> tuple[Any, Any]:
    """The model on its device, and the prompt's ids (1, T) there."""
    import torch
    from transformers import AutoTokenizer, GPT2LMHeadModel

    from jinyong_gpt2.decoding import resolve_dtype

    model = GPT2LMHeadModel.from_pretrained(job["checkpoint"]).eval().to(job["device"])
    if job["device"] == "cuda":
        model = model.to(getattr(torch, resolve_dtype("auto", model.device)))  # as "this" has it
    ids = [0, *AutoTokenizer.from_pretrained(job["checkpoint"])(PROMPT)["input_ids"]]
    return model, torch.tensor([ids], device=job["device"])


def generate(job: dict[str, Any]) -> Write:
    import torch
    from transformers import CompileConfig

    model, ids = load(job)
    more: dict[str, Any] = {}
    if job["decoder"] == "compiled":
        compile_config = CompileConfig(mode="reduce-overhead" if job["device"] == "cuda" else "default")
        compile_config._compile_all_devices = True
        more = {"cache_implementation": "static", "compile_config": compile_config}

    def write(streams: int, tokens: int) -> Iterator[int]:
        found = model.generate(
            ids.expand(streams, -1),
            attention_mask=torch.ones_like(ids.expand(streams, -1)),
            do_sample=True,
            top_k=0,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            pad_token_id=0,
            **SAMPLING,
            **more,
        )
        yield streams * (found.shape[1] - ids.shape[1])

    return write


def no_cache(job: dict[str, Any]) -> Write:
    """The whole text through the model for every character."""
    import torch

    from jinyong_gpt2.sampling import top_p

    model, ids = load(job)

    @torch.inference_mode()
    def write(streams: int, tokens: int) -> Iterator[int]:
        texts = ids.expand(streams, -1)
        for _ in range(min(tokens, 48)):
            logits = model(texts, use_cache=False, logits_to_keep=1).logits[:, -1].float() / SAMPLING["temperature"]
            token = top_p(logits, SAMPLING["top_p"]).softmax(-1).multinomial(1)
            texts = torch.cat([texts, token], 1)
            yield streams

    return write


def ctranslate2(job: dict[str, Any]) -> Write:
    import importlib

    library = importlib.import_module("ctranslate2")
    quantization = "int8" if job["decoder"].endswith("int8") else "float32"
    folder = Path(job["scratch"]) / f"ctranslate2-{quantization}"
    if not folder.is_dir():
        convert(library, job["checkpoint"], folder, quantization)
    generator = library.Generator(str(folder), intra_threads=os.cpu_count() or 1)
    vocabulary = json.loads((folder / "vocabulary.json").read_text(encoding="utf-8"))
    prompt = [vocabulary[0], *(c for c in PROMPT if c in set(vocabulary))]

    def write(streams: int, tokens: int) -> Iterator[int]:
        found = generator.generate_batch(
            [prompt] * streams,
            max_length=tokens,
            min_length=tokens,
            sampling_temperature=SAMPLING["temperature"],
            sampling_topp=SAMPLING["top_p"],
            sampling_topk=0,
            include_prompt_in_result=False,
        )
        yield sum(len(result.sequences_ids[0]) for result in found)

    return write


def convert(library: Any, checkpoint: str, folder: Path, quantization: str) -> None:
    library.converters.TransformersConverter(checkpoint).convert(str(folder), quantization=quantization)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["unk_token"] = config["bos_token"]  # there is none, and CTranslate2 does not read a null
    path.write_text(json.dumps(config), encoding="utf-8")


# ---------------------------------------------------------------- what int8 costs


def int8_cost(checkpoint: str, prepared: str, texts: int = 8, length: int = 200) -> str:
    """Held-out bits per character of both arithmetics, token by token as in writing."""
    import math

    import numpy as np
    import torch

    from jinyong_gpt2.dataset import PreparedCorpus
    from jinyong_gpt2.decoding import Decoder, read_checkpoint
    from jinyong_gpt2.tokenizer import is_character_start

    corpus = PreparedCorpus.open(prepared)
    starts = is_character_start(corpus.tokenizer)
    pieces = []
    for segment in corpus.segments("heldout"):
        for start in range(segment.start, segment.stop - length, length):
            pieces.append([segment.control_id, *corpus.heldout[start : start + length].tolist()])
    pieces = [pieces[i] for i in np.linspace(0, len(pieces) - 1, 6 * texts).astype(int)]
    figures = {}
    for dtype in ("float32", "int8"):
        decoder = Decoder(*read_checkpoint(checkpoint), dtype=dtype)
        bits = characters = 0.0
        for first in range(0, len(pieces), texts):
            batch = pieces[first : first + texts]
            streams = decoder.streams(len(batch))
            logits = streams.prefill([ids[:1] for ids in batch])
            for t in range(1, length + 1):
                tokens = [ids[t] for ids in batch]
                logprobs = logits.log_softmax(-1).gather(1, torch.tensor(tokens)[:, None])
                bits -= float(logprobs.sum()) / math.log(2)
                characters += float(starts[tokens].sum())
                logits = streams.step(tokens) if t < length else logits
        figures[dtype] = bits / characters
    cost = figures["int8"] / figures["float32"] - 1
    return (
        f"held-out bits per character over {len(pieces)} × {length} tokens: "
        f"float32 {figures['float32']:.4f}, int8 {figures['int8']:.4f} ({cost:+.2%})"
    )


if __name__ == "__main__":
    print(json.dumps(work(json.loads(sys.argv[1]))))
