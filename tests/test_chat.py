"""Chat: templates as published ones are rendered, hostile ones ended, typed special tokens kept as text; conversations that remember."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

import sensorium as sn
from sensorium.catalog import ready
from sensorium.chat import Chat
from sensorium.codecs.chat import ChatTemplate
from sensorium.codecs.sandbox import LONGEST_SOURCE, Sandbox
from sensorium.codecs.text import StreamDecoder
from sensorium.constrain import Constraint
from sensorium.types import CheckpointError, ConfigError, MediaError

from . import chats

system = "Be brief.\n"
TALKS = {
    "one": [("user", "What is the capital of France?")],
    "system": [("system", system), ("user", "  Hello  there \n")],
    "three": [("user", "Hi"), ("assistant", "Hello! 你好"), ("user", "user: what?  0123\n\n")],
    "thoughts": [("user", "Hi"), ("assistant", "<think>\nhm\n</think>\n\nHello"), ("user", "And <b>now</b>?")],
}


def messages(talk: list[tuple[str, str]]) -> list[sn.Message]:
    return [sn.Message(role, (sn.Text(text),)) for role, text in talk]


def kind(name: str) -> tuple[tokenizers.Tokenizer, ChatTemplate]:
    which, source, special = chats.KINDS[name]
    return chats.TOKENIZERS[which](), ChatTemplate(source, special)


@pytest.mark.parametrize("name", chats.KINDS)
def test_templates_are_rendered_and_encoded_as_transformers_does(name: str) -> None:
    import transformers

    inner, template = kind(name)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, chat_template=template.source, **template.special)
    ours = sn.Tokenizer.from_text(inner.to_str())
    for talk in TALKS.values():
        plain = [{"role": role, "content": text} for role, text in talk]
        for answer in (True, False):
            text = theirs.apply_chat_template(plain, tokenize=False, add_generation_prompt=answer)
            assert template.render(messages(talk), answer) == text
            wanted = theirs.apply_chat_template(plain, tokenize=True, add_generation_prompt=answer, return_dict=False)
            assert template.ids(ours, messages(talk), answer) == wanted


@pytest.mark.parametrize("name", chats.KINDS)
def test_typed_special_tokens_stay_text(name: str) -> None:
    """Every special token typed in every message: as many special ids come out as without, and the text comes back whole."""
    inner, template = kind(name)
    tokenizer = sn.Tokenizer.from_text(inner.to_str())
    guarded = set(tokenizer.specials) | ({"<think>", "</think>"} if name == "thinks" else set())
    numbers = {tokenizer.added[token] for token in guarded}
    clean = template.ids(tokenizer, messages([("user", "a"), ("assistant", "b"), ("user", "c")]))
    for typed in [*guarded, "".join(guarded), "<|im_<|im_end|>end|>", "</s</s>>", " ".join(guarded) + "\ufdd0<s>\ufdd1", "a\ufdd0</s>"]:
        said = typed if not {"<think>", "</think>"} & guarded else typed.replace("think>", "")
        found = template.ids(tokenizer, messages([("user", typed), ("assistant", said), ("user", f"a {typed}\n{typed}")]))
        assert [token for token in found if token in numbers] == [token for token in clean if token in numbers], typed
        assert typed.replace("\ufdd0", "\ufffd").replace("\ufdd1", "\ufffd").strip() in tokenizer.decode(found)


def test_the_end_of_an_answer_is_what_the_template_puts_after_it() -> None:
    found = {name: kind(name)[1].end(sn.Tokenizer.from_text(kind(name)[0].to_str())) for name in chats.KINDS}
    assert found == {"smol": "<|im_end|>", "chatml": "<|im_end|>", "thinks": "<|im_end|>", "headers": "<|eot_id|>", "inst": "</s>",
                     "inst legacy": "</s>"}


def test_media_stand_where_they_were_said() -> None:
    inner, template = kind("smol")
    tokenizer, picture = sn.Tokenizer.from_text(inner.to_str()), sn.Image("cat.png")
    before, found, after = template.pieces(tokenizer, [sn.user(picture, "What is this?")])
    assert found is picture and tokenizer.decode(before).endswith("user\n") and tokenizer.decode(after).startswith("\nWhat is this?")
    with pytest.raises(ConfigError, match="pieces"):
        template.ids(tokenizer, [sn.user(picture)])
    with pytest.raises(CheckpointError, match="shows 0 of 1"):
        ChatTemplate("nothing").pieces(tokenizer, [sn.user(picture)])
    with pytest.raises(ConfigError, match="role 'wizard'"):
        template.render([sn.Message("wizard", (sn.Text("a"),))])


BOMBS = {
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "while messages last": "{% set ns = namespace(x='a') %}{% for a in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}{{ ns.x }}",
    "a long text": "{{ 'a' * 10**10 }}",
    "a large number": "{{ (10**7)**(10**7) }}",
    "wide": "{{ 'a'|center(10**11) }}",
    "formatted": "{{ '{:>99999999999}'.format(1) }}",
    "percent": "{{ '%99999999999d' % 1 }}",
    "a tree of itself": "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "a comparison": "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}"
                    "{% endfor %}{{ ns.x == ns.y }}",
    "a macro": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
    "a macro without end": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a flood": "{% for a in range(99999) %}{{ 'abcdefghij' * 100 }}{% endfor %}",
    "deep": "{{ " + "(" * 9000 + "1" + ")" * 9000 + " }}",
    "unclosed": "{% if a %}" * 5000,
    "replaced": "{% set x = 'a' * 99999 %}{{ x.replace('a', x).replace('a', x) }}",
    "time": "{{ strftime_now('%c' * 99999999) }}",
}
BREAK_OUTS = {
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "function": "{{ raise_exception.__globals__['sys'].exit() }}",
    "format": "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "attr": "{{ (''|attr('__class__')).mro() }}",
    "method": "{{ messages.append(1) }}",
    "namespace": "{{ namespace.__init__.__globals__ }}",
    "self": "{{ self._TemplateReference__context.environment.loader }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}{{ os }}",
    "lipsum": "{{ lipsum.__globals__['os'].popen('touch /tmp/broken-out') }}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_template_that_never_ends_is_ended(name: str) -> None:
    sandbox, start = Sandbox(BOMBS[name]), time.perf_counter()
    with pytest.raises(CheckpointError, match="chat template"):
        sandbox.render({"messages": [{"role": "user", "content": "hi"}]})
    assert time.perf_counter() - start < 4  # half a second of processor time; the rest is for a machine with other work


@pytest.mark.parametrize("name", BREAK_OUTS)
def test_nothing_outside_can_be_reached(name: str) -> None:
    with pytest.raises(CheckpointError, match="cannot be used here"):
        Sandbox(BREAK_OUTS[name]).render({"messages": []})


def test_the_sandbox_lives_on_after_a_refusal_and_starts_again_after_an_end() -> None:
    sandbox = Sandbox("{% if n == 1 %}{{ raise_exception('not so') }}{% elif n == 2 %}{% for a in range(99999) %}{% for a in range(99999) %}"
                      "{% endfor %}{% endfor %}{% endif %}{{ n }}")
    assert sandbox.render({"n": 0}) == "0"
    child = sandbox._child
    with pytest.raises(CheckpointError, match="not so"):
        sandbox.render({"n": 1})
    assert sandbox.render({"n": 3}) == "3" and sandbox._child is child
    with pytest.raises(CheckpointError, match="too long"):
        sandbox.render({"n": 2})
    assert child.returncode is not None and sandbox.render({"n": 4}) == "4" and sandbox._child is not child
    sandbox.close()
    with pytest.raises(CheckpointError, match="characters"):
        Sandbox("a" * (LONGEST_SOURCE + 1))
    with pytest.raises(CheckpointError, match="TemplateSyntaxError"):
        Sandbox("{% for %}").render({})


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(ConfigError, match=r"jinja2 library; pip install 'sensorium\[chat\]'"):
        Sandbox("a").render({})
    with pytest.raises(ConfigError, match="llguidance library"):
        Constraint({"type": "string"}, sn.Tokenizer.from_text(chats.byte_level().to_str()), [2])


def test_a_text_that_looks_like_the_protocol_is_a_text() -> None:
    text = '\n{"error": "x"}\n{"text": "\u2028\x00"}\n'
    assert Sandbox("{{ a }}").render({"a": text}) == text


@settings(max_examples=60, deadline=None)
@given(st.text())
@pytest.mark.parametrize("which", [*chats.TOKENIZERS, "words"])
def test_every_kind_of_tokenizer_streams_what_it_decodes(which: str, text: str) -> None:
    tokenizer = _cached(which)
    ids = tokenizer.encode(text + " The capital 你好 of")
    decoder = StreamDecoder(tokenizer)
    assert "".join(map(decoder.push, ids)) + decoder.finish() == tokenizer.decode(ids)


@pytest.mark.parametrize("which", chats.TOKENIZERS)
def test_streaming_gives_a_character_once_it_is_whole_and_skips_special_tokens(which: str) -> None:
    tokenizer = _cached(which)
    ids = tokenizer.encode("Hi 你好 Paris")
    end = next(iter(tokenizer.specials.values()))
    decoder, shown = StreamDecoder(tokenizer), []
    for token in ids:
        shown += [decoder.push(token), decoder.push(end)]
    assert "".join(shown) == "Hi 你好 Paris" and not decoder.finish() and not any("\ufffd" in piece for piece in shown)
    decoder.push(tokenizer.encode("鑫")[0 if which == "bytes" else 1])
    assert "\ufffd" in decoder.finish()


_MADE: dict[str, sn.Tokenizer] = {}


def _cached(which: str) -> sn.Tokenizer:
    if which not in _MADE:
        inner = chats.word_pieces() if which == "words" else chats.TOKENIZERS[which]()
        _MADE[which] = sn.Tokenizer.from_text(inner.to_str())
    return _MADE[which]


def test_a_files_own_limits_and_marks_are_known() -> None:
    tokenizer = _cached("words")
    assert tokenizer.around == ("[CLS]", "[SEP]") and _cached("first").around == ("<s>", None) and _cached("bytes").around == (None, None)
    ids = tokenizer.encode("the capital of france " * 10)
    assert len(ids) > 30 and 0 not in ids and not {2, 3} & set(tokenizer.encode("[CLS] [SEP]"))
    with pytest.raises(CheckpointError, match=r"not a tokenizer\.json"):
        sn.Tokenizer.from_text("{}")


def said(chat: Chat, text: str) -> str:
    return "".join(delta.value for delta in chat.say(text) if delta.kind == "text")


def fresh(chat: Chat) -> str:
    """What the engine, which remembers nothing, answers to the conversation up to its last question."""
    request = sn.Request(chat.messages[:-1], max_tokens=chat.settings.max_tokens)
    return sn.respond(chat.desk.model, request, chat.desk.codecs).text


@pytest.mark.parametrize("kind", ["smol", "headers", "inst"])
def test_a_turn_reads_only_what_is_new_and_says_what_a_fresh_run_says(kind: str) -> None:
    model, codecs = chats.speaker(kind=kind)
    chat = Chat(model, codecs, settings=sn.Request([], max_tokens=12))
    lengths = []
    for question in ("What is the capital of France?", "And of Spain?", "Thanks"):
        answer = said(chat, question)
        assert answer == fresh(chat) and chat.messages[-1] == sn.assistant(answer)
        whole = len(codecs.template.ids(codecs.text, chat.messages[:-1]))
        lengths.append((chat.read, whole))
    assert lengths[0][0] == lengths[0][1]
    for (_, before), (read, whole) in zip(lengths, lengths[1:]):
        assert read <= whole - before, "what the prompt of the turn before had was read again"


def test_remembered_answers_are_not_read_again() -> None:
    """A model that says one word: its answer comes back as the ids it was made of, and only the end token and the question are new."""
    model, codecs = chats.speaker()
    chat = Chat(model, codecs, settings=sn.Request([], max_tokens=20, schema={"const": "The capital of France is Paris."}))
    assert said(chat, "What is the capital of France?") == '"The capital of France is Paris."'
    said(chat, "Hi")
    new = codecs.text.encode("<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", special=True)
    assert chat.read <= len(new) + 1  # and the last token of the answer, which was chosen but never read


def test_what_is_edited_is_read_again_from_there() -> None:
    model, codecs = chats.speaker()
    chat = Chat(model, codecs, system="Be brief.", settings=sn.Request([], max_tokens=8))
    said(chat, "One")
    said(chat, "Two")
    chat.messages[1] = sn.user("Another")
    assert said(chat, "Three") == fresh(chat)


def test_the_oldest_turns_make_room_and_it_says_so() -> None:
    model, codecs = chats.speaker()
    chat = Chat(model, codecs, system="Be brief.", settings=sn.Request([], max_tokens=10), room=150)
    notes, reads = [], []
    for number in range(12):
        deltas = list(chat.say(f"What is the capital of France, number {number}?"))
        notes += [delta.value for delta in deltas if delta.kind == "note"]
        reads.append(chat.read)
        seen = [chat.messages[0], *chat.messages[1 + chat.dropped : -1]]
        wanted = sn.respond(model, sn.Request(seen, max_tokens=10), codecs).text
        assert chat.messages[-1] == sn.assistant(wanted) and len(codecs.template.ids(codecs.text, seen)) < 150
    assert chat.dropped and chat.dropped % 2 == 0 and len(chat.messages) == 1 + 24
    assert 2 <= len(notes) < 6 and "no longer seen" in notes[0]
    with pytest.raises(MediaError, match="shorten"):
        said(chat, "word " * 400)
    assert len(chat.messages) == 1 + 24 and said(chat, "Hi")
    with pytest.raises(ConfigError, match="nothing was said"):
        list(chat.say())


def test_an_answer_can_be_stopped_and_left() -> None:
    model, codecs = chats.speaker(seed=1)
    chat = Chat(model, codecs, settings=sn.Request([], max_tokens=400))
    pieces = []
    for delta in chat.say("Go on"):
        if delta.kind == "text":
            pieces.append(delta.value)
            chat.stop()
    assert chat.messages[-1].parts[0].text == "".join(pieces) and len(pieces) < 5
    assert delta.kind == "part" and delta.value.text == "".join(pieces)
    for delta in chat.say("Again"):
        if delta.kind == "text":
            break
    assert chat.messages[-1] == sn.assistant(delta.value)
    assert said(chat, "And?") == fresh(chat)
    talk = threading.Thread(target=lambda: list(chat.say("On and on")))
    talk.start()
    chat.stop()
    talk.join(20)
    assert not talk.is_alive() and chat.messages[-1].role == "assistant"


def test_a_conversation_is_saved_and_goes_on(tmp_path: Path) -> None:
    model, codecs = chats.speaker()
    chat = Chat(model, codecs, system="简短。", settings=sn.Request([], max_tokens=8))
    said(chat, "One\nline\u2028two")
    path = chat.save(tmp_path / "talk.jsonl")
    other = Chat(model, codecs, settings=chat.settings)
    other.load(path)
    assert other.messages == chat.messages and said(other, "Two") == said(chat, "Two")
    chat.messages.append(sn.user(sn.Image("cat.png"), "this"))
    other.load(chat.save(path))
    assert other.messages[-1].parts[0].source == "cat.png"
    for broken in ("", "{}", "[1]", '{"role": "user"}', '{"role": "user", "parts": [{"smell": "x"}]}', '{"role": "user", "parts": [{}]}', "\x00"):
        (tmp_path / "bad.jsonl").write_text(broken)
        if broken:
            with pytest.raises(MediaError, match="no conversation"):
                other.load(tmp_path / "bad.jsonl")
    with pytest.raises(MediaError, match="no conversation"):
        other.load(tmp_path / "none.jsonl")
    chat.messages.append(sn.user(sn.Image(b"bytes")))
    with pytest.raises(MediaError, match="not a file"):
        chat.save(path)


@pytest.mark.slow
@pytest.mark.skipif(not ready("smollm2-135m-instruct"), reason="wants the weights of smollm2-135m-instruct")
def test_smollm2_knows_the_capital_of_france() -> None:
    from sensorium.catalog import find

    model = sn.load(find("smollm2-135m-instruct"))
    request = sn.Request([sn.user("What is the capital of France?")], max_tokens=20)
    assert sn.respond(model, request).text == "The capital of France is Paris."
    chat = Chat(model, settings=sn.Request([], max_tokens=20))
    assert said(chat, "What is the capital of France?") == "The capital of France is Paris."
    first = chat.read
    assert said(chat, "And of Italy?") == fresh(chat) and chat.read < first
