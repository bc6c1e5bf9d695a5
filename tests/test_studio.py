"""The desk and the panel without a browser: what is told, what is kept, and that nothing goes wrong in silence."""

from __future__ import annotations

import json
import re
import runpy
import sys
import threading
import types
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
import torch

from jinyong_gpt2 import desk as desk_room
from jinyong_gpt2.corpus import Chapter, Corpus, Novel, Report
from jinyong_gpt2.desk import Desk
from jinyong_gpt2.history import HistoryFile
from jinyong_gpt2.model import new_model
from jinyong_gpt2.studio import PRESETS, Studio
from jinyong_gpt2.tokenizer import build_tokenizer
from jinyong_gpt2.views.page import asset
from jinyong_gpt2.writer import Writer

ROOT = Path(__file__).resolve().parent.parent
CONTEXT = "風雪夜，他獨自上山，沒有人送他。"
AFTER = "山上有一座廟，廟裡有一盞燈，燈下坐著一個老人。"
SHORT = {"max_new_tokens": 12}


@pytest.fixture(scope="module")
def writer():
    tokenizer = build_tokenizer([CONTEXT + AFTER], titles=["雪嶺刀"], min_count=1)
    torch.manual_seed(0)
    model = new_model("testing", tokenizer).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
        model.transformer.wte.weight[:257] *= 0.01  # few bytes: most tokens are characters
    return Writer(model, tokenizer, dtype="float32")


@pytest.fixture(scope="module")
def corpus():
    chapter = Chapter("第一回 上山", "從前的事。" + CONTEXT + AFTER)
    return Corpus([Novel("雪嶺刀", [chapter], Report("a.txt"))])


class Board:
    """A display: follows what is told, as the one in the browser does."""

    def __init__(self, desk):
        self.desk, self.version, self.texts, self.messages = desk, None, {}, []
        self.changed = threading.Condition()
        desk.tell = self.hear

    def hear(self, message):
        json.dumps(message, allow_nan=False)
        self.messages.append(message)
        if message["type"] == "place":
            if message["version"] != self.version:
                self.version, self.texts = message["version"], {}
            for card in message["cards"]:
                self.put(card["index"], 0, card)
        elif message["type"] == "grow" and message["version"] == self.version:
            for card in message["cards"]:
                self.put(card["index"], card["at"], card)
            with self.changed:
                self.changed.notify_all()
        elif message["type"] == "tree":
            assert self.version in (None, message["current"]), "chosen in the tree, and not on the desk"

    def sees_growing(self, version):
        """Whether that version stands here and grows, within a minute."""
        with self.changed:
            return self.changed.wait_for(lambda: self.version == version and any(self.texts.values()), 60)

    def put(self, index, at, card):
        assert len(card["text"]) == len(card["bits"]) == len(card["others"])
        have = self.texts.get(index, "")
        assert at <= len(have), "characters are missing"
        assert have[at:] == card["text"][: len(have) - at], "a character has changed"
        self.texts[index] = have + card["text"][len(have) - at :]

    def of(self, kind):
        return [message for message in self.messages if message["type"] == kind]

    @property
    def errors(self):
        return [message["text"] for message in self.of("say") if message["error"]]


@pytest.fixture
def desk(writer, corpus, tmp_path):
    made = Desk(writer, corpus, tmp_path / "studio.json")
    yield made
    made.stop()
    made.wait()


@pytest.fixture
def board(desk):
    return Board(desk)


def texts(desk):
    return [passage.continuation for passage in desk.history.here()]


# ---------------------------------------------------------------- writing


def test_it_writes_what_the_writer_writes_and_tells_every_character_once(desk, board, monkeypatch):
    monkeypatch.setattr(desk_room, "BEAT", 0)
    desk.write(CONTEXT, "雪嶺刀", SHORT, seed=5, count=3)
    desk.wait()
    alone = desk.writer.generate(CONTEXT, novel="雪嶺刀", seed=5, num_return_sequences=3, **SHORT)
    assert texts(desk) == [passage.continuation for passage in alone] == list(board.texts.values())
    told = [card["text"] for message in board.of("grow") for card in message["cards"]]
    assert sum(map(len, told)) == sum(map(len, texts(desk))) and len(told) > 5
    assert [message["on"] for message in board.of("busy")] == [True, False] and not board.errors


