"""Is it good, and did it learn or only memorise? Measure a checkpoint on held-out chapters, beside its baselines.

    python scripts/evaluate.py data/pretrained data/prepared
    python scripts/evaluate.py checkpoints/mini/best data/novels --max-chars 50000
    python scripts/evaluate.py checkpoints/mini/best data/prepared --train-lstm 2000   # an LSTM as large beside it
    python scripts/evaluate.py checkpoints/ours/best data/prepared --model "the article's recipe=checkpoints/adamw/best"

CORPUS is what scripts/prepare_corpus.py wrote, or a folder of .txt novels. Prints tables and what was left out; writes
evaluation.json, two charts and the passages side by side to --out. The article's recipe for the last line is
scripts/train.py with --optimizer adamw --schedule linear --learning_rate 1.5e-4. See scripts/memorize.py for how
memorising comes about over a training.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

COUNTING = ("unigram", "Kneser–Ney 3-gram", "Kneser–Ney 5-gram", "PPMd")


def main() -> int:
    args = parse()
    try:
        evaluate(args)
    except (ValueError, OSError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    return 0


def evaluate(args: argparse.Namespace) -> None:
    folders = asked_for(args)
    import torch
    from transformers import AutoTokenizer

    from jinyong_gpt2.allocator import keep_freed_memory
    from jinyong_gpt2.baselines import open_model
    from jinyong_gpt2.charts import chart_novels, chart_scores
    from jinyong_gpt2.devices import resolve_device
    from jinyong_gpt2.evaluation import Score, held_out, score_model, score_table
    from jinyong_gpt2.model import trained_positions

    out, device, skipped = Path(args.out), resolve_device(args.device), []
    out.mkdir(parents=True, exist_ok=True)
    if device.type == "cpu":
        keep_freed_memory()
    models = {
        name: (open_model(folder, device), AutoTokenizer.from_pretrained(folder)) for name, folder in folders.items()
    }
    gpt2, tokenizer = models[args.name]
    prepared = open_corpus(args.corpus, args.checkpoint, out, tokenizer)
    print(*doubts(trained(args.checkpoint).get("corpus"), prepared), sep="\n", end="", flush=True)
    pieces = held_out(prepared, max_chars=args.max_chars)
    if args.examples:
        examples, names = examples_to_continue(args, prepared, trained_positions(gpt2.config), skipped)
    characters = sum(piece.characters for piece in pieces)
    print(f"{len(pieces)} held-out chapters, {characters:,} characters, of {prepared.folder}", flush=True)
    if args.max_chars and len(pieces) < len(held_out(prepared)):
        skipped.append(f"{len(held_out(prepared)) - len(pieces)} held-out chapters, for --max-chars {args.max_chars}")

    if args.train_lstm:
        folders["LSTM"] = train_lstm(prepared, gpt2, args, out)
        models = {"LSTM": (open_model(folders["LSTM"], device), prepared.tokenizer)} | models
    elif not any(name.startswith("LSTM") for name in models):
        skipped.append("LSTM: train one with --train-lstm STEPS, or give one with --model LSTM=FOLDER")

    scores: list[Score] = []
    known = reusable(args.reuse, prepared.hash, pieces)
    for name in COUNTING:
        if name == "PPMd" and args.no_ppmd:
            skipped.append("PPMd, for --no-ppmd")
            continue
        scores.append(known.get(name) or timed(lambda n=name: counting_score(n, prepared, pieces)))
    for name, (model, own) in models.items():
        length = args.context_length or trained_positions(model.config)
        options = (length, args.stride, args.batch_size, True)
        scores.append(timed(lambda n=name, m=model, t=own, o=options: score_model(n, m, t, pieces, prepared, *o)))
    print("\n" + score_table(scores) + "\n")
    report: dict[str, Any] = {
        "checkpoint": str(args.checkpoint),
        "corpus": str(args.corpus),
        "corpus_hash": prepared.hash,
        "threads": torch.get_num_threads(),
        "scores": [score.to_dict() for score in scores],
    }
    write_json(out / "evaluation.json", report)  # what comes after takes long again
    written = [chart_scores(scores).save(out / "bits_per_char.svg")]
    written += [chart_novels(scores).save(out / "bits_per_char_by_novel.svg")]

    if args.examples:
        compared = compare_passages(models, prepared, examples, names, args, out)
        report["passages"] = compared.to_dict()
        written.append(compared.save(out / "side_by_side.html"))
    else:
        skipped.append("passages side by side, for --examples 0")
    if args.extract:
        report["extractable"] = extract(gpt2, tokenizer, prepared, args.extract, skipped)
    else:
        skipped.append("exact continuations, for --extract 0")

    report["skipped"] = skipped
    written.append(write_json(out / "evaluation.json", report))
    print("".join(f"skipped: {line}\n" for line in skipped) + "written: " + ", ".join(map(str, written)))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a Hugging Face folder: model and tokenizer")
    parser.add_argument("corpus", help="a prepared folder, or a folder of .txt novels")
    parser.add_argument("--name", default="GPT-2", help="what to call the checkpoint in the tables")
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME=FOLDER", help="another checkpoint beside it"
    )
    parser.add_argument("--train-lstm", type=int, metavar="STEPS", help="train an LSTM with as many parameters first")
    parser.add_argument("--max-chars", type=int, help="measure on whole chapters of about so many characters in all")
    parser.add_argument(
        "--context-length", type=int, help="tokens a model may see; what it was trained on if not given"
    )
    parser.add_argument("--stride", type=int, help="tokens between two windows; half the context if not given")
    parser.add_argument("--batch-size", type=int, default=16, help="windows at once (and in a step of --train-lstm)")
    parser.add_argument("--no-ppmd", action="store_true", help="leave PPMd out")
    parser.add_argument("--reuse", help="an evaluation.json of the same corpus: take the n-grams and PPMd from there")
    parser.add_argument("--examples", type=int, default=8, help="contexts to continue and compare (0: none)")
    parser.add_argument("--context-chars", type=int, default=100, help="characters of such a context")
    parser.add_argument("--passage-chars", type=int, default=150, help="characters of each continuation")
    parser.add_argument(
        "--names", action="append", default=[], help="a JSON list of people {title: [names]}, or its folder"
    )
    parser.add_argument("--min-chars", type=int, default=15, help="shortest span that counts as copied")
    parser.add_argument(
        "--extract", type=int, default=200, help="prompts whose greedy continuation is tested (0: none)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--out", default="out/evaluation", help="folder for what is written")
    return parser.parse_args()


def asked_for(args: argparse.Namespace) -> dict[str, str]:
    """Name → folder of every model, the checkpoint last. ValueError where an option is not what it can be."""
    folders: dict[str, str] = {}
    for model in [*args.model, f"{args.name}={args.checkpoint}"]:
        name, found, folder = model.partition("=")
        if not (name and found and folder):
            raise ValueError(f"--model must be NAME=FOLDER, got {model!r}")
        if name in folders:
            raise ValueError(f"two models are called {name!r}: give one another --model NAME or --name")
        if not (Path(folder) / "config.json").is_file():
            raise FileNotFoundError(f"no checkpoint in {folder}: config.json is missing")
        folders[name] = folder
    least = {"examples": 0, "extract": 0, "stride": 1, "batch_size": 1, "context_chars": 1, "passage_chars": 1}
    for name, number in (least | {"min_chars": 1, "context_length": 2, "train_lstm": 1}).items():
        if getattr(args, name) is not None and getattr(args, name) < number:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {number}, got {getattr(args, name)}")
    return folders


def open_corpus(folder: str, checkpoint: str, out: Path, tokenizer: Any) -> Any:
    """The prepared corpus, or one made of novels, in the script and with the share held out of the checkpoint's own."""
    from jinyong_gpt2.corpus import load_corpus
    from jinyong_gpt2.dataset import PreparedCorpus, prepare
    from jinyong_gpt2.holdout import HELDOUT_SHARE

    if (Path(folder) / "manifest.json").is_file():
        return PreparedCorpus.open(folder)
    known = trained(checkpoint).get("corpus", {})
    options = {"script": known.get("script", "traditional"), "heldout": known.get("heldout_share", HELDOUT_SHARE)}
    return prepare(load_corpus(folder, **options), out / "prepared", tokenizer=tokenizer)


