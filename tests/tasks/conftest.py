"""A real server on this machine, for downloads: it breaks off, redirects, changes its mind."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from bort.tasks import transfer
from bort.tasks.sources import SOURCES


class Handler(BaseHTTPRequestHandler):
    """Serves ``server.files`` with ranges; each request to a path takes the next of ``server.orders[path]`` first."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        path = urlsplit(self.path).path
        server.requests.append((path, self.headers.get("Range"), self.headers.get("If-Range"), self.headers.get("Authorization")))
        orders = server.orders.get(path, [])
        order = orders.pop(0) if orders else "serve"
        if order == "hold":
            server.release.wait(60)
        content = server.files.get(path)
        tag = server.tags.get(path, f'"{hashlib.sha256(content or b"").hexdigest()[:16]}"')
        if isinstance(order, tuple) and order[0] == "redirect":
            return self._answer(order[1], {"Location": order[2]})
        if isinstance(order, int):
            return self._answer(order, {})
        if content is None:
            return self._answer(404, {})
        begin = 0
        headers = {"ETag": tag} if tag else {}
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and order != "no range" and self.headers.get("If-Range") in (None, tag):
            begin = int(asked[1])
            if begin >= len(content):
                return self._answer(416, {"Content-Range": f"bytes */{len(content)}"})
            if order == "wrong part":
                begin -= 1
            if order == "another mark":
                headers["ETag"] = '"another"'
            headers["Content-Range"] = f"bytes {begin}-{len(content) - 1}/{len(content)}"
        body = content[begin:]
        if order == "no length":
            headers["Connection"] = "close"
        else:
            headers["Content-Length"] = str(len(body))
        if isinstance(order, dict):
            headers |= order | {"Connection": "close"}
        if order == "gzip encoding":
            headers["Content-Encoding"] = "gzip"
        self.send_response(206 if "Content-Range" in headers else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if isinstance(order, tuple):
            body = body[: order[1]]
        self.wfile.write(body)
        if isinstance(order, tuple) and order[0] == "stall":
            self.wfile.flush()
            server.release.wait(60)
        if order == "no length" or isinstance(order, tuple | dict):
            self.wfile.flush()
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)
        return None

    def _answer(self, status, headers):
        self.send_response(status)
        for name, value in (headers | {"Content-Length": "0"}).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(transfer, "PAUSES", (0.0, 0.0, 0.0))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.files, server.orders, server.tags, server.requests, server.release = {}, {}, {}, [], threading.Event()
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("BORT_DATA_MIRROR", server.url)
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def make_official(monkeypatch):
    """A function that makes a content the official one of a published path, so that archives made here are taken."""

    def make(path, content):
        new = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for folder, sources in SOURCES.items():
            changed = [dataclasses.replace(source, **new) if source.url.endswith(path) else source for source in sources]
            monkeypatch.setitem(SOURCES, folder, tuple(changed))

    return make


@pytest.fixture
def publish(server, make_official):
    """A function that serves a content as the official one of a published path."""

    def publish(path, content):
        server.files[path] = content
        make_official(path, content)

    return publish