def test_news_is_told_ten_times_a_second_not_with_every_character(desk, board, monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(desk_room, "time", SimpleNamespace(monotonic=lambda: next(clock) * 0.03))
    monkeypatch.setattr(desk_room, "SAVE_EVERY", 1e9)
    desk.write(CONTEXT, settings={"max_new_tokens": 40}, seed=5)
    desk.wait()
    assert 8 <= len(board.of("grow")) <= 12


def test_it_stops_at_once_and_what_was_written_stays(desk, board):
    desk.write(CONTEXT, settings={"max_new_tokens": 100_000}, seed=5, count=2)
    assert board.sees_growing(1) and desk.busy
    desk.stop()
    desk.wait(60)
    assert not desk.busy and 0 < len(texts(desk)[0]) < 50_000
    assert [passage.continuation for passage in HistoryFile(desk.file.path).read().here()] == texts(desk)
    assert texts(desk) == list(board.texts.values())


def test_a_second_request_stops_the_first_and_both_versions_stay(desk, board):
    for number in (1, 2, 3):
        desk.write(CONTEXT, settings={"max_new_tokens": 100_000}, seed=5)
        assert board.sees_growing(number)
    desk.write(CONTEXT, settings=SHORT, seed=6)
    desk.wait(60)
    versions = list(desk.history.versions.values())
    assert len(versions) == 4 and all(version.finished for version in versions)
    assert all(version.passages[0].continuation for version in versions)
    assert not board.errors and [message["on"] for message in board.of("busy")][-1] is False
    assert sum(thread.name == "studio" for thread in threading.enumerate()) == 0


def test_a_request_that_is_overtaken_before_it_begins_leaves_nothing(desk, board):
    desk.write(CONTEXT, settings={"max_new_tokens": 100_000}, seed=5)
    assert board.sees_growing(1)
    for seed in range(5):
        desk.write(CONTEXT, settings=SHORT, seed=seed)
    desk.wait(60)
    assert texts(desk)[0] == desk.writer.generate(CONTEXT, seed=4, **SHORT)[0].continuation
    assert 2 <= len(desk.history.versions) <= 6 and not desk.busy


def test_from_a_passage_on_from_a_character_and_with_another_in_its_place(desk, board):
    desk.write(CONTEXT, settings=SHORT, seed=5, count=2)
    desk.wait()
    first = desk.history.current
    source = first.passages[1].continuation
    desk.continue_(first.id, 1, SHORT, count=2)
    desk.wait()
    longer = texts(desk)
    assert all(text.startswith(source) and len(text) > len(source) for text in longer) and longer[0] != longer[1]
    second = desk.history.current
    desk.again(second.id, 0, SHORT)
    desk.wait()
    assert texts(desk)[0].startswith(source) and texts(desk)[0] != longer[0]
    desk.rewrite(first.id, 1, 4, SHORT)
    desk.wait()
    assert texts(desk)[0][:4] == source[:4]
    desk.branch(first.id, 1, 4, "燈", SHORT)
    desk.wait()
    branch = desk.history.current
    assert texts(desk)[0][:5] == source[:4] + "燈"
    desk.again(branch.id, 0, SHORT)
    desk.wait()
    assert texts(desk)[0][:5] == source[:4] + "燈" and texts(desk)[0] != branch.passages[0].continuation
    kinds = [(version.request.kind, version.parent) for version in desk.history.versions.values()]
    assert kinds == [("write", 0), ("continue", 1), ("again", 2), ("rewrite", 1), ("branch", 1), ("again", 5)]
    assert first.passages[1].continuation == source and not board.errors


def test_going_on_from_a_passage_that_still_grows_loses_none_of_it(desk, board):
    desk.write(CONTEXT, settings={"max_new_tokens": 100_000}, seed=5)
    assert board.sees_growing(1)
    desk.continue_(1, 0, SHORT)
    desk.wait(60)
    assert texts(desk)[0].startswith(desk.history.passage(1, 0).continuation)


def test_a_novel_the_checkpoint_does_not_know_is_written_for_without_its_token(desk, board):
    desk.write(CONTEXT, "別的書", SHORT, seed=5)
    desk.wait()
    assert texts(desk) == [desk.writer.generate(CONTEXT, seed=5, **SHORT)[0].continuation] and not board.errors


def test_characters_of_another_models_making_have_no_surprise_and_shift_none(desk, board, writer, corpus):
    desk.write(CONTEXT, settings=SHORT, seed=5)
    desk.wait()
    passage = desk.history.passage(1, 0)
    passage.token_ids = [99_999] * len(passage.token_ids)  # as another, larger vocabulary numbers them
    passage.novel = "別的書"
    desk.rewrite(1, 0, 5, SHORT)
    desk.wait()
    card = desk._place()["cards"][0]
    made = desk.history.here()[0]
    assert card["bits"][:5] == [None] * 5 and None not in card["bits"][5:]
    assert [best[0][1] for best in card["others"][5:]] == [round(best[0][1], 4) for best in made.alternatives]
    assert board.texts[0] == made.continuation == card["text"]

    desk.rewrite(2, 0, 8, SHORT)
    desk.attend(1, 0, "generation")
    desk.wait()
    again = desk._place()["cards"][0]
    assert again["bits"][:8] == card["bits"][:8] and again["others"][:8] == card["others"][:8]
    assert not board.errors and board.of("view")[-1]["page"]


# ---------------------------------------------------------------- errors


def test_an_error_while_writing_is_one_line_and_the_next_request_works(desk, board, monkeypatch):
    original = Writer._choose
    steps = iter(range(100))

    def fail(self, *arguments):
        if next(steps) == 5:
            raise RuntimeError("CUDA out of memory\nTried to allocate")
        return original(self, *arguments)

    monkeypatch.setattr(Writer, "_choose", fail)
    desk.write(CONTEXT, settings=SHORT, seed=5)
    desk.wait()
    assert board.errors == ["寫沒有成功：RuntimeError: CUDA out of memory Tried to allocate"]
    assert texts(desk)[0] == board.texts[0] != "" and not desk.busy
    monkeypatch.undo()
    desk.write(CONTEXT, settings=SHORT, seed=5)
    desk.wait()
    assert len(board.errors) == 1 and board.messages[-1] == {"type": "busy", "on": False}
    assert desk._line["text"] == ""


def test_settings_out_of_range_are_a_line_and_no_version(desk, board):
    desk.write(CONTEXT, settings={"temperature": -1.0})
    desk.wait()
    assert len(board.errors) == 1 and "temperature must be in [0, inf)" in board.errors[0]
    assert not desk.history.versions and not desk.busy


def test_a_save_that_fails_is_a_line_and_the_text_stays(desk, board, monkeypatch):
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError("No space left on device")))
    desk.write(CONTEXT, settings=SHORT, seed=5)
    desk.wait()
    assert any("存檔沒有成功：OSError: No space left" in line for line in board.errors)
    assert texts(desk)[0]


