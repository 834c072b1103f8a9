"""Talks to an echo: `websocket_client.py URL [CA]`. Texts and bytes, small and large, in one piece and in fragments, with pings between."""

import asyncio
import os
import ssl
import sys

from websockets.asyncio.client import connect


async def main():
    context = ssl.create_default_context(cafile=sys.argv[2]) if len(sys.argv) > 2 else None
    async with connect(sys.argv[1], ssl=context, max_size=None) as socket:
        for message in ["", "short", "\u00e9" * 70_000, os.urandom(1), os.urandom(3_000_000)]:
            await socket.send(message)
            assert await socket.recv() == message
        await socket.send(["in ", "three ", "pieces"])
        assert await socket.recv() == "in three pieces"
        await (await socket.ping())
        many = [os.urandom(1_000) for _ in range(200)]
        for message in many:
            await socket.send(message)
        for message in many:
            assert await socket.recv() == message
    print("all echoed")


asyncio.run(main())
