"""Engine, memory and demo on a toy model: what is asked is answered, alone as in a crowd, and refused by name."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

import sensorium as sn
from sensorium.catalog import find, ready
from sensorium.demo import make_demo
from sensorium.denoise import Solver
from sensorium.desk import Desk
from sensorium.engine import codecs_of
from sensorium.memory import Memory, pictures_in

from . import chats
from .toys import saved_toy, toy_nano


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> sn.ModelNet:
    return sn.load(saved_toy(tmp_path_factory.mktemp("toy") / "toy"))


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for number, colour in enumerate(((0.9, 0.1, 0.1), (0.1, 0.9, 0.1), (0.1, 0.1, 0.9))):
        sn.Image(torch.tensor(colour)[:, None, None].expand(3, 40, 30)).save(folder / f"{number}.png")
    return folder


def test_embeddings_are_unit_vectors_and_do_not_depend_on_neighbours(model: sn.ModelNet, pictures: Path) -> None:
    values = [sn.Image(pictures / "0.png"), "a dog", [sn.Image(pictures / "1.png"), "red"], "a much longer text about nothing"]
    together = sn.embed(model, values)
    alone = torch.cat([sn.embed(model, [value]) for value in values])
    assert together.shape == (4, 24)
    assert torch.allclose(together.norm(dim=1), torch.ones(4), atol=1e-5)
    assert torch.allclose(together, alone, atol=1e-5)
    assert not torch.allclose(together[0], sn.embed(model, [sn.Image(pictures / "1.png")])[0], atol=1e-3)


def test_text_answers_are_the_same_alone_in_a_crowd_and_streamed(model: sn.ModelNet, pictures: Path) -> None:
    prompts = [[sn.Image(pictures / f"{i}.png"), "What is this?"] for i in range(3)] + [["a dog"]]
    crowd = sn.write_texts(model, prompts, max_tokens=6)
    for prompt, text in zip(prompts, crowd, strict=True):
        request = sn.Request([sn.user(*prompt)], max_tokens=6)
        assert sn.respond(model, request).text == text
        assert "".join(event.value for event in sn.stream(model, request) if event.kind == "text") == text


def test_a_drawing_depends_on_words_and_seed_and_on_nothing_else(model: sn.ModelNet) -> None:
    model.heads["image"].refine[-1].weight.data.normal_(0, 0.5, generator=torch.Generator().manual_seed(0))  # fresh, it draws nothing
    model.heads["image"].modulate.weight.data.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))

    def drawn(text: str, seed: int) -> torch.Tensor:
        return sn.respond(model, sn.Request([sn.user(text)], want=["image"], seed=seed, steps=3)).image.source

    assert torch.equal(drawn("a dog", 1), drawn("a dog", 1))
    assert not torch.equal(drawn("a dog", 1), drawn("a dog", 2))
    assert not torch.equal(drawn("a dog", 1), drawn("red apple", 1))
    crowd = sn.draw_images(model, [["red apple"], ["a dog"]], Solver(steps=3, seed=0))
    assert torch.allclose(crowd[1].source, drawn("a dog", 1), atol=1e-5)


def test_drawing_streams_previews_and_the_file_says_what_made_it(model: sn.ModelNet, tmp_path: Path) -> None:
    events = list(sn.stream(model, sn.Request([sn.user("a dog")], want=["image", "text"], steps=4, seed=9)))
    assert [(e.kind, e.done, e.total) for e in events if e.kind == "step"] == [("step", 1, 4), ("step", 2, 4), ("step", 3, 4)]
    assert [e.value.modality for e in events if e.kind == "part"] == ["image", "text"]
    image = next(e.value for e in events if e.kind == "part")
    from sensorium.codecs.vision import load_image, read_info

    path = image.save(tmp_path / "dog.png")
    assert read_info(path)["seed"] == 9 and load_image(path).shape == (3, 32, 32)


def test_what_a_model_cannot_do_is_refused_by_name(model: sn.ModelNet) -> None:
    for request, says in (
        (sn.Request([sn.user("a dog")], want=["audio"]), "cannot write audio; it writes text, image"),
        (sn.Request([sn.user("a dog")], want=["smell"]), "'smell' is no modality"),
        (sn.Request([sn.user(sn.Audio("a.wav"))]), "given audio, but reads only text, image"),
    ):
        with pytest.raises(sn.ModalityError, match=says):
            sn.respond(model, request)
    with pytest.raises(sn.ConfigError, match="empty"):
        sn.respond(model, sn.Request([]))
    with pytest.raises(sn.ConfigError, match="built, not loaded"):
        sn.embed(toy_nano().build(), ["a dog"])
    with pytest.raises(sn.MediaError, match="reads 32 tokens; shorten it"):
        sn.embed(model, ["word " * 500], truncate=False)


def test_a_model_loaded_again_reads_its_codecs_again(tmp_path: Path) -> None:
    first = sn.load(saved_toy(tmp_path / "toy"))
    assert codecs_of(first) is codecs_of(first) and codecs_of(first).context == 32
    codecs = tmp_path / "toy" / "codecs.json"
    codecs.write_text(codecs.read_text().replace('"context": 32', '"context": 9'))
    assert codecs_of(sn.load(tmp_path / "toy")).context == 9 and codecs_of(first).context == 32


def test_memory_adds_once_finds_and_survives(model: sn.ModelNet, pictures: Path, tmp_path: Path) -> None:
    (pictures / "broken.png").write_bytes(b"not a picture")
    memory = Memory(tmp_path / "table", model, "toy")
    first = memory.add(pictures_in(pictures))
    assert (len(first.added), len(first.known), len(first.refused)) == (3, 0, 1)
    again = Memory(tmp_path / "table", model, "toy")
    second = again.add(pictures_in(pictures))
    assert (len(second.added), len(second.known), len(again)) == (0, 3, 3)
    found = again.search(sn.Image(pictures / "2.png"), 2)
    assert found[0].path.name == "2.png" and found[0].score == pytest.approx(1.0, abs=1e-4)
    (pictures / "2.png").unlink()
    assert "2.png" not in [item.path.name for item in again.search("a dog", 3)]


def test_memory_refuses_another_models_table(model: sn.ModelNet, pictures: Path, tmp_path: Path) -> None:
    Memory(tmp_path / "table", model, "toy").add(pictures_in(pictures))
    other = sn.load(saved_toy(tmp_path / "other", seed=1))
    with pytest.raises(sn.ConfigError, match="was made with toy-"):
        Memory(tmp_path / "table", other, "toy")
    with pytest.raises(sn.ConfigError, match="holds no pictures yet"):
        Memory(tmp_path / "empty", model, "toy").search("a dog")
    with pytest.raises(sn.MediaError, match="neither a folder nor a file"):
        pictures_in(tmp_path / "nowhere")


def test_the_demo_writes_one_page_that_needs_nothing_else(model: sn.ModelNet, pictures: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("SENSORIUM_HOME", str(tmp_path / "home"))
    page = make_demo(tmp_path / "demo", model, "toy", Console(file=io.StringIO()), pictures).read_text(encoding="utf-8")
    assert page.count("<figure>") == 3 + 12 and page.count("data:image/png;base64,") == 3 + 12 + 7 * 3 + 1
    assert "sensorium pull smollm2-135m-instruct whisper-base kokoro-82m" in page and page.count("data:audio/ogg;base64,") == 1
    assert "http" not in page.replace("http-equiv", "")


def published_chat(folder: Path) -> Path:
    """A toy Llama saved as it would be published, with a template and two tokens that end an answer."""
    import transformers

    which, source, special = chats.KINDS["headers"]
    inner = chats.TOKENIZERS[which]()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, chat_template=source, pad_token="<|endoftext|>", **special)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=160, tie_word_embeddings=True, bos_token_id=3, eos_token_id=[0, 6], pad_token_id=0, initializer_range=0.2)
    torch.manual_seed(1)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_published_chat_model_answers_as_transformers_does(tmp_path: Path) -> None:
    import transformers

    folder = published_chat(tmp_path / "chat")
    model = sn.load(folder)
    codecs = codecs_of(model)
    assert codecs.context == 160 and codecs.end == "<|eot_id|>" and codecs.ends == ("<|endoftext|>",)
    theirs, tokenizer = transformers.LlamaForCausalLM.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder)
    talk = [sn.Message("system", (sn.Text("Be brief."),)), sn.user("Hi"), sn.assistant("Hello"), sn.user("What is 12?")]
    plain = [{"role": message.role, "content": message.parts[0].text} for message in talk]
    ids = tokenizer.apply_chat_template(plain, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    with torch.no_grad():
        out = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
    wanted = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    assert sn.respond(model, sn.Request(talk, max_tokens=12)).text == wanted and wanted
    assert sn.write_texts(model, [["Hi"], ["What is 12? Please say"]], max_tokens=12) == [
        sn.respond(model, sn.Request([sn.user(text)], max_tokens=12)).text for text in ("Hi", "What is 12? Please say")]
    saved = sn.save(model, tmp_path / "ours", {"codecs.json": codecs.to_json().encode(), "tokenizer.json": codecs.text.to_json().encode()})
    assert sn.respond(sn.load(saved), sn.Request(talk, max_tokens=12)).text == wanted
    assert sn.Codecs.load(saved).template == codecs.template and sn.Codecs.load(saved).ends == codecs.ends


def test_a_conversation_longer_than_the_context_is_refused_and_an_answer_ends_with_it(tmp_path: Path) -> None:
    model = sn.load(published_chat(tmp_path / "chat"))
    codecs = codecs_of(model)
    talk = [sn.user("a b c d e f " * 2)]
    left = 160 - len(codecs.template.ids(codecs.text, talk))
    assert 20 < left < 100
    endless = replace(codecs, end=None, ends=())
    deltas = list(sn.stream(model, sn.Request(talk, max_tokens=500), endless))
    assert deltas[-1].kind == "part" and deltas[-1].done == left
    with pytest.raises(sn.MediaError, match="reads 160 with its answer"):
        sn.respond(model, sn.Request([sn.user("a b c d e f " * 40)]))


def test_a_stop_ends_a_text_and_is_not_part_of_it() -> None:
    model, codecs = chats.speaker(seed=3)
    request = sn.Request([sn.user("Hi")], max_tokens=60)
    whole = sn.respond(model, request, codecs).text
    assert len(whole) > 30
    for stop in (whole[12:15], whole[10:25], whole[20]):  # stops that lie across tokens
        deltas = list(sn.stream(model, replace(request, stop=["never said", stop]), codecs))
        text = "".join(delta.value for delta in deltas if delta.kind == "text")
        assert text == whole[: whole.index(stop)] == deltas[-1].value.text


def test_settings_of_a_request_reach_the_choice() -> None:
    model, codecs = chats.speaker()
    request = sn.Request([sn.user("Hi")], max_tokens=20, temperature=1.5, seed=3)
    text = sn.respond(model, request, codecs).text
    assert sn.respond(model, request, codecs).text == text
    greedy = sn.respond(model, replace(request, temperature=0.0), codecs).text
    for change in ({"top_k": 1}, {"top_p": 1e-9}, {"min_p": 1.0}):
        assert sn.respond(model, replace(request, **change), codecs).text == greedy
    assert len({text, greedy, *(sn.respond(model, replace(request, **change), codecs).text for change in ({"seed": 4}, {"repetition": 2.0}))}) == 4


def test_an_answer_keeps_to_a_schema_and_is_whole() -> None:
    model, codecs = chats.speaker()
    schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}, "legs": {"enum": [2, 4]}}, "required": ["name", "legs"]}
    request = sn.Request([sn.user("Hi")], max_tokens=80, schema=schema, temperature=1.0)
    for seed in range(4):
        found = json.loads(sn.respond(model, replace(request, seed=seed), codecs).text)
        assert set(found) == {"name", "legs"} and found["legs"] in (2, 4)
        assert json.loads(sn.respond(model, replace(request, seed=seed, max_tokens=23), codecs).text)["legs"] in (2, 4)
    with pytest.raises(sn.ConfigError, match="takes 23 tokens, and the answer may have 5; raise max_tokens"):
        sn.respond(model, replace(request, max_tokens=5), codecs)
    deltas = list(sn.stream(model, replace(request, stop=["legs"]), codecs))
    assert json.loads(deltas[-1].value.text) and [delta.value for delta in deltas if delta.kind == "note"] == [
        "the answer holds 'legs', which should stop it, and went on to the end of its schema"]
    with pytest.raises(sn.ConfigError, match="schema"):
        sn.respond(model, replace(request, schema={"type": "wibble"}), codecs)


def test_a_published_sentence_model_embeds_as_transformers_does(tmp_path: Path) -> None:
    import transformers

    inner = chats.word_pieces()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")
    config = transformers.BertConfig(vocab_size=len(tokenizer), hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96,
                                     max_position_embeddings=40, initializer_range=0.3)
    torch.manual_seed(0)
    theirs = transformers.BertModel(config).eval()
    theirs.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    texts = ["What is the capital of France?", "Paris", "you are a helpful assistant. " * 3]
    model = sn.load(tmp_path / "bert")
    batches = list(Desk(model).tower_batches(texts, places=40))
    assert sorted(i for some, _ in batches for i in some) == list(range(len(texts))) and max(batch.numel() for _, batch in batches) <= 40
    together = sn.embed(model, texts)
    for row, text in zip(together, texts, strict=True):
        ids = torch.tensor([[2, *sn.Tokenizer.from_text(inner.to_str()).encode(text), 3]])
        with torch.no_grad():
            wanted = theirs(ids).last_hidden_state[0].mean(0)
        torch.testing.assert_close(row, wanted / wanted.norm(), atol=1e-5, rtol=0)
    with pytest.raises(sn.MediaError, match="reads 38 tokens"):
        sn.embed(model, ["capital " * 41], truncate=False)
    long = tokenizer(["capital " * 60], truncation=True, max_length=40, return_tensors="pt")  # its end is left out as theirs is
    with torch.no_grad():
        wanted = theirs(long["input_ids"]).last_hidden_state[0].mean(0)
    torch.testing.assert_close(sn.embed(model, ["capital " * 60], truncate=True)[0], wanted / wanted.norm(), atol=1e-5, rtol=0)
    (tmp_path / "bert" / "sentence_bert_config.json").write_text('{"max_seq_length": 10, "do_lower_case": false}')
    with pytest.warns(sn.TruncationWarning, match="reads 8 tokens"):  # sentence-transformers cuts there, and was trained so
        short = sn.embed(sn.load(tmp_path / "bert"), ["capital " * 41])[0]
    torch.testing.assert_close(short, sn.embed(model, ["capital " * 8])[0], atol=1e-5, rtol=0)


@pytest.mark.skipif(not ready("minilm-l6"), reason="wants the weights of minilm-l6")
def test_minilm_knows_what_is_near() -> None:
    model = sn.load(find("minilm-l6"))
    near, far = (float(torch.dot(*sn.embed(model, ["A cat sits on the mat.", other]))) for other in (
        "A kitten is sitting on a rug.", "Interest rates rose again."))
    assert near > 0.5 and far < 0.2
