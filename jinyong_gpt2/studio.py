"""`Studio`: the panel in a notebook in which one writes.

>>> from jinyong_gpt2.studio import Studio
>>> studio = Studio(writer, corpus)            # the work is kept in out/studio.json, and opened again from there
>>> studio                                     # the last line of a cell shows it

>>> Studio(writer, corpus, path="/content/drive/MyDrive/studio.json")     # kept on Google Drive

Draw a context or type one, write, and go on from what pleases. What was written is also there for Python:
`studio.history.here()`, `studio.history.pinned()`. This room needs ipywidgets and anywidget, which is why
`import jinyong_gpt2` does not open it.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anywidget
import ipywidgets as widgets
import traitlets

from jinyong_gpt2.desk import SETS, Desk
from jinyong_gpt2.history import FORMATS, History, Version
from jinyong_gpt2.sampling import Settings
from jinyong_gpt2.views.page import asset

if TYPE_CHECKING:
    from jinyong_gpt2.corpus import Corpus
    from jinyong_gpt2.memorization import CopyIndex
    from jinyong_gpt2.writer import Writer

# temperature, top_p, repetition_penalty
PRESETS = {
    "沉穩": (0.7, 0.9, 1.05),
    "自然": (Settings.temperature, Settings.top_p, Settings.repetition_penalty),
    "奔放": (1.2, 0.98, 1.0),
}
TO_SENTENCE_END = 80  # tokens more, at most, where a passage is to end with its sentence
MAX_SEED = 2**31 - 1


class Board(anywidget.AnyWidget):
    """The cards and the tree of versions: draws what a `Desk` tells, and sends what is clicked."""

    _esm = asset("studio.js")
    _css = asset("studio.css")
    shade = traitlets.Bool(True).tag(sync=True)
    copies = traitlets.Bool(False).tag(sync=True)
    original = traitlets.Bool(True).tag(sync=True)


class Studio:
    """The panel. `path` is the file of the work; `copies` a `CopyIndex` where there is one already.

    `context` is what stands in the panel where the work is still empty. Every display of one `Studio` shows the same.
    """

    def __init__(
        self,
        writer: Writer,
        corpus: Corpus | None = None,
        path: str | os.PathLike[str] = "out/studio.json",
        copies: CopyIndex | None = None,
        context: str = "",
    ) -> None:
        if "google.colab" in sys.modules:
            from google.colab import output

            output.enable_custom_widget_manager()
        self.desk = Desk(writer, corpus, path, copies)
        self.board = Board()
        self._make_controls(context)
        self.panel = widgets.VBox([*self._rows(), self.board])
        self._restore()
        for control in self._kept().values():
            control.observe(lambda change: self.desk.keep_draft(self._draft()), "value")
        self.board.observe(lambda change: self.desk.mark_copies(change.new), "copies")
        self.board.on_msg(lambda widget, message, buffers: self._heed(message))
        self.desk.tell = self.board.send

    @property
    def history(self) -> History:
        """All versions, pins, and where one stands."""
        return self.desk.history

    def __repr__(self) -> str:
        return f"Studio({len(self.history.versions)} versions, path={str(self.desk.file.path)!r})"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        view = {"version_major": 2, "version_minor": 0, "model_id": self.panel.model_id}
        return {"text/plain": repr(self), "application/vnd.jupyter.widget-view+json": view}

    # ------------------------------------------------------------ the controls

    def _make_controls(self, context: str) -> None:
        novels = [("（不指定）", ""), *((f"《{title}》", title) for title in self.desk.titles)]
        wide = widgets.Layout(width="calc(100% - 4px)", min_width="0")  # a control has a margin of 2px
        name = {"description_width": "5.5em"}

        def slider(kind: type[widgets.Widget], label: str, value: float, least: float, most: float, step: float) -> Any:
            number = {"value": value, "min": least, "max": most, "step": step}
            return kind(description=label, continuous_update=False, layout=wide, style=name, **number)

        self.novel = widgets.Dropdown(options=novels, value="", description="小說", layout=_width("20em"), style=name)
        self.context = widgets.Textarea(
            value=context,
            placeholder="在這裡寫一段開頭，或者按「抽一段」；空著也可以，讓它自己起頭。",
            description="開頭",
            rows=5,
            layout=wide,
            style=name,
        )
        self.drawn = widgets.BoundedIntText(
            value=100, min=10, max=800, step=10, description="抽的字數", layout=_width("11em"), style=name
        )
        self.preset = widgets.ToggleButtons(
            options=list(PRESETS),
            value="自然",
            tooltips=[f"溫度 {t}、top-p {p}、避免重複 {r}" for t, p, r in PRESETS.values()],
            layout=_width("auto"),
            style={"button_width": "4.5em"},
        )
        self.temperature = slider(widgets.FloatSlider, "溫度", Settings.temperature, 0, 2, 0.05)
        self.top_p = slider(widgets.FloatSlider, "top-p", Settings.top_p, 0.05, 1, 0.01)
        self.penalty = slider(widgets.FloatSlider, "避免重複", Settings.repetition_penalty, 1, 1.5, 0.01)
        self.length = slider(widgets.IntSlider, "新寫字數", 120, 20, 1000, 20)
        self.count = slider(widgets.IntSlider, "幾稿並排", 3, 1, 8, 1)
        self.to_sentence_end = widgets.Checkbox(
            value=True, description="寫完整句才停", indent=False, layout=_width("auto")
        )
        self.seed = widgets.BoundedIntText(
            value=7, min=0, max=MAX_SEED, description="種子", layout=_width("13em"), style=name
        )
        self.new_seed = widgets.Checkbox(value=True, description="每次換一個", indent=False, layout=_width("auto"))
        self.suffix = widgets.Dropdown(
            options=[(label, suffix) for suffix, label in FORMATS.items()], layout=_width("8em")
        )
        self.which = widgets.Dropdown(options=[(label, name) for name, label in SETS.items()], layout=_width("8em"))
        self.which.layout.margin = "2px 2px 2px auto"  # exports to the right
        for control, label in ((self.suffix, "匯出的格式"), (self.which, "匯出哪些稿子")):
            control.tooltip = label
        self.preset.observe(self._preset_chosen, "value")
        for control in (self.temperature, self.top_p, self.penalty):
            control.observe(self._slider_moved, "value")

    def _rows(self) -> list[widgets.Widget]:
        draw = self._button("抽一段", "從選的小說裡隨手抽一段當開頭", self._draw)
        reseed = self._button("換一個", "換一個種子", self._reseed)
        write = self._button("寫", "從這個開頭寫", self.write, "primary", width="6em")
        stop = self._button("停", "停下來，寫好的留著", self.desk.stop)
        undo = self._button("復原", "回到上一步", lambda: self._arrive(self.desk.undo()))
        redo = self._button("重做", "再往前一步", lambda: self._arrive(self.desk.redo()))
        export = self._button("匯出", "存成檔案", lambda: self.desk.export(self.which.value, self.suffix.value))
        columns = "repeat(auto-fit, minmax(min(100%, 320px), 1fr))"
        seed = _row(self.seed, reseed, self.new_seed)
        sliders = widgets.GridBox(
            [self.temperature, self.top_p, self.penalty, self.length, self.count, seed],
            layout=widgets.Layout(grid_template_columns=columns, width="100%"),
        )
        return [
            _row(self.novel, self.drawn, draw),
            self.context,
            _row(_label("筆調"), self.preset, self.to_sentence_end),
            sliders,
            _row(write, stop, undo, redo, self.which, self.suffix, export),
        ]

    def _button(
        self, label: str, tooltip: str, act: Callable[[], Any], style: str = "", width: str = "auto"
    ) -> widgets.Button:
        button = widgets.Button(description=label, tooltip=tooltip, button_style=style, layout=_width(width))

        def clicked(_: widgets.Button) -> None:
            with self.desk.telling(label):
                act()

        button.on_click(clicked)
        return button

    def _kept(self) -> dict[str, widgets.Widget]:
        """The controls that are saved with the work, in the order in which they are set again."""
        names = ("novel", "drawn", "context", "preset", "temperature", "top_p", "penalty", "length", "count")
        return {name: getattr(self, name) for name in (*names, "to_sentence_end", "seed", "new_seed")}

    def _draft(self) -> dict[str, Any]:
        return {name: control.value for name, control in self._kept().items()}

    def _restore(self) -> None:
        for name, control in self._kept().items():
            value = self.history.draft.get(name, control.value)
            try:
                control.value = value
            except traitlets.TraitError:  # a novel that is not here, a range that has changed
                continue

    def _preset_chosen(self, change: Any) -> None:
        if change.new is not None:
            self.temperature.value, self.top_p.value, self.penalty.value = PRESETS[change.new]

    def _slider_moved(self, change: Any) -> None:
        values = tuple(round(slider.value, 2) for slider in (self.temperature, self.top_p, self.penalty))
        self.preset.value = next((name for name, preset in PRESETS.items() if preset == values), None)

    # ------------------------------------------------------------ what is asked of it

    def write(self) -> None:
        """Write with what stands in the panel, as its button does."""
        if self.new_seed.value:
            self._reseed()
        self.desk.write(
            self.context.value,
            self.novel.value or None,
            self._settings(),
            seed=self.seed.value,
            count=self.count.value,
        )

    def _settings(self) -> dict[str, Any]:
        length, whole = self.length.value, self.to_sentence_end.value
        return {
            "max_new_tokens": length + TO_SENTENCE_END * whole,
            "min_new_tokens": length * whole,
            "stop_at_sentence": whole,
            "temperature": self.temperature.value,
            "top_p": self.top_p.value,
            "repetition_penalty": self.penalty.value,
        }

    def _draw(self) -> None:
        self.context.value = self.desk.draw(self.novel.value or None, self.drawn.value)

    def _reseed(self) -> None:
        self.seed.value = secrets.randbelow(MAX_SEED + 1)

    def _arrive(self, version: Version | None) -> None:
        """At another version: its context stands in the panel, unless one is being typed that no version has."""
        contexts = {"", *(known.request.context for known in self.history.versions.values())}
        if version is not None and self.context.value in contexts:
            self.context.value = version.request.context

    def _heed(self, message: dict[str, Any]) -> None:
        """Do what was clicked on the board."""
        act, id, index = message.get("do"), message.get("version"), message.get("index")
        how = {"settings": self._settings(), "count": self.count.value}
        acts: dict[str, tuple[str, Callable[[], Any]]] = {
            "hello": ("顯示", self.desk.tell_all),
            "visit": ("翻到那一版", lambda: self._arrive(self.desk.visit(id))),
            "undo": ("復原", lambda: self._arrive(self.desk.undo())),
            "redo": ("重做", lambda: self._arrive(self.desk.redo())),
            "pin": ("釘選", lambda: self.desk.pin(id, index, message["on"])),
            "continue": ("續寫", lambda: self.desk.continue_(id, index, **how)),
            "again": ("重寫", lambda: self.desk.again(id, index, **how)),
            "rewrite": ("改寫", lambda: self.desk.rewrite(id, index, message["start"], **how)),
            "branch": ("分枝", lambda: self.desk.branch(id, index, message["start"], message["insert"], **how)),
            "attend": ("畫注意力", lambda: self.desk.attend(id, index, message["view"], message.get("place"))),
            "close": ("收起", self.desk.close_view),
        }
        if act in acts:
            label, do = acts[act]
            with self.desk.telling(label):
                do()


def _width(width: str) -> widgets.Layout:
    return widgets.Layout(width=width, max_width="100%")


def _label(text: str) -> widgets.Label:
    """A name beside a control that would set its own above itself."""
    layout = widgets.Layout(width="5.5em", display="flex", justify_content="flex-end", margin="2px 8px 2px 2px")
    return widgets.Label(text, layout=layout)


def _row(*children: widgets.Widget) -> widgets.Box:
    return widgets.Box(children, layout=widgets.Layout(flex_flow="row wrap", align_items="center", width="100%"))
