"""What nano reads and writes beside text and pictures: sounds and videos in and out, the matrix of conversions, parts that grow on a model."""

from __future__ import annotations

import io
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

import sensorium as sn
from sensorium import engine
from sensorium.catalog import WEIGHTS
from sensorium.codecs.clips import load_video, read_video_info
from sensorium.conversions import Converter, voice_of
from sensorium.denoise import Solver
from sensorium.engine import QUESTIONS
from sensorium.evals.motion import flow_energy
from sensorium.evals.nano import Held, Points
from sensorium.evals.senses import evaluate_senses, ratio
from sensorium.matrix import make_matrix
from sensorium.types import MODALITIES

from .toys import saved_whole_toy, tokenizer, toy_nano

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))
import nano_voice  # noqa: E402

import nano  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::sensorium.TruncationWarning")  # the toy hears a third of a second

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy of all senses, saved."""
    return saved_whole_toy(tmp_path_factory.mktemp("toy") / "whole")


@pytest.fixture(scope="module")
def values(tmp_path_factory: pytest.TempPathFactory) -> dict[str, sn.Text | sn.Media]:
    """One value of each modality."""
    folder, generator = tmp_path_factory.mktemp("values"), torch.Generator().manual_seed(0)
    return {"text": sn.Text("red apple"),
            "image": sn.Image(sn.Image(torch.rand(3, 32, 32, generator=generator)).save(folder / "a.png")),
            "audio": sn.Audio(sn.Audio(torch.rand(16_000, generator=generator) - 0.5, {}, 16_000).save(folder / "a.flac")),
            "video": sn.Video(sn.Video(torch.rand(4, 3, 32, 32, generator=generator), {}, 8.0).save(folder / "a.webp"))}


@pytest.mark.parametrize("source", MODALITIES)
def test_everything_becomes_everything(toy: Path, values: dict[str, sn.Text | sn.Media], source: str) -> None:
    model = sn.load(toy)
    reply = sn.respond(model, sn.Request([sn.user(values[source])], want=MODALITIES, steps=2, max_tokens=4))
    assert [part.modality for part in reply.parts] == list(MODALITIES)
    again = sn.respond(model, sn.Request([sn.user(values[source])], want=("video",), steps=2)).parts[0]
    assert torch.equal(torch.as_tensor(again.source), torch.as_tensor(reply.parts[3].source)), "the same seed moves the same way"
    point = sn.embed(model, [values[source]])
    assert point.shape == (1, 24) and float(point.norm()) == pytest.approx(1, abs=1e-5)


def test_what_is_written_says_what_made_it(toy: Path, tmp_path: Path) -> None:
    reply = sn.respond(sn.load(toy), sn.Request([sn.user("red apple")], want=("audio", "video"), steps=2, seed=7))
    sound, film = reply.parts
    from sensorium.codecs.audio import read_sound_info

    said = read_sound_info(sound.save(tmp_path / "a.wav"))
    assert (said["model"], said["seed"], said["text"]) == ("whole", 7, "red apple")
    for ending in ("webp", "gif", "png", "mp4", "webm"):
        made = film.save(tmp_path / f"a.{ending}")
        assert {"model": "whole", "seed": 7, "steps": 2}.items() <= read_video_info(made).items(), ending
        frames = load_video(sn.Video(made))
        assert frames.shape[0] <= 2 and frames.shape[1:] == (3, 32, 32)
    with pytest.raises(sn.MediaError, match="wanted one of"):
        film.save(tmp_path / "a.avi")
    assert not (tmp_path / "a.avi").exists()


def test_frames_without_motion_are_pictures(toy: Path) -> None:
    """Motion starts as if it were not there: each frame is then what the head of pictures makes of it."""
    spec = sn.load(toy).spec
    model = spec.build(seed=1).eval()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "motion" not in name:
            parameter.data.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    x = torch.randn(2, 3, 2, 32, 32, generator=generator)
    none = torch.full((2,), -1)
    written = sn.types.Written(x, none, none, none * 0, none, none)
    times, known, state = torch.tensor([0.3, 0.6]), torch.zeros(2, dtype=torch.bool), torch.randn(2, 24, generator=generator)
    film = model.write("video", x, times, written, known, None, state)
    stills = [model.write("image", x[:, :, i], times, written, known, None, state) for i in range(2)]
    assert torch.allclose(film, torch.stack(stills, dim=2), atol=1e-5)
    for look in model.fuse["motion"].layers:
        torch.nn.init.normal_(look.up.weight)
    moved = model.write("video", x, times, written, known, None, state)
    assert not torch.allclose(film, moved, atol=1e-3)
    x[0, :, 1] += 1
    other = model.write("video", x, times, written, known, None, state)
    assert not torch.allclose(other[0, :, 0], moved[0, :, 0], atol=1e-4), "a frame sees the others of its video"
    assert torch.allclose(other[1], moved[1], atol=1e-5), "and those of no other"


def test_the_better_of_two_is_kept(toy: Path) -> None:
    """``best_of``: what the model's own eyes find nearest to the words; never farther than the first."""
    model = sn.load(toy)
    words = [["red apple"], ["a dog"], ["blue sky"]]
    asked = sn.embed(model, [some[0] for some in words])
    one, best = (sn.draw_images(model, words, Solver(steps=2), best_of=count) for count in (1, 5))
    near = [(sn.embed(model, made) * asked).sum(dim=1) for made in (one, best)]
    assert (near[1] >= near[0] - 1e-6).all() and (near[1] > near[0] + 1e-6).any()
    with pytest.raises(sn.ModalityError, match="best_of"):
        blind = replace(toy_nano(tokenizer().vocab), heads={"image": model.spec.heads["image"]}, objectives=(sn.FlowMatching(),))
        sn.draw_images(blind.build(), words, Solver(steps=2), sn.Codecs.load(toy), best_of=2)


