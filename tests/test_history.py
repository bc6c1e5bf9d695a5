"""The tree of versions: nothing is ever lost, undo takes back exactly one step, and the file survives everything."""

from __future__ import annotations

import html
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jinyong_gpt2.history import EMPTY, History, HistoryFile, Request, export, to_markdown, to_text
from jinyong_gpt2.passage import Character, Passage
from jinyong_gpt2.sampling import Settings


def passage(text="她說走", prompt="喬峯", **more):
    made = Passage(prompt, "", seed=7, **more)
    for place, character in enumerate(text):
        made.add(Character(character, [place], [-0.5 - place / 3], [(character, 0.61), ("\n", 1 / 3)]))
    return made


def write(history, count=1):
    return history.add(Request(context="喬峯", seed=7, count=count), [passage() for _ in range(count)])


def state(history):
    """All that must not be lost."""
    return {id: version.to_dict() for id, version in history.versions.items()}


# Any sequence of what one can do: (action, a number that chooses among what is there).
ACTIONS = st.lists(
    st.tuples(st.sampled_from(["write", "continue", "rewrite", "branch", "undo", "redo", "visit", "pin", "unpin"]),
              st.integers(0, 50)),
    max_size=25,
)  # fmt: skip


def act(history, action, number):
    ids = list(history.versions)
    if action == "write":
        write(history, number % 3 + 1)
    elif action in ("undo", "redo"):
        getattr(history, action)()
    elif action == "visit":
        history.visit([EMPTY, *ids][number % (len(ids) + 1)])
    elif ids:
        id = ids[number % len(ids)]
        index = number % len(history.versions[id].passages)
        if action in ("pin", "unpin"):
            history.pin(id, index, on=action == "pin")
        else:
            history.add(Request(kind=action, context="喬峯", source=(id, index), start=number % 3), [passage("好")])


@given(ACTIONS)
def test_nothing_is_ever_lost(actions):
    history, before = History(), {}
    for action, number in actions:
        act(history, action, number)
        now = state(history)
        assert now | before == now, f"{action} lost or changed a version"
        assert history.current is None or history.current.id in history.versions
        before = now


@given(ACTIONS, st.sampled_from(["write", "continue", "branch", "visit"]), st.integers(0, 50))
def test_undo_takes_back_exactly_one_step_and_redo_does_it_again(actions, action, number):
    history = History()
    for one in actions:
        act(history, *one)
    before = history.current
    act(history, action, number)
    after = history.current
    if after is not before:
        assert history.undo() is before
        assert history.redo() is after
    while history.can_undo:
        history.undo()
    assert history.current is None


@given(ACTIONS, st.text(max_size=5))
def test_it_comes_back_from_json_as_it_was(actions, typed):
    history = History()
    for one in actions:
        act(history, *one)
    history.draft = {"context": typed}
    values = json.loads(json.dumps(history.to_dict()))
    back = History.from_dict(values)
    assert json.loads(json.dumps(back.to_dict())) == values
    assert state(back) == state(history) and back.pins == history.pins and back.draft == history.draft
    for step in ("undo", "redo", "redo", "undo", "undo"):
        ours, theirs = getattr(history, step)(), getattr(back, step)()
        assert (ours and ours.id) == (theirs and theirs.id)


def test_after_going_back_a_new_version_is_a_sibling_and_the_other_stays():
    history = History()
    first = write(history)
    second = history.add(Request(kind="continue", source=(first.id, 0)), [passage("一")])
    history.undo()
    third = history.add(Request(kind="branch", source=(first.id, 0), insert="二"), [passage("二")])
    assert history.children(first.id) == [second, third]
    assert not history.can_redo
    assert [version.id for version in history.line(third.id)] == [first.id, third.id]
    history.visit(second.id)
    assert history.undo() is third


