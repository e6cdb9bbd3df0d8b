"""The embedded analytics store: farm trades and other events in DuckDB, each exactly once, and reports over them."""

from fengshou.ext.hosts.analytics.store import Store

__all__ = ["Store"]
