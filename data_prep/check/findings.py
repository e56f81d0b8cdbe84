"""Findings of a check, ordered by severity, and their form in JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["serious", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("serious", "warning", "note")


@dataclass(frozen=True)
class Finding:
    """One fault, or peculiarity, of a set of images.

    Attributes:
        kind: Its name for scripts, such as `unreadable`.
        severity: `serious`: numbers of a model would be wrong; `warning`: they may be; `note`:
            worth knowing.
        title: In a few words.
        text: What it means and how to mend it.
        count: Images, or pairs of images, that are concerned.
        examples: Some of them, as text.
    """

    kind: str
    severity: Severity
    title: str
    text: str
    count: int
    examples: tuple[str, ...] = ()

    def line(self) -> str:
        """The finding in one line."""
        shown = f": {'; '.join(self.examples[:2])}" if self.examples else ""
        return f"{self.severity}: {self.title}{shown}. {self.text}"


def by_severity(findings: Sequence[Finding]) -> list[Finding]:
    """The worst first; else in the order in which they came."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def to_json(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """The findings as JSON values."""
    return [asdict(finding) for finding in findings]
