"""Sandbox: renders a chat template, which came with somebody's weights and is a program, where it can do no harm.

    source -> a child process that knows jinja2's sandbox and nothing else -> text

The child (``codecs/_render.py``) has no room to grow, no files to write and half a second of processor time an answer; whatever it is
doing then, the system ends it. It stays for the next answer, so that a well-behaved template costs its 50 milliseconds of starting once.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

from sensorium.types import CheckpointError, ConfigError

__all__ = ["LONGEST_SOURCE", "Sandbox"]

LONGEST_SOURCE = 2**17  # characters; the longest published template has about 20,000
PATIENCE_S = 2.0  # by the wall clock, for a child that sleeps; one that works is ended by its own clock before that
STARTING_S = 30.0  # a busy machine may take long to start a process, and nothing hostile has been given to it yet
_CHILD = Path(__file__).with_name("_render.py")


class Sandbox:
    """One template in its child, started when it is first needed.

    Args:
        source: the template.

    Raises:
        CheckpointError: when rendering, for a template that is broken, refuses the messages, loops, or grows too large.
    """

    def __init__(self, source: str) -> None:
        if len(source) > LONGEST_SOURCE:
            raise CheckpointError(f"the chat template has {len(source):,} characters, wanted at most {LONGEST_SOURCE:,}; give another")
        self.source = source
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def render(self, values: dict[str, Any]) -> str:
        """What the template makes of values (plain JSON)."""
        with self._lock:
            if self._child is None or self._child.poll() is not None:
                self._start()
            return self._ask({"values": values}, PATIENCE_S)["text"]

    def close(self) -> None:
        """End the child; the next rendering starts another."""
        if self._child is not None:
            _end(self._child)
        self._child = None

    def _start(self) -> None:
        self.close()
        if importlib.util.find_spec("jinja2") is None:
            raise ConfigError("chat templates want the jinja2 library; pip install 'sensorium[chat]'")
        command = [sys.executable, "-I", "-S", str(_CHILD), json.dumps([path for path in sys.path if path])]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={})
        weakref.finalize(self, _end, self._child)
        self._ask({"source": self.source}, STARTING_S)

    def _ask(self, request: dict[str, Any], patience_s: float) -> dict[str, Any]:
        child = self._child
        timer = threading.Timer(patience_s, child.kill)
        timer.start()
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
            line = child.stdout.readline()
        except OSError:
            line = b""
        finally:
            timer.cancel()
        if not line.endswith(b"\n"):
            self.close()
            raise CheckpointError("the chat template was stopped: it took too long or too much memory; use another template")
        answer = json.loads(line)
        if "error" in answer:
            if "source" in request:
                self.close()
            raise CheckpointError(f"the chat template cannot be used here ({answer['error']}); check the order of the messages and their roles, "
                                  "or use another template")
        return answer


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()
