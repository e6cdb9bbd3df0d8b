"""The grammar as data: elements, templates, frames, codes, limits, state tables and the contracts of what plugs in.

Nothing here does I/O, reads a clock or holds a key. Every other folder derives from these tables.
"""
