"""Says back what it hears: `websocket_server.py HOST:PORT`."""

import asyncio
import sys

from websockets.asyncio.server import serve


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def main():
    host, port = sys.argv[1].rsplit(":", 1)
    async with serve(echo, host, int(port), max_size=None):
        await asyncio.get_running_loop().create_future()


asyncio.run(main())
