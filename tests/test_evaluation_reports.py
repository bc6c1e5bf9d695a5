"""Side by side, charts, the memorisation curve and the script: what a reader gets to see."""

from __future__ import annotations

import json
import math
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from conftest import PlainCorpus

from jinyong_gpt2.baselines import new_lstm
from jinyong_gpt2.charts import chart_memorization, chart_novels, chart_scores
from jinyong_gpt2.comparison import HUMAN, Example, compare, draw_examples_to_continue
from jinyong_gpt2.dataset import prepare
from jinyong_gpt2.evaluation import Score, held_out, score_model
from jinyong_gpt2.extraction import memorization_curve
from jinyong_gpt2.memorization import CopyIndex
from jinyong_gpt2.model import load_model, new_model
from jinyong_gpt2.training import TrainConfig

ROOT = Path(__file__).resolve().parent.parent
SENTENCE = "夜雨打在窗上，張三放下書，聽了一會。沒有人說話。山道上積雪未消，兩匹馬走得極慢。"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    random = np.random.default_rng(0)
    sentences = [s + "。" for s in SENTENCE.split("。") if s]
    novels = []
    for title in ("甲書", "乙書"):
        texts = ["".join(random.choice(sentences, 12)) + "\n" for _ in range(4)]
        chapters = [SimpleNamespace(title=f"{i}", full_text=text, heldout=i == 3) for i, text in enumerate(texts)]
        novels.append(SimpleNamespace(title=title, chapters=chapters))
    corpus = PlainCorpus(novels)
    return prepare(corpus, tmp_path_factory.mktemp("prepared"), min_count=1)


@pytest.fixture(scope="module")
def models(prepared):
    torch.manual_seed(0)
    gpt2 = new_model("testing", prepared.tokenizer).eval()
    lstm = new_lstm(prepared.tokenizer, parameters=200_000, context_length=64).eval()
    return {"LSTM": (lstm, prepared.tokenizer), "GPT-2": (gpt2, prepared.tokenizer)}


def test_same_contexts_and_lengths_for_all_beside_the_book(prepared, models):
    examples = draw_examples_to_continue(prepared, count=3, context_chars=20, truth_chars=15)
    assert all(len(e.context) == 20 and len(e.truth) == 15 for e in examples)
    index = CopyIndex(prepared)
    compared = compare(models, examples, {"甲書": ["張三"]}, index, min_chars=5)
    assert list(compared.continuations) == ["LSTM", "GPT-2", HUMAN]
    assert compared.continuations[HUMAN] == [e.truth for e in examples]
    assert all(len(text) <= 15 for texts in compared.continuations.values() for text in texts)
    assert compared.figures[HUMAN]["copied_share_5"] > 0.5  # the same sentences stand in the training chapters
    table = compared.table()
    assert "| distinct 1 |" in table and HUMAN in table and "nan" not in table
    json.dumps(compared.to_dict(), allow_nan=False)


def test_page_marks_copies_with_their_source_and_escapes(prepared, models, tmp_path):
    examples = [Example("甲書", "<三>", "他<b>說", SENTENCE[:18])]
    compared = compare(models, examples, {}, CopyIndex(prepared), min_chars=10)
    page = compared.save(tmp_path / "out" / "page.html").read_text(encoding="utf-8")
    assert "<b>" not in page and "&lt;三&gt;" in page
    assert page.count("<mark title=") == page.count("</mark>") >= 1
    assert "《甲書》" in page.split("<mark", 1)[1] or "《乙書》" in page.split("<mark", 1)[1]


def test_too_short_chapters_are_named(prepared):
    with pytest.raises(ValueError, match="no heldout chapter has 10100 characters"):
        draw_examples_to_continue(prepared, context_chars=100, truth_chars=10_000)


def test_charts_are_svg_with_their_text(tmp_path):
    characters = np.array([100, 200, 300])
    scores = [
        Score(name, ("甲書", "乙書", "甲書"), characters * bits, characters) for name, bits in (("A", 6.0), ("B", 5.0))
    ]
    rows = [
        {
            "step": s,
            "epochs": s / 2,
            "train": 6.0 - s,
            "heldout": 6.0,
            "extractable": {"train": {10: s / 9}, "heldout": {10: 0}},
        }
        for s in (1, 2, 3)
    ]
    for chart in (chart_scores(scores), chart_novels(scores), chart_memorization(rows)):
        saved = chart.save(tmp_path / "chart.svg").read_text(encoding="utf-8")
        ElementTree.fromstring(saved)
        assert "<text" in chart._repr_html_()
    assert "甲書" in chart_novels(scores).svg
    with pytest.raises(ValueError, match="nothing to draw"):
        chart_memorization([])


def test_curve_measures_every_checkpoint_of_the_training(prepared, tmp_path):
    config = TrainConfig(
        data=str(prepared.folder), output_dir=str(tmp_path), size="testing", context_length=32, max_steps=4,
        batch_size=2, save_every=2, eval_every=0, device="cpu", mixed_precision="no",
    )  # fmt: skip
    rows = list(memorization_curve(config, lengths=(2, 4), count=5, prompt_tokens=8))
    assert [row["step"] for row in rows] == [2, 4]
    assert rows[1]["epochs"] == pytest.approx(4 * 2 * 32 / len(prepared.train))
    assert all(math.isfinite(row["train"]) and set(row["extractable"]["train"]) == {2, 4} for row in rows)
    assert rows[0]["train"] != rows[1]["train"]  # another model each time
    # Measured over the window it was trained on: of its 64 places the last 32 are untrained.
    trained = score_model("", load_model(tmp_path / "last"), prepared.tokenizer, held_out(prepared), prepared, 32)
    assert rows[1]["heldout"] == pytest.approx(trained.bits_per_char)


