"""The numbers behind the views: attention, queries and keys, labels, spans, scores."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from jinyong_gpt2.attention import Attention, heads_of_interest, read_attention, show, token_labels
from jinyong_gpt2.model import new_model
from jinyong_gpt2.tokenizer import build_tokenizer, control_id, encode
from jinyong_gpt2.views import bertviz_pages, page, static

TEXT = "喬峯帶阿朱回到北方，喬峯對她說：「我們兩人永遠留在這裡！」"


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer([TEXT], titles=["天龍八部", "白馬嘯西風"], min_count=1)


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    made = new_model("testing", tokenizer).eval()
    with torch.no_grad():  # so that the heads differ visibly, as trained ones do
        for block in made.transformer.h:
            block.attn.c_attn.weight.mul_(8)
    return made


@dataclass
class PassageLike:
    prompt: str
    continuation: str
    novel: str | None = None

    @property
    def text(self) -> str:
        return self.prompt + self.continuation


def eager_attentions(model, ids):
    """(L, H, T, T): what transformers itself gives."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        found = model(torch.tensor([ids]), output_attentions=True).attentions
    model.set_attn_implementation(before)
    return torch.stack(found)[:, 0]


def test_weights_are_those_of_transformers(model, tokenizer):
    attention = read_attention(model, tokenizer, TEXT, novel="天龍八部")
    assert attention.token_ids == [control_id(tokenizer, "天龍八部"), *encode(tokenizer, TEXT)]
    torch.testing.assert_close(attention.weights, eager_attentions(model, attention.token_ids), rtol=0, atol=1e-6)


def test_no_character_sees_what_comes_after_it(model, tokenizer):
    attention = read_attention(model, tokenizer, TEXT)
    assert (attention.weights.triu(1) == 0).all()
    torch.testing.assert_close(attention.weights.sum(-1), torch.ones(attention.weights.shape[:3]))


def test_queries_and_keys_make_the_weights(model, tokenizer):
    attention = read_attention(model, tokenizer, TEXT)
    scores = attention.queries @ attention.keys.transpose(-1, -2) / math.sqrt(attention.queries.size(-1))
    future = torch.ones_like(scores, dtype=torch.bool).triu(1)
    made = scores.masked_fill(future, -math.inf).softmax(-1)
    torch.testing.assert_close(made, attention.weights, rtol=0, atol=1e-5)


def test_each_row_is_a_step_of_generation(model, tokenizer):
    whole = read_attention(model, tokenizer, TEXT)
    for length in (1, 7, len(TEXT)):
        step = read_attention(model, tokenizer, TEXT[:length])
        torch.testing.assert_close(step.weights[:, :, -1], whole.weights[:, :, length, : length + 1], rtol=0, atol=1e-5)
        assert [c for c, _ in step.next_characters[-1]][:3] == [c for c, _ in whole.next_characters[length]][:3]


def test_next_characters_are_the_models_probabilities(model, tokenizer):
    attention = read_attention(model, tokenizer, TEXT)
    with torch.no_grad():
        expected = model(torch.tensor([attention.token_ids])).logits[0].softmax(-1)
    for row, probabilities in zip(attention.next_characters, expected, strict=True):
        values, ids = probabilities.topk(len(row))
        assert [label for label, _ in row] == token_labels(tokenizer, ids.tolist())
        assert [p for _, p in row] == pytest.approx(values.tolist(), abs=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_model_is_left_as_it_was(model, tokenizer, training):
    hooks = sum(len(module._forward_hooks) for module in model.modules())
    model.train(training)
    model.transformer.h[0].train(not training)  # a frozen part keeps a mode of its own
    modes = [module.training for module in model.modules()]
    show(model, tokenizer, TEXT)
    assert [module.training for module in model.modules()] == modes
    assert model.config._attn_implementation == "sdpa"
    assert sum(len(module._forward_hooks) for module in model.modules()) == hooks

    def fail(*args):
        raise RuntimeError("planted")

    planted = model.transformer.h[-1].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="planted"):
        show(model, tokenizer, TEXT)
    planted.remove()
    assert [module.training for module in model.modules()] == modes
    assert model.config._attn_implementation == "sdpa"
    assert sum(len(module._forward_hooks) for module in model.modules()) == hooks
    model.eval()


def test_dropout_of_a_training_model_does_not_blur_the_weights(tokenizer):
    torch.manual_seed(0)
    training = new_model("testing", tokenizer, dropout=0.5).train()
    first, second = (read_attention(training, tokenizer, TEXT).weights for _ in range(2))
    assert torch.equal(first, second)


