#!/usr/bin/env python
"""Set the repository's address, once, everywhere it stands: `python scripts/set_repository.py YOUR_NAME/jinyong_gpt2`.

The Colab badge of the README and the first cell of every notebook hold it. Other projects' addresses stay as they are.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAME = r"[\w.-]+/[\w.-]+"
BADGE = re.compile(rf"\.google\.com/github/({NAME})/")  # the README's says what the address is now


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", help="OWNER/NAME on GitHub")
    repository = parser.parse_args().repository
    if not re.fullmatch(NAME, repository):
        print(f"set_repository.py: expected OWNER/NAME, got {repository!r}", file=sys.stderr)
        return 1
    now = BADGE.search((ROOT / "README.md").read_text(encoding="utf-8"))
    if now is None:
        print("set_repository.py: README.md has no Colab badge, so its address is not known", file=sys.stderr)
        return 1
    address = re.compile(rf"(?P<site>https://github\.com/|\.google\.com/github/){re.escape(now[1])}(?![\w.-])")
    for path in [*ROOT.glob("README*.md"), *sorted((ROOT / "notebooks").glob("*.ipynb"))]:
        old = path.read_text(encoding="utf-8")
        new = address.sub(rf"\g<site>{repository}", old)
        if new != old:
            path.write_text(new, encoding="utf-8")
            print(f"{path.relative_to(ROOT)}: {repository}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
