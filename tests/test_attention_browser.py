"""The views in real Chromium: what is drawn is what the model computed, and everything answers the pointer."""

from __future__ import annotations

import pytest
import torch

from jinyong_gpt2.attention import show
from jinyong_gpt2.model import new_model
from jinyong_gpt2.tokenizer import build_tokenizer
from jinyong_gpt2.views.bertviz_pages import FAINTEST

pytest_plugins = ["browser"]

TEXT = "喬峯帶阿朱回到北方，\n喬峯對她說：「我們兩人永遠留在這裡！」"
LABELS = ["〈天龍八部〉", *TEXT.replace("\n", "⏎")]


@pytest.fixture(scope="module")
def open_view(tmp_path_factory, chromium):
    """`view(name, **options)` and the page it was saved as, each saved once."""
    tokenizer = build_tokenizer([TEXT], titles=["天龍八部"], min_count=1)
    torch.manual_seed(0)
    model = new_model("testing", tokenizer)
    with torch.no_grad():
        for block in model.transformer.h:
            block.attn.c_attn.weight.mul_(8)
    folder = tmp_path_factory.mktemp("views")
    made = {}

    def open_view(open_page, view, width=1100, scheme="light", **options):
        key = (view, *sorted(options.items()))
        if key not in made:
            shown = show(model, tokenizer, TEXT, view, novel="天龍八部", **options)
            made[key] = shown, shown.save(folder / f"{len(made)}.html")
        shown, path = made[key]
        watched = open_page(path, width=width, scheme=scheme)
        watched.page.wait_for_selector("html[data-drawn]", state="attached")
        return shown, watched

    return open_view


def lines_of(weights):
    """Which weights get a line. A page holds them in ten-thousandths."""
    return (weights.double() * 10_000).round() / 10_000 > FAINTEST


def picture(watched):
    """What the reader sees, as bytes: two pictures differ where anything drawn differs."""
    watched.page.wait_for_timeout(60)
    return watched.page.screenshot()


def choose(watched, selector, value):
    watched.page.select_option(selector, value)
    watched.page.mouse.move(1, 1)


def test_model_view_draws_every_head(open_page, open_view):
    view, watched = open_view(open_page, "model")
    weights = view.attention.weights
    drawn = watched.page.evaluate(
        """() => [...document.querySelectorAll('.attn_background')].map(r => [r.id,
            [...r.parentNode.querySelectorAll('line')].map(
                line => [+line.parentNode.getAttribute('source-index'), line.__data__])])"""
    )
    assert [name for name, _ in drawn] == [f"attn_background_{i}" for i in ("0_0", "0_1", "1_0", "1_1")]
    for name, lines in drawn:
        layer, head = map(int, name.split("_")[-2:])
        assert len(lines) == lines_of(weights[layer, head]).sum()
        rows = [row[lines_of(row)].tolist() for row in weights[layer, head]]
        expected = [(i, w) for i, row in enumerate(rows) for w in row]
        assert [i for i, _ in lines] == [i for i, _ in expected]
        assert [w for _, w in lines] == pytest.approx([w for _, w in expected], abs=6e-5)
    watched.assert_quiet()


def test_model_view_enlarges_the_head_that_is_clicked(open_page, open_view):
    _, watched = open_view(open_page, "model")
    before = picture(watched)
    box = watched.page.locator("#attn_background_1_0").bounding_box()
    watched.page.mouse.click(box["x"] + 10, box["y"] + 10)
    words = watched.page.eval_on_selector_all("g.detail text", "all => all.map(t => t.textContent)")
    assert words == LABELS * 2
    assert watched.page.text_content("text.detail") == "Layer 1, Head 0"
    clicked = picture(watched)
    watched.page.hover("g.detail >> nth=0 >> text=她")
    assert len({before, clicked, picture(watched)}) == 3
    opacity = "all => all.map(g => +getComputedStyle(g).opacity)"
    shown = watched.page.eval_on_selector_all(".attn-line-group", opacity)
    assert [i for i, value in enumerate(shown) if value] == [LABELS.index("她")]
    watched.assert_quiet()


def test_head_view_draws_the_layer_chosen(open_page, open_view):
    view, watched = open_view(open_page, "head", layer=0)
    lines = """() => [...document.querySelectorAll('#attention line')].map(l => [
        +l.parentNode.parentNode.getAttribute('head-index'), +l.getAttribute('left-token-index'),
        +l.getAttribute('right-token-index'), +l.getAttribute('stroke-opacity')])"""
    for layer in (0, 1):
        if layer:
            choose(watched, "#layer", "1")
        drawn = watched.page.evaluate(lines)
        assert len(drawn) == lines_of(view.attention.weights[layer]).sum()
        for head, left, right, opacity in drawn:
            assert opacity == pytest.approx(view.attention.weights[layer, head, left, right].item() / 2, abs=6e-5)
    for side in ("#left", "#right"):
        assert watched.page.eval_on_selector_all(f"{side} text", "all => all.map(t => t.textContent)") == LABELS
    watched.assert_quiet()


