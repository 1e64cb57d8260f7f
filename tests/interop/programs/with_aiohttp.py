"""Jobs done with aiohttp; see `common`."""

import asyncio

import aiohttp
import common


async def hold(job: common.Job) -> None:
    async with aiohttp.ClientSession() as session:
        try:
            socket = await session.ws_connect(
                job.url, protocols=job.protocols, ssl=common.trusting()
            )
        except aiohttp.WSServerHandshakeError as refused:
            job.ended(refused.status)
            return
        job.opened(socket.protocol)
        # To cancel `receive` would count as the end of the connection.
        closing = asyncio.get_running_loop().create_task(close(socket, job.hold))
        reason = ""
        while (message := await socket.receive()).type is not aiohttp.WSMsgType.CLOSED:
            if message.type is aiohttp.WSMsgType.CLOSE:
                reason = message.extra
            elif message.type is not aiohttp.WSMsgType.CLOSING:
                job.noise(str(message))
        if job.hold is not None:
            await closing
        closing.cancel()
        job.ended(101, socket.close_code, reason)


async def close(socket: aiohttp.ClientWebSocketResponse, after: float | None) -> None:
    if after is not None:
        await asyncio.sleep(after)
        await socket.close()


common.in_threads(aiohttp.__version__, lambda job: asyncio.run(hold(job)))
