"""A diagnosis as one page of HTML, which needs nothing beside itself."""

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.plotting import counted
from ..diagnostics.finding import Finding, Level

if TYPE_CHECKING:
    from ..diagnostics.diagnosis import Diagnosis


TITLES = {
    "evidence": ("Can importance weights be trusted?", ("evidence",)),
    "annealing": ("Does annealing find what the guide misses?", ("annealing",)),
    "gap": ("Where is the bound loose?", ("gap",)),
    "information": ("What do the latent variables say?", ("information",)),
    "calibration": ("Are posteriors right on data of the model's own?", ("calibration", "bias")),
    "coverage": ("Do credible regions hold what they say?", ("calibration",)),
    "nuts": ("Is the guide's posterior that of NUTS?", ("nuts",)),
    "checks": (
        "Could the model have made these data?",
        ("posterior predictive", "prior predictive"),
    ),
    "loo": ("How well is each datum predicted by the others?", ("leaving one out",)),
}
"""Of each figure, what it asks, and the topics of the findings that go with it."""


CAPTIONS = {
    "evidence": (
        "Pareto k̂ of each datum's importance weights. Good: all below the dashed threshold. Above "
        "it the guide is too narrow for that datum, and its log p(x) likely too low; above 1, more "
        "draws do not help."
    ),
    "annealing": (
        "Left: log p(x) by importance sampling and the ELBO, less what annealing gives. Good: "
        "importance sampling within the grey bars; below them, the guide misses some of the "
        "posterior; above them, annealing was too short. Right: its two bounds on simulated data, "
        "which are far apart where it was too short."
    ),
    "gap": (
        "How far the ELBO of each datum is below log p(x). Good: hardly at all. Where it is the "
        "encoder's part that is large, a longer fit or a wider encoder would help; where it is the "
        "family's, a richer posterior. A part below zero is noise, or a fit to that datum that was "
        "not done."
    ),
    "information": (
        "Left: what each latent dimension says of x, linear up to the dashed line and logarithmic "
        "above. Good: all above it; those below are idle, and if all are, the posterior has "
        "collapsed. Right: what all say together, I(x; z), and how far the aggregated posterior is "
        "from the prior. Where the blue bar comes near log N, the data are too few to say more "
        "than that I(x; z) is at least as large, and the rest at most."
    ),
    "calibration": (
        "Ranks of the true z among the guide's draws, for simulated data. Good: all lines in the "
        "band. A line that lies to one side of zero is biased (above it: the guide is too high); "
        "one that is above on the left and below on the right comes from posteriors that are too "
        "narrow, the reverse from too wide ones. What is back in the band on the right is mended "
        "by importance weights."
    ),
    "coverage": (
        "How often credible regions of each level hold the true z, for simulated data. Good: along "
        "the diagonal. Below it, regions are too narrow and the guide too sure of itself; above "
        "it, they are too wide. On the right, after importance weights."
    ),
    "nuts": (
        "Left: the guide's marginals on those of NUTS, where they differ most, in unconstrained "
        "coordinates (the logarithm of what is positive). Right: all "
        "coordinates; good is the dashed box, or near it. Lower down the guide is too narrow, "
        "higher up too wide, to either side it is shifted. Where NUTS has not converged, nothing "
        "can be said."
    ),
    "checks": (
        "A quantity of the data (line) among those of data sets drawn anew. Good: inside both "
        "histograms. Outside the filled one, the model cannot make such data even when told what "
        "to imitate; outside the outlined one only, its prior is not where the data are. Each "
        "histogram is scaled to its own peak."
    ),
    "loo": (
        "Left: Pareto k̂ of leaving each datum out. Good: all below the dashed threshold; above it, "
        "the estimate on the right cannot be trusted. Right: log predictive density of each; those "
        "far below the others are predicted badly by them."
    ),
}
"""How to read each figure."""


NUMBERS = (
    ("log_evidence", "log p(x), importance sampling", "nats per datum"),
    ("elbo", "ELBO", "nats per datum"),
    ("annealed_evidence", "log p(x), annealing, of the first data", "nats per datum"),
    ("sandwich_gap", "annealing's two bounds on simulated data, apart", "nats per datum"),
    ("khat_bad_fraction", "Pareto k̂ beyond its threshold", "of the data"),
    ("inference_gap", "log p(x) − ELBO, of the first data", "nats per datum"),
    ("approximation_gap", "  of it, the family's", "nats per datum"),
    ("amortization_gap", "  of it, the encoder's", "nats per datum"),
    ("kl", "KL(q(z|x) ‖ p(z))", "nats per datum"),
    ("mutual_information", "I(x; z)", "nats"),
    ("marginal_kl", "KL(q(z) ‖ p(z)) of the aggregated posterior", "nats"),
    ("active_units", "latent dimensions in use", ""),
    ("miscalibrated", "quantities out of their band", ""),
    ("weighted_miscalibrated", "the same, re-weighted", ""),
    ("biased", "coordinates whose medians lean", ""),
    ("nuts_sd_ratio", "sd of the guide / sd by NUTS, median", ""),
    ("nuts_rhat", "R̂ of NUTS, largest", ""),
    ("elpd_loo", "expected log predictive density, all data", "nats"),
)
"""The rows of the table: key in the numbers, what it is, and its unit."""


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


