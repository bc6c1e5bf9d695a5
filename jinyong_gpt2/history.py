"""`History`: every version that was ever written, as a tree, and where in it one stands.

>>> history = History()
>>> first = history.add(Request(context="喬峯"), passages)              # written from a context
>>> second = history.add(Request(kind="continue", source=(first.id, 0)), longer)   # made from its first passage
>>> history.undo()                     # one step back; nothing is ever deleted
>>> history.pin(first.id, 0)
>>> export(history.pinned(), "out/best.md")

>>> file = HistoryFile("out/studio.json")
>>> history = file.read()              # what was saved there, or an empty history
>>> file.write(history)
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any

from jinyong_gpt2.files import write_whole
from jinyong_gpt2.passage import Passage, Passages
from jinyong_gpt2.sampling import Settings, require_integer

FORMAT = "jinyong_gpt2 studio 1"
KINDS = {"write": "寫", "continue": "續寫", "again": "重寫", "rewrite": "改寫", "branch": "分枝"}
EMPTY = 0  # the place before anything was written
DIGITS = 5  # kept of each probability in a file

Place = tuple[int, int]  # a version's id and one of its passages


@dataclass(frozen=True)
class Request:
    """What the writer was asked for. Raises ValueError for an unknown kind."""

    kind: str = "write"
    """one of `KINDS`: from a context, or from a passage: on from its end, its new part again, from a character on,
    from a character on with another in its place"""
    context: str = ""
    novel: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    count: int = 1
    """how many passages"""
    source: Place | None = None
    """the passage it was made from"""
    start: int = 0
    """how many characters of the source's continuation were kept"""
    insert: str = ""
    """what stands after them, before the new"""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind {self.kind!r}: choose one of {', '.join(KINDS)}")
        if (self.source is None) != (self.kind == "write"):
            raise ValueError(f"a request to {self.kind!r} {'needs a' if self.source is None else 'has no'} source")
        for name in ("context", "insert"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} must be a string, got {getattr(self, name)!r}")
        if not isinstance(self.settings, dict):
            raise ValueError(f"settings must be a dict, got {self.settings!r}")
        if self.source is not None:
            object.__setattr__(self, "source", (int(self.source[0]), int(self.source[1])))


@dataclass
class Version:
    """One request and the passages it gave. Once `finished` it never changes."""

    id: int
    request: Request
    passages: list[Passage]
    made: str
    """when, in local time, as ISO 8601"""
    finished: bool = True

    @property
    def parent(self) -> int:
        """The version it was made from; `EMPTY` where it was written from a context."""
        return EMPTY if self.request.source is None else self.request.source[0]

    def to_dict(self) -> dict[str, Any]:
        """All of it but `finished`, as plain values; probabilities to `DIGITS` digits."""
        passages = [_rounded(passage.to_dict()) for passage in self.passages]
        return {"id": self.id, "request": asdict(self.request), "passages": passages, "made": self.made}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Version:
        """The version that `to_dict` gave `values` of. Raises ValueError where they are none."""
        unknown = set(values["request"]) - {f.name for f in fields(Request)}
        if unknown:
            raise ValueError(f"not fields of a Request: {', '.join(sorted(unknown))}")
        passages = [Passage.from_dict(passage) for passage in values["passages"]]
        return cls(require_integer("id", values["id"], 1), Request(**values["request"]), passages, str(values["made"]))


