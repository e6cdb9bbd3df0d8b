"""Who trades what in the worked examples. All keys are public: never use them for anything else."""

from fengshou.codecs import sm3
from fengshou.protocol import elements as de
from fengshou.protocol.message import Value
from fengshou.protocol.money import amount_of
from fengshou.protocol.service import TerminalFacts

# GB/T 32918.5 annex A: anybody can check the arithmetic against the standard.
TERMINAL_KEY = bytes.fromhex("3945208F7B2144B13F36E38AC6D39F95889393692860B51A42FB81EF4DF7C5B8")
SWITCH_KEY = sm3(b"Fengshou example: key of the switch")
GATEWAY_KEY = sm3(b"Fengshou example: key of the gateway")
BINDING = sm3(b"Fengshou example: exporter value of a channel")
MASTER_KEY = sm3(b"Fengshou example: master key of the terminal")[:16]
WORKING_KEYS = tuple(sm3(b"Fengshou example: key for " + use)[:16] for use in (b"PINs", b"authentication", b"data"))
MASTER_EPOCH, KEY_EPOCH = 1, 3

RECEIVED_US = 1_783_821_600_123_456  # 2026-07-12 10:00:00.123456 in UTC+8
BUSINESS_DAY = 20_260_712
RRN = 619_300_000_417
SIGN_IN_STAN, BATCH, STAN = 1, 7, 42

FACTS = TerminalFacts(
    terminal="FS000001",
    merchant="999452007630001",
    acquirer=99_904_520,
    serial="FSPOS00000001",
    credit_code="93370211FENG000150",
    settlement_account="9020000000104729",
    channel="POS",
    site="BA12",
    town=1,
)
IMPLIED: dict[int, Value] = {
    de.TERMINAL: FACTS.terminal,
    de.MERCHANT: FACTS.merchant,
    de.CURRENCY: de.CURRENCY_CNY,
    de.BATCH: BATCH,
    de.OPERATOR: "001",
}
CLOCK: dict[int, Value] = {de.LOCAL_TIME: 100_000, de.LOCAL_DATE: 712}
SIGN_IN_VALUES: dict[int, Value] = {
    de.STAN: SIGN_IN_STAN,
    **CLOCK,
    de.ACQUIRER: FACTS.acquirer,
    de.TERMINAL: FACTS.terminal,
    de.MERCHANT: FACTS.merchant,
    de.CURRENCY: de.CURRENCY_CNY,
    de.SERIAL: FACTS.serial,
    de.CREDIT_CODE: FACTS.credit_code,
    de.APP: "fengshou.pos",
    de.APP_VERSION: "1.0",
    de.APP_MANIFEST: sm3(b"Fengshou example: manifest"),
    de.BATCH: BATCH,
    de.OPERATOR: "001",
    de.FROM_ACCOUNT: FACTS.settlement_account,
}
PURCHASE_VALUES: dict[int, Value] = {
    de.AMOUNT: amount_of(1_250, 6_000),
    de.STAN: STAN,
    **CLOCK,
    de.ENTRY_MODE: 12,
    de.PRODUCT: 1,
    de.VARIETY: 3,
    de.GRADE: 2,
    de.WEIGHT: 1_250,
    de.UNIT_PRICE: 6_000,
    de.TO_ACCOUNT: "9156001004001187857",
}
# Another farmer of the same village, a little later; nothing else of the first purchase is said again.
DELTA_SEQUENCE, UPLOAD_SEQUENCE = 8, 9
SECOND_PURCHASE: dict[int, Value] = {
    **PURCHASE_VALUES,
    de.AMOUNT: amount_of(860, 6_000),
    de.STAN: STAN + DELTA_SEQUENCE - 2,
    de.LOCAL_TIME: 100_410,
    de.WEIGHT: 860,
    de.TO_ACCOUNT: "9156001004001190002",
}
STORED: tuple[dict[int, Value], ...] = tuple(
    {
        **PURCHASE_VALUES,
        de.AMOUNT: amount_of(weight, price),
        de.STAN: stan,
        de.LOCAL_TIME: time,
        de.WEIGHT: weight,
        de.UNIT_PRICE: price,
        de.TO_ACCOUNT: farmer,
    }
    for stan, time, weight, price, farmer in (
        (49, 63_000, 2_000, 6_000, "9156001004001187857"),
        (50, 63_842, 1_435, 6_000, "9156001004001190002"),
        (51, 65_500, 990, 5_900, "9156001004001187857"),
    )
)
# The card and PIN of the format 4 example in the tests of the PIN blocks.
CARD, PIN = "6231722254919298906", b"123456"
PURCHASE_ANSWER: dict[int, Value] = {
    de.SETTLEMENT_DATE: 712,
    de.RRN: RRN,
    de.AUTHORISATION: "004711",
    de.RESPONSE_CODE: "00",
}
