"""Speaking: words as read aloud, phonemes, sentences out of a stream, and sound that joins without a click."""

from __future__ import annotations

import importlib.util
import re
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sensorium as sn
from sensorium import catalog, speak
from sensorium.codecs import english, espeak, mandarin
from sensorium.codecs.phonemes import MOST, SYMBOLS, ids, phonemes, syllable
from sensorium.codecs.sentences import LONGEST, clauses, language, plain, sentences
from sensorium.speak import Speaker, Voice, join, open_speaker

pytest.importorskip("espeakng_loader")
kokoro = pytest.mark.skipif(not catalog.ready("kokoro-82m"), reason="wants the weights of kokoro-82m")
chinese = pytest.mark.skipif(importlib.util.find_spec("pypinyin") is None, reason="wants pypinyin and jieba")


@pytest.mark.parametrize(("text", "said"), [
    ("Dr. Lee paid $3.50 on 2024-03-15.", "Doctor Lee paid three dollars and fifty cents on March fifteenth, twenty twenty-four."),
    ("At 3:05 pm, 10:00 or 9 a.m.", "At three oh five PM, ten o'clock or nine AM."),
    ("The 1990s, 1905, 2005 and 1,234,567 people.",
     "The nineteen nineties, nineteen oh five, two thousand five and one million two hundred thirty-four thousand five hundred sixty-seven people."),
    ("Call 555-0123, pages 10-15, 1939–1945.",
     "Call five five five, zero one two three, pages ten to fifteen, nineteen thirty-nine to nineteen forty-five."),
    ("$5 million, €20, £1.01, ¥500, $0.99", "five million dollars, twenty euros, one pound and one penny, five hundred yen, ninety-nine cents"),
    ("1 kg at 100km/h and -5°C, 50% of 3/4",
     "one kilogram at one hundred kilometers per hour and minus five degrees Celsius, fifty percent of three quarters"),
    ("See https://www.example.com/a-b?q=1 or me@site.org.", "See example dot com slash a dash b or me at site dot org."),
    ("The U.S. won 21st place, 3.14 and 007, e.g. here.",
     "The US won twenty-first place, three point one four and zero zero seven, for example, here."),
    ("He lives on Baker St. near St. Paul.", "He lives on Baker Street near Saint Paul."),
])
def test_english_is_written_as_it_is_read(text: str, said: str) -> None:
    assert english.spoken(text) == said


def test_numbers_in_words() -> None:
    assert [english.cardinal(n) for n in (0, 13, 40, 101, -7)] == ["zero", "thirteen", "forty", "one hundred one", "minus seven"]
    assert english.cardinal(10**18 + 2) == "one quintillion two" and english.cardinal(10**21).startswith("one zero zero")
    assert [english.ordinal(n) for n in (1, 12, 20, 33)] == ["first", "twelfth", "twentieth", "thirty-third"]
    assert [mandarin.cardinal(n) for n in (0, 10, 12, 110, 1005, 2222, 20002, 100_005_000)] == [
        "零", "十", "十二", "一百一十", "一千零五", "两千二百二十二", "两万零二", "一亿零五千"]


@pytest.mark.parametrize(("text", "said"), [
    ("2024年涨了15%，共2个，3/4。", "二零二四年涨了百分之十五，共两个，四分之三。"),
    ("10-20人，-5℃，3km，2:05，8:00", "十到二十人，负五摄氏度，三公里，两点零五分，八点整"),
    ("$5万，¥3.50，2024-03-15，电话13800138000", "五万美元，三点五零元，二零二四年三月十五日，电话幺三八零零幺三八零零零"),
])
def test_chinese_is_written_as_it_is_read(text: str, said: str) -> None:
    assert mandarin.spoken(text) == said


@chinese
def test_tones_beside_each_other() -> None:
    assert mandarin.syllables("你好不会") == [["ni2", "hao3"], ["bu2", "hui4"]]
    for text, said in (("一个是不是", "yi2 ge4 shi4 bu5 shi4"), ("第一", "di4 yi1"), ("一百一十一", "yi4 bai3 yi1 shi2 yi1"),
                       ("看一看一月", "kan4 yi5 kan4 yi1 yue4"), ("我想买五百把雨伞", "wo2 xiang2 mai3 wu2 bai2 ba3 yu2 san3")):
        assert " ".join(" ".join(word) for word in mandarin.syllables(text)) == said


def test_the_symbols_are_the_published_ones() -> None:
    assert len(SYMBOLS) == 114 and len(set(SYMBOLS.values())) == 114
    assert [SYMBOLS[s] for s in ";A ᵊɹʤˈ↘ᵻ"] == [1, 24, 16, 42, 123, 82, 156, 173, 177]


