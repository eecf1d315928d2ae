"""A local HTTP server that misbehaves as told, a request at a time."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CUT = 100_000
"""Bytes after which a body is cut off."""


class Handler(BaseHTTPRequestHandler):
    """The path is the script: `/truncate/truncate/fine/name.pth` misbehaves twice, then serves the file."""

    protocol_version = "HTTP/1.1"
    content: bytes
    asked: dict[str, int]
    ranges: list[str | None]
    go_on: threading.Event

    def do_GET(self) -> None:
        steps = self.path.strip("/").split("/")[:-1]
        turn = self.asked.get(self.path, 0)
        self.asked[self.path] = turn + 1
        self.ranges.append(self.headers.get("Range"))
        getattr(self, "do_" + steps[min(turn, len(steps) - 1)])()
        self.close_connection = True

    def _send(self, body: bytes, claimed: int | str, status: int = 200, kind: str = "application/octet-stream") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(claimed))
        self.end_headers()
        self.wfile.write(body)

    def _wanted(self) -> tuple[bytes, int]:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return (self.content[int(match[1]) :], 206) if match else (self.content, 200)

    def do_fine(self) -> None:
        body, status = self._wanted()
        self._send(body, len(body), status)

    def do_whole(self) -> None:
        """Knows no ranges."""
        self._send(self.content, len(self.content))

    def do_wordy(self) -> None:
        """Has no number for the length."""
        self._send(self.content, "abc")

    def do_truncate(self) -> None:
        body, status = self._wanted()
        self._send(body[:CUT], len(body), status)

    def do_stall(self) -> None:
        body, status = self._wanted()
        self._send(body[:CUT], len(body), status)
        self.connection.recv(1)  # until the client gives up

    def do_held(self) -> None:
        """Truncates, once the test says so."""
        self.go_on.wait()
        self.do_truncate()

    def do_reset(self) -> None:
        self.connection.close()

    def do_busy(self) -> None:
        self._send(b"", 0, 503)

    def do_missing(self) -> None:
        self._send(b"", 0, 404)

    def do_html(self) -> None:
        page = b"<html>please log in</html>"
        self._send(page, len(page), kind="text/html; charset=utf-8")

    def do_other(self) -> None:
        body = bytes(len(self.content))
        self._send(body, len(body))

    def do_away(self) -> None:
        self.send_response(302)
        self.send_header("Location", f"http://127.0.0.2:{self.server.server_port}/fine/name.pth")  # type: ignore[attr-defined]
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_moved(self) -> None:
        self.send_response(302)
        self.send_header("Location", "/fine/name.pth")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(content: bytes) -> Iterator[tuple[str, type[Handler]]]:
    """The server's address, and its handler, which notes what was asked."""
    handler = type(
        "OfThisTest", (Handler,), {"content": content, "asked": {}, "ranges": [], "go_on": threading.Event()}
    )
    server = ThreadingHTTPServer(("0.0.0.0", 0), handler)  # noqa: S104
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler
    finally:
        server.shutdown()
        server.server_close()
