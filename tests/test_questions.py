"""What a question tells of itself: its language, what of a film it asks for, and between which things it lets choose."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sensorium.codecs.questions import choices_of, side_of, written_in

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("text, language", [
    ("What is the capital of France?", "en"), ("中国的首都是哪里？", "zh"), ("日本の首都はどこですか？", "ja"), ("한국의 수도는 어디입니까?", "ko"),
    ("Какой город столица России?", "ru"), ("Яке місто є столицею України?", "uk"), ("ما هي عاصمة مصر؟", "ar"), ("پایتخت ایران کجاست؟ چرا؟", "fa"),
    ("เมืองหลวงของไทยคืออะไร", "th"), ("भारत की राजधानी क्या है?", "hi"), ("Ποια είναι η πρωτεύουσα;", "el"), ("מהי בירת ישראל?", "he"),
    ("Was ist die Hauptstadt von Frankreich?", "de"), ("Wo ist Berlin?", "de"), ("Quelle est la capitale de la France ?", "fr"),
    ("Qu’est-ce que c'est ?", "fr"), ("¿Dónde está Madrid?", "es"), ("Qual è la capitale d'Italia e dove sono i musei?", "it"),
    ("Qual é a capital do Brasil?", "pt"), ("Wat is de hoofdstad van Nederland?", "nl"), ("Jaka jest stolica Polski?", "pl"),
    ("Türkiye'nin başkenti neresi, nasıl bir şehir?", "tr"), ("Thủ đô của Việt Nam là gì?", "vi"), ("Apa ibu kota dari Indonesia?", "id"),
])
def test_the_language_of_a_question(text: str, language: str) -> None:
    assert written_in(text) == language


@pytest.mark.parametrize("text, language", [
    ("What does 你好 mean?", "en"), ("What does ありがとうございます mean?", "en"), ("How do you say 你好吗 in Chinese?", "en"),
    ("What is 中国人民银行?", "en"),
    ("Who wrote Война и мир?", "en"), ("Is 北京 big?", "en"), ("What is the meaning of 'la vie en rose'?", "en"), ("Who was Otto von Bismarck?",
    "en"),
    ("Where is Los Angeles?", "en"), ("Who is Leonardo da Vinci?", "en"), ("Name a song by Die Ärzte", "en"), ("Is crème brûlée a dessert?", "en"),
    ("What is the difference between は and が?", "en"), ("Is El Niño in the Pacific?", "en"), ("Is São Paulo in Brazil?", "en"),
    ("Python是什么？", "zh"), ("Python 的作者是谁？", "zh"), ("A股是什么？", "zh"), ("iPhone 15 Pro Max 多少钱？", "zh"), ("is和are的区别是什么？",
    "zh"),
    ("请翻译：What is the capital of France?", "zh"), ("The Beatles是谁？", "zh"), ("红苹果", "zh"), ("is と are の違いは何ですか", "ja"),
    ("Python とは何ですか？", "ja"),
    ("Что такое machine learning?", "ru"), ("Was bedeutet 'machine learning'? Ist das schwer?", "de"),
])
def test_names_and_quotes_of_another_language_leave_it(text: str, language: str) -> None:
    assert written_in(text) == language


def test_english_is_taken_for_nothing_else() -> None:
    """Every sentence of the README, the changelog and the documentation; words that other languages have too do not count for those."""
    for text in ("Add ten to two.", "Do no harm as a doctor", "A cache remembers no more than a window needs.", "Is it so?", "As in a film"):
        assert written_in(text) == "en", text
    count = 0
    for path in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")):
        for text in re.split(r"(?<=[.:;!?])\s+|\n", path.read_text(encoding="utf-8")):
            if len(text.split()) >= 3:
                count += 1
                assert written_in(text) in ("en", "zh", None), text  # a line may be Chinese words alone
    assert count > 2000


@pytest.mark.parametrize("text", ["", "3.5/2", "2 + 2 =", "😀", "frog", "Berlin", "Bonjour", "GPT-4", "?!", "C#"])
def test_what_tells_nothing_is_of_no_language(text: str) -> None:
    assert written_in(text) is None


@pytest.mark.parametrize("question, side", [
    ("What colour is the screen?", "seen"), ("Is it red?", "seen"), ("What do you see?", "seen"), ("What is she wearing?", "seen"),
    ("屏幕是什么颜色？",
    "seen"),
    ("画面里有什么？", "seen"), ("What is said?", "said"), ("Who is speaking?", "said"), ("What does he talk about?", "said"), ("Transcribe this",
    "said"),
    ("他说了什么？", "said"), ("视频里放的是什么音乐？", "said"), ("What is this?", None), ("Summarise the film", None), ("What happens?", None),
    ("", None),
    ("What colour is the screen while she speaks?", None), ("这是什么？", None), ("Show me what he said", None),
])
def test_what_of_a_film_is_asked_for(question: str, side: str | None) -> None:
    assert side_of(question) == side


@pytest.mark.parametrize("question, choices", [
    ("Is this an animal or a vehicle?", ("an animal", "a vehicle")), ("Is it red or blue?", ("red", "blue")), ("A cat or a dog?", ("A cat",
    "a dog")),
    ("Is this a cat, a dog or a bird?", ("a cat", "a dog", "a bird")), ("Is this a cat, a dog, or a bird?", ("a cat", "a dog", "a bird")),
    ("Is that either a hat or a crown ?", ("a hat", "a crown")), ("What is this: a boat or a car?", ("a boat", "a car")),
    ("Are they cats or dogs?", ("cats", "dogs")), ("是动物还是车？", ("动物", "车")), ("这是猫还是狗？", ("猫", "狗")), ("图片里是猫、狗还是鸟？",
    ("猫", "狗", "鸟")),
    ("这张图片是水果还是动物呢？", ("水果", "动物")), ("猫还是狗", ("猫", "狗")), ("它是红色的还是蓝色的？", ("红色的", "蓝色的")),
    ("Is there a cat or a dog?", ()), ("Is this a cat or not?", ()), ("Is this a cat or something else?", ()), ("What is this?", ()),
    ("Do you see a cat or a dog?", ()), ("Describe the cat or the dog.", ()), ("Is this or that right?", ()), ("这是什么？", ()), ("还是不知道", ()),
    ("Did it rain or snow?", ()), ("Has the cat eaten or slept?", ()), ("Should I eat it or throw it away?", ()), ("Why is it red or blue?", ()),
    ("Tell me, cat or dog?", ()), ("他还是很高兴吗？", ()), ("我还是不懂，这是什么？", ()),
    ("Is it what I think or is it something that nobody knows?", ()),
    ("Can it fly or swim?", ()), ("What is this or what is it for?", ()), ("Is it an orange?", ()),
])
def test_the_choices_of_a_question(question: str, choices: tuple[str, ...]) -> None:
    assert choices_of(question) == choices


@pytest.mark.parametrize("text", ["List El Salvador, La Paz and San Jose", "La La Land", "Los Alamos, La Jolla", "Draw Die Zeit", "Des Moines Iowa"])
def test_names_are_no_other_language(text: str) -> None:
    assert written_in(text) in ("en", None)
