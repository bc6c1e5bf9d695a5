"""A folder of novels in every state that files are found in."""

from __future__ import annotations

import codecs
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jinyong_gpt2.corpus import coverage, find_files, load_corpus, sentence_starts
from jinyong_gpt2.holdout import audit, hold_out
from jinyong_gpt2.overlap import Shingles, copied_shares
from jinyong_gpt2.reading import Chapter, Novel, Report, read_novel, title_of_file
from jinyong_gpt2.script import convert
from jinyong_gpt2.text_files import decode
from jinyong_gpt2.tokenizer import build_tokenizer

ROOT = Path(__file__).parents[1]

# An original tale, long enough for statistics: paragraphs of narrative and of dialogue in both kinds of quotes.
PARAGRAPHS = [
    "雪下了三天三夜，山道上連一隻鳥也看不見。沈七把斗笠壓低，沿著舊驛道慢慢走，腰間那柄短刀早已凍在鞘裡，拔也拔不出來。",
    "客店的燈還亮著。他推開門，滿屋子的人都回過頭來看他，有人笑了一聲，又低頭喝酒去了。",
    "「店家，可有熱湯？」沈七拍掉肩上的雪，說道：「再來半斤牛肉，一壺燒酒。」",
    "掌櫃的陪笑道：「客官來得不巧，牛肉賣完了，只剩下兩個饅頭。」",
    "角落裡一個老者忽然開口：「小兄弟，過來同坐罷。這樣的天氣，一個人喝酒未免太冷清了些。」他聲音沙啞，卻字字清楚，"
    "好像在每個人耳邊說話一般，滿屋子的喧鬧登時靜了下來。",
    "沈七走過去坐下，只見桌上擺著一副殘局，黑子已被圍得水洩不通，只在右下角還留著一口氣。",
    "老者笑道：「你看這一局，還有救沒有？古人說『置之死地而後生』，依你看是真是假？」",
    "沈七沉吟半晌，拈起一枚黑子，輕輕放在自己的禁入點上。滿屋子懂棋的人都叫了起來！",
    "那老者看了良久，長長歎了一口氣，把棋盤一推，起身便走；走到門口，才回頭說了一句：「明年此日，我在江邊等你。」",
]
NUMERALS = "一二三四五六七八九十"


def tale(chapters: int = 6) -> list[tuple[str, list[str]]]:
    """Chapters with titles; every one has sentences of its own."""
    tales = []
    for n in range(chapters):
        manor = "甲乙丙丁戊己庚辛壬癸"[n % 10] * 3
        own = f"這是第{NUMERALS[n % 10]}段故事，{manor}山莊的人一直記到今天，說起來還要歎氣。"
        shift = n % len(PARAGRAPHS)
        body = PARAGRAPHS[shift:] + PARAGRAPHS[:shift]
        tales.append((f"第{NUMERALS[n % 10]}回\u3000風雪{'春夏秋冬東西南北中外'[n % 10]}行", [own, *body]))
    return tales


def plain(chapters: list[tuple[str, list[str]]], indent: str = "\u3000\u3000", end: str = "\n") -> str:
    return end.join(end.join([title, *(indent + p for p in paragraphs)]) for title, paragraphs in chapters) + end


def expected(chapters: list[tuple[str, list[str]]]) -> list[tuple[str, str]]:
    return [(title, "\n".join(paragraphs)) for title, paragraphs in chapters]


def read(text: str | bytes, name: str = "風雪夜行.txt", **options) -> Novel:
    data = text if isinstance(text, bytes) else text.encode("utf-8")
    return read_novel(data, name, **options)[0]


def chapters_of(novel: Novel) -> list[tuple[str, str]]:
    return [(chapter.title, chapter.text) for chapter in novel.chapters]


# ---------------------------------------------------------------------------------------------------------------------
# Encodings and line ends


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "gb18030", "gbk", "cp950", "big5hkscs"]
)
def test_the_same_novel_comes_out_of_every_encoding(encoding):
    novel = read(plain(tale()).encode(encoding))
    assert chapters_of(novel) == expected(tale())
    assert novel.report.invalid == 0


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "gb2312"])
def test_simplified_novels_come_out_in_traditional_script(encoding):
    simple = convert(plain(tale()), "simplified")
    novel = read(simple.encode(encoding, "ignore"))
    assert novel.report.script_found == "simplified"
    # What two scripts write differently may not come back the same (歎 and 嘆); nearly all does.
    got, want = novel.text, "\n".join(f"{t}\n{p}" for t, p in expected(tale()))
    assert len(got) == len(want)
    assert sum(a != b for a, b in zip(got, want, strict=True)) < 0.01 * len(want)


def test_big5_is_not_taken_for_gb18030_which_also_decodes_it():
    data = plain(tale()).encode("cp950")
    data.decode("gb18030")  # no error: that is the trap
    assert read(data).report.encoding == "cp950"


def test_hkscs_characters_are_read_where_cp950_has_none():
    text = plain(
        [(t, [*p, "他說「嘅」，又說「咗」，再說「喺」，同「嚟」、「啲」、「㗎」、「冚」。"]) for t, p in tale()]
    )
    assert read(text.encode("big5hkscs")).report.encoding == "big5hkscs"
    assert "咗" in read(text.encode("big5hkscs")).text


