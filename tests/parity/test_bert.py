"""BERT against transformers: sentence embeddings, loss, gradients, from its own saved folder; and MiniLM on its real weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.nn import functional as F

import sensorium as sn
from sensorium import catalog
from sensorium.zoo.bert import minilm_l6

from .reference import CLOSE, assert_same_gradients, saved, shaken


def reference(**changes: Any) -> Any:
    return shaken(transformers.BertModel(transformers.BertConfig(**{**dict(
        vocab_size=60, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40, max_position_embeddings=16,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=0), **changes})))


def ids(seed: int) -> torch.Tensor:
    """Three sentences of unlike lengths, filled up with 0."""
    out, generator = torch.zeros(3, 9, dtype=torch.int64), torch.Generator().manual_seed(seed)
    for row, length in zip(out, (4, 9, 6), strict=True):
        row[:length] = torch.randint(1, 60, (length,), generator=generator)
    return out


def their_embedding(model: Any, token_BT: torch.Tensor) -> torch.Tensor:
    """As sentence-transformers pools: the mean of what is not padding, at length one."""
    kept = (token_BT != 0).float()
    states = model(input_ids=token_BT, attention_mask=kept).last_hidden_state
    return F.normalize((states * kept[..., None]).sum(1) / kept.sum(1, keepdim=True), dim=-1)


@pytest.mark.parametrize("act", ["gelu", "relu", "gelu_new"])
def test_forward_and_backward(act: str, tmp_path: Path) -> None:
    theirs, report = reference(hidden_act=act), sn.Coverage()
    model = sn.load(saved(theirs, tmp_path / "model"), report=report)
    assert set(report.ignored) == {"pooler.dense.weight", "pooler.dense.bias"}
    first, second = ids(1), ids(2)
    one, other = their_embedding(theirs, first), their_embedding(theirs, second)
    torch.testing.assert_close(model.tower("text", first), one, **CLOSE)
    torch.testing.assert_close(model.tower("text", first[:1, :4]), one[:1], **CLOSE)  # padding changes nothing
    ours = model.losses(sn.Batch(pairs={"text": first, "text/other": second}, samples=3))["contrastive"]
    score, label = one @ other.T / 0.05, torch.arange(3)
    wanted = (F.cross_entropy(score, label) + F.cross_entropy(score.T, label)) / 2
    torch.testing.assert_close(ours, wanted, **CLOSE)
    ours.backward()
    wanted.backward()
    model.objectives = torch.nn.ModuleList()  # the temperature is not the reference's
    assert_same_gradients(model, theirs, tmp_path / "gradients")


def test_other_editions_of_the_layout_load(tmp_path: Path) -> None:
    """With a head for guessing words, every name begins with ``bert.``; the head is named and left."""
    theirs = transformers.BertForMaskedLM(reference().config)
    report = sn.Coverage()
    model = sn.load(saved(theirs, tmp_path), report=report)
    assert report.ignored and all(name.startswith("cls.") for name in report.ignored)
    torch.testing.assert_close(model.tower("text", ids(1)), their_embedding(theirs.eval().bert, ids(1)), **CLOSE)


def test_what_is_not_built_is_refused(tmp_path: Path) -> None:
    folder = saved(reference(), tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"position_embedding_type": "relative_key"}))
    with pytest.raises(sn.ConfigError, match="relative_key"):
        sn.load(folder)


def test_minilm_is_the_reference_s() -> None:
    if not catalog.ready("minilm-l6"):
        pytest.skip("needs: sensorium pull minilm-l6")
    folder, report = catalog.find("minilm-l6"), sn.Coverage()
    model = sn.load(folder, report=report)
    assert model.spec == minilm_l6()
    assert set(report.ignored) == {"embeddings.position_ids", "pooler.dense.bias", "pooler.dense.weight"}
    texts = ["a cat sits on the mat", "The weather is lovely today, and I am off to the beach with friends.", "hi"]
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        ours, theirs = model.tower("text", tokens), their_embedding(transformers.BertModel.from_pretrained(folder).eval(), tokens)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert ours[0] @ ours[1] < 0.3
