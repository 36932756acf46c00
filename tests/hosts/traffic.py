"""A program for hosts: serves bytes, or asks for them again and again.

``traffic.py serve``; ``traffic.py ask ADDRESS BYTES COUNTS``, which keeps one
connection and writes the seconds of each answer to the file COUNTS.
"""

import socket
import sys
import time

PORT = 7000


def serve() -> None:
    with socket.create_server(("", PORT)) as server:
        while True:
            connection, _ = server.accept()
            with connection, connection.makefile("rb") as questions:
                for question in questions:
                    connection.sendall(bytes(int(question)))


def ask(address: str, size: int, counts: str) -> None:
    with (
        socket.create_connection((address, PORT)) as connection,
        open(counts, "w") as to,
    ):
        while True:
            began, missing = time.monotonic(), size
            connection.sendall(b"%d\n" % size)
            while missing:
                missing -= len(connection.recv(missing)) or sys.exit("closed")
            print(time.monotonic() - began, file=to, flush=True)
            time.sleep(0.02)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        ask(sys.argv[2], int(sys.argv[3]), sys.argv[4])