def test_bytes_that_are_no_text_are_counted_and_never_fatal():
    data = bytearray(plain(tale()).encode("gb18030"))
    for place in (301, 901, 1501):
        data[place] = 0xFF
    novel = read(bytes(data))
    assert novel.report.encoding == "gb18030" and 1 <= novel.report.invalid <= 6
    assert any("not valid gb18030" in w for w in novel.report.warnings)
    assert "\ufffd" not in novel.text and len(novel.chapters) == 6


def test_a_utf8_file_with_one_broken_byte_stays_utf8():
    data = bytearray(plain(tale()).encode("utf-8"))
    data[700] = 0xFF
    assert read(bytes(data)).report.encoding == "utf-8"


@pytest.mark.parametrize("end", ["\r\n", "\r\r\n", "\r", "\u2028", "\x0b"])
def test_line_ends_of_all_kinds_are_one_kind(end):
    assert chapters_of(read(plain(tale(), end=end))) == expected(tale())


def test_dos_end_marks_and_tabs_vanish():
    text = plain(tale(), indent="\t") + "\x1a"
    assert chapters_of(read(text)) == expected(tale())


@given(st.binary(max_size=400))
def test_any_bytes_load(data):
    novel = read(data)
    assert isinstance(novel.text, str)
    novel.text.encode("utf-8", "surrogatepass")


@given(st.binary(max_size=120), st.sampled_from([codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b""]))
def test_bytes_after_a_byte_order_mark_load(data, mark):
    assert isinstance(read(mark + data, script="as_found").text, str)
    assert isinstance(read(mark + "第一回\n".encode() + data, keep_extras=True).text, str)


def test_a_program_called_txt_is_left_out_and_alone_is_one_clear_line(tmp_path):
    Path(tmp_path / "program.txt").write_bytes(Path(sys.executable).read_bytes()[:200_000])
    with pytest.raises(ValueError, match=r"program\.txt \(left out: it is no text file\)"):
        load_corpus(tmp_path)
    (tmp_path / "甲.txt").write_text("第一回　夜雨\n" + "夜雨打在窗上，他放下書，聽了一會。\n" * 20, encoding="utf-8")
    corpus = load_corpus(tmp_path)
    assert corpus.titles == ["甲"] and "no text file" in corpus.report_table()


# ---------------------------------------------------------------------------------------------------------------------
# Wrapping


def wrapped(chapters, width: int, first: str = "", rest: str = "", between: str = "\n", gap: str = "\n") -> str:
    """Hard-wrapped: `first` indents a paragraph's first line, `rest` the others; `between` joins visual lines."""
    blocks = []
    for title, paragraphs in chapters:
        lines = [title]
        for p in paragraphs:
            pieces = [p[i : i + width] for i in range(0, len(p), width)]
            lines.append(between.join((rest if i else first) + piece for i, piece in enumerate(pieces)))
        blocks.append(gap.join(lines))
    return gap.join(blocks) + "\n"


@pytest.mark.parametrize(
    ("width", "first", "rest", "between", "gap"),
    [
        (25, "", "", "\n", "\n"),  # no indent
        (31, "\u3000\u3000", "\u3000\u3000", "\n", "\n"),  # every line indented
        (36, "    ", "", "\n", "\n"),  # only the first line indented
        (36, "         ", "", "\n", "\n"),
        (28, "", "", "\n", "\n\n"),  # a blank line between paragraphs
        (25, "", "", "\n\n", "\n\n"),  # a blank line between all visual lines
        (27, "\u3000\u3000", "", "\n\n", "\n\n"),
    ],
)
def test_hard_wrapped_text_becomes_paragraphs_again(width, first, rest, between, gap):
    # A paragraph whose last line happens to be full cannot be told from a wrap: such ones get a word more.
    chapters = [
        (t, [p if 0 < len(p) % width < width - 5 else p[:-1] + "，一言不發，轉身便走" + p[-1] for p in ps])
        for t, ps in tale(8)
    ]
    novel = read(wrapped(chapters, width, first, rest, between, gap))
    assert novel.report.layout.startswith("wrapped"), novel.report.layout
    assert chapters_of(novel) == expected(chapters)


@pytest.mark.parametrize("indent", ["", "    ", "         ", "\u3000\u3000", "    \u3000\u3000", "\t"])
def test_unwrapped_text_stays_as_it_is(indent):
    novel = read(plain(tale(), indent))
    assert novel.report.layout == "one paragraph a line"
    assert chapters_of(novel) == expected(tale())


def test_a_whole_chapter_on_one_line_is_one_paragraph():
    chapters = [(title, ["".join(paragraphs) * 20]) for title, paragraphs in tale(3)]
    assert chapters_of(read(plain(chapters))) == expected(chapters)


def test_verse_is_not_unwrapped():
    verse = ["雪壓孤峰月欲沉，", "寒燈照壁夜何深。", "江湖十載歸無計，", "一劍飄零萬里心。"] * 12
    chapters = [(title, verse) for title, _ in tale(2)]
    assert read(plain(chapters)).chapters[0].text == "\n".join(verse)


# ---------------------------------------------------------------------------------------------------------------------
# Headings


