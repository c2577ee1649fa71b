"""Many media in one conversation: pictures anywhere among the words, few-shot samples, and videos as frames."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import sensorium as sn
from sensorium.codecs.chat import ChatTemplate
from sensorium.desk import Codecs, Desk
from sensorium.lessons import lessons_of
from sensorium.samples import parse_sample
from sensorium.zoo import ENTRIES

from .test_native import film

SPECIALS = ("<pad>", "<|im_start|>", "<end_of_utterance>", "<image>", "<fake_token_around_image>", "<global-img>", "<row_1_col_1>", "<row_1_col_2>")
BY_PART = ("{% for message in messages %}<|im_start|>{{ message['role'] | capitalize }}:{% for part in message['content'] %}"
           "{% if part['type'] == 'text' %}{{ part['text'] }}{% elif part['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}"
           "<end_of_utterance>\n{% endfor %}"
           "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}")
PLAIN = "{% for message in messages %}<|im_start|>{{ message['role'] + ':' + message['content'] }}<end_of_utterance>{% endfor %}"


def desk(template: str | None = BY_PART, video: sn.FramesCodec | None = None, split: bool = True) -> Desk:
    """A toy SmolVLM that looks at two tiles of 16 pixels and the whole."""
    text = sn.Tokenizer.train(["what is this? a red dog\n\n"] * 4, 300, SPECIALS)
    spec = ENTRIES["smolvlm"].toy()
    vocab = {"encoders": {**spec.encoders, "text": sn.Vocabulary(300, 32)}, "heads": {"text": sn.Tokens(32, 300)}}
    model = sn.Model(**{**vars(spec), **vocab}).build(seed=0, dtype=torch.float64)
    made = ChatTemplate(template, media={"image": "<image>"}) if template else None
    image = sn.SplitCodec(sn.VisionCodec(size=16), longest=32, split=split)
    return Desk(model, Codecs(text=text, image=image, template=made, context=400, end="<end_of_utterance>", video=video))


def picture(*colour: float, wide: int = 32) -> sn.Image:
    return sn.Image(torch.tensor(colour, dtype=torch.float32)[:, None, None].expand(3, 16, wide).clone())


def shown(desk: Desk, segment: object) -> str:
    """A segment as text, each run of four places of a medium as #."""
    ids = [desk.codecs.text.special("<image>") if media else token for token, media in zip(segment.token, segment.media, strict=True)]
    names = {number: name for name, number in desk.codecs.text.specials.items()}
    return "".join(names.get(i) or desk.codecs.text.decode([i]) for i in ids).replace("<image>" * 4, "#")


AROUND = "<fake_token_around_image>"
WIDE = f"{AROUND}<row_1_col_1>#{AROUND}<row_1_col_2>#\n\n{AROUND}<global-img>#{AROUND}"
ONE = f"{AROUND}<global-img>#{AROUND}"


def test_pictures_stand_where_they_were_said_in_every_message() -> None:
    at, red, blue = desk(), picture(1, 0, 0), picture(0, 0, 1)
    messages = [sn.user(red, "what is", blue, "this? <image>"), sn.assistant("a dog"), sn.user("a", red)]
    segment = at.prompt(messages, "text")
    assert shown(at, segment) == (
        f"<|im_start|>User:{WIDE}what is{WIDE}this? <image><end_of_utterance>\n<|im_start|>Assistant:a dog<end_of_utterance>\n"
        f"<|im_start|>User:a{WIDE}<end_of_utterance>\nAssistant:")
    assert [float(item.value[2].max()) for item in segment.inputs] == [-1.0] * 3 + [1.0] * 3 + [-1.0] * 3  # red, blue, red
    typed = at.codecs.text.special("<image>")
    assert typed not in segment.token, "what a person types is text"
    assert at.model.read(at.packer.pack([segment])).shape[1] == len(segment)


def test_pictures_stand_in_templates_that_know_only_texts() -> None:
    at = desk(PLAIN)
    assert shown(at, at.prompt([sn.user("a", picture(1, 0, 0), picture(0, 1, 0), "dog")], "text")) == (
        f"<|im_start|>user:a\n{WIDE}\n{WIDE}\ndog<end_of_utterance>")


