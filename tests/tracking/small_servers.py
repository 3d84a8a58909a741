"""HTTP servers in a thread: what stands between a tracker and its store."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import requests


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def http_server(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def demanding_proxy(upstream: str, *, authorization: str):
    """A proxy that answers 401 to whoever does not authorise himself so, as the gateway of a remote server does."""

    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Authorization") != authorization:
                status, content = 401, b'{"error_code": "UNAUTHENTICATED", "message": "bring a token"}'
            else:
                headers = {"Content-Type": self.headers.get("Content-Type", "application/json")}
                answer = requests.request(self.command, upstream + self.path, data=body, headers=headers)
                status, content = answer.status_code, answer.content
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_PATCH = do_DELETE = do_POST

        def log_message(self, *_):
            pass

    return http_server(Proxy)