def test_a_version_of_nothing_is_refused_and_changes_nothing():
    history = History()
    write(history, count=2)
    before = history.to_dict()
    for source in ((1, 2), (1, -1), (9, 0)):
        with pytest.raises(ValueError, match="there is no passage"):
            history.add(Request(kind="continue", source=source), [passage()])
        with pytest.raises(ValueError, match="there is no passage"):
            history.pin(*source)
    with pytest.raises(ValueError, match="there is no version 9"):
        history.visit(9)
    with pytest.raises(ValueError, match="unknown kind 'dream'"):
        Request(kind="dream")
    with pytest.raises(ValueError, match="needs a source"):
        Request(kind="continue")
    assert history.to_dict() == before


def test_the_way_and_the_pins_are_the_passages_one_means():
    history = History()
    first = write(history, count=3)
    second = history.add(
        Request(kind="continue", source=(first.id, 1)), [passage("她說走，"), passage("她說走。", prompt="乙")]
    )
    assert history.way() == [first.passages[1], *second.passages]
    assert history.here() == second.passages
    history.pin(second.id, 1)
    history.pin(first.id, 0)
    history.pin(second.id, 1)  # again: it is pinned once, and last
    assert history.pinned() == [first.passages[0], second.passages[1]]


# ---------------------------------------------------------------- the file


def test_what_was_saved_is_there_again(tmp_path):
    file = HistoryFile(tmp_path / "deep" / "studio.json")
    history = file.read()
    write(history, count=2)
    file.write(history)
    history.pin(1, 1)
    history.draft = {"context": "半句"}
    file.write(history)
    again = HistoryFile(file.path)
    assert json.dumps(again.read().to_dict()) == json.dumps(history.to_dict())
    assert again.note == "" and [path.name for path in file.path.parent.iterdir()] == ["studio.json"]


def test_a_growing_version_is_saved_as_far_as_it_has_come(tmp_path):
    file = HistoryFile(tmp_path / "studio.json")
    history = History()
    growing = passage("她")
    version = history.add(Request(), [growing], finished=False)
    file.write(history)
    growing.add(Character("說", [1], [-1.0], []))
    version.finished = True
    file.write(history)
    assert HistoryFile(file.path).read().here()[0].continuation == "她說"


WRONG = {
    "cut": lambda text: text[: len(text) // 2],
    "not JSON": lambda text: "她說：「走！」",
    "not text": lambda text: b"\xff\xfe\x00\xd8",
    "a list": lambda text: "[1, 2]",
    "another's": lambda text: '{"cells": []}',
    "of the future": lambda text: text.replace("studio 1", "studio 2"),
    "parent missing": lambda text: text.replace('"source":null', '"source":[5,0]').replace('"write"', '"continue"'),
    "trail missing": lambda text: text.replace('"trail": [0, 1]', '"trail": [0, 9]'),
    "step beyond": lambda text: text.replace('"step": 1', '"step": 8'),
    "pin missing": lambda text: text.replace('"pins": []', '"pins": [[1, 7]]'),
    "strange field": lambda text: text.replace('"insert"', '"insertion"'),
    "no probability": lambda text: re.sub(r'"probabilities":\[[^],]+', '"probabilities":[null', text, count=1),
    "context no text": lambda text: text.replace('"context":"', '"context":[], "novel":"', 1),
    "id a word": lambda text: text.replace('"id":1', '"id":"one"'),
}


@pytest.mark.parametrize("damage", WRONG.values(), ids=WRONG)
def test_a_file_that_cannot_be_read_is_kept_beside_under_another_name(damage, tmp_path):
    path = tmp_path / "studio.json"
    history = History()
    write(history)
    HistoryFile(path).write(history)
    wrong = damage(path.read_text(encoding="utf-8"))
    wrong = wrong if isinstance(wrong, bytes) else wrong.encode()
    assert wrong != path.read_bytes()
    path.write_bytes(wrong)
    for number in ("", "-2"):
        file = HistoryFile(path)
        assert not file.read().versions
        assert "studio.json" in file.note and f"studio.damaged{number}.json" in file.note and "\n" not in file.note
        file.write(History())
        assert HistoryFile(path).read().versions == {}
        assert (tmp_path / f"studio.damaged{number}.json").read_bytes() == wrong
        path.write_bytes(wrong)


def test_where_there_is_a_folder_of_that_name_another_is_taken(tmp_path):
    (tmp_path / "studio.json").mkdir()
    file = HistoryFile(tmp_path / "studio.json")
    file.write(file.read())
    assert file.path.name == "studio-2.json" and "studio-2.json" in file.note
    assert (tmp_path / "studio.json").is_dir()


def test_two_who_save_to_one_file_do_not_overwrite_each_other(tmp_path):
    ours, theirs = HistoryFile(tmp_path / "studio.json"), HistoryFile(tmp_path / "studio.json")
    our_history, their_history = ours.read(), theirs.read()
    write(our_history)
    ours.write(our_history)
    write(their_history, count=3)
    theirs.write(their_history)
    write(our_history)
    ours.write(our_history)
    theirs.write(their_history)
    assert theirs.path.name == "studio-2.json" and "studio.json" in theirs.note and ours.note == ""
    assert len(HistoryFile(tmp_path / "studio.json").read().versions) == 2
    assert len(HistoryFile(tmp_path / "studio-2.json").read().here()) == 3


def test_a_save_that_fails_leaves_the_old_file_whole(tmp_path, monkeypatch):
    file = HistoryFile(tmp_path / "studio.json")
    history = file.read()
    write(history)
    file.write(history)
    before = file.path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError("no space left")))
    write(history)
    with pytest.raises(OSError, match="no space"):
        file.write(history)
    assert file.path.read_bytes() == before


