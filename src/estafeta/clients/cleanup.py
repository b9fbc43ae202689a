"""The stub of cleanup(8) for programs that have a whole message in hand: bounce, pickup.

A large message goes in pieces, so that no frame and no socket buffer grows with it.
"""

from __future__ import annotations

from estafeta.ipc.channel import Channel, ServiceLost
from estafeta.ipc.messages import Chunk, Enqueue, EnqueueReply, Envelope

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
            self._stream = stream = self._stream % 0x7FFFFFFF + 1
            first = content[:STREAM_FROM]
            channel.notify(Enqueue(envelope, first, flags, received, True, stream, header_from_local))
            position = STREAM_FROM
            while len(content) - position > STREAM_FROM:
                channel.notify(Chunk(stream, content[position : position + STREAM_FROM]))
                position += STREAM_FROM
                await channel.drain()
            reply = await channel.call(Chunk(stream, content[position:], last=True))
        if not isinstance(reply, EnqueueReply):
            raise ServiceLost("cleanup gave an answer that is none")
        return reply
