"""Shared params: one file without a name, mapped by whoever may read it, and no copy where a field asks for none."""

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pydantic
import pytest
from msgspec import Raw, Struct

from dispatch.terms.errors import ConfigError
from dispatch.wire import shared
from dispatch.wire.shared import SharedFile, publish, restore

MIB = 1024 * 1024
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc and nameless files are Linux's")


class Table(Struct):
    """A shared param as a user would write one: some of it large, some of it not."""

    name: str
    blob: memoryview
    rows: Raw
    copied: bytes = b""


class Options(pydantic.BaseModel):
    """A pydantic model."""

    depth: int


@contextmanager
def published(param: Any) -> Iterator[SharedFile]:
    """Publish a param, and let it go."""
    file = publish(param)
    try:
        yield file
    finally:
        file.close()


@pytest.fixture(autouse=True)
def own_temporary_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep other programs' files out of the count."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def names(file: SharedFile | None = None) -> int:
    """Count the names of a file, and of what is in the temporary directory."""
    return len(os.listdir(tempfile.gettempdir())) + (os.stat(file.path).st_nlink if file else 0)


def address(buffer: Any) -> int:
    """Return where a buffer's first byte is."""
    view = (ctypes.c_void_p * 16)()  # a Py_buffer, which begins with the address
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(buffer), view, 0)
    try:
        return view[0] or 0
    finally:
        ctypes.pythonapi.PyBuffer_Release(view)


def mapped(file: SharedFile) -> list[range]:
    """Return where this process has mapped a file, for reading only."""
    node = str(os.stat(file.path).st_ino)
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    found = [line[0].split("-") for line in lines if line[4] == node and line[1] == "r--s"]
    return [range(int(start, 16), int(end, 16)) for start, end in found]


@pytest.mark.parametrize(
    ("kind", "param"),
    [
        (dict[str, list[int]], {"a": [1, 2]}),
        (Any, [1, "a", None, {"b": 1.5}]),
        (Options, Options(depth=3)),
        (str, ""),
    ],
    ids=str,
)
def test_a_param_is_restored_in_its_type(kind: Any, param: Any) -> None:
    """What was published comes out of the map as its annotation says; without one, plain."""
    with published(param) as file:
        assert restore(file.path, file.size, kind) == param