def test_phonemes_of_english() -> None:
    text = "Hello, world! It's a little button; the idea of \"quoting\" things (really)."
    assert phonemes(text) == "həlˈO, wˈɜɹld! ɪts ɐ lˈɪTᵊl bˈʌtn; ðɪ Idˈiə ʌv \"kwˈOTɪŋ\" θˈɪŋz (ɹˈiəli)."
    assert phonemes("Hello, world!", "en-gb") == "həlˈQ, wˈɜːld!"
    assert phonemes("I think I'm near, I'll see my eye.") == "ˌI θˈɪŋk ˌIm nˈɪɹ, ˌIl sˈi mI ˈI."
    assert phonemes("CPUs and NASA's") == "sˌipˌijˈuz ænd nˈæsəz"
    assert phonemes("") == phonemes("—…")[:0] == "" and len(ids("həlˈO")) == 5
    with pytest.raises(sn.ConfigError, match="en-us, en-gb"):
        phonemes("a", "en-nz")


@chinese
def test_phonemes_of_chinese_and_of_both() -> None:
    assert phonemes("你好，世界！") == "ni↗xau↓, ʂɨ↘ʨje↘!"
    assert phonemes("我用Python写代码。") == "wo↓jʊ↘ŋ pˈIθən ɕje↓ tai↘ma↓."


@chinese
def test_every_syllable_of_mandarin_has_phonemes() -> None:
    from pypinyin.constants import PINYIN_DICT
    from pypinyin.contrib.tone_convert import to_tone3

    every = {to_tone3(said, neutral_tone_with_five=True) for readings in PINYIN_DICT.values() for said in readings.split(",")}
    assert len(every) > 1500
    for pinyin in every:
        made = syllable(pinyin)
        assert made and set(made) <= set(SYMBOLS) and sum(made.count(arrow) for arrow in "→↗↓↘") == (pinyin[-1] != "5"), pinyin


TEXT = ("Dr. Smith paid $3.50 to J. R. Tolkien. He left... Then \"Really?\" he asked. \"Yes!\" It is 5 p.m. Now go, e.g. home. Version 3.14 works.\n"
        "1. One thing\n- a bullet\n\n你好。今天天气……很好！“真的吗？”我用Python写代码，it works. Wow!!! 好的\n第二段")


def test_where_sentences_end() -> None:
    assert list(sentences([TEXT])) == [
        "Dr. Smith paid $3.50 to J. R. Tolkien.", "He left...", "Then \"Really?\" he asked.", "\"Yes!\"", "It is 5 p.m.", "Now go, e.g. home.",
        "Version 3.14 works.", "1. One thing", "- a bullet", "你好。", "今天天气……很好！",
        "“真的吗？”", "我用Python写代码，it works.", "Wow!!!", "好的", "第二段"]
    wrapped = "This line of text is so long that it had to be wrapped somewhere near its\nend and goes on. Next."
    assert list(sentences([wrapped])) == [wrapped[:-6], "Next."]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, len(TEXT)), max_size=12))
def test_sentences_do_not_depend_on_how_the_text_arrives(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(TEXT)]
    assert list(sentences(TEXT[a:b] for a, b in zip(places, places[1:]))) == list(sentences([TEXT]))


@settings(max_examples=80, deadline=None)
@given(st.text(st.sampled_from("aB1 .!?…\n\"')-。！，你，,;"), max_size=1500))
def test_no_text_is_lost(text: str) -> None:
    found = list(sentences(iter(text)))
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(len(sentence) <= LONGEST for sentence in found)


def test_a_sentence_is_ready_when_its_end_is_certain() -> None:
    def pieces() -> Iterator[str]:
        yield "One is here. "
        yield "Two"
        raise AssertionError("read on before the first sentence was given")

    assert next(sentences(pieces())) == "One is here."


def test_what_cannot_be_said_is_left_out() -> None:
    assert plain("# A **bold** `word` [link](http://x.y)") == "A bold word link"
    assert plain("Hi 😀👍🏽 there❤️!\x00\u200b") == "Hi there!" and plain("１２３％，你好") == "123%，你好" and plain("- item *one*") == "item one"
    assert [language(text) for text in ("我用Python写代码", "The word 你好 means hello", "123", "你好")] == ["zh", "en", "en", "zh"]


