# Where the slots of a class of plain Python are, so that a compiled twin reads and fills them without a look-up by name.

cdef extern from "structmember.h":
    ctypedef struct PyMemberDef:
        Py_ssize_t offset
    ctypedef struct PyMemberDescrObject:
        PyMemberDef *d_member


cdef inline Py_ssize_t place_of(object kind, str name) except -1:
    """The offset of a slot in an instance. Raises ImportError: the class has none of that name, build again."""
    slot = kind.__dict__[name]
    if type(slot).__name__ != "member_descriptor":
        raise ImportError(f"{kind.__name__}.{name} is not a slot")
    return (<PyMemberDescrObject *>slot).d_member.offset