# ---------------------------------------------------------------- moving


def test_undo_redo_and_visits_tell_the_place_and_are_saved(desk, board):
    for seed in (1, 2):
        desk.write(CONTEXT, settings=SHORT, seed=seed)
        desk.wait()
    desk.undo()
    assert (board.version, list(board.texts.values())) == (1, texts(desk))
    desk.undo()
    assert board.version == 0 and board.texts == {}
    desk.undo()
    assert desk._line["text"] == "已經退到最開頭了。"
    desk.redo()
    desk.visit(2)
    assert board.version == 2 == HistoryFile(desk.file.path).read().current.id
    assert [version["id"] for version in board.of("tree")[-1]["versions"]] == [1, 2]


def test_a_display_that_opens_in_the_middle_is_told_everything(desk, board):
    desk.write(CONTEXT, settings={"max_new_tokens": 3000}, seed=5, count=2)
    assert board.sees_growing(1)
    second = Board(desk)
    desk.tell_all()
    assert second.sees_growing(1)
    desk.tell_all()  # and again: nothing is doubled
    desk.stop()
    desk.wait()
    assert list(second.texts.values()) == texts(desk)
    assert {message["type"] for message in second.messages} >= {"tree", "place", "busy", "say", "view"}


def test_work_is_there_again_when_the_kernel_has_restarted(desk, board, writer, corpus):
    desk.write(CONTEXT, settings=SHORT, seed=5, count=2)
    desk.wait()
    desk.pin(1, 1)
    again = Desk(writer, corpus, desk.file.path)
    display = Board(again)
    again.tell_all()
    assert list(display.texts.values()) == texts(desk) and display.of("tree")[0]["pins"] == [[1, 1]]


