"""Connections of one request each: `connections.py (hold | renew) PORT PATH COUNT CERTIFICATE`.

`hold` opens COUNT, one after the other, says `open`, and keeps them. `renew` has COUNT clients, each of which opens one, closes it
and opens the next; none resumes a TLS session. Both go on until their input ends, and print one JSON object. The certificate `-`
means no TLS.
"""

import itertools
import json
import socket
import ssl
import sys
import threading
import time
import warnings

# Towards one server, Linux has some 28,000 ports for each address of the client.
SOURCES = itertools.cycle([f"127.0.0.{host}" for host in range(2, 10)])
IP_BIND_ADDRESS_NO_PORT = 24  # <linux/in.h>: the port is chosen when the other end is known

FAILURES = (OSError, ValueError, KeyError)


def connect(port, tls):
    connection = socket.socket()
    connection.settimeout(10)
    connection.setsockopt(socket.SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1)
    connection.bind((next(SOURCES), 0))
    connection.connect(("127.0.0.1", port))
    return tls.wrap_socket(connection, server_hostname="127.0.0.1") if tls else connection


def exchange(connection, path, wish):
    """Sends a request and reads the whole answer."""
    head = f"GET {path} HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench/1\r\nAccept: */*\r\nConnection: {wish}\r\n\r\n"
    connection.sendall(head.encode())
    with connection.makefile("rb") as answer:
        status = answer.readline()
        fields = dict(line.lower().split(b":", 1) for line in iter(answer.readline, b"\r\n"))
        length = int(fields[b"content-length"])
        if not status.startswith(b"HTTP/1.1 200 ") or len(answer.read(length)) < length:
            raise OSError("no good answer")


def is_open(connection):
    connection.setblocking(False)
    try:
        connection.recv(1)  # its end, or what nobody asked for
        return False
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False


def hold(port, path, count, tls):
    connections = []
    for _ in range(count):
        try:
            connection = connect(port, tls)
            exchange(connection, path, "keep-alive")
            connections.append(connection)
        except FAILURES as error:
            warnings.warn(str(error))
    print("open", flush=True)
    sys.stdin.read()
    held = sum(map(is_open, connections))
    return {"requests": held, "errors": count - held}


def renew(port, path, count, tls):
    has_ended = threading.Event()
    tallies = [{"requests": 0, "errors": 0} for _ in range(count)]

    def client(tally):
        while not has_ended.is_set():
            try:
                with connect(port, tls) as connection:
                    exchange(connection, path, "close")
                tally["requests"] += 1
            except FAILURES as error:
                warnings.warn(str(error))
                tally["errors"] += 1

    began = time.monotonic()
    threads = [threading.Thread(target=client, args=[tally]) for tally in tallies]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    has_ended.set()
    for thread in threads:
        thread.join()
    sums = {what: sum(tally[what] for tally in tallies) for what in ("requests", "errors")}
    return {**sums, "per_second": sums["requests"] / (time.monotonic() - began)}


def main():
    mode, port, path, count, certificate = sys.argv[1:]
    tls = None if certificate == "-" else ssl.create_default_context(cafile=certificate)
    work = {"hold": hold, "renew": renew}[mode]
    print(json.dumps(work(int(port), path, int(count), tls)))


if __name__ == "__main__":
    main()