HEADINGS = {
    "wide spaces": lambda n: f"第{NUMERALS[n]}回　　雪夜{n}行    刀光劍影",
    "no space": lambda n: f"第{NUMERALS[n]}章大雪滿弓刀",
    "digits": lambda n: f"第{n + 1:03d}回 雪夜訪客",
    "indented": lambda n: f"　　第{NUMERALS[n]}回　雪夜訪客",
    "volume before": lambda n: f"第一集　第{NUMERALS[n]}章　雪夜訪客",
    "in brackets": lambda n: f"【第{NUMERALS[n]}回 雪夜訪客】",
    "number in brackets": lambda n: f"【第{NUMERALS[n]}回】雪夜訪客",
    "between rules": lambda n: f"==========\n第{NUMERALS[n]}回 雪夜訪客\n==========",
    "bare numeral and title": lambda n: f"{NUMERALS[n]}　雪夜訪客",
    "bare numeral": lambda n: NUMERALS[n],
    "volume 卷": lambda n: f"卷{NUMERALS[n]}　雪夜訪客",
    "title on the next line": lambda n: f"第{NUMERALS[n]}回\n　　雪夜訪客　風雪歸人",
    "the word 回 converted": lambda n: f"第{NUMERALS[n]}迴 雪夜訪客",
}


@pytest.mark.parametrize("form", HEADINGS)
def test_headings_are_found_in_every_form(form):
    chapters = [(HEADINGS[form](n), paragraphs) for n, (_, paragraphs) in enumerate(tale(8))]
    novel = read(plain(chapters))
    assert [chapter.number for chapter in novel.chapters] == list(range(1, 9))
    assert [c.text for c in novel.chapters] == ["\n".join(paragraphs) for _, paragraphs in chapters]
    assert not novel.report.missing_chapters


def test_headings_are_written_one_way():
    text = "".join(f"第{n}回　　風雪    歸人\n　　{PARAGRAPHS[0]}{n}。\n" for n in ("廿一", "022", "二三"))
    titles = [chapter.title for chapter in read(text).chapters]
    assert titles == [f"第二十{n}回\u3000風雪\u3000歸人" for n in "一二三"]


@pytest.mark.parametrize(
    "line",
    [
        "一回頭，只見雪地裡站著一個人，正冷冷地看著他。",
        "一部好書，不過如此。",
        "第四集的插圖畫得很好。",
        "第二回合還沒有開始，那人已經倒在地上了。",
        "第三，這件事你不能說出去。",
        "第五章程上寫得明明白白，誰也賴不掉。",
        "十回之中，倒有九回是他贏。",
    ],
)
def test_sentences_are_not_taken_for_headings(line):
    chapters = [(title, [*paragraphs, line]) for title, paragraphs in tale()]
    assert chapters_of(read(plain(chapters))) == expected(chapters)


def test_heading_and_body_on_one_line_are_parted():
    body = "話說那一年的雪下得特別大，" + "".join(PARAGRAPHS)
    chapters = tale()
    chapters[2] = ("第三回　雪夜訪客來　江邊故人去" + body, chapters[2][1])
    third = read(plain(chapters)).chapters[2]
    assert third.title == "第三回\u3000雪夜訪客來\u3000江邊故人去"
    assert third.text.startswith(body)


def test_a_chapter_in_parts_is_one_chapter():
    one, two = tale(2)
    text = plain([(one[0] + "(1)", one[1][:5]), (one[0] + "(2)", one[1][5:]), two])
    assert chapters_of(read(text)) == expected([one, two])


def test_a_repeated_heading_is_one_heading():
    text = "".join(f"{title}\n{plain([(title, body)])}" for title, body in tale())
    assert chapters_of(read(text)) == expected(tale())


def test_tables_of_contents_are_dropped_and_told():
    titles = [title for title, _ in tale(8)]
    for contents in (
        "\n".join(titles),
        "\n".join(f"{a}        {b}" for a, b in zip(titles[::2], titles[1::2], strict=True)),
    ):
        novel = read(f"目　錄\n{contents}\n\n{plain(tale(8))}")
        assert chapters_of(novel) == expected(tale(8))
        assert novel.report.dropped.counts["table of contents"] == 8 or novel.report.extras


def test_missing_chapter_numbers_are_named():
    novel = read(plain([chapter for n, chapter in enumerate(tale(9)) if n not in (3, 4, 6)]))
    assert novel.report.missing_chapters == [4, 5, 7]
    assert any("no chapter 4–5, 7" in warning for warning in novel.report.warnings)


def test_prefaces_afterwords_and_appendices_go_unless_kept():
    preface = "書名\n序\n　　這本書寫了三年，謝謝大家。\n　　是為序。\n"
    text = f"{preface}{plain(tale())}後記\n　　終於寫完了，真不容易。\n附錄\n　　大事年表。\n"
    novel = read(text)
    assert chapters_of(novel) == expected(tale())
    assert sum(novel.report.extras.values()) > 20
    kept = read(text, keep_extras=True)
    assert [c.title for c in kept.chapters if not c.story] == ["序", "後記"]
    assert "大事年表" in kept.text and "謝謝大家" in kept.text


def test_prologue_and_epilogue_belong_to_the_novel():
    epilogue = ["江水還是一樣地流，沒有人記得那一年的雪。" + p for p in PARAGRAPHS] * 2
    chapters = [("楔子", PARAGRAPHS), *tale(), ("尾聲\u3000江上", epilogue)]
    assert chapters_of(read(plain(chapters))) == expected(chapters)


