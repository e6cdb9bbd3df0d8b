"""Before an audit follows anything in a file: is each of its pages what its place says?

LMDB trusts its file, so a page that the disk has changed may end whoever reads it. ``pages`` does not trust it,
and names the page and the byte.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import lmdb

from fengshou.switch.journal.audit import Finding
from fengshou.switch.journal.pages import PageDamaged, Pages


def verify_pages(file: Path, finding: Finding) -> None:
    """Read a whole file page by page; works beside a switch that writes to it. Raises OSError."""
    try:
        with _pinned(file), Pages(file) as pages:
            for damage in pages.proven():
                finding.wrong(f"{file.name}: {damage}")
    except PageDamaged as error:
        finding.wrong(f"{file.name}: {error}")


@contextmanager
def _pinned(file: Path) -> Iterator[None]:
    """Meanwhile no page of the store is used again. It needs the meta pages only; a sealed day needs nothing."""
    with ExitStack() as stack:
        try:
            if (file.parent / "lock.mdb").exists() and file.name == "data.mdb":
                env = stack.enter_context(lmdb.open(str(file.parent), readonly=True, create=False))
                stack.enter_context(env.begin())
        except lmdb.Error:
            pass  # it is damaged where LMDB sees it: nobody can write to it either
        yield
