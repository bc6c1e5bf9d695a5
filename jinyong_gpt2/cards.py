"""The model card of a checkpoint: what it is, what it read, how it was made, how good it is, how to open it.

A card is the README.md of a Hugging Face folder. Everything in it is what the run recorded in `training.json`; of the
corpus it names the titles and quotes nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinyong_gpt2.model import trained_positions

if TYPE_CHECKING:
    from transformers import PretrainedConfig

TITLES = 40  # named in a card; of more works the rest is counted


def model_card(
    training: dict[str, Any],
    shape: PretrainedConfig,
    *,
    title: str | None = None,
    license: str | None = None,
    about: str = "",
    data: str | None = None,
    commands: str | None = None,
    measured: str | None = None,
    closing: str = "",
) -> str:
    """The card of a checkpoint in Markdown, from its `training.json` and the shape of its model.

    A release says more than a run knows: `title`, `license`, `about` (after the first line), `data` (instead of the
    list of titles), `commands` (instead of the run's own), `measured` (instead of the run's own measure), `closing`
    (sections at the end).
    """
    gpt2 = shape.model_type == "gpt2"
    head = ["language: zh"] + ([f"license: {license}"] if license else [])
    head += ["library_name: transformers", "pipeline_tag: text-generation"] if gpt2 else []
    head = "\n".join(head)
    corpus, config = training["corpus"], training["config"]
    count = corpus.get("characters", corpus["tokens"])
    return f"""---
{head}
---

# {title or Path(config["output_dir"]).name}

{f"{_shape(shape, training['parameters'])} {about}".rstrip()}

## Data

{data or _titles(corpus.get("titles", []))} There are {count["train"]:,} characters to train on; {count["heldout"]:,} in
whole chapters were held out. SHA-256 of the prepared tokens: `{corpus["hash"]}`.

Each work has a control token, `<|its title|>`, first in its windows; {config["generic_share"]:.0%} of the windows carry
the generic `<|endoftext|>` instead.

## Training

{training["step"]:,} of {config["max_steps"]:,} steps; {_seen(training)}.
Every setting is in `training.json`.

```
{commands or training.get("command", "")}
```

## Held-out bits per character

{measured or _measured(training)}

## How to open it

{_OPEN_GPT2 if gpt2 else _OPEN_LSTM}{closing}"""


def _shape(shape: PretrainedConfig, parameters: int) -> str:
    rest = f"{parameters:,} parameters, context {trained_positions(shape):,}, vocabulary {shape.vocab_size:,}."
    if shape.model_type == "gpt2":
        return f"A character-level GPT-2 of {shape.n_layer} layers × {shape.n_head} heads × {shape.n_embd}, {rest}"
    return f"A character-level LSTM, embedding {shape.n_embd}, {shape.n_layer} × {shape.n_units:,} units, {rest}"


def _titles(titles: list[str]) -> str:
    named = "".join(f"《{title}》" for title in titles[:TITLES])
    more = f" and {len(titles) - TITLES} more" if len(titles) > TITLES else ""
    return f"{named}{more}." if titles else ""


def _seen(training: dict[str, Any]) -> str:
    before = training.get("characters_seen_before")
    start = f", after the {before:,} of the checkpoint it began from" if before else ""
    return f"{training['characters_seen']:,} characters seen{start}"


def _measured(training: dict[str, Any]) -> str:
    here, best = training.get("heldout_bits_per_char"), training["best_heldout_bits_per_char"]
    if best is None:
        return "Not measured."
    if here is None or here == best:
        return f"{best:.3f}{'' if here == best else ', the best of the run so far'}."
    return f"{here:.3f} here; {best:.3f}, the best of the run so far."


_OPEN_GPT2 = """With plain transformers; what it is to continue comes after a control token:

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "the folder of this file"
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
inputs = tokenizer("<|endoftext|>他說：「", return_tensors="pt")
ids = model.generate(**inputs, max_new_tokens=100, do_sample=True, top_p=0.9)
print(tokenizer.decode(ids[0], skip_special_tokens=True))
```

With the project that trained it:

```python
from jinyong_gpt2 import Writer

writer = Writer.from_pretrained("the folder of this file")
print(writer.generate("他說：「", max_new_tokens=100)[0].text)
```
"""

_OPEN_LSTM = """It is a baseline, and opened with the project that trained it:

```python
from jinyong_gpt2.baselines import open_model

model = open_model("the folder of this file")
```
"""