def test_a_cell_that_is_run_again_takes_the_work_over_in_the_middle_of_a_text(desk, board, writer, corpus):
    desk.keep_draft({"context": "半句"})
    desk.write(CONTEXT, settings={"max_new_tokens": 100_000}, seed=5)
    assert board.sees_growing(1)
    again = Desk(writer, corpus, desk.file.path)
    assert not desk.busy and again.history.draft == {"context": "半句"}
    assert [passage.continuation for passage in again.history.here()] == texts(desk) != [""]
    again.write(CONTEXT, settings=SHORT, seed=6)
    again.wait()
    assert again.file.path.name == "studio.json" and not again.file.note


# ---------------------------------------------------------------- the corpus


def test_the_true_continuation_is_what_follows_in_the_book(desk, board):
    desk.write(CONTEXT, settings=SHORT, seed=5)
    desk.wait()
    original = board.of("place")[-1]["original"]
    assert AFTER.startswith(original["text"]) and len(original["text"]) >= 12
    assert original["source"] == "《雪嶺刀》第一回 上山"
    desk.write(CONTEXT[:-1] + "！", settings=SHORT, seed=5)
    desk.wait()
    assert board.of("place")[-1]["original"] is None


def test_a_context_is_drawn_from_the_corpus_or_a_line_says_why_not(desk, writer, tmp_path):
    assert desk.draw(None, 10) in CONTEXT + AFTER + "從前的事。" + CONTEXT
    with pytest.raises(ValueError, match="《天龍八部》"):
        desk.draw("天龍八部", 10)
    with pytest.raises(ValueError, match="沒有語料"):
        Desk(writer, None, tmp_path / "other.json").draw(None, 10)


def test_copied_spans_are_marked_with_their_source_only_when_asked(desk, board):
    desk.write(CONTEXT, settings={"max_new_tokens": 2}, seed=5)
    desk.wait()
    assert not board.of("copies") and desk._copies is None
    passage = desk.history.passage(1, 0)
    passage.continuation = "他想：" + AFTER[:20]
    desk.mark_copies(True)
    desk.wait()
    assert board.of("copies")[-1]["spans"] == [[3, 23, "《雪嶺刀》第一回 上山"]]
    desk.write(CONTEXT, settings=SHORT, seed=5)
    desk.wait()
    assert board.of("copies")[-1]["version"] == 2
    count = len(board.of("copies"))
    desk.mark_copies(False)
    desk.visit(1)
    desk.wait()
    assert len(board.of("copies")) == count and not board.errors


# ---------------------------------------------------------------- attention, exports


@pytest.mark.parametrize("view", ["model", "generation"])
def test_attention_is_a_page_of_the_characters_up_to_the_chosen_one(desk, board, view):
    desk.write(CONTEXT * 5, settings=SHORT, seed=5)
    desk.wait()
    desk.attend(1, 0, view, place=3)
    desk.wait()
    shown = board.of("view")[-1]
    assert shown["page"].lstrip().startswith("<!doctype html>") and "版本 1 第 1 稿" in shown["title"]
    stop = len(CONTEXT) * 5 + 4
    if view == "model":
        assert f"只畫第 {stop - 39} 到第 {stop} 字" in shown["page"]
    desk.close_view()
    assert board.of("view")[-1]["page"] == "" and not board.errors


