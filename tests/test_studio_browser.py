"""The studio in a real JupyterLab 4 and as a page of Voila: type, write, branch, go back, reload, find it all again."""

from __future__ import annotations

import pytest
import torch

from jinyong_gpt2.history import HistoryFile
from jinyong_gpt2.model import new_model
from jinyong_gpt2.tokenizer import build_tokenizer, save_tokenizer

pytest_plugins = ["browser", "lab_server"]

CONTEXT = "風雪夜，他獨自上山，沒有人送他。"
STUDIO = """
from jinyong_gpt2.studio import Studio
from jinyong_gpt2.writer import Writer

studio = Studio(Writer.from_pretrained("model", dtype="float32"), path="{}.json")
studio
"""
LONG = """
print(len(studio.history.versions))
if len(studio.history.versions) == 2:  # not when the notebook is run from the top
    studio.desk.write("風", settings=dict(max_new_tokens=200_000))
"""


@pytest.fixture(scope="module")
def checkpoint(lab):
    """A tiny checkpoint beside the notebooks."""
    tokenizer = build_tokenizer([CONTEXT], titles=["雪嶺刀"], min_count=1)
    torch.manual_seed(0)
    model = new_model("testing", tokenizer)
    with torch.no_grad():
        model.transformer.wte.weight[:257] *= 0.01  # few bytes: most tokens are characters
    model.save_pretrained(lab.folder / "model")
    save_tokenizer(tokenizer, lab.folder / "model")


def settled(page, versions, current):
    """Wait until so many versions are there, one is shown, and nothing is being written."""
    shown = f'.jy-studio:not(.jy-busy) .jy-tree li:nth-child({current})[aria-selected="true"]'
    page.wait_for_selector(shown)
    page.wait_for_function(
        f"document.querySelectorAll('.jy-tree li').length === {versions}"
        f" && document.querySelectorAll('.jy-written')[0].childElementCount > 10",
    )


def written(page):
    return page.locator(".jy-written").all_inner_texts()


def press(page, label):
    """Press a button of the panel; a character on a card may have the same name."""
    page.locator(f"button.jupyter-button:text-is('{label}')").click()


def write(page, context):
    """Type a context and write from it."""
    page.wait_for_selector(".jy-studio .jy-empty")
    page.get_by_label("開頭").fill(context)
    press(page, "寫")


def restart_kernel(page, lab, name):
    """Start the kernel of a notebook anew, as another window would."""
    sessions = page.request.get(f"{lab.url}api/sessions").json()
    (kernel,) = [session["kernel"]["id"] for session in sessions if session["path"] == name]
    token = next(cookie["value"] for cookie in page.context.cookies() if cookie["name"] == "_xsrf")
    assert page.request.post(f"{lab.url}api/kernels/{kernel}/restart", headers={"X-XSRFToken": token}).ok


