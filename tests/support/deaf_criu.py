"""A criu that can everything and does nothing: it notes what it is asked, for what no kernel at hand lets a real one do.

`criu swrk FD` as rpc.proto of criu describes it. Requests to save or restore go, as JSON, into the file CRIU_NOTES names.
"""

from __future__ import annotations

import json
import os
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from runtime.checkpoint.message import DUMP, FEATURE_CHECK, NOTIFY, OPTS, PRE_DUMP, RESTORE, TYPE, VERSION, decode, encode


def serve(connection: socket.socket) -> None:
    """Answer until the caller has had enough."""
    while data := connection.recv(1 << 16):
        request = decode(data)
        kind = request[TYPE]
        if kind == FEATURE_CHECK:
            connection.send(encode([(1, kind), (2, True), (8, encode([(1, True), (2, True)]))]))
        elif kind == VERSION:
            connection.send(encode([(1, kind), (2, True), (10, encode([(1, 4), (2, 2)]))]))
        elif kind in (DUMP, PRE_DUMP, RESTORE):
            note(kind, decode(bytes(request[OPTS])))  # type: ignore[arg-type] # the options are a message
            connection.send(encode([(1, NOTIFY), (2, True), (5, encode([(1, "status-ready"), (2, 0)]))]))
            connection.recv(1 << 16)
            connection.send(encode([(1, kind), (2, kind != RESTORE)]))
        else:
            connection.send(encode([(1, kind), (2, True)]))


def note(kind: int | bytes, options: dict[int, int | bytes]) -> None:
    """Write down one request."""
    found = {number: value.decode("latin-1") if isinstance(value, bytes) else value for number, value in options.items()}
    with open(os.environ["CRIU_NOTES"], "w", encoding="utf-8") as file:
        json.dump({"kind": kind, "options": found}, file)


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[2])) as connection:
        serve(connection)
