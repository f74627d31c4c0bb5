"""Run cells in a kernel of a Jupyter server, over the server's own channel: for vm/machine_tests.py.

    python -m vm.notebook_client HOST:PORT TOKEN KERNEL <CELLS        (a JSON list of their texts)

It speaks the web socket protocol (RFC 6455) as far as that takes: text frames, and no extensions.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import sys
import uuid
from typing import Any

PATIENCE = 300  # s, for one cell's next word


def main() -> int:
    """Run them; returns 0 if the kernel came to the end of each."""
    address, token, kernel = sys.argv[1:4]
    cells = json.load(sys.stdin)
    host, _, port = address.partition(":")
    connection = socket.create_connection((host, int(port)), timeout=PATIENCE)
    key = base64.b64encode(os.urandom(16)).decode()
    connection.sendall(
        f"GET /api/kernels/{kernel}/channels?token={token} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    stream = connection.makefile("rb")
    status = stream.readline().decode().strip()
    while stream.readline().strip():
        pass
    if " 101 " not in f"{status} ":
        raise SystemExit(f"no web socket: {status}")
    outputs = errors = 0
    for cell in cells:
        asked = uuid.uuid4().hex
        header = {
            "msg_id": asked,
            "msg_type": "execute_request",
            "session": "lab",
            "username": "",
            "version": "5.3",
        }
        content = {"code": cell, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": False}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
        send(connection, json.dumps(message).encode())
        while True:
            said = receive(stream)
            if said["parent_header"].get("msg_id") != asked:
                continue
            kind = said["header"]["msg_type"]
            outputs += kind in ("stream", "display_data", "execute_result")
            errors += kind == "error"
            if kind == "status" and said["content"]["execution_state"] == "idle":
                break
    print(f"{len(cells)} cells executed: {outputs} outputs, {errors} errors of exercises not yet done")
    return 0 if outputs else 1


def send(connection: socket.socket, data: bytes) -> None:
    """A text frame, masked as a client's are."""
    mask = os.urandom(4)
    size = struct.pack("!BBH", 0x81, 0x80 | 126, len(data)) if len(data) < 1 << 16 else b""
    size = size or struct.pack("!BBQ", 0x81, 0x80 | 127, len(data))
    connection.sendall(size + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(data)))


def receive(stream: Any) -> Any:
    """The next message; what the server sends to see whether we live is left unanswered."""
    whole = b""
    while True:
        first, second = stream.read(2)
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(stream.read(2 if size == 126 else 8), "big")
        data = stream.read(size)
        if first & 0x0F == 8:
            raise SystemExit("the server closed the channel")
        if first & 0x0F in (0, 1):
            whole += data
            if first & 0x80:
                return json.loads(whole)


if __name__ == "__main__":
    sys.exit(main())
