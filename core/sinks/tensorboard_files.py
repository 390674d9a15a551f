"""TensorBoard's event files: a TFRecord file of protobuf messages, which is what this package reads and writes anyway. So the
sink needs no package of its own, on any backend; TensorBoard is needed to look at what it writes.

    Event    { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5; SessionLog session_log = 7 }
    Summary  { repeated Value value = 1 }
    Value    { string tag = 1; float simple_value = 2; TensorProto tensor = 8; SummaryMetadata metadata = 9 }
    SummaryMetadata { PluginData plugin_data = 1 { string plugin_name = 1 } }
    TensorProto { DataType dtype = 1; TensorShapeProto tensor_shape = 2; repeated bytes string_val = 8 }
    SessionLog { SessionStatus status = 1 }

A run that goes on writes another file, which begins with a session log: TensorBoard then drops what the files before hold from
that step on, and is told again.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from ..data.records.tfrecord import framed
from ..events import Evaluated, Failed, Finished, Logged, Sink, Started
from ..log_section import TensorBoardSection
from ..wire import FIXED32, FIXED64, delimited, number, varint

_START = 1  # SessionStatus
_STRING = 7  # DataType


class TensorBoardFiles(Sink):
    """Writes each value as soon as it is told."""

    def __init__(self, settings: TensorBoardSection):
        self._settings = settings
        self._file: BinaryIO | None = None
        self._folder = Path()
        self._files = 0
        self._last = 0

    def started(self, event: Started) -> None:
        self._folder = self._settings.folder or event.logs / "tensorboard"
        self._last = event.step
        if event.resumed:
            self._write(_event(event.step + 1, delimited(7, number(1, _START))))
        else:
            self._write(_event(0, delimited(5, _text("recipe", event.recipe))))

    def logged(self, event: Logged) -> None:
        self._scalars(event.step, event.scalars)

    def evaluated(self, event: Evaluated) -> None:
        self._scalars(event.step, event.scalars)

    def finished(self, event: Finished) -> None:
        self._scalars(self._last, event.scalars)
        self._close()

    def failed(self, event: Failed) -> None:
        self._close()

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._last = step
        self._write(_event(step, delimited(5, b"".join(_scalar(tag, value) for tag, value in values.items()))))

    def _write(self, event: bytes) -> None:
        try:
            if self._file is None:
                self._file = self._opened()
            self._file.write(framed(event))
            self._file.flush()
        except OSError:
            # A record that was cut off would hide all that follow it: they go to a new file.
            self._close()
            raise

    def _opened(self) -> BinaryIO:
        self._folder.mkdir(parents=True, exist_ok=True)
        # Readers take the files of a folder in the order of their names.
        self._files += 1
        name = f"events.out.tfevents.{time.time():017.6f}.{socket.gethostname()}.{os.getpid()}.{self._files}"
        file = (self._folder / name).open("xb")
        file.write(framed(struct.pack("<Bd", 1 << 3 | FIXED64, time.time()) + delimited(3, b"brain.Event:2")))
        return file

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError:
                pass  # the error that led here is told


def _event(step: int, content: bytes) -> bytes:
    return struct.pack("<Bd", 1 << 3 | FIXED64, time.time()) + number(2, step) + content


def _scalar(tag: str, value: float) -> bytes:
    return delimited(1, delimited(1, tag.encode()) + varint(2 << 3 | FIXED32) + struct.pack("<f", value))


def _text(tag: str, value: Mapping[str, Any]) -> bytes:
    text = "```json\n" + json.dumps(value, indent=2, ensure_ascii=False) + "\n```"
    tensor = number(1, _STRING) + delimited(2, b"") + delimited(8, text.encode())
    return delimited(1, delimited(1, tag.encode()) + delimited(8, tensor) + delimited(9, delimited(1, delimited(1, b"text"))))
