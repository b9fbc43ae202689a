"""The stub of cleanup(8) for programs that have a whole message in hand: bounce, pickup.

A large message goes in pieces, so that no frame and no socket buffer grows with it.
"""

from __future__ import annotations

from estafeta.ipc.channel import Channel, ServiceLost
from estafeta.ipc.messages import Chunk, Enqueue, EnqueueReply, Envelope, Message

STREAM_FROM = 262144  # octets


class CleanupClient:
    """Wraps the channel to cleanup; stream numbers are this client's own."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._stream = 0

    async def enqueue(
        self, envelope: Envelope, content: bytes, flags: int, received: bytes, *, header_from_local: bool = True
    ) -> EnqueueReply:
        """Hand a message over and wait until it is safe or refused; raises ServiceLost."""
        channel = self._channel
        if len(content) <= STREAM_FROM:
            reply = await channel.call(Enqueue(envelope, content, flags, received, header_from_local=header_from_local))
        else:
            reply = await self._in_pieces(Enqueue(envelope, content, flags, received, True, 0, header_from_local))
        if not isinstance(reply, EnqueueReply):
            raise ServiceLost("cleanup gave an answer that is none")
        return reply

    async def _in_pieces(self, whole: Enqueue) -> Message:
        self._stream = stream = self._stream % 0x7FFFFFFF + 1
        content = whole.content
        whole.content, whole.stream = content[:STREAM_FROM], stream
        link = await self._channel.stream()
        try:
            link.notify(whole)
            position = STREAM_FROM
            while len(content) - position > STREAM_FROM:
                link.notify(Chunk(stream, content[position : position + STREAM_FROM]))
                position += STREAM_FROM
                await link.drain()
            return await self._channel.call(Chunk(stream, content[position:], last=True), link)
        finally:
            self._channel.end_stream(link)
