"""Commands that talk: ask, chat, transcribe, speak."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from sensorium.cli.shared import bar, err, out
from sensorium.cli.words import named_in, there, value

Seed = Annotated[int, typer.Option(help="Of every random choice; the same seed gives the same answer.")]
MaxTokens = Annotated[int, typer.Option(min=1, max=8192, help="Longest text answer, in tokens.")]
Temperature = Annotated[float, typer.Option(min=0.0, max=5.0, help="0 always takes the likeliest word; higher is more varied.")]
TopK = Annotated[int, typer.Option(min=0, help="Choose among the k likeliest tokens; 0 is all.")]
TopP = Annotated[float, typer.Option(min=0.0, max=1.0, help="Choose among the likeliest that hold this share.")]
MinP = Annotated[float, typer.Option(min=0.0, max=1.0, help="Leave out tokens less likely than this share of the likeliest.")]
Repetition = Annotated[float, typer.Option(min=0.5, max=5.0, help="Over 1 makes what was already said less likely.")]
Stop = Annotated[list[str] | None, typer.Option(help="End the answer at this text; may be given several times.")]
Voice = Annotated[str | None, typer.Option(help="Voice of a spoken answer; [b]sensorium speak --voices[/b] lists them.")]
Speed = Annotated[float, typer.Option(min=0.5, max=2.0, help="Of speech; 1 is natural.")]
AdapterFolder = Annotated[Path | None, typer.Option("--adapter", help="What the model was taught: a folder of [b]sensorium adapt[/b] or of PEFT.")]
Language = Annotated[str, typer.Option(help="Spoken language as a two-letter code (en, zh, de ...), or auto.")]


def ask(
    what: Annotated[list[str], typer.Argument(help='A question, pictures, recordings: [i]cat.png "What is this?"[/i]')],
    want: Annotated[list[str] | None, typer.Option("--want", "-w", help="text (default), image, audio or video; may be given twice.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write the picture or sound.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Who answers; by default whoever at hand can. A name or a folder.")] = None,
    adapter: AdapterFolder = None,
    shots: Annotated[Path | None, typer.Option("--shots", help="Examples, answered as they should be, that the question follows: samples as "
                                               "[b]sensorium adapt[/b] reads them, .jsonl, .tar or .parquet.")] = None,
    explain_route: Annotated[bool, typer.Option("--explain-route", help="Show through which models the answer would go, and stop.")] = False,
    seed: Seed = 0,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Denoising steps for a picture.")] = 24,
    guidance: Annotated[float, typer.Option(min=0.0, max=50.0, help="How strictly a picture follows the words.")] = 3.0,
    best_of: Annotated[int, typer.Option(min=1, max=64, help="Draw so many times, and keep what the model finds nearest to the words.")] = 1,
    strength: Annotated[float | None, typer.Option(min=0.0, max=1.0, help="Change the picture given, by so much: 0 leaves it, 1 draws it "
                                                   "anew.")] = None,
    mask: Annotated[Path | None, typer.Option(help="With --strength: a picture that is white where the other may change.")] = None,
    max_tokens: MaxTokens = 256,
    temperature: Temperature = 0.0, top_k: TopK = 0, top_p: TopP = 1.0, min_p: MinP = 0.0, repetition: Repetition = 1.1, stop: Stop = None,
    schema: Annotated[Path | None, typer.Option(help="A JSON schema file that the answer keeps to.")] = None,
    voice: Voice = None, speed: Speed = 1.0, language: Language = "auto",
) -> None:
    """Ask anything: in words, about pictures, or aloud; answered in words, as a picture, or aloud.

    [dim]sensorium ask "What is the capital of France?"[/dim]

    [dim]sensorium ask picture.png "What is this?"[/dim]

    [dim]sensorium ask "Draw a red apple" --want image -o apple.png[/dim]

    [dim]sensorium ask crown.png "3D style" --want image --strength 0.7 -o changed.png[/dim]

    [dim]sensorium ask question.wav --want audio -o answer.wav[/dim]

    [dim]sensorium ask card.png "?" --shots examples.jsonl --model runs/fewshot/final[/dim]
    """
    import sensorium as sn
    from sensorium import route
    from sensorium.named import base_of

    wanted = tuple(want or ["text"])
    places = _places(wanted, output)
    given = [value(word) for word in what]
    for name in [name for word in given if word.modality == "text" for name in named_in(word.text)]:
        err.print(f"[dim]{escape(name)} is only spoken of; to have it looked at or heard, give it as a word of its own[/]", highlight=False)
    request = sn.Request([*_examples(shots), sn.user(*given)], want=wanted, seed=seed, steps=steps, guidance=guidance,
                         strength=strength, mask=sn.Image(there("--mask", mask, "a picture")) if mask else None, best_of=best_of,
                         max_tokens=max_tokens, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition=repetition,
                         stop=tuple(stop or ()), schema=_schema(schema), voice=voice, speed=speed, language=_language(language))
    if adapter is not None:
        there("--adapter", adapter, "the folder of an adapter", folder=True)
    model = model or (base_of(adapter) if adapter else None)
    skills = route.skills_with(model, str(adapter) if adapter else None) if model else None
    if explain_route:
        for name, way in zip(wanted, route.routes_of(request, skills), strict=True):
            notes = [f"[dim]{escape(note)}[/]" for note in way.notes]
            out.print(f"[b]{name}[/b]\n{escape(str(way))}", *notes, sep="\n", highlight=False, soft_wrap=True)
        return
    _show(route.stream_answer(request, skills, note=lambda text: err.print(f"[dim]{escape(text)}[/]", highlight=False, soft_wrap=True)), places)


def _places(wanted: tuple[str, ...], output: Path | None) -> dict[str, Path]:
    """Where each wanted picture or sound goes."""
    import sensorium as sn

    endings = {"image": ".png", "audio": ".wav", "video": ".webp"}
    media = [name for name in wanted if name in endings]
    if output is not None and not media:
        raise sn.ConfigError(f"--output {output} is for pictures and sounds; add --want image or --want audio")
    if output is not None and len(media) == 1:
        return {media[0]: output}
    base = output or Path("answer")
    return {name: base.with_suffix(endings[name]) for name in media}


def _schema(path: Path | None) -> dict[str, Any] | None:
    import sensorium as sn

    if path is None:
        return None
    there("--schema", path, "a JSON schema file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise sn.ConfigError(f"--schema {path} cannot be read ({error.strerror}); wanted a JSON schema file") from error
    except ValueError as error:
        raise sn.ConfigError(f"--schema {path} is not JSON ({error}); wanted a JSON schema file") from error


def _examples(path: Path | None) -> list[Any]:
    """Samples as turns of a conversation, one after the other."""
    from sensorium.lessons import turns
    from sensorium.samples import open_source

    if path is None:
        return []
    source = open_source(there("--shots", path, "a file of samples"))
    for note in source.notes:
        err.print(note, highlight=False, markup=False)
    return [message for index in range(len(source)) for message in turns(source[index], f"{path.name}, sample {index + 1}")]


def _language(word: str) -> str | None:
    return None if word == "auto" else word


def _show(deltas: Any, places: dict[str, Path]) -> None:
    """Text to the output as it comes, pictures and sounds to their files."""
    line_open = False
    with bar() as progress:
        task = progress.add_task("thinking", total=None)
        for event in deltas:
            if event.kind == "step":
                progress.update(task, description="drawing", completed=event.done, total=event.total)
            elif event.kind == "audio":
                progress.update(task, description="speaking", completed=event.done)
            elif event.kind == "text":
                if progress.live.is_started:  # words and a bar do not share a line
                    progress.stop()
                sys.stdout.write(event.value)
                sys.stdout.flush()
                line_open = True
            elif event.kind == "part":
                if line_open:
                    sys.stdout.write("\n")
                    line_open = False
                if event.value.modality != "text":
                    err.print(f"wrote {event.value.save(places[event.value.modality])}", highlight=False)


def chat(
    model: Annotated[str | None, typer.Option("--model", "-m", help="Who answers; by default the best language model at hand, or with a picture "
                                              "the best that sees.")] = None,
    image: Annotated[list[Path] | None, typer.Option("--image", "-i", help="A picture that goes with the first thing said; may be given several "
                                                     "times.")] = None,
    adapter: AdapterFolder = None,
    system: Annotated[str | None, typer.Option(help="What the model is told before the conversation.")] = None,
    save: Annotated[Path | None, typer.Option(help="Keep the conversation in this file, and go on with it next time.")] = None,
    seed: Seed = 0, max_tokens: MaxTokens = 512, temperature: Temperature = 0.0, top_k: TopK = 0, top_p: TopP = 1.0, min_p: MinP = 0.0,
    repetition: Repetition = 1.1,
) -> None:
    """Talk with a language model, turn by turn. An empty line or Ctrl-D ends it; Ctrl-C stops an answer.

    [dim]echo "Name three colours" | sensorium chat[/dim]    [dim]sensorium chat --image cat.png[/dim]
    """
    import sensorium as sn
    from sensorium.catalog import CATALOG
    from sensorium.chat import Chat
    from sensorium.named import base_of, best, open_model

    shown = [_shown(path) for path in image or []]
    if adapter is not None:
        there("--adapter", adapter, "the folder of an adapter", folder=True)
    name = model or (base_of(adapter) if adapter else best(*(("look", "see") if image else ("think",))))
    settings = sn.Request([], max_tokens=max_tokens, seed=seed, temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p,
                          repetition=repetition)
    talk = Chat(open_model(name, adapter), system=system, settings=settings)
    if save is not None and save.is_file():
        talk.load(save)
    entry = CATALOG.get(name)
    _converse(talk, name, save, shown, entry.only if entry is not None and adapter is None else None)


def _shown(path: Path) -> Any:
    """What ``--image`` names: a picture, or a film of which frames are looked at."""
    import sensorium as sn
    from sensorium.codecs.media import kind_of

    kind = kind_of(there("--image", path, "a picture"))
    if kind.modality not in ("image", "video", ""):
        raise sn.MediaError(f"--image {path} is {kind}; wanted a picture or a film")
    return sn.Video(path) if kind.modality == "video" else sn.Image(path)


def _converse(talk: Any, name: str, save: Path | None, shown: list[Any], only: str | None) -> None:
    """Lines in, answers out; what is ``shown`` goes with the first line, and ``only`` are the languages that the model knows."""
    from sensorium.codecs.questions import foreign, written_in

    warned = ""
    here = sys.stdin.isatty()
    if here:
        err.print(f"[dim]{name}; an empty line ends it[/]", highlight=False)
    while True:
        try:
            line = input("> " if here else "")
        except EOFError:
            return
        if not line.strip():
            if here:
                return
            continue
        warning = foreign(name, only, written_in(line))
        if warning and warning != warned:
            warned = warning
            err.print(f"[dim]{escape(warning)}: its answer may make no sense[/]", highlight=False, soft_wrap=True)
        try:
            before, shown = shown, []
            for delta in talk.say(*before, line):
                if delta.kind == "text":
                    sys.stdout.write(delta.value)
                    sys.stdout.flush()
                elif delta.kind == "note":
                    err.print(f"[dim]{delta.value}[/]", highlight=False)
        except KeyboardInterrupt:
            err.print("[dim] (stopped)[/]")
        sys.stdout.write("\n")
        if save is not None:
            talk.save(save)


def transcribe(
    recording: Annotated[Path, typer.Argument(help="A sound or film: wav, mp3, flac, ogg, m4a, mp4 ...")],
    language: Language = "auto",
    translate: Annotated[bool, typer.Option("--translate", help="Write English, whatever is spoken.")] = False,
    form: Annotated[str, typer.Option("--format", "-f", help="text, srt, vtt or json (json has the words' times).")] = "text",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; without it the text is printed as it is heard.")] = None,
    words: Annotated[bool, typer.Option("--words", help="Times of every word (json; in srt and vtt a caption is cut at words).")] = False,
    track: Annotated[str | None, typer.Option(help="Of a film with several sound tracks: a number from 1, or a language; by default the one that "
                                              "the film flags.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Who hears; by default the best at hand.")] = None,
) -> None:
    """Write down what is spoken in a recording, with times.

    [dim]sensorium transcribe talk.mp3[/dim]    [dim]sensorium transcribe film.mp4 --format srt -o film.srt[/dim]
    """
    import sensorium as sn
    from sensorium import captions
    from sensorium.codecs.audio import sound_track
    from sensorium.files import write_file
    from sensorium.hear import listen
    from sensorium.named import best, open_model

    if form not in captions.FORMATS:
        raise sn.ConfigError(f"--format got {form!r}, wanted one of {', '.join(captions.FORMATS)}")
    _check_heard(recording)
    audio = sn.Audio(recording, track=track)
    chosen = sound_track(audio)
    if chosen and track is None:
        err.print(f"[dim]{chosen}; --track names another[/]", highlight=False)
    name = model or best("hear")
    streaming = output is None and form == "text"
    heard = []
    with bar() as progress:
        task = progress.add_task("listening", total=None)
        pieces = listen(open_model(name), audio, language=_language(language), translate=translate, words=words or form == "json",
                        watch=lambda done, total: progress.update(task, completed=round(done), total=round(total) if total else None))
        for piece in pieces:
            heard.append(piece)
            if streaming:
                out.print(piece.text.strip(), highlight=False, markup=False, soft_wrap=True)
    if not heard:
        err.print("[dim]no speech was heard[/]")
    if streaming:
        return
    text = captions.write(heard, form)
    if output is None:
        sys.stdout.write(text)
    else:
        err.print(f"wrote {write_file(output, text.encode())}", highlight=False)


def _check_heard(recording: Path) -> None:
    """Refuse by name what nothing can be heard in; what is of no known kind is tried."""
    import sensorium as sn
    from sensorium.codecs.media import kind_of

    kind = kind_of(there("the recording", recording, "a sound or film"))
    silent = kind.modality == "video" and not kind.sound
    if silent or (kind.name and kind.modality not in ("audio", "video")):
        what = f"{kind} without sound" if silent and not kind.moving else kind
        raise sn.MediaError(f"{recording} is {what}; wanted a sound or film in which someone speaks")


def speak(
    text: Annotated[str | None, typer.Argument(help="What to say; a text file's name, or - for standard input, is read.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="wav, flac, ogg or mp3.")] = Path("speech.wav"),
    voice: Voice = None, speed: Speed = 1.0,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Who speaks; by default Kokoro, or espeak-ng where it is not at hand.")] = None,
    voices: Annotated[bool, typer.Option("--voices", help="List the voices and stop.")] = False,
) -> None:
    """Say a text aloud, in English or Chinese.

    [dim]sensorium speak "Good morning." -o morning.wav[/dim]    [dim]sensorium speak 早上好 --voice zf_xiaobei[/dim]
    """
    import sensorium as sn
    from sensorium.named import open_voice
    from sensorium.speak import join

    speaker = open_voice(model)
    if voices:
        for name in speaker.voices:
            out.print(name, highlight=False)
        return
    if text is None:
        raise sn.ConfigError('nothing to say; give a text: sensorium speak "Good morning."')
    words = sys.stdin.read() if text == "-" else _words_of(text)
    with bar() as progress:
        task = progress.add_task("speaking", total=None)
        pieces = []
        for piece in speaker.speak(words, voice=voice, speed=speed):
            pieces.append(piece)
            progress.update(task, completed=len(pieces))
    whole = join(pieces)
    err.print(f"wrote {whole.save(output)} ({len(whole.source) / whole.rate_hz:.1f} s, {speaker.name})", highlight=False)


def _words_of(text: str) -> str:
    """A text as it is, or that of the file that it names."""
    import sensorium as sn

    given = value(text)
    if given.modality != "text":
        raise sn.MediaError(f"{text} is a file of {given.modality}; wanted a text, or a file that holds one")
    return given.text
