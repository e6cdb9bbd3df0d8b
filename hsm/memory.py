"""Memory for secrets: kept out of swap and core dumps where the platform can, wiped when its last user lets go."""

import ctypes
import mmap
import os
import resource
import threading

from fengshou.codecs import Sm4Cmac, Sm4Gcm

_SLOT_BYTES = 32  # the longest symmetric key; a page holds 128 of them


def forbid_core_dumps() -> None:
    """No core file of this process, whatever happens to it: SM2 keys live in libcrypto's memory, not only in ours."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class _Arena:
    """Places on locked pages. A page is never given back: keys come and go, their number hardly changes."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._free: list[tuple[mmap.mmap, int]] = []
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.locked = True

    def take(self) -> tuple[mmap.mmap, int]:
        """A page and an offset in it."""
        with self._guard:
            if not self._free:
                # Private: a forked child wipes its own copies, and must not wipe ours.
                page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
                page.madvise(mmap.MADV_DONTDUMP)
                address = ctypes.addressof(ctypes.c_char.from_buffer(page))
                if self._libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE)):
                    self.locked = False  # beyond RLIMIT_MEMLOCK; `memory_is_locked` tells the operator
                self._free = [(page, offset) for offset in range(0, mmap.PAGESIZE, _SLOT_BYTES)]
            return self._free.pop()

    def give_back(self, place: tuple[mmap.mmap, int]) -> None:
        self._free.append(place)  # one step of the interpreter; the guard might be held by the thread that collects


_arena = _Arena()


def memory_is_locked() -> bool:
    """Whether all secrets so far are on locked pages. Not so: raise the limit on locked memory (ulimit -l)."""
    return _arena.locked


class _Slot(ctypes.c_ubyte * _SLOT_BYTES):  # type: ignore[misc]
    """Memory that wipes itself when neither an object nor a view holds it any more."""

    place: tuple[mmap.mmap, int]

    def __del__(self) -> None:
        ctypes.memset(ctypes.addressof(self), 0, _SLOT_BYTES)
        _arena.give_back(self.place)


class Secret:
    """At most 32 bytes on a locked page.

    ``view`` may outlive the object: the bytes are wiped when the last view goes, so nobody computes with a wiped key.
    """

    __slots__ = ("_cmac", "_gcm", "view")

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        """Copies ``data``; wipe the original if it can be wiped."""
        if len(data) > _SLOT_BYTES:
            raise ValueError(f"a secret has at most {_SLOT_BYTES} bytes")
        place = _arena.take()
        slot = _Slot.from_buffer(*place)
        slot.place = place
        self.view = memoryview(slot).cast("B")[: len(data)]
        self.view[:] = data
        self._gcm: Sm4Gcm | None = None
        self._cmac: Sm4Cmac | None = None

    @property
    def gcm(self) -> Sm4Gcm:
        """SM4-GCM under this key. Its schedule is made once and wiped with the secret; it is not on the locked page."""
        if self._gcm is None:
            self._gcm = Sm4Gcm(self.view)
        return self._gcm

    @property
    def cmac(self) -> Sm4Cmac:
        """SM4-CMAC under this key, likewise."""
        if self._cmac is None:
            self._cmac = Sm4Cmac(self.view)
        return self._cmac

    @classmethod
    def random(cls, count: int) -> "Secret":
        return cls(os.urandom(count))

    def __len__(self) -> int:
        return len(self.view)

    def __repr__(self) -> str:
        return f"<Secret of {len(self.view)} bytes>"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not pickled")


def wipe(*buffers: bytearray) -> None:
    for buffer in buffers:
        buffer[:] = bytes(len(buffer))
