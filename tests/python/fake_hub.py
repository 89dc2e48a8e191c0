"""A hub on this machine with one model."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Serves the files of ``org/demo`` at one commit, the branch ``main`` and the tag ``v1``."""

    files: dict[str, bytes]
    endpoint: str = ""
    cut: set[str] = field(default_factory=set)
    """Files whose next answer ends in the middle."""
    broken: set[str] = field(default_factory=set)
    """Files that cannot be served."""
    sent: Counter[str] = field(default_factory=Counter)
    """Bytes of each file that were sent."""
    ranges: list[str] = field(default_factory=list)
    """The ranges that were asked for."""


@contextlib.contextmanager
def serve(model: Path, **others: bytes) -> Iterator[Hub]:
    """A hub with the files of a directory, and others."""
    files = {path.name: path.read_bytes() for path in model.iterdir()}
    hub = Hub(files={**files, **others})
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def _answer(self, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        revision = f"(main|v1|{COMMIT})"
        if re.fullmatch(f"/api/models/org/demo(/revision/{revision})?", path):
            siblings = [{"rfilename": name} for name in self.hub.files]
            self._json({"id": "org/demo", "sha": COMMIT, "siblings": siblings})
        elif re.fullmatch(f"/api/models/org/demo/tree/{revision}", path):
            entries = [
                {"type": "file", "path": name, "size": len(data), "oid": _etag(data)}
                for name, data in self.hub.files.items()
            ]
            self._json(entries)
        elif file := re.fullmatch(f"/org/demo/resolve/{revision}/(.*)", path):
            self._file(file[2], with_body)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, name: str, with_body: bool) -> None:
        data = self.hub.files[name]
        if with_body and name in self.hub.broken:
            self.send_error(403)
            return
        begin = 0
        if (asked := self.headers.get("Range")) and with_body:
            self.hub.ranges.append(f"{name} {asked}")
            begin = int(asked.removeprefix("bytes=").split("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("ETag", f'"{_etag(data)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data) - begin))
        self.end_headers()
        if not with_body:
            return
        end = len(data)
        if name in self.hub.cut:
            self.hub.cut.remove(name)
            end = (begin + end) // 2
            self.close_connection = True
        self.wfile.write(data[begin:end])
        self.hub.sent[name] += end - begin


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
