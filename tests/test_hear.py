"""Hearing: where speech is, windows and their times, the rules of what is written, words' times, captions, and real speech where weights are."""

from __future__ import annotations

import json
import math
import resource
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import sensorium as sn
from sensorium import captions, catalog, hear
from sensorium.dictation import Marks, Rules, Settings, Written, read_marks, write_down
from sensorium.hear import Heard, Hearing, Word
from sensorium.languages import cells, code_of, likely, pieces
from sensorium.pauses import RATE_HZ, STEP, Pauses, find_quiet, find_speech, open_finder
from sensorium.timing import Spoken, by_character, cheapest_path, split_words
from sensorium.types import CheckpointError, ConfigError, MediaError, ModalityError
from sensorium.windows import Window, cut_windows

MARKS = Marks(start=11, end=10, no_speech=15, no_times=16, transcribe=13, translate=14, languages={"en": 12, "zh": 9},
              never=(3, 11, 12, 13, 14, 15, 16), not_first=(2, 10))
TIMES = MARKS.times  # 17 is 0.00 s
VOCAB = TIMES + 1501
NEVER = float("-inf")


def at(seconds: float) -> int:
    return TIMES + round(seconds / 0.02)


class Loud:
    """Stands in for the voice detector: what is loud is speech."""

    def restart(self) -> None:
        self.rest = torch.zeros(0)

    def push(self, x_T: torch.Tensor) -> np.ndarray:
        whole = torch.cat([self.rest, x_T])
        pieces = len(whole) // STEP
        self.rest = whole[pieces * STEP :]
        return (whole[: pieces * STEP].reshape(-1, STEP).abs().amax(dim=1) > 0.05).float().numpy()


def track(length_s: float, *speech: tuple[float, float]) -> torch.Tensor:
    """Noise where somebody speaks, silence elsewhere."""
    x = torch.zeros(int(length_s * RATE_HZ))
    for start_s, end_s in speech:
        here = slice(int(start_s * RATE_HZ), int(end_s * RATE_HZ))
        x[here] = torch.randn(len(x[here]), generator=torch.Generator().manual_seed(int(start_s * 100))) * 0.2
    return x


def close(found: list[tuple[float, float]], wanted: list[tuple[float, float]], within: float = 0.07) -> None:
    assert len(found) == len(wanted), found
    for one, other in zip(found, wanted, strict=True):
        assert abs(one[0] - other[0]) < within and abs(one[1] - other[1]) < within, (found, wanted)


# where speech is


def test_spans_have_padding_and_share_short_pauses() -> None:
    x = track(20, (2, 5), (5.5, 8), (12, 12.05), (15, 19.9))
    close(list(find_speech([x], Loud())), [(1.6, 5.25), (5.25, 8.4), (14.6, 20)])
    wide = Pauses(pad_s=0.1, min_silence_s=1.0, min_speech_s=0.0)
    close(list(find_speech([x], Loud(), wide)), [(1.9, 8.1), (11.9, 12.15), (14.9, 20)])
    assert list(find_speech([torch.zeros(RATE_HZ)], Loud())) == []
    assert list(find_speech([], Loud())) == []
    with pytest.raises(ConfigError, match="leave"):
        Pauses(threshold=0.2)


@pytest.mark.parametrize("block", [100, 512, 16_001, 480_000])
def test_spans_do_not_depend_on_the_blocks(block: int) -> None:
    x = track(70, (1, 3), (4, 40), (50, 69))
    assert list(find_speech(x.split(block), Loud())) == list(find_speech([x], Loud()))


def test_long_speech_is_cut_where_it_is_quiet() -> None:
    x = track(80, (0, 80))
    x[int(25 * RATE_HZ) : int(25.3 * RATE_HZ)] *= 0.4
    for finder in (Loud(), None):
        spans = list(find_speech([x], finder))
        assert all(end - start <= 29.1 for start, end in spans) and abs(spans[0][1] - 25.15) < 0.1
        assert spans[0][0] == 0 and abs(spans[-1][1] - 80) < 0.01 and all(a[1] == b[0] for a, b in zip(spans, spans[1:], strict=False))


def test_without_a_detector_nothing_is_left_out() -> None:
    for length in (1, 100, RATE_HZ, 45 * RATE_HZ + 3):
        windows = list(cut_windows(torch.randn(length).split(7000), None))
        assert sum(len(window.x_T) for window in windows) == length and max(window.length_s for window in windows) <= 30