def doubts(own: dict[str, Any] | None, prepared: Any) -> list[str]:
    """Lines about a corpus that is not the checkpoint's `own`; none where it is, or nothing is known."""
    if not own or own["hash"] == prepared.hash:
        return []
    lines = ["this is not the corpus the checkpoint was trained on: what is held out here may be what it has read"]
    if own["script"] != (script := prepared.manifest["script"]):
        lines.append(f"it was trained on {own['script']} text, and this is {script}: its figures say little")
    return [*lines, ""]


def trained(folder: str | None) -> dict[str, Any]:
    """What is known of a checkpoint's training; nothing of one from elsewhere."""
    from jinyong_gpt2.checkpoints import read_record

    return read_record(folder) if folder else {}


def counting_score(name: str, prepared: Any, pieces: Any) -> Any:
    from jinyong_gpt2.evaluation import score_ngrams, score_ppmd

    if name == "PPMd":
        return score_ppmd(prepared, pieces)
    return score_ngrams(prepared, pieces, {"unigram": 1, "Kneser–Ney 3-gram": 3, "Kneser–Ney 5-gram": 5}[name], True)


def timed(compute: Callable[[], Any]) -> Any:
    clock = time.perf_counter()
    score = compute()
    score.facts["seconds"] = round(time.perf_counter() - clock, 1)
    print(f"{score.name}: {score.bits_per_char:.4f} bits per character, {score.facts['seconds']} s", flush=True)
    return score