def page(found: "Diagnosis", figures: Mapping[str, Path]) -> str:
    """The report: the verdict, the findings, the main numbers, and the figures.

    Args:
        figures: PNG files by the names in ``found.figures``; they become part of the page.
    """
    head, level = found.verdict.split("\n")[0], worst(found.findings)
    about = f"latente {metadata.version('latente')}"
    count = _num_data(found)
    if count:
        about = f"{counted(count, 'datum', 'data')} · {about}"
    question = "Can this posterior be trusted?"
    pictures = "".join(_picture(name, path, found.findings) for name, path in figures.items())
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
{_findings(found.findings, figures)}
</section>
{_table(found.numbers, found)}
{pictures}
</main>
</body>
</html>
"""


def worst(findings: Sequence[Finding]) -> Level:
    """The level of the verdict: the worst of those that say something.

    >>> worst([Finding("nuts", Level.NOTE, "Not looked at.")]).name
    'NOTE'
    """
    told = [finding.level for finding in findings if finding.level != Level.NOTE]
    return max(told, default=Level.NOTE)


def _num_data(found: "Diagnosis") -> int | None:
    if found.evidence is not None:
        return len(found.evidence.log_px)
    if found.loo is not None:
        return found.loo.n_data_points
    return None if found.information is None else found.information.num_data


def _text(text: str) -> str:
    """A sentence in print: escaped, and with minus signs.

    >>> _text("-1.5 < x-1")
    '−1.5 &lt; x-1'
    """
    return escape(re.sub(r"(?<![\w)\]-])-(?=\d)", "−", text))


def _badge(level: Level) -> str:
    name = level.name.lower()
    return f'<span class="badge {name}">{name}</span>'


def _findings(findings: Sequence[Finding], figures: Mapping[str, Path]) -> str:
    """All findings, the worst first, each with a link to its figure."""
    items = []
    for finding in sorted(findings, key=lambda finding: -finding.level):
        topic = _text(finding.topic)
        topic = topic[:1].upper() + topic[1:]
        shown = [name for name in figures if finding.topic in TITLES[name][1]]
        if shown:
            topic = f'<a href="#{shown[0]}">{topic}</a>'
        text = f"<p><strong>{topic}.</strong> {_text(finding.sentence)}</p>"
        items.append(f"<li>{_badge(finding.level)}{text}</li>")
    return f'<ul class="findings">\n{chr(10).join(items)}\n</ul>'


def _table(numbers: Mapping[str, Any], found: "Diagnosis") -> str:
    """The main numbers that are known."""
    rows = []
    for key, label, unit in NUMBERS:
        value = numbers.get(key)
        if value is None:
            continue
        part = ' class="part"' if label.startswith("  ") else ""
        rows.append(
            f'<tr><th scope="row"{part}>{_text(label.strip())}</th>'
            f'<td class="number">{_text(_number(key, value, numbers, found))}</td>'
            f'<td class="unit">{_text(unit)}</td></tr>'
        )
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


def _number(key: str, value: Any, numbers: Mapping[str, Any], found: "Diagnosis") -> str:
    """A number as it is written in the table, with its error, or out of how many it is."""
    if key == "khat_bad_fraction":
        return f"{value:.1%}"
    if key == "active_units" and found.information is not None:
        return f"{value} of {found.information.latent_dim}"
    if not isinstance(value, float):
        count = len(value) if isinstance(value, Mapping) else value
        total = len(found.calibration.names) if found.calibration is not None else None
        if total and key == "biased":
            total -= 2  # the two densities have no median
        return f"{count} of {total}" if total else f"{count}"
    error = numbers.get(f"{key}_se")
    text = f"{value:.2f}" + ("" if error is None else f" ± {error:.2f}")
    return text.removeprefix("-") if text.startswith("-0.00") else text


def _picture(name: str, path: Path, findings: Sequence[Finding]) -> str:
    """A figure with its caption; what it says, for those who cannot see it, is what was found."""
    title, topics = TITLES[name]
    said = [finding.sentence for finding in findings if finding.topic in topics]
    alternative = _text(" ".join([title, *said]))
    image = base64.b64encode(path.read_bytes()).decode()
    return f"""<section class="picture" id="{name}">
<h3>{_text(title)}</h3>
<figure>
<img src="data:image/png;base64,{image}" alt="{alternative}">
<figcaption>{_text(CAPTIONS[name])}</figcaption>
</figure>
</section>
"""
