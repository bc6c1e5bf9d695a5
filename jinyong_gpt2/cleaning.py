"""Characters, noise lines and quotes of a novel's text, before and after it is cut into paragraphs.

Everything that is dropped or replaced is told to a `Tally`, so that a report can show it: nothing goes silently.
"""

from __future__ import annotations

import functools
import html
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass, field

MISSING = "□"  # the one sign for a glyph that is not there
SAMPLES = 5  # lines kept as samples of each rule


@dataclass
class Tally:
    """What was dropped or replaced, by rule: how many times, and a few samples."""

    counts: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, rule: str, sample: str, count: int = 1) -> None:
        if count:
            self.counts[rule] += count
            kept = self.samples.setdefault(rule, [])
            if len(kept) < SAMPLES:
                kept.append(sample.strip()[:60])


# ---------------------------------------------------------------------------------------------------------------------
# Characters of the whole text

CJK = "㐀-䶿一-鿿豈-﫿𠀀-𳿿〇□○"
_BREAK = re.compile(r"\r+\n|\r|\x0b|\x0c|\x1c|\x1d|\x1e|\x85|\u2028|\u2029")
_CONTROL = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff]"
)
_ENTITY = re.compile(r"&(?:#[0-9]{2,7}|#[xX][0-9A-Fa-f]{2,6}|[A-Za-z]{2,8});")
_BREAKING_TAG = re.compile(
    r"<\s*/?\s*(?:(?:font|span|a|b|i|u|img|table|t[dr]|center|strong|em|title|meta|link|html|head|body)\b[^<>]{0,300}|"
    r"[A-Za-z!][^<>\u3400-\u9fff]{0,200})>",
    re.IGNORECASE,
)
_SCRIPT_TAG = re.compile(r"<\s*(script|style)\b.*?<\s*/\s*\1\s*>", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<\s*/?\s*[A-Za-z!][^<>\u3400-\u9fff]{0,200}>")
_COMPATIBLE = re.compile("[\u2f00-\u2fd5\uf900-\ufad9\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]")
_PRIVATE = re.compile("[\ue000-\uf8ff\U000f0000-\U0010ffff]")
# A glyph that a font or a codec did not have, and signs that stand in its place: squares, kana, Greek, Cyrillic, lines.
_STAND_IN = re.compile(
    "[\ufffd■囗◇◆▲△▼▽●◎★☆¤§¨\u0370-\u03ff\u0400-\u04ff\u2160-\u217f\u2190-\u22ff\u2474-\u24ff"
    "\u2501-\u25a0\u2640-\u2642\u3041-\u30fa\u3105-\u312f\u02c0-\u02ff\u0100-\u02af\u3220-\u33ff]"
)
_DESCRIBED = re.compile(
    rf"【[^】\n]{{0,30}}(?:左|右|上|下|旁)[「」\w，、\s]{{0,20}}】|[〔（(\[]\w?[↑→＋+]\w[↓←]?[〕）)\]]|"
    rf"[\[［〔][{CJK}]{{2}}[\]］〕]|[（(][氵扌亻犭忄辶钅饣礻衤讠灬疒][{CJK}]{{1,2}}[）)]"
)
# Halves of characters that never stand alone: what follows is the other half.
_HALF = re.compile(rf"[氵扌亻犭忄辶纟钅饣礻衤讠冫刂灬疒阝艹][{CJK}]")
_ASSEMBLED = {"氵㸒": "淫", "口迷": "咪", "女爾": "嬭", "彳亍": "彳亍"}
_LOOKALIKE = str.maketrans(
    "ㄚㄠㄈ﹔﹑﹐︰∶､｡﹖﹗﹕﹝﹞‧・•｢｣\t\xa0\u2002\u2003\u2009∼─━―⋯‥",
    "丫么匸；、，：：、。？！：〔〕···「」  \x20\u3000 ～———……",
)


def normalise(text: str, tally: Tally) -> str:
    """One kind of line end, entities and tags resolved, compatibility forms unified, missing glyphs as □."""
    text = _BREAK.sub("\n", text)
    if "<" in text:
        text = _SCRIPT_TAG.sub("\n", text)
        text, broken = _BREAKING_TAG.subn("\n", text)
        text, plain = _TAG.subn("", text)
        tally.add("tags", "<…>", broken + plain)
    if "&" in text:
        text, entities = _ENTITY.subn(_entity, text)
        tally.add("entities", "&…;", entities)
    text = _CONTROL.sub("", text).translate(_LOOKALIKE)
    text = _COMPATIBLE.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)
    text = _replace(_PRIVATE, text, _private, "private use", tally)
    return text


