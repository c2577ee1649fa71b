"""Pictures that spell: the objective by its formula, several looks at one picture, and eyes that learn words without a decoder."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

import sensorium as sn
from sensorium.corpus.world import COLOURS, PAPERS
from sensorium.types import ConfigError, ShapeError, Spelled

STAGES = ((1, 8, 1, 1, 3), (2, 12, 1, 2, 3), (2, 12, 2, 2, 5), (2, 16, 1, 2, 3))


def eyes() -> sn.Looks:
    """2 x 2 places of the picture at half its size, 4 x 4 of the picture itself."""
    return sn.Looks(size=64, looks=tuple(sn.MobileEncoder(size=size, stem=8, stages=STAGES, width=24) for size in (32, 64)))


def test_the_loss_is_the_mean_over_places_and_their_words() -> None:
    generator = torch.Generator().manual_seed(0)
    features, vocabulary = torch.randn(2, 3, 8, generator=generator), torch.randn(5, 8, generator=generator)
    word = torch.tensor([[[0, -100], [1, 4], [-100, -100]], [[-100, -100], [-100, -100], [2, -100]]])
    spell = sn.Spell(scale=7.0, length=0.3).build()
    wanted, lengths = [], []
    for medium in range(2):
        for place in range(3):
            words = [w for w in word[medium, place].tolist() if w >= 0]
            if words:
                score = F.cosine_similarity(features[medium, place][None], vocabulary, dim=-1) * 7.0
                wanted.append(-sum(float(score[w] - score.logsumexp(0)) for w in words) / len(words))
                lengths.append((float(features[medium, place].norm() / vocabulary.norm(dim=-1).mean()) - 1) ** 2)
    assert math.isclose(spell(features, vocabulary, word).item(), sum(wanted) / len(wanted) + 0.3 * sum(lengths) / len(lengths), rel_tol=1e-5)
    with pytest.raises(ShapeError, match="the same media and places"):
        spell(features, vocabulary, word[:, :2])


def test_looks_are_each_encoder_at_its_own_size() -> None:
    spec = eyes()
    net, picture = spec.build().eval(), torch.rand(2, 3, 64, 64)
    seen = net(picture).x_BPD
    assert spec.patches == seen.shape[1] == 4 + 16 and spec.width == 24
    shrunk = F.interpolate(picture, size=(32, 32), mode="bilinear", antialias=True)
    assert torch.allclose(seen[:, :4], net.looks[0](shrunk).x_BPD, atol=1e-5) and torch.equal(seen[:, 4:], net.looks[1](picture).x_BPD)
    with pytest.raises(ShapeError, match=r"wanted \(B, 3, 64, 64\)"):
        net(shrunk)
    with pytest.raises(ConfigError, match="make them equal"):
        sn.Looks(size=64, looks=(sn.MobileEncoder(size=64, width=24), sn.MobileEncoder(size=64, width=32)))
    with pytest.raises(ConfigError, match="less than"):
        sn.Looks(size=64, looks=(sn.MobileEncoder(size=96),))


def test_slots_tell_equal_positions_apart() -> None:
    from sensorium.types import Features

    align = sn.Project(8, 4, hidden=16, slots=3).build()
    same = Features(torch.ones(1, 3, 8))
    assert torch.equal(align(same)[:, 0], align(same)[:, 1])
    torch.nn.init.normal_(align.slots)
    assert not torch.allclose(align(same)[:, 0], align(same)[:, 1])
    with pytest.raises(ShapeError, match="3 slots"):
        align(Features(torch.ones(1, 2, 8)))
    with pytest.raises(ConfigError, match="set one of both"):
        sn.Project(8, 4, pool="mean", slots=3)


def test_eyes_learn_the_words_of_colours_without_a_decoder() -> None:
    """Flat pictures in four colours; the first place says the colour, the last one the paper's half that is left white."""
    colours = list(COLOURS)[:4]
    spec = sn.Model(encoders={"text": sn.Vocabulary(20, 32), "image": eyes()}, objectives=(sn.Spell(),),
                    align={"image": sn.Project(24, 32, hidden=48, bias=True, norm=True, slots=20)})

    def batch(step: int) -> sn.Batch:
        rng = torch.Generator().manual_seed(step)
        which = torch.randint(4, (16,), generator=rng)
        ink, white = (torch.tensor([table[name] for name in names]).float() / 127.5 - 1 for table, names in ((COLOURS, colours), (PAPERS, ["white"])))
        picture = ink[which][:, :, None, None].expand(-1, -1, 64, 64).clone()
        picture[:, :, 32:] = white[0][:, None, None]
        picture += torch.randn(picture.shape, generator=rng) * 0.05
        word = torch.full((16, 20, 1), -100)
        word[:, 0, 0], word[:, 19, 0] = which, 4
        return sn.Batch(media={"image": picture}, spelled={"image": Spelled(torch.tensor([3, 5, 7, 9, 11]), word)}, samples=16)

    with pytest.raises(ConfigError, match=r"Spell\('image'\) needs"):
        sn.Model(encoders={"image": eyes()}, objectives=(sn.Spell(),))
    model = spec.build(seed=0)
    model.encoders["text"].requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for step in range(60):
        optimizer.zero_grad()
        model.total(model.losses(batch(step))).backward()
        optimizer.step()
    held = batch(1000)
    with torch.no_grad():
        score = model.objectives[0].scores(model.aligned("image", held.media["image"]), model.encoders["text"].token.weight[[3, 5, 7, 9, 11]])
    word = held.spelled["image"].word_LPK
    assert (score[:, 0].argmax(-1) == word[:, 0, 0]).float().mean() > 0.9 and (score[:, 19].argmax(-1) == 4).all()
