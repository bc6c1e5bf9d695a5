#!/usr/bin/env python
"""Write with a checkpoint: a passage to the terminal, several side by side, or thousands to a file.

    python scripts/generate.py --prompt 喬峰帶阿朱回到北方 --length 200 --seed 7
    python scripts/generate.py --prompt 喬峰 --num_return_sequences 4 --temperature 0.8 --page out/drafts.html
    python scripts/generate.py --contexts contexts.txt --n 1000 --out passages.jsonl

A file of contexts has one on each line; in a .jsonl file a line is a JSON string, so that it may hold line breaks.
Passage k continues context k mod (number of contexts). A run that was killed goes on when started again, and neither
loses nor repeats a passage. Over four GPUs, over four processes on a CPU, and over two machines, each with its own
--out:

    accelerate launch --multi_gpu --num_processes 4 scripts/generate.py --contexts contexts.txt --n 1000 …
    torchrun --nproc_per_node 4 scripts/generate.py --device cpu --contexts contexts.txt --num_passages 1000 …
    accelerate launch --multi_gpu --num_processes 8 --num_machines 2 --machine_rank 0 --main_process_ip HOST … \\
        scripts/generate.py --contexts contexts.txt --n 1000 …
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import BinaryIO

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jinyong_gpt2.files import alone
from jinyong_gpt2.model import PRETRAINED
from jinyong_gpt2.sampling import Settings, require_integer

BLOCK = 1 << 16  # bytes of a job's file that are looked through at a time
BATCH_SEED = 0  # a batch job has a seed also where none is given: all its processes, and a resumed one, must agree


def parse(arguments: list[str] | None = None) -> tuple[argparse.Namespace, dict]:
    """The options, and those of them that are sampling settings."""
    description, *epilog = __doc__.split("\n\n", 1)
    parser = argparse.ArgumentParser(
        description=description, epilog=epilog[0], formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompt", default="", help="what to continue; empty writes from nothing")
    parser.add_argument("--length", type=int, default=200, help="how many characters to write at most (default 200)")
    parser.add_argument("--seed", type=int, help="the same seed gives the same text; without it every run differs")
    parser.add_argument("--num_return_sequences", type=int, default=1, help="how many candidates (default 1)")
    parser.add_argument("--novel", help="write in the manner of this novel, e.g. 天龍八部")
    parser.add_argument("--checkpoint", help="a folder; the bundled checkpoint where none is given")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps")
    parser.add_argument("--dtype", default="auto", help="auto, int8, float32, bfloat16, float16")
    parser.add_argument("--page", help="also write the passages as a page, shaded by surprise")
    parser.add_argument("--contexts", help="batch job: a file of contexts")
    parser.add_argument(
        "--n", "--num_passages", type=int, default=1000, help="batch job: how many passages (default 1000)"
    )
    parser.add_argument("--out", default="passages.jsonl", help="batch job: where to (default passages.jsonl)")
    parser.add_argument("--batch_size", type=int, default=16, help="how many texts side by side (default 16)")
    for setting in fields(Settings):
        name, help = f"--{setting.name}", f"{setting.metadata['help']} (default {setting.default!r})"
        if setting.name == "max_new_tokens":
            continue  # that is --length
        if isinstance(setting.default, bool):
            parser.add_argument(name, action="store_true", help=help)
        elif isinstance(setting.default, tuple):
            parser.add_argument(name, nargs="+", default=setting.default, help=help)
        else:
            parser.add_argument(name, type=type(setting.default), default=setting.default, help=help)
    options = parser.parse_args(arguments)
    for name in ("prompt", "num_return_sequences", "page"):
        if options.contexts is not None and getattr(options, name) != parser.get_default(name):
            raise ValueError(f"--{name} is for single passages: a batch job has --contexts and --n")
    for name in ("n", "out"):
        if options.contexts is None and getattr(options, name) != parser.get_default(name):
            raise ValueError(f"--{name} is for a batch job, which has --contexts: see --help")
    settings = {setting.name: getattr(options, setting.name, None) for setting in fields(Settings)}
    settings["max_new_tokens"] = require_integer("length", options.length, 0)
    return options, Settings(**settings).to_dict()


def main(arguments: list[str] | None = None) -> int:
    try:
        options, settings = parse(arguments)
        if options.contexts is not None:
            run_job(options, settings)
        else:
            write_passages(options, settings)
    except BrokenPipeError:  # `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        print(f"generate.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    return 0


def write_passages(options: argparse.Namespace, settings: dict) -> None:
    """One candidate as it is sampled, or several when they are whole."""
    from jinyong_gpt2.writer import Writer

    writer = Writer.from_pretrained(options.checkpoint, options.device, options.dtype)
    writing = writer.write(
        options.prompt,
        novel=options.novel,
        num_return_sequences=options.num_return_sequences,
        seed=options.seed,
        batch_size=options.batch_size,
        **settings,
    )
    first = writing.passages[0]
    if first.changes:
        print("matched to the model's characters:", *dict.fromkeys(first.changes), file=sys.stderr)
    if len(writing.passages) == 1:
        print(first.prompt, end="", flush=True)
        for _, character in writing:
            print(character.text, end="", flush=True)
        print()
    else:
        for passage in writing.finish():
            print(f"--- seed {passage.seed}, candidate {passage.candidate}\n{passage}\n")
    if options.page:
        print(writing.passages.save(options.page), file=sys.stderr)


# ---------------------------------------------------------------- batch jobs


def run_job(options: argparse.Namespace, settings: dict) -> None:
    """Write what is still missing of the job, or of this process's share of it, and add it to the file."""
    import torch
    from tqdm import tqdm

    from jinyong_gpt2.writer import Writer

    n, size = require_integer("n", options.n, 1), require_integer("batch_size", options.batch_size, 1)
    contexts = read_contexts(Path(options.contexts))
    seed = BATCH_SEED if options.seed is None else require_integer("seed", options.seed, 0)
    digest = hashlib.sha256(json.dumps(contexts).encode()).hexdigest()
    # `accelerate launch` (and torchrun) tell each process its place in these.
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local, here = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("LOCAL_WORLD_SIZE", world))
    device = options.device
    if device in ("auto", "cuda") and torch.cuda.is_available():
        device = f"cuda:{local % torch.cuda.device_count()}"
    if here > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // here))
    writer = Writer.from_pretrained(options.checkpoint, device, options.dtype)
    writer.vocabulary.control(options.novel)  # everything that can be wrong is so before the file is begun
    checkpoint = fingerprint(Path(options.checkpoint or PRETRAINED))
    job = {"contexts": digest, "seed": seed, "novel": options.novel, "checkpoint": checkpoint, "settings": settings}
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    busy = f"another process is writing {out}: wait for it, or choose another --out"
    with alone(out.with_name(f".{out.name}.lock"), busy) if local == 0 else nullcontext():
        done = open_job(out, job)
        share = [k for k in range(n) if k % world == rank]
        missing = [k for k in share if k not in done]
        with tqdm(total=len(share), initial=len(share) - len(missing), unit="passage", disable=rank != 0) as bar:
            for first in range(0, len(missing), size):
                batch = missing[first : first + size]
                writing = writer.write(
                    [contexts[k % len(contexts)] for k in batch],
                    candidate=[k // len(contexts) for k in batch],
                    novel=options.novel,
                    seed=seed,
                    batch_size=size,
                    **settings,
                )
                for _ in writing:
                    pass
                lines = [{"index": k, "passage": p.to_dict()} for k, p in zip(batch, writing.passages, strict=True)]
                append(out, lines)
                bar.update(len(batch))


def fingerprint(checkpoint: Path) -> str:
    """SHA-256 of a checkpoint's weights and tokenizer: one trained anew in the same folder is another."""
    digest = hashlib.sha256()
    for path in sorted([*checkpoint.glob("*.safetensors"), checkpoint / "tokenizer.json"]):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def read_contexts(path: Path) -> list[str]:
    """The contexts of a file. Raises FileNotFoundError where there is none, ValueError where it holds no contexts."""
    if not path.is_file():
        raise FileNotFoundError(f"no file of contexts at {path}")
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
        contexts = [json.loads(line) if path.suffix == ".jsonl" else line.rstrip("\r") for line in lines]
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as contexts in UTF-8: {error}") from error
    if not contexts or not all(isinstance(context, str) for context in contexts):
        raise ValueError(f"{path} must hold at least one context, each a line of text (or a JSON string in .jsonl)")
    return contexts


def open_job(out: Path, job: dict) -> set[int]:
    """The passages that `out` holds already; a new file begins with the job. ValueError where it is another's."""
    header = json.dumps({"job": job}, ensure_ascii=False).encode() + b"\n"
    with locked(out) as file:
        content = file.read()
        if len(content) < len(header) and header.startswith(content):  # a new file, or one killed at its first line
            file.truncate(0)
            file.write(header)
            return set()
    first, *lines = content.split(b"\n")
    try:
        found = json.loads(first)["job"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{out} is there already and holds no passages: choose another --out") from None
    if found != job:
        raise ValueError(
            f"{out} holds another job (contexts, seed, settings or checkpoint differ): choose another --out"
        )
    done = set()
    for number, line in enumerate(lines[:-1], start=2):  # the last one is empty, or a kill left it unfinished
        try:
            done.add(require_integer("index", json.loads(line)["index"], 0))
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"line {number} of {out} is no passage of this job: take that line out, or choose another --out"
            ) from None
    return done


def append(out: Path, lines: list[dict]) -> None:
    """Add whole lines to the end of `out`, in the place of one that a kill has left unfinished."""
    with locked(out) as file:
        file.truncate(end_of_lines(file))
        file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode("utf-8"))


def end_of_lines(file: BinaryIO) -> int:
    """Where the last whole line ends, looked for from the end."""
    start = file.seek(0, os.SEEK_END)
    while start > 0:
        stop, start = start, max(start - BLOCK, 0)
        file.seek(start)
        if (found := file.read(stop - start).rfind(b"\n")) >= 0:
            return start + found + 1
    return 0


@contextmanager
def locked(path: Path) -> Iterator[BinaryIO]:
    """`path` open for reading and appending bytes, for one process at a time where the system can see to it."""
    with path.open("a+b") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        except ImportError:  # Windows
            pass
        file.seek(0)
        yield file


if __name__ == "__main__":
    sys.exit(main())