def test_windows_know_the_recordings_time() -> None:
    x = track(120, (5, 11), (20, 26), (40, 60), (100, 101))
    windows = list(cut_windows(x.split(30_000), Loud()))
    assert [len(window.pieces) for window in windows] == [2, 2] and all(window.length_s <= 30 for window in windows)
    first = windows[0]
    assert abs(first.time(0.4) - 5) < 0.1 and abs(first.time(6.8 + 0.4) - 20) < 0.1 and abs(first.end_s - 26.4) < 0.1
    for window in windows:  # every sample is where it says
        for offset_s in np.arange(0.05, window.length_s - 0.05, 0.37):
            there = int(round(window.time(float(offset_s)) * RATE_HZ))
            assert torch.equal(window.x_T[int(offset_s * RATE_HZ)][None], x[there - 2 : there + 3][(x[there - 2 : there + 3] ==
                               window.x_T[int(offset_s * RATE_HZ)]).nonzero()[0]])
    join_s = first.pieces[0][1]
    assert first.time(join_s) == pytest.approx(sum(first.pieces[0])) and first.time(join_s, late=True) == pytest.approx(first.pieces[1][0])
    rest = first.after(join_s + 1)
    assert len(rest.pieces) == 1 and rest.start_s == pytest.approx(first.pieces[1][0] + 1) and rest.end_s == pytest.approx(first.end_s)


def test_short_pauses_stay_in_the_window() -> None:
    windows = list(cut_windows([track(10, (1, 3), (3.9, 6))], Loud()))
    assert len(windows) == 1 and len(windows[0].pieces) == 1 and abs(windows[0].length_s - 5.8) < 0.1


def test_two_hours_in_little_memory() -> None:
    def blocks() -> Iterator[torch.Tensor]:
        for minute in range(120):
            yield track(60, (0.5, 20), (25, 59.8) if minute % 7 else (25, 60))

    before, heard_s = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0.0
    for window in cut_windows(blocks(), Loud()):
        heard_s += window.length_s
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown < 120 and 100 * 60 < heard_s < 120 * 60  # as float32 it is 440 MB


# what may be written


def allowed(tokens: list[int], logits: torch.Tensor | None = None) -> set[int]:
    logits = torch.zeros(1, VOCAB) if logits is None else logits
    if tokens:
        logits[:, :TIMES] += 20  # a word is likelier than all times together
    return set(torch.isfinite(Rules(MARKS, VOCAB).apply(logits.clone(), [tokens])[0]).nonzero()[:, 0].tolist())


def test_a_text_begins_with_a_time_within_the_first_second() -> None:
    assert allowed([]) == set(range(at(0), at(1) + 1))


def test_times_come_in_pairs_and_never_backwards() -> None:
    words = set(range(11)) - set(MARKS.never) - {10}
    assert allowed([at(0.5)]) == words | {10}, "after a start comes text (or the end)"
    assert allowed([at(0.5), 4]) == words | {10} | set(range(at(0.52), VOCAB)), "text goes on, or ends after it began"
    assert allowed([at(0.5), 4, at(2)]) == {10} | set(range(at(2), VOCAB)), "an end is followed by a start no earlier, or the end"
    assert allowed([at(0.5), 4, at(2), at(2)]) == words | {10}


def test_a_time_is_due_when_all_times_together_are_likelier() -> None:
    logits = torch.full((1, VOCAB), -9.0)
    logits[:, 4] = 0.0
    logits[:, at(3) : at(5)] = -2.0  # a hundred of them
    found = Rules(MARKS, VOCAB).apply(logits.clone(), [[at(0), 5]])
    assert int(found.argmax()) >= TIMES
    logits[:, at(3) : at(5)] = -6.0
    assert int(Rules(MARKS, VOCAB).apply(logits.clone(), [[at(0), 5]]).argmax()) == 4


class Script:
    """A reader that writes given tokens, one list a row; rows of a second opening get the next lists."""

    def __init__(self, texts: list[list[int]], sure: float = 9.0, silence: float = 0.0, language: int = 12) -> None:
        self.texts, self.sure, self.silence, self.language = texts, sure, silence, language
        self.read = torch.zeros(len(texts), 0, dtype=torch.int64)

    def extend(self, token_BT: torch.Tensor, length_B: torch.Tensor | None = None) -> torch.Tensor:
        self.read = torch.cat([self.read, token_BT], dim=1)
        logits = torch.zeros(len(self.texts), VOCAB)
        if self.read.shape[1] == 1:
            logits[:, self.language] = 5
            logits[:, MARKS.no_speech] = 30 if self.silence > 0.9 else -30
            return logits
        for row, text in zip(logits, self.texts, strict=True):
            place = self.read.shape[1] - 3
            row[text[place] if place < len(text) else MARKS.end] = self.sure
        return logits


