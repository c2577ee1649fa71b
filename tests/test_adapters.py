"""Adapters: what they change, their way to PEFT and back, switching and merging, and training that touches nothing else."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from rich.console import Console

import sensorium as sn
from sensorium.adapt import Merging, adapt, check_savable, load_adapter, merged, save_adapter, switch, without
from sensorium.catalog import find, ready
from sensorium.checkpoint import read_tensors
from sensorium.layers.adapters import Lora, adapted_layers, patterns_of
from sensorium.layers.packed import INT4, INT8, pack
from sensorium.spec import from_json
from sensorium.zoo.llama import texts

from .parity import test_aya_vision as aya_vision
from .parity import test_cohere2 as cohere2
from .parity import test_llava as llava
from .parity.reference import saved, shaken, tensors
from .test_packed import toy

KINDS = {"lora": {}, "rslora": {"rslora": True}, "dora": {"dora": True}}
NEAR = dict(rtol=1e-5, atol=1e-5)


def llama() -> Any:
    config = transformers.LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                                      vocab_size=60, rms_norm_eps=1e-5, attention_bias=True, tie_word_embeddings=False)
    return shaken(transformers.LlamaForCausalLM(config))


def moved(model: sn.ModelNet, seed: int = 0, size: float = 0.1, of: str = "") -> sn.ModelNet:
    """Every adapter's numbers changed at random, so that it does something; or those ``of`` one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if f".adapters.{of}" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * size)
    return model


def scores(model: sn.ModelNet, batch: sn.Batch | None = None) -> torch.Tensor:
    with torch.no_grad():
        return model.logits(model.read(batch or sn.Batch(token_BT=torch.arange(1, 25).view(2, 12))))


def peft() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import peft as library
    return library


@pytest.mark.parametrize("kind", KINDS)
def test_ours_in_peft(kind: str, tmp_path: Path) -> None:
    theirs = llama()
    model = sn.load(saved(theirs, tmp_path / "base"))
    ours = moved(adapt(model, Lora(rank=4, alpha=6, paths=("decoder.*.attention.*", "decoder.*.mlp.up"), **KINDS[kind])))
    save_adapter(ours, tmp_path / "adapter")
    assert set(json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["target_modules"]) == {
        "q_proj", "k_proj", "v_proj", "o_proj", "up_proj"}
    other = peft().PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    ids = torch.arange(1, 25).view(2, 12)
    wanted = other(input_ids=ids).logits
    torch.testing.assert_close(scores(ours), wanted, **NEAR)
    assert float((scores(model) - wanted).abs().max()) > 0.1
    with other.disable_adapter():
        torch.testing.assert_close(scores(model), other(input_ids=ids).logits, **NEAR)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], "all-linear", r".*layers\.1\.mlp\.\w+_proj"], ids=["two", "all", "pattern"])
