"""A server on localhost that speaks OpenAI's protocol and answers as a test says. Real HTTP."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def completion(body, **choice):
    said = f"answer to {body['messages'][0]['content']}, seed {body['seed']}"
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"} | choice]}


class Server:
    """Answers with what `behave(count, body)` says: (status, headers, body), or bytes to write raw before hanging up."""

    def __init__(self, behave):
        self.seen, self.times, self.headers, self.paths = [], [], [], []
        self.under_way = self.most = 0
        lock, outer = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.seen.append(body)
                    outer.times.append(time.monotonic())
                    outer.headers.append(dict(self.headers))
                    outer.paths.append(self.path)
                    count = len(outer.seen)
                    outer.under_way += 1
                    outer.most = max(outer.most, outer.under_way)
                try:
                    answer = behave(count, body)
                finally:
                    with lock:
                        outer.under_way -= 1
                if isinstance(answer, bytes):
                    self.wfile.write(answer)
                    self.close_connection = True
                    return
                status, headers, said = answer
                payload = said.encode() if isinstance(said, str) else json.dumps(said).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.handle_error = lambda *args: None  # a client that hung up is part of the tests
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"


@contextmanager
def serve(behave):
    server = Server(behave)
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()