def test_a_video_is_told_of_by_its_most_telling_frame(toy: Path) -> None:
    """What is written of it is what is written of that frame; a conversation without videos stays as it is."""
    model, question = sn.load(toy), "What is this?"
    frames = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    used = sn.Codecs.load(toy).video.frames
    film, stills = sn.Video(frames, rate_hz=8.0), [sn.Image(frames[int((i + 0.5) * len(frames) / used)]) for i in range(used)]
    points = sn.embed(model, [film, *stills])
    nearest = stills[int((points[1:] @ points[0]).argmax())]
    for tell in (lambda *values: sn.write_texts(model, [values])[0], lambda *values: sn.respond(model, sn.Request([sn.user(*values)])).text):
        assert tell(film, question) == tell(nearest, question)


def test_a_video_sets_off_from_its_still(toy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its frames are the picture that the same words and seed draw, the more so the less of it goes back to noise."""
    model, words, solver = sn.load(toy), [["red apple"], ["a dog"]], Solver(steps=4, seed=3)
    stills = [picture.source for picture in sn.draw_images(model, words, solver, best_of=2)]
    far = {}
    for strength in (0.0, 0.5, 1.0):
        monkeypatch.setattr("sensorium.engine.SETS_OFF", strength)
        films = [film.source for film in sn.draw_videos(model, words, solver, best_of=2)]
        far[strength] = sum(float((film - still).abs().mean()) for film, still in zip(films, stills, strict=True))
    assert far[0.0] < 1e-6 < far[0.5] < far[1.0]


def test_a_picture_is_changed_where_and_as_much_as_is_said(toy: Path, tmp_path: Path) -> None:
    model, codec = sn.load(toy), sn.VisionCodec(size=32)
    generator = torch.Generator().manual_seed(3)
    path = sn.Image(torch.rand(3, 32, 32, generator=generator)).save(tmp_path / "given.png")
    given = codec.decode(codec.encode(sn.Image(path))).source

    def made(strength: float | None, mask: sn.Image | None = None) -> torch.Tensor:
        request = sn.Request([sn.user(sn.Image(path), "3D style")], want=("image",), steps=10, strength=strength, mask=mask)
        return sn.respond(model, request).image.source

    assert torch.allclose(made(0.0), given, atol=1e-6)
    far = [float((made(strength) - given).abs().mean()) for strength in (0.3, 0.6, 1.0)]
    assert 0 < far[0] < far[1] < far[2]
    half = torch.zeros(3, 32, 32)
    half[:, :, 16:] = 1
    mixed = made(0.8, sn.Image(half))
    assert torch.allclose(mixed[:, :, :16], given[:, :, :16], atol=1e-5) and not torch.allclose(mixed[:, :, 16:], given[:, :, 16:], atol=0.05)
    with pytest.raises(sn.ConfigError, match="strength changes one picture, and the request has 0"):
        sn.respond(model, sn.Request([sn.user("red apple")], want=("image",), strength=0.5))


@pytest.mark.parametrize("sense", ("audio", "video"))
def test_what_sounds_or_moves_is_drawn_by_its_name(toy: Path, values: dict[str, sn.Text | sn.Media], sense: str,
                                                   monkeypatch: pytest.MonkeyPatch) -> None:
    model, names = sn.load(toy), ["red apple", "小狗"]
    thing_O, *point_NO = sn.embed(model, [values[sense], *names])
    near, far = sorted(names, key=lambda name: -float(point_NO[names.index(name)] @ thing_O))
    answers = dict(zip(QUESTIONS.values(), names, strict=True))
    monkeypatch.setattr(engine, "write_texts", lambda model, prompts, *more: [answers[asked] + "\ufffd" for _, asked in prompts])

    def many(value: sn.Text | sn.Media) -> torch.Tensor:
        return sn.draw_images(model, [[value]], Solver(steps=2))[0].source

    def one(value: sn.Text | sn.Media) -> torch.Tensor:
        return sn.respond(model, sn.Request([sn.user(value)], want=("image",), steps=2)).parts[0].source

    for drawn in (many, one):
        assert torch.equal(drawn(values[sense]), drawn(sn.Text(near))) and not torch.equal(drawn(values[sense]), drawn(sn.Text(far)))


def test_the_matrix_is_a_page(toy: Path, values: dict[str, sn.Text | sn.Media], tmp_path: Path) -> None:
    model = sn.load(toy)
    converter = Converter(model, "toy", voice_of(model, "toy"), Solver(steps=2))
    page = make_matrix(tmp_path, converter, list(values.values()), QUIET).read_text(encoding="utf-8")
    assert len(list(tmp_path.glob("*-to-*"))) == 16
    assert page.count("<audio") == 5 and page.count("toy; ") == 16  # four made, one given
    assert [converter.way(source, target) for source in MODALITIES for target in MODALITIES] == ["toy"] * 16
    with pytest.raises(sn.ModalityError, match="no modality"):
        converter.convert([sn.Text("a")], "smell")


def test_a_matrix_without_a_sense_says_which(tmp_path: Path) -> None:
    converter = Converter(toy_nano().build(), "toy")
    with pytest.raises(sn.ModalityError, match="toy does not read video"):
        converter.way("video", "text")
    with pytest.raises(sn.ModalityError, match="sensorium pull kokoro-82m"):
        converter.way("text", "audio")


def test_flow_sees_how_far_things_move() -> None:
    generator = torch.Generator().manual_seed(0)
    texture = torch.nn.functional.avg_pool2d(torch.rand(1, 3, 96, 96, generator=generator), 9, stride=1, padding=4)[0]
    texture = (texture - texture.mean()) * 4 + 0.5

    def film(step: int) -> torch.Tensor:
        return torch.stack([texture.roll(step * i, dims=2)[:, 16:80, 16:80] for i in range(4)])

    assert flow_energy(film(0)) == pytest.approx(0, abs=1e-9)
    one, two = flow_energy(film(1)), flow_energy(film(2))
    assert one == pytest.approx((100 / 64) ** 2, rel=0.25) and two == pytest.approx(4 * one, rel=0.3)
    figure = ratio("motion", [1.0, 3.0, 2.0], [2.0, 6.0, 4.0])
    assert (figure.value, figure.low, figure.high, figure.n) == (0.5, 0.5, 0.5, 3)


def test_senses_are_measured(toy: Path, values: dict[str, sn.Text | sn.Media], tmp_path: Path) -> None:
    rows = [{"id": "1f34e", "en": "red apple", "zh": "红苹果"}, {"id": "1f415", "en": "a dog", "zh": "小狗"}]
    sound, picture, clip = (shutil.copy(values[name].source, tmp_path) for name in ("audio", "image", "video"))

    def write(name: str, lines: list[dict]) -> None:
        (tmp_path / name).write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")

    write("concepts.jsonl", rows)
    write("test.jsonl", [{"parts": [{"image": Path(picture).name}], "concept": row["id"]} for row in rows])
    console, said = Console(record=True, width=200, file=io.StringIO()), sn.load(toy)
    said = replace(said.spec, heads={k: v for k, v in said.spec.heads.items() if k in ("text", "embed")}, objectives=()).build()
    said.folder = toy
    assert evaluate_senses(Points(said, Held(tmp_path), console), "toy") == []
    assert "sensorium.corpus.spoken" in (text := console.export_text()) and "sensorium.corpus.animated" in text
    write("spoken.jsonl", [{"parts": [{"audio": Path(sound).name}, {"text": row[tongue], "target": True}], "take": "test", "language": tongue,
                            "concept": row["id"], "heard": heard} for row in rows for tongue in ("en", "zh") for heard in (True, False)])
    write("clips.jsonl", [{"parts": [{"video": Path(clip).name}], "concept": row["id"], "split": "test"} for row in rows])
    found = {figure.name: figure for figure in evaluate_senses(Points(said, Held(tmp_path), QUIET), "toy")}
    assert found["hearing a name in English, R@5"].value == found["naming a clip in Chinese, R@5"].value == 1.0
    assert found["hearing a name in English, R@1"].n == 2 and 0 <= found["finding by a spoken name in English, R@5"].value <= 1


def test_parts_grow_on_the_folder_that_ships(tmp_path: Path) -> None:
    """A voice that was trained joins a nano without one, and what it could do before it does as before."""
    bare = nano.nano(nano.VOCAB)
    core = {name: value for name, value in sn.load(WEIGHTS / "nano").state_dict().items()}
    before = bare.build()
    before.load_state_dict({name: core[name] for name in before.state_dict()})
    files = {name: (WEIGHTS / "nano" / name).read_bytes() for name in ("tokenizer.json", "card.json")}
    out = sn.save(before, tmp_path / "ships", {**files, "codecs.json": nano.codecs().to_json().encode()}, dtype=torch.bfloat16)
    run = tmp_path / "run"
    trained = nano_voice.speaking(bare).build(seed=5)
    files = {"codecs.json": replace(nano.codecs(), voice=sn.VoiceCodec()).to_json().encode()}
    sn.save(trained, run / "final", files, only=[name for name in trained.state_dict() if name.startswith("heads.audio")])  # as a run over nano does
    (run / "log.jsonl").write_text('{"step": 3, "speaking": 2.0}\n', encoding="utf-8")
    (run / "history.json").write_text('[{"step": 3, "validation": {"speaking": 2.0}}]', encoding="utf-8")
    for _ in range(2):  # again, to replace it
        nano.add_parts("voice", run, out, nano_voice.PARTS, nano_voice.speaking, "audio")
    grown = sn.load(out)
    assert grown.spec == nano_voice.speaking(bare) and sn.Codecs.load(out).voice == sn.VoiceCodec()
    for name, value in grown.state_dict().items():
        source = trained if name.startswith("heads.audio") else before
        assert torch.equal(value, source.state_dict()[name].bfloat16().float()), name
    card = json.loads((out / "card.json").read_text(encoding="utf-8"))
    assert card["parts"]["voice"]["steps"] == 3 and card["name"] == "nano"
    (out / "weights-again.safetensors").write_bytes((out / "weights-voice.safetensors").read_bytes())
    with pytest.raises(sn.CheckpointError, match="which another file"):
        sn.load(out)