def test_bfloat16_model_gives_float32(model, tokenizer):
    low = new_model("testing", tokenizer)
    low.load_state_dict(model.state_dict())
    attention = read_attention(low.to(torch.bfloat16), tokenizer, TEXT)
    assert {attention.weights.dtype, attention.queries.dtype, attention.keys.dtype} == {torch.float32}
    torch.testing.assert_close(attention.weights, read_attention(model, tokenizer, TEXT).weights, rtol=0, atol=0.1)
    assert show(low, tokenizer, TEXT, "neuron").page


def test_everything_has_a_visible_label(model, tokenizer):
    attention = read_attention(model, tokenizer, "阿\n朱 \u3000😀\t", novel="白馬嘯西風")
    assert attention.labels == ["〈白馬嘯西風〉", "阿", "⏎", "朱", "␣", "␣", "F0", "9F", "98", "80", "09"]
    assert read_attention(model, tokenizer, "阿朱").labels == ["〈小說〉", "阿", "朱"]


def test_typed_control_token_is_text(model, tokenizer):
    assert read_attention(model, tokenizer, "<|天龍八部|>").labels == ["〈小說〉", *"<|天龍八部|>"]


def test_hidden_control_token_was_still_read(model, tokenizer):
    whole, hidden = (read_attention(model, tokenizer, TEXT, hide_control=hide) for hide in (False, True))
    assert hidden.labels == list(TEXT) and not hidden.has_control_token
    assert torch.equal(hidden.weights, whole.weights[:, :, 1:, 1:])
    assert torch.equal(hidden.keys, whole.keys[:, :, 1:])


def test_span_is_cut_out_of_the_whole(model, tokenizer):
    whole = read_attention(model, tokenizer, TEXT)
    part = read_attention(model, tokenizer, TEXT, start=9, stop=16)
    assert part.labels == ["〈小說〉", *TEXT[9:16]]
    kept = torch.tensor(part.shown)
    torch.testing.assert_close(part.weights, whole.weights[:, :, kept][..., kept], rtol=0, atol=1e-6)
    assert "第 10 到第 16 字" in part.note and whole.note == ""


def test_text_beyond_the_context_is_read_at_its_end(model, tokenizer):
    text = TEXT * 5
    attention = read_attention(model, tokenizer, text)
    assert attention.token_ids == [0, *encode(tokenizer, text)[-63:]]
    assert "沒有看到" in attention.note
    early = read_attention(model, tokenizer, text, start=0, stop=20)
    assert early.token_ids == [0, *encode(tokenizer, text[:20])]


def test_view_crops_and_says_so(tokenizer, monkeypatch):
    monkeypatch.setitem(__import__("jinyong_gpt2.attention", fromlist=["LIMITS"]).LIMITS, "model", 10)
    torch.manual_seed(0)
    view = show(new_model("testing", tokenizer), tokenizer, TEXT)
    assert view.attention.labels == ["〈小說〉", *TEXT[-10:]]
    assert f"全文 {len(TEXT)} 字" in view.page


def test_a_crop_never_begins_within_a_character(model, tokenizer):
    """Four bytes each: where the limit cuts one, it is left out, and the note counts the whole ones."""
    for limit, first in ((16, 3), (15, 4), (13, 4), (12, 4)):
        attention = read_attention(model, tokenizer, "😀" * 6, limit=limit)
        assert attention.labels[1] == "F0" and f"全文 6 字，這裡只畫第 {first} 到第 6 字" in attention.note
    attention = read_attention(model, tokenizer, "😀" * 200, limit=10)
    assert f"更前面的 {200 - 63 // 4} 字它沒有看到" in attention.note


def test_numbers_of_numpy_choose_layer_and_head(model, tokenizer):
    for view in ("model", "head", "neuron", "generation"):
        made = show(model, tokenizer, TEXT, view, layer=np.int64(1), head=np.int64(0), layers=np.array([0, 1]))
        assert made.page.startswith("<!doctype html>") and made.picture.startswith(b"\x89PNG")


def test_passage_brings_its_novel_and_where_it_began(model, tokenizer):
    attention = read_attention(model, tokenizer, PassageLike(TEXT[:9], TEXT[9:], "天龍八部"))
    assert attention.labels == ["〈天龍八部〉", *TEXT]
    assert attention.prompt_length == 10


@pytest.mark.parametrize("as_passage", [False, True])
def test_text_in_the_other_script_is_matched_as_the_writer_does(model, tokenizer, as_passage):
    simplified = "乔峰带阿朱回到北方，乔峰对她说"
    text = PassageLike(simplified[:9], simplified[9:]) if as_passage else simplified
    attention = read_attention(model, tokenizer, text)
    assert "".join(attention.labels[1:]) == "喬峰帶阿朱回到北方，喬峰對她說"
    assert attention.note == "換成模型認得的字：乔→喬、带→帶、对→對、说→說。"
    assert attention.prompt_length == (10 if as_passage else 1)
    assert read_attention(model, tokenizer, TEXT).note == ""


