"""Jobs done with `websockets`; see `common`."""

import asyncio

import common
import websockets
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus


async def hold(job: common.Job) -> None:
    try:
        socket = await connect(job.url, subprotocols=job.protocols or None, ssl=common.trusting())
    except InvalidStatus as refused:
        job.ended(refused.response.status_code)
        return
    job.opened(socket.subprotocol)
    try:
        async with asyncio.timeout(job.hold):
            while True:
                job.noise(repr(await socket.recv()))
    except TimeoutError:
        await socket.close()
    except ConnectionClosed:
        pass
    job.ended(101, socket.close_code, socket.close_reason)


common.in_threads(websockets.__version__, lambda job: asyncio.run(hold(job)))
