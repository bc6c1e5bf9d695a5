"""Simplified or traditional: which script a text is in, and conversion that does not break names.

OpenCC's s2tw turns 余滄海 into 餘滄海 and 岳不群 into 嶽不群. Here the names of `novels` are put back at their places
(conversion keeps every character in its place), and 岳 and 范 are changed only inside words that want it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Collection
from dataclasses import dataclass

from jinyong_gpt2.novels import CONVERSION_EXCEPTIONS, NOT_BEFORE_NAME, NOVELS

SCRIPTS = ("traditional", "simplified", "as_found")

# Common characters that only one of the scripts has, in pairs.
_PAIRS = (
    "这這说說来來时時们們过過国國对對会會没沒还還见見问問听聽头頭马馬门門长長东東气氣为為两兩爷爺请請让讓书書"
    "师師军軍将將声聲剑劍龙龍飞飛"
)
_SIMPLIFIED, _TRADITIONAL = _PAIRS[::2], _PAIRS[1::2]

# 岳 and 范 are names unless they stand in these words.
_RIDGE = re.compile("(?:[五山东西南北中河海嵩泰衡恒四东]岳|岳镇|岳渎|岳庙)")
_PATTERN = re.compile(
    "(?:规范|模范|示范|典范|防范|风范|师范|就范|轨范|懿范|闺范|范围|范例|范本|范畴|范式|仪范|洪范|垂范)"
)

# Pairs of variants a prompt may hold either of; used where OpenCC is absent and for what it leaves alone.
_VARIANTS = (
    "峯峰 裏裡里 羣群 衆眾 牀床 喫吃 爲為 啓啟 線綫 麪麵 祕秘 鵰雕 着著 綉繡 卧臥 鈎鉤 痴癡 台臺 烟煙 粧妝 庄莊 "
    "蹟跡 迹跡 閑閒 污汙 嘆歎 决決 况況 凉涼 凑湊 减減 准準 谿溪 溪谿 鷄雞 踪蹤 僞偽 囘回 廻迴 靑青 淸清 温溫 虚虛 "
    "録錄 産產 説說 内內 吴吳 吕呂 户戶 黄黃 愠慍 鎭鎮 尙尚 册冊 遙遥 强強 别別 脚腳 却卻 叙敘 你妳"
)


def detect_script(text: str) -> str:
    """'simplified' or 'traditional', by which script's own common characters there are more of.

    Where there are none (a title), by characters that Big5 does not have.
    """
    head = text[:200_000]
    simplified = sum(map(head.count, _SIMPLIFIED))
    traditional = sum(map(head.count, _TRADITIONAL))
    if simplified == traditional:
        simplified += any("\u4e00" <= c <= "\u9fff" and not _in_big5(c) for c in head[:100])
    return "simplified" if simplified > traditional else "traditional"


def convert(text: str, script: str, found: str | None = None) -> str:
    """`text` in `script` ('traditional', 'simplified' or 'as_found'); as many characters as before.

    `found` is the script it is in, if known. Traditional text that is to be traditional has only its variants unified
    (峯 → 峰, 裏 → 裡, as s2tw writes them) and stray simplified characters replaced that Big5 does not have.
    Raises ValueError for another script.
    """
    if script not in SCRIPTS:
        raise ValueError(f"script must be one of {', '.join(SCRIPTS)}, not {script!r}")
    if script == "as_found" or not text:
        return text
    found = found or detect_script(text)
    if script == "simplified":
        return _by_line(text, _converter("tw2s").convert)
    if found == "simplified":
        text = _by_line(text, _to_traditional)
    return text.translate({ord(c): to for c in set(text) if (to := _unified(c)) != c})


def _by_line(text: str, change) -> str:
    """`change` line by line; a line whose length it alters is changed character by character instead."""
    lines = text.split("\n")
    changed = [change(line) for line in lines]
    for i, (line, new) in enumerate(zip(lines, changed, strict=True)):
        if len(line) != len(new):
            changed[i] = "".join(to if len(to := change(c)) == 1 else c for c in line)
    return "\n".join(changed)


def _to_traditional(line: str) -> str:
    changed = _names_kept(line)
    if len(changed) != len(line):
        return changed
    characters = list(changed)
    pattern, names = name_exceptions()
    for found in pattern.finditer(line):
        characters[found.start() : found.end()] = names[found[0]]
    return "".join(characters)


def _names_kept(line: str) -> str:
    """s2tw, but 岳 and 范 changed only inside words that want it."""
    changed = _converter("s2tw").convert(line)
    if len(changed) != len(line):
        return changed
    for character, words in (("岳", _RIDGE), ("范", _PATTERN)):
        if character in line:
            wanted = {i for found in words.finditer(line) for i in range(*found.span())}
            changed = "".join(
                old if old == character and i not in wanted else new
                for i, (old, new) in enumerate(zip(line, changed, strict=True))
            )
    return changed


@functools.cache
def _converter(configuration: str):
    try:
        import opencc
    except ImportError as error:
        raise ImportError("converting between scripts needs OpenCC: pip install opencc") from error
    return opencc.OpenCC(configuration)


@functools.cache
def name_exceptions() -> tuple[re.Pattern[str], dict[str, str]]:
    """Names in simplified script that s2tw gets wrong → the names as they should be, and a pattern that finds them."""
    simplify = _converter("t2s").convert
    names = {name for facts in NOVELS for name in (*facts.people, facts.title)} | set(CONVERSION_EXCEPTIONS)
    pairs = {simplify(name): "".join(map(_unified, name)) for name in sorted(names)}
    pairs |= {facts.simplified: facts.title for facts in NOVELS}
    wrong = {simple: name for simple, name in pairs.items() if _names_kept(simple) != name and len(simple) == len(name)}
    found = [
        (f"(?<![{NOT_BEFORE_NAME[name[0]]}])" if name[0] in NOT_BEFORE_NAME else "") + re.escape(name)
        for name in sorted(wrong, key=len, reverse=True)
    ]
    first = "".join(sorted({name[0] for name in wrong}))  # told at a glance, before any name is tried
    return re.compile(f"(?=[{first}])(?:{'|'.join(found)})"), wrong


@functools.cache
def simplified_names() -> dict[str, str]:
    """Main characters' names → the same in simplified script."""
    simplify = _converter("t2s").convert
    return {name: simplify(name) for facts in NOVELS for name in facts.people}