def test_half_a_character_is_shown_as_an_unreadable_one(model, tokenizer):
    """Not written in any encoding, and so nothing that a converter between scripts takes."""
    assert read_attention(model, tokenizer, "乔\ud800帶").labels[1:] == ["喬", "EF", "BF", "BD", "帶"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"view": "neurons"}, "model, head, neuron, generation"),
        ({"text": ""}, "at least one character"),
        ({"start": 5, "stop": 5}, "holds no character"),
        ({"layer": 2}, "0 to 1"),
        ({"head": 2}, "0 to 1"),
        ({"head": "mean"}, "0 to 1"),
        ({"layers": [0, 9]}, "0 to 1"),
        ({"layers": []}, "0 to 1"),
        ({"layers": [1.7]}, "0 to 1"),
        ({"layers": "01"}, "0 to 1"),
        ({"layer": 1.0}, "0 to 1"),
        ({"head": True, "view": "neuron"}, "0 to 1"),
        ({"layers": [0], "layer": 1}, "not among"),
        ({"novel": "紅樓夢"}, "天龍八部"),
        ({"mode": "sepia"}, "auto, light, dark"),
    ],
)
def test_wrong_requests_say_what_to_do(model, tokenizer, wrong, says):
    with pytest.raises(ValueError, match=says) as error:
        show(model, tokenizer, **({"text": TEXT, "view": "model"} | wrong))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("view", ["model", "head", "neuron", "generation"])
def test_smallest_texts_make_pages_and_pictures(model, tokenizer, view):
    for text, hide in (("阿", True), ("😀", False), ("\n", True)):
        made = show(model, tokenizer, text, view, hide_control=hide)
        assert made.page.startswith("<!doctype html>") and made.picture.startswith(b"\x89PNG")


def test_pages_are_written_whole_or_not_at_all(model, tokenizer, tmp_path):
    view = show(model, tokenizer, TEXT, "head")
    assert view.save(tmp_path / "new" / "head.html").read_text(encoding="utf-8") == view.page
    assert view.save(tmp_path / "head.png").read_bytes() == view.picture
    with pytest.raises(ValueError, match=r"\.html or \.png"):
        view.save(tmp_path / "head.svg")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["head.html", "head.png", "new"]


def test_notebook_cell_has_a_picture_before_its_frame(model, tokenizer):
    cell = show(model, tokenizer, TEXT, "head")._repr_html_()
    assert cell.index("data:image/png;base64,") < cell.index("<iframe") and "Trust Notebook" in cell


def test_text_cannot_break_out_of_the_page(model, tokenizer):
    view = show(model, tokenizer, '</script><img src=x onerror=alert(1)>"', "head")
    assert "<img src=x" not in view.page and "<img src=x" not in view._repr_html_()