def test_an_export_is_a_file_beside_the_work_and_never_replaces_another(desk, board):
    desk.write(CONTEXT, settings=SHORT, seed=5, count=2)
    desk.wait()
    with pytest.raises(ValueError, match="還沒有釘選"):
        desk.export("pinned", ".txt")
    for _ in range(2):
        desk.export("here", ".txt")
    files = sorted(desk.file.path.parent.glob("*.txt"))
    assert len(files) == 2 and {message["name"] for message in board.of("file")} == {path.name for path in files}
    assert all(message["text"].startswith(CONTEXT + texts(desk)[0]) for message in board.of("file"))


# ---------------------------------------------------------------- the panel


@pytest.fixture
def studio(writer, corpus, tmp_path):
    made = Studio(writer, corpus, tmp_path / "studio.json", context=CONTEXT)
    made.length.value, made.count.value, made.to_sentence_end.value = 20, 2, False
    yield made
    made.desk.stop()
    made.desk.wait()


def click(studio, label):
    def buttons(box):
        for child in getattr(box, "children", ()):
            yield from [child] if getattr(child, "description", None) == label else buttons(child)

    next(buttons(studio.panel)).click()


def send(studio, **message):
    """What the board in the browser sends."""
    studio.board._handle_custom_msg(message, [])
    studio.desk.wait()


def test_the_panel_writes_branches_pins_and_goes_back(studio):
    told = Board(studio.desk)
    click(studio, "寫")
    studio.desk.wait()
    first = studio.history.current
    assert first.request.seed == studio.seed.value and len(first.passages) == 2
    assert len(first.passages[0].token_ids) == 20
    send(studio, do="branch", version=1, index=1, start=3, insert="燈")
    assert studio.history.here()[0].continuation[3] == "燈"
    send(studio, do="pin", version=2, index=0, on=True)
    assert studio.history.pinned() == [studio.history.passage(2, 0)]
    click(studio, "復原")
    assert studio.history.current is first and told.version == 1
    click(studio, "重做")
    assert studio.history.current.id == 2
    send(studio, do="visit", version=1)
    send(studio, do="nonsense")
    assert studio.history.current is first and not told.errors


def test_a_message_that_makes_no_sense_is_a_line(studio):
    told = Board(studio.desk)
    for message in ({"do": "pin", "version": 9, "index": 0, "on": True}, {"do": "visit", "version": 9}):
        send(studio, **message)
    send(studio, do="branch", version=None, index=None, start=None, insert=None)
    assert len(told.errors) == 3


def test_every_press_of_write_draws_another_seed_unless_told_to_keep_it(studio):
    seeds = set()
    for _ in range(3):
        click(studio, "寫")
        studio.desk.wait()
        seeds.add(studio.history.current.request.seed)
    assert len(seeds) == 3
    studio.new_seed.value, studio.seed.value = False, 7
    for _ in range(2):
        click(studio, "寫")
        studio.desk.wait()
    last, before = list(studio.history.versions.values())[:-3:-1]
    assert [p.text for p in last.passages] == [p.text for p in before.passages]
    click(studio, "換一個")
    assert studio.seed.value != 7


def test_a_text_that_is_being_typed_is_not_lost_by_going_back(studio):
    click(studio, "寫")
    studio.desk.wait()
    studio.context.value = CONTEXT + "他想"
    click(studio, "寫")
    studio.desk.wait()
    click(studio, "復原")
    assert studio.context.value == CONTEXT
    click(studio, "重做")
    studio.context.value = "還沒寫完的半句"
    click(studio, "復原")
    assert studio.context.value == "還沒寫完的半句"


def test_presets_set_the_sliders_and_sliders_leave_the_preset(studio):
    for name, values in PRESETS.items():
        studio.preset.value = name
        assert (studio.temperature.value, studio.top_p.value, studio.penalty.value) == values
        assert studio.preset.value == name
    studio.temperature.value = 0.35
    assert studio.preset.value is None


def test_to_the_end_of_the_sentence(studio):
    studio.to_sentence_end.value = True
    settings = studio._settings()
    assert settings["stop_at_sentence"] and settings["min_new_tokens"] == 20 < settings["max_new_tokens"]