# ---------------------------------------------------------------- exports

ODD = "<script>alert(1)</script> *星* `x` [a](b)\n\n# 不是標題\n1. 不是清單 & _底_"


@pytest.mark.parametrize("suffix", [".txt", ".md", ".html"])
def test_an_export_holds_every_character_and_no_markup_of_the_text(suffix, tmp_path):
    path = export([passage(ODD, prompt="開<頭>"), passage("好")], tmp_path / f"out{suffix}")
    text = path.read_text(encoding="utf-8")
    if suffix == ".html":
        assert "<script>" not in text
        text = html.unescape(re.sub(r"<[^>]*>", "", re.sub(r' title="[^"]*"', "", text)))
    if suffix == ".md":
        assert not re.search(r"^(#|1\.) ?不", text, flags=re.MULTILINE) and "<script>" not in re.sub(r"\\.", "", text)
        text = re.sub(r"\\(.)", r"\1", text.replace("<b>", "").replace("</b>", ""))
    squeezed = re.sub(r"\s", "", text)
    assert re.sub(r"\s", "", "開<頭>" + ODD) in squeezed and "喬峯好" in squeezed


def test_text_is_the_text_alone():
    assert to_text([passage("她"), passage("他")]) == "喬峯她\n\n＊　＊　＊\n\n喬峯他\n"


def test_markdown_says_how_to_have_a_passage_again():
    settings = {"max_new_tokens": 40, "temperature": 0.7, "top_p": Settings.top_p}
    text = to_markdown([passage("她", settings=settings, novel="雪嶺刀")])
    assert "《雪嶺刀》　seed 7, candidate 0; max_new_tokens 40, temperature 0.7*" in text
    assert "<b>喬峯</b>她" in text


def test_exporting_nothing_or_as_something_else_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no passage"):
        export([], tmp_path / "a.txt")
    with pytest.raises(ValueError, match=r"\.txt, \.md, \.html, not 'a\.pdf'"):
        export([passage()], tmp_path / "a.pdf")
    assert list(tmp_path.iterdir()) == []


def test_a_file_keeps_the_history_it_is_given_and_not_another_of_the_same_numbers(tmp_path):
    file = HistoryFile(tmp_path / "studio.json")
    for text in ("第一", "第二"):
        history = History()
        history.add(Request(context="喬峯"), [passage(text)])
        file.write(history)
        assert [one.continuation for one in HistoryFile(file.path).read().here()] == [text]