@pytest.mark.parametrize("view", ["model", "head", "neuron", "generation"])
def test_pictures_show_something(model, tokenizer, view):
    from io import BytesIO

    from PIL import Image

    pixels = np.asarray(Image.open(BytesIO(show(model, tokenizer, TEXT, view).picture)).convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    assert (pixels != 255).any(axis=-1).mean() > 0.02


def test_lines_of_a_long_texts_end_can_be_seen(tokenizer, monkeypatch):
    """There each token looks at many that are not in the picture."""
    from io import BytesIO

    from PIL import Image

    monkeypatch.setattr(static, "LONGEST", 12)
    torch.manual_seed(0)
    view = show(new_model("testing", tokenizer), tokenizer, TEXT * 2, "head")  # looks everywhere alike
    contrast = []
    for seen in (0.0, static.SEEN):
        monkeypatch.setattr(static, "SEEN", seen)
        pixels = np.asarray(Image.open(BytesIO(static.draw_png(view))).convert("L"), float)
        contrast.append((255 - pixels[60:-20, 155:265]).mean())
    assert contrast[1] > 5 * contrast[0]


def test_machine_without_chinese_font_is_told_once(model, tokenizer, monkeypatch):
    monkeypatch.setattr(static, "FONTS", ())
    static.chinese_font.cache_clear()
    with pytest.warns(UserWarning, match="fonts-noto-cjk") as warned:
        for view in ("head", "generation"):
            assert show(model, tokenizer, TEXT, view).picture
    assert len(warned) == 1
    static.chinese_font.cache_clear()


def test_packed_weights_keep_four_decimals():
    weights = torch.rand(2, 3, 5, 5).tril()
    rows, columns = np.tril_indices(5)
    packed = page.triangles(weights)
    assert packed.shape == (2, 3, 15)
    np.testing.assert_allclose(packed / 10_000, weights.numpy()[:, :, rows, columns], atol=5.1e-5)


def test_packed_vectors_keep_their_direction():
    vectors = torch.randn(2, 3, 4, 16) * torch.tensor([0.01, 1, 100])[:, None, None]
    packed, scale = bertviz_pages.quantize(vectors)
    back = torch.from_numpy(packed).float() * torch.from_numpy(scale)[..., None]
    assert torch.nn.functional.cosine_similarity(back, vectors, dim=-1).min() > 0.999
    assert bertviz_pages.quantize(torch.zeros(1, 1, 1, 4))[0].tolist() == [[[[0, 0, 0, 0]]]]


def test_lines_are_limited_to_the_strongest(monkeypatch):
    weights = torch.rand(2, 3, 40, 40).tril()
    monkeypatch.setitem(bertviz_pages.MOST_LINES, "model", 500)
    threshold = bertviz_pages.line_threshold(weights, "model")
    assert (weights > threshold).sum() == 500
    monkeypatch.setitem(bertviz_pages.MOST_LINES, "model", 10**6)
    assert bertviz_pages.line_threshold(weights, "model") == bertviz_pages.FAINTEST


def test_every_head_has_its_own_colour():
    for count in (1, 12, 16, 20, 25):
        assert len(set(bertviz_pages.head_colours(count))) == count
    rgb = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in bertviz_pages.head_colours(12)], float)
    distance = np.linalg.norm(rgb[:, None] - rgb[None], axis=-1) + 1000 * np.eye(12)
    assert distance.min() > 50


def test_bertviz_still_has_the_lines_that_are_changed():
    model, head, neuron = (bertviz_pages.bertviz_script(view) for view in ("model", "head", "neuron"))
    assert "params.box_height" in model and "DETAIL_WIDTH = 360" in model and "DETAIL_BOX_WIDTH = 110" in model
    assert all("window.bertviz_params" in script for script in (model, head, neuron))


def planted(text: str, **heads: dict[tuple[int, int], float]) -> Attention:
    """An attention of one layer, a head per argument: {(i, j): weight}."""
    size = len(text) + 1
    weights = torch.zeros(1, len(heads), size, size)
    for h, entries in enumerate(heads.values()):
        for (i, j), weight in entries.items():
            weights[0, h, i, j] = weight
    labels = ["〈小說〉", *text]
    empty = torch.zeros(1, len(heads), size, 4)
    return Attention(list(range(size)), list(range(size)), labels, weights, empty, empty, [[] for _ in labels])


def test_heads_of_interest_find_planted_heads():
    text = "阿朱說：「好阿朱」"  # 1..9 behind the control token
    attention = planted(
        text,
        even={},
        previous={(i, i - 1): 0.9 for i in range(2, 10)},
        same={(7, 1): 0.8, (8, 2): 0.6},
        quote={(i, 5): 0.5 for i in (6, 7, 8)},
        names={(i, j): 0.3 for i in range(3, 10) for j in (1, 2)},
    )
    table = heads_of_interest(attention, names=["阿朱"], top=1)
    assert {row.looks_at: row.head for row in table} == {"前一個字": 1, "同一個字": 2, "開口的引號": 3, "人名": 4}
    shares = {row.looks_at: row.share for row in table}
    assert shares["前一個字"] == pytest.approx(0.9)
    assert shares["同一個字"] == pytest.approx(0.7)
    assert shares["開口的引號"] == pytest.approx(0.5)
    assert shares["人名"] == pytest.approx(0.6)
    assert all(0 < row.even < 1 for row in table)
    assert table._repr_html_().count("<tr>") == 5


def test_heads_of_interest_leave_out_what_is_not_there():
    attention = planted("一二三", only={(2, 1): 0.5, (3, 2): 0.5})
    assert [row.looks_at for row in heads_of_interest(attention, names=[])] == ["前一個字"]


def test_scores_of_a_real_model_are_shares(model, tokenizer):
    table = heads_of_interest(show(model, tokenizer, TEXT), names=["喬峯", "阿朱"])
    assert {row.looks_at for row in table} == {"前一個字", "同一個字", "開口的引號", "人名"}
    assert all(0 <= row.share <= 1 and row.layer in (0, 1) and row.head in (0, 1) for row in table)
    hidden = replace(read_attention(model, tokenizer, TEXT, hide_control=True))
    assert heads_of_interest(hidden, names=["喬峯", "阿朱"]) == table
