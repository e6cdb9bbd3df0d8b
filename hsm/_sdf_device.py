"""A GM/T 0018 device in use: a pool of sessions, the keys that each has loaded, and what happens when it goes away."""

import ctypes
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from ctypes import byref, c_uint, c_void_p
from typing import Any, TypeVar

from fengshou.hsm._sdf_abi import DeviceLost, Layout, Library, SdfError
from fengshou.hsm.custody import Unavailable
from fengshou.hsm.envelope import Envelope

# A call takes milliseconds: who waits so long for a session waits for a device that hangs.
_SESSION_SECONDS = 5.0

# Handles of keys that a session holds at once; devices have room for at least this many.
_KEYS_MAX = 256

_Result = TypeVar("_Result")


class Session:
    """One session and the keys that were imported into it. Used by one thread at a time."""

    def __init__(self, library: Library, layout: Layout, handle: c_void_p) -> None:
        self.call = library
        self.layout = layout
        self.handle = handle
        self._keys: dict[tuple[int, Envelope], c_void_p] = {}

    def key(self, index: int, envelope: Envelope) -> c_void_p:
        """The handle of a key that came in an envelope for the device's key pair ``index``."""
        key = self._keys.get((index, envelope))
        if key is None:
            key = c_void_p()
            cipher = self.layout.to_cipher(envelope)
            self.call("SDF_ImportKeyWithISK_ECC", self.handle, index, byref(cipher), byref(key))
            self.remember(index, envelope, key)
        return key

    def remember(self, index: int, envelope: Envelope, key: c_void_p) -> None:
        while len(self._keys) >= _KEYS_MAX:
            oldest = next(iter(self._keys))
            self.call("SDF_DestroyKey", self.handle, self._keys.pop(oldest))
        self._keys[(index, envelope)] = key

    def transform(self, function: str, key: c_void_p, algorithm: int, iv: bytes | None, data: bytes) -> bytes:
        """SDF_Encrypt, SDF_Decrypt or SDF_CalculateMAC. The device may change the buffer of the IV: it gets a copy."""
        vector = ctypes.create_string_buffer(iv, len(iv)) if iv is not None else None
        out = ctypes.create_string_buffer(len(data) + 16)
        size = c_uint(len(out))
        self.call(function, self.handle, key, algorithm, vector, data, len(data), out, byref(size))
        return out.raw[: size.value]


class Device:
    """An opened device. After it was lost, the next call opens it again."""

    def __init__(self, library: Library, layout: Layout, sessions: int, passwords: Mapping[int, bytes]) -> None:
        """``passwords`` by index of key pair: every session asks for the right to use these private keys."""
        self._library = library
        self._layout = layout
        self._passwords = dict(passwords)
        self._guard = threading.Lock()
        self._free_places = threading.BoundedSemaphore(sessions)
        self._device: c_void_p | None = None
        self._generation = 0  # a session of an earlier one is dead
        self._idle: list[Session] = []

    def run(self, work: Callable[[Session], _Result]) -> _Result:
        """``work`` with a session, and once again with a new one when the device was lost meanwhile.

        Every operation of custody may be repeated: it stores nothing in the device. Raises Unavailable, SdfError.
        """
        generation = self._generation
        try:
            with self._session() as session:
                return work(session)
        except DeviceLost:
            self._drop(generation)
        with self._session() as session:
            return work(session)

    @contextmanager
    def _session(self) -> Iterator[Session]:
        if not self._free_places.acquire(timeout=_SESSION_SECONDS):
            raise Unavailable("every session of the device is busy")
        try:
            generation, session = self._take()
            try:
                yield session
            finally:
                self._give_back(generation, session)
        finally:
            self._free_places.release()

    def _take(self) -> tuple[int, Session]:
        with self._guard:
            if self._idle:
                return self._generation, self._idle.pop()
            if self._device is None:
                device = c_void_p()
                self._library("SDF_OpenDevice", byref(device))
                self._device = device
            handle = c_void_p()
            self._library("SDF_OpenSession", self._device, byref(handle))
            for index, password in self._passwords.items():
                self._library("SDF_GetPrivateKeyAccessRight", handle, index, password, len(password))
            return self._generation, Session(self._library, self._layout, handle)

    def _give_back(self, generation: int, session: Session) -> None:
        with self._guard:
            if generation == self._generation:
                self._idle.append(session)
            else:
                _quietly(self._library, "SDF_CloseSession", session.handle)

    def _drop(self, generation: int) -> None:
        """Forget a device that was lost, unless another thread did and opened it anew already."""
        with self._guard:
            if generation == self._generation:
                self._generation += 1
                self._close()

    def _close(self) -> None:
        # Its library wants to hear of the end even of what was lost.
        for session in self._idle:
            _quietly(self._library, "SDF_CloseSession", session.handle)
        self._idle.clear()
        if self._device is not None:
            _quietly(self._library, "SDF_CloseDevice", self._device)
            self._device = None

    def close(self) -> None:
        with self._guard:
            self._close()


def _quietly(library: Library, name: str, *arguments: Any) -> None:
    with suppress(SdfError):
        library(name, *arguments)