@pytest.mark.parametrize("last", [5, 10])
def test_the_last_point_of_the_curve_is_of_the_last_step(prepared, tmp_path, last):
    """Also where that is no multiple of `save_every`, and so saved when the run ends."""
    config = TrainConfig(
        data=str(prepared.folder), output_dir=str(tmp_path), size="testing", context_length=32, max_steps=last,
        batch_size=2, save_every=last - 1, eval_every=0, device="cpu", mixed_precision="no",
    )  # fmt: skip
    rows = list(memorization_curve(config, lengths=(2,), count=2, prompt_tokens=8))
    assert [row["step"] for row in rows] == [last - 1, last]
    ended = score_model("", load_model(tmp_path / "last"), prepared.tokenizer, held_out(prepared), prepared, 32)
    assert rows[1]["heldout"] == pytest.approx(ended.bits_per_char) != rows[0]["heldout"]


def run_script(monkeypatch, name, *arguments):
    """What the script returns to the shell."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts" / f"{name}.py"), run_name="__main__")
    return ended.value.code


def test_a_curve_that_is_gone_on_with_keeps_its_points(prepared, tmp_path, monkeypatch, capsys):
    options = [
        "--data", prepared.folder, "--output_dir", tmp_path, "--size", "testing", "--context_length", "128",
        "--batch_size", "2", "--save_every", "2", "--device", "cpu", "--mixed_precision", "no",
    ]  # fmt: skip
    for more, steps in (((4,), [2, 4]), ((6, "--resume"), [2, 4, 6]), ((6, "--resume"), [2, 4, 6])):
        assert run_script(monkeypatch, "memorize", *options, "--max_steps", *more) == 0
        rows = json.loads((tmp_path / "memorization.json").read_text(encoding="utf-8"))
        assert [row["step"] for row in rows] == steps and (tmp_path / "memorization.svg").is_file()
    assert "written" in capsys.readouterr().out
    assert run_script(monkeypatch, "memorize", *options, "--max_steps", 9) == 1
    assert "memorize.py: " in (error := capsys.readouterr().err) and "--resume" in error and "Traceback" not in error


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--model", "foo"], "NAME=FOLDER"),
        (["--model", "x=nowhere"], "no checkpoint in nowhere"),
        (["--model", "GPT-2={model}"], "two models are called 'GPT-2'"),
        (["--stride", "0"], "--stride must be at least 1"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--min-chars", "0"], "--min-chars must be at least 1"),
        (["--names", "nope.json"], "nope.json"),
        (["--context-chars", "30000"], "no heldout chapter has 300"),
        (["--reuse", "{broken}"], "no evaluation.json"),
        (["--device", "foo"], "foo"),
    ],
)
def test_what_cannot_be_measured_is_one_line_before_anything_is(
    prepared, models, tmp_path, monkeypatch, capsys, options, says
):
    models["GPT-2"][0].save_pretrained(tmp_path / "model")
    prepared.tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "broken.json").write_text("[]")
    options = [o.format(model=tmp_path / "model", broken=tmp_path / "broken.json") for o in options]
    arguments = [tmp_path / "model", prepared.folder, "--out", tmp_path / "out", *options]
    assert run_script(monkeypatch, "evaluate", *arguments) == 1
    captured = capsys.readouterr()
    assert says in captured.err.splitlines()[-1] and captured.err.splitlines()[-1].startswith("evaluate.py: ")
    assert "bits per character" not in captured.out


def test_passages_are_shortened_to_what_the_checkpoint_has_room_for(prepared, models, tmp_path, monkeypatch, capsys):
    models["GPT-2"][0].save_pretrained(tmp_path / "model")
    prepared.tokenizer.save_pretrained(tmp_path / "model")
    options = ["--out", tmp_path / "out", "--no-ppmd", "--extract", "0", "--context-chars", "20", "--examples", "1"]
    assert run_script(monkeypatch, "evaluate", tmp_path / "model", prepared.folder, *options) == 0
    assert "32 characters are half of what the checkpoint has room for" in capsys.readouterr().out


def test_script_measures_writes_and_says_what_it_skipped(prepared, models, tmp_path, monkeypatch, capsys):
    models["GPT-2"][0].save_pretrained(tmp_path / "model")
    prepared.tokenizer.save_pretrained(tmp_path / "model")
    options = [
        "--out", tmp_path / "out", "--train-lstm", "2", "--examples", "2", "--context-chars", "20",
        "--passage-chars", "15", "--extract", "0", "--device", "cpu",
    ]  # fmt: skip
    assert run_script(monkeypatch, "evaluate", tmp_path / "model", prepared.folder, *options) == 0
    printed = capsys.readouterr().out
    for wanted in (
        "| unigram |",
        "| Kneser–Ney 5-gram |",
        "| PPMd |",
        "| LSTM |",
        "| GPT-2 |",
        "skipped: exact",
        "乙書",
    ):
        assert wanted in printed
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text(encoding="utf-8"))
    assert [score["model"] for score in report["scores"]][-2:] == ["LSTM", "GPT-2"]
    assert report["corpus_hash"] == prepared.hash and report["skipped"]
    for name in ("bits_per_char.svg", "bits_per_char_by_novel.svg", "side_by_side.html", "lstm/best/config.json"):
        assert (tmp_path / "out" / name).stat().st_size > 0
