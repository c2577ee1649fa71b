"""Figures and the judge's split: intervals that are right, a rule that leaks nothing."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch

import sensorium as sn
from sensorium.evals.figures import ranks, share, wilson
from sensorium.evals.judge import Judge, chosen, judge_split


def test_wilson_is_the_root_of_the_score_equation() -> None:
    for hits, n in ((0, 10), (3, 10), (10, 10), (700, 1225)):
        for bound in wilson(hits, n):
            if 1e-9 < bound < 1 - 1e-9:
                assert abs(hits / n - bound) == pytest.approx(1.959963984540054 * math.sqrt(bound * (1 - bound) / n))
    assert (wilson(0, 10)[0], wilson(10, 10)[1]) == pytest.approx((0, 1)) and wilson(0, 0) == (0, 1)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    hits = (torch.rand(2000, 150, generator=generator) < 0.7).sum(1).tolist()
    inside = sum(low <= 0.7 <= high for low, high in (wilson(h, 150) for h in hits))
    assert 0.93 < inside / 2000 < 0.97


def test_a_share_counts() -> None:
    figure = share("x", [True, False, True, True], seed=5, chance=0.1)
    assert (figure.value, figure.n, figure.seed, figure.beside) == (0.75, 4, 5, {"chance": 0.1})
    assert figure.low < 0.75 < figure.high and figure.commit


def test_ranks_count_a_tie_against_the_model() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.5], [0.5, 0.5, 0.5], [0.9, 0.1, 0.5]])
    assert ranks(scores, torch.tensor([1, 1, 1])).tolist() == [0, 2, 2]


def test_the_judge_keeps_two_different_pictures_back() -> None:
    styles = ["a", "b", "c", "d", "e"]
    assert judge_split("1f600", styles[:3]) is None
    found = Counter()
    for number in range(2000):
        choice, check = judge_split(f"{number:x}", styles)
        assert choice != check and judge_split(f"{number:x}", styles[::-1]) == (choice, check)
        found[choice, check] += 1
    assert len(found) == 20 and max(found.values()) < 2 * min(found.values())


def test_the_rule_keeps_the_surest_that_are_right() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.6, 0.5], [0.9, 0.0, 0.1], [0.0, 0.1, 0.8]])
    wanted, none = torch.tensor([0, 1, 2, 2]), torch.zeros(4, dtype=torch.bool)
    assert chosen(scores, wanted, none).tolist() == [0, 3, 1]
    assert chosen(scores, wanted, none, kept=1).tolist() == [0]
    assert chosen(scores, wanted, torch.tensor([False, True, True, False])).tolist() == [1, 0, 3]


def test_a_judge_adds_the_opinions_of_its_models_and_comes_back_from_its_folder(tmp_path: Path) -> None:
    def eyes(size: int, seed: int) -> sn.ModelNet:
        return sn.Model(encoders={"image": sn.MobileEncoder(size=size, stem=8, width=24), "label": sn.LabelEncoder(5, 16)},
                        align={"image": sn.Project(24, 16, pool="mean")}, heads={"embed": sn.Unit()}).build(seed=seed).eval()

    concepts, codec = list("abcde"), sn.VisionCodec(size=32)
    small, large = eyes(32, 0), eyes(48, 1)
    picture = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
    one, other, both = (Judge(some, codec, concepts, concepts).scores(picture) for some in ([small], [large], [small, large]))
    torch.testing.assert_close(both, (one + other) / 2)
    assert not torch.allclose(one, other)
    Judge([small, large], codec, concepts, ["e", "b"]).save(tmp_path / "judge", {"card.json": b"{}"})
    again = Judge.load(tmp_path / "judge")
    assert again.judged == ["e", "b"] and again.codec == codec and (tmp_path / "judge" / "card.json").is_file()
    torch.testing.assert_close(again.scores(picture), both, rtol=0, atol=0.05)  # bfloat16 on disk
    pair = again.scores(picture)[:, [4, 1]]
    ranks = [int(pair[0, 1] >= pair[0, 0]), int(pair[1, 0] >= pair[1, 1]), int(pair[2, 0] >= pair[2, 1])]
    assert again.ranks(picture, ["e", "b", "b"]).tolist() == ranks
    with pytest.raises(sn.ConfigError, match="holds no judge"):
        Judge.load(tmp_path)
