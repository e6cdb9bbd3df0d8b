"""Filling Bloom filters, compiled; ``fengshou.protocol.bloom`` is the readable twin, defines them and asks them."""

class Bloom:
    """A filter that is being filled."""

    def __init__(self, pages: int) -> None: ...
    def add_column(self, column: int, data: bytes, begin: int, width: int, stride: int, count: int) -> None:
        """Add ``count`` values of ``width`` bytes, ``stride`` apart. Raises ValueError when they leave ``data``."""

    def add_pairs(
        self, column: int, data: bytes, left: int, left_width: int, right: int, right_width: int, count: int
    ) -> None:
        """Add values of two columns side by side, each pair as one value. Raises ValueError as ``add_column``."""

    def pages(self) -> list[bytes]: ...
