"""Text codec: strings to token ids and back, by any tokenizer.json.

    text -> the tokenizer's own normalizer, splitter and model -> ids     special tokens are never made from what somebody typed
    ids -> text, whole or one id at a time                                special tokens are left out

A template's text is the exception: ``encode(..., special=True)`` makes special tokens of their names, save those that ``quoted`` marked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from sensorium.types import CheckpointError, ConfigError, MediaError

__all__ = ["StreamDecoder", "Tokenizer"]

LONGEST_TOKEN = 64  # characters; a text of more than limit * this cannot fit the limit, and is refused before any work
QUOTE = "\ufdd0"  # one of the code points that Unicode sets aside for a program's own use: what follows it is text


class Tokenizer:
    """A trained tokenizer.

    Args:
        inner: the tokenizer of the ``tokenizers`` library.
    """

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        inner.encode_special_tokens = True  # a special token's own text, typed by a user, is plain text
        inner.no_truncation()  # some files come set up to cut, or to pad, to one length
        inner.no_padding()
        self._inner = inner
        self._added = inner.get_added_tokens_decoder()
        self.specials = {token.content: number for number, token in sorted(self._added.items()) if token.special}

    @classmethod
    def train(cls, texts: Iterable[str], vocab: int, specials: Sequence[str]) -> Tokenizer:
        """Learn byte-level pairs, of texts in NFC with their digits apart: where no piece of a word fits, bytes do, and nothing is lost.

        Args:
            texts: what to learn from.
            vocab: ids in all, at least 256 and the specials.
            specials: names that get the first ids.
        """
        if vocab < 256 + len(specials):
            raise ConfigError(f"a byte-level vocabulary of {vocab} has no room for 256 bytes and {len(specials)} specials")
        inner = tokenizers.Tokenizer(models.BPE())
        inner.normalizer = normalizers.NFC()
        inner.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
        inner.decoder = decoders.ByteLevel()
        inner.train_from_iterator(texts, trainers.BpeTrainer(
            vocab_size=vocab, special_tokens=list(specials), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
        return cls(inner)

    @classmethod
    def from_text(cls, text: str, name: str = "the tokenizer") -> Tokenizer:
        """Read the contents of a tokenizer.json.

        Args:
            name: what to call it in an error.

        Raises:
            CheckpointError: not a tokenizer.
        """
        try:
            return cls(tokenizers.Tokenizer.from_str(text))
        except Exception as error:  # noqa: BLE001 (the library raises plain Exception, and nothing else)
            raise CheckpointError(f"{name} is not a tokenizer.json ({str(error)[:80]})") from error

    @classmethod
    def from_file(cls, path: str | Path) -> Tokenizer:
        """Read tokenizer.json.

        Raises:
            CheckpointError: missing, or not a tokenizer.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read ({error.strerror}); wanted a tokenizer.json") from error
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{path} is not a tokenizer.json (it is not text)") from error
        return cls.from_text(text, str(path))

    def to_json(self) -> str:
        """The contents of tokenizer.json."""
        return self._inner.to_str()

    @property
    def vocab(self) -> int:
        """Ids known."""
        return self._inner.get_vocab_size()

    @property
    def added(self) -> dict[str, int]:
        """Tokens put beside the trained ones, special or not: name -> id."""
        return {token.content: number for number, token in sorted(self._added.items())}

    @cached_property
    def around(self) -> tuple[str | None, str | None]:
        """Names of the special tokens that the file itself puts before and after a text (BERT's [CLS] and [SEP]); None for none."""
        whole = self._inner.encode("a", add_special_tokens=True)
        names = [token if special else None for token, special in zip(whole.tokens, whole.special_tokens_mask, strict=True)]
        return (names[0], names[-1]) if names else (None, None)

    def number(self, name: str) -> int | None:
        """Id of a token of the vocabulary, special or not; None where there is none."""
        return self._inner.token_to_id(name)

    def name(self, number: int) -> str | None:
        """The token of an id, special or not; None where there is none."""
        return self._inner.id_to_token(number) if 0 <= number < 1 << 32 else None

    def special(self, name: str) -> int:
        """Id of a special token."""
        if name not in self.specials:
            raise ConfigError(f"the tokenizer has no special token {name!r}; it has {', '.join(self.specials) or 'none'}")
        return self.specials[name]

    def guarding(self, names: Iterable[str]) -> Tokenizer:
        """This tokenizer with more of its added tokens made special, so that typed text cannot make them either."""
        more = {name for name in names if name in self.added} - set(self.specials)
        if not more:
            return self
        data = json.loads(self.to_json())
        for token in data["added_tokens"]:
            token["special"] = token["special"] or token["content"] in more
        return Tokenizer.from_text(json.dumps(data))

    def encode(self, text: str, limit: int | None = None, special: bool = False, first: bool = True) -> list[int]:
        """Ids of a text.

        Args:
            limit: most ids.
            first: it stands at the beginning; some tokenizers put a blank before the first word there, and there alone.
            special: names of special tokens become those tokens, save where :meth:`quoted` marked them as text.

        Raises:
            MediaError: longer than ``limit`` tokens.
        """
        if limit is not None and len(text) > limit * LONGEST_TOKEN:
            raise MediaError(f"the text has {len(text):,} characters, wanted at most {limit} tokens; shorten it")
        text = text.encode("utf-8", "replace").decode()
        inner = self._inner if first else self._later
        ids = list(self._with_specials(text, inner)) if special else inner.encode(text, add_special_tokens=False).ids
        if limit is not None and len(ids) > limit:
            raise MediaError(f"the text has {len(ids)} tokens, wanted at most {limit}; shorten it")
        return ids

    def quoted(self, text: str) -> str:
        """A text for inside a template: each special token's name in it is marked as text."""
        return re.sub(f"(?={self._names})", QUOTE, text.replace(QUOTE, "\ufffd")) if self.specials else text

    @cached_property
    def _names(self) -> str:
        """A pattern of every special token's name, the longest first."""
        return "(?:" + "|".join(re.escape(name) for name in sorted(self.specials, key=len, reverse=True)) + ")"

    def _with_specials(self, text: str, inner: tokenizers.Tokenizer) -> Iterator[int]:
        """Split at special tokens as the library does: a token may swallow the blanks beside it."""
        at = 0
        found = re.finditer(f"(?<!{QUOTE}){self._names}", text) if self.specials else ()
        for match in found:
            token = self._added[self.specials[match.group()]]
            before = text[at : match.start()]
            yield from _plain(inner, before.rstrip() if token.lstrip else before)
            yield self.specials[match.group()]
            at = match.end()
            if token.rstrip:
                at = len(text) - len(text[at:].lstrip())
            inner = self._later
        yield from _plain(inner, text[at:])

    @cached_property
    def _later(self) -> tokenizers.Tokenizer:
        """For what follows a special token: some tokenizers put a blank before the first word of a text, and there alone."""
        data = json.loads(self.to_json())
        if not _drop_first_blank(data.get("pre_tokenizer")):
            return self._inner
        later = tokenizers.Tokenizer.from_str(json.dumps(data))
        later.encode_special_tokens = True
        return later

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens are left out."""
        return self._inner.decode(list(ids), skip_special_tokens=True)


def _plain(inner: tokenizers.Tokenizer, text: str) -> list[int]:
    return inner.encode(text.replace(QUOTE, ""), add_special_tokens=False).ids if text else []


def _drop_first_blank(part: Any) -> bool:
    """Turn ``prepend_scheme`` from "first" to "never" wherever it stands; says whether it stood anywhere."""
    if not isinstance(part, dict):
        return False
    here = part.get("prepend_scheme") == "first"
    if here:
        part["prepend_scheme"] = "never"
    return any([here, *map(_drop_first_blank, part.get("pretokenizers", []))])


class StreamDecoder:
    """Text from ids one at a time, whatever the tokenizer: a character is given out when all its bytes are there.

    The ids since the last whole character are decoded together with the few before them, for what an id says may depend on those (a
    blank, a byte); what the few say alone has been given out already.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._skip = set(tokenizer.specials.values())
        self._before: list[int] = []
        self._new: list[int] = []

    def push(self, token: int) -> str:
        """The characters that this id completes."""
        if token in self._skip:
            return ""
        self._new.append(token)
        text = self._text()
        if text.endswith("\ufffd"):
            return ""
        self._before, self._new = self._new, []
        return text

    def finish(self) -> str:
        """What is left; a broken character becomes U+FFFD."""
        text = self._text() if self._new else ""
        self._before, self._new = [], []
        return text

    def _text(self) -> str:
        known = self._tokenizer.decode(self._before)
        text = self._tokenizer.decode(self._before + self._new)
        return text[len(known) :] if text.startswith(known) else self._tokenizer.decode(self._new)
