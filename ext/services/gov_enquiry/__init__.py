"""Enquiry at a government office: an item of its catalogue, a person or case, perhaps a period; the answer is text.

Which items there are is the gateway's to know (it answers 40 to one that it lacks), so a new item needs no new switch.
Signed, because it reads personal data; it moves no money. Codes of its own: 40 no such item or domain, 30 no subject or
a period that no calendar has, 20 an answer that cannot be shown.
"""

from collections.abc import Mapping
from typing import Any, TypeGuard

from fengshou.ext.services.core_banking import place_of
from fengshou.ext.services.rungs import WELL_FORMED
from fengshou.protocol import elements as de
from fengshou.protocol.codes import APPROVED
from fengshou.protocol.elements import BASE_ELEMENTS
from fengshou.protocol.service import Conclusion, JsonCall, Reply, Request, Rung, Service
from fengshou.protocol.templates import ANSWER, Template, layout, optional, required

GOV_ENQUIRY = Template(
    10,
    "gov-enquiry",
    200,
    layout(
        required(de.STAN, de.LOCAL_TIME, de.LOCAL_DATE, de.ITEM, de.DOMAIN),
        optional(de.SUBJECT, de.PERIOD, de.SEALED_SUBJECT),  # the subject in clear, or under the terminal's data key
    ),
    layout(ANSWER, optional(de.REPLY)),
)

# Social security, medical insurance, real estate, provident fund, enterprise start-up, administrative approval,
# agriculture, tax.
DOMAINS = range(1, 9)
YEARS = range(1900, 2100)
MONTHS = range(1, 13)
INVALID_REPLY = "20"

_REPLY_BYTES_MAX = next(element.size for element in BASE_ELEMENTS if element.key == de.REPLY)


def _period_exists(request: Request) -> bool:
    """YYYY or YYYYMM."""
    if de.PERIOD not in request.values:
        return True
    period = request.integer(de.PERIOD)
    return period in YEARS or (period // 100 in YEARS and period % 100 in MONTHS)


def _can_be_shown(untrusted: object) -> TypeGuard[str]:
    try:
        return isinstance(untrusted, str) and 0 < len(untrusted.encode("utf-8")) <= _REPLY_BYTES_MAX
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can carry
        return False


class GovEnquiry(Service):
    name = "gov-enquiry"
    templates = (GOV_ENQUIRY,)
    destination = "government"
    moves_money = False
    ladder = (
        *WELL_FORMED,
        Rung("an item is named", "40", lambda request: request.integer(de.ITEM) > 0),
        Rung("domain is known", "40", lambda request: request.integer(de.DOMAIN) in DOMAINS),
        Rung("a subject is named", "30", lambda request: bool(request.string(de.SUBJECT).strip())),
        Rung("period is a year or a month", "30", _period_exists),
    )

    def call(self, request: Request) -> JsonCall:
        body: dict[str, Any] = {
            "item": request.integer(de.ITEM),
            "domain": request.integer(de.DOMAIN),
            "subject": request.string(de.SUBJECT),
        }
        if de.PERIOD in request.values:
            body["period"] = request.integer(de.PERIOD)
        return JsonCall("/v1/enquiry", body)

    def conclude(self, request: Request, reply: Reply) -> Conclusion:
        if reply.code != APPROVED:
            return Conclusion(reply.code)
        text = reply.body.get("reply")
        if not _can_be_shown(text):
            return Conclusion(INVALID_REPLY)
        return Conclusion(reply.code, {de.REPLY: text})

    def event(self, request: Request, conclusion: Conclusion) -> Mapping[str, Any]:
        """Which items are asked for and where; not about whom."""
        return {
            "kind": "gov-enquiry",
            "item": request.integer(de.ITEM),
            "domain": request.integer(de.DOMAIN),
            **place_of(request),
        }


service = GovEnquiry()
