"""DeepSeek-V2 and V3 against transformers: scores, loss, gradients, routing and generation, from their own saved folders; what the reference has
not (balance losses, biases, the token after the next) against the papers' formulas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.nn import functional as F

import sensorium as sn
from sensorium.layers.cache import Cache
from sensorium.layers.experts import active, watch_routing
from sensorium.types import Batch
from sensorium.zoo.deepseek import deepseek_v2, deepseek_v2_lite, deepseek_v3
from sensorium.zoo.llama import llama, llama_decoder

from .reference import assert_same_answers, assert_same_gradients, assert_same_scores, saved, shaken
from .test_llama import END, GIVEN, packed, their_inputs

YARN = dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=8, beta_fast=32, beta_slow=1, mscale=0.7,
            mscale_all_dim=0.9)
EDITIONS = {
    "v2": ("V2", dict(topk_method="group_limited_greedy", n_group=4, topk_group=2, routed_scaling_factor=2.0)),
    "v2 lite": ("V2", dict(q_lora_rank=None)),
    "v2 stretched": ("V2", dict(rope_parameters=YARN, attention_bias=True)),
    "v3": ("V3", dict(n_group=4, topk_group=2)),
    "v3 stretched": ("V3", dict(n_group=2, topk_group=1, rope_parameters=YARN, norm_topk_prob=False)),
    "v3 in halves": ("V3", dict(n_group=2, topk_group=2, rope_interleave=False)),
}


def reference(edition: str) -> Any:
    kind, changes = EDITIONS[edition]
    config = getattr(transformers, f"Deepseek{kind}Config")(**{**dict(
        hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4, kv_lora_rank=12, q_lora_rank=10,
        qk_nope_head_dim=8, qk_rope_head_dim=4, v_head_dim=6, n_routed_experts=8, n_shared_experts=2, num_experts_per_tok=3, moe_intermediate_size=12,
        first_k_dense_replace=1, vocab_size=60, bos_token_id=1, eos_token_id=END, pad_token_id=0, max_position_embeddings=64), **changes})
    model = shaken(getattr(transformers, f"Deepseek{kind}ForCausalLM")(config))
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            buffer.copy_(torch.randn(buffer.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    return model


@pytest.mark.parametrize("edition", EDITIONS)
def test_forward_backward_and_routing(edition: str, tmp_path: Path) -> None:
    theirs, report = reference(edition), sn.Coverage()
    model = sn.load(saved(theirs, tmp_path / "model"), report=report)
    assert not report.ignored
    batch, chosen = packed(GIVEN), []
    hooks = [module.register_forward_hook(lambda gate, given, out: chosen.append(out[2]))
             for name, module in theirs.named_modules() if name.endswith("mlp.gate")]
    with watch_routing(model) as routed, torch.no_grad():
        model.read(batch)
        for number, given in enumerate(their_inputs(GIVEN)):
            here = (batch.layout.segment_BT == number).flatten()
            chosen.clear()
            theirs(**given)
            for (_, ours), wanted in zip(routed, chosen, strict=True):
                assert torch.equal(ours.index_NK[here].sort().values, wanted.sort().values)
    for hook in hooks:
        hook.remove()
    assert_same_scores(model, theirs, batch, their_inputs(GIVEN))
    assert_same_gradients(model, theirs, tmp_path / "gradients")


@pytest.mark.parametrize("edition", ["v2", "v2 stretched", "v3"])
def test_generation(edition: str, tmp_path: Path) -> None:
    theirs = reference(edition)
    model = sn.load(saved(theirs, tmp_path))
    assert_same_answers(model, theirs, packed(GIVEN, answers=False, alone=True), their_inputs(GIVEN, answers=False), END, 24)


def test_both_forms_of_latent_attention_are_equal_and_only_the_latent_is_kept(tmp_path: Path) -> None:
    model = sn.load(saved(reference("v2"), tmp_path)).double()
    ids, cache, seen = torch.randint(4, 60, (2, 20), generator=torch.Generator().manual_seed(0)), Cache(), []
    with torch.no_grad():
        whole = model.read(Batch(token_BT=ids))
        for start, stop in ((0, 7), (7, 8), (8, 12), *((t, t + 1) for t in range(12, 20))):  # absorbed from the second on
            seen.append(model.read(Batch(token_BT=ids[:, start:stop]), cache))
        torch.testing.assert_close(torch.cat(seen, dim=1), whole, rtol=0, atol=1e-6)
        assert cache.bytes() == 2 * 20 * model.spec.decoder.read.remembered * 8 == 2 * 20 * 3 * (12 + 4) * 8
        net, x = model.decoder.read.blocks[0].attention, torch.randn(2, 9, 32, dtype=torch.float64)
        query, kept, nothing = net.project(x)
        forms = [net.look(query, kept, nothing, causal=True, absorbed=absorbed) for absorbed in (False, True)]
        torch.testing.assert_close(*forms, rtol=0, atol=1e-12)


def test_the_balance_loss_is_the_papers(tmp_path: Path) -> None:
    """Equations 23 to 25 of DeepSeek-V2, written out token by token, for both samples."""
    for edition in ("v2", "v3"):
        model, batch = sn.load(saved(reference(edition), tmp_path / edition)), packed(GIVEN)
        with watch_routing(model) as routed, torch.no_grad():
            ours, wanted = model.losses(batch)["balance"], 0.0
        for _, one in routed:
            experts, top = one.score_NX.shape[1], one.index_NK.shape[1]
            for number in range(2):
                rows = (batch.layout.segment_BT.flatten() == number).nonzero()[:, 0].tolist()
                for expert in range(experts):
                    share = sum(experts / (top * len(rows)) for row in rows if expert in one.index_NK[row])
                    scores = [one.score_NX[row] / one.score_NX[row].sum() for row in rows]
                    wanted = wanted + share * sum(score[expert] for score in scores) / len(rows) / 2
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=0)
        assert float(ours) > len(routed)  # 1 a layer only if all were alike


def test_biases_move_against_the_load() -> None:
    spec = sn.Experts(8, 4, count=4, top=1, score="sigmoid", biased=True)
    stack = sn.Stack(width=8, depth=1, heads=1, bias=False, rule="causal", experts=spec)
    model = sn.Model(encoders={"text": sn.Vocabulary(60, 8)}, decoder=sn.Decoder(stack), heads={"text": sn.Tokens(8, 60, tied=True)},
                     objectives=(sn.NextToken(), sn.Balance(speed=0.01))).build(seed=0)
    router, batch = model.decoder.read.blocks[0].mlp.router, packed(GIVEN)

    def loads() -> torch.Tensor:
        with watch_routing(model) as routed, torch.no_grad():
            model.eval().losses(batch)
        return routed[0][1].index_NK[batch.layout.segment_BT.flatten() >= 0].flatten().bincount(minlength=4)

    before = loads()
    assert not router.bias.any()  # eval changes nothing
    for _ in range(120):
        model.train().losses(batch)
    after = loads()
    assert int(after.max()) < int(before.max()) and float(after.float().std()) < float(before.float().std())
    assert router.bias.abs().max() > 0.02 and router.bias.grad is None


def test_the_token_after_the_next(tmp_path: Path) -> None:
    """Against the same written out with plain tensors: both norms, the joining matrix, one layer of the decoder's kind, and the shared scores."""
    from sensorium.zoo import ENTRIES

    entry = ENTRIES["deepseek_v3"]
    model, batch = entry.toy().build(seed=2).eval(), entry.batch([0, 1])
    head, table = model.heads["ahead"], model.encoders["text"].token.weight
    state = model.read(batch)
    total, count = 0.0, 0
    for number in range(2):
        here = batch.layout.segment_BT == number
        h, ids, labels = state[here], batch.token_BT[here], batch.label_BT[here]
        after = torch.cat([table[ids[1:]], table[:1]])
        joined = torch.cat([F.rms_norm(after, (32,), head.next_norm.weight, 1e-6), F.rms_norm(h, (32,), head.state_norm.weight, 1e-6)], dim=-1)
        out = head.stack((joined @ head.join.weight.T)[None])[0]
        logits = F.linear(out, model.heads["text"].out.weight)
        for place in range(len(ids) - 1):
            if labels[place] >= 0 and labels[place + 1] >= 0:
                total, count = total + F.cross_entropy(logits[place], labels[place + 1]), count + 1
    torch.testing.assert_close(model.losses(batch)["ahead"], total / count, rtol=1e-5, atol=1e-6)