def test_editors_notes_after_a_chapter_are_dropped():
    notes = "註釋：\n　　驛道——古時傳遞文書的大路。\n　　禁入點——圍棋用語。\n"
    text = "".join(plain([chapter]) + notes for chapter in tale())
    novel = read(text)
    assert chapters_of(novel) == expected(tale())
    assert novel.report.dropped.counts["editors' notes"] == 18


def test_a_file_without_headings_is_one_chapter():
    novel = read("\n".join(PARAGRAPHS), "雪夜.txt")
    assert chapters_of(novel) == [("雪夜", "\n".join(PARAGRAPHS))]


# ---------------------------------------------------------------------------------------------------------------------
# Noise, characters and quotes


NOISE_LINES = [
    "本书来自www.example.com 免费txt小说下载站",
    "ＴＸＴ合集网独家整理",
    "☆早安电子书☆",
    "※声明：本电子书仅供交流，请在下载后24小时内删除※",
    "豆豆书库收集整理",
    "更多精彩好书，請訪問１６ｋ小說網",
    "书名：风雪夜行",
    "男女主角：沈七，老者",
    "系列名：江湖",
    "-----------------------------------",
    "~~~~~~~~~~",
    "==========",
    "zj_waps2();",
    "someone@example.com",
    "（全书完）",
    "返回目录",
]


@pytest.mark.parametrize("noise", NOISE_LINES)
def test_noise_is_dropped_and_shown(noise):
    chapters = tale()
    text = noise + "\n" + plain(chapters[:3]) + noise + "\n" + plain(chapters[3:]) + noise + "\n"
    novel = read(text)
    assert chapters_of(novel) == expected(chapters)
    dropped = novel.report.dropped
    assert sum(dropped.counts.values()) >= 3 and any(dropped.samples.values())


@pytest.mark.parametrize(
    "sentence",
    [
        "次日一早，他便動手整理。",
        "兩人坐在船頭，把書稿一頁一頁地整理、校對。",
        "他說：「作者是誰，我也不知道。」",
        "聲明在先，輸了可不許哭。",
    ],
)
def test_sentences_with_words_of_noise_stay(sentence):
    chapters = [(title, [*paragraphs, sentence]) for title, paragraphs in tale()]
    assert chapters_of(read(plain(chapters))) == expected(chapters)


def one_paragraph(text: str, **options) -> str:
    """What becomes of one paragraph among others."""
    chapters = [(title, [*paragraphs[:3], text, *paragraphs[3:]]) for title, paragraphs in tale(3)]
    return read(plain(chapters), **options).chapters[1].text.split("\n")[3]


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ("他練的是&#28892;火掌&#8212;&#8212;你怕不怕？", "他練的是烈火掌——你怕不怕？".replace("烈", chr(28892))),
        ("他笑了&hellip;&hellip;又哭了。", "他笑了……又哭了。"),
        ("<FONT face=宋体>他走了。</FONT>", "他走了。"),
        ("他道：“你來。”", "他道：「你來。」"),
        ("他道：“古人說‘有志者事竟成’，你忘了？”", "他道：「古人說『有志者事竟成』，你忘了？」"),
        ('他道:"你來."又道:"快走!"', "他道：「你來。」又道：「快走！」"),
        ('"你是誰?"那人問.', "「你是誰？」那人問。"),
        ("他道：」你來。「又道：」快走！「", "他道：「你來。」又道：「快走！」"),
        ("﹁你來﹂，他說。", "「你來」，他說。"),
        ("他走了。。。", "他走了……"),
        ("他走了...又回來，，坐下。。", "他走了……又回來，坐下。"),
        ("他大叫!!!", "他大叫！"),
        ("他走 了 過 去，坐 下。", "他走了過去，坐下。"),
        ("他叫道——快走——便去了。", "他叫道——快走——便去了。"),
        ("他叫道──快走－－便去了。", "他叫道——快走——便去了。"),
        ("那氵㸒賊逃了。", "那淫賊逃了。"),
        ("他抱〔著〕孩子走了。", "他抱著孩子走了。"),
        ("等到亮鐘〔亮鐘：天將亮的時分，打五更鐘。〕才走。", "等到亮鐘才走。"),
        ("他訪一??姓柳的朋友。", "他訪一□姓柳的朋友。"),
        ("貌似\ue000而心善。", "貌似□而心善。"),
        ("秋水\ue862鹈。", "秋水䴙鵜。"),
        ("他姓■，名囗。", "他姓□，名□。"),
        ("那[犭票]悍之徒。", "那□悍之徒。"),
        ("他手持ＡＢＣ３把刀。", "他手持ABC3把刀。"),
        ("他這人\u200b好\ufeff得很。", "他這人好得很。"),
        ("他名叫⼦龍，是個好漢。", "他名叫子龍，是個好漢。"),
    ],
)
def test_characters_and_quotes_are_put_right(found, wanted):
    assert one_paragraph(found) == wanted


def test_a_corrupted_end_of_speech_is_a_closing_quote_again():
    assert one_paragraph("他道：「快走１說著便去了。") == "他道：「快走！」說著便去了。"
    assert one_paragraph("他便是江南大俠１，人人都認得。") == "他便是江南大俠，人人都認得。"


