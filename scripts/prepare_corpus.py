"""Prepare a folder of novels for training: clean text, tokenizer, uint16 files and a manifest.

    python scripts/prepare_corpus.py data/sample --out data/prepared
    python scripts/prepare_corpus.py data/novels --out data/prepared --script simplified

Prints what was found in each file and done to it. The same files give the same bytes, and an interrupted run leaves
no half-written file behind.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
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
    args = parser.parse_args()

    from jinyong_gpt2.corpus import coverage, load_corpus
    from jinyong_gpt2.dataset import prepare

    try:
        corpus = load_corpus(args.folder, args.script, args.keep_extras, args.heldout, args.workers)
    except (OSError, ValueError) as error:
        raise SystemExit(f"prepare_corpus: {error}") from None
    print(corpus.report_table())
    if args.reports:
        for report in [novel.report for novel in corpus.novels] + corpus.skipped:
            print(f"\n{report}")
    try:
        prepared = prepare(corpus, args.out, args.min_count)
    except (OSError, ValueError) as error:
        raise SystemExit(f"prepare_corpus: {error}") from None
    heldout = "".join(c.full_text for novel in corpus.novels for c in novel.chapters if c.heldout)
    print(f"\n{corpus}")
    print(f"training {len(prepared.train):,} tokens, held out {len(prepared.heldout):,}, in {Path(args.out)}")
    print(f"vocabulary {len(prepared.tokenizer):,}; held-out text: {coverage(heldout, prepared.tokenizer, 10)}")


if __name__ == "__main__":
    main()
