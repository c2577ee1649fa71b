"""Text codec: strings to token ids and back, byte by byte where no word piece fits, so that nothing is lost.

    text -> NFC -> digits apart -> byte-level pairs -> ids            special tokens are never made from what somebody typed
    ids -> text                                                       special tokens are left out
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from sensorium.types import CheckpointError, ConfigError, MediaError

__all__ = ["StreamDecoder", "Tokenizer"]

LONGEST_TOKEN = 64  # characters; a text of more than limit * this cannot fit the limit, and is refused before any work


class Tokenizer:
    """A trained tokenizer.

    Args:
        inner: the tokenizer of the ``tokenizers`` library.
    """

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        inner.encode_special_tokens = True  # a special token's own text, typed by a user, is plain text
        self._inner = inner
        added = inner.get_added_tokens_decoder()
        self.specials = {token.content: number for number, token in sorted(added.items()) if token.special}

    @classmethod
    def train(cls, texts: Iterable[str], vocab: int, specials: Sequence[str]) -> Tokenizer:
        """Learn byte-level pairs.

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
    def from_file(cls, path: str | Path) -> Tokenizer:
        """Read tokenizer.json.

        Raises:
            CheckpointError: missing, or not a tokenizer.
        """
        path = Path(path)
        try:
            return cls(tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8")))
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read ({error.strerror}); wanted a tokenizer.json") from error
        except Exception as error:  # noqa: BLE001 (the library raises plain Exception, and nothing else)
            raise CheckpointError(f"{path} is not a tokenizer.json ({str(error)[:80]})") from error

    def to_json(self) -> str:
        """The contents of tokenizer.json."""
        return self._inner.to_str()

    @property
    def vocab(self) -> int:
        """Ids known."""
        return self._inner.get_vocab_size()

    def special(self, name: str) -> int:
        """Id of a special token."""
        if name not in self.specials:
            raise ConfigError(f"the tokenizer has no special token {name!r}; it has {', '.join(self.specials) or 'none'}")
        return self.specials[name]

    def encode(self, text: str, limit: int | None = None) -> list[int]:
        """Ids of a text.

        Raises:
            MediaError: longer than ``limit`` tokens.
        """
        if limit is not None and len(text) > limit * LONGEST_TOKEN:
            raise MediaError(f"the text has {len(text):,} characters, wanted at most {limit} tokens; shorten it")
        ids = self._inner.encode(text.encode("utf-8", "replace").decode(), add_special_tokens=False).ids
        if limit is not None and len(ids) > limit:
            raise MediaError(f"the text has {len(ids)} tokens, wanted at most {limit}; shorten it")
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens are left out."""
        return self._inner.decode(list(ids), skip_special_tokens=True)

    def bytes_of(self, token: int) -> bytes:
        """The bytes one id stands for; none for a special token."""
        name = self._inner.id_to_token(token)
        if name is None or name in self.specials:
            return b""
        return bytes(_BYTE_OF[letter] for letter in name if letter in _BYTE_OF)


def _byte_letters() -> dict[str, int]:
    """The letter that stands for each byte in byte-level vocabularies (GPT-2's table, rebuilt by its rule)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {chr(byte): byte for byte in shown}
    hidden = [byte for byte in range(256) if byte not in set(shown)]
    return table | {chr(256 + place): byte for place, byte in enumerate(hidden)}


_BYTE_OF = _byte_letters()


class StreamDecoder:
    """Text from ids one at a time; a character is given out when all its bytes are there."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The characters that this id completes."""
        return self._decoder.decode(self._tokenizer.bytes_of(token))

    def finish(self) -> str:
        """What is left; a broken character becomes U+FFFD."""
        return self._decoder.decode(b"", final=True)