@pytest.mark.parametrize("sentence", [
    "他等了3天，又走了5里路，第2天才到。", "死了9人。", "他道：「我要1個，你要2個。」",
])  # fmt: skip
def test_a_novel_that_counts_in_digits_keeps_them(sentence):
    assert one_paragraph(sentence) == sentence
    full_width = sentence.translate({ord(digit): ord(digit) + 0xFEE0 for digit in "123456789"})
    assert one_paragraph(full_width) == sentence


def test_one_counted_digit_among_footnote_marks_changes_nothing():
    assert one_paragraph("他中了秀士1，鄉里人眼淺2，看見1人來了3。") == "他中了秀士，鄉里人眼淺，看見人來了。"


def test_a_closing_quote_on_the_next_line_returns_to_its_speech():
    text = read(plain([(t, ["他道：「你若要走，", "」便不必再回來。", *p]) for t, p in tale(3)])).chapters[0].text
    assert text.startswith("他道：「你若要走，」\n便不必再回來。")


def test_mojibake_is_dropped_but_rare_words_stay():
    garbage = "俁𤇢梦棺㖞鬧𢓭𩄍瘛𡘾釾𡚒𤩺裱煅！"
    novel = read(plain([(t, [*p, "他說了一句。" + garbage]) for t, p in tale(3)]))
    assert novel.chapters[0].text.endswith("他說了一句。")
    assert novel.report.dropped.counts["garbled sentences"] == 3
    assert one_paragraph("他踉踉蹌蹌跌入寺裡來，只見饕餮、貔貅、狻猊、獬豸。").startswith(
        "他踉踉蹌蹌跌入寺裡來，只見饕餮"
    )


@given(st.text(alphabet="「」『』“”\"'：。他道你來\n", max_size=60))
def test_quotes_of_any_kind_end_as_corner_brackets(text):
    assert not set(read(text, script="as_found").text) & set("“”\"'")


# ---------------------------------------------------------------------------------------------------------------------
# The folder


def write(folder: Path, name: str, text: str, encoding: str = "utf-8") -> None:
    (folder / name).write_bytes(text.encode(encoding))


def test_suffixes_in_any_case_and_subfolders_are_read(tmp_path):
    (tmp_path / "more").mkdir()
    for n, name in enumerate(["甲.txt", "乙.TXT", "丙.Txt", "more/丁.txt"]):
        write(tmp_path, name, "\n".join(p.replace("沈七", "趙錢孫李"[n] * 2) + "甲乙丙丁"[n] * 30 for p in PARAGRAPHS))
    write(tmp_path, "notes.md", "no novel")
    corpus = load_corpus(tmp_path)
    assert set(corpus.titles) | {report.file[0] for report in corpus.skipped} == set("甲乙丙丁")


NUMBERED = [f"{n:02}" for n in range(1, 9)]


@pytest.mark.parametrize("parts", [NUMBERED, ["上", "下"], ["正文"], ["第一回 起", "第二回 承"]], ids=str)
def test_a_folder_for_each_novel_is_no_mixture_of_them(tmp_path, parts):
    chapters = {"天劍": unlike(1, 8), "地刀": unlike(2, 8)}
    for title, tale in chapters.items():
        (tmp_path / "我的書" / title).mkdir(parents=True)
        size = len(tale) // len(parts)
        for i, part in enumerate(parts):
            write(tmp_path / "我的書" / title, f"{part}.txt", plain(tale[i * size : (i + 1) * size]))
    corpus = load_corpus(tmp_path)
    assert sorted(corpus.titles) == ["地刀", "天劍"]
    for title, tale in chapters.items():
        assert [c.text for c in corpus.novel(title).chapters] == [text for _, text in expected(tale)]
        assert corpus.novel(title).report.file.startswith(f"我的書/{title}/{parts[0]}.txt")


def test_much_text_before_the_first_chapter_is_not_dropped_without_a_word():
    prologue = "\n".join(paragraphs[0] for _, paragraphs in unlike(3, 24))
    novel = read(prologue + "\n" + plain(unlike(1)))
    (warning,) = novel.report.warnings
    assert "before the first chapter were left out: --keep-extras" in warning
    assert len(read(prologue + "\n" + plain(unlike(1)), keep_extras=True).chapters) == len(novel.chapters) + 1
    assert not read(prologue[:200] + "\n" + plain(unlike(1))).report.warnings


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf16_without_a_mark_and_on_one_line_is_read(encoding):
    text = "".join(PARAGRAPHS)
    assert decode(text.encode(encoding)).text == text


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"PK\x03\x04" + b"mimetypeapplication/epub" * 9, "EPUB"), (b"%PDF-1.7 " + b"\xb5\xed" * 99, "PDF")],
)
def test_a_file_of_another_format_under_a_texts_name_is_told_and_left_out(tmp_path, content, kind):
    (tmp_path / "天劍.txt").write_bytes(content)
    write(tmp_path, "地刀.txt", plain(unlike(2)))
    corpus = load_corpus(tmp_path)
    assert corpus.titles == ["地刀"]
    assert kind in corpus.skipped[0].warnings[0] and "save it as text" in corpus.skipped[0].warnings[0]


def test_an_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"put novels there, or use data/sample"):
        load_corpus(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"put your novels there"):
        load_corpus(tmp_path / "absent")
    with pytest.raises(ValueError, match="traditional, simplified, as_found"):
        load_corpus(tmp_path, script="tradtional")


