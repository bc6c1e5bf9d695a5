#!/usr/bin/env python
"""Set the repository's address, once, everywhere it stands: `python scripts/set_repository.py YOUR_NAME/jinyong_gpt2`.

The Colab badge of the README and the first cell of every notebook hold it.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ADDRESS = re.compile(r"(?P<site>https://github\.com/|\.google\.com/github/)[\w.-]+/[\w.-]+")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", help="OWNER/NAME on GitHub")
    repository = parser.parse_args().repository
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        print(f"set_repository.py: expected OWNER/NAME, got {repository!r}", file=sys.stderr)
        return 1
    for path in [*ROOT.glob("README*.md"), *sorted((ROOT / "notebooks").glob("*.ipynb"))]:
        old = path.read_text(encoding="utf-8")
        new = ADDRESS.sub(rf"\g<site>{repository}", old)
        if new != old:
            path.write_text(new, encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: {repository}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
