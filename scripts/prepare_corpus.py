"""Prepare a folder of novels for training: clean text, tokenizer, uint16 files and a manifest.

    python scripts/prepare_corpus.py data/sample --out data/prepared
    python scripts/prepare_corpus.py data/novels --out data/prepared --script simplified

Prints what was found in each file and done to it. The same files give the same bytes, and an interrupted run leaves
no half-written file behind.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> int:
    args = parse()
    try:
        prepare_corpus(args)
    except (OSError, ValueError) as error:
        print(f"prepare_corpus.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="+", help="folder with .txt files, or a .txt file; several are one corpus")
    parser.add_argument("--out", default="data/prepared", help="folder to write (default: %(default)s)")
    parser.add_argument("--script", default="traditional", choices=["traditional", "simplified", "as_found"])
    parser.add_argument("--keep-extras", action="store_true", help="keep prefaces, afterwords and appendices")
    parser.add_argument("--heldout", type=float, default=0.02, help="share of chapters held out (default: %(default)s)")
    parser.add_argument("--min-count", type=int, default=5, help="rarer characters go through byte fallback")
    parser.add_argument("--workers", type=int, help="processes (default: one per core)")
    parser.add_argument(
        "--reports", action="store_true", help="print every report in full, with samples of dropped lines"
    )
    return parser.parse_args()


def prepare_corpus(args: argparse.Namespace) -> None:
    """Load, report, prepare. Raises OSError and ValueError with a line for the user."""
    for name, number in (("min-count", args.min_count), ("workers", args.workers)):
        if number is not None and number < 1:
            raise ValueError(f"--{name} must be at least 1, got {number}")
    from jinyong_gpt2.corpus import coverage, load_corpus
    from jinyong_gpt2.dataset import prepare

    corpus = load_corpus(args.folder, args.script, args.keep_extras, args.heldout, args.workers)
    print(corpus.report_table())
    if args.reports:
        for report in [novel.report for novel in corpus.novels] + corpus.skipped:
            print(f"\n{report}")
    prepared = prepare(corpus, args.out, args.min_count)
    heldout = "".join(c.full_text for novel in corpus.novels for c in novel.chapters if c.heldout)
    print(f"\n{corpus}")
    print(f"training {len(prepared.train):,} tokens, held out {len(prepared.heldout):,}, in {Path(args.out)}")
    print(f"vocabulary {len(prepared.tokenizer):,}; held-out text: {coverage(heldout, prepared.tokenizer, 10)}")
    if args.heldout and not heldout:
        print("nothing is held out, for there is no second chapter: no figure will tell what was learnt by heart")


if __name__ == "__main__":
    sys.exit(main())
