"""Facts about the fourteen novels and 越女劍: titles, aliases, sizes, main characters; and which of them a text is.

The couplet 飛雪連天射白鹿，笑書神俠倚碧鴛 names the fourteen by their first characters and gives them their order here.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

COUPLET = "飛雪連天射白鹿，笑書神俠倚碧鴛"


@dataclass(frozen=True)
class NovelFacts:
    """What is known of a novel before its file is read."""

    title: str  # traditional script
    simplified: str
    characters: int  # about how many characters the whole novel has, with punctuation
    people: tuple[str, ...]  # main characters, traditional script
    aliases: tuple[str, ...] = ()


def _novel(title: str, simplified: str, characters: int, people: str, aliases: str = "") -> NovelFacts:
    return NovelFacts(title, simplified, characters, tuple(people.split()), tuple(aliases.split()))


NOVELS: tuple[NovelFacts, ...] = (
    _novel(
        "飛狐外傳", "飞狐外传", 440_000,
        "胡斐 程靈素 袁紫衣 馬春花 鳳天南 苗人鳳 趙半山 商寶震 南蘭 田歸農 福康安 鍾兆文 姜鐵山 慕容景岳 薛鵲 "
        "石萬嗔 王劍英 曹雲奇 平阿四 文泰來 無塵道人 商劍鳴 徐錚 閻基 何思豪 劉鶴真 汪鐵鶚",
    ),
    _novel(
        "雪山飛狐", "雪山飞狐", 135_000,
        "苗若蘭 寶樹 胡斐 杜希孟 陶百歲 苗人鳳 胡一刀 平阿四 田青文 陶子安 阮士中 曹雲奇 于管家 殷吉 劉元鶴 熊元獻 "
        "范幫主 田歸農 周雲陽 鄭三娘",
    ),
    _novel(
        "連城訣", "连城诀", 230_000,
        "狄雲 戚芳 水笙 丁典 凌霜華 戚長發 萬震山 萬圭 言達平 花鐵幹 血刀老祖 汪嘯風 卜垣 凌退思 寶象 梅念笙 吳坎 "
        "水岱 陸天抒 劉乘風",
        "素心劍 素心剑 连城决 連城決",
    ),
    _novel(
        "天龍八部", "天龙八部", 1_240_000,
        "蕭峰 喬峰 段譽 虛竹 阿朱 阿紫 王語嫣 慕容復 木婉清 鍾靈 段正淳 鳩摩智 游坦之 天山童姥 李秋水 丁春秋 "
        "段延慶 葉二娘 南海鱷神 雲中鶴 包不同 風波惡 鄧百川 公冶乾 阿碧 巴天石 范驊 華赫艮 朱丹臣 干光豪 左子穆 "
        "辛雙清 司空玄 鍾萬仇 甘寶寶 刀白鳳 秦紅棉 阮星竹 康敏 馬大元 全冠清 白世鏡 徐長老 玄慈 玄難 玄苦 蕭遠山 "
        "慕容博 耶律洪基 無崖子 蘇星河 薛慕華 余婆婆 游驥 游駒 譚婆 趙錢孫 高昇泰 段正明 枯榮大師 李延宗 梅劍 蘭劍 "
        "竹劍 菊劍 完顏阿骨打",
    ),
    _novel(
        "射鵰英雄傳", "射雕英雄传", 920_000,
        "郭靖 黃蓉 楊康 穆念慈 洪七公 黃藥師 歐陽鋒 歐陽克 周伯通 段智興 一燈大師 丘處機 王處一 馬鈺 孫不二 柯鎮惡 "
        "朱聰 韓寶駒 南希仁 張阿生 全金發 韓小瑩 梅超風 陳玄風 裘千仞 裘千丈 完顏洪烈 包惜弱 楊鐵心 郭嘯天 李萍 "
        "鐵木真 華箏 拖雷 哲別 段天德 沙通天 彭連虎 梁子翁 靈智上人 侯通海 陸乘風 陸冠英 程瑤加 曲靈風 傻姑 瑛姑 "
        "魯有腳 尹志平 王重陽 譚處端 劉處玄 郝大通 馮默風 江南七怪 術赤 察合台 窩闊台 博爾忽 木華黎 簡長老 余兆興 "
        "黎生 丹陽子 清風子",
        "射鵰 射雕 射鵰英雄 大漠英雄傳 大漠英雄传 射雕英雄傳 射鵰英雄传",
    ),
    _novel(
        "白馬嘯西風", "白马啸西风", 67_000,
        "李文秀 蘇普 阿曼 計老人 瓦耳拉齊 蘇魯克 陳達海 霍元龍 史仲俊 馬家駿 李三 上官虹 車爾庫 華輝 桑斯兒",
    ),
    _novel(
        "鹿鼎記", "鹿鼎记", 1_230_000,
        "韋小寶 雙兒 阿珂 建寧公主 沐劍屏 陳近南 康熙 方怡 蘇荃 曾柔 鰲拜 吳三桂 海大富 茅十八 多隆 索額圖 九難 "
        "陳圓圓 李自成 鄭克塽 馮錫範 洪安通 神龍教主 胖頭陀 陸高軒 徐天川 玄貞道人 風際中 錢老本 樊綱 關安基 "
        "李力世 祁清彪 馬超興 白寒楓 白寒松 沐劍聲 柳大洪 吳立身 敖彪 劉一舟 澄觀 桑結 葛爾丹 蘇菲亞 施琅 張勇 "
        "王進寶 孫思克 趙良棟 吳應熊 楊溢之 康親王 歸辛樹 歸二娘 歸鍾 何惕守 吳六奇 顧炎武 呂留良 黃宗羲 莊允城 "
        "吳之榮 韋春芳 小桂子 瑞棟 于八 毛東珠 高尊者 瘦頭陀 慕天顏 晦聰禪師 行癡 湯若望 南懷仁",
    ),
    _novel(
        "笑傲江湖", "笑傲江湖", 980_000,
        "令狐沖 任盈盈 岳不群 岳靈珊 林平之 任我行 東方不敗 向問天 左冷禪 余滄海 儀琳 田伯光 風清揚 甯中則 陸大有 "
        "勞德諾 曲洋 曲非煙 劉正風 莫大先生 方證大師 沖虛道長 定逸 定靜 定閒 天門道人 綠竹翁 平一指 藍鳳凰 "
        "桃谷六仙 桃根仙 桃實仙 桃幹仙 桃枝仙 桃葉仙 桃花仙 不戒和尚 木高峰 余人彥 賈人達 林震南 費彬 陸柏 丁勉 "
        "封不平 成不憂 從不棄 黃鍾公 黑白子 禿筆翁 丹青生 鮑大楚 楊蓮亭 祖千秋 老頭子 計無施 儀和 儀清 鄭萼 秦絹 "
        "藍天和 玉璣子 鍾鎮 鄧八公 高克新 梁發 施戴子 高根明 陶鈞 英白羅 舒奇",
    ),
    _novel(
        "書劍恩仇錄", "书剑恩仇录", 515_000,
        "陳家洛 霍青桐 香香公主 余魚同 文泰來 喀絲麗 乾隆 駱冰 李沅芷 陸菲青 張召重 無塵道人 趙半山 徐天宏 周綺 "
        "周仲英 常赫志 常伯志 衛春華 楊成協 章進 石雙英 蔣四根 孟健雄 安健剛 木卓倫 霍阿伊 袁士霄 關明梅 陳正德 "
        "天鏡禪師 于萬亭 馬真 阿凡提 李可秀 曾圖南 心硯 福康安 白振 哈合台 顧金標 滕一雷 閻世章 閻世魁 成璜 瑞大林 "
        "韓文沖 王維揚 言伯乾",
        "書劍江山 书剑江山 書劍 书剑 书剑恩仇 書劍恩仇",
    ),
    _novel(
        "神鵰俠侶", "神雕侠侣", 965_000,
        "楊過 小龍女 郭芙 李莫愁 陸無雙 郭靖 黃蓉 郭襄 郭破虜 程英 完顏萍 耶律齊 耶律燕 耶律楚材 武敦儒 武修文 "
        "武三通 武三娘 金輪法王 霍都 達爾巴 公孫止 公孫綠萼 裘千尺 裘千仞 周伯通 黃藥師 一燈大師 歐陽鋒 洪七公 "
        "尹志平 趙志敬 丘處機 孫婆婆 陸展元 何沅君 陸立鼎 洪凌波 林朝英 馮默風 柯鎮惡 魯有腳 朱子柳 尼摩星 瀟湘子 "
        "尹克西 馬光佐 忽必烈 蒙哥 史伯威 史仲猛 史叔剛 史季強 史孟捷 神鵰 獨孤求敗 樊一翁 瑛姑 慈恩 覺遠 張君寶 "
        "鹿清篤 郝大通 王志坦 彭長老 何師我 點蒼漁隱",
        "神鵰 神雕 神鵰俠侣 神雕俠侶 神鵰侠侣 神鵰大俠 神雕大侠",
    ),
    _novel(
        "俠客行", "侠客行", 365_000,
        "石破天 石中玉 石清 閔柔 丁璫 丁不三 丁不四 阿繡 史小翠 白自在 白萬劍 謝煙客 貝海石 梅芳姑 張三 李四 "
        "龍島主 木島主 封萬里 花萬紫 王萬仞 耿萬鍾 柯萬鈞 侍劍 展飛 米橫野 司徒橫 安奉日 吳道通 周牧 天虛 沖虛 "
        "照虛 范一飛 風良 呂正平 高三娘子 廖自礪 成自學 齊自勉 梁自進 狗雜種",
    ),
    _novel(
        "倚天屠龍記", "倚天屠龙记", 960_000,
        "張無忌 趙敏 周芷若 小昭 殷離 蛛兒 張翠山 殷素素 謝遜 張三丰 滅絕師太 楊逍 范遙 韋一笑 殷天正 黛綺絲 "
        "紫衫龍王 宋遠橋 俞蓮舟 俞岱巖 張松溪 殷梨亭 莫聲谷 宋青書 成崑 圓真 何太沖 班淑嫻 何足道 郭襄 覺遠 張君寶 "
        "空聞 空智 空性 空見 鹿杖客 鶴筆翁 玄冥二老 朱九真 武青嬰 朱長齡 武烈 衛璧 胡青牛 王難姑 常遇春 朱元璋 "
        "徐達 楊不悔 紀曉芙 丁敏君 貝錦儀 靜玄 周顛 彭瑩玉 說不得 冷謙 鐵冠道人 張中 陳友諒 史火龍 金花婆婆 "
        "銀葉先生 都大錦 汝陽王 王保保 阿大 阿二 阿三 殷野王 簡捷 西華子 鮮于通 高則成 蔣立濤 莊錚 辛然 顏垣 "
        "聞蒼松 唐洋 無色禪師 渡厄 渡劫 渡難",
        "倚天 屠龍記 屠龙记 倚天屠龍 倚天屠龙",
    ),
    _novel(
        "碧血劍", "碧血剑", 490_000,
        "袁承志 溫青青 何鐵手 穆人清 溫儀 夏青青 何惕守 阿九 長平公主 木桑道人 黃真 歸辛樹 歸二娘 夏雪宜 金蛇郎君 "
        "溫方達 溫方義 溫方山 溫方施 溫方悟 安大娘 安小慧 崔秋山 崔希敏 焦宛兒 焦公禮 羅立如 閔子華 洞玄 玉真子 "
        "何紅藥 齊雲璈 程青竹 沙天廣 胡桂南 鐵羅漢 孫仲壽 應松 朱安國 倪浩 李自成 李岩 紅娘子 崇禎 皇太極 多爾袞 "
        "曹化淳 梅劍和 孫仲君 劉培生 馮難敵 榮彩 啞巴 洪勝海 單鐵生 呂七先生 史秉光 史秉文 張朝唐 楊鵬舉 安劍清 "
        "溫南揚",
    ),
    _novel(
        "鴛鴦刀", "鸳鸯刀", 35_000,
        "袁冠南 蕭中慧 林玉龍 任飛燕 周威信 卓天雄 蕭半和 太岳四俠 逍遙子 常長風 花劍影 蓋一鳴 楊夫人 袁夫人 "
        "張先生",
    ),
    _novel(
        "越女劍", "越女剑", 17_000,
        "阿青 范蠡 薛燭 勾踐 文種 西施 夫差 伍子胥 白公公 吳王 越王",
    ),
)  # fmt: skip

TITLES = tuple(facts.title for facts in NOVELS)

# Names, forms of address and things that a conversion from simplified script gets wrong, beside the people above.
_EXCEPTIONS = (
    "里飛沙 余觀主 余師兄 余師弟 余師叔 余師伯 余十四弟 余公子 余大俠 余矮子 余老道 姓余 姓于 姓游 姓干 姓里 "
    "游氏雙雄 游莊主 游公子 游賢弟 于老爺 于大人 于公子 于大爺 于公 于公案 于按察 于成龍 于謙 于禁 于吉 于舵主 "
    "于總舵主 于當家 于老當家 于賢弟 鮮于 淳于 單于 干將 干師兄 干師弟 干師哥 干師妹 神鵰 白鵰 雌鵰 雄鵰 鵰兒 雙鵰 "
    "射鵰 醜鵰 黑鵰 鵰背 鵰兄 鐵鵰 萬仇谷 萬劫谷 馮錫範"
)
CONVERSION_EXCEPTIONS = tuple(_EXCEPTIONS.split())

# What may not stand before such a name, in simplified script: 其余师兄 is 其餘師兄, 对于大人 is 對於大人.
NOT_BEFORE_NAME = {
    "余": "其剩多残业之百千十年有无",
    "于": "对至由关属等位终过处出生基忠善勇急陷濒归限敢安居甘见在",
    "干": "相何若无不",
    "术": "法妖邪仙武医道学艺",
    "姓": "百",
    "里": "这那哪心手家屋城宫院营寨公",
    "游": "交旅周云巡漫闲郊同",
}


def recognise_title(name: str) -> NovelFacts | None:
    """The novel that a file name (or a title somebody typed) names, in either script, by title or alias; else None.

    >>> recognise_title("金庸-天龙八部txt精校版.txt").title
    '天龍八部'
    """
    plain = re.sub(r"[\s《》〈〉_\-·.]+", "", unicodedata.normalize("NFKC", name))
    best: tuple[int, NovelFacts] | None = None
    for facts in NOVELS:
        for alias in (facts.title, facts.simplified, *facts.aliases):
            # A short alias (射鵰, 書劍) must be the whole name, or near it: other titles hold the two characters.
            whole = len(alias) > 2 or len(plain) <= len(alias) + 6
            if alias in plain and whole and (best is None or len(alias) > best[0]):
                best = len(alias), facts
    return best[1] if best else None


def count_people(text: str, facts: NovelFacts, simplified: dict[str, str] | None = None) -> dict[str, int]:
    """How often each main character of `facts` is named in `text`; `simplified` maps a name to its other form."""
    names = {name: {name, (simplified or {}).get(name, name)} for name in facts.people}
    return {name: sum(text.count(form) for form in forms) for name, forms in names.items()}


def recognise_content(text: str, simplified: dict[str, str] | None = None) -> NovelFacts | None:
    """The novel whose main characters `text` is about, or None if it is about none of them.

    At least four of a novel's people must appear, and together often enough (once in 500 characters); people that
    two novels share (郭靖 is in two) count for the one in which more of the others appear. Its hero, the first of them,
    must be there: people of history (朱元璋, 吳三桂) are in other books too.
    """
    # Five places of a long text tell as much as all of it.
    if len(text) > 200_000:
        text = "".join(text[i * len(text) // 5 :][:30_000] for i in range(5))
    best: tuple[float, NovelFacts] | None = None
    for facts in NOVELS:
        counts = count_people(text, facts, simplified)
        present = sum(n > 0 for n in counts.values())
        total = sum(counts.values())
        if present < 4 or not next(iter(counts.values())) or total * 500 < len(text):
            continue
        strength = total * present / len(counts)
        if best is None or strength > best[0]:
            best = strength, facts
    return best[1] if best else None