@functools.cache
def _unified(character: str) -> str:
    """A character of traditional text as Taiwan writes it: variants unified, stray simplified ones converted."""
    if not "\u3400" <= character <= "\U0003ffff" or "\uff00" <= character <= "\uffff":
        return character
    unified = _converter("t2tw").convert(character)
    if unified == character and not _in_big5(character):
        unified = _converter("s2tw").convert(character)
        if not _in_big5(unified):
            return next((v for v in _variants().get(character, ()) if _in_big5(v)), character)
    return unified if len(unified) == 1 else character


def _in_big5(character: str) -> bool:
    try:
        character.encode("big5")
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Change:
    """One character of a prompt that was replaced by one that the model knows; `place` counts from 0."""

    place: int
    found: str
    used: str

    def __str__(self) -> str:
        return f"{self.found}→{self.used}"


def match_script(text: str, known_characters: Collection[str]) -> tuple[str, list[Change]]:
    """A prompt in the characters that a model knows, and what was changed for that.

    A text in the other script is converted whole (so that 后来 becomes 後來), names with care; then single characters
    that are still unknown take a variant that is known (峯 or 峰, 裏 or 裡). The text keeps its length; characters
    that have no known form stay as they are. Without OpenCC only the variants are matched.

        >>> match_script("乔峯带阿朱", set("喬峰帶阿朱"))
        ('喬峰帶阿朱', [乔→喬, 峯→峰, 带→帶])
    """
    known = known_characters if isinstance(known_characters, (set, frozenset, dict)) else set(known_characters)
    candidates = [text]
    if any(c not in known for c in text):
        try:
            candidates += [convert(text, "traditional", "simplified"), convert(text, "traditional", "traditional")]
            candidates += [convert(text, "simplified")]
        except ImportError:
            pass
    candidates = [_known_variants(candidate, known) for candidate in candidates if len(candidate) == len(text)]
    # max takes the first of equals: the text itself, where conversion gains nothing.
    best = max(candidates, key=lambda candidate: sum(c in known for c in candidate))
    matched = "".join(new if new in known else old for old, new in zip(text, best, strict=True))
    changes = [Change(i, a, b) for i, (a, b) in enumerate(zip(text, matched, strict=True)) if a != b]
    return matched, changes


def _known_variants(text: str, known: Collection[str]) -> str:
    return "".join(c if c in known else next((v for v in _variants().get(c, ()) if v in known), c) for c in text)


@functools.cache
def _variants() -> dict[str, tuple[str, ...]]:
    table: dict[str, tuple[str, ...]] = {}
    for group in _VARIANTS.split():
        for character in group:
            table[character] = table.get(character, ()) + tuple(c for c in group if c != character)
    return table
