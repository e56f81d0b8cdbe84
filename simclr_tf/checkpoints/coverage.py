"""What became of every tensor of a checkpoint and of every variable of a network."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, get_args

from data_prep.csv_files import csv_text

Status = Literal["used", "adapted", "unused", "missing"]


@dataclass(frozen=True)
class Row:
    """One tensor.

    Attributes:
        tensor: Its name in the checkpoint; that of the variable if the checkpoint has none.
        shape: Its shape there.
        status: `used`; `adapted`, used with another shape; `unused`; `missing`, a variable of the
            network that keeps its fresh value.
        note: The variable that took it, or why none did.
    """

    tensor: str
    shape: tuple[int, ...]
    status: Status
    note: str


@dataclass(frozen=True)
class Coverage:
    """The whole account of a conversion.

    Attributes:
        source: What the checkpoint is, in words.
        rows: Every tensor once.
    """

    source: str
    rows: tuple[Row, ...]

    def with_status(self, *statuses: Status) -> tuple[Row, ...]:
        """The rows of these kinds."""
        return tuple(row for row in self.rows if row.status in statuses)

    def summary(self) -> str:
        """A few lines: how many tensors were used, and why others were not."""
        lines = [self.source]
        for status in get_args(Status):
            lines += self._counted(self.with_status(status))
        return "\n".join(lines)

    def _counted(self, rows: Sequence[Row]) -> Iterator[str]:
        grouped = rows and rows[0].status == "used"
        reasons = Counter("weights of the network" if grouped else row.note for row in rows)
        for reason, number in sorted(reasons.items(), key=lambda pair: -pair[1]):
            same = [row for row in rows if grouped or row.note == reason]
            values = sum(prod(row.shape) for row in same)
            yield f"  {same[0].status:8s}{number:6d} tensors {values:12,d} values  {reason}"

    def csv(self) -> str:
        """Every row as CSV: status, tensor, shape, note."""
        rows = [["status", "tensor", "shape", "note"]]
        for row in self.rows:
            shape = "x".join(map(str, row.shape)) or "scalar"
            rows.append([row.status, row.tensor, shape, row.note])
        return csv_text(rows)
