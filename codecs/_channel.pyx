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

# SSL_read(3), SSL_write(3), ERR_clear_error(3)
ctypedef int (*Read)(void *ssl, void *data, int size) noexcept nogil
ctypedef int (*Write)(void *ssl, const void *data, int size) noexcept nogil
ctypedef void (*ClearErrors)() noexcept nogil


cdef class TlsCalls:
    cdef Read read
    cdef Write write
    cdef ClearErrors clear_errors

    def __init__(self, uintptr_t read, uintptr_t write, uintptr_t clear_errors):
        if not (read and write and clear_errors):
            raise ValueError("a call has no address")
        self.read, self.write, self.clear_errors = <Read>read, <Write>write, <ClearErrors>clear_errors


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
