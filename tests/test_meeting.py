"""How processes meet: who is no process of the run is sent away, and who does not come is named."""

from __future__ import annotations

import os
import socket
import threading

import numpy as np
import pytest

from crossdistil.core.errors import CrossdistilError
from crossdistil.core.meeting import meet
from crossdistil.core.place import Place


def test_strangers_are_sent_away_and_who_does_not_come_is_named(tmp_path):
    """A thread is rank 1, and comes after a stranger that says nothing, one that says something, and one without the token."""
    told, errors = {}, []

    def total(values):
        if values.any():
            told["text"] = values.astype(np.uint8).tobytes().rstrip(b"\0").decode()
            threading.Thread(target=strangers, daemon=True).start()
            return values
        code = np.zeros_like(values)
        code[: len(told["text"])] = list(told["text"].encode())
        return code

    def strangers():
        port, token, _ = told["text"].split()
        closed = socket.create_connection(("127.0.0.1", int(port)))
        closed.close()
        with socket.create_connection(("127.0.0.1", int(port))) as other:
            other.sendall(b"GET / HTTP/1.1\r\n\r\n")
        right, told["text"] = told["text"], f"{port} {'00' * 16} 127.0.0.1"
        try:
            meet(Place(1, 2, 1, "test", 2), total, 0.5, 5)
        except CrossdistilError as error:
            errors.append(str(error))
        told["text"] = right
        connections, names = meet(Place(1, 2, 1, "test", 2), total, 5, 5)
        connections[0].send_bytes(b"hello")

    connections, names = meet(Place(0, 2, 0, "test", 2), total, 10, 5)
    assert connections[1].recv_bytes() == b"hello" and names[1].startswith(f"rank 1 of 2 (process {os.getpid()} on ")
    assert "rank 0 of 2: is not reached at 127.0.0.1" in errors[0]
    with pytest.raises(CrossdistilError, match="rank 1, 2 of 3: did not come to rank 0 in time"):
        meet(Place(0, 3, 0, "test", 3), lambda values: values, 0.2, 5)