def test_the_layer_of_the_token_after_the_next_is_read_where_a_file_has_it(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = saved(reference("v3"), tmp_path)
    assert "ahead" not in sn.load(folder).spec.heads
    path = folder / "model.safetensors"
    held, generator = load_file(path), torch.Generator().manual_seed(5)
    more = {name.replace("layers.2.", "layers.3."): value + torch.randn(value.shape, generator=generator) * 0.1
            for name, value in held.items() if name.startswith("model.layers.2.")}
    more |= {f"model.layers.3.{name}.weight": torch.rand(32, generator=generator) for name in ("enorm", "hnorm", "shared_head.norm")}
    more |= {"model.layers.3.eh_proj.weight": torch.randn(32, 64, generator=generator),
             "model.layers.3.embed_tokens.weight": held["model.embed_tokens.weight"].clone(),
             "model.layers.3.shared_head.head.weight": held["lm_head.weight"].clone()}
    save_file(held | more, path)
    report = sn.Coverage()
    model = sn.load(folder, report=report)
    assert sorted(report.ignored) == ["model.layers.3.embed_tokens.weight", "model.layers.3.shared_head.head.weight"]
    assert torch.equal(model.heads["ahead"].join.weight, more["model.layers.3.eh_proj.weight"])
    assert torch.equal(model.heads["ahead"].stack.blocks[0].mlp.up[5], more["model.layers.3.mlp.experts.5.up_proj.weight"])


@pytest.mark.parametrize("make, billions", [(deepseek_v2, 21), (deepseek_v2_lite, 2.7), (deepseek_v3, 37)])
def test_a_token_uses_what_the_papers_say(make: Any, billions: float) -> None:
    model = make().build(device="meta")
    assert abs(active(model) / 1e9 - billions) < 0.6


def test_the_cache_is_as_small_as_the_paper_says() -> None:
    """DeepSeek-V2 keeps 93.3 % less than DeepSeek 67B: 95 layers, 8 key and value heads of 128 (2405.04434, section 1)."""
    dense = llama(llama_decoder(8192, 95, 64, 22_016, kv_heads=8), 102_400).decoder.read
    latent = deepseek_v2().decoder.read
    assert latent.remembered == 60 * (512 + 64) == 34_560 and dense.remembered == 95 * 2 * 8 * 128
    # the paper's figure is of deployments: the latent in 6 bits on average, the dense one in 16
    assert 1 - latent.remembered / dense.remembered == pytest.approx(0.822, abs=1e-3)
    assert 1 - latent.remembered * 6 / (dense.remembered * 16) == pytest.approx(0.933, abs=1e-3)
