"""How well the project speaks: spoken sentences are read back by its own ears and compared with what was written.

    texts -> speaker -> sound -> listener -> both sides normalised -> word or character error rate

Also how soon the first sound comes, how fast speech is made, and whether the pieces of sound join without a jump.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from sensorium.codecs import english, mandarin
from sensorium.codecs.audio import load_audio
from sensorium.evals.clips import Recording
from sensorium.evals.figures import Figure, commit
from sensorium.hear import transcribe
from sensorium.model import ModelNet
from sensorium.speak import Speaker, join
from sensorium.types import Audio, ConfigError

__all__ = ["errors", "evaluate_hearing", "evaluate_speech", "jump", "Listener", "own_ears", "peer_ears", "rate_figure", "read_as", "Spoken",
           "summary", "texts", "words_of"]

Listener = Callable[[Audio, str], str]  # sound and its language -> text

VOICES = {"en": ("af_heart", "am_michael", "bf_emma", "bm_george"), "zh": ("zf_xiaoxiao", "zm_yunxi")}
_PLAIN = {"mr": "mister", "mrs": "missis", "ms": "miz", "dr": "doctor", "ok": "okay", "vs": "versus", "cannot": "can not", "won't": "will not",
          "can't": "can not", "shan't": "shall not", "let's": "let us", "grey": "gray", "colour": "color", "metres": "meters", "metre": "meter",
          "neighbours": "neighbors", "neighbour": "neighbor", "percent": "per cent", "email": "e mail", "goodbye": "good bye"}
_SIMPLE = str.maketrans(  # other forms of the characters in texts/chinese.txt: Whisper writes traditional ones too
    "兩両個箇爲為舉挙麼樂楽習書買瞭從従們會關関齣別彆醫發発髮髪衹隻祇喫後聽聴迴園圖図場聲奧媽學傢將師幫牀開戲戯報時晩機來歡歓歩毎氣気沒遊燈點爺貓翫現電種約紙續続蘋視讓譲訴語說説請謝車邊辺運還這連裏裡鍾鐘鈡鐵鉄鎖門問間難霧靜麪麵麺頁題風飛飯館騎鮮鳥",
    "两两个个为为举举么乐乐习书买了从从们会关关出别别医发发发发只只只吃后听听回园图图场声奥妈学家将师帮床开戏戏报时晚机来欢欢步每气气没游灯点爷猫玩现电种约纸续续苹视让让诉语说说请谢车边边运还这连里里钟钟钟铁铁锁门问间难雾静面面面页题风飞饭馆骑鲜鸟")
_SHORT = [(r"n't\b", " not"), (r"'re\b", " are"), (r"'ll\b", " will"), (r"'ve\b", " have"), (r"'m\b", " am"), (r"'d\b", " would"),
          (r"\b(it|that|what|where|who|how|there|here|he|she)'s\b", r"\1 is")]


@dataclass(frozen=True)
class Spoken:
    """One sentence spoken and read back.

    Args:
        language, voice: "en" or "zh", and who spoke.
        text, heard: what was written, and what the listener wrote.
        wrong, of: edits between the two after normalisation, and words (characters in Chinese) of the text.
        first_s, took_s, length_s: seconds to the first sound, to all of it, and of sound.
        jump: largest step between neighbouring samples at a join.
    """

    language: str
    voice: str
    text: str
    heard: str
    wrong: int
    of: int
    first_s: float
    took_s: float
    length_s: float
    jump: float


def texts(language: str) -> list[str]:
    """The sentences of the test, "en" or "zh", written for it."""
    name = {"en": "english.txt", "zh": "chinese.txt"}[language]
    return (Path(__file__).parent / "texts" / name).read_text(encoding="utf-8").split("\n")[:-1]


def words_of(text: str, language: str) -> list[str]:
    """What is compared, the same for both sides: words without case, marks and short forms, numbers in words; in Chinese, simplified
    characters, numbers in characters."""
    if language == "zh":
        text = mandarin.spoken(text.translate(_SIMPLE)).lower().replace("两", "二")
        return re.findall(rf"[{mandarin.HAN}]|[a-z]+", text)
    text = re.sub(r"[^\w\s']", " ", english.spoken(text)).lower()
    text = " ".join(_PLAIN.get(word, word) for word in text.split())
    for pattern, made in _SHORT:
        text = re.sub(pattern, made, text)
    return text.replace("'", "").split()


def read_as(text: str, language: str) -> list[str]:
    """What is compared of a name said by itself: its words; in Chinese its syllables with their tones, for nothing around a name tells which of the
    characters that sound so are meant, and Whisper writes many of them in the traditional way."""
    words = words_of(text, language)
    if language != "zh":
        return words
    from pypinyin import Style, lazy_pinyin

    return lazy_pinyin("".join(words), style=Style.TONE3, neutral_tone_with_five=True)


def errors(wanted: Sequence[str], got: Sequence[str]) -> int:
    """The fewest words put in, left out or changed that lead from one to the other (Levenshtein)."""
    row = list(range(len(got) + 1))
    for i, word in enumerate(wanted, 1):
        corner, row[0] = row[0], i
        for j, other in enumerate(got, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (word != other))
    return row[-1]


def jump(pieces: Sequence[Audio]) -> float:
    """The largest step between neighbouring samples within 2 ms of a join."""
    whole, steps, place = join(pieces).source, [0.0], 0
    near = round(0.002 * pieces[0].rate_hz)
    for piece in pieces[:-1]:
        place += piece.source.numel()
        steps.append(float(whole[max(place - near, 0): place + near].diff().abs().max()))
    return max(steps)


def rate_figure(name: str, wrong: Sequence[int], of: Sequence[int], seed: int = 0, **beside: float) -> Figure:
    """An error rate over sentences: all errors over all words, with the 95 % interval of 1,000 draws of the sentences with replacement."""
    wrong_n, of_n = torch.tensor(wrong, dtype=torch.float64), torch.tensor(of, dtype=torch.float64)
    draw = torch.randint(len(wrong), (1000, len(wrong)), generator=torch.Generator().manual_seed(seed))
    drawn = wrong_n[draw].sum(dim=1) / of_n[draw].sum(dim=1)
    low, high = (float(value) for value in drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)))
    return Figure(name, float(wrong_n.sum() / of_n.sum()), low, high, len(wrong), seed, commit(), beside)


def _speak(speaker: Speaker, read: Listener, text: str, language: str, voice: str) -> Spoken:
    start, pieces, first_s = time.perf_counter(), [], 0.0
    for piece in speaker.speak(text, voice):
        first_s = first_s or time.perf_counter() - start
        pieces.append(piece)
    took_s, whole = time.perf_counter() - start, join(pieces)
    heard = read(whole, language)
    wanted = words_of(text, language)
    return Spoken(language, voice, text, heard, errors(wanted, words_of(heard, language)), len(wanted), first_s, took_s,
                  whole.source.numel() / whole.rate_hz, jump(pieces))


def evaluate_speech(speaker: Speaker, read: Listener, voices: dict[str, Sequence[str]] | None = None, seed: int = 0,
                    watch: Callable[[Spoken], None] | None = None, limit: int | None = None) -> tuple[list[Figure], list[Spoken]]:
    """Every sentence is spoken by one of the voices of its language, in turn, and read back.

    Args:
        read: sound, language -> text; the listener.
        voices: language -> names; None takes four English and two Chinese ones.
        watch: told of each sentence.
        limit: at most so many sentences of a language.

    Returns:
        Figures (error rate of each language, with each voice's beside it) and the sentences behind them.
    """
    voices = voices or VOICES
    for text in ("Ready.", "准备好了。"):  # what is read from disk is read before the clock starts
        list(speaker.speak(text))
    done: list[Spoken] = []
    for language, names in voices.items():
        for i, text in enumerate(texts(language)[:limit]):
            done.append(_speak(speaker, read, text, language, names[i % len(names)]))
            if watch:
                watch(done[-1])
    figures = []
    for language, kind in (("en", "word error rate, English"), ("zh", "character error rate, Chinese")):
        mine = [one for one in done if one.language == language]
        by = {name: [one for one in mine if one.voice == name] for name in voices.get(language, ())}
        beside = {name: sum(s.wrong for s in some) / sum(s.of for s in some) for name, some in by.items() if some}
        figures += [rate_figure(kind, [s.wrong for s in mine], [s.of for s in mine], seed, **beside)] if mine else []
    return figures, done


def summary(done: Sequence[Spoken]) -> dict[str, float]:
    """Of spoken sentences: seconds to the first sound (middle and longest), seconds of work a second of sound, largest jump at a join."""
    first = sorted(one.first_s for one in done)
    return {"first sound, middle (s)": first[len(first) // 2], "first sound, longest (s)": first[-1],
            "real-time factor": sum(one.took_s for one in done) / sum(one.length_s for one in done), "largest jump at a join": max(
                one.jump for one in done)}


def evaluate_hearing(listeners: dict[str, Listener], recordings: Sequence[Recording], seed: int = 0) -> list[Figure]:
    """Word error rate of each listener on the same real recordings; the others' stand beside it.

    Args:
        listeners: name -> sound, language -> text.
        recordings: English clips with their words, e.g. of `clips.fetch_clips`.
    """
    wrong = {name: [errors(words_of(clip.text, "en"), words_of(listen(clip.audio, "en"), "en")) for clip in recordings]
             for name, listen in listeners.items()}
    of = [len(words_of(clip.text, "en")) for clip in recordings]
    return [rate_figure(f"word error rate, {name}", wrong[name], of, seed,
                        **{other: sum(wrong[other]) / sum(of) for other in listeners if other != name}) for name in listeners]


def own_ears(model: ModelNet) -> Listener:
    """The project's own hearing as a listener."""
    return lambda audio, language: transcribe(model, audio, language).text


def peer_ears(folder: str | Path, threads: int | None = None) -> Listener:
    """faster-whisper (int8, greedy, no fallback temperatures) on the same weights as a listener.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        from faster_whisper import WhisperModel
    except ImportError as error:
        raise ConfigError("faster-whisper is not installed; it is only needed to compare with: pip install faster-whisper") from error
    with tempfile.TemporaryDirectory() as whole:  # it also wants the words as a list of their own
        for file in Path(folder).absolute().iterdir():
            (Path(whole) / file.name).symlink_to(file)
        listed = json.loads((Path(folder) / "tokenizer.json").read_text(encoding="utf-8"))
        number = listed["model"]["vocab"] | {token["content"]: token["id"] for token in listed["added_tokens"]}
        words = sorted(number, key=number.__getitem__)
        words += [f"<|{place * 0.02:.2f}|>" for place in range(1501)] if "<|0.00|>" not in number else []
        if not (Path(whole) / "vocabulary.json").exists():
            (Path(whole) / "vocabulary.json").write_text(json.dumps(words), encoding="utf-8")
        model = WhisperModel(whole, device="cpu", compute_type="int8", cpu_threads=threads or torch.get_num_threads())

    def read(audio: Audio, language: str) -> str:
        segments, _ = model.transcribe(load_audio(audio, 16_000).numpy(), language=language, beam_size=1, temperature=0.0,
                                       condition_on_previous_text=False)
        return "".join(segment.text for segment in segments)

    return read
