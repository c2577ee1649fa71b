"""What English reads as a name rather than by its signs: links, abbreviations, streets, Roman numerals, telephones, versions, "C#", "24/7"."""

from __future__ import annotations

import re

from sensorium.codecs.english_dates import stop
from sensorium.codecs.english_numbers import ROMAN, cardinal, digits, ordinal, paired, roman
from sensorium.codecs.rules import IPV4, Rule, any_of

__all__ = ["link", "NAMES"]

_SHORT = {
    "Mr": "Mister", "Mrs": "Missis", "Ms": "Miz", "Dr": "Doctor", "Prof": "Professor", "Sr": "Senior", "Jr": "Junior", "St": "Saint",
    "Gen": "General", "Col": "Colonel", "Lt": "Lieutenant", "Sgt": "Sergeant", "Capt": "Captain", "Rev": "Reverend", "Gov": "Governor",
    "Sen": "Senator", "Rep": "Representative", "Pres": "President", "vs": "versus", "approx": "approximately", "dept": "department",
    "Dept": "Department", "govt": "government", "Govt": "Government", "Inc": "Incorporated", "Ltd": "Limited", "Corp": "Corporation", 
    "Ave": "Avenue", "Blvd": "Boulevard", "Mt": "Mount", "Fig": "Figure", "Figs": "Figures", "Vol": "Volume", "Vols": "Volumes",
}
_BEFORE_NUMBERS = {
    "No": "number", "Nos": "numbers", "no": "number", "nos": "numbers", "p": "page", "pp": "pages", "Ch": "Chapter", "ch": "chapter",
    "Sec": "Section", "sec": "section", "Eq": "Equation", "eq": "equation", "fig": "figure", "vol": "volume", "ca": "circa", "c": "circa",
    "est": "established", "Est": "Established", "max": "maximum", "Max": "Maximum", "min": "minimum", "Min": "Minimum", "ext": "extension",
    "Ext": "Extension", "apt": "apartment", "Apt": "Apartment", "Ste": "Suite", "Art": "Article", "Ver": "Version", "ver": "version",
}
_STREETS = {"St": "Street", "Dr": "Drive", "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road", "Ln": "Lane", "Hwy": "Highway", "Pkwy": "Parkway",
            "Sq": "Square", "Pl": "Place", "Ct": "Court", "Ter": "Terrace"}
_FIXED = {"24/7": "twenty-four seven", "9/11": "nine eleven", "20/20": "twenty twenty", "401(k)": "four oh one k", "403(b)": "four oh three b",
          "w/o": "without", "w/": "with", "c/o": "care of", "n/a": "not applicable", "N/A": "not applicable", "and/or": "and or"}
_IN_LINKS = {".": " dot ", "/": " slash ", "-": " dash ", "_": " underscore ", "@": " at ", ":": " colon ", "~": " tilde ", "+": " plus "}
_DOMAINS = "com|org|net|edu|gov|io|ai|dev|cn|co|uk|de|fr|jp|eu|info"
_FILES = ("pdf|docx?|xlsx?|pptx?|txt|md|csv|json|jsonl|xml|html?|css|js|ts|py|cpp|rs|sh|jpe?g|png|gif|webp|svg|mp[34]|wav|flac|zip|tar|gz|"
          "exe|ya?ml|toml|onnx|gguf|safetensors")

# Numerals after these are counted (Chapter four); after the names of rulers they are a place in a row (Henry the eighth).
_COUNTED = ("Chapter|Part|Act|Scene|Volume|Book|Section|Article|Phase|Type|Stage|Class|Level|Title|Appendix|Figure|Table|Bowl|War|Unit|Lesson|"
            "Episode|Mark|Group|Schedule|Grade|Category|Tier|Division|Round|Step|Point|Apollo|Rocky|Fantasy")
_RULERS = (
    "Henry|Louis|Elizabeth|George|Edward|Charles|James|William|Richard|Mary|Paul|John|Pius|Benedict|Leo|Gregory|Innocent|Clement|Urban|Alexander|"
    "Nicholas|Peter|Catherine|Ivan|Frederick|Friedrich|Wilhelm|Napoleon|Philip|Felipe|Carlos|Juan|Francis|Ferdinand|Alfonso|Haakon|Harald|Olav|"
    "Christian|Gustav|Margrethe|Rames?ses|Thutmose|Amenhotep|Darius|Xerxes|Ptolemy|Cleopatra|Constantine|Theodosius|Justinian|Otto|Leopold|Albert|"
    "Umberto|Emmanuel|Robert|David|Stephen|Rama|Mehmed|Selim|Murad|Suleiman|Hussein|Hassan|Mohammed|Abdullah|Sixtus|Boniface|Celestine|Julius|Adrian|"
    "Eugene|Joseph|Maximilian|Rudolf|Sigismund|Casimir|Harold|Eric|Magnus|Canute|Pedro|Anne|Isabella|Kamehameha|Malcolm")