def letters(tokens: list[int]) -> str:
    return "".join(f" {'abcdefghij'[token]}" for token in tokens)


def written(texts: list[list[list[int]]], settings: Settings | None = None, **options: float) -> list[Written]:
    """``texts``: for each turn, a list a row."""
    turns = iter(texts)
    return write_down(lambda x: Script(next(turns), **options), torch.zeros(len(texts[0]), 4, 2), MARKS, letters, settings=settings)


def test_rows_are_written_together_and_end_apart() -> None:
    one, two = [at(0), 4, 5, at(1)], [at(0.2), 6, at(1), at(1.2), 7, 8, at(3)]
    found = written([[one, two]])
    assert [row.tokens for row in found] == [one, two]
    assert all(row.language == "en" and row.mean > -0.3 and row.no_speech < 0.1 for row in found)


def test_a_row_that_loops_is_tried_again_alone() -> None:
    good, loop = [at(0), 4, 5, at(1)], [at(0), *[4, 5] * 40]
    found = written([[good, loop], [[at(0), 6, at(2)]]], sure=40.0)
    assert found[0].tokens == good and found[1].tokens == [at(0), 6, at(2)] and found[1].temperature == 0.2


def test_a_loop_that_stays_is_said_once() -> None:
    loop = [at(0), 7, *[4, 5] * 40]
    settings = Settings(temperatures=(0.0, 0.2), vouched=True)
    assert written([[loop], [loop]], settings, sure=40.0)[0].tokens == [at(0), 7, 4, 5]
    assert written([[loop], [loop]], replace(settings, vouched=False), sure=40.0)[0].tokens == []


def test_silence_is_not_written_down() -> None:
    text = [at(0), 4, at(1)]
    doubted = written([[text]], Settings(vouched=True), sure=1.0, silence=1.0)[0]
    assert doubted.silent(Settings(vouched=True)) and doubted.temperature == 0, "silence is not tried again"
    sure = written([[text]], Settings(vouched=True), sure=20.0, silence=1.0)[0]
    assert not sure.silent(Settings(vouched=True)) and sure.silent(Settings()), "without a detector the model's own doubt is enough"


def test_marks_are_found_in_a_tokenizer() -> None:
    specials = {"<|endoftext|>": 50257, "<|startoftranscript|>": 50258, "<|en|>": 50259, "<|zh|>": 50260, "<|translate|>": 50358,
                "<|transcribe|>": 50359, "<|startoflm|>": 50360, "<|startofprev|>": 50361, "<|nocaptions|>": 50362, "<|notimestamps|>": 50363}
    marks = read_marks(specials, {"suppress_ids": [1, 50258], "suppress_ids_begin": [220, 50257]})
    assert marks.languages == {"en": 50259, "zh": 50260} and marks.times == 50364 and marks.not_first == (220, 50257)
    assert {1, 50258, 50259, 50363} <= set(marks.never) and 50257 not in marks.never
    assert marks.prompt("zh", True) == [50260, 50358] and marks.prompt("en", False) == [50259, 50359]
    english = read_marks({name: token - 1 for name, token in specials.items()}, {})
    assert not english.languages and english.prompt(None, False) == []
    with pytest.raises(ConfigError, match="Whisper"):
        read_marks({"<|endoftext|>": 1}, {})


# when words were said


def test_the_cheapest_path_is_the_cheapest() -> None:
    cost = np.random.default_rng(0).random((5, 7))
    row, column = cheapest_path(cost)
    naive = np.full((6, 8), np.inf)
    naive[0, 0] = 0
    for i in range(5):
        for j in range(7):
            naive[i + 1, j + 1] = cost[i, j] + min(naive[i, j], naive[i, j + 1], naive[i + 1, j])
    assert cost[row, column].sum() == pytest.approx(naive[5, 7])
    assert (row[0], column[0], row[-1], column[-1]) == (0, 0, 4, 6) and set(np.diff(row)) <= {0, 1} and set(np.diff(column)) <= {0, 1}


