"""Language evaluation: surprise is what the formula says, window for window, and a packed model is compared token by token."""

from __future__ import annotations

import math

import pytest
import torch

import sensorium as sn
from sensorium.catalog import find, ready
from sensorium.evals.language import FIRST, TEXT, evaluate_language, surprise, tokens_a_second
from sensorium.layers.packed import PACKINGS
from sensorium.types import Batch, ConfigError

from . import chats


def test_surprise_is_the_cross_entropy_of_each_window() -> None:
    model, codecs = chats.speaker()
    ids = codecs.text.encode(TEXT.read_text(encoding="utf-8"))[:100]
    found, window, wanted = surprise(model, ids, window=40), 40, []
    for start in range(0, 100 - FIRST, window - FIRST):
        part = torch.tensor(ids[start : start + window])
        with torch.no_grad():
            scores = model.logits(model.read(Batch(token_BT=part[None])))[0].double()
        wanted.append(-scores[FIRST - 1 : -1].log_softmax(-1).gather(1, part[FIRST:, None])[:, 0])
    torch.testing.assert_close(found, torch.cat(wanted), rtol=1e-5, atol=1e-5)
    assert len(found) == 100 - FIRST, "every token but the first ones is judged once"
    with pytest.raises(ConfigError, match="more than"):
        surprise(model, ids[:FIRST])


def test_figures_compare_the_same_tokens() -> None:
    model, codecs = chats.speaker()
    other, _ = chats.speaker(seed=1)
    (same,) = evaluate_language(model, model, codecs, tokens=60)
    assert same.value == 0 and same.n == 60 - FIRST and same.beside["perplexity packed"] == same.beside["perplexity float32"]
    (figure,) = evaluate_language(other, model, codecs, tokens=60)
    assert figure.low < figure.value < figure.high
    assert 1 + figure.value == pytest.approx(figure.beside["perplexity packed"] / figure.beside["perplexity float32"])
    assert tokens_a_second(model, [3, 4, 5], tokens=4, times=1) > 0


def test_the_text_is_long_enough() -> None:
    assert 1500 <= len(TEXT.read_text(encoding="utf-8").split()) <= 3000


@pytest.mark.slow
@pytest.mark.skipif(not ready("smollm2-135m-instruct"), reason="wants the weights of smollm2-135m-instruct")
def test_smollm2_in_four_bits_knows_nearly_as_much() -> None:
    exact = sn.load(find("smollm2-135m-instruct"))
    packed = sn.load(find("smollm2-135m-instruct"), packed=PACKINGS["int4"])
    (figure,) = evaluate_language(packed, exact, sn.Codecs.load(packed.folder), tokens=1024)
    assert figure.value < 0.01 and math.isfinite(figure.high)
