"""A finding, its level, and the verdict that several findings come to."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from ..common.plotting import counted

TOLERATED_NATS = 0.1
"""Difference in nats per datum that gives no warning."""


class Level(IntEnum):
    """How bad a finding is."""

    GOOD = 0
    NOTE = 1
    """The question could not be answered, or the answer says nothing about the posterior."""
    WARNING = 2
    BAD = 3


@dataclass(frozen=True)
class Finding:
    """What one diagnostic found, in one sentence."""

    topic: str
    level: Level
    sentence: str
    about_model: bool = False
    """Whether it judges the model. Otherwise, it judges the posterior."""


def not_looked_at(topic: str, error: Exception) -> Finding:
    """The finding that a question could not be answered, with the reason in one line.

    >>> not_looked_at("gap", ValueError("'k' is discrete")).sentence
    "Not looked at: 'k' is discrete."
    >>> not_looked_at("gap", TypeError("two\\n  lines.")).sentence
    'Not looked at: TypeError: two lines.'
    """
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    reason = kind + " ".join(str(error).split()).rstrip(".")
    return Finding(topic, Level.NOTE, f"Not looked at: {reason}.")


def worst_level(findings: Sequence[Finding]) -> Level:
    """The highest level of all findings, notes left out; NOTE where there are only notes.

    >>> worst_level([Finding("NUTS", Level.NOTE, "Not looked at.")]).name
    'NOTE'
    """
    told = [finding.level for finding in findings if finding.level != Level.NOTE]
    return max(told, default=Level.NOTE)


def summarize_findings(findings: Sequence[Finding]) -> str:
    """The verdict: a first line that sums up all findings, then those that warn, the worst first.

    >>> print(summarize_findings([Finding("evidence", Level.GOOD, "All is well.")]))
    Nothing was found against this posterior.
    >>> print(summarize_findings([Finding("evidence", Level.BAD, "k̂ is high."),
    ...                           Finding("NUTS", Level.NOTE, "Not looked at.")]))
    Do not trust this posterior.
    - evidence: k̂ is high.
    Nothing can be said about: NUTS (see the findings).
    """
    head = {
        Level.GOOD: "Nothing was found against this posterior",
        Level.WARNING: "Use this posterior with care",
        Level.BAD: "Do not trust this posterior",
    }.get(
        worst_level([finding for finding in findings if not finding.about_model]),
        "Nothing could be said about this posterior",
    )
    if worst_level([finding for finding in findings if finding.about_model]) >= Level.WARNING:
        head += ", but" if head.startswith("N") else ", and"
        head += " the model does not make data like these"
    unseen = [finding.topic for finding in findings if finding.level == Level.NOTE]
    told = [finding for finding in findings if finding.level >= Level.WARNING]
    told.sort(key=lambda finding: -finding.level)
    lines = [f"{head}.", *(f"- {finding.topic}: {finding.sentence}" for finding in told)]
    if unseen:
        lines.append(f"Nothing can be said about: {', '.join(unseen)} (see the findings).")
    return "\n".join(lines)


def name_data(count: int, set_rows: int = 0) -> str:
    """How many data a finding is about; or that it is about the whole data set, as one datum.

    >>> name_data(1), name_data(16), name_data(1, set_rows=50)
    ('1 datum', '16 data', 'the whole data set of 50 rows')
    """
    if set_rows:
        return f"the whole data set of {set_rows:,} rows" if set_rows > 1 else "the whole data set"
    return counted(count, "datum", "data")


def per_what(set_rows: int) -> str:
    """The unit of a number in nats.

    >>> per_what(0), per_what(50)
    ('nats per datum', 'nats of the whole data set')
    """
    return "nats of the whole data set" if set_rows else "nats per datum"


def in_nats(value: float) -> str:
    """A number of nats as it is written in a finding, without minus zero.

    >>> in_nats(-0.001), in_nats(-1.0)
    ('0.00', '-1.00')
    """
    return f"{round(value, 2) + 0.0:.2f}"
