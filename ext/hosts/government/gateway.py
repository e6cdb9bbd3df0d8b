"""Answers enquiries and declarations over a durable register: a repeat gets its first answer, a case is opened once.

``POST /v1/enquiry`` takes ``item``, ``subject`` and ``period`` (YYYY or YYYYMM) as the item's row of the catalogue
demands, optionally ``domain``, and the trace that the link adds (``rrn``, ``received``). The answer holds ``code``,
``reply`` (text to show, Chinese) and ``reference`` (number of the enquiry or case). Codes: 00 answered; 25 no such
record; 30 a field is missing or malformed; 40 no such item; 94 the RRN was used for another request.
"""

import hashlib
import re
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from fengshou.ext.hosts.government.catalogue import Domain, Item, Kind, load
from fengshou.ext.hosts.government.records import on_record, synthesise
from fengshou.protocol.backend import NotServed
from fengshou.protocol.codes import text_of

PATH = "/v1/enquiry"

_RRN = re.compile(r"\d{12}")
_PERIOD = re.compile(r"(19|2\d)\d{2}(0[1-9]|1[0-2])?")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS enquiries(
    rrn TEXT PRIMARY KEY, content BLOB NOT NULL, answer BLOB NOT NULL, received TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS records(
    item INTEGER, subject TEXT, period INTEGER, text TEXT NOT NULL, PRIMARY KEY(item, subject, period)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cases(
    serial INTEGER PRIMARY KEY AUTOINCREMENT, item INTEGER NOT NULL, subject TEXT NOT NULL, period INTEGER NOT NULL,
    rrn TEXT NOT NULL UNIQUE, opened TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS cases_of ON cases(item, subject, period);
"""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of the embedded gateway. ``seed`` makes another synthetic population."""

    database: str
    catalogue: str = str(Path(__file__).with_name("catalogue.json"))
    seed: str = "fengshou"


class Enquiry(msgspec.Struct, frozen=True):
    """A request whose fields have the right form; whether they are enough is the item's to say."""

    item: int
    rrn: str
    day: str  # YYYY-MM-DD, as received by the switch
    domain: int = 0
    subject: str = ""
    period: int = 0

    @property
    def content(self) -> bytes:
        """What makes two requests the same, hashed: a repeat is told by it, and it says nothing about the person."""
        return hashlib.sha256(msgspec.json.encode((self.item, self.domain, self.subject, self.period))).digest()


class Refused(Exception):
    """The enquiry is answered with a code that is not 00."""

    def __init__(self, code: str, error: str) -> None:
        super().__init__(error)
        self.code = code


class Application:
    """A ``JsonApplication`` over SQLite, one synced transaction a request."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """See ``Options``. Raises msgspec.ValidationError (it names the option), CatalogueError or OSError."""
        self._options = msgspec.convert(dict(options), Options)
        catalogue = load(Path(self._options.catalogue))
        self._domains: Mapping[int, Domain] = catalogue.domain_by_id()
        self._items: Mapping[int, Item] = catalogue.item_by_id()
        # The server calls from one worker thread at a time, not always the same.
        self._database = sqlite3.connect(self._options.database, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.executescript(_SCHEMA)

    def close(self) -> None:
        self._database.close()

    def answer(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if path != PATH:
            raise NotServed(path)
        try:
            enquiry = _parse(body)
        except Refused as refused:
            return _refusal(refused)
        self._database.execute("BEGIN IMMEDIATE")
        with self._database:  # commits, or rolls back when anything raises
            return self._once(enquiry)

    def _once(self, enquiry: Enquiry) -> dict[str, Any]:
        """The stored answer of a repeat, or a new one, stored."""
        row = self._database.execute("SELECT content, answer FROM enquiries WHERE rrn = ?", (enquiry.rrn,)).fetchone()
        if row is not None:
            if row[0] != enquiry.content:
                return _refusal(Refused("94", "rrn was used for another request"))
            return msgspec.json.decode(row[1], type=dict[str, Any])
        try:
            answer = self._serve(enquiry)
        except Refused as refused:
            answer = _refusal(refused)
        self._database.execute(
            "INSERT INTO enquiries VALUES (?, ?, ?, ?)",
            (enquiry.rrn, enquiry.content, msgspec.json.encode(answer), enquiry.day),
        )
        return answer

    def _serve(self, enquiry: Enquiry) -> dict[str, Any]:
        """Raises Refused."""
        item = self._items.get(enquiry.item)
        if item is None or (enquiry.domain and enquiry.domain != item.domain):
            raise Refused("40", "no such item in this domain")
        for name in item.fields:
            if not getattr(enquiry, name):
                raise Refused("30", f"{name} is missing")
        year = int(enquiry.day[:4])
        if not on_record(self._domains[item.domain], enquiry.subject) or int(str(enquiry.period)[:4]) > year:
            raise Refused("25", "no record of this subject and period")
        if item.kind is Kind.DECLARE:
            reference = self._case(item, enquiry)
            reply = f"{item.zh}已受理，受理编号{reference}，请凭编号查询办理进度。"
        else:
            reference = f"{item.domain}-{enquiry.rrn}"
            reply = self._record(item, enquiry, year)
        return {"code": "00", "reply": reply, "reference": reference}

    def _record(self, item: Item, enquiry: Enquiry, year: int) -> str:
        key = (item.id, enquiry.subject, enquiry.period)
        row = self._database.execute(
            "SELECT text FROM records WHERE item = ? AND subject = ? AND period = ?", key
        ).fetchone()
        if row is not None:
            return str(row[0])
        text = synthesise(self._options.seed, self._domains[item.domain], item, enquiry.subject, enquiry.period, year)
        self._database.execute("INSERT INTO records VALUES (?, ?, ?, ?)", (*key, text))
        return text

    def _case(self, item: Item, enquiry: Enquiry) -> str:
        """The number of the case; that of the case already open when the item is idempotent."""
        key = (item.id, enquiry.subject, enquiry.period)
        row = None
        if item.idempotent:
            row = self._database.execute(
                "SELECT serial, opened FROM cases WHERE item = ? AND subject = ? AND period = ?", key
            ).fetchone()
        if row is None:
            row = self._database.execute(
                "INSERT INTO cases(item, subject, period, rrn, opened) VALUES (?, ?, ?, ?, ?) RETURNING serial, opened",
                (*key, enquiry.rrn, enquiry.day),
            ).fetchone()
        serial, opened = row
        return f"{item.domain}{opened.replace('-', '')}{serial:06d}"


def _parse(body: Mapping[str, Any]) -> Enquiry:
    """Raises Refused."""
    try:
        enquiry = msgspec.convert({**body, "day": str(body.get("received", ""))[:10]}, Enquiry)
    except msgspec.ValidationError as error:
        raise Refused("30", str(error)) from error
    if not _RRN.fullmatch(enquiry.rrn):
        raise Refused("30", "rrn is not 12 digits")
    if not _DAY.fullmatch(enquiry.day):
        raise Refused("30", "received is not a time of ISO 8601")
    if enquiry.period and not _PERIOD.fullmatch(str(enquiry.period)):
        raise Refused("30", "period is not YYYY or YYYYMM")
    return enquiry


def _refusal(refused: Refused) -> dict[str, Any]:
    return {"code": refused.code, "reply": text_of(refused.code, "zh"), "error": str(refused)}