def unlike(seed: int, chapters: int = 24, size: int = 300) -> list[tuple[str, list[str]]]:
    """A tale of random characters, so that two share nothing."""
    import random

    draw = random.Random(seed)
    letters = "山水風雲日月星辰花草樹木金石火土春夏秋冬東西南北人心手足刀劍馬車舟橋酒茶詩書琴棋"

    def sentence() -> str:
        return "".join(draw.choices(letters, k=draw.randint(8, 30))) + "。"

    return [
        (f"第{n}回", ["".join(sentence() for _ in range(3)) for _ in range(size // 60)]) for n in range(1, chapters + 1)
    ]


def test_a_copy_of_a_novel_is_left_out_and_the_fuller_one_kept(tmp_path):
    chapters = unlike(1)
    write(tmp_path, "甲.txt", plain(chapters[:20]), "gb18030")
    write(tmp_path, "乙 (精校版).txt", plain(chapters))
    corpus = load_corpus(tmp_path)
    assert corpus.titles == ["乙"]
    assert "left out" in corpus.skipped[0].warnings[-1]


def test_volumes_of_a_novel_are_joined(tmp_path):
    chapters = unlike(2)
    write(tmp_path, "風雪錄(13-24回).txt", plain(chapters[12:]))
    write(tmp_path, "風雪錄(1-12回).txt", plain(chapters[:12]))
    corpus = load_corpus(tmp_path)
    assert corpus.titles == ["風雪錄"]
    assert [chapter.number for chapter in corpus.novels[0].chapters] == list(range(1, 25))
    assert not corpus.novels[0].report.warnings


def test_two_novels_of_one_title_are_joined_with_a_warning(tmp_path):
    for seed, folder in enumerate("xy"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, "俠.txt", plain(unlike(seed + 20, 8)))
    (novel,) = load_corpus(tmp_path).novels
    assert len(novel.chapters) == 16
    assert any("both count chapter 1: two novels?" in warning for warning in novel.report.warnings)


def test_a_novel_within_a_larger_file_without_headings_is_noticed(tmp_path):
    tales = [unlike(30 + n, 8) for n in range(6)]
    write(tmp_path, "甲.txt", plain(tales[0]))
    everything = "\n".join(paragraph for tale in tales for _, paragraphs in tale for paragraph in paragraphs)
    write(tmp_path, "合集.txt", everything)
    corpus = load_corpus(tmp_path)
    warnings = [warning for novel in corpus.novels for warning in novel.report.warnings]
    assert any("甲.txt" in warning and ("leave one" in warning or "shares" in warning) for warning in warnings)


def test_a_chapter_given_twice_is_kept_once():
    chapters = unlike(3)
    novel = read(plain([*chapters[:10], chapters[4], *chapters[10:]]))
    assert [chapter.number for chapter in novel.chapters] == list(range(1, 25))
    assert novel.report.dropped.counts["repeated chapters"] == 1


def test_other_text_under_the_same_number_stays():
    first, second = unlike(4, 5), unlike(5, 5)
    assert len(read(plain(first + second)).chapters) == 10


def test_worker_processes_give_the_same_corpus(tmp_path, monkeypatch):
    for n in range(3):
        write(tmp_path, f"書{n}.txt", plain(unlike(n)))
    alone = load_corpus(tmp_path, workers=1)
    monkeypatch.setattr("jinyong_gpt2.corpus.SERIAL_BELOW", 0)
    together = load_corpus(tmp_path, workers=2, progress=False)
    assert [n.text for n in together.novels] == [n.text for n in alone.novels]


def test_the_table_of_reports_names_every_file(tmp_path):
    write(tmp_path, "甲.txt", plain(unlike(1)))
    write(tmp_path, "乙.txt", "")
    table = load_corpus(tmp_path).report_table()
    assert "甲.txt" in table and "乙.txt" in table and "nothing left" in table


# ---------------------------------------------------------------------------------------------------------------------
# Holding out


def novel_of(title: str, count: int, seed: int) -> Novel:
    return Novel(title, [Chapter(t, "\n".join(p)) for t, p in unlike(seed, count)], Report(title))


def held(novels) -> set[tuple[str, str]]:
    return {(novel.title, chapter.title) for novel in novels for chapter in novel.chapters if chapter.heldout}


def test_held_out_chapters_do_not_move_when_a_novel_is_added():
    few = [novel_of("甲", 50, 1), novel_of("乙", 24, 2), novel_of("丙", 6, 3)]
    more = [novel_of("丁", 40, 4), novel_of("甲", 50, 1), novel_of("乙", 24, 2), novel_of("丙", 6, 3)]
    hold_out(few)
    hold_out(more)
    assert held(few) == {item for item in held(more) if item[0] != "丁"}
    assert len([item for item in held(few) if item[0] == "甲"]) == 1
    assert len([item for item in held(few) if item[0] == "乙"]) == 1


@pytest.mark.parametrize("source", ["traditional", "simplified"])
def test_the_same_chapters_are_held_out_in_either_script(tmp_path, source):
    tale = [(f"{title}　聽風閣夜戰飛龍劍之{i}", paragraphs) for i, (title, paragraphs) in enumerate(unlike(1, 60))]
    text = "".join(p + "這時說了幾句話，馬車來過。" for p in PARAGRAPHS) + "\n" + plain(tale)
    write(tmp_path, "聽風閣.txt", convert(text, source))
    kept = [
        [chapter.heldout for chapter in load_corpus(tmp_path, script).novels[0].chapters]
        for script in ("traditional", "simplified", "as_found")
    ]
    assert any(kept[0]) and kept[0] == kept[1] == kept[2]


def test_as_found_a_novel_in_both_scripts_is_one_novel(tmp_path):
    tale = [(title, [p.replace("人", "這個人說") for p in paragraphs]) for title, paragraphs in unlike(1)]
    write(tmp_path, "聽風閣.txt", plain(tale))
    write(tmp_path, "另一本.txt", convert(plain(tale[:20]), "simplified"))
    corpus = load_corpus(tmp_path, "as_found")
    assert corpus.titles == ["聽風閣"]
    assert [report.file for report in corpus.skipped] == ["另一本.txt"]


@pytest.mark.parametrize("script", ["traditional", "simplified", "as_found"])
@pytest.mark.parametrize("file", ["射雕英雄传.txt", "射鵰英雄傳.txt"])
def test_a_novel_is_found_by_its_title_in_either_script_and_by_its_aliases(tmp_path, script, file):
    text = convert(plain(unlike(1)), "simplified") if file[-5] == "传" else plain(unlike(1))
    write(tmp_path, file, text)
    write(tmp_path, "聽風閣.txt", plain(unlike(2)))
    corpus = load_corpus(tmp_path, script)
    for title in ("射鵰英雄傳", "射雕英雄传", "射鵰", "射雕", "大漠英雄傳"):
        assert corpus.novel(title).known_as == "射鵰英雄傳"
    for title in ("聽風閣", "听风阁"):
        assert corpus.novel(title).known_as == "聽風閣"


@pytest.mark.parametrize("source", ["traditional", "simplified"])
def test_a_novel_without_headings_is_known_by_its_title_in_either_script(tmp_path, source):
    write(tmp_path, "李後主.txt", convert(plain(unlike(1)).replace("第", "這"), source))
    known = [load_corpus(tmp_path, script).novels[0].chapters[0].known_as for script in ("traditional", "simplified")]
    assert known[0] == known[1]


def test_as_found_held_out_text_that_is_in_training_in_the_other_script_is_dropped(tmp_path):
    tale = [(title, [p.replace("人", "這個人說") for p in paragraphs]) for title, paragraphs in unlike(1, 60)]
    write(tmp_path, "聽風閣.txt", plain(tale))
    chapters = load_corpus(tmp_path, "as_found").novels[0].chapters
    leaked = next(chapter for chapter in chapters if chapter.heldout)
    other = unlike(2, 60)
    other[3][1].extend(leaked.text.split("\n"))
    write(tmp_path, "另一本.txt", convert(plain(other), "simplified"))
    corpus = load_corpus(tmp_path, "as_found")
    assert len(corpus.novels) == 2 and len(corpus.audit) == 1 and leaked.title in corpus.audit[0]


def test_about_two_percent_is_held_out():
    novels = [novel_of(f"書{n}", 100, n) for n in range(10)]
    hold_out(novels)
    assert len(held(novels)) == 20


def test_a_small_corpus_still_has_something_to_measure_on():
    novels = [novel_of("甲", 3, 1)]
    hold_out(novels)
    assert len(held(novels)) == 1
    alone = [novel_of("甲", 1, 1)]
    hold_out(alone)
    assert not held(alone), "a single chapter is for training"


def test_the_sample_tales_hold_a_chapter_out():
    corpus = load_corpus(ROOT / "data/sample")
    assert held(corpus.novels)
    assert not any(report.warnings for report in (novel.report for novel in corpus.novels))


def test_held_out_text_that_is_also_in_training_is_dropped():
    novel = novel_of("甲", 30, 1)
    novel.chapters[7].heldout = novel.chapters[9].heldout = True
    leaked = novel.chapters[3].text.split("\n")[0]
    novel.chapters[7].text += "\n" + leaked
    novel.chapters[9].text = novel.chapters[4].text
    lines = audit([novel])
    assert leaked not in novel.chapters[7].text and novel.chapters[7].heldout
    assert not novel.chapters[9].heldout, "a chapter that is all copied cannot be held out"
    assert len(lines) == 2 and str(len(leaked)) in lines[0]


def test_short_lines_of_a_copied_chapter_are_dropped_too():
    """Each alone is too short to tell; together they run on as the training text does."""
    novel = novel_of("甲", 30, 1)
    dialogue = [f"他道：「{''.join(chr(0x4E00 + 97 * i + 13 * j) for j in range(9))}。」" for i in range(40)]
    novel.chapters[3].text = "\n".join(dialogue)
    novel.chapters[7].heldout = novel.chapters[9].heldout = True
    own = novel.chapters[7].text
    novel.chapters[7].text = "\n".join([*dialogue[5:25], own])
    novel.chapters[9].text = "\n".join(dialogue[10:30])
    audit([novel])
    assert novel.chapters[7].text == own and novel.chapters[7].heldout
    assert not novel.chapters[9].heldout


@pytest.mark.parametrize("parts", [["甲乙", "", "，"], [], ["丙" * 30, "丁", "戊" * 5]])
def test_copied_shares_are_those_counted_by_hand(parts):
    text = "".join(parts)
    seen = Shingles.of_all(["丙" * 30 + "丁戊"])
    covered = np.zeros(len(text), bool)
    for start in range(len(text) - 23):
        if text[start : start + 24] in "丙" * 30 + "丁戊":
            covered[start : start + 24] = True
    places = np.cumsum([0, *map(len, parts)])
    expected = [covered[a:b].mean() if a < b else 0 for a, b in pairwise(places)]
    assert copied_shares(parts, seen) == pytest.approx(expected)


# ---------------------------------------------------------------------------------------------------------------------
# Contexts


@pytest.fixture(scope="module")
def sample():
    return load_corpus(ROOT / "data/sample")


def test_a_context_has_the_length_it_is_asked_for(sample):
    """Also where the cut would fall on a line's end."""
    for length in (1, 7, 100):
        assert {len(sample.sample_context(length=length, seed=seed)) for seed in range(400)} == {length}


def test_hidden_folders_are_not_read(tmp_path):
    """Jupyter keeps its own, older copies of edited files in one."""
    for folder in (".ipynb_checkpoints", "sub/.git", "sub"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "甲.txt").write_text("天", encoding="utf-8")
    assert find_files(tmp_path) == [tmp_path / "sub" / "甲.txt"]
    assert find_files(tmp_path / ".ipynb_checkpoints") == [tmp_path / ".ipynb_checkpoints" / "甲.txt"]


def test_a_context_begins_at_a_sentence_and_never_in_held_out_text(sample):
    held_out = [c.text for n in sample.novels for c in n.chapters if c.heldout]
    texts = [c.text for n in sample.novels for c in n.chapters if not c.heldout]
    for seed in range(60):
        context = sample.sample_context(length=50, seed=seed)
        assert 45 <= len(context) <= 50
        (home,) = [text for text in texts if context in text][:1]
        place = home.index(context)
        assert place == 0 or home[place - 1] in "。！？…」』\n"
        assert not any(context in text for text in held_out)
        assert sample.sample_context(length=50, seed=seed) == context
    assert sample.sample_context(length=50, seed=3, heldout=True) in "".join(held_out)


def test_contexts_come_from_the_novel_asked_for(sample):
    for novel in sample.novels:
        assert sample.sample_context(novel.title, 40, seed=1) in novel.text
    with pytest.raises(ValueError, match=r"no novel '天龍八部' in this corpus; it has: .*雪嶺刀"):
        sample.sample_context("天龍八部")
    with pytest.raises(ValueError, match="at least 1"):
        sample.sample_context(length=0)
    with pytest.raises(ValueError, match="no held-out chapter"):
        sample.sample_context(next(n.title for n in sample.novels if not held([n])), heldout=True)


def test_a_context_longer_than_any_chapter_is_as_long_as_it_can_be(sample):
    assert 500 < len(sample.sample_context(length=10**6, seed=0)) < 10**6


def test_sentences_inside_a_quotation_are_no_starts():
    text = "他來了。「你好。坐罷！」她說。外面下雪。"
    assert [text[i] for i in sentence_starts(text)] == ["他", "「", "她", "外"]


@given(st.text(alphabet="天地「」『』。！\n，", max_size=50))
def test_sentence_starts_are_places_in_the_text(text):
    starts = sentence_starts(text)
    assert starts == sorted(set(starts)) and all(0 <= i < len(text) for i in starts)


def test_coverage_counts_the_characters_without_a_token():
    tokenizer = build_tokenizer(["天地"], min_count=1)
    found = coverage("天地😀𠀀😀", tokenizer)
    assert (found.characters, found.fallback) == (5, 3)
    assert found.commonest[0] == ("😀", 2)
    assert "3 of 5" in str(found)


# ---------------------------------------------------------------------------------------------------------------------
# File names and the script


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("《說唐》作者：清·佚名.txt", "說唐"),
        ("《飛龍全傳》 吳璿 著.txt", "飛龍全傳"),
        ("乾隆游江南(萬年青).txt", "乾隆游江南"),
        ("紅樓夢_GBK.txt", "紅樓夢"),
        ("03.三俠五義.TXT", "三俠五義"),
        ("三寶太監西洋記(1-50回).txt", "三寶太監西洋記"),
        ("風雪夜行2.txt", "風雪夜行"),
        ("01風雪夜行.txt", "風雪夜行"),
        ("36計.txt", "36計"),
        ("1Q84.txt", "1Q84"),
        ("1984.txt", "1984"),
    ],
)
def test_a_title_is_read_off_the_file_name(name, title):
    assert title_of_file(name) == title


def test_a_title_is_converted_with_its_text():
    novel = read(convert(plain(tale()), "simplified"), "绣云阁.txt")
    assert novel.title == "繡雲閣"
    assert read(plain(tale()), "绣云阁.txt", script="simplified").title == "绣云阁"


def test_preparing_twice_gives_the_same_bytes(tmp_path):
    command = [sys.executable, str(ROOT / "scripts/prepare_corpus.py"), str(ROOT / "data/sample"), "--out"]
    for out in ("a", "b"):
        done = subprocess.run([*command, str(tmp_path / out)], capture_output=True, text=True, cwd=ROOT, check=True)
        assert "雪嶺刀.txt" in done.stdout and "fall back to bytes" in done.stdout
    files = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert "manifest.json" in files and not [name for name in files if name.endswith(".part")]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_preparing_a_folder_without_novels_is_one_clear_line(tmp_path):
    command = [sys.executable, str(ROOT / "scripts/prepare_corpus.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "no .txt files" in done.stderr