def test_words_are_put_together() -> None:
    def split(pieces: list[str]) -> list[tuple[str, int]]:
        return split_words(list(range(len(pieces))), lambda ids: b"".join(
            piece if isinstance(piece := pieces[i], bytes) else piece.encode() for i in ids).decode("utf-8", "replace"))

    assert split([" Hel", "lo", ",", " wor", "ld", "!"]) == [(" Hello,", 3), (" world!", 3)]
    assert split([" don", "'t", " \"", "go", "\""]) == [(" don't", 2), (' "go"', 3)]
    assert split(["你", "好", "。", "吗"]) == [("你", 1), ("好。", 2), ("吗", 1)]
    assert split([b"\xe4\xbd", b"\xa0", "好"]) == [("你", 2), ("好", 1)]
    assert split([]) == []
    assert split([" The", " old", " light", "house", "。", "今", "天", "OK", "吗", " We"]) == [
        (" The", 1), (" old", 1), (" lighthouse。", 3), ("今", 1), ("天", 1), ("OK", 1), ("吗", 1), (" We", 1)]
    assert split(["น", "้", "ำ", " 2", "0", "年"]) == [("น้", 2), ("ำ", 1), (" 20", 2), ("年", 1)]
    found = by_character([Spoken("很好,", 1.0, 2.0, 0.9), Spoken("OK吧。", 2.0, 3.0, 0.8)])
    assert [(word.text, word.start_s, word.end_s) for word in found] == [("很", 1, 1.5), ("好,", 1.5, 2), ("OK", 2, 2.5), ("吧。", 2.5, 3)]
    mixed = [" The", " old", " 今天「OK」的", " We'll", " ครั้ง"]
    found = by_character([Spoken(text, 0.0, 1.0, 1.0) for text in mixed])
    assert [word.text for word in found] == [" The", " old", " 今", "天", "「OK」", "的", " We'll", " ค", "รั้", "ง"]


def test_a_language_is_told_from_codes_names_and_letters() -> None:
    for name, code in {"zh-CN": "zh", "zh_Hant": "zh", "chi": "zh", "Chinese": "zh", "English": "en", "EN": "en", "ger": "de", "deu": "de", 
                       "haw": "haw", "yue": "yue", "iw": "he", "nb": "no", "xx": "xx"}.items():
        assert code_of(name) == code
    order = ("zh", "ja", "en", "de", "ru")
    assert [likely(text, order) for text in ("The old man", "今天的天气 OK", "これは本です。東京都", "Привет", "αβγ", "12, 3!")] == [
        "en", "zh", "ja", "ru", "", "en"]
    assert pieces("He said “你好,我很好。OK” 42年, ラーメン") == [
        "He", " said", " “你", "好,", "我", "很", "好。", "OK”", " 42", "年,", " ラー", "メ", "ン"]
    assert cells("ab今。é") == 7 and cells("e\u0301") == 1


# the whole, with a model that is read from a script


class Ear(hear._Ear):
    """Hears what a script says of each window."""

    def __init__(self, script: Callable[[Window], Written]) -> None:
        self.marks, self.script, self.codec = MARKS, script, sn.AudioCodec()
        self.tokenizer = type("T", (), {"decode": staticmethod(letters)})()
        self.batches: list[list[Window]] = []

    def encode(self, model: object, windows: list[Window]) -> torch.Tensor:
        self.batches.append(list(windows))
        return torch.zeros(len(windows), 4, 2)


@pytest.fixture
def ear(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ear]:
    ear = Ear(lambda window: Written([at(0.4), 4, at(1), at(1), 5, at(min(window.length_s, 29) - 0.4)], "en", 0.0, -0.1))

    def write(open_reader: object, features: torch.Tensor, marks: Marks, decode: object, language: str | None, *rest: object) -> list[Written]:
        return [replace(ear.script(window), language=language or "en") for window in ear.batches[-1]]

    monkeypatch.setattr(hear, "_ear", lambda model: ear)
    monkeypatch.setattr(hear, "write_down", write)
    monkeypatch.setattr(hear, "open_finder", Loud)
    monkeypatch.setattr(hear, "steady", lambda x: float(x.abs().max()) < 1e-4)
    yield ear


def sound(x: torch.Tensor) -> sn.Audio:
    return sn.Audio(x, rate_hz=RATE_HZ)


def test_what_is_heard_has_the_recordings_time(ear: Ear) -> None:
    x = track(400, *[(start, start + 20) for start in range(10, 390, 40)])
    seen: list[tuple[float, float]] = []
    found = list(hear.listen(None, sound(x), watch=lambda done, total: seen.append((done, total))))
    assert [len(batch) for batch in ear.batches] == [1, 8, 1], "the first words come soon, the rest together"
    assert len(found) == 20 and [round(heard.start_s) for heard in found[::2]] == list(range(10, 390, 40))
    assert all(a.end_s <= b.start_s for a, b in zip(found, found[1:], strict=False)) and found[0].text == " e" and found[0].language == "en"
    assert abs(found[1].end_s - 30) < 0.2
    assert all(a[0] <= b[0] for a, b in zip(seen, seen[1:], strict=False)) and seen[-1] == (400, 400)


