"""Who appears in a passage, and whether they belong there: does a continuation keep to the people of its context?

names = load_names("data/sample")              # {title: [names]}; the fourteen novels are known anyway
people_in("喬峯帶阿朱回到北方", ["阿朱", "段譽"])    # ['阿朱']
keeping(examples, names)                       # shares over many continuations
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinyong_gpt2.files import read_json
from jinyong_gpt2.novels import NOVELS

NAMES_FILE = "characters.json"


@dataclass(frozen=True)
class Keeping:
    """Of all the names in some continuations (each time one is mentioned), where they come from."""

    mentions: int
    in_context: float  # share of mentions whose name stands in the context too
    in_novel: float  # share whose name belongs to the context's novel
    elsewhere: float  # share in neither: people of other novels
    named: float  # share of continuations that mention anyone


def load_names(*sources: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Names by novel: those of the known novels, and what the sources add.

    A source is a JSON file {title: [names]} or a folder with such a file, `characters.json`, in it. Raises
    FileNotFoundError where it is absent, ValueError where it is something else.
    """
    names = {facts.title: list(facts.people) for facts in NOVELS}
    for source in sources:
        path = Path(source)
        path = path / NAMES_FILE if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f'no list of names {path}: write one as {{"title": ["name", …]}}')
        added = read_json(path, "mend it or leave it out")
        if not isinstance(added, dict) or not all(
            isinstance(people, list) and all(isinstance(name, str) and name for name in people)
            for people in added.values()
        ):
            raise ValueError(f'{path} must hold {{"title": ["name", …]}} with names that are not empty')
        for title, people in added.items():
            names[title] = list(dict.fromkeys([*names.get(title, []), *people]))
    return names


def people_in(text: str, names: Iterable[str]) -> list[str]:
    """Every mention of a name, in order; where names overlap the longest that begins first counts.

    >>> people_in("完顏康不是楊康", ["完顏康", "楊康", "康"])
    ['完顏康', '楊康']
    """
    longest_first = sorted(set(names), key=len, reverse=True)
    return re.findall("|".join(map(re.escape, longest_first)), text) if longest_first else []


def keeping(examples: Sequence[tuple[str, str, str | None]], names: Mapping[str, Sequence[str]]) -> Keeping:
    """How the continuations of (context, continuation, novel) keep to their people.

    A novel that is None or has no names has only its context's people. Shares are nan where nobody is mentioned.
    """
    everyone = {name for people in names.values() for name in people}
    mentions = in_context = in_novel = elsewhere = named = 0
    for context, continuation, novel in examples:
        present = set(people_in(context, everyone))
        own = set(names.get(novel, ())) if novel is not None else set()
        found = people_in(continuation, everyone)
        mentions += len(found)
        named += bool(found)
        in_context += sum(name in present for name in found)
        in_novel += sum(name in own for name in found)
        elsewhere += sum(name not in present and name not in own for name in found)
    share = [count / mentions if mentions else math.nan for count in (in_context, in_novel, elsewhere)]
    return Keeping(mentions, *share, named / len(examples) if examples else math.nan)
