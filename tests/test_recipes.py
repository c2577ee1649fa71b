"""The recipes' data: every picture once an epoch beside its kin, batches that follow from the step alone, changes that stay in range."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from rich.console import Console

import sensorium as sn
from sensorium.cli import learn
from sensorium.corpus.kinds import KINDS
from sensorium.denoise import Solver
from sensorium.evals.nano import Held, Points, evaluate
from sensorium.evals.seeing import evaluate_pictures
from sensorium.types import ConfigError
from sensorium.zoo.nano import toy_nano

sys.path.insert(0, str(Path(__file__).parent.parent / "recipes"))
import baselines  # noqa: E402
import nano  # noqa: E402
import pictures  # noqa: E402

STYLES = ("twemoji", "noto", "fluent-flat")
SUBGROUPS = ("animal-mammal", "food-fruit", "arrow", "country-flag")  # of the concepts, in turn


def write_corpus(folder: Path, styles: tuple[str, ...], held: tuple[str, ...], count: int = 12) -> Path:
    """Concepts of four kinds, each with one picture held out, in one of the ``held`` splits."""
    rng = np.random.default_rng(0)
    files: dict[str, list[dict]] = {"concepts": [], "train": [], **{name: [] for name in held}}
    for number in range(count):
        kind = SUBGROUPS[number % 4]
        group = {"arrow": "symbols", "country-flag": "flags"}.get(kind, "objects")
        files["concepts"].append({"id": f"c{number}", "en": f"thing {number}", "zh": f"东西 {number}", "keywords_en": ["some", "word"],
                                  "keywords_zh": [], "group": group, "subgroup": kind})
        for style in styles:
            path = folder / "pictures" / style / f"c{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Pillow.fromarray(rng.integers(0, 256, (64, 64, 4), dtype=np.uint8)).save(path)
            row = {"parts": [{"image": str(path.relative_to(folder))}], "concept": f"c{number}", "style": style, "relative": number % 2 == 0}
            files[held[number % len(held)] if style == styles[number % 3] else "train"].append(row)
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    nano.train_tokenizer(folder, vocab=300)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three styles a concept."""
    return write_corpus(tmp_path_factory.mktemp("corpus"), STYLES, ("val",))


def test_an_epoch_holds_every_picture_once_and_kin_together(corpus: Path) -> None:
    data = nano.NanoData(corpus, pictures_a_step=8, drawn=4)
    stream = pictures.Stream(data.pictures, data.concepts, run=3)
    orders = [stream.order(epoch) for epoch in range(3)]
    for order in orders:
        assert sorted(order.tolist()) == list(range(24))
        same = (stream.kind[order][1:] == stream.kind[order][:-1]).mean()
        assert same > 0.5, "kin do not stand together"
    assert not np.array_equal(orders[0], orders[1])
    assert Counter(stream.places(0, 24)) == Counter(range(24))


def test_a_batch_follows_from_its_step(corpus: Path) -> None:
    one, other = (nano.NanoData(corpus, pictures_a_step=8, drawn=4) for _ in range(2))
    one.batch(0)
    first, second = one.batch(5), other.batch(5)
    assert torch.equal(first.token_BT, second.token_BT) and torch.equal(first.media["image"], second.media["image"])
    assert torch.equal(first.written["image"].value_LCHW, second.written["image"].value_LCHW)
    assert len(first.media["image"]) == 8 and len(first.written["image"].value_LCHW) == 4
    assert not torch.equal(one.batch(6).media["image"], first.media["image"])
    more = nano.NanoData(corpus, pictures_a_step=8, drawn=11).batch(0).written["image"]
    assert sorted(Counter(more.segment_L.tolist()).values()) == [1] * 5 + [2] * 3


def test_changed_pictures_stay_pictures_and_only_some_are_mirrored() -> None:
    image = torch.zeros(64, 4, 64, 64, dtype=torch.uint8)
    image[:, 3, 8:56, 8:56] = 255
    image[:, 0, :, 40:] = 255  # red on the right
    may = torch.arange(64) < 32
    changed = pictures.augment(image, torch.Generator().manual_seed(0), may)
    assert changed.shape == (64, 3, 64, 64) and changed.min() >= -1 and changed.max() <= 1 and changed.isfinite().all()
    plain = pictures.augment(image, torch.Generator().manual_seed(0))
    turned = (changed - plain).abs().amax((1, 2, 3)) > 0.1
    assert 8 < int(turned[may].sum()) < 24 and not turned[~may].any()