_PRONOUN = (r"(?=\s(?:am|was|have|had|do|did|will|would|can|could|shall|should|must|may|might|think|know|like|love|want|need|see|saw|read|wrote|said|"
            r"say|went|go|got|met|made|found|lived?|worked?|hope|feel|felt|agree|used?|mean|ever|never|always|also|just|really|still|first)\b)")


def link(text: str) -> str:
    """A web or mail address in words, without its scheme and what follows "?" or "#"."""
    text = re.split(r"[?#]", re.sub(r"^(?:https?://)?(?:www\.)?", "", text), maxsplit=1)[0].rstrip("/")
    return "".join(_IN_LINKS.get(letter, letter) for letter in text)


def _telephone(match: re.Match) -> str:
    """Groups of digits with a pause between them; "800" of a free call is "eight hundred"."""
    groups = re.findall(r"\d+", match[0])
    if sum(map(len, groups)) < 7:
        return match[0]
    free = len(groups) == 4 and groups[0] == "1" and groups[1] in ("800", "900")
    said = [paired(int(group)) if free and i == 1 else digits(group) for i, group in enumerate(groups)]
    return ("plus " if "+" in match[0] else "") + ", ".join(said).replace("one, eight", "one eight")


def _address(match: re.Match) -> str:
    house, letter, street, kind = match.groups()
    return f"{paired(int(house))} {letter + ' ' if letter else ''}{street}{_STREETS[kind]}" + stop(match)


def _street(match: re.Match) -> str:
    return f"{match[1]} {_STREETS[match[2]]}" + stop(match)


def _counted(match: re.Match) -> str:
    return match[1] + cardinal(roman(match[2]))


def _ruler(match: re.Match) -> str:
    return f"{match[1]} the {ordinal(roman(match[2]))}"


_CAPITAL = r"(?:[A-Z][\w']*|\d+(?:st|nd|rd|th))"
_GREETED = r"(?:The|A|Hello|Hi|Hey|Yes|No|Dear|Thanks|And|But|My|Our|Ask|See|Call|Is|For|With|From|Good|Well|So|Oh|When|If)\b"
_LOW_ROMAN = r"(?:X{0,3}(?:IX|IV|V?I{1,3})|X{1,3}V?|V)"

