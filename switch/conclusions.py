"""What services make of a back end's reply, and what analytics may learn of it.

A service that breaks its contract ends its own request here and nobody else's.
"""

import logging

import msgspec

from fengshou.codecs import MessageCodec
from fengshou.protocol import codes
from fengshou.protocol import elements as de
from fengshou.protocol.service import Conclusion, Reply, Request, Service

logger = logging.getLogger(__name__)

INVALID_RESPONSE = "20"


def conclusion_of(service: Service, request: Request, reply: Reply, codec: MessageCodec) -> Conclusion:
    """The reply in terms of the response template; 20 when the service cannot make sense of it."""
    try:
        conclusion = service.conclude(request, reply)
        codec.encode_body(request.template.id, True, {de.RESPONSE_CODE: conclusion.code, **conclusion.values})
    except Exception:
        logger.exception("service %s cannot make sense of a back end's reply", service.name)
        return Conclusion(INVALID_RESPONSE)
    return conclusion


def event_of(service: Service, request: Request, conclusion: Conclusion) -> bytes:
    """What the journal keeps for analytics of an approved request; empty for nothing."""
    if conclusion.code != codes.APPROVED:
        return b""
    try:
        event = service.event(request, conclusion)
    except Exception:
        logger.exception("service %s cannot tell analytics of a request", service.name)
        return b""
    if event is None:
        return b""
    return msgspec.json.encode(
        {
            "rrn": str(request.rrn).zfill(12),
            "day": request.business_day,
            "terminal": request.terminal.terminal,
            "time_us": request.received_us,
            **event,
        }
    )


def printable(code: str) -> str:
    """A back end's code as a record can hold it."""
    return code if len(code) == 2 and code.isascii() and code.isprintable() else INVALID_RESPONSE
