"""Training: it learns, repeats itself exactly, and loses nothing to faults."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer

from jinyong_gpt2 import checkpoints, optimizers, training
from jinyong_gpt2.attention import show
from jinyong_gpt2.dataset import IGNORE, TrainingOrder, Windows
from jinyong_gpt2.evaluation import window_sizes
from jinyong_gpt2.loss import cross_entropy_sum
from jinyong_gpt2.model import load_model, trained_positions
from jinyong_gpt2.optimizers import StackedMuon, learning_rate_factor
from jinyong_gpt2.training import TrainConfig, TrainingDiverged, train
from jinyong_gpt2.watching import progress
from jinyong_gpt2.writer import Writer

ROOT = Path(__file__).resolve().parent.parent


def config(prepared, folder, **changes):
    settings = {
        "size": "testing", "context_length": 16, "max_steps": 20, "batch_size": 4, "warmup_steps": 2,
        "eval_every": 10, "save_every": 5, "device": "cpu", "mixed_precision": "no", "dropout": 0.1,
    }  # fmt: skip
    return TrainConfig(data=str(prepared.folder), output_dir=str(folder), **{**settings, **changes})


def losses(folder):
    lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return {row["step"]: row["loss"] for row in map(json.loads, lines)}


@pytest.fixture(scope="module")
def straight(prepared, tmp_path_factory):
    """An uninterrupted run of 20 steps."""
    folder = tmp_path_factory.mktemp("straight")
    return folder, list(train(config(prepared, folder)))


def test_every_step_is_told_and_the_loss_falls(straight):
    folder, metrics = straight
    assert [row["step"] for row in metrics] == list(range(1, 21))
    assert losses(folder) == {row["step"]: row["loss"] for row in metrics}
    assert metrics[-1]["loss"] < metrics[0]["loss"] - 1
    assert metrics[9]["characters_per_second"] > 0 and 0 < metrics[9]["utilisation"] < 1
    assert metrics[19]["heldout_bits_per_char"] < metrics[9]["heldout_bits_per_char"]


@pytest.mark.parametrize("name", ["last", "best"])
def test_checkpoints_open_with_plain_hugging_face(straight, name):
    folder, _ = straight
    model = AutoModelForCausalLM.from_pretrained(folder / name)
    tokenizer = AutoTokenizer.from_pretrained(folder / name)
    ids = model.generate(torch.tensor([[0]]), max_new_tokens=5, do_sample=False, pad_token_id=0)
    assert tokenizer.decode(ids[0], skip_special_tokens=True)
    card = json.loads((folder / name / "training.json").read_text())
    assert card["config"]["size"] == "testing" and card["corpus"]["hash"]


@pytest.mark.parametrize("name", ["last", "best"])
def test_the_model_card_tells_the_run_and_its_code_works(prepared, straight, name, capsys):
    folder, metrics = straight
    card = (folder / name / "README.md").read_text(encoding="utf-8")
    record = json.loads((folder / name / "training.json").read_text(encoding="utf-8"))
    measured = f"{metrics[-1]['heldout_bits_per_char']:.3f}"
    for fact in (
        f"{record['parameters']:,} parameters", "《甲書》《乙書》《丙書》", prepared.hash, "20 of 20 steps", measured,
        f"{len(prepared.tokenizer.decode(prepared.heldout)):,} in\nwhole chapters", "--max_steps 20",
    ):  # fmt: skip
        assert fact in card
    assert card.startswith("---\nlanguage: zh\n")
    for code in re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL):
        exec(code.replace("the folder of this file", str(folder / name)).replace("=100", "=5"), {})
    assert capsys.readouterr().out.count("他說") == 2


def test_a_card_quotes_nothing_of_the_corpus(prepared, straight):
    card = (straight[0] / "last" / "README.md").read_text(encoding="utf-8")
    text = prepared.tokenizer.decode(prepared.train)
    assert not [text[i : i + 6] for i in range(len(text) - 6) if text[i : i + 6] in card]


def test_the_command_of_a_run_says_its_settings_again(prepared, tmp_path):
    from transformers import HfArgumentParser

    settings = config(prepared, tmp_path / "a b", resume=True, compile=False, init_from="it's here")
    (again,) = HfArgumentParser(TrainConfig).parse_args_into_dataclasses(shlex.split(settings.command())[2:])
    assert again == settings


def test_the_bar_passes_every_step_on_and_begins_where_a_resumed_run_was(straight, capsys):
    metrics = straight[1]
    assert list(progress(metrics, 20)) == metrics
    assert list(progress(metrics[10:], 20)) == metrics[10:]
    assert list(progress([], 20)) == []
    first, resumed, nothing = capsys.readouterr().err.split("| 0/20")[1:4]
    assert "100%" in first and "20/20" in resumed and "20/20" not in nothing


def test_another_precision_in_the_same_process(prepared, tmp_path):
    for precision in ("no", "bf16", "no"):
        settings = config(prepared, tmp_path / str(len(list(tmp_path.iterdir()))), mixed_precision=precision)
        assert next(train(settings))["step"] == 1


def test_phases_of_a_run_share_its_schedule_and_count_what_was_read(prepared, straight, tmp_path):
    list(train(config(prepared, tmp_path / "same", stop_after=7)))
    assert checkpoints.load_state(tmp_path / "same")["step"] == 7
    list(train(config(prepared, tmp_path / "same", resume=True)))
    assert losses(tmp_path / "same") == losses(straight[0])

    short = config(prepared, tmp_path / "longer", stop_after=6, context_length=8, batch_size=8)
    long = config(prepared, tmp_path / "longer", stop_after=10, context_length=32, batch_size=2, resume=True)
    rows = [*train(short), *train(long)]
    assert [row["learning_rate"] for row in rows] == [learning_rate_factor(step, short) for step in range(10)]
    record = json.loads((tmp_path / "longer" / "last" / "training.json").read_text(encoding="utf-8"))
    assert record["characters_seen"] == sum(targets(prepared, short, step) for step in range(6)) + sum(
        targets(prepared, long, step) for step in range(6, 10)
    )


@pytest.mark.parametrize("change", [{"context_length": 5}, {"eval_windows": 3}], ids=str)
def test_the_best_is_compared_on_the_windows_of_the_run_that_goes_on(prepared, tmp_path, change):
    list(train(config(prepared, tmp_path, stop_after=10)))
    best = checkpoints.load_state(tmp_path)["best"]
    further = config(prepared, tmp_path, stop_after=11, resume=True, **change)
    run = training._Run(further)
    measured = run._measure_heldout(run.loss)  # last/ is best/ as yet: one step, one measurement
    assert run.best == pytest.approx(measured, rel=1e-6) and abs(measured - best) > 0.01
    list(train(further))
    assert training._Run(replace(further, stop_after=12)).best == checkpoints.load_state(tmp_path)["best"]


def test_nothing_reads_further_than_it_was_trained(prepared, tmp_path):
    def learnt(folder):
        model, tokenizer = load_model(folder), AutoTokenizer.from_pretrained(folder)
        positions = trained_positions(model.config)
        assert Writer.from_pretrained(folder, "cpu").decoder.context_length == positions
        assert window_sizes(model, None, None)[0] == positions <= model.config.n_positions == 64
        assert show(model, tokenizer, "天地玄黃" * 30, "head").attention.weights.shape[-1] <= positions
        return positions

    run = tmp_path / "run"
    list(train(config(prepared, run, stop_after=2)))
    assert learnt(run / "last") == 16
    list(train(config(prepared, run, stop_after=4, context_length=32, resume=True)))
    list(train(config(prepared, run, stop_after=6, context_length=8, resume=True)))
    assert learnt(run / "last") == 32
    list(train(config(prepared, tmp_path / "more", max_steps=2, context_length=8, init_from=str(run / "last"))))
    assert learnt(tmp_path / "more" / "best") == 32
    path = run / "last" / "config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "trained_positions"}))
    assert learnt(run / "last") == 64  # where nobody has noted it, all there is room for


def targets(prepared, settings, step):
    """How many tokens a step predicts: windows at the end of a chapter are padded."""
    windows = Windows(prepared, "train", settings.context_length)
    rows = TrainingOrder(windows, settings.batch_size, settings.seed, settings.generic_share).step(step)
    return int((windows.batch(rows).targets != IGNORE).sum())


def test_the_loss_is_that_of_hugging_face(prepared, tmp_path):
    """The first step's loss, against the model's own with the same windows."""
    run = training._Run(config(prepared, tmp_path, dropout=0.0))
    batch, number = run._load(0)
    inputs, wanted, count = batch
    loss = run._backward(batch)
    logits = run.model(input_ids=inputs).logits
    expected = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORE)
    torch.testing.assert_close(loss, expected.detach())
    assert count == number == (wanted != IGNORE).sum()


@pytest.mark.parametrize("compiling", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cross_entropy_and_its_gradient_equal_torchs(dtype, compiling, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    torch.manual_seed(0)
    reference = torch.randn(5000, 11, requires_grad=True)  # more rows than are formed at a time
    targets = torch.randint(0, 11, (5000,))
    targets[::7] = IGNORE
    expected = F.cross_entropy(reference, targets, ignore_index=IGNORE, reduction="sum")
    (expected * 0.5).backward()
    ours = reference.detach().clone().requires_grad_()
    loss = cross_entropy_sum((ours * 1).to(dtype), targets)
    (loss * 0.5).backward()
    tolerance = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 1e-2}
    torch.testing.assert_close(loss, expected, **tolerance)
    torch.testing.assert_close(ours.grad, reference.grad, **tolerance)
    with torch.no_grad():
        torch.testing.assert_close(cross_entropy_sum(reference, targets), expected)


@pytest.mark.parametrize("nesterov", [True, False])
def test_matrices_in_a_stack_step_as_torchs_muon_steps_one_by_one(nesterov, monkeypatch):
    monkeypatch.setattr(optimizers, "product_dtype", lambda device: torch.bfloat16)  # torch's choice on all machines
    torch.manual_seed(0)
    first = [torch.randn(shape) for shape in [(8, 24), (8, 8), (32, 8), (8, 24), (32, 8)]]
    results = []
    for kind in (torch.optim.Muon, StackedMuon):
        torch.manual_seed(1)
        parameters = [torch.nn.Parameter(matrix.clone()) for matrix in first]
        optimizer = kind(parameters, lr=0.02, weight_decay=0.1, nesterov=nesterov)
        for step in range(4):
            for i, parameter in enumerate(parameters):
                parameter.grad = None if i == step else torch.randn_like(parameter)  # one has none, each time another
            if step == 2:  # each goes on with what the other has saved
                saved, other = optimizer.state_dict(), torch.optim.Muon if kind is StackedMuon else StackedMuon
                optimizer = other(parameters)
                optimizer.load_state_dict(saved)
            optimizer.step()
        results.append([parameter.detach() for parameter in parameters])
    for one_by_one, stacked in zip(*results, strict=True):
        torch.testing.assert_close(stacked, one_by_one, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [(3, 8, 24), (2, 40, 16)])
def test_gradients_too_small_for_half_precision_become_orthogonal_all_the_same(dtype, shape, monkeypatch):
    monkeypatch.setattr(optimizers, "product_dtype", lambda device: dtype)
    matrices = 1e-9 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    made = optimizers.orthogonal(matrices, (3.4445, -4.775, 2.0315), 5, 1e-12)
    assert made.dtype == dtype and made.shape == shape
    sizes = torch.linalg.svdvals(made.float())
    assert sizes.min() > 0.5 and sizes.max() < 1.5
    overlap = (made.float() * matrices).sum((1, 2)) / torch.linalg.svdvals(matrices).sum(1)
    assert (overlap > 0.5).all(), "turned away from the gradient"


def test_micro_batches_change_nothing_but_memory(prepared, straight, tmp_path):
    whole, pieces = (
        list(train(config(prepared, tmp_path / str(size), dropout=0.0, micro_batch_size=size, max_steps=6)))
        for size in (4, 1)
    )
    for a, b in zip(whole, pieces, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


def test_a_resumed_run_repeats_an_uninterrupted_one_to_the_bit(prepared, straight, tmp_path):
    run = train(config(prepared, tmp_path))
    for metrics in run:
        if metrics["step"] == 5:
            run.close()  # what leaving the loop in a notebook does
            break
    rest = list(train(config(prepared, tmp_path, resume=True)))
    assert [row["step"] for row in rest] == list(range(6, 21))
    assert losses(tmp_path) == losses(straight[0])
    ours, theirs = (torch.load(f / "last" / checkpoints.STATE) for f in (tmp_path, straight[0]))
    assert str(ours) == str(theirs)


COMMAND = """
import sys
from jinyong_gpt2.training import TrainConfig, train
for metrics in train(TrainConfig(**eval(sys.argv[1]))):
    print(metrics["step"], flush=True)