def test_another_process_restores_it_from_the_path_alone() -> None:
    """Path and size are all that a worker is told."""
    with published({"answer": 42}) as file:
        code = "import sys, json; from dispatch.wire.shared import restore; from typing import Any; "
        code += "print(json.dumps(restore(sys.argv[1], int(sys.argv[2]), Any)))"
        told = subprocess.run(
            [sys.executable, "-c", code, file.path, str(file.size)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            check=True,
            timeout=30,
        ).stdout
    assert json.loads(told) == {"answer": 42}


@LINUX
def test_the_file_has_no_name() -> None:
    """Nothing appears in /dev/shm or in the temporary directory, so no kill can leave anything there."""
    with published(b"x" * MIB) as file:
        assert names(file) == 0
        assert os.stat(file.path).st_mode & 0o777 == 0o600
        assert os.stat(file.path).st_size == file.size


@LINUX
@pytest.mark.parametrize("why", ["no room", "no such directory"])
def test_without_room_in_memory_the_temporary_directory_serves(
    why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A param too large for /dev/shm, or a machine without it, is kept on disk, and there too it has no name."""
    told: list[str] = []

    def statvfs(path: str) -> os.statvfs_result:
        told.append(path)
        if why == "no such directory":
            raise FileNotFoundError(path)
        full = list(real(path))
        full[4] = 3  # free blocks
        return os.statvfs_result(full)

    real = os.statvfs
    monkeypatch.setattr(shared.os, "statvfs", statvfs)
    with published(b"x" * MIB) as file:
        assert told == ["/dev/shm"]
        assert os.stat(file.path).st_dev == os.stat(tempfile.gettempdir()).st_dev
        assert names(file) == 0
        assert restore(file.path, file.size, bytes) == b"x" * MIB


@LINUX
def test_a_file_system_without_nameless_files_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where O_TMPFILE is refused the name is taken away before a byte is written."""
    real = os.open

    def refuse(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "Operation not supported")
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(shared.os, "open", refuse)
    with published({"a": 1}) as file:
        assert names(file) == 0
        assert restore(file.path, file.size, Any) == {"a": 1}


def test_what_cannot_be_written_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full is an OSError, and the file is let go."""
    opened: list[int] = []
    real = shared._nameless

    def nameless(size: int) -> tuple[int, str]:
        fd, path = real(size)
        opened.append(fd)
        os.dup2(full, fd)
        return fd, path

    full = os.open("/dev/full", os.O_RDWR)
    monkeypatch.setattr(shared, "_nameless", nameless)
    try:
        with pytest.raises(OSError, match="No space left"):
            publish(b"x" * MIB)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(opened[0])
    finally:
        os.close(full)


@LINUX
def test_fields_that_ask_for_no_copy_are_views_of_the_map() -> None:
    """A memoryview and a Raw point into the mapped file, read-only; bytes are a copy."""
    param = {"name": "n", "blob": b"b" * MIB, "rows": list(range(1000)), "copied": b"c" * MIB}
    with published(param) as file:
        table = restore(file.path, file.size, Table)
        (where,) = mapped(file)
        assert address(table.blob) in where
        assert address(table.rows) in where
        assert address(table.copied) not in where
        assert table.blob.readonly
        assert table.blob == param["blob"]
        assert msgspec.msgpack.decode(table.rows) == param["rows"]


def test_views_outlive_the_file() -> None:
    """When the parent lets the file go, what was restored stays readable; it goes with its last view."""
    with published({"name": "n", "blob": b"b" * MIB, "rows": [1]}) as file:
        table = restore(file.path, file.size, Table)
    assert table.blob == b"b" * MIB
    assert msgspec.msgpack.decode(table.rows) == [1]


@LINUX
def test_a_map_goes_with_its_last_view() -> None:
    """A param without views keeps no map open, and one with views as long as they live."""
    with published({"name": "n", "blob": b"b" * MIB, "rows": [1]}) as file:
        assert restore(file.path, file.size, dict[str, Any])["name"] == "n"
        assert mapped(file) == []
        table = restore(file.path, file.size, Table)
        assert len(mapped(file)) == 1
        del table
        assert mapped(file) == []


@LINUX
def test_mapping_a_large_param_costs_no_memory() -> None:
    """A process that restores 64 MiB into a memoryview and reads none of it grows by less than a tenth of that."""
    with published({"name": "n", "blob": b"b" * 64 * MIB, "rows": []}) as file:
        before = _private()
        table = restore(file.path, file.size, Table)
        assert _private() - before < 6 * MIB
        assert len(table.blob) == 64 * MIB


def _private() -> int:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) * 1024 + int(status["RssShmem"].split()[0]) * 1024


@LINUX
def test_a_published_param_is_let_go() -> None:
    """After `close` no descriptor is left, and a worker that comes late finds no file."""
    before = set(os.listdir("/proc/self/fd"))
    file = publish([1])
    file.close()
    assert set(os.listdir("/proc/self/fd")) <= before
    with pytest.raises(FileNotFoundError):
        restore(file.path, file.size, Any)


@pytest.mark.parametrize(
    ("param", "says"),
    [
        (
            {"a": [threading.Lock()]},
            r"shared_param is 'dict': of type dict cannot be encoded: lock at \$\['a'\]\[0\]",
        ),
        ([10**100], r"shared_param is 'list': .* int at \$\[0\]: can't serialize ints"),
        ("\udc80", "shared_param is 'str': .*surrogates not allowed"),
    ],
    ids=range(3),
)
def test_a_param_that_cannot_be_encoded_is_an_early_error(param: Any, says: str) -> None:
    """It names the culprit and its path, and nothing is opened."""
    with pytest.raises(ConfigError, match=says):
        publish(param)
    assert names() == 0


def test_a_param_that_does_not_fit_says_where() -> None:
    """A worker whose annotation disagrees with what was published gets msgspec's word for it."""
    with (
        published({"name": 1, "blob": b"", "rows": []}) as file,
        pytest.raises(msgspec.ValidationError, match=r"Expected `str`, got `int` - at `\$.name`"),
    ):
        restore(file.path, file.size, Table)