class History:
    """A tree of versions and the trail of places one has been at. Going back, and on again, moves along the trail."""

    def __init__(self) -> None:
        self.versions: dict[int, Version] = {}  # in the order they were made
        self.pins: list[Place] = []  # in the order they were pinned
        self.draft: dict[str, Any] = {}  # what stands in the panel and is not written yet
        self._trail = [EMPTY]
        self._step = 0

    # ------------------------------------------------------------ where one stands

    @property
    def current(self) -> Version | None:
        """The version one stands at; None at the empty beginning."""
        return self.versions.get(self._trail[self._step])

    @property
    def can_undo(self) -> bool:
        return self._step > 0

    @property
    def can_redo(self) -> bool:
        return self._step < len(self._trail) - 1

    def undo(self) -> Version | None:
        """One step back, where there is one; then `current`."""
        self._step -= self.can_undo
        return self.current

    def redo(self) -> Version | None:
        """One step on again, where there is one; then `current`."""
        self._step += self.can_redo
        return self.current

    def visit(self, id: int) -> Version | None:
        """Go to any version, or to `EMPTY`: a step that `undo` takes back. Raises ValueError where there is none."""
        if id != EMPTY and id not in self.versions:
            raise ValueError(f"there is no version {id}")
        if id != self._trail[self._step]:
            self._trail = [*self._trail[: self._step + 1], id]
            self._step += 1
        return self.current

    # ------------------------------------------------------------ what there is

    def add(self, request: Request, passages: Sequence[Passage], finished: bool = True) -> Version:
        """A new version, and go there. Raises ValueError where its source does not exist."""
        if request.source is not None:
            self.passage(*request.source)
        id = max(self.versions, default=EMPTY) + 1
        made = datetime.now().isoformat(timespec="seconds")
        self.versions[id] = Version(id, request, list(passages), made, finished)
        self.visit(id)
        return self.versions[id]

    def passage(self, id: int, index: int) -> Passage:
        """Passage `index` of version `id`. Raises ValueError where there is none."""
        version = self.versions.get(id)
        if version is None or not 0 <= index < len(version.passages):
            raise ValueError(f"there is no passage {index} of a version {id}")
        return version.passages[index]

    def children(self, id: int) -> list[Version]:
        """The versions made from version `id`, or from a context where it is `EMPTY`."""
        return [version for version in self.versions.values() if version.parent == id]

    def line(self, id: int) -> list[Version]:
        """How a version came about: from the one written from a context to itself."""
        versions = []
        while id != EMPTY:
            versions.append(self.versions[id])
            id = versions[-1].parent
        return versions[::-1]

    def pin(self, id: int, index: int, on: bool = True) -> None:
        """Pin a passage, or let it go with `on=False`. Raises ValueError where there is none."""
        self.passage(id, index)
        self.pins = [place for place in self.pins if place != (id, index)] + [(id, index)] * on

    # ------------------------------------------------------------ passages to export

    def here(self) -> list[Passage]:
        """All passages of the current version."""
        return list(self.current.passages) if self.current else []

    def pinned(self) -> list[Passage]:
        """All pinned passages."""
        return [self.passage(*place) for place in self.pins]

    def way(self) -> list[Passage]:
        """How the current passages came about: each passage that the next was made from, and then they."""
        if self.current is None:
            return []
        sources = [version.request.source for version in self.line(self.current.id)]
        return [self.passage(*source) for source in sources if source is not None] + self.here()

    # ------------------------------------------------------------ as plain values

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain values that `json.dumps` takes."""
        return self.outline() | {"versions": [version.to_dict() for version in self.versions.values()]}

    def outline(self) -> dict[str, Any]:
        """`to_dict` without the versions."""
        pins = [list(place) for place in self.pins]
        return {"trail": list(self._trail), "step": self._step, "pins": pins, "draft": dict(self.draft)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> History:
        """The history that `to_dict` gave `values` of. Raises ValueError where they do not fit together."""
        history = cls()
        try:
            for version in map(Version.from_dict, values["versions"]):
                if version.id in history.versions:
                    raise ValueError(f"two versions are numbered {version.id}")
                if version.request.source is not None:  # so that a version is never made from a later one
                    history.passage(*version.request.source)
                history.versions[version.id] = version
            history.pins = [(id, index) for id, index in values["pins"]]
            history.pinned()
            history.draft = dict(values["draft"])
            history._trail, history._step = list(values["trail"]), values["step"]
            for id in history._trail:
                if id != EMPTY and id not in history.versions:
                    raise ValueError(f"there is no version {id}")
            if not 0 <= require_integer("step", history._step, 0) < len(history._trail):
                raise ValueError(f"there is no step {history._step}")
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"not a history: {type(error).__name__}: {error}") from error
        return history


# ---------------------------------------------------------------- its file


def free_path(path: Path, mark: str = "") -> Path:
    """A name beside `path` that nothing has yet."""
    for number in count(1):
        name = path.with_name(f"{path.stem}{mark}{f'-{number}' if number > 1 else ''}{path.suffix}")
        if not name.exists():
            return name


class HistoryFile:
    """A history's file. It is replaced in one stroke, and another's file never is.

    What cannot be read there is moved aside; where someone else has saved meanwhile, this one goes on under another
    name. Both leave one line in `note`, for the reader.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.note = ""
        self._saved = ""  # what marks the file as the one last read or written here
        self._finished: dict[int, tuple[Version, str]] = {}  # the JSON of versions that will not change

    def read(self) -> History:
        """The history in the file; an empty one where there is none, or one that cannot be read."""
        try:
            text = self.path.read_bytes().decode("utf-8")
        except FileNotFoundError:
            return History()
        except (OSError, UnicodeDecodeError) as error:
            return self._begin_anew(error, movable=isinstance(error, UnicodeDecodeError))
        try:
            values = json.loads(text)
            if not isinstance(values, dict) or values.get("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT!r}")
            history = History.from_dict(values)
        except (ValueError, RecursionError) as error:
            return self._begin_anew(error)
        self._saved = str(values.get("saved"))
        return history

    def write(self, history: History) -> None:
        """Save. Raises OSError where the folder cannot be written to."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self._is_anothers():
            theirs, self.path = self.path.name, free_path(self.path)
            self.note = f"{theirs} 另外有人在寫，沒有動它；這裡的改存成 {self.path.name}。"
        saved = secrets.token_hex(8)
        head = json.dumps({"format": FORMAT, "saved": saved})[:-1]
        outline = json.dumps(history.outline(), ensure_ascii=False)[1:-1]
        versions = ",\n".join(map(self._json, history.versions.values()))
        text = f'{head},\n{outline},\n"versions": [\n{versions}\n]}}\n'
        write_whole(self.path, text)
        self._saved = saved

    def let_go(self) -> None:
        """Leave the file to someone else: the next `write` goes to another name, unless it is gone by then."""
        self._saved = ""

    def _json(self, version: Version) -> str:
        known, text = self._finished.get(version.id, (None, ""))
        if known is version:
            return text
        text = json.dumps(version.to_dict(), ensure_ascii=False, separators=(",", ":"))
        if version.finished:
            self._finished[version.id] = version, text
        return text

    def _is_anothers(self) -> bool:
        """Whether the file there is not the one that was last read or written here."""
        try:
            with open(self.path, "rb") as file:
                head = file.read(200).decode("utf-8", "replace")
        except FileNotFoundError:
            return False
        return not self._saved or f'"saved": "{self._saved}"' not in head

    def _begin_anew(self, reason: Exception, movable: bool = True) -> History:
        line, damaged = " ".join(str(reason).split())[:120], self.path.name
        if movable:
            try:
                aside = self.path.rename(free_path(self.path, ".damaged"))
                self.note = f"{damaged} 讀不出來（{line}），已原封不動改名為 {aside.name}；這裡從頭開始。"
                return History()
            except OSError:
                pass
        self.path = free_path(self.path)
        self.note = f"{damaged} 讀不出來（{line}），沒有動它；這裡改存成 {self.path.name}。"
        return History()


def _rounded(passage: dict[str, Any]) -> dict[str, Any]:
    """A passage's values with `DIGITS` digits of each probability: a third of the size, and nobody sees more."""

    def short(number: float) -> float:
        return float(f"{number:.{DIGITS}g}")

    return passage | {
        "logprobs": [short(p) for p in passage["logprobs"]],
        "probabilities": [short(p) for p in passage["probabilities"]],
        "alternatives": [[(token, short(p)) for token, p in best] for best in passage["alternatives"]],
    }


