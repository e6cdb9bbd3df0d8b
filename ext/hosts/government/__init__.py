"""The embedded government gateway: a catalogue of services, a register of synthetic records, a book of cases.

It stands where a city's government platform would stand, behind the same public interface.
"""

from fengshou.ext.hosts.government.gateway import Application

__all__ = ["Application"]
