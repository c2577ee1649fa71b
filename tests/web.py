"""A small web server on this machine for tests of downloads."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Handler(http.server.BaseHTTPRequestHandler):
    """Serves ``server.files``; honours Range only if ``server.ranges``; cuts the connection after ``server.cut`` bytes."""

    def do_GET(self) -> None:
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = 0
        asked = self.headers.get("Range", "")
        self.server.asked.append(asked)
        self.server.paths.append(self.path)
        if asked and self.server.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        try:
            self.wfile.write(content[start : None if self.server.cut is None else start + self.server.cut])
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def serve() -> Iterator[http.server.ThreadingHTTPServer]:
    """A running server: put content into ``files`` by path; ``asked`` and ``paths`` say what was wanted, in order."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as made:
        made.files, made.ranges, made.cut, made.asked, made.paths = {}, True, None, [], []
        made.url = f"http://127.0.0.1:{made.server_port}"
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()
