"""The command line: every command in its order, and what becomes of errors.

Everything a person can get wrong (a missing file, a broken picture, an unknown name) is an error line and exit code 2.
"""

from __future__ import annotations

import sys
import warnings

import typer
from rich.markup import escape

from sensorium.cli import adapt, learn, look, models, talk
from sensorium.cli.shared import err

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich",
                  help="Sensorium: multimodal models on your own machine. Text, pictures and speech go in and come out.")
app.command()(talk.ask)
app.command()(talk.chat)
app.command()(talk.transcribe)
app.command()(talk.speak)
app.command()(look.index)
app.command()(look.search)
app.command()(models.models)
app.command()(models.pull)
app.command()(models.describe)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(learn.train)
app.command()(adapt.adapt)
app.command("eval")(learn.evaluate)
app.command()(learn.matrix)
app.command()(learn.demo)


def _shown(message: Warning | str, category: type[Warning], filename: str, lineno: int, file: object = None, line: str | None = None) -> None:
    """A warning as a line on the error stream: ours as a sentence, others with where they come from."""
    from sensorium.desk import TruncationWarning

    text = str(message) if issubclass(category, TruncationWarning) else warnings.formatwarning(message, category, filename, lineno, line).strip()
    err.print(f"[dim]{escape(text)}[/]", highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point: our own errors are shown without a traceback, with exit code 2; a stopped pipe or Ctrl-C is quiet."""
    warnings.showwarning = _shown
    try:
        app()
    except ValueError as error:
        err.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        err.print("stopped")
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(0)
