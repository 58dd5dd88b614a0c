"""The frame of a report: one HTML file without scripts, and without anything to load from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from servegen_gpu.provenance import VERSION
from servegen_gpu.reporting.parts import escaped

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may load: nothing. Should text ever slip through unescaped, it does not run."""

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --soft: #595959; --line: #d0d0d0; --paper: #ffffff; --tint: #f4f4f2;
  --link: #00538f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #ececec; --soft: #b0b0b0; --line: #4a4a4a; --paper: #191919; --tint: #242424; --link: #7cc0f5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem 1rem 3rem; max-width: 78rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .6rem 0 .2rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; padding-top: .5rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .4rem; }
p, ul { max-width: 48rem; margin: .5rem 0; }
a { color: var(--link); }
.lead, figcaption, footer, caption { color: var(--soft); }
nav { margin: 1rem 0; padding: .6rem .9rem; background: var(--tint); }
nav a { display: inline-block; margin: .15rem 1rem .15rem 0; }
.pictures { columns: 26rem; column-gap: 1.6rem; }
.pictures > * { break-inside: avoid; }
figure { margin: 0 0 1.5rem; }
figure img { display: block; width: 100%; max-width: 36rem; height: auto; background: #ffffff; }
figcaption { font-size: .9rem; margin-top: .3rem; max-width: 36rem; }
.wide { overflow-x: auto; margin: .8rem 0; }
.wide:focus-visible { outline: 2px solid var(--link); }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { padding: .25rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap;
  overflow-wrap: normal; vertical-align: top; }
th { font-weight: 600; background: var(--tint); }
th.left, td.left { text-align: left; }
td.text { white-space: normal; overflow-wrap: anywhere; min-width: 12rem; }
tr.group td { font-weight: 600; background: var(--tint); text-align: left; white-space: normal; }
td.bad { font-weight: 700; }
td.bad::before { content: "\\25B2\\00A0"; color: #d55e00; }
td.fair::before { content: "\\25CF\\00A0"; color: #e69f00; }
td.good::before { content: "\\25CB\\00A0"; color: #0072b2; }
pre { overflow-x: auto; padding: .7rem .9rem; background: var(--tint); font-size: .85rem; white-space: pre-wrap; }
footer { margin-top: 2.5rem; font-size: .88rem; }
@media (max-width: 40rem) {
  table { font-size: .85rem; } th, td { padding: .25rem .4rem; }
  td.left, th.left { white-space: normal; min-width: 5rem; } td.text { min-width: 10rem; }
  td.left:first-child, th.left:first-child { position: sticky; left: 0; }
  td.left:first-child { background: var(--paper); } }
@media print { nav { display: none; } tr { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes
    ----------
    title : str
        Plain text; it is escaped.
    html : str
        What `servegen_gpu.reporting.parts` makes: text is escaped already.
    """

    title: str
    html: str


def page(title: str, sections: Sequence[Section], lead: str = "") -> str:
    """The whole page.

    Parameters
    ----------
    title, lead : str
        Plain text, escaped here: the heading, and a line below it.
    sections : sequence of Section
        In order; with three and more, links to them come first.
    """
    names = _anchors(sections)
    links = "".join(f'<a href="#{name}">{escaped(part.title)}</a>' for name, part in zip(names, sections, strict=True))
    body = "\n".join(
        f'<section aria-labelledby="{name}">\n<h2 id="{name}">{escaped(part.title)}</h2>\n{part.html}\n</section>'
        for name, part in zip(names, sections, strict=True)
    )
    contents = f'<nav aria-label="Contents">{links}</nav>\n' if len(sections) > 2 else ""
    said = f'<p class="lead">{escaped(lead)}</p>\n' if lead else ""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{escaped(title)}</h1>\n{said}</header>\n{contents}<main>\n{body}\n</main>\n"
        f"<footer>servegen_gpu {escaped(VERSION)}</footer>\n</body>\n</html>\n"
    )


def _anchors(sections: Sequence[Section]) -> list[str]:
    """A name of its own for each section."""
    return [f"{at}-{re.sub('[^a-z0-9]+', '-', part.title.lower()).strip('-')}" for at, part in enumerate(sections, 1)]
