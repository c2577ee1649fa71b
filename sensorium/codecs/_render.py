"""The sandbox's child: renders one chat template, again and again, knowing nothing of the rest of the project.

Run as a program of its own: a line of JSON in, a line of JSON out. Its argument is the import path, as JSON.

    {"source": template}           -> {"ok": true} or {"error": why}
    {"values": {name: value}}      -> {"text": what came out} or {"error": why}

Whatever the template does is cut off by the system: memory, files and processes once, processor time before every answer.
"""

from __future__ import annotations

import json
import signal
import sys
from datetime import datetime
from typing import Any

MEMORY = 512 * 2**20  # bytes of address space; the interpreter and the library take about 40 MB of it
SECONDS = 0.5  # of processor time an answer may take; the signal's default is to end the process, even in the middle of one operation
LONGEST = 2**22  # characters of text; a model's whole context is far shorter


def confine() -> None:
    """No more memory than said, nothing opened, nothing written, no new process, no core dump."""
    try:
        import resource
    except ImportError:  # not a POSIX system: the parent's clock alone ends it
        return
    for name, most in (("RLIMIT_AS", MEMORY), ("RLIMIT_NOFILE", 0), ("RLIMIT_FSIZE", 0), ("RLIMIT_NPROC", 0), ("RLIMIT_CORE", 0)):
        if name in vars(resource):
            try:
                resource.setrlimit(vars(resource)[name], (most, most))
            except (OSError, ValueError):  # some systems know a limit by name only
                continue


def clock(seconds: float) -> None:
    """End this process after so much processor time from now; 0 stops the clock."""
    if "ITIMER_PROF" in vars(signal):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def compiled(source: str) -> Any:
    """The template, in an environment like the one that published templates are written for."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """``{% generation %}`` marks what a model is trained to write; here it changes nothing."""

        tags = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    def tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def refuse(message: str) -> str:
        raise TemplateError(message)

    def namespace(**values: Any) -> Namespace:
        return Namespace(**values)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"], cache_size=0)
    environment.filters["tojson"] = tojson
    environment.globals |= {
        "raise_exception": refuse, "strftime_now": lambda form: datetime.now().strftime(form), "namespace": namespace}
    for name in ("cycler", "joiner", "lipsum"):
        environment.globals.pop(name)
    return environment.from_string(source)


def rendered(template: Any, values: dict[str, Any]) -> str:
    """What comes out, piece by piece, so that a flood is seen before it is all there."""
    pieces, length = [], 0
    for piece in template.generate(**values):
        pieces.append(piece)
        length += len(piece)
        if length > LONGEST:
            raise ValueError(f"it writes more than {LONGEST:,} characters")
    return "".join(pieces)


def warm() -> None:
    """Use all that is loaded on first use while files can still be opened."""
    import html  # noqa: F401
    import pprint  # noqa: F401
    import unicodedata  # noqa: F401

    for source in ("{% for a in ['b'] %}{{ strftime_now('%c') ~ a|tojson }}{% endfor %}", "{{ raise_exception('no') }}", "{{"):
        try:
            rendered(compiled(source), {})
        except Exception:  # noqa: BLE001 (the last two fail on purpose, so that failing has been done once)
            continue


def main() -> None:
    """Answer line after line until the parent closes the pipe."""
    sys.path[:] = json.loads(sys.argv[1])
    warm()
    confine()
    template: Any = None
    for line in sys.stdin.buffer:
        clock(SECONDS)
        try:
            request = json.loads(line)
            if template is None:
                template, answer = compiled(request["source"]), {"ok": True}
            else:
                answer = {"text": rendered(template, request["values"])}
            reply = json.dumps(answer)
        except Exception as error:  # noqa: BLE001 (a template can raise anything; it becomes a sentence)
            reply = json.dumps({"error": f"{type(error).__name__}: {str(error)[:200]}"})
        clock(0)
        sys.stdout.write(reply + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
