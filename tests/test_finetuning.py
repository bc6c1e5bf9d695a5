"""Fine-tuning keeps what a checkpoint knows, under whatever vocabulary."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from test_training import config, targets
from transformers import GPT2Config, GPT2LMHeadModel

from jinyong_gpt2.checkpoints import save
from jinyong_gpt2.finetuning import model_from
from jinyong_gpt2.model import new_model
from jinyong_gpt2.tokenizer import build_tokenizer, control_id, encode
from jinyong_gpt2.training import train


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    tokenizer = build_tokenizer(["㐀"], titles=["甲書"], min_count=1)
    torch.manual_seed(1)
    model = new_model("testing", tokenizer).eval()
    save(folder / "checkpoint", model, tokenizer, {})
    return folder / "checkpoint", model, tokenizer


def test_shared_characters_keep_their_predictions(old):
    folder, model, tokenizer = old
    other = build_tokenizer(["㐁"], titles=["乙書", "甲書"], min_count=1)
    adapted = model_from(folder, other).eval()
    text = "天地玄黃，宇宙洪荒。"
    with torch.no_grad():
        before = model(torch.tensor([[0, *encode(tokenizer, text)]])).logits[0, :, encode(tokenizer, text)]
        after = adapted(torch.tensor([[0, *encode(other, text)]])).logits[0, :, encode(other, text)]
    torch.testing.assert_close(before, after)
    assert adapted.config.vocab_size == len(other) == adapted.lm_head.weight.shape[0]


def test_a_new_character_begins_as_its_bytes_and_a_new_novel_as_none(old):
    folder, model, tokenizer = old
    other = build_tokenizer(["㐁"], titles=["乙書", "甲書"], min_count=1)
    rows, known = model_from(folder, other).transformer.wte.weight, model.transformer.wte.weight
    pieces = [tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in "㐁".encode()]
    torch.testing.assert_close(rows[encode(other, "㐁")[0]], known[pieces].mean(dim=0))
    torch.testing.assert_close(rows[control_id(other, "乙書")], known[0])
    torch.testing.assert_close(rows[control_id(other, "甲書")], known[control_id(tokenizer, "甲書")])


def test_a_gpt2_chinese_folder_with_its_vocab_txt_is_understood(tmp_path):
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u2028x", "天", "地"]
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(names) + 2, n_embd=8, n_layer=1, n_head=1, n_positions=32))
    model.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["model_type"]  # as transformers wrote it then
    (tmp_path / "config.json").write_text(json.dumps(values))
    tokenizer = build_tokenizer([])
    with pytest.raises(FileNotFoundError, match=r"no tokenizer: copy its .*vocab\.txt"):
        model_from(tmp_path, tokenizer)
    names.insert(4, "")  # an empty line names nothing
    (tmp_path / "vocab.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    rows, known = model_from(tmp_path, tokenizer).transformer.wte.weight, model.transformer.wte.weight
    for ours, theirs in {"天": "天", "\n": "[SEP]"}.items():
        torch.testing.assert_close(rows[encode(tokenizer, ours)[0]], known[names.index(theirs)])
    torch.testing.assert_close(rows[0], known[names.index("[CLS]")])
    torch.testing.assert_close(rows[encode(tokenizer, "玄")[0]], known.mean(dim=0))


def test_an_output_layer_of_its_own_keeps_its_rows_too(old, tmp_path):
    _, _, tokenizer = old
    torch.manual_seed(2)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=1, n_positions=32, tie_word_embeddings=False
    )
    model = GPT2LMHeadModel(config)
    save(tmp_path / "untied", model, tokenizer, {})
    other = build_tokenizer(["㐁"], titles=["乙書", "甲書"], min_count=1)
    adapted = model_from(tmp_path / "untied", other)
    for character in "天。":
        was, now = encode(tokenizer, character)[0], encode(other, character)[0]
        torch.testing.assert_close(adapted.lm_head.weight[now], model.lm_head.weight[was])
        torch.testing.assert_close(adapted.transformer.wte.weight[now], model.transformer.wte.weight[was])


def test_weights_that_do_not_fit_are_one_line(old, tmp_path):
    import shutil

    folder = shutil.copytree(old[0], tmp_path / "broken")
    for change in ({"n_embd": 64}, {}):
        values = json.loads((old[0] / "config.json").read_text()) | change
        (folder / "config.json").write_text(json.dumps(values))
        if not change:
            (folder / "model.safetensors").write_bytes(b"cut off")
        with pytest.raises(ValueError, match="damaged or do not fit") as error:
            model_from(folder, old[2])
        assert "\n" not in str(error.value)


def test_a_fine_tuned_run_begins_where_the_checkpoint_ended(prepared, tmp_path):
    list(train(config(prepared, tmp_path / "first", max_steps=60, dropout=0.0)))
    tuned = config(prepared, tmp_path / "tuned", max_steps=1, init_from=str(tmp_path / "first" / "last"), dropout=0.0)
    first = next(train(tuned))["loss"]
    assert first < math.log(100) < next(train(config(prepared, tmp_path / "scratch", max_steps=1)))["loss"]


def test_what_a_checkpoint_saw_before_is_counted_over_all_its_rounds(prepared, tmp_path):
    folder = None
    seen_before = None
    for round_ in range(3):
        out = tmp_path / str(round_)
        settings = config(prepared, out, max_steps=1, batch_size=2, context_length=64, init_from=folder)
        list(train(settings))
        folder = str(out / "last")
        record = json.loads((Path(folder) / "training.json").read_text(encoding="utf-8"))
        seen = targets(prepared, settings, 0)
        assert (record["characters_seen"], record["characters_seen_before"]) == (seen, seen_before)
        seen_before = seen + (seen_before or 0)
    card = (Path(folder) / "README.md").read_text(encoding="utf-8")
    assert f"{seen} characters seen, after the {seen_before - seen}" in card


def test_what_is_no_checkpoint_is_refused(prepared, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        model_from(tmp_path, prepared.tokenizer)
    for other in ("bert", "character-lstm"):
        (tmp_path / "config.json").write_text(f'{{"model_type": "{other}"}}')
        with pytest.raises(ValueError, match=f"holds a {other} model: only a GPT-2"):
            model_from(tmp_path, prepared.tokenizer)


def test_a_context_longer_than_the_checkpoint_has_room_for_is_refused(old, prepared, tmp_path):
    settings = config(prepared, tmp_path, init_from=str(old[0]), context_length=65)
    with pytest.raises(ValueError, match="context_length 65"):
        next(train(settings))
