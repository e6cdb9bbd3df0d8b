"""Response codes (DE 39), the China UnionPay set of ISO 8583:1987, registered once each.

The action class tells a terminal what to do: A approved, B try again with the same key, C declined, D declined and an
operator must act, E the outcome is unknown and will be settled by reversal.
"""

from dataclasses import dataclass

APPROVED = "00"
IN_PROGRESS = "09"
UNKNOWN_OUTCOME = "98"
FORMAT_ERROR = "30"
RESYNC = "R0"
UNSUPPORTED = "40"
PIN_FORMAT_ERROR = "99"
MAC_ERROR = "A0"
KEYS_OUT_OF_USE = "A7"


@dataclass(frozen=True, slots=True)
class ResponseCode:
    code: str
    action: str
    meaning: str
    text_zh: str  # plain words for the customer


_ROWS = (
    ResponseCode("00", "A", "approved", "交易成功"),
    ResponseCode("01", "C", "refer to issuer; original was declined", "请联系发卡行"),
    ResponseCode("03", "C", "invalid merchant", "商户无效"),
    ResponseCode("05", "C", "do not honour", "交易被拒绝"),
    ResponseCode("06", "E", "error", "交易出错"),
    ResponseCode("09", "B", "request in progress", "正在处理，请稍候"),
    ResponseCode("12", "C", "invalid transaction", "无效交易"),
    ResponseCode("13", "C", "invalid amount", "金额无效"),
    ResponseCode("14", "C", "invalid card or account number", "卡号或账号无效"),
    ResponseCode("15", "C", "no such issuer", "无此发卡行"),
    ResponseCode("20", "E", "invalid response of the back end", "主机应答无效"),
    ResponseCode("22", "D", "suspected malfunction; sign in again", "操作有误，请重新签到"),
    ResponseCode("25", "C", "record not found, or already reversed", "找不到原交易"),
    ResponseCode("30", "C", "format error", "报文格式错误"),
    ResponseCode("34", "D", "suspected fraud", "有作弊嫌疑"),
    ResponseCode("38", "D", "PIN tries exceeded", "密码输错次数超限"),
    ResponseCode("40", "C", "function not supported", "功能不支持"),
    ResponseCode("42", "C", "no such account", "无此账户"),
    ResponseCode("51", "C", "insufficient funds", "余额不足"),
    ResponseCode("54", "C", "expired card", "卡已过期"),
    ResponseCode("55", "C", "incorrect PIN", "密码错误"),
    ResponseCode("57", "C", "not permitted to the card holder", "该卡不允许此交易"),
    ResponseCode("58", "D", "not permitted to the terminal", "终端不允许此交易"),
    ResponseCode("61", "C", "exceeds the amount limit", "超出金额限制"),
    ResponseCode("62", "C", "restricted card", "受限制的卡"),
    ResponseCode("63", "D", "security violation: signature, certificate or binding", "安全校验失败"),
    ResponseCode("64", "C", "amount differs from the original", "与原交易金额不符"),
    ResponseCode("65", "C", "exceeds the count or rate limit", "超出次数限制"),
    ResponseCode("68", "E", "response received too late", "应答超时"),
    ResponseCode("75", "D", "PIN tries exceeded, card locked", "密码次数超限"),
    ResponseCode("77", "D", "batch differs; sign in again", "批次不符，请重新签到"),
    ResponseCode("79", "C", "offline batch mismatch", "脱机批次不符"),
    ResponseCode("90", "B", "cut-over in progress", "日切处理中，请稍后重试"),
    ResponseCode("91", "C", "back end inoperative; nothing was done", "主机暂不可用，未扣款"),
    ResponseCode("92", "C", "no route", "没有路由"),
    ResponseCode("93", "C", "refused by law or rule", "交易违法不能完成"),
    ResponseCode("94", "C", "duplicate key with another content", "重复交易"),
    ResponseCode("95", "D", "reconciliation error", "对账不平"),
    ResponseCode("96", "C", "system busy or failed; nothing was done", "系统忙，未扣款"),
    ResponseCode("97", "D", "unknown terminal", "终端未登记"),
    ResponseCode("98", "E", "no reply of the back end; it will be reversed", "未收到应答，将自动冲正"),
    ResponseCode("99", "C", "PIN block format error", "密码格式错误"),
    ResponseCode("A7", "C", "security processing failed: keys out of use; fetch new ones", "密钥已更新，请重试"),
    # Our own: the set of China UnionPay knows no delta form.
    ResponseCode("R0", "B", "delta without its base; send the whole message", "请重发完整报文"),
    ResponseCode("A0", "D", "message authentication failed", "报文校验失败"),
)


def _register(rows: tuple[ResponseCode, ...]) -> dict[str, ResponseCode]:
    table: dict[str, ResponseCode] = {}
    for row in rows:
        if row.code in table:
            raise ValueError(f"response code {row.code} is registered twice")
        table[row.code] = row
    return table


CODES = _register(_ROWS)


def action_of(code: str) -> str:
    """The action class A to E of a code; an unregistered code of a foreign host is a plain decline, C."""
    row = CODES.get(code)
    return row.action if row else "C"


def text_of(code: str, language: str = "en") -> str:
    """What to show a person for a code, ``en`` or ``zh``."""
    row = CODES.get(code)
    if row is None:
        return code
    return row.text_zh if language == "zh" else row.meaning
