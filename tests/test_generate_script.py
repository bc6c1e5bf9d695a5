"""scripts/generate.py: what it prints, what it refuses, and batch jobs that survive a kill."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from jinyong_gpt2.model import new_model
from jinyong_gpt2.passage import Passage
from jinyong_gpt2.tokenizer import build_tokenizer, save_tokenizer
from jinyong_gpt2.writer import Writer

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts" / "generate.py"
CONTEXTS = ["風雪夜，他獨自上山。", "雪", "那老僧道："]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("generate_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    tokenizer = build_tokenizer(CONTEXTS, titles=["天龍八部"], min_count=1)
    folder = tmp_path_factory.mktemp("checkpoint")
    new_model("testing", tokenizer).save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    return str(folder)


@pytest.fixture
def contexts(tmp_path):
    path = tmp_path / "contexts.txt"
    path.write_text("\n".join(CONTEXTS) + "\n\n", encoding="utf-8")
    return str(path)


def read(out):
    header, *lines = Path(out).read_text(encoding="utf-8").splitlines()
    assert "job" in json.loads(header)
    passages = {}
    for line in lines:
        entry = json.loads(line)
        assert entry["index"] not in passages, "a passage was repeated"
        passages[entry["index"]] = Passage.from_dict(entry["passage"])
    return passages


def test_one_candidate_is_streamed_after_its_prompt(script, checkpoint, capsys):
    arguments = ["--checkpoint", checkpoint, "--prompt", CONTEXTS[0], "--length", "20", "--seed", "7"]
    assert script.main([*arguments, "--temperature", "0.5"]) == 0
    writer = Writer.from_pretrained(checkpoint, device="cpu")
    expected = writer.generate(CONTEXTS[0], seed=7, max_new_tokens=20, temperature=0.5)[0]
    assert capsys.readouterr().out == expected.text + "\n"


def test_several_candidates_and_a_page(script, checkpoint, capsys, tmp_path):
    page = tmp_path / "drafts.html"
    arguments = ["--checkpoint", checkpoint, "--num_return_sequences", "3", "--length", "9", "--page", str(page)]
    assert script.main(arguments) == 0
    assert capsys.readouterr().out.count("candidate") == 3
    assert page.read_text(encoding="utf-8").count("<article>") == 3


@pytest.mark.parametrize("length", ["0", "1"])
def test_length_nought_gives_the_prompt_alone(script, checkpoint, capsys, length):
    assert script.main(["--checkpoint", checkpoint, "--prompt", "雪😀", "--length", length, "--seed", "1"]) == 0
    text = capsys.readouterr().out
    assert text == "雪😀\n" if length == "0" else text.startswith("雪😀")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--length", "-5"], "length must be an integer >= 0, got -5"),
        (["--top_p", "1.5"], "top_p must be in (0, 1], got 1.5"),
        (["--checkpoint", "nowhere"], "no checkpoint in nowhere"),
        (["--contexts", "nowhere.txt"], "no file of contexts at nowhere.txt"),
        (["--novel", "紅樓夢"], "it knows: 天龍八部"),
        (["--seed", "-1"], "seed must be an integer >= 0"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_bad_input_is_one_line_and_ends_non_zero(script, checkpoint, capsys, arguments, message):
    arguments = arguments if "--checkpoint" in arguments else ["--checkpoint", checkpoint, *arguments]
    assert script.main(arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("generate.py: ") and message in error and error.count("\n") == 1


@pytest.mark.parametrize(("content", "message"), [(b"\n \n", "at least one"), (b"\xa4\xa4\xa4\xe5", "UTF-8")])
def test_contexts_that_cannot_be_read(script, checkpoint, capsys, tmp_path, content, message):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    assert script.main(["--checkpoint", checkpoint, "--contexts", str(path), "--out", str(tmp_path / "o")]) == 1
    assert message in capsys.readouterr().err


def job(checkpoint, contexts, out, n=11, *more):
    common = ["--length", "12", "--seed", "3", "--batch_size", "4", "--device", "cpu", "--dtype", "float32"]
    return ["--checkpoint", checkpoint, "--contexts", contexts, "--out", str(out), "--n", str(n), *common, *more]


def test_a_job_writes_each_passage_as_generate_would(script, checkpoint, contexts, tmp_path):
    out = tmp_path / "sub" / "passages.jsonl"
    assert script.main(job(checkpoint, contexts, out)) == 0
    passages = read(out)
    assert sorted(passages) == list(range(11))
    writer = Writer.from_pretrained(checkpoint, device="cpu", dtype="float32")
    for k, passage in passages.items():
        alone = writer.generate(CONTEXTS[k % 3], seed=3, candidate=k // 3, max_new_tokens=12)[0]
        assert passage.text == alone.text


def test_contexts_with_line_breaks_come_from_jsonl(script, tmp_path):
    path = tmp_path / "contexts.jsonl"
    path.write_text('"第一行\\n第二行"\n"雪"\n', encoding="utf-8")
    assert script.read_contexts(path) == ["第一行\n第二行", "雪"]


def test_a_killed_job_goes_on_without_loss_or_repetition(script, checkpoint, contexts, tmp_path):
    whole, out = tmp_path / "whole.jsonl", tmp_path / "passages.jsonl"
    assert script.main(job(checkpoint, contexts, whole, 40)) == 0
    arguments = job(checkpoint, contexts, out, 40, "--batch_size", "2", "--length", "12")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, SCRIPT, *arguments], stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 120
    while not (out.is_file() and out.read_bytes().count(b"\n") > 4) and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    written = out.read_bytes()
    whole_lines = written[: written.rfind(b"\n") + 1]
    out.write_bytes(whole_lines + '{"index": 39, "passage": {"prompt": "雪'.encode()[:-1])  # killed within a character
    assert script.main(arguments) == 0
    assert {k: p.text for k, p in read(out).items()} == {k: p.text for k, p in read(whole).items()}
    before = out.read_bytes()
    assert script.main(arguments) == 0  # nothing left to do
    assert out.read_bytes() == before


def test_a_longer_job_adds_to_the_same_file_and_another_is_refused(script, checkpoint, contexts, tmp_path, capsys):
    out = tmp_path / "passages.jsonl"
    assert script.main(job(checkpoint, contexts, out, 3)) == 0
    assert script.main(job(checkpoint, contexts, out, 5)) == 0
    assert sorted(read(out)) == list(range(5))
    assert script.main(job(checkpoint, contexts, out, 5, "--temperature", "0.5")) == 1
    assert "holds another job" in capsys.readouterr().err
    assert sorted(read(out)) == list(range(5))


def test_a_checkpoint_trained_anew_in_the_same_folder_is_another_job(script, checkpoint, contexts, tmp_path, capsys):
    folder = shutil.copytree(checkpoint, tmp_path / "copy")
    out = tmp_path / "passages.jsonl"
    assert script.main(job(checkpoint, contexts, out, 2)) == 0
    assert script.main(job(str(folder), contexts, out, 3)) == 0  # the same one, elsewhere
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\x80?")
    assert script.main(job(str(folder), contexts, out, 4)) == 1
    assert "checkpoint differ" in capsys.readouterr().err and len(read(out)) == 3


def test_processes_share_a_job(script, checkpoint, contexts, tmp_path, monkeypatch):
    """Each takes its share, as `accelerate launch` numbers them, and all write one file."""
    out = tmp_path / "passages.jsonl"
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert script.main(job(checkpoint, contexts, out)) == 0
    assert sorted(read(out)) == list(range(11))


def test_a_file_killed_in_its_first_line_begins_anew(script, checkpoint, contexts, tmp_path):
    out = tmp_path / "passages.jsonl"
    out.write_bytes(b'{"job": {"con')
    assert script.main(job(checkpoint, contexts, out, 3)) == 0
    assert sorted(read(out)) == [0, 1, 2]


@pytest.mark.parametrize(
    "content", [b"my diary, one line", b"my diary,\ntwo lines\n", b'{"job": 1}\n', b'["job"]\n', b'{"job": {"con"x']
)
def test_a_file_that_is_no_job_is_left_alone(script, checkpoint, contexts, tmp_path, capsys, content):
    out = tmp_path / "diary.txt"
    out.write_bytes(content)
    assert script.main(job(checkpoint, contexts, out, 3)) == 1
    assert out.read_bytes() == content and "choose another --out" in capsys.readouterr().err


@pytest.mark.parametrize("line", ["", "a note of mine", "[1]", '{"passage": {}}', '{"index": "0"}'])
def test_a_job_file_that_somebody_has_edited_says_which_line(script, checkpoint, contexts, tmp_path, capsys, line):
    out = tmp_path / "passages.jsonl"
    assert script.main(job(checkpoint, contexts, out, 2)) == 0
    edited = out.read_text(encoding="utf-8") + line + "\n"
    out.write_text(edited, encoding="utf-8")
    assert script.main(job(checkpoint, contexts, out, 3)) == 1
    error = capsys.readouterr().err
    assert f"line 4 of {out}" in error and "take that line out" in error
    assert out.read_text(encoding="utf-8") == edited


@pytest.mark.parametrize("wrong", ["--novel=紅樓夢", "--seed=-1", "--batch_size=0", "--page=a.html"])
def test_a_job_with_a_wrong_option_claims_no_file(script, checkpoint, contexts, tmp_path, capsys, wrong):
    out = tmp_path / "passages.jsonl"
    assert script.main(job(checkpoint, contexts, out, 3, wrong)) == 1
    assert not out.exists() and wrong.split("=")[0].strip("-") in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--out", "--page"])
def test_a_folder_in_a_files_place_is_one_line(script, checkpoint, contexts, tmp_path, capsys, option):
    arguments = ["--checkpoint", checkpoint, "--length", "3", option, str(tmp_path)]
    arguments += ["--contexts", contexts] if option == "--out" else []
    assert script.main(arguments) == 1
    assert "directory" in capsys.readouterr().err.lower()
    assert [path.name for path in tmp_path.iterdir()] == ["contexts.txt"]


def test_help_names_every_setting(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["--help"])
    shown = capsys.readouterr().out
    for option in ("--prompt", "--length", "--top_p", "--repetition_penalty", "--stop_at_sentence", "--contexts"):
        assert option in shown


def test_two_processes_do_not_write_one_job(script, checkpoint, contexts, tmp_path, capsys):
    out = tmp_path / "passages.jsonl"
    code = "import sys, time\nfrom pathlib import Path\nfrom jinyong_gpt2.files import alone\n"
    code += "with alone(Path(sys.argv[1]), ''):\n    print('locked', flush=True)\n    time.sleep(600)"
    lock = str(out.with_name(f".{out.name}.lock"))
    other = subprocess.Popen([sys.executable, "-c", code, lock], stdout=subprocess.PIPE, cwd=ROOT)
    other.stdout.readline()
    assert script.main(job(checkpoint, contexts, out)) == 1
    assert "another process is writing" in capsys.readouterr().err and not out.exists()
    other.kill()
    other.wait()
    assert script.main(job(checkpoint, contexts, out)) == 0


@pytest.mark.parametrize("option", [["--n", "5"], ["--out", "x.jsonl"]])
def test_options_of_a_job_without_contexts_are_refused(script, option, capsys):
    assert script.main(option) == 1
    assert "has --contexts" in capsys.readouterr().err
