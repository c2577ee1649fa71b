"""Mandarin as it is read aloud, its numbers: what is counted, dates, times, scores, money, units, telephones and formulas become characters.

Each rule is a pattern and what it becomes; the order matters. A 2 is 两 before what counts (两个), 二 in a row of things (第二个, 二月, 二楼);
a 1 is 幺 in telephone numbers and of trains.
"""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal

from sensorium.codecs.rules import IPV4, Rule, any_of

__all__ = ["cardinal", "digits", "HAN", "RULES", "value"]

HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_DIGITS = "零一二三四五六七八九"
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?"
_TO = r"\s?(?:-|–|——?|~|～|〜)\s?"

_MONEY = {"¥": "元", "￥": "元", "$": "美元", "€": "欧元", "£": "英镑", "₩": "韩元", "₹": "卢比", "₽": "卢布", "฿": "泰铢", "₿": "比特币"}
_COUNTRIES = {"US": "美元", "HK": "港元", "NT": "新台币", "A": "澳元", "AU": "澳元", "C": "加元", "CA": "加元", "S": "新加坡元", "NZ": "新西兰元"}
_CODES = {"RMB": "元", "CNY": "元", "USD": "美元", "EUR": "欧元", "GBP": "英镑", "JPY": "日元", "HKD": "港元", "KRW": "韩元"}
_SCALES = {"k": 10**3, "thousand": 10**3, "m": 10**6, "mn": 10**6, "million": 10**6, "b": 10**9, "bn": 10**9, "billion": 10**9, "tn": 10**12,
           "trillion": 10**12}
_UNITS = {
    "m": "米", "km": "公里", "cm": "厘米", "mm": "毫米", "nm": "纳米", "μm": "微米", "dm": "分米", "g": "克", "kg": "公斤", "mg": "毫克",
    "μg": "微克", "t": "吨", "L": "升", "l": "升", "ml": "毫升", "mL": "毫升", "°C": "摄氏度", "°F": "华氏度", "°": "度", "W": "瓦", "kW": "千瓦",
    "MW": "兆瓦", "GW": "吉瓦", "V": "伏", "kV": "千伏", "mV": "毫伏", "mA": "毫安", "mAh": "毫安时", "Wh": "瓦时", "kWh": "千瓦时", "Hz": "赫兹",
    "kHz": "千赫兹", "MHz": "兆赫兹", "GHz": "吉赫兹", "Pa": "帕", "kPa": "千帕", "MPa": "兆帕", "hPa": "百帕", "dB": "分贝", "J": "焦",
    "kJ": "千焦", "cal": "卡", "kcal": "千卡", "ha": "公顷", "ft": "英尺", "lb": "磅", "oz": "盎司", "mi": "英里", "h": "小时", "min": "分钟",
    "s": "秒", "ms": "毫秒", "kbps": "千比特每秒", "Mbps": "兆比特每秒", "Gbps": "吉比特每秒", "rpm": "转每分钟", "fps": "帧每秒",
    "mph": "英里每小时", "rad": "弧度", "lm": "流明", "ppm": "百万分之一",
}
_POWERS = {"": "", "²": "平方", "^2": "平方", "³": "立方", "^3": "立方"}
_PER = {**_UNITS, "d": "天", "天": "天", "次": "次", "人": "人"}

# What a 2 counts. Not: 号 楼 月 班 路 级 期 代, of which there is a second one, nor 两, the weight.
_MEASURES = ("套款卷册页行章课节例顶宗桩员伙帮挂捆片具尊胎窝尾个只条本位天次张件家间座辆把杯块碗瓶双层篇首份部台名句头匹棵朵颗支根场遍种样"
             "周岁点口滴段项排队批群桌道门斤米里升元分秒倍万千亿人艘架处起户轮届晚夜季对副幅壶箱盒包袋罐串束枚则封笔股类站集趟回步圈顿亩大"
             "国岸侧端方者地边扇盏堆笼团栋幢床盘勺碟剂粒枝缕阵番声眼脚拳刀拨丝")
_LONG_MEASURES = ("小时", "分钟", "刻钟", "公里", "公斤", "公顷", "厘米", "毫米", "毫升", "平方", "立方", "百个", "星期", "礼拜", "学期",
                  "学年", "年(?!级)")
