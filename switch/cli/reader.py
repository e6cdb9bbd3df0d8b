"""The journal of a site as commands read it."""

from functools import cached_property
from pathlib import Path
from typing import Any

import click

from fengshou.protocol.record import Record, RecordKind
from fengshou.switch.clock import Clock, local_time
from fengshou.switch.config import Loaded
from fengshou.switch.custodies import custody_of
from fengshou.switch.grammar import Catalogue, services_of
from fengshou.switch.journal.columns import Wanted
from fengshou.switch.journal.find import Place, find
from fengshou.switch.journal.lines import Segment
from fengshou.switch.journal.store import Journal
from fengshou.switch.masking import masked
from fengshou.switch.recording import Recorder

file_option = click.option(
    "--file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    default=None,
    help="Read this sealed day, wherever it lies, in the place of the journal.",
)


class Reader:
    """A journal opened for reading, with the keys to show what is sealed."""

    def __init__(self, loaded: Loaded, file: Path | None = None, *, readahead: bool = False) -> None:
        """``file`` is a sealed day to read in the place of the journal; ``readahead`` as of ``Journal``.

        Raises JournalError.
        """
        self.loaded = loaded
        self._readahead = readahead
        self.catalogue = Catalogue(services_of(loaded.config))
        self.custody = custody_of(loaded)
        self.segment = Segment(file, readahead=readahead) if file else None
        self.recorder = Recorder(self.catalogue, self.custody, Clock())

    @cached_property
    def journal(self) -> Journal:
        limits, files = self.loaded.config.limits, self.loaded.config.files
        return Journal(
            self.loaded.path(files.journal),
            map_bytes=limits.journal_gib << 30,
            read_only=True,
            readahead=self._readahead,
        )

    def story(self, rrn: int) -> list[Record]:
        """Everything about one transaction, see ``journal.find``; empty when there is none."""
        found = find(Place(self.journal), Wanted(rrn=rrn))
        return found.stories[0] if found.stories else []

    def row(self, record: Record) -> dict[str, Any]:
        """A record as people and programs may see it: C2 values masked."""
        template = self.catalogue.grammar.templates.get(record.template)
        return {
            "record": record.number,
            "time": local_time(record.time_us).isoformat(sep=" ", timespec="milliseconds")[:-6],
            "kind": RecordKind(record.kind).name.lower(),
            "message": template.name if template else "",
            "terminal": record.terminal,
            "batch": record.batch,
            "stan": record.stan,
            "rrn": f"{record.rrn:012d}" if record.rrn else "",
            "code": record.code.strip(),
            "refers": record.refers,
            "values": masked(self.catalogue.grammar, self.recorder.values(record)),
        }
