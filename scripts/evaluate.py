"""Is it good, and did it learn or only memorise? Measure a checkpoint on held-out chapters, beside its baselines.

    python scripts/evaluate.py data/pretrained data/prepared
    python scripts/evaluate.py checkpoints/mini/best data/novels --max-chars 50000

CORPUS is what scripts/prepare_corpus.py wrote, or a folder of .txt novels. Prints tables and writes them to --out.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any


def main() -> None:
    args = parse()
    from jinyong_gpt2.dataset import PreparedCorpus, prepare
    from jinyong_gpt2.evaluation import held_out, ladder, score_model, score_table
    from jinyong_gpt2.model import resolve_device

    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    model, tokenizer = open_checkpoint(args.checkpoint, resolve_device(args.device))
    if (Path(args.corpus) / "manifest.json").is_file():
        prepared = PreparedCorpus.open(args.corpus)
    else:
        from jinyong_gpt2.corpus import load_corpus

        prepared = prepare(load_corpus(args.corpus), out / "prepared", tokenizer=tokenizer)

    pieces = held_out(prepared, max_chars=args.max_chars)
    characters = sum(piece.characters for piece in pieces)
    print(f"{len(pieces)} held-out chapters, {characters:,} characters, of {prepared.folder}", flush=True)
    scores, seconds = [], []

    def add(compute: Any) -> None:
        clock = time.perf_counter()
        scores.append(compute())
        seconds.append(round(time.perf_counter() - clock, 1))
        print(f"{scores[-1].name}: {scores[-1].bits_per_char:.4f} bits per character, {seconds[-1]} s", flush=True)

    baselines = ladder(prepared, pieces, ppmd=not args.no_ppmd, progress=True)
    for _ in range(3 + (not args.no_ppmd)):
        add(lambda: next(baselines))
    add(
        lambda: score_model(
            "GPT-2",
            model,
            tokenizer,
            pieces,
            prepared,
            args.context_length,
            args.stride,
            args.batch_size,
            progress=True,
        )
    )
    print("\n" + score_table(scores))
    report = {
        "checkpoint": str(args.checkpoint),
        "corpus": str(args.corpus),
        "corpus_hash": prepared.hash,
        "scores": [score.to_dict() | {"seconds": s} for score, s in zip(scores, seconds, strict=True)],
    }
    write_json(out / "evaluation.json", report)
    print(f"\nwritten: {out / 'evaluation.json'}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a Hugging Face folder: model and tokenizer")
    parser.add_argument("corpus", help="a prepared folder, or a folder of .txt novels")
    parser.add_argument("--max-chars", type=int, help="measure on whole chapters of about so many characters in all")
    parser.add_argument("--context-length", type=int, help="tokens the model may see; its longest if not given")
    parser.add_argument("--stride", type=int, help="tokens between two windows; half the context if not given")
    parser.add_argument("--batch-size", type=int, default=16, help="windows at once")
    parser.add_argument("--no-ppmd", action="store_true", help="leave PPMd out")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--out", default="out/evaluation", help="folder for evaluation.json")
    return parser.parse_args()


def open_checkpoint(folder: str, device: Any) -> tuple[Any, Any]:
    """Model in float32 on the device, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.to(device).eval(), AutoTokenizer.from_pretrained(folder)


def write_json(path: Path, values: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(values, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


if __name__ == "__main__":
    main()