def repair_glyphs(text: str, tally: Tally) -> str:
    """Private-use, described, halved and otherwise absent characters: put right where known, else □."""
    text = _replace(_DESCRIBED, text, _described, "described glyphs", tally)
    text = _replace(_HALF, text, lambda found: _ASSEMBLED.get(found[0], MISSING), "split characters", tally)
    return _replace(_STAND_IN, text, lambda found: MISSING, "missing glyphs", tally)


def _replace(pattern: re.Pattern[str], text: str, put, rule: str, tally: Tally) -> str:
    first = pattern.search(text)
    if first is None:
        return text
    text, count = pattern.subn(put, text)
    tally.add(rule, first.string[max(first.start() - 8, 0) : first.end() + 8].replace("\n", " "), count)
    return text


def _entity(found: re.Match[str]) -> str:
    character = html.unescape(found[0])
    if character == found[0] or not character.strip() or "\ud800" <= character <= "\udfff":
        return " " if character.isspace() else found[0]
    return character


def _private(found: re.Match[str]) -> str:
    # GBK's row FE kept these characters in U+E815…E864 until Unicode had them; GB18030 now gives their code points.
    place = ord(found[0]) - 0xE815
    if 0 <= place <= 0x4F:
        trail = 0x50 + place
        character = bytes([0xFE, trail + (trail >= 0x7F)]).decode("gb18030", "replace")
        if not _PRIVATE.match(character):
            return character
    return MISSING


def _described(found: re.Match[str]) -> str:
    inside = found[0][1:-1]
    if len(inside) == 2 and found[0][0] in "[［〔":
        # [犭票] is a glyph in two halves, [宗保] two characters that an editor added.
        return _ASSEMBLED.get(inside, MISSING if inside[0] in "氵扌亻犭忄辶火口女木金石虫魚馬竹糸言足目耳" else inside)
    return MISSING


# ---------------------------------------------------------------------------------------------------------------------
# Lines that are not the novel

