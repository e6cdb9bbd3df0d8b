"""A TLS connection's bytes in and out, by OpenSSL's own calls. ``_channel.pyi`` has meanings.

pyOpenSSL lets go of the GIL around each call, takes 16 KiB for each read and asks four times whether it failed. None
of that is needed for a record of a hundred bytes on a socket that never blocks.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport errno
from libc.stdint cimport uintptr_t

cdef enum:
    RECORD_BYTES_MAX = 16384  # RFC 8446 section 5.1
    # SSL_get_error(3)
    WANT_READ = 2
    ZERO_RETURN = 6

# SSL_read(3) and BIO_read(3), SSL_write(3) and BIO_write(3), ERR_clear_error(3), SSL_get_error(3)
ctypedef int (*Read)(void *of, void *data, int size) noexcept nogil
ctypedef int (*Write)(void *to, const void *data, int size) noexcept nogil
ctypedef void (*ClearErrors)() noexcept nogil
ctypedef int (*Explain)(const void *ssl, int result) noexcept nogil


cdef class TlsCalls:
    cdef Read read
    cdef Write write
    cdef ClearErrors clear_errors
    cdef Explain explain
    cdef Read take
    cdef Write put

    def __init__(
        self, uintptr_t read, uintptr_t write, uintptr_t clear_errors, uintptr_t explain, uintptr_t take, uintptr_t put
    ):
        if not (read and write and clear_errors and explain and take and put):
            raise ValueError("a call has no address")
        self.read, self.write, self.clear_errors = <Read>read, <Write>write, <ClearErrors>clear_errors
        self.explain, self.take, self.put = <Explain>explain, <Read>take, <Write>put


cdef class DirectConnection:
    cdef TlsCalls calls
    cdef void *ssl
    cdef object connection
    cdef object fail

    def __init__(self, TlsCalls calls not None, connection, uintptr_t ssl, fail):
        if not ssl:
            raise ValueError("a connection has no address")
        self.calls, self.connection, self.ssl, self.fail = calls, connection, <void *>ssl, fail

    def recv(self, int most, /):
        cdef char record[RECORD_BYTES_MAX]
        cdef int size
        self.calls.clear_errors()  # a failure is explained by the oldest error of the queue
        size = self.calls.read(self.ssl, record, min(most, RECORD_BYTES_MAX))
        if size <= 0:
            self.fail(size, errno)
        return PyBytes_FromStringAndSize(record, size)

    def send(self, data, /):
        cdef Py_buffer buffer
        cdef int size
        PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
        try:
            self.calls.clear_errors()
            size = self.calls.write(self.ssl, buffer.buf, <int>min(buffer.len, RECORD_BYTES_MAX))
            if size <= 0:
                self.fail(size, errno)
            return size
        finally:
            PyBuffer_Release(&buffer)

    def shutdown(self):
        return self.connection.shutdown()


cdef class MemoryConnection:
    cdef TlsCalls calls
    cdef void *ssl
    cdef void *arriving
    cdef void *leaving
    cdef object connection
    cdef object fail
    cdef readonly bint closed

    def __init__(
        self, TlsCalls calls not None, connection, uintptr_t ssl, uintptr_t arriving, uintptr_t leaving, fail
    ):
        if not (ssl and arriving and leaving):
            raise ValueError("a connection has no address")
        self.calls, self.connection, self.fail = calls, connection, fail
        self.ssl, self.arriving, self.leaving = <void *>ssl, <void *>arriving, <void *>leaving

    def put(self, bytes data not None, /):
        if data and self.calls.put(self.arriving, <char *>data, <int>len(data)) != <int>len(data):
            raise MemoryError

    def read(self):
        cdef char record[RECORD_BYTES_MAX]
        cdef int size, why
        cdef list parts = []
        self.calls.clear_errors()
        while (size := self.calls.read(self.ssl, record, RECORD_BYTES_MAX)) > 0:
            parts.append(PyBytes_FromStringAndSize(record, size))
        why = self.calls.explain(self.ssl, size)
        if why == ZERO_RETURN:
            self.closed = True
        elif why != WANT_READ:
            self.fail(size, 0)
        return b"".join(parts)

    def send(self, bytes data not None, /):
        cdef int size, sent = 0
        self.calls.clear_errors()
        while sent < <int>len(data):
            size = self.calls.write(self.ssl, <char *>data + sent, <int>len(data) - sent)
            if size <= 0:
                self.fail(size, 0)
            sent += size

    def take(self):
        cdef char some[RECORD_BYTES_MAX]
        cdef int size
        cdef list parts = []
        while (size := self.calls.take(self.leaving, some, RECORD_BYTES_MAX)) > 0:
            parts.append(PyBytes_FromStringAndSize(some, size))
        return b"".join(parts)
