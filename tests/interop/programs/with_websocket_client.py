"""Jobs done with `websocket-client`; see `common`."""

import common
import websocket


def hold(job: common.Job) -> None:
    try:
        socket = websocket.create_connection(
            job.url, subprotocols=job.protocols, sslopt={"context": common.trusting()}
        )
    except websocket.WebSocketBadStatusException as refused:
        job.ended(refused.status_code)
        return
    job.opened(socket.getsubprotocol())
    socket.settimeout(job.hold)
    try:
        opcode, frame = socket.recv_data_frame(control_frame=True)
    except websocket.WebSocketTimeoutException:
        socket.send_close(1000)
        opcode, frame = socket.recv_data_frame(control_frame=True)
    if opcode == websocket.ABNF.OPCODE_CLOSE:
        job.ended(101, int.from_bytes(frame.data[:2]), frame.data[2:].decode())
    else:
        job.noise(str(frame))
    socket.shutdown()


common.in_threads(websocket.__version__, hold)