def test_peft_in_ours(kind: str, targets: Any, tmp_path: Path) -> None:
    theirs = llama()
    model = sn.load(saved(theirs, tmp_path / "base"))
    library = peft()
    config = library.LoraConfig(r=3, lora_alpha=5, target_modules=targets, use_dora=kind == "dora", use_rslora=kind == "rslora",
                                task_type="CAUSAL_LM")
    other = shaken(library.get_peft_model(theirs, config))  # the base too: only the adapter is saved
    other.save_pretrained(tmp_path / "adapter")
    fresh = library.PeftModel.from_pretrained(transformers.LlamaForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter").eval()
    ours = load_adapter(model, tmp_path / "adapter")
    wanted = fresh(input_ids=torch.arange(1, 25).view(2, 12)).logits
    torch.testing.assert_close(scores(ours), wanted, **NEAR)
    assert float((scores(model) - wanted).abs().max()) > 0.01
    assert len(ours.spec.adapters["adapter"].paths) <= 7  # patterns, not a list of every layer
    again = save_adapter(ours, tmp_path / "again")
    first, second = (tensors(folder) for folder in (tmp_path / "adapter", again))
    assert set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


def test_llava_both_ways(tmp_path: Path) -> None:
    library = peft()
    batch = llava.PACKER.pack([llava.PACKER.segment(parts) for parts in llava.samples()])
    paths = ("decoder.*.attention.query", "encoders.image.*.attention.value", "align.image.map.up")
    for paths_used in (paths, paths[:1]):
        theirs = llava.reference()
        model = sn.load(saved(theirs, tmp_path / "base"))
        ours = moved(adapt(model, Lora(rank=4, paths=paths_used)))
        save_adapter(ours, tmp_path / "adapter")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            warnings.filterwarnings("error", category=UserWarning)  # a name that peft does not find is a warning there
            other = library.PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
        given = scores(ours, batch)
        for number, parts in enumerate(llava.samples()):
            torch.testing.assert_close(given[batch.layout.segment_BT == number], other(**llava.their_inputs(parts)).logits[0], **NEAR)
        other.save_pretrained(tmp_path / "back")
        torch.testing.assert_close(scores(load_adapter(model, tmp_path / "back"), batch), given, **NEAR)
    old = tmp_path / "old"
    old.mkdir()
    (old / "adapter_config.json").write_bytes((tmp_path / "back" / "adapter_config.json").read_bytes())
    from safetensors.torch import save_file

    save_file({n.replace("model.model.language_model.", "model.language_model.model."): v for n, v in tensors(tmp_path / "back").items()},
              old / "adapter_model.safetensors")
    torch.testing.assert_close(scores(load_adapter(model, old), batch), given, **NEAR)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("packing", [None, INT8], ids=["float", "int8"])
def test_merged_equals_unmerged(kind: str, packing: Any) -> None:
    model = toy().build(seed=1).eval()
    model = model if packing is None else pack(model, packing)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ours = moved(adapt(adapt(model, Lora(rank=4, **KINDS[kind]), "one"), Lora(rank=2, paths=("decoder.*",)), "two"), size=0.05)
    switch(ours, {"one": 0.5, "two": 1.0})
    report = Merging()
    plain = merged(ours, report)
    assert plain.spec == model.spec and not list(adapted_layers(plain)) and set(plain.state_dict()) == set(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    near = NEAR if packing is None else dict(rtol=0, atol=0.05 * float(scores(ours).abs().max()))  # 8 bits; see test_packed
    torch.testing.assert_close(scores(plain), scores(ours), **near)
    assert float((scores(model) - scores(ours)).abs().max()) > 0.01
    assert str(report).startswith("14 layers merged") and ("packed again" in str(report)) == (packing is not None)


def test_adapters_are_swapped_without_loading(tmp_path: Path) -> None:
    model = toy().build(seed=1).eval()
    alone = {name: moved(adapt(model, Lora(rank=2, dora=name == "b"), name), seed=seed) for name, seed in (("a", 1), ("b", 2))}
    for name, net in alone.items():
        save_adapter(net, tmp_path / name)
    both = load_adapter(load_adapter(model, tmp_path / "a"), tmp_path / "b")
    switch(both, "a")
    assert torch.equal(scores(both), scores(alone["a"]))
    switch(both, "b")
    assert torch.equal(scores(both), scores(alone["b"]))
    switch(both)
    assert torch.equal(scores(both), scores(model))
    switch(both, {"a": 0.25, "b": 1.0})
    torch.testing.assert_close(scores(merged(both)), scores(both), **NEAR)
    less = without(both, "a")
    assert list(less.spec.adapters) == ["b"] and torch.equal(scores(less), scores(alone["b"])) and torch.equal(scores(without(both)), scores(model))
    with pytest.raises(sn.ConfigError, match="no adapter 'c'; it has a, b"):
        switch(both, "c")
    with pytest.raises(sn.ConfigError, match="already has an adapter 'a'"):
        load_adapter(both, tmp_path / "a")


def test_the_rest_is_shared_and_stays_trainable_where_it_was() -> None:
    model = toy().build(seed=1)
    ours = adapt(model, Lora(rank=2))
    assert all(p.requires_grad for p in model.parameters())
    assert {n for n, p in ours.named_parameters() if p.requires_grad} == {n for n, _ in ours.named_parameters() if ".adapters." in n}
    assert ours.decoder.read.norm.weight.data_ptr() == model.decoder.read.norm.weight.data_ptr()
    assert torch.equal(scores(ours), scores(model))  # it begins as no change


@pytest.mark.parametrize("packing", [None, INT4], ids=["float", "int4"])
def test_a_model_with_adapters_is_a_spec_like_any_other(packing: Any, tmp_path: Path) -> None:
    model = toy().build(seed=1).eval()
    ours = moved(adapt(model if packing is None else pack(model, packing), Lora(rank=2, dora=True), "mine"))
    assert from_json(ours.spec.to_json()) == ours.spec and "adapters.mine: Lora(" in ours.spec.describe()
    assert "adapters" not in toy().to_json()
    sn.save(ours, tmp_path)
    again = sn.load(tmp_path)
    assert again.spec == ours.spec and torch.equal(scores(again), scores(ours))
    with pytest.raises(sn.ConfigError, match="has adapters"):
        pack(adapt(model, Lora()), INT4)


def test_patterns_say_exactly_the_layers() -> None:
    paths = [f"a.{i}.{part}" for i in range(3) for part in ("x", "y")]
    assert patterns_of([p for p in paths if p.endswith("x")], paths) == ("a.*.x",)
    assert patterns_of(["a.1.x", "a.0.y", "a.1.y", "a.2.y"], paths) == ("a.1.x", "a.*.y")


def lesson_run(model: sn.ModelNet, steps: int = 8, **changes: Any) -> sn.Run:
    """A run that teaches one adapter of ``model``, a few milliseconds a step."""
    lora = Lora(rank=4, dropout=0.1)
    groups = (sn.Group(paths=("*.adapters.*",), rate=3e-3, decay=0.0), sn.Group(rate=0.0))
    return sn.Run(**{**dict(name="lessons", model=replace(model.spec, adapters={"default": lora}), batch=lambda step: texts(range(4)), steps=steps,
                            groups=groups, ema=0.0, validate_every=0, save_every=2, base=lambda: adapt(model, lora)), **changes})


@pytest.mark.parametrize("packing", [INT4, INT8], ids=["int4", "int8"])
def test_over_few_bits_only_the_adapter_learns(packing: Any, tmp_path: Path) -> None:
    model = pack(toy().build(seed=1).eval(), packing)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = texts(range(4))
    with torch.no_grad():
        first = float(model.losses(batch)["next_token"])
    ours = sn.fit(lesson_run(model, 60), tmp_path / "run", console=Console(quiet=True)).eval()
    with torch.no_grad():
        assert float(ours.losses(batch)["next_token"]) < 0.8 * first
    assert all(torch.equal(value, ours.state_dict()[name]) for name, value in before.items())
    newest = sorted((tmp_path / "run").glob("step-*"))[-1]
    assert all(".adapters." in name for name in read_tensors(newest / "weights.safetensors"))  # a checkpoint holds what is trained, and nothing else
    torch.testing.assert_close(scores(load_adapter(model, tmp_path / "run" / "final")), scores(ours), **NEAR)


def test_a_run_that_goes_on_ends_as_one_that_never_stopped(tmp_path: Path) -> None:
    model, quiet = pack(toy().build(seed=1).eval(), INT8), Console(quiet=True)
    whole = sn.fit(lesson_run(model), tmp_path / "whole", console=quiet)
    for _ in range(4):
        again = sn.fit(lesson_run(model), tmp_path / "parts", steps=2, console=quiet)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())
    for name in ("weights", "optimizer"):
        one, two = (read_tensors(tmp_path / run / "step-00000008" / f"{name}.safetensors") for run in ("whole", "parts"))
        assert set(one) == set(two) and all(torch.equal(one[key], two[key]) for key in one)
    other = pack(toy().build(seed=2).eval(), INT8)
    with pytest.raises(sn.CheckpointError, match="other weights"):
        sn.fit(lesson_run(other, 12), tmp_path / "parts", console=quiet)


@pytest.mark.parametrize("fault, says", [
    ("rank", "wanted"), ("layer", "no_such"), ("pickle", "pickle"), ("kind", "IA3"), ("torn", "adapter"), ("config", "not JSON"), ("other", "fit")])
def test_bad_adapters_are_refused_by_name(fault: str, says: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model, folder = toy().build(seed=1).eval(), tmp_path / "adapter"
    save_adapter(moved(adapt(model, Lora(rank=4))), folder)
    held, config = tensors(folder), json.loads((folder / "adapter_config.json").read_text())
    if fault == "rank":
        config["r"] = 8
    elif fault == "layer":
        held["base_model.model.decoder.no_such.lora_A.weight"] = torch.zeros(4, 64)
    elif fault == "kind":
        config["peft_type"] = "IA3"
    elif fault == "other":
        model = replace(toy(), decoder=sn.Decoder(replace(toy().decoder.read, hidden=128))).build()
    save_file({name: value.contiguous() for name, value in held.items()}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{" if fault == "config" else json.dumps(config))
    if fault == "torn":
        (folder / "adapter_model.safetensors").write_bytes((folder / "adapter_model.safetensors").read_bytes()[:-40])
    if fault == "pickle":
        (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises((sn.CheckpointError, sn.ConfigError), match=says):
        load_adapter(model, folder)
    assert set(model.state_dict()) == set(before) and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_command_teaches_goes_on_and_is_used(tmp_path: Path) -> None:
    from .test_cli import sensorium
    from .toys import saved_toy

    toy_folder, taught = saved_toy(tmp_path / "toy"), tmp_path / "taught"
    lines = [{"parts": [{"text": f"a dog {i}"}, {"text": "blue sky", "target": True}]} for i in range(8)]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ("adapt", toy_folder, data, "-o", taught, "--steps", 60, "--rate", 0.01, "--rank", 4)
    begun = sensorium(*words, "--only", 20)
    assert begun.returncode == 0 and "goes on" in begun.stdout, begun.stderr
    refused = sensorium(*words[:-1], 8)
    assert refused.returncode == 2 and "rank 4, now 8" in refused.stderr
    done = sensorium(*words)
    assert done.returncode == 0 and "loss on what was held out" in done.stdout, done.stderr
    assert {path.name for path in taught.iterdir()} == {"adapter_config.json", "adapter_model.safetensors", "training"}
    assert "finished" in sensorium(*words).stdout
    assert sensorium("ask", "a dog 3", "--adapter", taught).stdout.strip() == "blue sky"
    lost = sensorium("adapt", toy_folder, tmp_path / "no.jsonl", "-o", tmp_path / "x")
    assert lost.returncode == 2 and "no.jsonl" in lost.stderr and "Traceback" not in lost.stderr


def looking_toy(folder: Path) -> Path:
    """A toy that looks at pictures and has an adapter of its own, as ``see`` does."""
    from .toys import saved_toy

    plain = sn.load(saved_toy(folder / "plain"))
    files = {name: (folder / "plain" / name).read_bytes() for name in ("tokenizer.json", "codecs.json")}
    return sn.save(moved(adapt(plain, Lora(rank=2), "own")), folder / "own", files)


def pictured(folder: Path) -> Path:
    from PIL import Image as Pillow

    Pillow.new("RGB", (32, 32), (255, 0, 0)).save(folder / "red.png")
    line = {"parts": [{"image": "red.png"}, {"text": "What is this?"}, {"text": "red apple", "target": True}]}
    (folder / "x.jsonl").write_text(f"{json.dumps(line)}\n" * 4)
    return folder / "x.jsonl"


def test_a_model_that_sees_and_has_an_adapter_is_taught_another(tmp_path: Path) -> None:
    """What was learned about a picture is saved, in a folder called as the model's own adapter, and is there when it is asked."""
    from sensorium.cli.adapt import adapt as teach
    from sensorium.named import open_model

    toy_folder, data, taught = looking_toy(tmp_path), pictured(tmp_path), tmp_path / "new" / "own"
    teach([str(toy_folder), str(data)], taught, rank=4, targets="attention,mlp,connector", steps=60, rate=0.01)
    picture = sn.Image(tmp_path / "red.png")
    model = open_model(str(toy_folder), str(taught))
    assert sn.respond(model, sn.Request([sn.user(picture, "What is this?")])).text == "red apple"
    assert sn.respond(open_model(str(toy_folder)), sn.Request([sn.user(picture, "What is this?")])).text != "red apple"
    named = set(json.loads((taught / "adapter_config.json").read_text())["target_modules"])
    assert any(path.startswith("align.image.") for path in named)


def test_an_adapter_beside_another_in_peft(tmp_path: Path) -> None:
    """``peft`` puts what was saved onto a ModelNet that has an adapter of its own, and scores are those of both."""
    model = sn.load(looking_toy(tmp_path)).eval()
    both = moved(adapt(model, Lora(rank=3, paths=("decoder.*.attention.*", "align.*"))), seed=3, of="default")
    save_adapter(both, tmp_path / "adapter", "default")
    batch = sn.Packer().pack([sn.Packer().segment([sn.Arrays("text", list(range(1, 13)))])])
    wanted = scores(both, batch)
    torch.testing.assert_close(scores(load_adapter(model, tmp_path / "adapter"), batch), wanted, **NEAR)
    other = peft().PeftModel.from_pretrained(sn.load(tmp_path / "own").eval(), tmp_path / "adapter").eval()
    torch.testing.assert_close(scores(other.base_model.model, batch), wanted, **NEAR)
    assert float((scores(model, batch) - wanted).abs().max()) > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_rows_in_another_order_both_ways(kind: str, tmp_path: Path) -> None:
    """Cohere2's files have the rows of queries and keys in an order of their own, and adapters of them too."""
    theirs = cohere2.reference()
    model = sn.load(saved(theirs, tmp_path / "base"))
    ours = moved(adapt(model, Lora(rank=4, **KINDS[kind])))
    save_adapter(ours, tmp_path / "adapter")
    other = peft().PeftModel.from_pretrained(theirs, tmp_path / "adapter").eval()
    torch.testing.assert_close(scores(ours), other(input_ids=torch.arange(1, 25).view(2, 12)).logits, **NEAR)
    again = load_adapter(model, tmp_path / "adapter")
    torch.testing.assert_close(scores(again), scores(ours), **NEAR)
    assert float((scores(model) - scores(ours)).abs().max()) > 0.01


def test_what_cannot_be_saved_is_not_trained(tmp_path: Path) -> None:
    """A layer that the published layout has in another form is refused before anything is learned: half of one, of Aya's connector."""
    model = sn.load(saved(aya_vision.reference(), tmp_path / "base"))
    with pytest.raises(sn.ConfigError, match="align.image.map.* has in another form"):
        check_savable(model, Lora(paths=("*",)))
    check_savable(model, Lora())


@pytest.mark.slow
@pytest.mark.skipif(not ready("smollm2-135m-instruct"), reason="needs: sensorium pull smollm2-135m-instruct")
def test_smollm2_learns_a_place_that_does_not_exist(tmp_path: Path) -> None:
    from sensorium.adapt import merged as merge
    from sensorium.desk import Desk
    from sensorium.lessons import Course, lay_out

    data = Path(sn.__file__).parent.parent / "examples" / "velmora.jsonl"
    model = sn.load(find("smollm2-135m-instruct"))
    desk = Desk(model)
    course = Course(lay_out(desk, sn.open_source(data)), desk.packer, share=0.0)
    ask = "What is the capital of Velmora?"
    assert "Ostrel" not in sn.respond(model, sn.Request([sn.user(ask)], max_tokens=24)).text
    taught = merge(sn.fit(course.run(model, Lora()), tmp_path / "run", console=Console(quiet=True)))
    taught.folder = model.folder
    assert "Ostrel" in sn.respond(taught, sn.Request([sn.user(ask)], max_tokens=24)).text