def test_paper_shows_where_nothing_is_drawn() -> None:
    image = torch.zeros(1, 4, 2, 2, dtype=torch.uint8)
    image[0, 3, 0, 0] = 255
    assert pictures.on_paper(image)[0, 0].tolist() == [[-1, 1], [1, 1]]


def test_a_text_may_be_the_kind_of_a_concept(corpus: Path) -> None:
    data, rng = nano.NanoData(corpus, pictures_a_step=8, drawn=4), np.random.default_rng(0)
    texts = Counter(data.request(data.concepts["c1"], "noto", rng)[0] for _ in range(2000))
    assert {"something to eat", "水果"} < set(texts) and "an animal" not in texts
    assert 100 < sum(texts[word] for words in KINDS["food-fruit"] for word in words) < 220


def test_the_eval_gives_a_perfect_model_full_marks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_corpus(tmp_path / "corpus", STYLES, ("test", "unseen", "test"), count=48)
    files = {"tokenizer.json": (folder / "tokenizer.json").read_bytes(), "codecs.json": nano.codecs().to_json().encode()}
    saved = sn.save(toy_nano(vocab=300, size=64).build(seed=0), tmp_path / "toy", files)
    quiet, none = Console(quiet=True), tmp_path / "no judge"
    untrained = {figure.name: figure for figure in evaluate(Points(sn.load(saved), Held(folder), quiet), none)}
    assert untrained["naming in English, R@1"].n == 32 and untrained["naming in English, R@1"].value < 0.5
    assert untrained["concepts never seen, in Chinese, R@10"].n == 16
    kind_of = {f"c{i}": SUBGROUPS[i % 4] for i in range(48)}

    def concepts_of(value: sn.Image | str) -> list[str]:
        if isinstance(value, sn.Image):
            return [value.source.stem]
        if value.startswith(("thing", "东西")):
            return ["c" + value.split()[1]]
        return [c for c, kind in kind_of.items() if any(value in words for words in KINDS[kind])]

    def embed(model: sn.ModelNet, values: list) -> torch.Tensor:
        return torch.stack([sum(torch.eye(48)[int(c[1:])] for c in concepts_of(value)) for value in values])

    monkeypatch.setattr(sn, "embed", embed)
    monkeypatch.setattr(sn, "write_texts", lambda model, prompts: [("thing" if "What" in question else "东西") + f" {picture.source.stem[1:]}"
                                                                   for picture, question in prompts])
    perfect = evaluate(Points(sn.load(saved), Held(folder), quiet), none)
    assert {figure.name for figure in perfect} == set(untrained) and all(figure.value == 1.0 for figure in perfect)
    assert any("by a kind" in name for name in untrained)


def test_parts_of_an_eval_and_their_places_on_the_card(tmp_path: Path) -> None:
    folder = write_corpus(tmp_path / "corpus", STYLES, ("test", "unseen", "test"))
    files = {"tokenizer.json": (folder / "tokenizer.json").read_bytes(), "codecs.json": nano.codecs().to_json().encode()}
    saved = sn.save(toy_nano(vocab=300, size=64).build(seed=0), tmp_path / "toy", files)
    found = evaluate_pictures(str(saved), folder, 8, 0, Console(quiet=True), ("unseen", "hearing"))
    assert [figure.name for figure in found] == [f"concepts never seen, in {language}, R@10" for language in ("English", "Chinese")]
    with pytest.raises(ConfigError, match="no part flying; wanted some of naming, .*moving"):
        evaluate_pictures(str(saved), folder, 8, 0, Console(quiet=True), ("unseen", "flying"))
    with pytest.raises(ConfigError, match="measured as a whole; leave out --only naming"):
        learn.evaluate("whisper-base", only=["naming"])
    with pytest.raises(ConfigError, match="no cell naming; wanted some of text to text, .*video to video"):
        learn.evaluate("matrix", only=["naming"])

    card, new = tmp_path / "card.json", tmp_path / "new.json"
    card.write_text(json.dumps({"licence": "MIT", "figures": [{"name": "one", "value": 0.1}, {"name": "two", "value": 0.2}]}), encoding="utf-8")
    new.write_text(json.dumps([{"name": "one", "value": 0.3}, {"name": "three", "value": 0.4}]), encoding="utf-8")
    nano.report(new, tmp_path)
    after = json.loads(card.read_text(encoding="utf-8"))
    assert after["licence"] == "MIT" and {row["name"]: row["value"] for row in after["figures"]} == {"one": 0.3, "two": 0.2, "three": 0.4}


