"""Synthetic records of the offices: the same seed, item, subject and period always give the same text."""

import re
from datetime import date
from random import Random

from fengshou.ext.hosts.government.catalogue import Domain, Item

# GB 11643-1999: region (6 digits), date of birth (8), order (3), check character. The check character is not looked at:
# a synthetic number with a true one could be a living person's.
_RESIDENT = re.compile(r"\d{6}(\d{8})\d{3}[\dX]")
# Certificate and case numbers, unified credit codes, units of real estate.
_OTHER = re.compile(r"[0-9A-Z][0-9A-Z-]{3,31}")


def on_record(domain: Domain, subject: str) -> bool:
    """Whether a domain's offices can know this subject: a resident born on a real day, else a number of some form."""
    if not domain.person:
        return _OTHER.fullmatch(subject) is not None
    resident = _RESIDENT.fullmatch(subject)
    if resident is None:
        return False
    born = resident[1]
    try:
        date(int(born[:4]), int(born[4:6]), int(born[6:]))
    except ValueError:
        return False
    return True


def synthesise(seed: str, domain: Domain, item: Item, subject: str, period: int, year: int) -> str:
    """The text of a record. ``period`` is YYYY, YYYYMM or 0; ``year`` is when it is asked, for records without one."""
    random = Random(f"{seed}|{item.id}|{subject}|{period}")  # made-up figures, not secrets
    record_year = int(str(period)[:4]) if period else year - 1
    month = period % 100 if period > 9999 else random.randint(1, 12)
    figures = domain.record.format(
        months=random.randint(1, 420),
        yuan=f"{random.randint(1_000, 900_000) / 100:.2f}",
        balance=f"{random.randint(1_000, 20_000_000) / 100:.2f}",
        area=f"{random.randint(50, 30_000) / 100:.2f}",
        count=random.randint(1, 6),
        month=f"{record_year}年{month}月",
        date=f"{record_year}年{month}月{random.randint(1, 28)}日",
    )
    asked_for = f"（{period}）" if period else ""
    return f"{item.zh}{asked_for}：{figures}。"
