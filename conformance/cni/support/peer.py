"""Both ends of a conversation, each a program in a namespace: `peer.py serve|ask|swallow|pour tcp|udp ADDRESS PORT`.

A server says on its standard output that it listens, and answers everybody with the address it sees him at. It ends with its
standard input. `swallow` and `pour` carry a megabyte, and the one that swallows says how many seconds that took.
"""

from __future__ import annotations

import socket
import sys
import threading
import time

KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
SECONDS = 3.0
LOAD = 1 << 20


def main() -> None:
    """Do what the arguments say."""
    role, kind, address, port = sys.argv[1:]
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, KINDS[kind]) as endpoint:
        endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        {"serve": serve, "swallow": swallow, "ask": ask, "pour": pour}[role](endpoint, (address, int(port)))


def say(what: object) -> None:
    """Write a line for whoever started this."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


def listen(endpoint: socket.socket, where: tuple[str, int]) -> None:
    """Bind, and say so."""
    endpoint.bind(where)
    if endpoint.type == socket.SOCK_STREAM:
        endpoint.listen()
    say("listening")


def serve(endpoint: socket.socket, where: tuple[str, int]) -> None:
    """Tell everybody who asks where he comes from."""
    listen(endpoint, where)
    threading.Thread(target=answer, args=(endpoint,), daemon=True).start()
    sys.stdin.read()


def answer(endpoint: socket.socket) -> None:
    """Answer for ever."""
    while True:
        if endpoint.type == socket.SOCK_DGRAM:
            _data, client = endpoint.recvfrom(64)
            endpoint.sendto(client[0].encode(), client)
        else:
            connection, client = endpoint.accept()
            with connection:
                connection.sendall(client[0].encode())


def ask(endpoint: socket.socket, where: tuple[str, int]) -> None:
    """Print what the server says, or fail."""
    endpoint.settimeout(SECONDS)
    endpoint.connect(where)
    if endpoint.type == socket.SOCK_DGRAM:
        endpoint.send(b"?")
    say(endpoint.recv(64).decode())


def swallow(endpoint: socket.socket, where: tuple[str, int]) -> None:
    """Take the load from the first who comes, and say how long it took."""
    listen(endpoint, where)
    connection, _client = endpoint.accept()
    begin = time.monotonic()
    while connection.recv(1 << 16):
        pass
    say(time.monotonic() - begin)


def pour(endpoint: socket.socket, where: tuple[str, int]) -> None:
    """Send the load."""
    endpoint.settimeout(30)
    endpoint.connect(where)
    endpoint.sendall(bytes(LOAD))


if __name__ == "__main__":
    main()
