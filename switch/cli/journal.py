"""``fengshou journal``: what was written, to look at and to prove."""

import click

from fengshou.switch.cli.lazy import Elsewhere, LazyGroup

_COMMANDS = {
    "show": Elsewhere("stories", "show", "Show records, with card and account numbers masked."),
    "find": Elsewhere("stories", "search", "Tell the whole story of transactions: from sign-in to reversal."),
    "receipt": Elsewhere("stories", "receipt", "The proof that an outcome stands in the signed journal."),
    "verify": Elsewhere("proofs", "verify", "Prove every record: roots, chain, signatures, indexes."),
    "segments": Elsewhere("proofs", "segments", "List the business days: where, how many records, how large."),
    "archive": Elsewhere("proofs", "archive", "Copy a sealed day elsewhere and prove the copy."),
    "repair": Elsewhere("proofs", "repair", "Copy what is provably good of a torn journal."),
}


@click.group(cls=LazyGroup, elsewhere=_COMMANDS)
def journal() -> None:
    """Look at the journal, prove it, take receipts from it. Works beside a running switch."""