def test_head_view_answers_pointer_and_squares(open_page, open_view):
    view, watched = open_view(open_page, "head")
    before = picture(watched)
    watched.page.hover("#left >> text=她")
    visible = watched.page.eval_on_selector_all(
        "#attention line[visibility=visible]", "all => all.map(l => +l.getAttribute('left-token-index'))"
    )
    row = LABELS.index("她")
    assert set(visible) == {row} and len(visible) == lines_of(view.attention.weights[1, :, row]).sum()
    assert picture(watched) != before
    watched.page.mouse.move(1, 1)
    strength = (
        "() => [...document.querySelectorAll('#attention line')].filter(l => +l.getAttribute('stroke-opacity')).length"
    )
    both = watched.page.evaluate(strength)
    watched.page.locator("#vis svg > g:last-child rect").first.dblclick()
    assert watched.page.evaluate(strength) == lines_of(view.attention.weights[1, 0]).sum() < both
    watched.assert_quiet()


def test_neuron_view_expands_by_its_plus(open_page, open_view):
    view, watched = open_view(open_page, "neuron", layer=0, head=1)
    assert watched.page.input_value("#layer") == "0" and watched.page.input_value("#att_head") == "1"
    drawn = watched.page.locator("#collapsed line").count()
    assert drawn == lines_of(view.attention.weights[0, 1]).sum()
    assert "「＋」" in watched.page.inner_text("#caption")
    row = LABELS.index("她")
    token = watched.page.locator("#collapsed #leftText > g").nth(row)
    token.hover()
    collapsed = picture(watched)
    token.locator("rect").last.click()
    assert watched.page.locator("#expanded").get_attribute("visibility") == "visible"
    watched.page.locator("#expanded #leftText > g").nth(row).hover()
    assert picture(watched) != collapsed
    queries = watched.page.eval_on_selector_all(
        f"#queries .vector:nth-child({row + 1}) .element", "all => all.map(e => e.__data__)"
    )
    expected = view.attention.queries[0, 1, row]
    assert queries == pytest.approx(expected.tolist(), abs=expected.abs().max().item() / 250)
    softmax = watched.page.eval_on_selector_all(
        "#expanded #rightText .highlight", "all => all.map(e => +e.style.opacity)"
    )
    assert softmax == pytest.approx(view.attention.weights[0, 1, row].tolist(), abs=1e-4)
    watched.assert_quiet()


def test_neuron_view_changes_with_its_dropdowns(open_page, open_view):
    view, watched = open_view(open_page, "neuron", layer=0, head=1)
    seen = {picture(watched)}
    for selector, value, layer, head in (("#layer", "1", 1, 1), ("#att_head", "0", 1, 0)):
        choose(watched, selector, value)
        assert watched.page.locator("#collapsed line").count() == lines_of(view.attention.weights[layer, head]).sum()
        seen.add(picture(watched))
    assert len(seen) == 3
    watched.assert_quiet()


def test_neuron_view_of_chosen_layers_names_them(open_page, open_view):
    view, watched = open_view(open_page, "neuron", layers=(1,))
    assert watched.page.eval_on_selector_all("#layer option", "all => all.map(o => o.textContent)") == ["1"]
    assert watched.page.locator("#collapsed line").count() == lines_of(view.attention.weights[1, 0]).sum()


@pytest.mark.parametrize("name", ["head", "neuron"])
def test_play_goes_down_the_text(open_page, open_view, name):
    _, watched = open_view(open_page, name)
    watched.page.evaluate(
        "() => { window.seen = []; document.addEventListener('mouseover', e => seen.push(e.target.textContent)); }"
    )
    watched.page.click("#play")
    watched.page.wait_for_function("() => seen.filter(text => text === '喬').length > 0")
    watched.page.click("#play")
    words = [word for word in watched.page.evaluate("seen") if word in LABELS]
    assert words[:2] == LABELS[:2]
    watched.assert_quiet()


STATE = """() => ({
    text: [...document.querySelectorAll('.token')]
        .filter(t => getComputedStyle(t).visibility !== 'hidden').map(t => t.textContent),
    shades: [...document.querySelectorAll('.token:not(.future)')].map(t => +t.title.split('：').at(-1)),
    newest: document.querySelector('.newest').textContent,
    next: [...document.querySelectorAll('#next li')]
        .map(li => [li.children[0].textContent, li.children[2].textContent]),
})"""


def test_generation_view_steps_through_the_text(open_page, open_view):
    view, watched = open_view(open_page, "generation", layer=1)
    for step in range(3):
        state = watched.page.evaluate(STATE)
        assert state["text"] == LABELS[: step + 1] and state["newest"] == LABELS[step]
        expected = view.attention.weights[1, :, step, : step + 1].mean(0)
        assert state["shades"] == pytest.approx(expected.tolist(), abs=1.1e-3)
        likeliest = view.attention.next_characters[step]
        assert state["next"] == [[label, f"{100 * round(p, 4):.1f}%"] for label, p in likeliest]
        watched.page.click("#forward")
    watched.page.click("#back")
    assert watched.page.evaluate(STATE)["newest"] == LABELS[2]
    watched.page.locator("#step").fill(str(len(LABELS) - 1))
    assert watched.page.evaluate(STATE)["text"] == LABELS
    watched.assert_quiet()


