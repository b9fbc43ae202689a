"""The scripted SMTP server in a thread of its own, for tests without an event loop."""

from __future__ import annotations

import asyncio
import threading

from support.smtp_sink import SmtpSink


class SinkThread:
    """A scripted server in a thread of its own."""

    def __init__(self, sink: SmtpSink) -> None:
        self.sink = sink
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        async def serve() -> None:
            self._loop = asyncio.get_running_loop()
            self._stop = asyncio.Event()
            async with self.sink:
                self._ready.set()
                await self._stop.wait()

        asyncio.run(serve())

    def __enter__(self) -> SmtpSink:
        self._thread.start()
        assert self._ready.wait(10)
        return self.sink

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