def test_parts_come_as_they_are_ready(ear: Ear) -> None:
    pieces = hear.listen(None, sound(track(100, (1, 20), (40, 60), (80, 99))))
    next(pieces)
    assert len(ear.batches) == 1


def test_what_a_window_left_unsaid_is_listened_to_again(ear: Ear) -> None:
    ear.script = lambda window: Written([at(0.4), 4, at(5)] if window.length_s > 10 else [at(0), 5, at(window.length_s)], "en", 0.0, -0.1)
    found = list(hear.listen(None, sound(track(20, (1, 14)))))
    assert [heard.text for heard in found] == [" e", " f"] and abs(found[1].start_s - 5.6) < 0.1 and abs(found[1].end_s - 14.4) < 0.1


@pytest.mark.parametrize("translate", [False, True])
@pytest.mark.parametrize("pause_s", [2.5, 5, 15, 60])
def test_times_follow_the_speech_and_not_the_pause(ear: Ear, monkeypatch: pytest.MonkeyPatch, pause_s: float, translate: bool) -> None:
    """Speech at 1 to 4.4 s, and after the pause for 2.6 s; the window is 0.6 to 4.8 s, then 0.4 s before the second speech and so on."""
    x, again_s = track(10 + pause_s, (1, 4.4), (4.4 + pause_s, 7 + pause_s)), 4.4 + pause_s
    ear.script = lambda window: Written([at(0), 4, at(4.3), at(4.3), 5, at(7.2)], "en", 0.0, -0.1)  # as whisper-base wrote it
    for skip in (True, False):
        one, two = hear.listen(None, sound(x), translate=translate, skip_silence=skip)
        assert one.start_s == pytest.approx(1, abs=0.1)
        assert one.end_s == pytest.approx(4.4, abs=0.1) and two.start_s == pytest.approx(again_s, abs=0.1) and two.end_s > again_s + 2
        assert (one.text, two.text) == (" e", " f")

    # one segment over both: its words say what was said on which side
    ear.script = lambda window: Written([at(0), 4, 5, 6, at(7.2)], "en", 0.0, -0.1)

    def time_words(model: object, features: object, prompts: object, texts: list[list[int]], end: int, lengths: object, words: object) -> object:
        assert texts == [[4, 5, 6]] and words == [[(" e", 1), (" f", 1), (" g", 1)]]
        return [[Spoken(" e", 0.4, 2.0, 1.0), Spoken(" f", 2.0, 4.5, 1.0), Spoken(" g", 4.5, 7.0, 1.0)]]

    monkeypatch.setattr(hear, "time_words", time_words)
    one, two = hear.listen(None, sound(x), translate=translate)
    assert (one.text, two.text, one.words) == (" e f", " g", ())
    assert one.end_s == pytest.approx(4.4, abs=0.1) and two.start_s == pytest.approx(again_s, abs=0.1)
    one, two = hear.listen(None, sound(x), words=True, translate=translate)
    assert [word.text for word in (*one.words, *two.words)] == [" e", " f", " g"]
    assert one.words[1].end_s == pytest.approx(4.4, abs=0.1) and two.words[0].start_s == pytest.approx(again_s, abs=0.1)


@pytest.mark.parametrize("ends_s", [(3.5, 5.5, 6.0, 7.0), (2.0, 3.0, 3.5, 7.0), (1.0, 1.5, 2.0, 7.0)])
def test_a_pause_stands_at_the_sentence_end_beside_it(ear: Ear, monkeypatch: pytest.MonkeyPatch, ends_s: tuple[float, ...]) -> None:
    said = {4: " It", 5: " rains.", 6: " We", 7: " go."}
    ear.tokenizer = type("T", (), {"decode": staticmethod(lambda tokens: "".join(said[token] for token in tokens))})()
    ear.script = lambda window: Written([at(0), 4, 5, 6, 7, at(7.2)], "en", 0.0, -0.1)
    times = [Spoken(word, start, end, 1.0) for word, start, end in zip(said.values(), (0.4, *ends_s), ends_s, strict=False)]
    monkeypatch.setattr(hear, "time_words", lambda *given: [times])
    assert [heard.text for heard in hear.listen(None, sound(track(25, (1, 4.4), (19.4, 22))))] == [" It rains.", " We go."]