def reusable(path: str | None, corpus_hash: str, pieces: Any) -> dict[str, Any]:
    """The counting models' scores of an earlier report, where it is about the same chapters."""
    from jinyong_gpt2.evaluation import Score

    if path is None:
        return {}
    try:
        report = json.loads(Path(path).read_text(encoding="utf-8"))
        scores = [Score.from_dict(values) for values in report["scores"] if values["model"] in COUNTING]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no evaluation.json: leave --reuse out ({error!r})") from None
    same = [s for s in scores if s.characters.tolist() == [piece.characters for piece in pieces]]
    if report["corpus_hash"] != corpus_hash or len(same) < len(scores):
        raise SystemExit(f"{path} is about other chapters: leave --reuse out, or give the same corpus and --max-chars")
    return {score.name: score for score in same}


def train_lstm(prepared: Any, gpt2: Any, args: argparse.Namespace, out: Path) -> str:
    """The checkpoint of an LSTM with as many parameters as the GPT-2, after `--train-lstm` steps of the same windows.

    Begun before with the same options, it goes on from there.
    """
    from jinyong_gpt2.model import parameter_count, trained_positions
    from jinyong_gpt2.training import TrainConfig, train
    from jinyong_gpt2.watching import progress

    config = TrainConfig(
        data=str(prepared.folder), output_dir=str(out / "lstm"), size="lstm", parameters=parameter_count(gpt2),
        context_length=args.context_length or trained_positions(gpt2.config), max_steps=args.train_lstm,
        batch_size=args.batch_size, seed=args.seed, device="cpu" if args.device == "cpu" else "auto", resume=True,
    )  # fmt: skip
    begun = trained(str(out / "lstm" / "last"))
    if begun and begun["config"] != asdict(config):
        raise SystemExit(f"{out / 'lstm'} holds an LSTM trained with other options: delete it, or choose another --out")
    for _ in progress(train(config), config.max_steps, "LSTM"):
        pass
    return str(out / "lstm" / "best")


def examples_to_continue(args: argparse.Namespace, prepared: Any, context: int, skipped: list[str]) -> tuple[Any, Any]:
    """The contexts of the passages, and who is in which novel; both are there before anything is measured."""
    from jinyong_gpt2.comparison import draw_examples_to_continue
    from jinyong_gpt2.people import load_names

    room = (args.context_length or context) // 2
    if args.passage_chars > room:
        skipped.append(f"the end of longer passages: {room} characters are half of what the checkpoint has room for")
        args.passage_chars = room
    sizes = (args.examples, args.context_chars, args.passage_chars)
    examples = draw_examples_to_continue(prepared, *sizes, seed=args.seed)
    names = load_names(*args.names)
    unnamed = sorted({example.novel for example in examples} - set(names))
    if unnamed:
        skipped.append(f"people of {'、'.join(unnamed[:6])}{'…' if len(unnamed) > 6 else ''}: no list (--names FILE)")
    return examples, names


def compare_passages(models: Any, prepared: Any, examples: Any, names: Any, args: argparse.Namespace, out: Path) -> Any:
    from jinyong_gpt2.comparison import compare
    from jinyong_gpt2.memorization import CopyIndex
    from jinyong_gpt2.model import trained_positions

    index = CopyIndex(prepared, out / "copies")
    length = args.context_length or trained_positions(models[args.name][0].config)
    compared = compare(models, examples, names, index, args.min_chars, seed=args.seed, context_length=length)
    print(f"{len(examples)} contexts of {args.context_chars} characters, {args.passage_chars} written each:\n")
    print(compared.table())
    pieces = [prepared.tokenizer.decode(piece) for piece in heldout_texts(prepared)]
    print(f"\ncopied in all held-out chapters (≥{args.min_chars}): {index.copied_share(pieces, args.min_chars):.2%}\n")
    return compared


def heldout_texts(prepared: Any, most: int = 100_000) -> list[Any]:
    from jinyong_gpt2.evaluation import held_out

    return [piece.ids for piece in held_out(prepared, max_chars=most)]


def extract(model: Any, tokenizer: Any, prepared: Any, count: int, skipped: list[str]) -> Any:
    from jinyong_gpt2.extraction import extractable_shares

    if tokenizer.get_vocab() != prepared.tokenizer.get_vocab():
        skipped.append("exact continuations: the checkpoint has another vocabulary than the corpus")
        return None
    try:
        shares = extractable_shares(model, prepared, count=count)
    except ValueError as error:  # a short context, chapters of a few lines
        skipped.append(f"exact continuations: {error}")
        return None
    for split, by_length in shares.items():
        values = ", ".join(f"{share:.1%} for {n}" for n, share in by_length.items())
        print(f"greedy continuations exact, {split} text: {values} characters")
    print()
    return shares


def write_json(path: Path, values: dict[str, Any]) -> Path:
    from jinyong_gpt2.files import write_whole

    return write_whole(path, json.dumps(values, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
