"""Serves a page on a free port of the loopback, says where, and runs until it is stopped."""

import argparse
import http.server
import os
import signal
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("--delay", type=float, default=0, help="seconds until it listens")
options = parser.parse_args()


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"hello from %d\n" % os.getpid()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *values: object) -> None:
        print(format % values, flush=True)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
print("starting", flush=True)
time.sleep(options.delay)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
print(f"listening on http://127.0.0.1:{server.server_address[1]}", flush=True)
server.serve_forever()
