"""What a user relies on: the model's own text, seeds, branches, whole characters, no end, nothing silent."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch

import jinyong_gpt2
from jinyong_gpt2.model import new_model
from jinyong_gpt2.passage import Passage
from jinyong_gpt2.tokenizer import build_tokenizer, control_id, encode, save_tokenizer
from jinyong_gpt2.writer import Vocabulary, Writer, _following_bytes, _Forbidden, _leading_bytes, _utf8_length

PROMPT = "風雪夜，他獨自上山。"


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer([PROMPT], titles=["天龍八部", "俠客行"], min_count=1)


def decided_model(tokenizer):
    """Random weights, but large enough for it to like some characters better than others."""
    torch.manual_seed(0)
    made = new_model("testing", tokenizer).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)
    return made


@pytest.fixture(scope="module")
def model(tokenizer):
    return decided_model(tokenizer)


@pytest.fixture(scope="module")
def writer(model, tokenizer):
    return Writer(model, tokenizer, dtype="float32")


@pytest.fixture(scope="module")
def bytes_writer(tokenizer):
    """A model that likes nothing better than bytes, of every kind."""
    torch.manual_seed(1)
    made = new_model("testing", tokenizer).eval()
    with torch.no_grad():
        made.transformer.wte.weight[:257] *= 40
        made.transformer.wte.weight[257:] *= 0.01
    return Writer(made, tokenizer, dtype="float32")


@pytest.fixture(scope="module")
def folder(model, tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint")
    model.save_pretrained(path)
    save_tokenizer(tokenizer, path)
    return path


def assert_same(one, other):
    """The same text, with the same figures up to the rounding of another batch size."""
    assert (one.text, one.token_ids, one.seed, one.candidate) == (
        other.text,
        other.token_ids,
        other.seed,
        other.candidate,
    )
    assert one.settings == other.settings
    assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def model_greedy(writer, prompt, n, novel=None):
    """What transformers writes; tokens that never begin a character are suppressed there too."""
    ids = torch.tensor([[control_id(writer.tokenizer, novel), *encode(writer.tokenizer, prompt)]])
    ids = ids.to(writer.model.device)
    suppressed = writer.vocabulary.never_first.tolist()
    found = writer.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=n,
        do_sample=False,
        suppress_tokens=suppressed,
        pad_token_id=0,
    )
    return found[0, ids.shape[1] :].tolist()


# ---------------------------------------------------------------- the model's own text


@pytest.mark.parametrize("novel", [None, "天龍八部"])
def test_greedy_is_what_generate_writes_up_to_the_end_of_the_context(writer, novel):
    n = writer.decoder.context_length - len(PROMPT) - 1
    passage = writer.generate(PROMPT, novel=novel, temperature=0, max_new_tokens=n)[0]
    assert passage.token_ids == model_greedy(writer, PROMPT, n, novel)
    assert passage.continuation == writer.tokenizer.decode(passage.token_ids)
    assert passage.novel == novel


def test_probabilities_are_those_of_one_forward_pass(writer):
    passage = writer.generate(PROMPT, seed=3, max_new_tokens=40, temperature=1.4, top_k=50)[0]
    context = [control_id(writer.tokenizer), *encode(writer.tokenizer, PROMPT)]
    with torch.no_grad():
        logprobs = writer.model(torch.tensor([context + passage.token_ids])).logits.log_softmax(-1)[0]
    expected = [logprobs[len(context) - 1 + i, token].item() for i, token in enumerate(passage.token_ids)]
    assert passage.logprobs == pytest.approx(expected, abs=1e-4)
    assert passage.bits_per_char == pytest.approx(-sum(expected) / math.log(2) / len(passage.continuation), abs=1e-4)
    first = logprobs[len(context) - 1].exp().topk(5)
    assert [p for _, p in passage.alternatives[0]] == pytest.approx(first.values.tolist(), abs=1e-5)
    names = [writer.tokenizer.convert_ids_to_tokens(i) for i in first.indices.tolist()]
    assert [token for token, _ in passage.alternatives[0]] == names


def test_int8_writes_with_nearly_the_same_probabilities(model, tokenizer, writer):
    exact = writer.generate(PROMPT, seed=3, max_new_tokens=1)[0]
    near = Writer(model, tokenizer).generate(PROMPT, seed=3, max_new_tokens=1)[0]
    assert near.logprobs == pytest.approx(exact.logprobs, abs=0.2)


# ---------------------------------------------------------------- seeds and candidates


def test_candidate_i_of_a_seed_can_be_had_again_alone(writer):
    four = writer.generate(PROMPT, num_return_sequences=4, seed=7, max_new_tokens=80)
    assert len({p.continuation for p in four}) == 4
    assert [(p.seed, p.candidate) for p in four] == [(7, i) for i in range(4)]
    assert_same(writer.generate(PROMPT, seed=7, candidate=2, max_new_tokens=80)[0], four[2])
    assert "".join(writer.stream(PROMPT, seed=7, max_new_tokens=80)) == four[0].continuation
    split = writer.generate(PROMPT, num_return_sequences=4, seed=7, max_new_tokens=80, batch_size=3)
    assert [p.continuation for p in split] == [p.continuation for p in four]


def test_without_a_seed_runs_differ_and_are_recorded(writer):
    one, other = (writer.generate(PROMPT, max_new_tokens=30)[0] for _ in range(2))
    assert one.continuation != other.continuation
    assert_same(writer.generate(PROMPT, seed=one.seed, max_new_tokens=30)[0], one)


def test_prompts_of_different_length_do_not_disturb_one_another(writer):
    prompts = ["", PROMPT * 30, "雪", PROMPT]
    together = writer.generate(prompts, seed=5, max_new_tokens=90, candidate=[0, 1, 2, 3])
    for i, (prompt, passage) in enumerate(zip(prompts, together, strict=True)):
        assert passage.prompt == prompt
        assert writer.generate(prompt, seed=5, candidate=i, max_new_tokens=90)[0].continuation == passage.continuation


def test_two_streams_at_once_do_not_mix(writer):
    expected = ["".join(writer.stream(PROMPT, seed=s, max_new_tokens=40)) for s in (1, 2)]
    both = zip(*(writer.stream(PROMPT, seed=s, max_new_tokens=40) for s in (1, 2)), strict=False)
    for text, whole in zip(map("".join, zip(*both, strict=True)), expected, strict=True):
        assert whole.startswith(text) and len(text) > 20


def test_the_callers_number_of_threads_is_left_as_it_was(writer):
    torch.set_num_threads(2)
    try:
        for _, character in zip(range(5), writer.stream(PROMPT, seed=1), strict=False):
            assert torch.get_num_threads() == 2 and character
        writer.generate(PROMPT, seed=1, max_new_tokens=5)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


# ---------------------------------------------------------------- branches


def test_resample_keeps_everything_before_the_character(writer):
    draft = writer.generate(PROMPT, seed=1, max_new_tokens=60)[0]
    branches = writer.resample(draft, start=25, num_return_sequences=3, seed=8)
    assert len({b.continuation for b in branches}) == 3
    for branch in branches:
        assert branch.prompt == draft.prompt and branch.continuation[:25] == draft.continuation[:25]
        assert branch.alternatives[:25] == draft.alternatives[:25]
        assert branch.probabilities[:25] == draft.probabilities[:25]
        assert branch.kept == 25 and len(branch.token_ids) <= 60
        assert len(branch.alternatives) == len(branch.probabilities) == len(branch.continuation)
        assert Vocabulary(writer.tokenizer.backend_tokenizer.to_str()).split(branch.token_ids)[-1][0] == branch.text[-1]
    assert draft == writer.generate(PROMPT, seed=1, max_new_tokens=60)[0]  # and the draft is as it was


def test_resample_sees_the_kept_characters(writer):
    draft = writer.generate(PROMPT, seed=1, max_new_tokens=30)[0]
    branch = writer.resample(draft, start=10, temperature=0)[0]
    again = writer.generate(PROMPT + draft.continuation[:10], temperature=0, max_new_tokens=20)[0]
    assert branch.continuation == draft.continuation[:10] + again.continuation


@pytest.mark.parametrize("start", [-1, 31, 2.5, True])
def test_resample_outside_the_continuation_is_refused(writer, start):
    draft = Passage(PROMPT, "雪" * 30)
    with pytest.raises(ValueError, match="start must be"):
        writer.resample(draft, start=start)


def test_an_inserted_character_is_weighed_as_if_written(writer):
    draft = writer.generate(PROMPT, seed=1, max_new_tokens=30)[0]
    other, probability = next(pair for pair in draft.alternatives[7][1:] if len(pair[0]) == 1)  # no byte of a rare one
    branch = writer.resample(draft, start=7, insert=other, seed=2)[0]
    assert branch.continuation[:8] == draft.continuation[:7] + other
    assert branch.probabilities[7] == pytest.approx(probability, rel=1e-3)
    assert len(branch.logprobs) == len(branch.token_ids)


def test_an_insert_in_a_full_window_is_weighed_under_the_control_token(writer):
    """However long it is: the window slides, as in writing."""
    draft = writer.generate("雪" * 100, seed=3, max_new_tokens=10)[0]
    inserted = "風雪夜，他獨自上山。" * 9
    branch = writer.resample(draft, 5, insert=inserted, seed=1, max_new_tokens=5)[0]
    assert branch.continuation[5 : 5 + len(inserted)] == inserted
    ids = encode(writer.tokenizer, draft.text[:-5] + inserted[:1])
    window = [control_id(writer.tokenizer), *ids[-48:-1]]  # three quarters of 64, the control token among them
    with torch.no_grad():
        expected = writer.model(torch.tensor([window])).logits[0, -1].log_softmax(-1)[ids[-1]]
    assert branch.logprobs[5] == pytest.approx(float(expected), abs=1e-3)


def test_an_insert_counts_towards_the_length(writer):
    draft = writer.generate(PROMPT, seed=1, max_new_tokens=30)[0]
    branch = writer.resample(draft, start=7, insert="雪夜", seed=2)[0]
    assert len(branch.token_ids) == len(draft.token_ids)


def test_numbers_of_numpy_are_numbers(writer):
    draft = writer.generate(PROMPT, seed=np.int64(1), candidate=np.int64(2), max_new_tokens=np.int32(9))[0]
    branch = writer.resample(draft, np.int64(3), seed=1)[0]
    assert json.loads(json.dumps(branch.to_dict()))["kept"] == 3


def test_half_a_character_in_a_passage_by_hand_is_replaced(writer):
    longer = writer.continue_(Passage("喬\ud800", "說\ud800"), max_new_tokens=3, seed=1)
    assert len(longer.continuation) > 2
    with pytest.raises(ValueError, match="banned_characters must be whole characters"):
        writer.generate(PROMPT, banned_characters="\udcff")


def test_a_checkpoint_stays_open_where_it_was_when_the_folder_changes(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder.parent)
    opened = Writer.from_pretrained(folder.name, device="cpu")
    monkeypatch.chdir(tmp_path)
    assert opened.model.config.n_layer == 2 and len(opened.tokenizer) > 257


def test_a_damaged_tokenizer_is_named(folder, tmp_path):
    import shutil

    for text in ("{}", '{"added_tokens"'):
        broken = shutil.copytree(folder, tmp_path / str(len(text)))
        (broken / "tokenizer.json").write_text(text)
        with pytest.raises(ValueError, match=r"tokenizer\.json is damaged"):
            Writer.from_pretrained(broken)


def test_continue_goes_on_where_the_passage_ends(writer):
    draft = writer.generate(PROMPT, temperature=0, max_new_tokens=20)[0]
    longer = writer.continue_(draft, max_new_tokens=20)
    assert longer.continuation == writer.generate(PROMPT, temperature=0, max_new_tokens=40)[0].continuation
    assert longer.settings["temperature"] == 0 and longer.kept == len(draft.continuation)


def test_a_passage_written_by_hand_can_be_continued(writer):
    longer = writer.continue_(Passage(PROMPT, "他忽然停步"), max_new_tokens=10, seed=1)
    assert longer.continuation.startswith("他忽然停步") and len(longer.continuation) > 5
    assert math.isnan(longer.bits_per_char)  # not known of the part by hand
    assert "他忽然停步" in longer.to_html()


def test_what_is_not_known_of_a_beginning_stays_unknown_however_often_it_is_cut(writer):
    by_hand = Passage(PROMPT, "沒有人😀送他")
    first = writer.resample(by_hand, 5, max_new_tokens=9, seed=1)[0]
    again = writer.resample(first, 8, max_new_tokens=4, seed=2)[0]
    end = writer.resample(again, 3, max_new_tokens=4, seed=3)[0]
    for passage, unknown in ((first, 5), (again, 5), (end, 3)):
        known = len(passage.continuation) - unknown
        assert len(passage.probabilities) == len(passage.alternatives) == known > 0
        assert math.isnan(passage.bits_per_char)
    assert again.probabilities[:3] == first.probabilities[:3] and again.alternatives[:3] == first.alternatives[:3]
    assert again.continuation[:8] == first.continuation[:8]


def test_a_passage_of_a_larger_vocabulary_can_be_continued(writer):
    passage = Passage(PROMPT, "沒有人送他", token_ids=[0, 99_999, -3, 5, 6], logprobs=[-1.0] * 5)
    longer = writer.continue_(passage, max_new_tokens=4, seed=1)
    assert longer.continuation.startswith(passage.continuation) and len(longer.probabilities) == 4


def test_passages_grow_while_they_are_written(writer):
    writing = writer.write(PROMPT, num_return_sequences=2, seed=1, max_new_tokens=50)
    for count, (i, character) in enumerate(writing):
        assert writing.passages[i].continuation.endswith(character.text)
        if count == 30:
            break
    writing.close()
    whole = writer.generate(PROMPT, num_return_sequences=2, seed=1, max_new_tokens=50)
    for part, passage in zip(writing.passages, whole, strict=True):
        assert 10 < len(part.continuation) < 50 and passage.continuation.startswith(part.continuation)


# ---------------------------------------------------------------- without limit


def test_twenty_thousand_characters_in_constant_memory(tokenizer):
    torch.manual_seed(0)
    config = new_model("testing", tokenizer).config
    config.n_layer, config.n_head, config.n_embd, config.n_positions = 1, 1, 16, 128
    writer = Writer(type(new_model("testing", tokenizer))(config).eval(), tokenizer, dtype="float32")
    stream = writer.stream(PROMPT, temperature=0, max_new_tokens=10**9)
    count = sum(len(next(stream)) for _ in range(18_000))
    tracemalloc.start()  # tracing is slow: the last tenth shows whether anything still grows
    count += sum(len(next(stream)) for _ in range(2_000))
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    stream.close()
    assert count == 20_000
    assert grown < 40_000  # bytes; a list of these tokens alone would be more than that


def test_past_the_context_the_model_sees_the_control_token_and_the_latest_text(writer, monkeypatch):
    windows = []
    streams = type(writer.decoder.streams(1))
    original = streams.prefill_one
    monkeypatch.setattr(streams, "prefill_one", lambda s, i, ids: (windows.append(list(ids)), original(s, i, ids))[1])
    passage = writer.generate(PROMPT, novel="天龍八部", seed=1, max_new_tokens=150)[0]
    control = control_id(writer.tokenizer, "天龍八部")
    whole = encode(writer.tokenizer, PROMPT) + passage.token_ids
    assert 3 < len(windows) < 15  # in steps, not at every character
    for window in windows[1:]:
        assert window[0] == control
        tail = window[1:]
        assert any(whole[i : i + len(tail)] == tail for i in range(len(whole)))
        assert len(tail) >= writer.decoder.context_length // 2
    # The step after a slide is what the model says about the slid window.
    window = windows[-1]
    place = max(i for i in range(len(whole)) if whole[i : i + len(window) - 1] == window[1:]) + len(window) - 1
    with torch.no_grad():
        seen = writer.model(torch.tensor([[*window, whole[place]]])).logits[0, -1].log_softmax(-1)
    i = place + 1 - len(PROMPT)
    assert passage.logprobs[i] == pytest.approx(seen[passage.token_ids[i]].item(), abs=1e-4)


def test_a_prompt_longer_than_the_context_keeps_whole_in_the_passage(writer):
    prompt = PROMPT * 50
    passage = writer.generate(prompt, seed=1, max_new_tokens=10)[0]
    assert passage.prompt == prompt and len(passage.continuation) > 0


# ---------------------------------------------------------------- whole characters


def test_bytes_become_whole_characters_and_control_tokens_never_appear(bytes_writer):
    passages = bytes_writer.generate("😀", num_return_sequences=8, seed=1, max_new_tokens=150, top_p=1.0)
    assert sum(c not in bytes_writer.vocabulary.ids for p in passages for c in p.continuation) > 100
    for passage in passages:
        assert passage.prompt == "😀"
        assert "\ufffd" not in passage.continuation
        assert not any(ord(c) < 32 and c not in "\n\t" for c in passage.continuation)
        assert not set(passage.token_ids) & set(bytes_writer.vocabulary.controls.values())
        assert bytes_writer.tokenizer.decode(passage.token_ids) == passage.continuation
        assert len(passage.token_ids) == len(passage.logprobs)
        assert sum(map(math.log, passage.probabilities)) == pytest.approx(sum(passage.logprobs), rel=1e-4)
    streamed = list(bytes_writer.stream("😀", seed=1, max_new_tokens=150, top_p=1.0))
    assert "".join(streamed) == passages[0].continuation and all(len(c) == 1 for c in streamed)


def test_every_character_and_nothing_else_can_be_spelt_in_bytes():
    spelt = 0
    pending = [bytes([lead]) for lead in _leading_bytes()]
    while pending:
        begun = pending.pop()
        if len(begun) < _utf8_length(begun[0]):
            following = [begun + bytes([byte]) for byte in _following_bytes(begun)]
            if len(begun) == _utf8_length(begun[0]) - 1:
                for whole in (following[0], following[-1]):
                    whole.decode("utf-8")
                spelt += len(following)
            else:
                pending += following
        else:
            spelt += 1
    control_characters = 32 - 2 + 1  # all below space but tab and newline; DEL
    assert spelt == 0x110000 - 0x800 - control_characters


def test_the_light_vocabulary_encodes_as_the_tokenizer_does(writer):
    text = PROMPT + "😀龘A\t\n<|天龍八部|><|endoftext|>\u3000"
    assert writer.vocabulary.encode(text) == encode(writer.tokenizer, text)
    assert "".join(c for c, _ in writer.vocabulary.split(writer.vocabulary.encode(text))) == text


# ---------------------------------------------------------------- settings at work


def test_banned_characters_are_never_written(bytes_writer, writer):
    for one in (writer, bytes_writer):
        free = one.generate(PROMPT, seed=1, max_new_tokens=60)[0].continuation
        banned = "".join(sorted(set(free)))[:30]
        text = one.generate(PROMPT, seed=1, max_new_tokens=60, banned_characters=banned)[0].continuation
        assert len(text) > 10 and not set(text) & set(banned)


def test_what_is_banned_is_not_spelt_in_bytes_either(bytes_writer):
    """All of a block is banned, so that whole ranges of first and second bytes lead nowhere."""
    banned = "".join(map(chr, range(0x80, 0xA000)))
    for more in ({}, {"no_repeat_ngram_size": 1}):
        text = bytes_writer.generate(PROMPT, seed=1, max_new_tokens=90, banned_characters=banned, **more)[
            0
        ].continuation
        assert len(text) > 20 and not set(text) & set(banned)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_beginning_is_barred_only_when_all_it_leads_to_is(size):
    characters = {1: ["a"], 2: ["é"], 3: ["雪", "ࠀ", "퟿"], 4: ["𠮷", "\U0010ffff"]}[size]
    for character in characters:
        whole = character.encode()
        siblings = [c for c in map(chr, [*range(0xD800), *range(0xE000, 0x110000)]) if c.encode()[:-1] == whole[:-1]]
        assert character in siblings
        assert _Forbidden(character).bars(whole)
        if size > 1:
            assert _Forbidden("".join(siblings)).bars(whole[:-1])
            assert not _Forbidden("".join(siblings[1:])).bars(whole[:-1])
            assert not _Forbidden("".join(siblings)).bars(whole[:1]) or size == 2


def test_stops_and_bans_hold_in_the_models_script(writer):
    pytest.importorskip("opencc")
    draft = writer.generate("風", temperature=0, max_new_tokens=30, banned_characters="风雪")[0]
    assert not set(draft.continuation) & set("風风雪")
    stopped = writer.generate("上山。", seed=1, max_new_tokens=400, stop_strings=["独"])[0].continuation
    assert "獨" not in stopped[:-1]


def test_no_ngram_stands_twice_within_the_window(writer):
    text = writer.generate(PROMPT, temperature=0.1, seed=1, max_new_tokens=200, no_repeat_ngram_size=2)[0].text
    pairs = [text[i : i + 2] for i in range(len(text) - 1)]
    assert len(pairs) == len(set(pairs))


def test_stops(writer):
    free = writer.generate(PROMPT, seed=1, max_new_tokens=60)[0].continuation
    stop = free[20:22]
    end = free.index(stop) + 2
    assert writer.generate(PROMPT, seed=1, max_new_tokens=60, stop_strings=[stop])[0].continuation == free[:end]
    later = writer.generate(PROMPT, seed=1, max_new_tokens=60, stop_strings=[stop], min_new_tokens=40)[0].continuation
    assert later.startswith(free[:40])
    assert writer.generate(PROMPT, max_new_tokens=0)[0].continuation == ""
    assert list(writer.stream(PROMPT, max_new_tokens=0)) == []


def test_candidates_that_stop_early_leave_the_others_alone(writer):
    free = writer.generate(PROMPT, num_return_sequences=6, seed=1, max_new_tokens=70)
    stops = [free[0].continuation[3], free[1].continuation[9], free[4].continuation[30]]
    cut = writer.generate(PROMPT, num_return_sequences=6, seed=1, max_new_tokens=70, stop_strings=stops)
    for whole, part in zip(free, cut, strict=True):
        ends = [whole.continuation.index(s) + 1 for s in stops if s in whole.continuation]
        assert part.continuation == whole.continuation[: min(ends, default=None)]


# ---------------------------------------------------------------- nothing silent


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_p": 1.5}, r"top_p must be in \(0, 1\], got 1.5"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
        ({"seed": "x"}, "seed must be an integer"),
        ({"candidate": -1}, "candidate must be an integer >= 0"),
        ({"novel": "紅樓夢"}, "天龍八部、俠客行"),
        ({"prompt": None}, "prompt must be a string.*, got NoneType"),
        ({"prompt": b"abc"}, "prompt must be a string.*, got bytes"),
        ({"prompt": {"a": 1}}, "prompt must be a string.*, got dict"),
    ],
)
def test_a_bad_argument_is_refused_at_the_call(writer, arguments, message):
    with pytest.raises(ValueError, match=message):
        writer.stream(**arguments)  # not only when the first character is asked for
    with pytest.raises(ValueError, match=message):
        writer.generate(**({"prompt": PROMPT} | arguments))


def test_bad_counts_are_refused(writer):
    with pytest.raises(ValueError, match="num_return_sequences must be an integer >= 1"):
        writer.generate(PROMPT, num_return_sequences=0)
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1"):
        writer.generate(PROMPT, batch_size=0)
    with pytest.raises(TypeError, match="temprature"):
        writer.generate(PROMPT, temprature=1)


def test_lone_surrogates_and_empty_prompts_are_written_on(writer):
    assert writer.generate("\ud800雪", max_new_tokens=3)[0].prompt == "\ufffd雪"
    assert writer.generate("", max_new_tokens=3, seed=1)[0].prompt == ""


def test_a_prompt_in_the_other_script_is_matched_visibly(writer):
    pytest.importorskip("opencc")
    passage = writer.generate("风雪夜，他独自上山", max_new_tokens=3, seed=1)[0]
    assert passage.prompt == "風雪夜，他獨自上山"
    assert passage.changes == ["风→風", "独→獨"]
    assert "风→風" in passage.to_html()


# ---------------------------------------------------------------- opening a checkpoint


def test_a_checkpoint_writes_as_the_model_it_was_saved_from(folder, writer):
    opened = Writer.from_pretrained(folder, device="cpu", dtype="float32")
    assert_same(*(one.generate(PROMPT, seed=7, max_new_tokens=60)[0] for one in (opened, writer)))
    assert type(opened.model).__name__ == "GPT2LMHeadModel"
    assert encode(opened.tokenizer, PROMPT) == opened.vocabulary.encode(PROMPT)


def test_a_checkpoint_of_half_precision_in_shards_is_one_model_for_both(model, tokenizer, tmp_path):
    copy.deepcopy(model).half().save_pretrained(tmp_path, max_shard_size="100KB")
    save_tokenizer(tokenizer, tmp_path)
    opened = Writer.from_pretrained(tmp_path, device="cpu", dtype="float32")
    assert opened.model.dtype == torch.float32
    greedy = opened.generate(PROMPT, temperature=0, max_new_tokens=30)[0]
    assert greedy.token_ids == model_greedy(opened, PROMPT, 30)


def test_a_missing_checkpoint_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in .*nowhere.*scripts/train.py.*bundled") as error:
        Writer.from_pretrained(tmp_path / "nowhere")
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="dtype must be one of"):
        Writer.from_pretrained(tmp_path, dtype="int3")


def test_generating_imports_neither_transformers_nor_opencc(folder):
    """Importing them costs more than writing; `import jinyong_gpt2` is the package's own affair."""
    code = f"""
import json, sys, types
package = types.ModuleType("jinyong_gpt2")
package.__path__ = {list(jinyong_gpt2.__path__)!r}
sys.modules["jinyong_gpt2"] = package
from jinyong_gpt2.writer import Writer
text = "".join(Writer.from_pretrained({str(folder)!r}, device="cpu").stream("雪", seed=1, max_new_tokens=5))
heavy = {{"transformers", "opencc", "bertviz", "matplotlib", "ipywidgets", "accelerate", "pandas"}} & set(sys.modules)
print(json.dumps([len(text) > 0, sorted(heavy)]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [True, []]
