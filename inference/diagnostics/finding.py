"""A finding, its level, and the verdict of several."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

MODEL_TOPICS = ("posterior predictive", "prior predictive")
"""Topics that judge the model, not the posterior."""


class Level(IntEnum):
    """How bad it is."""

    GOOD = 0
    NOTE = 1
    """Nothing can be said, or it is not what was to be judged."""
    WARNING = 2
    BAD = 3


@dataclass(frozen=True)
class Finding:
    """What one diagnostic found."""

    topic: str
    level: Level
    sentence: str


def verdict(findings: Sequence[Finding]) -> str:
    """All findings in a few lines, the worst first.

    >>> print(verdict([Finding("evidence", Level.GOOD, "All is well.")]))
    Nothing was found against this posterior.
    >>> print(verdict([Finding("evidence", Level.BAD, "k̂ is high."),
    ...                Finding("nuts", Level.NOTE, "Not looked at.")]))
    Do not take this posterior at its word.
    - evidence: k̂ is high.
    Nothing can be said of: nuts (see the findings).
    """
    of_posterior = [
        f.level for f in findings if f.topic not in MODEL_TOPICS and f.level != Level.NOTE
    ]
    of_model = [f.level for f in findings if f.topic in MODEL_TOPICS]
    head = {
        Level.GOOD: "Nothing was found against this posterior",
        Level.WARNING: "Use this posterior with care",
        Level.BAD: "Do not take this posterior at its word",
    }.get(max(of_posterior, default=Level.NOTE), "Nothing could be said of this posterior")
    if max(of_model, default=Level.GOOD) >= Level.WARNING:
        head += ", but" if head.startswith("N") else ", and"
        head += " the model does not make data like these"
    head += "."
    unseen = [f.topic for f in findings if f.level == Level.NOTE]
    told = sorted((f for f in findings if f.level >= Level.WARNING), key=lambda f: -f.level)
    lines = [head, *(f"- {finding.topic}: {finding.sentence}" for finding in told)]
    if unseen:
        lines.append(f"Nothing can be said of: {', '.join(unseen)} (see the findings).")
    return "\n".join(lines)