_MEASURE = "|".join([*_LONG_MEASURES, f"[{_MEASURES}]"])
_SIGNS = {
    "+": "加", "=": "等于", "×": "乘以", "÷": "除以", "&": "和", "%": "百分号", "@": "艾特", "<": "小于", ">": "大于", "≤": "小于等于",
    "≥": "大于等于", "≦": "小于等于", "≧": "大于等于", "≠": "不等于", "≈": "约等于", "±": "正负", "√": "根号", "∞": "无穷大", "π": "派",
    "°": "度", "~": "到", "#": "井号", "*": "", "_": " ", "`": "", "|": "，", "^": "", "\\": "", "−": "减",
}
_SUPERS = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"
_WON = r"(?:战胜|击败|大胜|取胜|获胜|胜|力克|负于|不敌|落后|领先|逆转|战平|险胜|完胜|惜败|的?比分|的?比例)"
_IN_LINKS = {".": "点", "/": "斜杠", "-": "杠", "_": "下划线", "@": "艾特", ":": "冒号"}


def digits(text: str) -> str:
    """Digits one by one: "2024" -> "二零二四"."""
    return "".join(_DIGITS[int(digit)] for digit in text if digit.isdecimal())


def _called(text: str) -> str:
    """Digits of a telephone or a train, where 1 is 幺 so that it is not taken for 7."""
    return digits(text).replace("一", "幺")


def _group(number: int) -> str:
    """1..9999 in characters, zeros inside it said once."""
    out, gap = "", False
    for place, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // place % 10
        if digit:
            out += ("零" if gap and out else "") + _DIGITS[digit] + name
        gap = not digit
    return out


def cardinal(number: int) -> str:
    """A whole number in characters; from 10^16 on its digits one by one."""
    if number < 0:
        return "负" + cardinal(-number)
    if number == 0 or number >= 10**16:
        return digits(str(number))
    out, rest, gap = "", number, False
    for place, name in ((10**12, "万亿"), (10**8, "亿"), (10**4, "万"), (1, "")):
        group, rest = divmod(rest, place)
        if group:
            out += ("零" if out and (gap or group < 1000) else "") + _group(group) + name
        gap = not group
    out = re.sub("^一十", "十", out)
    return re.sub("(?:^|(?<=零))二(?=[千万亿])", "两", out)


def value(text: str) -> str:
    """A number as it is written: "1,234.5" -> "一千二百三十四点五"; long ones and those with a leading zero digit by digit."""
    whole, _, rest = text.replace(",", "").partition(".")
    if not rest and (len(whole) >= 8 and "," not in text and (whole[-3:] != "000" or len(whole) == 11) or len(whole) > 1 and whole[0] == "0"):
        return digits(whole)
    return cardinal(int(whole or 0)) + (f"点{digits(rest)}" if rest else "")


def _counted(text: str) -> str:
    return "两" if text == "2" else value(text)


