"""A diagnosis as one page of HTML, which needs nothing beside itself."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import metadata
from pathlib import Path
from typing import Any

from ..diagnostics.diagnosis import Diagnosis
from ..diagnostics.diagnostic import Diagnostic, DiagnosticFigure, Number
from ..diagnostics.finding import Finding, Level, name_data, worst_level

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --soft: #57606a; --line: #d0d7de;
  --good: #1a7f37; --note: #57606a; --warning: #8a5a00; --bad: #b42318; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #14181d; --soft: #9aa4af;
  --line: #363d46; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 50rem; margin: 0 auto; padding: 2rem 1rem 4rem; }
h1 { font-size: clamp(1.6rem, 5vw, 2.3rem); line-height: 1.2; margin: .4rem 0; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .8rem; }
h3 { font-size: 1.1rem; margin: 2.5rem 0 .6rem; }
.badge { display: inline-block; min-width: 5.2em; padding: .1em .6em; border-radius: .4em;
  color: #fff; font-size: .8rem; font-weight: 600; text-align: center;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
header .badge { font-size: 1rem; margin-right: .5rem; }
.badge.good { background: var(--good); } .badge.note { background: var(--note); }
.badge.warning { background: var(--warning); } .badge.bad { background: var(--bad); }
.about, figcaption { color: var(--soft); }
.about { margin: 0; }
ul.findings { list-style: none; margin: 0; padding: 0; }
ul.findings li { display: grid; grid-template-columns: 6rem 1fr; gap: 0 .8rem; padding: .7rem 0;
  align-items: start; border-top: 1px solid var(--line); }
ul.findings p { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .6rem .35rem 0; border-top: 1px solid var(--line); text-align: left;
  white-space: nowrap; }
th { font-weight: 400; white-space: normal; min-width: 8rem; }
th.part { padding-left: 1.5rem; }
td.number { text-align: right; padding-right: 1rem; }
td.unit { color: var(--soft); white-space: normal; min-width: 5rem; }
figure { margin: 0; overflow-x: auto; }
figure img { display: block; width: 100%; max-width: 100%; height: auto; background: #fff;
  border: 1px solid var(--line); border-radius: .5rem; padding: .6rem; }
figcaption { font-size: .93rem; margin-top: .5rem; }
a { color: inherit; }
@media (max-width: 32rem) { figure img { width: 34rem; max-width: none; }
  table { font-size: .88rem; } .badge { justify-self: start; }
  ul.findings li { grid-template-columns: 1fr; gap: .3rem; } }
@media print { :root { --ink: #000; --paper: #fff; --soft: #333; --line: #bbb; }
  main { max-width: none; padding: 0; } section.picture, ul.findings li { break-inside: avoid; }
  h2, h3 { break-after: avoid; } a { text-decoration: none; } }
"""


def page(diagnosis: Diagnosis, figures: Mapping[str, Path]) -> str:
    """The report: the verdict, the findings, the main numbers, and the figures.

    Args:
        figures: PNG files by the names in ``diagnosis.figures``; they become part of the page.
    """
    head, level = diagnosis.verdict.split("\n")[0], worst_level(diagnosis.findings)
    count = name_data(diagnosis.num_data, diagnosis.set_rows)
    if diagnosis.set_rows:
        count += ", as one datum with all of its latent variables"
    about = f"{count} · latente {metadata.version('latente')}"
    question = "Can this posterior be trusted?"
    shown = [
        _Picture(diagnostic, figure, figures[figure.name])
        for diagnostic in diagnosis.diagnostics
        for figure in diagnostic.figures
        if figure.name in figures
    ]
    pictures = "".join(picture.section(diagnosis.findings) for picture in shown)
    if pictures:
        pictures = f"<section>\n<h2>Figures</h2>\n{pictures}</section>"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(f"{question} {head}")}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<header>
<p class="about">{question}</p>
<h1>{_text(head)}</h1>
<p class="about">{_badge(level)} {_text(about)}</p>
</header>
<section>
<h2>Findings</h2>
{_findings(diagnosis.findings, shown)}
</section>
{_table(diagnosis.table)}
{pictures}
</main>
</body>
</html>
"""


@dataclass(frozen=True)
class _Picture:
    """A figure, of which diagnostic it is, and its file."""

    diagnostic: Diagnostic[Any]
    figure: DiagnosticFigure[Any]
    path: Path

    @property
    def topics(self) -> tuple[str, ...]:
        return self.figure.topics or self.diagnostic.topics

    def section(self, findings: Sequence[Finding]) -> str:
        """The figure with its caption; what was found is told to those who cannot see it."""
        title = self.figure.title or self.diagnostic.question
        said = [finding.sentence for finding in findings if finding.topic in self.topics]
        alternative = _text(" ".join([title, *said]))
        image = base64.b64encode(self.path.read_bytes()).decode()
        return f"""<section class="picture" id="{escape(self.figure.name)}">
<h3>{_text(title)}</h3>
<figure>
<img src="data:image/png;base64,{image}" alt="{alternative}">
<figcaption>{_text(self.figure.caption)}</figcaption>
</figure>
</section>
"""


def _text(text: str) -> str:
    """A sentence in print: escaped, and with minus signs.

    >>> _text("-1.5 < x-1")
    '−1.5 &lt; x-1'
    """
    return escape(re.sub(r"(?<![\w)\]-])-(?=\d)", "−", text))


def _badge(level: Level) -> str:
    name = level.name.lower()
    return f'<span class="badge {name}">{name}</span>'


def _findings(findings: Sequence[Finding], pictures: Sequence[_Picture]) -> str:
    """All findings, the worst first, each with a link to its figure."""
    items = []
    for finding in sorted(findings, key=lambda finding: -finding.level):
        topic = _text(finding.topic)
        topic = topic[:1].upper() + topic[1:]
        shown = [one.figure.name for one in pictures if finding.topic in one.topics]
        if shown:
            topic = f'<a href="#{escape(shown[0])}">{topic}</a>'
        text = f"<p><strong>{topic}.</strong> {_text(finding.sentence)}</p>"
        items.append(f"<li>{_badge(finding.level)}{text}</li>")
    return f'<ul class="findings">\n{chr(10).join(items)}\n</ul>'


def _table(numbers: Sequence[Number]) -> str:
    """The main numbers that are known."""
    rows = [
        f'<tr><th scope="row"{part}>{_text(number.label)}</th>'
        f'<td class="number">{_text(_written(number))}</td>'
        f'<td class="unit">{_text(number.unit)}</td></tr>'
        for number in numbers
        for part in [' class="part"' if number.is_part else ""]
        if number.label and number.entries()[number.key] is not None
    ]
    if not rows:
        return ""
    return f"""<section>
<h2 id="numbers">Numbers</h2>
<div class="scroll" tabindex="0" role="region" aria-labelledby="numbers">
<table>
<tbody>
{chr(10).join(rows)}
</tbody>
</table>
</div>
</section>"""


def _written(number: Number) -> str:
    """A number as it is written in the table, with its error.

    >>> _written(Number("elbo", -0.001)), _written(Number("elpd", 1.5, error=0.25))
    ('0.00', '1.50 ± 0.25')
    """
    if number.text or not isinstance(number.value, float):
        return number.text or str(number.value)
    error = number.entries().get(f"{number.key}_se")
    text = f"{number.value:.2f}" + ("" if error is None else f" ± {error:.2f}")
    return text.removeprefix("-") if text.startswith("-0.00") else text