def test_every_picture_of_a_question_is_seen() -> None:
    """Two pictures in one question: a change of either moves the answer, and their order counts."""
    at, colours = desk(), [(1, 0, 0), (0, 1, 0), (0, 0, 1)]

    def state(*pictures: sn.Image) -> torch.Tensor:
        return at.model.read(at.packer.pack([at.prompt([sn.user(*pictures, "what is this?")], "text")]))[0, -1]

    one, two, three = (picture(*colour) for colour in colours)
    states = [state(one, two), state(three, two), state(one, three), state(two, one)]
    assert all((a - b).abs().max() > 1e-6 for i, a in enumerate(states) for b in states[:i])


def test_few_shots_are_samples_of_the_one_format() -> None:
    """Three pictures with their names: each name is a lesson after all that stands before it."""
    at, files = desk(), {"a": (1, 0, 0), "b": (0, 1, 0), "c": (0, 0, 1)}
    parts = [part for name in files for part in ({"image": name}, {"text": "what is this?"}, {"text": f"a {name}", "target": True})]
    sample = parse_sample({"parts": parts}, "sample 1", Path)
    shot = sn.Sample(tuple(sn.Part(picture(*files[str(p.value.source)]), p.target) if p.modality == "image" else p for p in sample.parts))
    lessons = [at.lesson(messages, answer) for messages, answer in lessons_of(shot, "sample 1")]
    assert [len(segment.inputs) for segment in lessons] == [3, 6, 9]
    assert [at.codecs.text.decode([token for token in segment.label if token >= 0]) for segment in lessons] == ["a a", "a b", "a c"]
    packed, alone = (at.packer.pack(lessons, alone=alone) for alone in (False, True))
    torch.testing.assert_close(at.model.losses(packed)["next_token"], at.model.losses(alone)["next_token"], rtol=1e-9, atol=1e-10)


def test_a_video_is_a_few_of_its_frames() -> None:
    codec = sn.FramesCodec(sn.VisionCodec(size=16), most=5, rate_hz=2.0)
    made = codec.encode(sn.Video(film()))
    assert codec.chosen(30, 10.0) == [3, 9, 15, 21, 27] and codec.chosen(2, 10.0) == [1] and codec.chosen(1000, 10.0)[-1] == 900
    assert [float(x[:, 4:12, 4:12].mean() / 2 + 0.5) for x in made] == pytest.approx([number / 30 for number in (3, 9, 15, 21, 27)], abs=0.06)
    assert sn.from_json(codec.to_json()) == codec


def test_a_video_goes_to_a_model_that_reads_pictures() -> None:
    """As frames among texts that say when; and without a codec of its own, as a few frames."""
    still = sn.SplitCodec(sn.VisionCodec(size=16), longest=32, split=False)
    codec = sn.FramesCodec(still, most=3, before="{frames} frames of {length}\n", mark="\n{time}:", after="\n\n")
    at = desk(video=codec)
    values = torch.linspace(0, 1, 90)[:, None, None, None].expand(90, 3, 16, 32).clone()
    segment = at.prompt([sn.user(picture(1, 0, 0), "what is", sn.Video(values, rate_hz=1.0), "this?")], "text")
    stamps = "".join(f"\n{time}:{ONE}" for time in ("00:15", "00:45", "01:15"))
    assert shown(at, segment) == (f"<|im_start|>User:{WIDE}what is3 frames of 0:01:30\n{stamps}\n\nthis?<end_of_utterance>\nAssistant:")
    plain = desk(split=False)
    assert len(plain.prompt([sn.user(sn.Video(values, rate_hz=1.0), "this?")], "text").inputs) == 8
    assert plain.model.read(plain.packer.pack([plain.segment([sn.Video(film()), "this?"])])).shape[0] == 1


def test_bad_videos_are_refused(tmp_path: Path) -> None:
    codec = sn.FramesCodec(sn.VisionCodec(size=16))
    for bad, says in ((b"not a film" * 50, "not a video"), (film()[:200], "not a video|broken"), (str(tmp_path / "none.mp4"), "is missing"),
                      (torch.zeros(3, 16, 16), "shape")):
        with pytest.raises(sn.MediaError, match=says):
            codec.encode(sn.Video(bad, rate_hz=1.0))
    with pytest.raises(sn.MediaError, match="lasts 3 s, wanted at most 1"):
        sn.FramesCodec(sn.VisionCodec(size=16), longest_s=1.0).encode(sn.Video(film()))
    with pytest.raises(sn.ConfigError, match="most is 0"):
        sn.FramesCodec(sn.VisionCodec(size=16), most=0)
