#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""A proxy between vmcomm-verify's client and server that spoils one byte range of the stream from
client to server on data connection 0, to see that the verification notices.

usage: faulty-proxy.py LISTEN-PORT(0: any, printed) SERVER-PORT none|drop|dup|swap|flip|cut
"""
import socket
import struct
import sys
import threading

AT, LEN = 100000, 256


def spoil(data, mode):
    if mode == "drop":
        return data[:AT] + data[AT + LEN:]
    if mode == "dup":
        return data[:AT] + data[AT - LEN:]
    if mode == "swap":
        return data[:AT] + data[AT + LEN:AT + 2 * LEN] + data[AT:AT + LEN] + data[AT + 2 * LEN:]
    if mode == "flip":
        return data[:AT] + bytes([data[AT] ^ 1]) + data[AT + 1:]
    if mode == "cut":
        return data[:AT]
    return data


def pump(source, sink, mode):
    held = b""
    spoiling = mode != "none"
    try:
        while True:
            data = source.recv(65536)
            if not data:
                break
            if spoiling:
                held += data
                if len(held) < AT + 4 * LEN:
                    continue
                data, spoiling = spoil(held, mode), False
                if mode == "cut":
                    sink.sendall(data)
                    sink.shutdown(socket.SHUT_WR)
                    while source.recv(65536):
                        pass
                    return
            sink.sendall(data)
        if spoiling:
            sink.sendall(held)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def forward(client, port, mode):
    server = socket.create_connection(("127.0.0.1", port))
    threading.Thread(target=pump, args=(client, server, mode), daemon=True).start()
    threading.Thread(target=pump, args=(server, client, "none"), daemon=True).start()


def serve_data(listener, port, mode):
    while True:
        client, _ = listener.accept()
        forward(client, port, mode)
        mode = "none"


def main():
    listen, port, mode = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    listener = socket.create_server(("127.0.0.1", listen))
    print(listener.getsockname()[1], flush=True)
    while True:
        control, _ = listener.accept()
        server = socket.create_connection(("127.0.0.1", port))
        # The plan goes through as it is; the answer names the port of the data listener.
        server.sendall(control.recv(4096))
        (data_port,) = struct.unpack("=H", server.recv(2, socket.MSG_WAITALL))
        data = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=serve_data, args=(data, data_port, mode), daemon=True).start()
        control.sendall(struct.pack("=H", data.getsockname()[1]))
        threading.Thread(target=pump, args=(control, server, "none"), daemon=True).start()
        threading.Thread(target=pump, args=(server, control, "none"), daemon=True).start()


main()