def test_the_studio_in_jupyterlab(open_page, lab, checkpoint):
    lab.save_notebook("studio.ipynb", [STUDIO.format("lab"), LONG])
    watched = lab.open(open_page, "studio.ipynb", width=1300, height=1400)
    page = watched.page
    lab.run_all(watched)
    write(page, CONTEXT)
    settled(page, 1, 1)
    first = written(page)
    assert len(first) == 3 and len(set(first)) == 3
    assert page.locator(".jy-prompt").all_inner_texts() == [CONTEXT] * 3

    # By keyboard: to the third character, into its pop-up, branch; and no key was the notebook's.
    cells = page.locator(".jp-Notebook .jp-Cell").count()
    page.locator('.jy-written > [tabindex="0"]').first.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowUp", "Home", "ArrowRight", "ArrowRight", "x", "d", "d"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.place") == 2
    page.wait_for_selector(".jy-pop:popover-open >> text=機率")
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.closest('.jy-pop')")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.place") == 2 and not page.locator(".jy-pop").is_visible()
    page.keyboard.press("Enter")
    page.wait_for_function("document.activeElement.closest('.jy-pop')")
    chosen = page.evaluate("document.activeElement.firstChild.textContent")
    page.keyboard.press("Enter")
    settled(page, 2, 2)
    second = written(page)
    assert page.evaluate("document.activeElement.place") == 2  # and on from there
    kept = list(first[0])[:2]
    assert all(list(text)[:2] == kept for text in second)
    assert all("⏎" if list(text)[2] == "\n" else list(text)[2] == chosen for text in second)
    assert page.locator(".jp-Notebook .jp-Cell").count() == cells

    # Another cell starts a long text, and while it is being written the panel heeds its buttons.
    page.locator(".jp-Notebook .jp-Cell .cm-content").nth(1).click()
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".jy-studio.jy-busy .jy-written span")
    assert page.locator(".jy-line").first.inner_text() == "正在寫……"
    press(page, "停")
    settled(page, 3, 3)
    assert len(written(page)[0]) < 100_000

    press(page, "復原")
    settled(page, 3, 2)
    assert written(page) == second
    press(page, "復原")
    settled(page, 3, 1)
    assert written(page) == first
    page.locator(".jy-tree li").nth(1).click()
    settled(page, 3, 2)
    page.locator(".jy-card").nth(1).get_by_role("button", name="釘選").click()
    page.wait_for_selector(".jy-card.jy-pinned")
    page.keyboard.press("Control+s")  # as ever, from wherever one is
    lab.saved(watched, "studio.ipynb")

    # The page is loaded anew: the kernel still has it all.
    page.goto(f"{lab.url}lab/tree/studio.ipynb?reset")
    settled(page, 3, 2)
    assert written(page) == second and page.locator(".jy-card.jy-pinned").count() == 1
    page.wait_for_function("text => document.querySelector('.widget-textarea textarea')?.value === text", arg=CONTEXT)

    # The kernel is started anew: the file still has it all.
    restart_kernel(page, lab, "studio.ipynb")
    page.goto(f"{lab.url}lab/tree/studio.ipynb?reset")
    page.wait_for_selector(".jp-Notebook .jp-Cell")
    lab.run_all(watched)
    settled(page, 3, 2)
    assert written(page) == second and page.locator(".jy-card.jy-pinned").count() == 1
    page.wait_for_function("text => document.querySelector('.widget-textarea textarea')?.value === text", arg=CONTEXT)
    assert not watched.requests, f"requests leave the page: {watched.requests}"


def test_the_studio_as_a_page_of_voila(open_page, lab, checkpoint):
    pytest.importorskip("voila")
    lab.save_notebook("page.ipynb", [STUDIO.format("voila")])
    watched = open_page(f"{lab.url}api", width=400, height=900, scheme="dark")
    page = watched.page
    page.goto(f"{lab.url}voila/render/page.ipynb")
    write(page, CONTEXT + "<b onmouseover=alert(1)>&amp;")
    settled(page, 1, 1)
    first = written(page)
    assert page.locator(".jy-prompt").first.inner_text() == CONTEXT + "<b onmouseover=alert(1)>&amp;"

    # By pointer: the pop-up opens over a character, and another character is chosen in it.
    page.locator(".jy-written > span").nth(3).hover()
    page.locator(".jy-pop button:enabled >> nth=0").click()
    settled(page, 2, 2)
    assert [text[:3] for text in written(page)] == [first[0][:3]] * 3
    press(page, "復原")
    settled(page, 2, 1)

    # Nothing is wider than a narrow window, and it is dark where the page is.
    edges = page.locator(".jy-studio *").evaluate_all("all => all.map(one => one.getBoundingClientRect().right)")
    assert max(edges) <= 400

    page.reload()  # in Voila a kernel of its own for each visit
    settled(page, 2, 1)
    assert written(page) == first
    assert len(HistoryFile(lab.folder / "voila.json").read().versions) == 2
    # Voila's own template asks for a set of icons and for MathJax; the studio needs neither.
    outside = [url for url in watched.requests if "/fontawesome-free@" not in url and "/mathjax/" not in url]
    assert not outside, f"requests leave the page: {outside}"