_NUMBER = r"[0-9０-９]"
_END = '[。！？!?」』”"…]$'
NOISE: dict[str, re.Pattern[str]] = {
    "ruled lines": re.compile(r"^[\s\-=~_*#+.·…—－＝～＿＊＃＋．|\\/※☆★◆◇○●■□△▲§]{3,}$"),
    "web addresses": re.compile(
        r"https?:|www[.．。]|[\w.-]+@[\w.-]+\.\w|[A-Za-z0-9-]{2,}[.．](?:com|net|org|cn|tw|cc|info|me)\b|^\s*E-?mail\b",
        re.IGNORECASE,
    ),
    "file makers": re.compile(
        r"本[书書](?:来自|來自|由)|24\s*小[时時]|(?:TXT|txt|[电電]子[书書]|小[说說]|[书書][库庫]|[论論][坛壇]|文[库庫])[^。！？]{0,24}"
        r"(?:整理|下[载載]|收集|制作|製作|合集|提供|[发發]布|精校|[为為]您)|"
        r"(?:整理|收集|制作|製作|掃描|扫描|掃瞄|校[对對]|[录錄]入|排版|轉貼|转贴|精校|OCR)\s*(?:[:：]|者|版|完[毕畢]?|$)|"
        r"^\W*(?:声明|聲明)\W|(?:版[权權]|[权權]利)[归歸]|[仅僅]供\S{0,6}(?:[预預][览覽]|[试試][读讀]|交流|[阅閱][读讀])|16k|"
        r"更多\S{0,12}(?:小[说說]|[电電]子[书書]|好[书書])|[请請]\S{0,6}(?:购[买買]|購買)正版|[书書][库庫]\S{0,4}收集|早安[电電]子[书書]|^\W*(?:全文|全[书書])\S{0,4}(?:下[载載]|[阅閱][读讀])",
        re.IGNORECASE,
    ),
    "descriptions of the file": re.compile(
        r"^\W*(?:[书書]名|作者|男女主角|[男女]主角|主角|配角|系列名?|[简簡]介|[内內]容[简簡]介|出版社?|[类類][别別型]|字[数數]|更新[时時][间間]|"
        r"出版日期|出版[时時][间間]|ISBN|[来來]源|排版|校[对對]|封面|定[价價]|[标標][签籤]|本章字[数數]|文案|[译譯]者|[书書]籍介[绍紹])\s*[:：]",
        re.IGNORECASE,
    ),
    "page scripts": re.compile(
        r"^\W*(?:\w+\([^()\u3400-\u9fff]*\)\s*;?\s*)+$|document\.|javascript:|^\s*(?:var|function)\s", re.IGNORECASE
    ),
    "ends of files": re.compile(
        r"^\W*(?:全[书書文]?\s*完|完|終|终|全[书書]?[終终]|本[书書][完終终]|待[续續]|未完待[续續]|[（(]完[）)]|"
        r"THE END|END|章[節节][内內]容[开開]始|返回目[录錄]|上一[页頁章]|下一[页頁章]|目[录錄]\s*\W*[返回]*)\W*$",
        re.IGNORECASE,
    ),
    "editors' notes": re.compile(
        r"^\s*[1-9①-⑳〔\[【（(]{1,2}[0-9０-９]{0,2}[〕\]】）)]?\s*[^。]{1,40}[：:—].{0,200}(?:注|註)[。）)\s]*$"
    ),
}
# A rule may only drop a short line: a paragraph of the novel that happens to hold the words stays.
_LONGEST_NOISE = {"ruled lines": 500, "web addresses": 120, "file makers": 80, "descriptions of the file": 400,
                  "page scripts": 300, "ends of files": 14, "editors' notes": 260}  # fmt: skip
_ADDRESS = re.compile(r"(?:https?://|www[.．])[A-Za-z0-9./?=&%_\-．]+", re.IGNORECASE)


def noise_rule(line: str) -> str | None:
    """The rule by which a line is not the novel, or None."""
    stripped = line.strip()
    if not stripped:
        return None
    for rule, pattern in NOISE.items():
        if len(stripped) <= _LONGEST_NOISE[rule] and pattern.search(stripped):
            if rule == "file makers" and re.search(_END, stripped) and not re.search(r"[A-Za-z0-9☆※★]", stripped):
                continue  # 「…整理。」 is a sentence of the novel
            return rule
    return None


def drop_noise(lines: list[str], tally: Tally) -> list[str]:
    """The lines without those that are noise; addresses inside long lines are cut out."""
    kept = []
    for line in lines:
        rule = noise_rule(line)
        if rule is not None:
            tally.add(rule, line)
            kept.append("")
            continue
        if "www" in line or "http" in line:
            line, count = _ADDRESS.subn("", line)
            tally.add("web addresses", "inside a paragraph", count)
        kept.append(line)
    return kept


# ---------------------------------------------------------------------------------------------------------------------
# Text that some earlier hand decoded wrongly

GARBLED = 0.3  # share of uncommon characters above which a sentence may be no language
_SENTENCES = re.compile("[^。！？」]*[。！？」]*")