def test_generation_view_changes_layer_and_head(open_page, open_view):
    view, watched = open_view(open_page, "generation", layer=1)
    row = len(LABELS) - 1
    watched.page.locator("#step").fill(str(row))
    weights = view.attention.weights[:, :, row]
    for selector, value, expected in (
        ("#head", "max", weights[1].amax(0)),
        ("#head", "1", weights[1, 1]),
        ("#layer", "0", weights[0, 1]),
    ):
        before = picture(watched)
        choose(watched, selector, value)
        assert watched.page.evaluate(STATE)["shades"] == pytest.approx(expected.tolist(), abs=1.1e-3)
        assert picture(watched) != before
    watched.assert_quiet()


def test_generation_view_plays_and_pauses(open_page, open_view):
    _, watched = open_view(open_page, "generation")
    watched.page.click("#play")
    watched.page.wait_for_function("() => document.querySelectorAll('.token:not(.future)').length >= 3")
    watched.page.click("#play")
    stopped = watched.page.evaluate(STATE)["text"]
    watched.page.wait_for_timeout(600)
    assert watched.page.evaluate(STATE)["text"] == stopped
    watched.assert_quiet()


@pytest.mark.parametrize("view", ["model", "head", "neuron", "generation"])
def test_dark_notebooks_get_dark_views(open_page, open_view, view):
    ground = "getComputedStyle(document.body).backgroundColor"
    ink = "getComputedStyle(document.querySelector('#caption p')).color"
    _, watched = open_view(open_page, view, scheme="dark")
    assert watched.page.evaluate(ground) == "rgb(17, 17, 17)"
    light_ink = watched.page.evaluate(ink)
    watched.page.emulate_media(color_scheme="light")
    watched.page.wait_for_selector("html[data-theme=light]", state="attached")
    assert watched.page.evaluate(ground) == "rgb(255, 255, 255)"
    assert watched.page.evaluate(ink) != light_ink
    assert len(watched.page.query_selector_all("#stage > *")) <= 2, "drawn again, not twice"
    watched.assert_quiet()


@pytest.mark.parametrize("view", ["model", "head", "neuron", "generation"])
def test_nothing_is_cut_off_in_a_narrow_cell(open_page, open_view, view):
    _, watched = open_view(open_page, view, width=420)
    if view == "neuron":
        watched.page.locator("#collapsed #leftText > g").nth(3).hover()
        watched.page.locator("#collapsed #leftText > g").nth(3).locator("rect").last.click()
        watched.page.wait_for_timeout(50)
    reach = watched.page.evaluate(
        """() => { const main = document.querySelector('main');
            const right = Math.max(...[...main.querySelectorAll('text, rect, button, select, .token')]
                .filter(e => getComputedStyle(e).visibility !== 'hidden').map(e => e.getBoundingClientRect().right));
            return [document.documentElement.scrollWidth, main.scrollWidth, right + main.scrollLeft]; }"""
    )
    assert reach[0] <= 420, "the page itself does not overflow; what is wider scrolls inside it"
    assert reach[2] <= reach[1] + 1


def test_views_in_one_page_do_not_meet(open_page, open_view, tmp_path):
    """What a notebook does: several cells' HTML in one document. Frames grow to their views; pictures give way."""
    shown = [open_view(open_page, view)[0] for view in ("neuron", "neuron")]
    cells = "".join(view._repr_html_() for view in shown)
    (tmp_path / "notebook.html").write_text(
        f'<meta charset="utf-8"><link rel="icon" href="data:,"><body data-jp-theme-light="false">{cells}',
        encoding="utf-8",
    )
    watched = open_page(tmp_path / "notebook.html")
    frames = [handle.content_frame() for handle in watched.page.query_selector_all("iframe")]
    for frame in frames:
        frame.wait_for_selector("html[data-drawn][data-theme=dark]", state="attached")
    frames[0].select_option("#layer", "0")
    assert [frame.input_value("#layer") for frame in frames] == ["0", "1"]
    heights = watched.page.eval_on_selector_all("iframe", "all => all.map(f => f.offsetHeight)")
    inside = [frame.evaluate("document.documentElement.scrollHeight") for frame in frames]
    assert all(outer >= inner for outer, inner in zip(heights, inside, strict=True))
    assert not any(image.is_visible() for image in watched.page.query_selector_all("img"))
    watched.assert_quiet()


def test_export_works_where_scripts_may_not_evaluate_strings(open_page, open_view, tmp_path):
    """VS Code's webview allows inline scripts and no `eval`."""
    view, _ = open_view(open_page, "head")
    policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
    (tmp_path / "strict.html").write_text(
        f'<meta charset="utf-8"><link rel="icon" href="data:,">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">{view._repr_html_()}',
        encoding="utf-8",
    )
    watched = open_page(tmp_path / "strict.html")
    frame = watched.page.query_selector("iframe").content_frame()
    frame.wait_for_selector("#attention line", state="attached")
    watched.assert_quiet()