NAMES: list[Rule] = [
    (rf"(?:https?://|www\.)[^\s<>\"]*[\w/]|\b[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.\w+|"
     rf"\b[\w-]*[A-Za-z][\w-]*(?:\.[\w-]+)*\.(?:{_DOMAINS})\b(?:/[\w./-]*\w)?", lambda m: link(m[0])),
    (rf"\b([\w-]*[A-Za-z][\w-]*(?:\.[\w-]+)*)\.(?:{_FILES})\b", lambda m: m[0].replace(".", " dot ")),
    (r"(?<![\w.])\.(?=NET\b)", "dot "),
    (r"\b([A-G])#(?!\w)", r"\1 sharp"), (r"(?<!\w)#(?=[A-Za-z])", "hashtag "),
    (rf"(?<![\w/])(?:{any_of(_FIXED)})(?![\w/])", lambda m: _FIXED[m[0]]),
    (r"\b(\d\d)/(\d\d)\b(?!/)", lambda m: f"{cardinal(int(m[1]))} {cardinal(int(m[2]))}" if int(m[1]) + int(m[2]) == 100 else m[0]),
    # telephones, addresses of machines, versions
    (rf"(?<![\w.]){IPV4}(?![\w.]\d)", lambda m: " dot ".join(map(digits, m[0].split(".")))),
    (r"(?<![\w.-])(?:\+?1[\s.-]?)?(?:\(\d{3}\)[\s.-]?\d{3}[\s.-]|\d{3}([.-])\d{3}\1|\b(?<=\+1 )\d{3} \d{3} )\d{4}(?![\w-])", _telephone),
    (r"(?<![\w.])\+\d{1,3}(?:[\s.-]?\(?\d{1,5}\)?){2,6}(?!\d)", _telephone),
    (r"(?i:(?<=call )|(?<=phone )|(?<=dial )|(?<=text )|(?<=tel )|(?<=tel\. )|(?<=fax )|(?=555-))\d{3}-\d{4}\b", _telephone),
    (r"\b\d{4}(?: \d{4}){3}\b", _telephone),
    (r"(?i:(?<=call )|(?<=called )|(?<=dial )|(?<=dialed )|(?<=phone )|(?<=text )|(?<=calling ))(?:911|999|112|988|411|311)\b",
     lambda m: digits(m[0])),
    (r"\b911(?= (?:call|operator|dispatcher|emergency))", lambda m: digits(m[0])),
    (r"\bv(?:er)?\.?\s?(\d+(?:\.\d+)*)\b", r"version \1"),
    # places
    (rf"\b(\d{{1,5}})([A-Z])? ((?:[NSEW]\.? )?(?:{_CAPITAL} ){{1,3}})({any_of(_STREETS)})\b\.?", _address),
    (rf"\b((?!{_GREETED}){_CAPITAL}) (St|Ave|Rd|Ln|Blvd|Hwy|Pkwy|Dr)\b(?:\.|(?!\.))(?=\s*(?:$|[,;.:!?)]|[a-z]))", _street),
    (r"\bSt\.(?=\s*(?:$|[,;.]|[a-z]))", "Street"),
    (r"\b([A-Z]{2}) (\d{5})(?:-(\d{4}))?\b",
     lambda m: f"{m[1]} {digits(m[2])}" + (f", {digits(m[3])}" if m[3] else "")),
    (r"\bP\.\s?O\.\s?(?=Box\b)", "PO "),
    (r"\b(Box|[Rr]oom|[Ss]uite|[Ff]light|Boeing|[Hh]ighway|Route|Interstate|area code) (\d{3,4})\b(?![,.]\d)",
     lambda m: f"{m[1]} {paired(int(m[2]))}"),
    (r"\bFt\.(?= [A-Z])", "Fort"),
    # abbreviations
    (r"\be\.g\.,?", "for example,"), (r"\bi\.e\.,?", "that is,"), (r"\betc\.(?=\s+[a-z(]|[,;])", "et cetera"), (r"\betc\.", "et cetera."),
    (r"\bet al\.", "et al"), (r"\ba\.k\.a\.", "also known as"), (r"\bPh\.\s?D\b\.?", lambda m: "PhD" + stop(m)),
    (r"\bLt\.? Col\.", "Lieutenant Colonel"),
    (r"\b(Motor|Steel|Oil|Trading|Publishing|Insurance|& [A-Z]\w+|[A-Z]\w+) Co\.", lambda m: f"{m[1]} Company" + stop(m)),
    (rf"\b({any_of(_BEFORE_NUMBERS)})\.\s?(?=\d)", lambda m: _BEFORE_NUMBERS[m[1]] + " "),
    (r"\b(Apt|Ste|Ext)\s(?=\d)", lambda m: _BEFORE_NUMBERS[m[1]] + " "),
    (rf"\b({any_of(_SHORT)})\.", lambda m: _SHORT[m[1]]),
    (r"\b((?:[A-Za-z]\.){2,})(?<![AaPp]\.[Mm]\.)", lambda m: m[1].replace(".", "").upper() + stop(m)),
    # Roman numerals
    (rf"\b((?:{_COUNTED}) )I\b(?!'|{_PRONOUN})", r"\1one"), (r"\b(type )I(?= (?:error|diabetes|collagen))", r"\1one"),
    (rf"\b((?:{_COUNTED}|(?i:type|phase|stage|chapter|volume|part|act|scene|class)) )((?!I\b){ROMAN})\b", _counted),
    (rf"\b({_RULERS}) ((?!X\b){_LOW_ROMAN}|(?<!Malcolm )X)\b(?!'|(?<=\bI){_PRONOUN}|\.\s?[A-Z])", _ruler),
    (rf"\b({_LOW_ROMAN})(?=(?:th|st|nd|rd)? (?:century|dynasty|Dynasty|Olympi)|e siècle)(?:th|st|nd|rd)?", lambda m: ordinal(roman(m[1]))),
    (rf"\b([A-Z][a-z]+ )((?=[XVI]{{2}}){_LOW_ROMAN})\b(?!(?<=IV|VI|XX) [a-z])(?!(?<=XXX))", _counted),
]