"""


def start(settings):
    command = [sys.executable, "-c", COMMAND, repr(settings.__dict__)]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # as here: sums over threads round differently
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=one_thread)


def test_killed_in_mid_run_it_goes_on_as_if_nothing_had_happened(prepared, tmp_path):
    settings = config(prepared, tmp_path / "killed", max_steps=200, save_every=3, eval_every=0)
    process = start(settings)
    for line in process.stdout:
        if int(line) >= 30:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    settings.resume = True
    assert max(losses(settings.output_dir)) < 200
    list(train(settings))
    whole = config(prepared, tmp_path / "whole", max_steps=200, eval_every=0, save_every=0)
    list(train(whole))
    assert losses(settings.output_dir) == losses(whole.output_dir)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_to_stop_it_saves_and_leaves(prepared, tmp_path, number):
    settings = config(prepared, tmp_path, max_steps=100_000, save_every=0, eval_every=0)
    process = start(settings)
    next(process.stdout)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 0
    state = checkpoints.load_state(tmp_path)
    assert state["step"] == max(losses(tmp_path)) >= 10


def test_a_second_ctrl_c_between_two_optimizers_saves_no_half_made_step(prepared, straight, tmp_path, monkeypatch):
    step, calls = torch.optim.AdamW.step, []

    def interrupted(self, *arguments):
        calls.append(self)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(train(config(prepared, tmp_path)))
    monkeypatch.undo()
    assert checkpoints.load_state(tmp_path)["step"] == 5  # the last that was saved; 7 were taken
    list(train(config(prepared, tmp_path, resume=True)))
    assert losses(tmp_path) == losses(straight[0])


def test_two_processes_do_not_train_into_one_folder(prepared, tmp_path):
    settings = repr(config(prepared, tmp_path / "run", save_every=0))  # the first has saved nothing either
    code = f"from jinyong_gpt2.training import TrainConfig, train\nlist(train({settings}))"
    run = train(config(prepared, tmp_path / "run", save_every=0, eval_every=0))
    next(run)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert "another process is training in" in done.stderr and done.returncode == 1
    run.close()
    assert list(train(config(prepared, tmp_path / "run", resume=True)))[-1]["step"] == 20


def test_another_size_than_the_checkpoints_own_is_refused(prepared, straight, tmp_path):
    begin = {"init_from": str(straight[0] / "best"), "max_steps": 1, "stop_after": 1}
    list(train(config(prepared, tmp_path / "a", **begin)))
    with pytest.raises(ValueError, match=r"is not of size jinyong but has .*'n_embd': 32"):
        next(train(config(prepared, tmp_path / "b", size="jinyong", **begin)))


def test_a_kill_between_the_renames_leaves_a_whole_checkpoint(straight, tmp_path, monkeypatch):
    folder, _ = straight
    model, tokenizer = load_model(folder / "last"), AutoTokenizer.from_pretrained(folder / "last")
    checkpoints.save(tmp_path / "last", model, tokenizer, {}, {"step": 1})
    renames, rename = [], os.replace

    def dies(source, target):
        renames.append(target)
        if len(renames) == 2:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(checkpoints.os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(tmp_path / "last", model, tokenizer, {}, {"step": 2})
    monkeypatch.undo()
    assert checkpoints.load_state(tmp_path)["step"] in (1, 2)
    checkpoints.save(tmp_path / "last", model, tokenizer, {}, {"step": 3})
    assert checkpoints.load_state(tmp_path)["step"] == 3


@pytest.mark.parametrize("name", ["last", "best"])
def test_two_kills_between_the_renames_lose_nothing_either(straight, tmp_path, monkeypatch, name):
    """The second comes while the older checkpoint has its second name only."""
    folder, _ = straight
    model, tokenizer = load_model(folder / "last"), AutoTokenizer.from_pretrained(folder / "last")
    rename = os.replace

    def dies(source, target):
        if str(source).endswith(".new"):
            raise KeyboardInterrupt
        rename(source, target)

    checkpoints.save(tmp_path / name, model, tokenizer, {"which": "0"}, {"step": 0})
    monkeypatch.setattr(checkpoints.os, "replace", dies)
    for step in (1, 2, 3):
        with pytest.raises(KeyboardInterrupt):
            checkpoints.save(tmp_path / name, model, tokenizer, {"which": str(step)}, {"step": step})
        whole = [f for f in tmp_path.iterdir() if (f / checkpoints.STATE).is_file() and f.suffix != ".new"]
        assert [f.name for f in whole] == [f"{name}.old"]
    monkeypatch.undo()
    checkpoints.tidy(tmp_path, 0)
    assert (tmp_path / name / "which").read_text() == "0"
    checkpoints.save(tmp_path / name, model, tokenizer, {"which": "4"}, {"step": 4})
    assert [f.name for f in tmp_path.iterdir()] == [name] and (tmp_path / name / "which").read_text() == "4"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("enforce fail\nstack")])
def test_a_full_disk_is_not_filled_further(straight, tmp_path, monkeypatch, error):
    folder, _ = straight
    model, tokenizer = load_model(folder / "last"), AutoTokenizer.from_pretrained(folder / "last")

    def full(*_):
        raise error

    monkeypatch.setattr(checkpoints.torch, "save", full)
    with pytest.raises(OSError) as raised:
        checkpoints.save(tmp_path / "last", model, tokenizer, {}, {"step": 2})
    assert list(tmp_path.iterdir()) == [] and "\n" not in str(raised.value)


def test_a_full_disk_leaves_the_previous_checkpoint(straight, tmp_path, monkeypatch):
    folder, _ = straight
    model, tokenizer = load_model(folder / "last"), AutoTokenizer.from_pretrained(folder / "last")
    checkpoints.save(tmp_path / "last", model, tokenizer, {}, {"step": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints.torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        checkpoints.save(tmp_path / "last", model, tokenizer, {}, {"step": 2})
    assert checkpoints.load_state(tmp_path)["step"] == 1


def test_out_of_memory_halves_the_pieces_and_keeps_the_batch(prepared, tmp_path, monkeypatch, capsys):
    forward = training.LanguageModelLoss.forward

    def small_memory(self, inputs, targets):
        if len(inputs) > 1:
            raise torch.OutOfMemoryError("pretended")
        return forward(self, inputs, targets)

    settings = config(prepared, tmp_path / "a", dropout=0.0, max_steps=6, eval_every=0)
    monkeypatch.setattr(training.LanguageModelLoss, "forward", small_memory)
    tight = list(train(settings))
    assert "going on with 1 windows at a time" in capsys.readouterr().out
    monkeypatch.undo()
    settings.output_dir = str(tmp_path / "b")
    for a, b in zip(tight, train(settings), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


def test_a_diverging_run_says_where_and_keeps_its_last_checkpoint(prepared, tmp_path):
    settings = config(prepared, tmp_path, muon_learning_rate=math.inf, max_steps=30, save_every=0)
    with pytest.raises(TrainingDiverged, match=r"《.書》第.回.*learning rate"):
        list(train(settings))
    assert checkpoints.load_state(tmp_path) is None


def test_a_diverging_run_replaces_no_good_checkpoint(prepared, tmp_path):
    """The loss of a step is of the weights before it: what the step made of them is looked at before they are saved."""
    list(train(config(prepared, tmp_path, max_steps=5)))
    wild = {"learning_rate": 1e38, "muon_learning_rate": 1e38, "save_every": 1, "eval_every": 0}
    with pytest.raises(TrainingDiverged, match=r"last is from before"):
        list(train(config(prepared, tmp_path, resume=True, max_steps=9, **wild)))
    assert checkpoints.load_state(tmp_path)["step"] == 5
    rest = list(train(config(prepared, tmp_path, resume=True, max_steps=9)))
    assert [row["step"] for row in rest] == [6, 7, 8, 9] and all(math.isfinite(row["loss"]) for row in rest)


def test_a_held_out_loss_that_is_no_number_ends_the_run_and_spares_the_best(prepared, tmp_path, monkeypatch):
    list(train(config(prepared, tmp_path, max_steps=5)))
    best = (tmp_path / "best" / "training.json").read_text()
    monkeypatch.setattr(training._Run, "_measure_heldout", lambda self, loss: math.nan)
    with pytest.raises(TrainingDiverged, match="held-out loss after step 8"):
        list(train(config(prepared, tmp_path, resume=True, max_steps=8)))
    assert (tmp_path / "best" / "training.json").read_text() == best
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


def test_good_steps_before_the_bad_one_are_in_the_metrics(prepared, tmp_path, monkeypatch):
    forward, calls = training.LanguageModelLoss.forward, []

    def breaks(self, inputs, targets):
        calls.append(1)
        return forward(self, inputs, targets) * (math.nan if len(calls) == 4 else 1)

    monkeypatch.setattr(training.LanguageModelLoss, "forward", breaks)
    with pytest.raises(TrainingDiverged, match="the loss of step 4"):
        list(train(config(prepared, tmp_path, eval_every=0, save_every=0)))
    assert list(losses(tmp_path)) == [1, 2, 3]


def test_fp16_gradients_are_unscaled_once_for_all_optimizers(prepared, tmp_path):
    """Muon and AdamW under one loss scaler step as they do without: 65,536 is a power of two."""
    found = []
    for scaled in (False, True):
        run = training._Run(config(prepared, tmp_path / str(scaled), dropout=0.0))
        if scaled:
            accelerator = run.accelerator
            accelerator.scaler, accelerator.native_amp = torch.amp.GradScaler("cpu", init_scale=65536.0), True
            accelerator.state._mixed_precision = "fp16"
        assert len(run.optimizers) == 2
        for step in range(4):
            run._optimizer_step(run._load(step)[0], 1.0)
        found.append({name: value.detach().clone() for name, value in run.model.named_parameters()})
        if scaled:
            assert run.accelerator.scaler.state_dict()["_growth_tracker"] == 4
            run.accelerator.state._mixed_precision = "no"
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=0, atol=0)


@pytest.mark.parametrize(("record", "says"), [(None, "has no training.json"), ("{", "training.json is damaged")])
def test_a_resume_without_its_record_says_what_to_do(prepared, straight, tmp_path, record, says):
    shutil.copytree(straight[0], tmp_path / "run")
    path = tmp_path / "run" / "last" / "training.json"
    path.unlink() if record is None else path.write_text(record)
    with pytest.raises(ValueError, match=says):
        list(train(config(prepared, tmp_path / "run", max_steps=21, resume=True)))


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_gradient_that_overflows_under_fp16_moves_no_weight_and_lowers_the_scale(prepared, tmp_path, bad):
    """Not those of the other optimizer either: the norm that all are clipped by has made them zero or nan."""
    run = training._Run(config(prepared, tmp_path, dropout=0.0))
    accelerator = run.accelerator
    accelerator.scaler, accelerator.native_amp = torch.amp.GradScaler("cpu", init_scale=256.0), True
    accelerator.state._mixed_precision = "fp16"
    try:
        run._optimizer_step(run._load(0)[0], 1.0)  # so that there is a momentum to step along
        before = {name: value.detach().clone() for name, value in run.model.named_parameters()}
        run.model.transformer.wte.weight.register_hook(lambda gradient: gradient + bad)
        run._optimizer_step(run._load(1)[0], 1.0)
        for name, value in run.model.named_parameters():
            torch.testing.assert_close(value, before[name], rtol=0, atol=0)
        assert accelerator.scaler.get_scale() == 128.0
    finally:
        accelerator.state._mixed_precision = "no"


def test_a_resume_keeps_what_the_run_was_begun_with(prepared, straight, tmp_path):
    """Left out it is taken from the checkpoint; asked for otherwise it is refused, not ignored."""
    first = str(straight[0] / "last")
    begun = {"dropout": 0.0, "seed": 3, "init_from": first, "optimizer": "adamw"}
    list(train(config(prepared, tmp_path, max_steps=5, **begun)))
    record = json.loads((tmp_path / "last" / "training.json").read_text(encoding="utf-8"))
    for name, other in {"seed": 4, "dropout": 0.3, "init_from": "elsewhere", "beta2": 0.5}.items():
        with pytest.raises(ValueError, match=rf"of {name} .*choose another --output_dir"):
            list(train(config(prepared, tmp_path, max_steps=6, resume=True, **({"dropout": 0.0} | {name: other}))))
    again = config(prepared, tmp_path, max_steps=6, resume=True, dropout=0.0)
    assert [row["step"] for row in train(again)] == [6]
    resumed = json.loads((tmp_path / "last" / "training.json").read_text(encoding="utf-8"))
    assert {name: resumed["config"][name] for name in begun} == begun
    assert resumed["characters_seen_before"] == record["characters_seen_before"] > 0


def test_a_resume_that_has_nothing_to_do_changes_nothing(prepared, tmp_path):
    for _ in range(2):
        list(train(config(prepared, tmp_path, max_steps=7, resume=True)))
        files = {path.name: path.read_bytes() for path in (tmp_path / "last").iterdir()}
        assert json.loads(files["training.json"])["heldout_bits_per_char"] > 0
    before = files
    list(train(config(prepared, tmp_path, max_steps=3, resume=True)))
    assert {path.name: path.read_bytes() for path in (tmp_path / "last").iterdir()} == before


def test_a_resume_takes_smaller_pieces_where_it_is_told_to(prepared, tmp_path):
    list(train(config(prepared, tmp_path, max_steps=3)))
    list(train(config(prepared, tmp_path, max_steps=4, resume=True, micro_batch_size=1)))
    assert checkpoints.load_state(tmp_path)["micro_batch"] == 1


def test_a_run_that_died_before_its_first_save_begins_its_metrics_anew(prepared, tmp_path):
    settings = config(prepared, tmp_path, max_steps=12, save_every=0, eval_every=10)
    process = start(settings)
    for line in process.stdout:
        if int(line) >= 10:
            process.send_signal(signal.SIGKILL)
            break
    process.wait()
    with pytest.raises(ValueError, match="best would be replaced"):
        list(train(settings))
    list(train(config(prepared, tmp_path, max_steps=12, save_every=0, eval_every=10, resume=True)))
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 13))


@pytest.mark.parametrize("resume", [False, True])
def test_a_checkpoint_that_cannot_be_resumed_is_not_replaced(prepared, tmp_path, resume):
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(ValueError, match=r"no training_state\.pt"):
        list(train(config(prepared, tmp_path, resume=resume)))
    assert (tmp_path / "last" / "model.safetensors").read_bytes() == b"precious"


@pytest.mark.parametrize("name", [checkpoints.STATE, "model.safetensors"])
def test_a_damaged_checkpoint_is_named(prepared, straight, tmp_path, name):
    shutil.copytree(straight[0], tmp_path / "run")
    path = tmp_path / "run" / "last" / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged") as error:
        list(train(config(prepared, tmp_path / "run", resume=True, max_steps=30)))
    assert "\n" not in str(error.value)


def test_there_is_a_best_also_where_nothing_was_measured(prepared, tmp_path):
    list(train(config(prepared, tmp_path, max_steps=4, eval_every=0, stop_after=3)))
    assert not (tmp_path / "best").exists()  # it is not at its end
    list(train(config(prepared, tmp_path, max_steps=4, eval_every=0, resume=True)))
    best, last = (load_model(tmp_path / name).state_dict() for name in ("best", "last"))
    assert all(torch.equal(best[name], last[name]) for name in last)


def test_a_second_ctrl_c_does_not_wait_for_a_step(prepared, tmp_path):
    run = train(config(prepared, tmp_path, save_every=0, eval_every=0))
    next(run)
    os.kill(os.getpid(), signal.SIGINT)  # heeded when the run goes on
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        signal.sigtimedwait([], 1)
    run.close()


def test_a_run_is_never_overwritten_by_accident(prepared, straight):
    folder, _ = straight
    with pytest.raises(ValueError, match="--resume"):
        next(train(config(prepared, folder)))


def test_another_corpus_cannot_be_resumed_on(prepared, straight, tmp_path):
    import shutil

    shutil.copytree(straight[0], tmp_path / "run")
    state_file = tmp_path / "run" / "last" / checkpoints.STATE
    torch.save(torch.load(state_file) | {"corpus": "another"}, state_file)
    with pytest.raises(ValueError, match="another corpus"):
        next(train(config(prepared, tmp_path / "run", resume=True, max_steps=30)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer": "sgd"}, "muon, adamw"),
        ({"max_steps": 0}, "max_steps"),
        ({"dropout": 2.0}, "dropout"),
        ({"size": "large"}, "mini, .*lstm"),
        ({"stop_after": 0}, "stop_after"),
        ({"eval_windows": 0}, "eval_windows"),
        ({"eval_every": -1}, "eval_every"),
        ({"context_length": 0}, "context_length"),
        ({"seed": -1}, "seed"),
        ({"max_grad_norm": 0.0}, "max_grad_norm"),
        ({"device": "mps"}, "auto, cuda, cpu"),
    ],
)
def test_bad_settings_are_refused_by_name(prepared, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        config(prepared, tmp_path, **change)


def test_fp16_on_a_cpu_is_refused_not_ignored(prepared, tmp_path):
    with pytest.raises(ValueError, match="fp16 is for a GPU"):
        next(train(config(prepared, tmp_path, mixed_precision="fp16")))


def test_the_schedules(prepared, tmp_path):
    trapezoid = config(prepared, tmp_path, max_steps=100, warmup_steps=10, decay_share=0.5)
    linear = config(prepared, tmp_path, max_steps=100, warmup_steps=0, schedule="linear")
    assert [learning_rate_factor(step, trapezoid) for step in (0, 9, 40, 75)] == [0.1, 1.0, 1.0, 0.5]
    assert [learning_rate_factor(step, linear) for step in (0, 50, 99)] == [1.0, 0.5, 0.01]


def test_the_article_s_recipe_runs(prepared, tmp_path):
    settings = config(prepared, tmp_path, optimizer="adamw", schedule="linear", learning_rate=1.5e-4, max_steps=3)
    assert [row["step"] for row in train(settings)] == [1, 2, 3]


def test_the_script_s_errors_are_one_line(tmp_path):
    command = [sys.executable, "scripts/train.py", "--data", str(tmp_path), "--output_dir", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "COLUMNS": "80"})
    assert done.returncode == 1
    assert "prepare_corpus.py" in done.stderr.splitlines()[-1] and "Traceback" not in done.stderr
