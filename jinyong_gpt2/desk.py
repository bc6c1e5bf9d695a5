"""`Desk`: all that the studio does, without its looks: one writer, one history, one job at a time.

>>> desk = Desk(writer, corpus, "out/studio.json")
>>> desk.tell = print                                 # a dict for each thing that happens
>>> desk.write("喬峯", settings={"max_new_tokens": 100}, count=3)   # returns at once; a thread writes
>>> desk.stop()
>>> desk.rewrite(1, 0, start=20)                      # version 1, passage 0, from its 21st character on
>>> desk.undo()

Everything here may be called from any thread. What is told:

    {"type": "place", "version", "cards", "original"}   what stands on the desk now, whole
    {"type": "grow", "version", "cards"}                what was added to it since
    {"type": "tree", "versions", "current", "pins"}     all versions, without their text; `current` has been told
    {"type": "busy", "on"}                              whether a job is under way
    {"type": "say", "text", "error"}                    one line for the reader
    {"type": "copies", "version", "index", "spans"}     what a passage copied
    {"type": "view", "title", "page"}                   attention: a whole HTML page
    {"type": "file", "name", "text"}                    an export, for the browser to offer
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinyong_gpt2.attention import show
from jinyong_gpt2.history import EMPTY, FORMATS, KINDS, History, HistoryFile, Request, Version, export, free_path
from jinyong_gpt2.memorization import CopyIndex
from jinyong_gpt2.tokenizer import GENERIC_TOKEN, control_token
from jinyong_gpt2.views.page import TITLES

if TYPE_CHECKING:
    from jinyong_gpt2.corpus import Corpus
    from jinyong_gpt2.passage import Passage
    from jinyong_gpt2.writer import Writer, Writing

BEAT = 0.1  # seconds between two messages about a growing text
SAVE_EVERY = 2.0  # seconds, while it grows
COPIED = 15  # characters in a row that count as copied
RECOGNISED = 12  # characters of a context that are looked for in the corpus
ATTENDED = {"model": 40, "head": 60, "neuron": 60, "generation": 240}  # characters that a panel has room for
SETS = {"pinned": "釘選的", "here": "這一頁", "way": "一路走來"}  # of passages to export, by method of `History`


# Which desk of this Python works on a file: a cell that is run again opens the same file a second time.
_AT_WORK: weakref.WeakValueDictionary[Path, Desk] = weakref.WeakValueDictionary()


class _Job(threading.Thread):
    """One request being written, after the job before it has come to its end."""

    def __init__(self, work: Callable[[_Job], None], previous: _Job | None) -> None:
        super().__init__(daemon=True, name="studio")
        self.stopped = threading.Event()
        self._work, self._previous = work, previous

    def run(self) -> None:
        if self._previous is not None:
            self._previous.join()
            self._previous = None
        self._work(self)


@dataclass
class _Growth:
    """How much of a growing version has been told. Up to there its passages are whole, whichever thread looks."""

    lengths: list[int]  # of each continuation, in characters
    unknown: int  # first characters whose probabilities are not known: another model wrote them


class Desk:
    """`copies` is a `CopyIndex`; where none is given one is built of `corpus` when first asked for."""

    def __init__(
        self,
        writer: Writer,
        corpus: Corpus | None = None,
        path: str | os.PathLike[str] = "out/studio.json",
        copies: CopyIndex | None = None,
    ) -> None:
        where = Path(path).resolve()
        if (before := _AT_WORK.get(where)) is not None:  # a cell that is run again
            before.hand_over()
        _AT_WORK[where] = self
        self.writer, self.corpus = writer, corpus
        self.tell: Callable[[dict[str, Any]], None] = lambda message: None
        self.file = HistoryFile(path)
        self.history: History = self.file.read()
        self._copies = copies
        self._marking = False  # whether copies are to be marked
        self._lock = threading.RLock()
        self._job: _Job | None = None
        self._growing: dict[int, _Growth] = {}  # by version
        self._aside = ThreadPoolExecutor(1, "studio")  # attention and copies, one after the other
        self._saving: threading.Timer | None = None
        self._line: dict[str, Any] = {"type": "say", "text": self.file.note, "error": bool(self.file.note)}
        self._view: dict[str, Any] = {"type": "view", "title": "", "page": ""}

    # ------------------------------------------------------------ writing

    def write(
        self, context: str, novel: str | None = None, settings: dict | None = None, seed: int | None = None, count=1
    ) -> None:
        """Write `count` passages after a context. A job that is under way stops first; what it wrote stays."""
        self._begin("write", None, context=context, novel=novel, settings=settings, seed=seed, count=count)

    def continue_(self, id: int, index: int, settings: dict | None = None, count: int = 1) -> None:
        """Go on from the end of a passage."""
        self._begin("continue", (id, index), settings=settings, count=count)

    def again(self, id: int, index: int, settings: dict | None = None, count: int = 1) -> None:
        """Write anew what was new in a passage."""
        start = self.history.passage(id, index).kept + len(self.history.versions[id].request.insert)
        self._begin("again", (id, index), start=start, settings=settings, count=count)

    def rewrite(self, id: int, index: int, start: int, settings: dict | None = None, count: int = 1) -> None:
        """Write a passage anew from character `start` of its continuation on."""
        self._begin("rewrite", (id, index), start=start, settings=settings, count=count)

    def branch(
        self, id: int, index: int, start: int, insert: str, settings: dict | None = None, count: int = 1
    ) -> None:
        """The same, with `insert` standing at `start`."""
        self._begin("branch", (id, index), start=start, insert=insert, settings=settings, count=count)

    def stop(self) -> None:
        """Stop writing. What was written stays."""
        with self._lock:
            if self._job is not None:
                self._job.stopped.set()

    @property
    def busy(self) -> bool:
        """Whether a job is under way."""
        return self._job is not None

    def wait(self, timeout: float | None = None) -> None:
        """Until nothing is under way: the job, attention, copies, and the save after them."""
        if (job := self._job) is not None:
            job.join(timeout)
        self._aside.submit(lambda: None).result(timeout)
        self.save()

    def hand_over(self) -> None:
        """Stop and save, for another desk to go on with the same file. What is done here later is saved beside it."""
        self.stop()
        if (job := self._job) is not None:
            job.join()
        self.save()
        self.file.let_go()

    # ------------------------------------------------------------ moving

    def undo(self) -> Version | None:
        """One step back; the version one stands at then."""
        return self._move(lambda: self.history.can_undo, self.history.undo, "已經退到最開頭了。")

    def redo(self) -> Version | None:
        """One step on again; the version one stands at then."""
        return self._move(lambda: self.history.can_redo, self.history.redo, "後面沒有了。")

    def visit(self, id: int) -> Version | None:
        """Go to any version."""
        return self._move(lambda: True, lambda: self.history.visit(id), "")

    def pin(self, id: int, index: int, on: bool = True) -> None:
        """Pin a passage, or let it go."""
        with self._lock:
            self.history.pin(id, index, on)
            self.tell(self._tree())
            self.save()

    def keep_draft(self, draft: dict[str, Any]) -> None:
        """Keep what stands in the panel, saved within a second."""
        with self._lock:
            if draft == self.history.draft:
                return
            self.history.draft = draft
            if self._saving is None:
                self._saving = threading.Timer(1.0, self.save)
                self._saving.daemon = True
                self._saving.start()

    # ------------------------------------------------------------ contexts

    @property
    def titles(self) -> list[str]:
        """The novels to choose from: those of the corpus, then those only the checkpoint knows."""
        ours = list(self.corpus.titles) if self.corpus is not None else []
        known = [token[2:-2] for token in self.writer.vocabulary.controls if token != GENERIC_TOKEN]
        return ours + [title for title in known if title not in ours]

    def draw(self, novel: str | None, length: int) -> str:
        """A context at random. Raises ValueError where there is no corpus, or the novel is not in it."""
        if self.corpus is None:
            raise ValueError("沒有語料可抽：請用 Studio(writer, corpus) 打開，或自己寫一段開頭。")
        if novel is not None and novel not in self.corpus.titles:
            raise ValueError(f"手邊的語料裡沒有《{novel}》，抽不出來；可以自己寫一段開頭，模型還是會照它的筆調寫。")
        return self.corpus.sample_context(novel, length)

    def original(self, version: Version) -> dict[str, str] | None:
        """What follows a version's context in the corpus: text and source; None where it does not stand there."""
        context = version.request.context.strip("\n")
        if self.corpus is None or len(context) < RECOGNISED:
            return None
        longest = max((len(passage.continuation) for passage in version.passages), default=0)
        length = max(longest, version.request.settings.get("max_new_tokens", 0))
        for novel in self.corpus.novels:
            for chapter in novel.chapters:
                if (place := chapter.text.find(context)) >= 0:
                    end = place + len(context)
                    text = chapter.text[end : end + length]
                    return {"text": text, "source": f"《{novel.title}》{chapter.title}"} if text else None
        return None

    # ------------------------------------------------------------ looking inside

    def mark_copies(self, on: bool) -> None:
        """Find what the passages on the desk copied, now and from now on; `on=False` stops that."""
        self._marking = on
        self._look_for_copies()

    def attend(self, id: int, index: int, view: str, place: int | None = None) -> None:
        """Show what the model looks at in a passage, in one of `show`'s views: the last characters up to `place` of
        its continuation, or to its end."""
        if view not in ATTENDED:
            raise ValueError(f"unknown view {view!r}: choose one of {', '.join(ATTENDED)}")
        passage = self.history.passage(id, index)
        stop = len(passage.text) if place is None else min(len(passage.prompt) + place + 1, len(passage.text))
        start = max(0, stop - ATTENDED[view])

        def look() -> None:
            self.say(f"正在畫{TITLES[view]}……")
            known = replace(passage, novel=self._known(passage.novel))
            page = show(self.writer.model, self.writer.tokenizer, known, view, start=start, stop=stop).page
            self._view = {"type": "view", "title": f"{TITLES[view]}：版本 {id} 第 {index + 1} 稿", "page": page}
            self.tell(self._view)
            self.say("")

        self._later("畫注意力", look)

    def close_view(self) -> None:
        """Put the view of attention away."""
        self._view = {"type": "view", "title": "", "page": ""}
        self.tell(self._view)

    # ------------------------------------------------------------ exporting

    def export(self, which: str, suffix: str) -> None:
        """Write passages (one of `SETS`) beside the history, as one of `FORMATS`, and offer them to the browser."""
        if which not in SETS or suffix not in FORMATS:
            raise ValueError(f"export {', '.join(SETS)} as {', '.join(FORMATS)}, not {which!r} as {suffix!r}")
        with self._lock:
            passages = getattr(self.history, which)()
            if not passages:
                raise ValueError("還沒有釘選任何一稿。" if which == "pinned" else "這裡還沒有可以匯出的稿子。")
            name = f"{self.file.path.stem}-{datetime.now():%Y%m%d-%H%M}{suffix}"
            path = export(passages, free_path(self.file.path.with_name(name)))
        self.tell({"type": "file", "name": path.name, "text": path.read_text(encoding="utf-8")})
        self.say(f"{len(passages)} 稿已存成 {path}")

    # ------------------------------------------------------------ telling

    def say(self, text: str, error: bool = False) -> None:
        """One line for the reader; an empty one takes the last away."""
        self._line = {"type": "say", "text": text, "error": error}
        self.tell(self._line)

    def tell_all(self) -> None:
        """Everything, for a display that has just opened."""
        with self._lock:
            self._tell_where()
            for message in (self._view, self._line, {"type": "busy", "on": self.busy}):
                self.tell(message)
        self._look_for_copies()

    @contextlib.contextmanager
    def telling(self, what: str) -> Iterator[None]:
        """Inside, an error becomes a line for the reader."""
        try:
            yield
        except Exception as error:
            if not isinstance(error, ValueError | OSError):
                logging.getLogger(__name__).exception(what)
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            self.say(f"{what}沒有成功：{kind}{' '.join(str(error).split())[:300]}", error=True)

    def save(self) -> None:
        """Save the history now."""
        with self._lock, self.telling("存檔"):
            if self._saving is not None:
                self._saving.cancel()
                self._saving = None
            note = self.file.note
            self.file.write(self.history)
            if self.file.note != note:
                self.say(self.file.note, error=True)

    # ------------------------------------------------------------ within

    def _move(self, possible: Callable[[], bool], move: Callable[[], Version | None], line: str) -> Version | None:
        with self._lock:
            if not possible():
                self.say(line)
                return self.history.current
            move()
            self._tell_where()
            self.say("")
            self.save()
        self._look_for_copies()
        return self.history.current

    def _begin(self, kind: str, source: tuple[int, int] | None, **asked: Any) -> None:
        if source is not None:
            passage = self.history.passage(*source)
            asked |= {"context": self.history.versions[source[0]].request.context, "novel": passage.novel}
        asked["settings"] = dict(asked["settings"] or {})
        if asked.get("seed") is None:
            asked["seed"] = secrets.randbelow(2**31)
        request = Request(kind, source=source, **asked)
        with self._lock:
            self.stop()
            self._job = _Job(lambda job: self._work(job, request), self._job)
            self._job.start()

    def _work(self, job: _Job, request: Request) -> None:
        """What the thread of a job does."""
        try:
            if not job.stopped.is_set():  # otherwise another came before it began
                self.say("")
                self.tell({"type": "busy", "on": True})  # which puts a line of its own where there is none
                with self.telling(KINDS[request.kind]):
                    self._write(job, request)
                self.save()
        finally:
            with self._lock:
                if self._job is job:
                    self._job = None
                    self.tell({"type": "busy", "on": False})
        self._look_for_copies()

    def _write(self, job: _Job, request: Request) -> None:
        if request.kind == "continue":  # its source may have been growing until now
            request = replace(request, start=len(self.history.passage(*request.source).continuation))
        writing = self._ask(request)
        with self._lock:
            version = self.history.add(request, writing.passages, finished=False)
            first = version.passages[0]
            lengths = [len(passage.continuation) for passage in version.passages]
            self._growing[version.id] = _Growth(lengths, len(first.continuation) - len(first.probabilities))
            self._tell_where()
        try:
            self._grow(job, version, writing)
        finally:
            writing.close()
            with self._lock:
                version.finished = True
                del self._growing[version.id]
                self.tell(self._tree())

    def _known(self, novel: str | None) -> str | None:
        """A novel that this checkpoint has a control token for; None for one of another checkpoint's."""
        return novel if control_token(novel or "") in self.writer.vocabulary.controls else None

    def _ask(self, request: Request) -> Writing:
        settings = request.settings
        if request.source is None:
            novel = self._known(request.novel)
            return self.writer.write(
                request.context, novel=novel, num_return_sequences=request.count, seed=request.seed, **settings
            )
        passage = self.history.passage(*request.source)
        passage = replace(passage, novel=self._known(passage.novel))
        return self.writer.rewrite(
            passage,
            request.start,
            insert=request.insert,
            num_return_sequences=request.count,
            seed=request.seed,
            **settings,
        )

    def _grow(self, job: _Job, version: Version, writing: Writing) -> None:
        """Let a version grow, and tell of it every `BEAT`."""
        growth = self._growing[version.id]
        beat = saved = time.monotonic()

        def tell_news() -> None:
            with self._lock:  # what `tell_all` has looked at, it tells before this
                before, growth.lengths = growth.lengths, [len(passage.continuation) for passage in version.passages]
                cards = [
                    {"index": i, "at": before[i], **_characters(passage, before[i], growth.lengths[i], growth.unknown)}
                    for i, passage in enumerate(version.passages)
                    if growth.lengths[i] > before[i]
                ]
                if cards:
                    self.tell({"type": "grow", "version": version.id, "cards": cards})

        try:
            for _ in writing:
                if job.stopped.is_set():
                    break
                now = time.monotonic()
                if now - beat >= BEAT:
                    tell_news()
                    beat = now
                if now - saved >= SAVE_EVERY:
                    self.save()
                    saved = time.monotonic()
        finally:
            tell_news()

    def _later(self, what: str, work: Callable[[], None]) -> None:
        """Do it in the thread for such things."""

        def told() -> None:
            with self.telling(what):
                work()

        self._aside.submit(told)

    def _look_for_copies(self) -> None:
        if self._marking:
            self._later("找照抄的字", self._find_copies)

    def _find_copies(self) -> None:
        if self._copies is None:
            if self.corpus is None:
                raise ValueError("沒有語料可比對：請用 Studio(writer, corpus) 打開。")
            characters = sum(len(chapter.text) for novel in self.corpus.novels for chapter in novel.chapters)
            self.say(f"正在為 {characters:,} 字的語料編索引，只有第一次要等……")
            self._copies = CopyIndex(self.corpus)
            self.say("")
        version = self.history.current
        if version is None or not version.finished:  # it is asked for again when it is
            return
        for index, passage in enumerate(version.passages):
            before = len(passage.prompt)
            spans = [
                [span.start - before, span.stop - before, f"《{span.novel}》{span.chapter}"]
                for span in self._copies.spans(passage, COPIED)
            ]
            self.tell({"type": "copies", "version": version.id, "index": index, "spans": spans})

    def _tell_where(self) -> None:
        """Where one stands. The tree comes after the cards, so that a version it shows as chosen is on the desk."""
        self.tell(self._place())
        self.tell(self._tree())

    def _tree(self) -> dict[str, Any]:
        history = self.history
        versions = [
            {
                "id": version.id,
                "parent": version.parent,
                "kind": KINDS[version.request.kind],
                "from": version.request.source[1] + 1 if version.request.source else 0,
                "label": _label(version),
                "count": len(version.passages),
                "made": version.made,
            }
            for version in history.versions.values()
        ]
        current = history.current.id if history.current else EMPTY
        pins = [list(place) for place in history.pins]
        return {"type": "tree", "versions": versions, "current": current, "pins": pins}

    def _place(self) -> dict[str, Any]:
        version = self.history.current
        if version is None:
            return {"type": "place", "version": EMPTY, "cards": [], "original": None}
        growth = self._growing.get(version.id) or _whole(version)
        cards = [
            {
                "index": index,
                "prompt": passage.prompt,
                "novel": passage.novel,
                "seed": passage.seed,
                "candidate": passage.candidate,
                "kept": passage.kept,
                "changes": list(dict.fromkeys(passage.changes)),
                **_characters(passage, 0, growth.lengths[index], growth.unknown),
            }
            for index, passage in enumerate(version.passages)
        ]
        return {"type": "place", "version": version.id, "cards": cards, "original": self.original(version)}


def _whole(version: Version) -> _Growth:
    """A version that has done growing."""
    lengths = [len(passage.continuation) for passage in version.passages]
    known = [len(passage.probabilities) for passage in version.passages]
    return _Growth(lengths, max((n - k for n, k in zip(lengths, known, strict=True)), default=0))


def _characters(passage: Passage, start: int, stop: int, unknown: int) -> dict[str, Any]:
    """Characters `start` to `stop`: text, surprise in bits (None where not known), what else could have stood there."""
    known = slice(max(start - unknown, 0), max(stop - unknown, 0))
    blank = min(stop, unknown) - start
    bits = [round(-math.log2(max(p, 1e-12)), 2) for p in passage.probabilities[known]]
    others = [[[token, round(p, 4)] for token, p in best] for best in passage.alternatives[known]]
    return {
        "text": passage.continuation[start:stop],
        "bits": [None] * blank + bits,
        "others": [[]] * blank + others,
    }


def _label(version: Version) -> str:
    """The first words of what is new in a version."""
    request = version.request
    if request.source is None:
        return request.context[-12:].strip() or "（空白的開頭）"
    return version.passages[0].continuation[request.start :][:12].strip()