@functools.cache
def _common_characters() -> frozenset[str]:
    """The first levels of Big5 (1984; 5,401 characters) and GB 2312 (1980; 3,755), punctuation and ASCII."""
    big5 = (bytes([a, b]) for a in range(0xA1, 0xC7) for b in (*range(0x40, 0x7F), *range(0xA1, 0xFF)))
    gb2312 = (bytes([a, b]) for a in (*range(0xA1, 0xA4), *range(0xB0, 0xD8)) for b in range(0xA1, 0xFF))
    both = {c.decode("big5", "ignore") for c in big5} | {c.decode("gb2312", "ignore") for c in gb2312}
    return frozenset(both | {chr(i) for i in range(0x20, 0x7F)} | set("「」『』□"))


def drop_garbled(paragraph: str, tally: Tally) -> str:
    """A paragraph without sentences that are mojibake: a third of it uncommon characters, two at least in no standard.

    (踉踉蹌蹌 and 贔屭 are uncommon, too, but Big5 has them.)
    """
    common = _common_characters()
    if len(paragraph) - sum(map(common.__contains__, paragraph)) < 4:
        return paragraph
    kept = []
    for sentence in _SENTENCES.findall(paragraph):
        rare = [c for c in sentence if c not in common]
        if len(rare) > GARBLED * len(sentence) and sum(not _in_a_standard(c) for c in rare) >= 2 and len(sentence) >= 8:
            tally.add("garbled sentences", sentence)
        else:
            kept.append(sentence)
    return "".join(kept)


def _in_a_standard(character: str) -> bool:
    for encoding in ("big5", "gb2312"):
        try:
            character.encode(encoding)
        except UnicodeEncodeError:
            continue
        return True
    return False


# ---------------------------------------------------------------------------------------------------------------------
# Punctuation and quotes of a paragraph

_HAN = rf"[{CJK}，。！？；：、…—「」『』《》（）～·]"
_ASCII_POINTS = str.maketrans({",": "，", ";": "；", ":": "：", "?": "？", "!": "！", "(": "（", ")": "）", "~": "～"})
_POINT_BESIDE_HAN = re.compile(rf"(?<={_HAN})[,;:?!()~]+|[,;:?!()~]+(?={_HAN})")
_STOP_AFTER_HAN = re.compile(rf"(?<=[{CJK}])\.(?![.\w])")
_LOST = re.compile(rf"(?<={_HAN})(?:\?\?)+(?=[{CJK}])|(?<=[{CJK}])[@#$^&*_|{{}}\\％＃＆＊＿｜＼￥]+(?=[{CJK}，。])")
_ELLIPSIS = re.compile(r"…+|\.{3,}|。{3,}|．{3,}")
_DASH = re.compile(rf"[—－﹣]{{2,}}|-{{2,}}|(?<={_HAN})[—－](?={_HAN})")
_NUMERAL_DASH = re.compile(r"(?<=[十百])[—－─](?=[^—－─])")
_REPEATED = re.compile(r"([，。、；：！？])\1+")
_BRACKETED = re.compile(r"[〔［\[]([^〔〕［］\[\]\n]{1,80})[〕］\]]")
_SPACES_HAN = re.compile(rf"(?<={_HAN})[ \u3000]+|[ \u3000]+(?={_HAN})")
_SPACES = re.compile(r"[ \u3000]{2,}")
_QUOTES = str.maketrans("“”‘’〝〞＂″„＇`´′﹁﹂﹃﹄«»", "「」『』" + '"' * 5 + "'" * 4 + "「」『』「」")
_FOOTNOTE = re.compile(rf"(?<=[{CJK}「」』》，。！？])[1-9①-⑳](?=[{CJK}」』，。！？；：、…]|$)")
_BEFORE_CLOSE = re.compile(rf"(?<=[{CJK}])[1-9](?=」)")
_CORRUPT = re.compile(rf"(?<=[{CJK}])[1／](?=[{CJK}]|$)")
_MEASURES = (
    "個天日年月歲次人名位里點分秒時號斤兩萬千百十億元塊隻條層樓度米步尺丈寸遍回章頁倍頭匹輛件種樣句字聲杯碗"
    "个岁点时号两万亿块只条层楼页头辆种样声"
)
_LONE = re.compile(rf"(?<=[{CJK}「」『』》，。！？：；、])[1-9](?=[{CJK}「」『』，。！？：；、…]|$)", re.MULTILINE)
_COUNTING = re.compile(rf"(?<=第)[1-9](?!\d)|(?<=[{CJK}「『，。！？：；、])[1-9](?=[{_MEASURES}])")
_SPEAKS = "：:"