def _scaled(amount: str, scale: str | None) -> str:
    """"2", "bn" -> "二十亿"; "1.5", "亿" -> "一点五亿"."""
    if not scale:
        return value(amount)
    if scale.lower() not in _SCALES:
        return value(amount) + scale
    whole = Decimal(amount.replace(",", "")) * _SCALES[scale.lower()]
    if whole % 10**8 == 0:
        return _counted(str(int(whole) // 10**8)) + "亿"
    return cardinal(int(whole)) if whole == int(whole) else value(f"{whole.normalize():f}")


def _date(match: re.Match) -> str:
    month, day = int(match[3]), int(match[4])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match[0]
    return f"{digits(match[1])}年{cardinal(month)}月{cardinal(day)}日"


def _time(match: re.Match) -> str:
    hour, minute = int(match[1]), int(match[2])
    said = "两点" if hour == 2 else f"{cardinal(hour)}点"
    if match[3]:
        return f"{said}{_two_digits(minute)}分{_two_digits(int(match[3]))}秒"
    return said + (f"{_two_digits(minute)}分" if minute else "整")


def _two_digits(number: int) -> str:
    return "零" + cardinal(number) * bool(number) if number < 10 else cardinal(number)


def _unit(match: re.Match) -> str:
    name, power, per, per_power = match.groups()[1:]
    amount = match[1].rstrip("万亿")
    said = _counted(amount) + match[1].removeprefix(amount) + _POWERS[power or ""] + _UNITS[name]
    if not per:
        return said
    return f"{said}每{_PER[per]}平方" if per == "s" and per_power else f"{said}每{_POWERS[per_power or '']}{_PER[per]}"


def _link(match: re.Match) -> str:
    return "".join(_IN_LINKS.get(letter, letter) for letter in re.sub(r"^(?:https?://)?(?:www\.)?", "", match[0]).rstrip("/"))


def _power(match: re.Match) -> str:
    base, raised = match[1], unicodedata.normalize("NFKC", match[2]).strip("^()").replace("−", "-")
    said = value(base) if base[0].isdecimal() else base
    return f"{said}的{'平方' if raised == '2' else value(raised) + '次方' if raised[0] != '-' else '负' + value(raised[1:]) + '次方'}"


_UNIT = rf"({any_of(_UNITS)})([²³]|\^[23])?(?:/({any_of(_PER)})([²³]|\^[23])?)?(?![A-Za-z°²\d])"
_SCALE = rf"\s?(万亿|[百千]?[万亿]|(?i:{any_of(dict.fromkeys(_SCALES, ''))})(?![A-Za-z]))?"
_TERM = r"(?:\d+(?:\.\d+)?[a-z]?|[A-Za-z])[²³]?"
_MINUS = {"-": "减", "−": "减", "–": "减", "/": "除以", "*": "乘以"}

NAMES: list[Rule] = [
    (r"(?:https?://|www\.)[\w.~/-]*[\w/]|[\w.+-]+@[\w-]+(?:\.[A-Za-z]\w+)+|"
     r"(?<![A-Za-z])[a-z][a-z\d-]*(?:\.[a-z\d-]+)*\.(?:com|org|net|cn|io|ai|edu|gov)(?![A-Za-z])(?:/[A-Za-z\d./_-]*[A-Za-z\d])?",
     _link),
    (r"(?<![A-Za-z])[Nn]o\.\s?(\d+)", r"第\1"), (r"(?<![A-Za-z])C#", "C sharp"), (r"(?<!\d)24/7(?!\d)", "全天候"),
    (r"(?<!\d)7-11(?=便利|店)", "七十一"),
    (rf"第\s?({_NUMBER})\s?(?:{_TO}第?({_NUMBER})\s?)?", lambda m: "第" + _in_row(m[1]) + (f"到{_in_row(m[2])}" if m[2] else "")),
    # telephones, plates, trains, aircraft, what is known by its digits
    (r"(?<!\d)(?:(\+?)86[- ]?)?(1[3-9]\d[- ]?\d{4}[- ]?\d{4})(?!\d)",
     lambda m: (("加" if m[1] else "") + "八六" if "86" in m[0][:4] and m[0] != m[2] else "") + _called(m[2])),
    (r"(?<![\d.])(?:\(0\d{2,3}\)|0\d{2,3}[- ]|[48]00[- ]\d{3}[- ])[- ]?\d{4,8}(?!\d)", lambda m: _called(m[0])),
    (r"(?<![\d.])[48]00\d{7}(?!\d)", lambda m: _called(m[0])),
    (r"((?:拨打|致电|拨|电话|热线|火警|匪警|报警|急救|客服)(?:号码)?[是为:：]?\s?)(\d{3,8})(?![\d.,%分元块个次人秒天年万亿台部件条])",
     lambda m: m[1] + _called(m[2])),
    (r"(打)(1(?:10|19|20|22|2306|2315|2345)|9\d{4}|100\d\d)(?![\d.,分元块个次])", lambda m: m[1] + _called(m[2])),
    (r"(?<!\d)(\d{3,6})(?=热线|客服|报警电话|急救电话|网站|平台|购票)",
     lambda m: _called(m[1])),
    (r"((?:房间|邮编|邮政编码|QQ号?|密码|验证码|学号|工号|编号|身份证号?|卡号|账号|尾号|单号|门牌)(?:码)?[是为:：]?\s?)(\d{3,})",
     lambda m: m[1] + digits(m[2])),
    (r"(?<![\d.])(\d{3,4})(?=号?房间|室|教室|号房|病房)", lambda m: digits(m[1])),
    (r"(?<![A-Za-z\d])([GDCZTKY])(\d{1,4})(?=次)", lambda m: m[1] + _called(m[2])),
    (rf"([{HAN}][A-Z])·?([A-Z\d]{{5,6}})(?![A-Za-z\d])", lambda m: m[1] + re.sub(r"\d", lambda d: digits(d[0]), m[2])),
    (r"(波音|空客A?|麦道)\s?-?(\d{3})(?!\d)", lambda m: m[1] + digits(m[2])),
    (r"([歼运轰直苏图]|东风|长征|神舟|嫦娥|天宫|米格|伊尔|阿波罗|北斗)-(?=\d)", r"\1"), (r"(?<=[A-Za-z])-(?=\d)", " "),
    (r"(?<!\d)(\d{1,2})[·•・](\d{1,2})(?!\d)", lambda m: digits(m[1] + m[2])),
    (r"(?<![\d.])(\d{3,4})(?=事件|事变|晚会|大促|购物节|工作制)", lambda m: digits(m[1])),
    (rf"(?<![\d.]){IPV4}(?![\d.])", lambda m: "点".join(map(digits, m[0].split(".")))),
]


def _in_row(text: str) -> str:
    """A number after 第, where a 2 is 二: 第二名, 第二百期."""
    return "二" if text == "2" else value(text)


DATES: list[Rule] = [
    (r"(?<!\d)(\d{4})([-/.])(\d{1,2})\2(\d{1,2})(?!\d)(?:T(?=\d))?", _date),
    (rf"(?<!\d)([12]\d{{3}})年?{_TO}([12]\d{{3}})(?=年|学年|赛季|财年)", lambda m: f"{digits(m[1])}到{digits(m[2])}"),
    (r"(?<!\d)([1-9]\d?00)年(?=历史|前|多|的历史|以)", lambda m: cardinal(int(m[1])) + "年"),
    (r"(?<=[约近达有过续了])([1-9]\d?00)(?=年)", lambda m: cardinal(int(m[1]))),
    (r"(?<!\d)([12]\d{3})(?=年|学年|赛季|财年|级|届|款)", lambda m: digits(m[1])),
    (r"(?<![\d.])([6-9][1-9])(?=年(?!前|后|来|间|历史|的|多|里|内|时间|以来|之|了))", lambda m: digits(m[1])),
    (r"(?<![\d.])([0-9][05])(?=后(?!的?\d|面|来|天|年|方|期|续))", lambda m: digits(m[1])),
    (rf"([周月日号年点时分秒度]|周[一二三四五六日天]){_TO}(?=\d|周)", r"\1到"),
    (rf"(星期[一二三四五六日天]){_TO}(?=星期)", r"\1到"),
    (rf"(\d[:：]\d\d){_TO}(?=\d{{1,2}}[:：])", r"\1到"),
    (r"((?:比分|比例|比率|赔率|比为|之比)(?:[是为约]|约为)?\s?)(\d+)[:：](\d+)", lambda m: f"{m[1]}{value(m[2])}比{value(m[3])}"),
    (rf"(?<!\d)(\d{{1,3}})[:：–-](\d{{1,3}})(?={_WON})", lambda m: f"{value(m[1])}比{value(m[2])}"),
    (r"((?:以|比分)[是为]?)(\d{1,3})[-–](\d{1,3})(?![\d.%元年个人天万亿])", lambda m: f"{m[1]}{value(m[2])}比{value(m[3])}"),
    (r"(?<!\d)([01]?\d|2[0-3])[:：]([0-5]\d)(?:[:：]([0-5]\d))?(?![\d:：])", _time),
    (r"(\d+)[:：](?=\d)", r"\1比"),
]

MEASURED: list[Rule] = [
    (rf"(?<![\w.]){_TERM}(?:\s?[-−–+*/×÷]\s?{_TERM})+\s?(?==)|(?<==)\s?{_TERM}(?:\s?[-−–+*/×÷]\s?{_TERM})+(?!\w)",
     lambda m: re.sub(r"(?<=[\w²³])\s?([-−–*/])\s?(?=\w)", lambda sign: _MINUS[sign[1]], m[0])),
    (r"(\d)e([+-]?\d+)(?!\d)|(\d\.\d+)E([+-]?\d+)(?!\d)", lambda m: f"{m[1] or m[3]}乘以10^{(m[2] or m[4]).lstrip('+')}"),
    (r"½", "1/2"), (r"¼", "1/4"), (r"¾", "3/4"), (r"⅓", "1/3"), (r"⅔", "2/3"),
    (rf"(?<![A-Za-z\d.])([{''.join(_MONEY)}])\s?({_NUMBER}){_TO}[{''.join(_MONEY)}]?({_NUMBER}){_SCALE}",
     lambda m: f"{value(m[2])}到{_scaled(m[3], m[4])}{_MONEY[m[1]]}"),
    (rf"(?<![A-Za-z])({any_of(_COUNTRIES)})\$\s?({_NUMBER}){_SCALE}", lambda m: _scaled(m[2], m[3]) + _COUNTRIES[m[1]]),
    (rf"([{''.join(_MONEY)}])\s?({_NUMBER}){_SCALE}", lambda m: _scaled(m[2], m[3]) + _MONEY[m[1]]),
    (rf"(?<![A-Za-z])({any_of(_CODES)})\s?({_NUMBER}){_SCALE}", lambda m: _scaled(m[2], m[3]) + _CODES[m[1]]),
    (rf"({_NUMBER}){_SCALE}\s?({any_of(_CODES)})(?![A-Za-z])", lambda m: _scaled(m[1], m[2]) + _CODES[m[3]]),
    (rf"(?<![A-Za-z\d.])({_NUMBER})(?:%?){_TO}({_NUMBER})\s?%", lambda m: f"百分之{value(m[1])}到百分之{value(m[2])}"),
    (rf"(?<![A-Za-z\d.%])-\s?({_NUMBER})\s?%", lambda m: f"负百分之{value(m[1])}"),
    (r"(?<![\d.])100\s?%", "百分之百"),
    (rf"({_NUMBER})\s?%", lambda m: f"百分之{value(m[1])}"), (rf"({_NUMBER})\s?‰", lambda m: f"千分之{value(m[1])}"),
    (r"(?<![\d/])(\d{1,4})/(\d{1,4})(?![\d/])", lambda m: f"{cardinal(int(m[2]))}分之{cardinal(int(m[1]))}"),
    (rf"(?<![A-Za-z\d.-])({_NUMBER}){_TO}(?={_NUMBER}(?![\d-]))", r"\1到"),
    (r"(?<![A-Za-z\d.之])-(?=\d)", "负"),
    (rf"(?<![A-Za-z\d.])({_NUMBER}[万亿]?)\s?{_UNIT}", _unit),
    (rf"((?<![A-Za-z])[A-Za-z]|\d+(?:\.\d+)?)([{_SUPERS}]+|\^\(?[-−]?\d+\)?)", _power),
    (r"(?<![A-Za-z\d.])(\d+(?:\.\d+)?)k(?![A-Za-z])", lambda m: _scaled(m[1], "k")), (r"(\d)w(?![A-Za-z])", r"\1万"),
    (rf"(\d)\+(?={_MEASURE}|年|月)", r"\1多"),
]

RULES: list[Rule] = [
    *NAMES, *DATES, *MEASURED,
    (rf"(?<=[\d之零一二三四五六七八九十百千万]){_TO}(?=\d|百分之)", "到"),
    (rf"(?<![A-Za-z\d.,])2(?=(?!分之)(?:{_MEASURE}))", "两"),
    (r"\d+(?:\.\d+){2,}", lambda m: "点".join(cardinal(int(part)) for part in m[0].split("."))),
    (_NUMBER, lambda m: value(m[0])),
    (rf"(?<=[元块角分克斤升米次])/(?={_MEASURE}|月|日|号)", "每"), (r"(?<=[A-Z])/(?=[A-Z])", " "), (rf"(?<=[{HAN}])/(?=[{HAN}])", "或"),
    (f"[{re.escape(''.join(_SIGNS))}]", lambda m: _SIGNS[m[0]]),
]