@given(st.text(st.sampled_from("ab ,;. and 你，"), max_size=600), st.integers(8, 60), st.one_of(st.none(), st.integers(8, 30)))
def test_clauses_are_short_enough_and_whole(text: str, longest: int, first: int | None) -> None:
    text = text.strip()
    found = list(clauses(text, longest, len, first))
    assert "".join("".join(found).split()) == "".join(text.split())
    assert all(len(part) <= max(longest, 1.5 * (first or 0)) for part in found)


def test_clauses_are_cut_where_a_voice_would_pause() -> None:
    text = "When the rain had stopped, we walked down to the harbour and looked at the boats that had come in."
    assert list(clauses(text, 200, len)) == [text]
    assert next(clauses(text, 200, len, first=40)) == "When the rain had stopped,"
    assert next(clauses(text[27:], 200, len, first=30)) == "we walked down to the harbour"


class _Beeps:
    """A stand-in for a voice: noise between silences, one loud and one quiet, as long as its text."""

    name, about, rate_hz = "beeps", "beeps", 8000
    voices = (Voice("low", "en-us"), Voice("high", "en-us"), Voice("zhong", "zh"))
    defaults = {"en": "low", "zh": "zhong"}

    def __init__(self) -> None:
        self.said: list[str] = []

    def measure(self, words: str, voice: Voice) -> int:
        return len(words) if any(letter.isalnum() for letter in words) else 0

    def prepare(self) -> None:
        pass

    def say(self, words: str, voice: Voice, speed: float) -> torch.Tensor:
        self.said.append(words)
        loud = 0.4 if len(self.said) % 2 else 0.1
        noise = torch.rand(int(400 * len(words) / speed), generator=torch.Generator().manual_seed(len(words))) * 2 - 1
        return torch.cat([torch.zeros(3000), loud * noise, torch.zeros(5000)])


def test_pieces_join_in_silence_and_at_one_level() -> None:
    pieces = list(Speaker(_Beeps()).speak("The first sentence is here. And a second one. 你好，世界。Is it so?"))
    assert [piece.info["voice"] for piece in pieces] == ["low", "low", "zhong", "low"]
    level = [float(piece.source[piece.source != 0].square().mean().sqrt()) for piece in pieces]
    assert max(level) / min(level) < 1.5, "one piece is louder than another"
    whole = join(pieces)
    assert whole.rate_hz == 8000 and whole.source.numel() == sum(piece.source.numel() for piece in pieces) and float(whole.source.abs().max()) <= 0.96
    place = 0
    for piece in pieces[:-1]:
        place += piece.source.numel()
        assert float(whole.source[place - 16: place + 16].diff().abs().max()) < 0.01, "a click at a join"
        quiet = (whole.source.abs() < 0.01).int()[place - 3200: place + 320]
        assert 0.3 < float(quiet.sum()) / 8000 < 0.6, "the pause between sentences is not a natural one"
    with pytest.raises(sn.MediaError, match="rates"):
        join([pieces[0], sn.Audio(torch.zeros(9), rate_hz=16_000)])


def test_the_first_sound_comes_before_the_text_is_finished() -> None:
    engine, given_ = _Beeps(), []

    def text() -> Iterator[str]:
        for word in re.findall(r"\S+", "Although it was late in the evening, nobody in the whole house wanted to go to bed. Then more."):
            given_.append(word)
            yield word + " "

    first = next(Speaker(engine).speak_stream(text()))
    assert first.info["text"] == "Although it was late in the evening," and "Then" in given_ and "more." not in given_


def test_what_a_speaker_refuses() -> None:
    speaker = Speaker(_Beeps())
    with pytest.raises(sn.ConfigError, match="no voice 'lwo'; near it: low"):
        speaker.speak("Hi.", "lwo")
    for speed in (0.4, 2.1, float("nan")):
        with pytest.raises(sn.ConfigError, match="speed"):
            speaker.speak("Hi.", speed=speed)
    for text in ("", "  \n", "😀👍", "…!?", "**"):
        with pytest.raises(sn.MediaError, match="nothing to say"):
            list(speaker.speak(text))
    assert len(list(speaker.speak("😀. Hello! ***"))) == 1


def test_without_weights_espeak_speaks_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SENSORIUM_HOME", str(tmp_path))
    speaker = open_speaker()
    assert speaker.name == "espeak-ng" and "sensorium pull kokoro-82m" in speaker.about
    pieces = list(speaker.speak("It costs $3.50, and that's all. Good night!"))
    assert [piece.info["text"] for piece in pieces] == ["It costs three dollars and fifty cents, and that's all.", "Good night!"]
    assert join(pieces).rate_hz == speaker.rate_hz and 2 < join(pieces).source.numel() / speaker.rate_hz < 8
    slow, quick = (join(speaker.speak("One two three four five.", speed=speed)).source.numel() for speed in (0.7, 1.6))
    assert 1.5 < slow / quick < 3
    assert next(iter(speaker.speak("今天天气很好。"))).info["voice"] == "cmn"
    with pytest.raises(sn.ConfigError, match="pull kokoro-82m"):
        open_speaker(tmp_path)