# ---------------------------------------------------------------- exports

FORMATS = {".txt": "文字", ".md": "Markdown", ".html": "HTML"}


def export(passages: Sequence[Passage], path: str | os.PathLike[str]) -> Path:
    """Write passages to a file: `.txt`, `.md` or `.html`, one that is there already is replaced. Returns its path.

    Raises ValueError where there is no passage, or for another suffix.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"export to one of {', '.join(FORMATS)}, not {path.name!r}")
    if not passages:
        raise ValueError("there is no passage to export")
    if path.suffix == ".html":
        return Passages(passages).save(path)
    text = to_markdown(passages) if path.suffix == ".md" else to_text(passages)
    return write_whole(path, text)


def to_text(passages: Sequence[Passage]) -> str:
    """The passages alone, a line of asterisks between them."""
    return "\n\n＊　＊　＊\n\n".join(passage.text for passage in passages) + "\n"


def to_markdown(passages: Sequence[Passage]) -> str:
    """The passages with a heading each, the context in bold, and how to have them again."""
    parts = ["# 金庸體習作", ""]
    for number, passage in enumerate(passages, start=1):
        novel = f"《{passage.novel}》　" if passage.novel else ""
        settings = ", ".join(f"{name} {value}" for name, value in _unusual(passage.settings))
        parts += [f"## {number}", "", *_paragraphs(passage), ""]
        parts += [f"*{novel}seed {passage.seed}, candidate {passage.candidate}; {_escaped(settings)}*", ""]
    return "\n".join(parts)


def _unusual(settings: dict[str, Any]) -> list[tuple[str, Any]]:
    """How long it was to be, and the settings that are not as they are by default."""
    usual = Settings().to_dict() | {"max_new_tokens": None}
    return [(name, value) for name, value in settings.items() if usual.get(name) != value]


def _paragraphs(passage: Passage) -> list[str]:
    """Its paragraphs in Markdown, the prompt in bold, a blank line after each."""
    lines, left = [], len(passage.prompt)
    for line in passage.text.split("\n"):
        given, written = line[:left], line[left:]
        left = max(0, left - len(line) - 1)
        given, written = _escaped(given.strip()), _escaped(written.strip())
        # Not two asterisks: beside 「」 they are no emphasis (CommonMark, section 6.2).
        lines += [f"<b>{given}</b>{written}" if given else written, ""]
    return lines


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is (CommonMark, section 2.4: any ASCII punctuation may be escaped)."""
    harmless = r"(?<=\w)_(?=\w)|(?<=\d)\.(?=\d)"  # as in top_p 0.95
    return re.sub(rf"{harmless}|([\\`*_{{}}\[\]<>()#+.!|~&=^$-])", lambda m: f"\\{m[0]}" if m[1] else m[0], text)