def test_what_stood_in_the_panel_stands_there_again(studio, writer, corpus):
    studio.context.value, studio.temperature.value, studio.novel.value = "半句", 0.35, "雪嶺刀"
    studio.desk.wait()
    again = Studio(writer, corpus, studio.desk.file.path, context="別的")
    values = (again.context.value, again.temperature.value, again.novel.value, again.preset.value, again.count.value)
    assert values == ("半句", 0.35, "雪嶺刀", None, 2)
    bare = Studio(writer, None, studio.desk.file.path)
    assert bare.novel.value == "雪嶺刀"  # the checkpoint knows it


def test_drawing_fills_the_context_and_without_a_corpus_a_line_says_so(studio, writer, tmp_path):
    studio.drawn.value = 12
    click(studio, "抽一段")
    assert studio.context.value in "從前的事。" + CONTEXT + AFTER and studio.context.value
    bare = Studio(writer, path=tmp_path / "bare.json")
    told = Board(bare.desk)
    click(bare, "抽一段")
    assert "沒有語料可抽" in told.errors[0]


def test_a_damaged_file_is_told_of_in_the_panel(writer, tmp_path):
    (tmp_path / "studio.json").write_text("{", encoding="utf-8")
    studio = Studio(writer, path=tmp_path / "studio.json")
    told = Board(studio.desk)
    send(studio, do="hello")
    assert len(told.errors) == 1 and "studio.damaged.json" in told.errors[0]


def test_it_shows_itself_and_speaks_to_colab_where_it_is_there(studio, writer, tmp_path, monkeypatch):
    bundle = studio._repr_mimebundle_()
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == studio.panel.model_id
    called = []
    colab = types.ModuleType("google.colab")
    colab.output = types.SimpleNamespace(enable_custom_widget_manager=lambda: called.append(True))
    google = types.ModuleType("google")
    google.colab = colab
    monkeypatch.setitem(sys.modules, "google", google)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setitem(sys.modules, "google.colab.output", colab.output)
    Studio(writer, path=tmp_path / "colab.json")
    assert called


def test_two_panels_on_one_file_lose_nothing_of_either(studio, writer, corpus):
    other = Studio(writer, corpus, studio.desk.file.path, context=CONTEXT)
    told = Board(studio.desk)
    for one in (studio, other, studio, other):
        one.desk.write(CONTEXT, settings=SHORT, seed=5)
        one.desk.wait()
    assert len(HistoryFile(studio.desk.file.path).read().versions) == 2
    assert len(HistoryFile(other.desk.file.path).read().versions) == 2
    assert studio.desk.file.path != other.desk.file.path and len(told.errors) == 1


def test_the_page_is_a_notebook_of_the_studio_alone(tmp_path, monkeypatch, capsys):
    script = runpy.run_path(str(ROOT / "scripts" / "studio.py"))
    served = []

    def serve(command, env, check):
        (cell,) = nbformat.read(command[3], as_version=4).cells
        served.append((command, cell.source))
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr("subprocess.run", serve)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "書").mkdir()
    (tmp_path / "書" / "雪嶺刀.txt").write_text(CONTEXT + AFTER, encoding="utf-8")
    assert script["main"](["--novels", "書", "--port", "9", "--no_browser"]) == 0
    ((command, source),) = served
    assert command[1:3] == ["-m", "voila"] and {"--port=9", "--no-browser"} <= set(command)
    compile(source, "cell", "exec")
    assert repr(str(tmp_path / "書")) in source and repr(str(tmp_path / "out" / "studio.json")) in source
    assert "'traditional'" in source  # the script of the checkpoint
    (tmp_path / "run" / "best").mkdir(parents=True)
    (tmp_path / "run" / "best" / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        (["--novels", "nowhere"], "no file or folder nowhere"),
        (["--novels", "empty"], "no .txt files in empty"),
        (["--checkpoint", "run"], f"there is no checkpoint in run: {Path('run', 'best')} is one"),
        (["--port", "99999999"], "--port must be in [0, 65536)"),
    ):
        with pytest.raises(SystemExit):
            script["main"](arguments)
        assert message in capsys.readouterr().err
    assert len(served) == 1


def test_no_text_becomes_markup_and_nothing_is_fetched():
    script, style = asset("studio.js"), asset("studio.css")
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|fetch\(|import\b|https?:", script
    )
    assert not re.search(r"@import|url\(|https?:", style)