def test_espeak_without_its_wheel_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(sn.ConfigError, match="pip install espeakng-loader"):
        espeak._Library()


def test_espeak_in_many_threads_gives_each_its_own() -> None:
    texts = [f"number {english.cardinal(n)}" for n in range(40)]
    alone = [espeak.phonemes(text, voice) for text in texts for voice in ("en-us", "en-gb")]
    sound = espeak.waveform("one two three").numel()
    out: dict[int, str] = {}
    lengths: list[int] = []

    def work(start: int) -> None:
        for i in range(start, 2 * len(texts), 4):
            out[i] = espeak.phonemes(texts[i // 2], ("en-us", "en-gb")[i % 2])
        lengths.append(espeak.waveform("one two three").numel())

    threads = [threading.Thread(target=work, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [out[i] for i in sorted(out)] == alone
    assert all(abs(length / sound - 1) < 0.1 for length in lengths)  # its voice breathes a little: no two utterances are the same
    with pytest.raises(sn.ConfigError, match="no voice 'xx'"):
        espeak.phonemes("a", "xx")


@chinese
@pytest.mark.parametrize("text", [
    "x" * 3000, "你" * 1500, "a," * 2000, "\u202eabc\x00def\ufeff", "Привет, мир! مرحبا こんにちは 안녕", "<b>" * 300, "https://" + "a/" * 300, 
    "9" * 400,
    "$" * 50 + "1.2.3.4:5:6-7-8/9/10", "((((" * 100 + "a", "“" * 200 + "b", "a\u0301" * 200, "1" + ",000" * 30, "°C km/h %½² 3½", "e.g. " * 200])
def test_no_text_breaks_the_way_to_phonemes(text: str) -> None:
    for sentence in sentences([text]):
        said = plain(sentence)
        for words in (english.spoken(said), mandarin.spoken(said)):
            for part in clauses(words, 300, lambda some: len(phonemes(some))):
                made = phonemes(part)
                assert len(made) <= MOST and set(made) <= set(SYMBOLS)


@kokoro
def test_kokoro_has_its_voices_and_each_file_loads() -> None:
    speaker = open_speaker()
    assert speaker.name == "kokoro-82m" and speaker.rate_hz == 24_000
    counts = {tongue: sum(voice.language == tongue for voice in speaker.voices.values()) for tongue in ("en-us", "en-gb", "zh")}
    assert counts == {"en-us": 20, "en-gb": 8, "zh": 8}
    for name in speaker.voices:
        assert speak._style(catalog.place("kokoro-82m") / "voices" / f"{name}.bin").shape == (MOST, 1, 256)
    with pytest.raises(sn.ConfigError, match="af_heart"):
        speaker.voice("af_hart")


@kokoro
def test_kokoro_speaks_at_a_speed_and_joins_without_a_click() -> None:
    speaker = open_speaker()
    pieces = list(speaker.speak("The door is open. Come in!", "af_heart"))
    again = list(speaker.speak("The door is open. Come in!", "af_heart"))
    assert len(pieces) == 2 and all(torch.equal(a.source, b.source) for a, b in zip(pieces, again))
    place, whole = pieces[0].source.numel(), join(pieces).source
    assert float(whole[place - 48: place + 48].diff().abs().max()) < 0.005 and float(whole.abs().max()) <= 0.96
    slow, quick = (join(speaker.speak("The door is open.", "bm_george", speed)).source.numel() for speed in (0.7, 1.5))
    assert 1.6 < slow / quick < 2.7


def test_a_torn_model_or_voice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "voices").mkdir()
    (tmp_path / "voices" / "af_heart.bin").write_bytes(bytes(MOST * 256 * 4))
    (tmp_path / "model.onnx").write_bytes(b"no model at all" * 100)
    with pytest.raises(sn.CheckpointError, match="not an ONNX model"):
        list(open_speaker(tmp_path).speak("Hello."))
    (tmp_path / "torn.bin").write_bytes(b"\0" * 1000)
    with pytest.raises(sn.ConfigError, match="is not a voice"):
        speak._style(tmp_path / "torn.bin")


class _Loads(_Beeps):
    """A voice whose model takes a while to load."""

    loaded = False

    def prepare(self) -> None:
        time.sleep(0.2)
        self.loaded = True


def test_nothing_ends_while_the_voice_still_loads() -> None:
    """Neither with nothing to say, nor when who listens stops, nor when the text breaks off: a process that then ended would be aborted."""
    for how in ("nothing", "stopped", "broken"):
        engine = _Loads()
        if how == "nothing":
            with pytest.raises(sn.MediaError, match="nothing to say"):
                list(Speaker(engine).speak("..."))
        elif how == "stopped":
            sound = Speaker(engine).speak("One sentence. And another.")
            next(sound)
            sound.close()
        else:
            def broken() -> Iterator[str]:
                yield "One"
                raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                list(Speaker(engine).speak_stream(broken()))
        assert engine.loaded, how


def _field(number: int, value: int | str | bytes) -> bytes:
    """A protobuf field: a number below 128, or bytes shorter than that."""
    if isinstance(value, int):
        return bytes([*([number << 3] if number < 16 else [(number << 3) & 127 | 128, number >> 4]), value])
    value = value.encode() if isinstance(value, str) else value
    return bytes([number << 3 | 2, *([len(value)] if len(value) < 128 else [len(value) & 127 | 128, len(value) >> 7])]) + value


def tiny_onnx(speed: int, names: tuple[str, str, str] = ("input_ids", "style", "speed")) -> bytes:
    """An ONNX model with Kokoro's inputs, the speed of element type ``speed`` (1 float, 6 int32): it says style times speed."""
    def tensor(name: str, kind: int, *sides: str | int) -> bytes:
        shape = b"".join(_field(1, _field(1, side) if isinstance(side, int) else _field(2, side)) for side in sides)
        return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, shape)))

    cast = _field(1, names[2]) + _field(2, "fast") + _field(4, "Cast") + _field(5, _field(1, "to") + _field(3, 1) + _field(20, 2))
    times = _field(1, names[1]) + _field(1, "fast") + _field(2, "wave") + _field(4, "Mul")
    inputs = tensor(names[0], 7, 1, "n"), tensor(names[1], 1, 1, "w"), tensor(names[2], speed, 1)
    graph = _field(1, cast) + _field(1, times) + _field(2, "g") + b"".join(_field(11, one) for one in inputs) + _field(12, tensor("wave", 1, 1, "w"))
    return _field(1, 8) + _field(7, graph) + _field(8, _field(2, 13))


