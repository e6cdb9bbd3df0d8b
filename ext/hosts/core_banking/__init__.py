"""The embedded core-banking host: an ISO 8583 application over a double-entry ledger."""

from fengshou.ext.hosts.core_banking.application import Application
from fengshou.ext.hosts.core_banking.report import ledger_report

__all__ = ["Application", "ledger_report"]
