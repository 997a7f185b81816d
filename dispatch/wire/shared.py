"""Shared params: encoded once to a file, mapped and decoded once per worker.

On Linux the file has no name: workers open it through the parent's /proc entry, so no kill can leave it behind.
Fields typed `memoryview` or `msgspec.Raw` are views of the map and cost no copy; the map lives while they do.
"""

from __future__ import annotations

import mmap
import os
import sys
from contextlib import suppress
from typing import Any

import msgspec

from dispatch.terms.errors import ConfigError
from dispatch.wire.codec import canonical, decoder_for, dump, explain

__all__ = ("SharedFile", "fingerprint", "publish", "restore")


class SharedFile(msgspec.Struct, frozen=True):
    """An encoded shared param: where workers open it, and its size in bytes. `fd` is the parent's."""

    path: str
    size: int
    fd: int

    def close(self) -> None:
        """Let the file go; maps that workers hold stay valid."""
        with suppress(OSError):
            os.close(self.fd)
        if not self.path.startswith("/proc/"):
            with suppress(OSError):
                os.unlink(self.path)


def publish(param: Any) -> SharedFile:
    """Encode a shared param into a file that workers can map. Raises ConfigError if it cannot be encoded."""
    try:
        data = msgspec.msgpack.Encoder(enc_hook=dump).encode(param)
    except Exception as error:  # noqa: BLE001  (whatever a hook or a property of the value raises)
        raise ConfigError("shared_param", type(param).__name__, explain(param, error)) from None
    fd, path = _nameless(len(data))
    try:
        with open(fd, "wb", closefd=False) as file:
            file.write(data)
    except BaseException:
        os.close(fd)
        raise
    return SharedFile(path, len(data), fd)


def fingerprint(param: Any, shared: SharedFile) -> bytes:
    """The digest of a shared param that `shared` holds: the same in every process, whatever the order of its sets."""
    from hashlib import blake2b  # 2 ms that workers, who only read, need not pay

    data = canonical([param], [b""])[0]
    if data:
        return blake2b(data, digest_size=16).digest()
    with mmap.mmap(shared.fd, shared.size, access=mmap.ACCESS_READ) as mapped:
        return blake2b(mapped, digest_size=16).digest()


def restore(path: str, size: int, kind: Any) -> Any:
    """Map an encoded shared param and decode it into `kind`."""
    with open(path, "rb") as file:
        mapped = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
    return decoder_for(kind).decode(memoryview(mapped))


def _nameless(size: int) -> tuple[int, str]:
    import tempfile  # 3 ms that workers, who only read, need not pay

    directory = _roomy("/dev/shm", size) or tempfile.gettempdir()  # noqa: S108  (memory, where there is room)
    if sys.platform != "linux":
        return tempfile.mkstemp(prefix="dispatch-", dir=directory)
    try:
        fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError:  # a file system without O_TMPFILE
        fd, path = tempfile.mkstemp(prefix="dispatch-", dir=directory)
        os.unlink(path)
    return fd, f"/proc/{os.getpid()}/fd/{fd}"


def _roomy(directory: str, size: int) -> str | None:
    try:
        found = os.statvfs(directory)
    except OSError:
        return None
    return directory if found.f_bavail * found.f_frsize > 2 * size else None
