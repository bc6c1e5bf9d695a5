#!/usr/bin/env python
"""Measure this project beside its alternatives, in one run on one machine.

    python scripts/benchmark.py prepare FOLDER      reading and encoding novels
    python scripts/benchmark.py train               this loop, HF Trainer, a plain loop
    python scripts/benchmark.py recipe              the default recipe, the article's, and what else was tried
    python scripts/benchmark.py finetune            a checkpoint on new novels, beside a model from scratch
    python scripts/benchmark.py generate            this decoder, HF generate, CTranslate2, no cache
    python scripts/benchmark.py settings            sampling settings beside the book's own text
    python scripts/benchmark.py attention           the views, beside BertViz's own
    python scripts/benchmark.py copies              the index of copied spans

Each prints one table and writes out/benchmark_<name>.json. Figures of one run compare; those of two runs do not.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

NAMES = ("prepare", "train", "recipe", "finetune", "generate", "settings", "attention", "copies")


def table(rows: list[dict[str, Any]]) -> str:
    """`rows` as a Markdown table; the columns are the keys of all rows, in order of first use."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(column, "")) for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="name", required=True)
    benchmarks = {name: importlib.import_module(f"benchmarks.{name}") for name in NAMES}
    for name, module in benchmarks.items():
        module.add_arguments(commands.add_parser(name, help=module.__doc__.split("\n")[0]))
    args = parser.parse_args()
    try:
        rows = benchmarks[args.name].run(args)
    except (ValueError, FileNotFoundError) as error:
        print(f"benchmark.py: {error}", file=sys.stderr)
        return 1
    print(table(rows))
    path = Path("out") / f"benchmark_{args.name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