def test_each_export_of_kokoro_gets_the_types_that_it_asks_for(tmp_path: Path) -> None:
    """onnx-community's takes the speed as float, kokoro-onnx's newer one as int32."""
    pytest.importorskip("onnxruntime")
    style = torch.arange(MOST * 256, dtype=torch.float32)
    for kind in (1, 6):
        folder = tmp_path / str(kind)
        (folder / "voices").mkdir(parents=True)
        (folder / "voices" / "af_heart.bin").write_bytes(style.numpy().tobytes())
        (folder / "model.onnx").write_bytes(tiny_onnx(kind))
        engine = open_speaker(folder)._engine
        number = engine.measure("Hello.", engine.voices[0])
        for speed in (1.0, 2.0, *((1.5,) if kind == 1 else ())):
            said = engine.say("Hello.", engine.voices[0], speed)
            assert any(torch.equal(said, style.reshape(MOST, 256)[n - 1] * speed) for n in range(number, number + 3))
        if kind == 6:
            with pytest.raises(sn.ConfigError, match="whole speeds alone, and was given 1.5"):
                engine.say("Hello.", engine.voices[0], 1.5)
    (tmp_path / "1" / "model.onnx").write_bytes(tiny_onnx(8))
    speak._session.cache_clear()
    with pytest.raises(sn.CheckpointError, match=r"speed \(tensor\(string\)\), wanted|not an ONNX model"):
        engine = open_speaker(tmp_path / "1")._engine
        engine.say("Hello.", engine.voices[0], 1.0)


@pytest.mark.slow
@kokoro
@pytest.mark.skipif(not catalog.ready("whisper-base"), reason="wants the weights of whisper-base")
def test_whisper_reads_a_sentence_back() -> None:
    from sensorium.evals.speech import errors, words_of
    from sensorium.hear import transcribe

    model = sn.load(catalog.find("whisper-base"))
    for text, code in (("The children were laughing so loudly that we could not hear the music.", "en"), ("今天天气很好，我们去公园散步吧。", "zh")):
        heard = transcribe(model, join(open_speaker().speak(text)), code).text
        assert errors(words_of(heard, code), words_of(text, code)) <= 1, heard