def test_what_may_be_mirrored(corpus: Path) -> None:
    concepts = pictures.load_concepts(corpus)
    assert concepts["c0"].mirrors and not concepts["c2"].mirrors and not concepts["c3"].mirrors


def test_concepts_draw_pictures_and_names_while_it_trains_and_do_not_ship(corpus: Path) -> None:
    data = nano.NanoData(corpus, pictures_a_step=8, drawn=4)
    small = toy_nano(vocab=300, size=64)
    small = replace(small, encoders={**small.encoders, "image": sn.MobileEncoder(size=64, stem=8, width=24)})
    model = nano.with_concepts(small, len(data.concepts)).build(seed=0)
    batch = data.batch(0)
    losses = model.losses(batch, torch.Generator().manual_seed(0))
    assert list(losses) == ["contrastive", "next_token", "flow", "contrastive image-concept", "contrastive text-concept"]
    model.total({name: losses[name] for name in losses if "concept" in name}).backward()
    marks = model.encoders["concept"].label.weight.grad
    assert set(marks.abs().sum(1).nonzero()[:, 0].tolist()) == set(batch.group_L.tolist())
    assert model.encoders["image"].body.stem.weight.grad.abs().sum() > 0 and model.encoders["text"].token.weight.grad.abs().sum() > 0
    bare = nano.without_concepts(model)
    assert bare.spec == small and torch.equal(bare.heads["embed"].map.weight, model.heads["embed"].map.weight)
    for again in (model.spec.objectives[-1], model.spec.objectives[1]):
        with pytest.raises(ConfigError, match="two objectives are both"):
            replace(model.spec, objectives=(*model.spec.objectives, again))


@pytest.mark.parametrize("kind", ["clip", "dit"])
def test_baselines_are_of_nanos_size_and_learn(corpus: Path, kind: str) -> None:
    sizes = {name: sum(p.numel() for p in make(4096).build(device="meta").parameters())
             for name, make in (("nano", nano.nano), ("clip", baselines.clip_only), ("dit", baselines.dit_only))}
    assert abs(sizes[kind] - sizes["nano"]) < 0.02 * sizes["nano"]
    run = baselines.run(kind=kind, data=str(corpus), steps=2, pictures=4)
    model = run.model.build(seed=0)
    losses = model.losses(run.batch(0), torch.Generator().manual_seed(0))
    drawn_to = ["contrastive", "contrastive image-concept", "contrastive text-concept"]
    assert list(losses) == {"clip": drawn_to, "dit": ["flow"]}[kind]
    model.total(losses).backward()
    idle = sum(p.numel() for p in model.parameters() if p.grad is None)  # what only reads does not use the end of its last reading layer
    assert idle < (0.04 * sizes["nano"] if kind == "dit" else 1)


@pytest.mark.parametrize("kind", ["clip", "dit"])
def test_a_trained_baseline_answers(corpus: Path, tmp_path: Path, kind: str) -> None:
    run = baselines.run(kind=kind, data=str(corpus), steps=2, pictures=4)
    folder = sn.save(run.model.build(seed=0), tmp_path / kind, run.files)
    model = sn.load(folder)
    if kind == "clip":
        picture = sn.Image(corpus / "pictures" / "twemoji" / "c0.png")
        assert sn.embed(model, [picture, sn.Text("thing 0")]).shape == (2, 256)
    else:
        assert len(sn.draw_images(model, [["Draw thing 0"]], Solver(steps=2))) == 1


def test_a_baseline_stands_beside_the_figures_it_shares(tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(json.dumps({"figures": [{"name": "a", "value": 0.7, "beside": {"chance": 0.1}},
                                                                {"name": "b", "value": 0.5, "beside": {}}]}))
    (tmp_path / "clip.json").write_text(json.dumps([{"name": "a", "value": 0.6}, {"name": "c", "value": 0.9}]))
    assert baselines.beside(tmp_path, "clip-only", tmp_path / "clip.json") == 1
    figures = json.loads((tmp_path / "card.json").read_text())["figures"]
    assert [f["beside"] for f in figures] == [{"chance": 0.1, "clip-only": 0.6}, {}]


def test_an_unknown_baseline_is_refused() -> None:
    with pytest.raises(ConfigError, match="clip or dit"):
        baselines.run(kind="gan")