def test_places_are_moved_out_of_pauses() -> None:
    window = Window(track(10, (0, 3.6), (4.4, 10)), ((100.0, 4.0), (200.0, 6.0)), pad_s=0.4)
    assert window.pauses == ((pytest.approx(3.6), pytest.approx(4.4)),)
    assert window.spoken(1, 4.1) == (1, pytest.approx(3.6)) and window.spoken(3.8, 6) == (pytest.approx(4.4), 6)
    assert window.spoken(1, 3) == (1, 3) and window.spoken(5, 6) == (5, 6)
    assert window.spoken(3, 4.7) == (3, pytest.approx(3.6)) and window.spoken(3.5, 5) == (pytest.approx(4.4), 5)  # the side with more of it
    assert window.spoken(3.7, 3.9) == (3.7, 3.9) and window.spoken(3.7, 4.2) == (3.7, 4.0) and window.spoken(3.9, 4.3) == (4.0, 4.3)
    assert window.crossed(1, 5) == [window.pauses[0]] and window.crossed(1, 4.2) == []
    leds = [window.led for window in cut_windows([track(80, (1, 70))], Loud())]
    assert leds == [True, False, False], "speech that is only cut has no pause before it"
    x = track(20, (0, 5), (5.5, 9), (12, 20)) + torch.randn(20 * RATE_HZ, generator=torch.Generator().manual_seed(1)) * 1e-3
    close(find_quiet(x), [(9, 12)])
    assert find_quiet(torch.zeros(0)) == []


def test_without_a_detector_digital_silence_is_not_read() -> None:
    windows = list(cut_windows([track(80, (1, 4), (70, 73))], None))
    assert len(windows) == 1 and windows[0].length_s == pytest.approx(7.6, abs=0.1) and windows[0].time(4.2, late=True) == pytest.approx(70, abs=0.1)