def counts_in_digits(text: str) -> bool:
    """Whether a novel's lone digits are its own (等了3天), and not footnote marks or what a codec made of others."""
    return 2 * sum(1 for _ in _COUNTING.finditer(text)) > sum(1 for _ in _LONE.finditer(text))


def tidy(paragraph: str, tally: Tally, digits: bool = False) -> str:
    """Punctuation of one paragraph in full-width form, spaces between characters gone, quotes as 「」『』.

    With `digits` lone digits stay (`counts_in_digits`).
    """
    text = _NUMERAL_DASH.sub("一", drop_garbled(paragraph, tally))
    text = _ELLIPSIS.sub("……", text)
    text = _replace(_LOST, text, lambda found: MISSING, "missing glyphs", tally)
    text = _DASH.sub("——", text)
    text = _SPACES_HAN.sub(_space, text)
    text = _SPACES.sub(" ", text).strip(" \u3000")
    text = _POINT_BESIDE_HAN.sub(lambda found: found[0].translate(_ASCII_POINTS), text)
    text = _STOP_AFTER_HAN.sub("。", text)
    text = _REPEATED.sub(r"\1", text)
    text = _replace(_BRACKETED, text, _bracketed, "editors' brackets", tally)
    text = text.translate(_QUOTES)
    if not digits:
        text = corrupted_ends(text, tally)
    return align_quotes(text, tally)


def _space(found: re.Match[str]) -> str:
    # U+3000 between two characters divides halves of a verse or a title; any other space beside one means nothing.
    text, start, end = found.string, found.start(), found.end()
    inside = start > 0 and end < len(text)
    if (
        inside
        and "\u3000" in found[0]
        and all("\u3400" <= c <= "\U0003ffff" and c < "\uff00" for c in text[start - 1] + text[end])
    ):
        return "\u3000"
    return ""


def _bracketed(found: re.Match[str]) -> str:
    # 〔道〕 is a character that an editor supplied; 〔亮鍾：天將亮的時分。〕 is a note.
    inside = found[1]
    return inside if len(inside) <= 8 and not re.search("[：:。注註]|^音", inside) else ""


def corrupted_ends(text: str, tally: Tally) -> str:
    """`！」` that a codec made 1 or ／ is put back where a quote is open; other lone digits are footnote marks."""
    if _BEFORE_CLOSE.search(text):
        text = _replace(_BEFORE_CLOSE, text, lambda found: "！" if found[0] == "1" else "？", "corrupted ！」", tally)
    if not _CORRUPT.search(text) and not _FOOTNOTE.search(text):
        return text
    if text.count("「") > text.count("」"):
        pieces, last = [], 0
        for found in _CORRUPT.finditer(text):
            before = text[: found.start()]
            if before.rfind("「") > before.rfind("」"):
                closing = text.find("」", found.end())
                opening = text.find("「", found.end())
                if closing < 0 or 0 <= opening < closing:
                    tally.add("corrupted ！」", text[max(found.start() - 8, 0) : found.end() + 8])
                    pieces += [text[last : found.start()], "！」"]
                    last = found.end()
        text = "".join(pieces) + text[last:]
    return _replace(_FOOTNOTE, text, lambda found: "", "footnote marks", tally)


