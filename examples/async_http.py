"""An async runner: one worker keeps eight requests in flight on one event loop.

The server answers nobody until eight wait at once, so the run ends only if they truly overlap.
"""

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from dispatch import DataParallelDispatchCenter, DispatchConfig, Runner, Shard

AT_ONCE = 8


class FetchRunner(Runner):
    """Asks the server whose port is the shared param."""

    concurrency = AT_ONCE
    shared_param: int

    async def do_run(self, shard: Shard[str]) -> str:
        """The body of the reply; raises ConnectionError if it is no 200."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.shared_param)
        try:
            writer.write(f"GET /{shard.payload} HTTP/1.0\r\n\r\n".encode())
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        finally:
            writer.close()
        if b" 200 " not in head.splitlines()[0]:
            raise ConnectionError(head.decode())
        return body.decode()


class Shout(BaseHTTPRequestHandler):
    """Answers in capitals, to eight at a time."""

    gate = threading.Barrier(AT_ONCE, timeout=20)

    def do_GET(self) -> None:
        """Wait for the seven others."""
        self.gate.wait()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path[1:].upper().encode())

    def log_message(self, format: str, *args: object) -> None: ...


if __name__ == "__main__":
    with ThreadingHTTPServer(("127.0.0.1", 0), Shout) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        words = [f"word-{n}" for n in range(5 * AT_ONCE)]
        config = DispatchConfig(data_parallel=1)
        center = DataParallelDispatchCenter(
            FetchRunner, words, shared_param=server.server_port, config=config
        )
        values = asyncio.run(center.run()).values()
        print(f"{len(values)} replies, {AT_ONCE} at a time: {values[0]} to {values[-1]}")
        server.shutdown()
