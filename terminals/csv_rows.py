"""CSV files as banks hand them over: a line of column names, one row a line, comments that begin with #."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


class CsvError(Exception):
    """The file is not what was expected; the text names file, line and column."""


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of one line; an empty cell and a column that the file does not have are the same."""

    where: str  # file and line, for errors
    cells: dict[str, str]

    def text(self, column: str) -> str:
        return self.cells.get(column, "")

    def integer(self, column: str) -> int:
        """Raises CsvError unless the cell is a number, 0 or more."""
        text = self.text(column)
        if not (text.isascii() and text.isdecimal()):
            raise CsvError(f"{self.where}: {column} is no number")
        return int(text)


def read_rows(path: Path, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> Iterator[Row]:
    """The rows of a file.

    Raises CsvError: unreadable, a column is missing or unknown, a row is too short or too long.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = [(number, line) for number, line in enumerate(file, 1) if line.strip() and not line.startswith("#")]
    except (OSError, UnicodeDecodeError) as error:
        raise CsvError(f"{path}: {error}") from None
    reader = csv.reader((line for _, line in lines), strict=True)
    try:
        columns = next(reader, [])
        for column in required:
            if column not in columns:
                raise CsvError(f"{path}: there is no column {column}")
        for column in columns:
            if column not in required + optional or columns.count(column) > 1:
                raise CsvError(f"{path}: column {column!r} is unknown or there twice")
        for cells in reader:
            where = f"{path} line {lines[reader.line_num - 1][0]}"
            if len(cells) != len(columns):
                raise CsvError(f"{where}: {len(columns)} cells are expected, not {len(cells)}")
            yield Row(where, dict(zip(columns, cells, strict=True)))
    except csv.Error as error:
        raise CsvError(f"{path}: {error}") from None
