# Verification of many SM2 signatures. This is the index; the meaning stands in _verify.pyi and sm2_kernel.h.

from libc.stdint cimport uint8_t

cdef extern from "sm2_kernel.h" nogil:
    ctypedef struct sm2_table:
        pass
    ctypedef struct sm2_case:
        const sm2_table *key
        const uint8_t *e
        const uint8_t *r
        const uint8_t *s
    enum:
        SM2_PORTABLE
        SM2_MULX
        SM2_LANES_IN_C
        SM2_LANES
        SM2_PATHS
    int sm2_kernel_init()
    int sm2_can_take(int path)
    void sm2_take(int path)
    int sm2_taken()
    int sm2_lanes_refused()
    sm2_table *sm2_table_new()
    void sm2_table_free(sm2_table *table)
    int sm2_table_build(sm2_table *table, const uint8_t *xy)
    void *sm2_scratch_new()
    void sm2_verify(const sm2_case *cases, size_t count, uint8_t *verdicts, void *scratch)

cdef class Table:
    cdef sm2_table *data