def test_each_segment_says_its_language(ear: Ear, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {4: " An old man", 5: "今天", 6: " came home"}
    ear.tokenizer = type("T", (), {"decode": staticmethod(lambda tokens: "".join(said[token] for token in tokens))})()
    ear.script = lambda window: Written([at(0), 4, at(2), at(2), 5, at(3), at(3), 6, at(5)], "zh", 0.0, -0.1, languages=("zh", "en"))
    monkeypatch.setattr(hear, "write_down", lambda *given: [ear.script(window) for window in ear.batches[-1]])
    found = hear.transcribe(None, sound(track(7, (1, 6.5))))
    assert [heard.language for heard in found.segments] == ["en", "zh", "en"]
    assert found.language == "en" and found.text == "An old man 今天 came home"
    assert captions.plain(found.segments) == found.text and json.loads(captions.write(found, "json"))["language"] == "en"


def test_another_language_is_taken_only_if_it_is_sure() -> None:
    text = [at(0), 4, at(1)]
    assert [written([[text]], Settings(usual=usual, another=another), language=9)[0].language
            for usual, another in ((None, 0.9), ("en", 0.9), ("en", 0.999), ("zh", 0.999), ("xx", 0.999))] == ["zh", "zh", "en", "zh", "zh"]


def test_silent_windows_and_silence_give_nothing(ear: Ear) -> None:
    assert list(hear.listen(None, sound(torch.zeros(60 * RATE_HZ)))) == [] and ear.batches == []
    ear.script = lambda window: Written([at(0), 4, at(1)], "en", 0.9, -2.0)
    result = hear.transcribe(None, sound(track(9, (1, 5))))
    assert result == Hearing("sound", "", "", ())


def test_languages_and_tasks_that_are_not_known(ear: Ear) -> None:
    with pytest.raises(ConfigError, match="one of en, zh"):
        next(hear.listen(None, sound(track(3, (1, 2))), language="xx"))
    ear.marks = replace(MARKS, languages={})
    with pytest.raises(ConfigError, match="multilingual"):
        next(hear.listen(None, sound(track(3, (1, 2))), translate=True))
    with pytest.raises(ConfigError, match="one of en"):
        next(hear.listen(None, sound(track(3, (1, 2))), language="zh"))
    with pytest.raises(MediaError):
        next(hear.listen(None, b"no sound"))


def test_models_that_do_not_hear() -> None:
    model = sn.Model(encoders={"text": sn.Vocabulary(9, 8)}).build()
    with pytest.raises(ModalityError, match="Whisper"):
        next(hear.listen(model, sound(track(3, (1, 2)))))


def test_steady_sounds_are_no_speech() -> None:
    t = torch.arange(20 * RATE_HZ) / RATE_HZ
    white = torch.randn(len(t), generator=torch.Generator().manual_seed(0)) * 0.1
    hum = sum(torch.sin(2 * math.pi * 50 * k * t) / k for k in range(1, 6)) * 0.1
    pink = torch.fft.irfft(torch.fft.rfft(white) / torch.arange(1, len(t) // 2 + 2).sqrt())
    for quiet in (torch.zeros(len(t)), white, white * 1e-3, hum, pink):
        assert hear.steady(quiet)
    spoken = white * (1.2 + torch.sin(2 * math.pi * 4 * t))
    assert not hear.steady(spoken) and not hear.steady(spoken[: RATE_HZ // 4])


# captions

TALK = (
    Heard(0.0, 2.5, " Hello there.", (Word(0.0, 1.0, " Hello", 0.9), Word(1.0, 2.5, " there.", 0.8)), "en"),
    Heard(3723.4567, 3726.0, " <b> & co", (), "en"),
)


def test_captions_are_written() -> None:
    assert captions.write(TALK) == "Hello there.\n<b> & co\n"
    assert captions.write(TALK, "srt") == ("1\n00:00:00,000 --> 00:00:02,500\nHello there.\n\n"
                                           "2\n01:02:03,457 --> 01:02:06,000\n<b> & co\n")
    assert captions.write(TALK, "vtt") == ("WEBVTT\n\n00:00:00.000 --> 00:00:02.500\nHello there.\n\n"
                                           "01:02:03.457 --> 01:02:06.000\n&lt;b&gt; &amp; co\n")
    data = json.loads(captions.write(Hearing("a.wav", "en", "x", TALK), "json"))
    assert data["language"] == "en" and data["text"] == "Hello there. <b> & co"
    assert data["segments"][0]["words"][1] == {"start_s": 1.0, "end_s": 2.5, "text": " there.", "probability": 0.8}
    assert [captions.write((), form) for form in captions.FORMATS[:3]] == ["", "", "WEBVTT\n"]
    with pytest.raises(ConfigError, match="text, srt"):
        captions.write(TALK, "doc")


def test_long_segments_become_short_captions() -> None:
    words = tuple(Word(i * 0.3, i * 0.3 + 0.25, f" word{i}", 1.0) for i in range(60))
    timed = captions.write([Heard(0, 18, "".join(word.text for word in words), words)], "srt")
    plain = captions.write([Heard(0, 18, "".join(word.text for word in words))], "srt")
    chinese = captions.write([Heard(0, 18, "这是一个很长的句子" * 9, (), "zh")], "srt")
    for text in (timed, plain, chinese):
        blocks = [block.splitlines() for block in text.split("\n\n")]
        assert len(blocks) >= 3 and all(len(lines) - 2 <= 2 for lines in blocks)
        assert all(len(line) <= (21 if text is chinese else 42) for lines in blocks for line in lines[2:])
        times = [time for lines in blocks for time in lines[1].split(" --> ")]
        assert times == sorted(times) and times[0] == "00:00:00,000"
    assert " ".join(line for block in timed.split("\n\n") for line in block.splitlines()[2:]) == " ".join(word.text.strip() for word in words)


def test_captions_of_mixed_languages_break_at_words() -> None:
    text = "The lighthouse keeper said 今天的天气很好，我们去公园散步吧。Then he went upstairs 看海，and the lamp was lit."
    for segment in (Heard(0, 20, text), Heard(0, 20, text, tuple(Word(i * 0.2, i * 0.2 + 0.2, piece, 1.0) for i, piece in enumerate(pieces(text))))):
        blocks = [block.splitlines()[2:] for block in captions.write([segment], "srt").split("\n\n")]
        lines = [line for block in blocks for line in block]
        assert all(cells(line) <= 42 for line in lines) and all(len(block) <= 2 for block in blocks)
        assert not any(line[0] in "，。" for line in lines)
        left = text
        for line in lines:  # nothing is lost but blanks at line ends, and no word is cut
            assert left.startswith(line), (left, line)
            left = left[len(line) :]
            assert not (left[:1].isascii() and left[:1].isalpha() and line[-1].isascii() and line[-1].isalpha())
            left = left.lstrip()
        assert left == ""
    long = captions.write([Heard(0, 5, "https://" + "a" * 60)], "srt").splitlines()[2:]
    assert all(len(line) <= 42 for line in long) and "".join(long) == "https://" + "a" * 60


def test_captions_that_are_hard_to_write() -> None:
    blank = [Heard(0, 1, "  "), Heard(1, 2, " One."), Heard(2, 3, "\n"), Heard(3, 4, " Two\n\nlines --> <i>.")]
    assert captions.write(blank, "srt") == "1\n00:00:01,000 --> 00:00:02,000\nOne.\n\n2\n00:00:03,000 --> 00:00:04,000\nTwo lines --> <i>.\n"
    assert captions.write(blank, "vtt").endswith("00:00:03.000 --> 00:00:04.000\nTwo lines --&gt; &lt;i&gt;.\n")
    assert "\n\n\n" not in captions.write(blank, "vtt")
    assert captions.write(blank, "text") == "One.\nTwo lines --> <i>.\n" and len(json.loads(captions.write(blank, "json"))["segments"]) == 2
    assert "100:00:00,000 --> 100:00:01,500" in captions.write([Heard(360_000, 360_001.5, "Late.")], "srt")
    slow = captions.write([Heard(0, 18, " Good morning.")], "srt")
    assert slow == "1\n00:00:00,000 --> 00:00:07,000\nGood morning.\n", "short text is one caption, and no longer than any"
    apart = [Word(0, 1, " One", 1.0), Word(2.5, 3, " two.", 1.0)]
    assert captions.write([Heard(0, 3, " One two.", tuple(apart))], "srt").count("-->") == 2, "a pause ends a caption"


# real weights, where they are


@pytest.fixture(scope="module")
def spoken() -> torch.Tensor:
    """A spoken sentence at 16 kHz."""
    pytest.importorskip("espeakng_loader")
    from sensorium.speak import open_speaker

    pieces = [piece.source for piece in open_speaker(None).speak("The weather is fine today, and we are going to the market.")]
    from sensorium.codecs.audio import load_audio

    return load_audio(sn.Audio(torch.cat(pieces), rate_hz=24_000))


def test_the_real_detector_finds_the_speech(spoken: torch.Tensor) -> None:
    if not catalog.ready("silero-vad"):
        assert open_finder() is None
        pytest.skip("needs: sensorium pull silero-vad")
    x = torch.cat([torch.zeros(3 * RATE_HZ), spoken, torch.zeros(2 * RATE_HZ)])
    spans = list(find_speech(x.split(5_000), open_finder()))
    assert spans and 2.4 < spans[0][0] < 3.5 and abs(spans[-1][1] - (3 + len(spoken) / RATE_HZ)) < 1
    noise = torch.randn(20 * RATE_HZ, generator=torch.Generator().manual_seed(0)) * 0.1
    assert list(find_speech([noise, noise * 0], open_finder())) == []


def test_weights_of_another_kind_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pull silero-vad"):
        open_finder(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"no onnx")
    with pytest.raises(CheckpointError, match="silero-vad"):
        open_finder(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["whisper-base", "whisper-tiny-en"])
def test_a_real_sentence_is_heard_and_noise_is_not(name: str, spoken: torch.Tensor) -> None:
    if not catalog.ready(name):
        pytest.skip(f"needs: sensorium pull {name}")
    from sensorium.named import open_model

    model = open_model(name)
    late = torch.cat([torch.zeros(40 * RATE_HZ), spoken])
    for skip in (True, False):
        found = hear.transcribe(model, sound(late), words=True, skip_silence=skip)
        assert "weather is fine today" in found.text.lower() and "market" in found.text.lower() and found.language == "en"
        words = [word for segment in found.segments for word in segment.words]
        assert 39 < words[0].start_s < 41.5 and words[-1].end_s <= len(late) / RATE_HZ + 0.1
        assert all(a.start_s <= a.end_s <= b.start_s + 1e-6 for a, b in zip(words, words[1:], strict=False))
        generator = torch.Generator().manual_seed(1)
        t = torch.arange(60 * RATE_HZ) / RATE_HZ
        white = torch.randn(len(t), generator=generator) * 0.1
        chords = sum(torch.sin(2 * math.pi * hz * t) for hz in (261.6, 329.6, 392.0)) * torch.exp(-2 * (t % 1)) * 0.1
        for noise in (torch.zeros(len(t)), white, chords, white * (1 + 0.5 * torch.sin(2 * math.pi * 0.3 * t))):
            assert hear.transcribe(model, sound(noise), skip_silence=skip).text == ""