def align_quotes(text: str, tally: Tally) -> str:
    """Which of the quotes open and which close, where the text does not say (`"`) or says it wrongly (`道：」`).

    A quote after a colon opens and one that ends the paragraph closes; from these on, quotes alternate both ways.
    """
    if "'" in text:
        text = _alternate(text, "'", "『", "』")
    if '"' in text:
        text = _alternate(text, '"「」', "「", "」")
    elif "：」" in text or text.endswith("「"):
        aligned = _alternate(text, "「」", "「", "」")
        if _misplaced(aligned) < _misplaced(text):
            tally.add("reversed quotes", text[max(text.find("：」") - 12, 0) :][:30])
            text = aligned
    return text


_MISPLACED = re.compile("：」|「$|[。！？]「(?!.{0,12}[：」])|「[^」]*(?=「)|」[^「]*(?=」)")


def _misplaced(text: str) -> int:
    """How many quotes stand where they cannot: closing after a colon, opening at an end, twice the same in a row."""
    return len(_MISPLACED.findall(text))


def _alternate(text: str, marks: str, opening: str, closing: str, inside: bool = False) -> str:
    """`text` with its quotes set; `inside` tells that the paragraph before left one open, so that the first closes."""
    places = [
        i
        for i, c in enumerate(text)
        # An apostrophe between Latin letters is no quote.
        if c in marks and not (c == "'" and text[i - 1 : i].isascii() and text[i - 1 : i].isalpha())
    ]
    kinds: list[bool | None] = [None] * len(places)  # True: opens
    for n, i in enumerate(places):
        if i and text[i - 1] in _SPEAKS:
            kinds[n] = True
        elif i == len(text) - 1 and i:
            kinds[n] = False
    if inside and kinds and kinds[0] is None:
        kinds[0] = False
    first = next((n for n, kind in enumerate(kinds) if kind is not None), None)
    if first is None:
        first = 0
        if places:
            # Nothing tells: a quote that begins the paragraph, or begins a sentence's first words, opens.
            kinds[0] = True
    for n in range(first - 1, -1, -1):
        kinds[n] = not kinds[n + 1]
    for n in range(first + 1, len(kinds)):
        if kinds[n] is None:
            kinds[n] = not kinds[n - 1]
    characters = list(text)
    for i, opens in zip(places, kinds, strict=True):
        characters[i] = opening if opens else closing
    return "".join(characters)


def join_quotations(paragraphs: list[str], tally: Tally) -> list[str]:
    """Quotes that a paragraph left open: closed by the next one's first quote, which may stand the wrong way round.

    A closing quote that begins a paragraph goes back to the end of the one before. An opening quote after a full stop,
    where a quotation is still open, closes it: `「…有賞。「眾軍聞令` is `「…有賞。」眾軍聞令`.
    """
    joined: list[str] = []
    for paragraph in paragraphs:
        inside = bool(joined) and joined[-1].count("「") > joined[-1].count("」")
        first = paragraph.find("「")
        if inside and first > 0 and paragraph[first - 1] in "。！？…" and not 0 <= paragraph.find("」") < first:
            aligned = _alternate(paragraph, "「」", "「", "」", inside=True)
            if _misplaced(aligned) < _misplaced(paragraph):
                tally.add("reversed quotes", paragraph[max(first - 12, 0) : first + 12])
                paragraph = aligned
        elif inside and first == 0 and paragraph.count("「") > paragraph.count("」"):
            # `「說著，…`: a closing quote at the start of a line. A speech's further paragraph opens anew, but then
            # reads on as speech; narrative has its own quotations after the first mark.
            aligned = _alternate(paragraph, "「」", "「", "」", inside=True)
            if _misplaced(aligned) < _misplaced(paragraph):
                tally.add("reversed quotes", paragraph[:24])
                paragraph = aligned
        stripped = paragraph.lstrip("」』")
        marks = paragraph[: len(paragraph) - len(stripped)]
        if marks and joined and (inside or joined[-1].count("『") > joined[-1].count("』")):
            joined[-1] += marks
            paragraph = stripped
        if paragraph:
            joined.append(paragraph)
    return joined
