"""What all pages share: one file with its style and plotly.js inside, and sections with a picture."""

from __future__ import annotations

import html
from collections.abc import Iterable

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

STYLE = """
:root { color: #1f2933; background: #fff; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }
body { max-width: 1040px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0; font-weight: 650; }
h2 { font-size: 1.15rem; margin: 48px 0 12px; font-weight: 650; }
p { margin: 8px 0; max-width: 46em; }
.quiet, th, figcaption { color: #616e7c; }
.facts { display: flex; flex-wrap: wrap; gap: 12px 56px; margin: 28px 0 20px; }
.facts b { display: block; font-size: 2rem; line-height: 1.2; font-weight: 600; font-variant-numeric: tabular-nums; }
.facts div:first-child b { color: #c2410c; }
.scroll { overflow-x: auto; }
figure .scroll + .scroll { margin-top: 18px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 28px 7px 0; text-align: right; border-bottom: 1px solid #e4e7eb; white-space: nowrap; }
th { font-weight: 500; font-size: .9rem; }
th:first-child, td:first-child { text-align: left; }
.closing tbody tr:first-child { font-weight: 650; }
.net tr:first-child td { color: #616e7c; font-size: .9rem; }
.net td { padding: 5px 14px 5px 0; }
figure { margin: 0; }
figcaption { max-width: 46em; font-size: .95rem; margin-top: 10px; }
.heat td, .heat th { padding: 5px 8px; border: 0; text-align: center; min-width: 2.4em; }
.heat td { border-radius: 3px; }
.heat { border-collapse: separate; border-spacing: 2px; }
.heat td:first-child, .heat th:first-child { padding-left: 0; padding-right: 16px; min-width: 9em; text-align: left; }
.heat tbody + tbody::before, .shares tbody + tbody::before { content: ""; display: block; height: 10px; }
.shares td, .shares th { border: 0; padding: 3px 16px 3px 0; }
.shares td:first-child { min-width: 9em; }
.shares .track { position: relative; width: 200px; height: 14px; background: #f0f3f6; border-radius: 3px; }
.shares .track b { position: absolute; inset: 0 auto 0 0; background: #5b8fc7; border-radius: 3px; }
.shares .track i { position: absolute; top: -3px; bottom: -3px; width: 2px; background: #1f2933; }
.state { display: inline-block; color: #c2410c; border: 1px solid; border-radius: 1em; font-size: .85rem; padding: 1px 10px; }
.groups { margin-top: 24px; }
.groups td { vertical-align: top; line-height: 1.35; }
.groups th { vertical-align: bottom; white-space: normal; min-width: 4.5em; max-width: 15em; }
.groups i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 8px; }
.bar { display: flex; height: 14px; border-radius: 3px; overflow: hidden; margin: 12px 0; gap: 2px; }
.key { display: flex; flex-wrap: wrap; gap: 4px 28px; font-variant-numeric: tabular-nums; }
.key i { display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 7px; }
pre { background: #f5f7fa; padding: 14px 16px; border-radius: 4px; white-space: pre-wrap; overflow-wrap: anywhere;
  font-size: .88rem; }
@media (max-width: 560px) {
  body { padding: 24px 16px 48px; }
  h1 { font-size: 1.4rem; }
  h2 { margin-top: 36px; }
  .facts { gap: 12px 32px; }
  .facts b { font-size: 1.5rem; }
  th, td { padding-right: 16px; }
  .shares .track { width: 110px; }
  .heat td, .heat th { padding: 5px 3px; min-width: 2.1em; }
  .heat td:first-child, .heat th:first-child, .shares td:first-child { min-width: 7em; }
  .groups td:first-child { white-space: normal; }
  figure { margin: 0 -10px; }
  figcaption, figure .scroll { margin-left: 10px; margin-right: 10px; }
}
@media print { body { padding: 0; } h2, figure { break-inside: avoid; } }
"""


def document(title: str, sections: Iterable[str]) -> str:
    """The whole page. Empty sections are left out."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{STYLE}</style>\n'
        f"<script>{get_plotlyjs()}</script>\n</head>\n<body>\n" + "\n".join(filter(None, sections)) + "\n</body>\n</html>\n"
    )


def section(title: str, figure: go.Figure, sentence: str, *, name: str) -> str:
    """A heading, a picture and a sentence below it; ``name`` is the picture's id in the page."""
    picture = figure.to_html(
        full_html=False, include_plotlyjs=False, div_id=name, config={"displayModeBar": False, "responsive": True}
    )
    return f"<h2>{title}</h2>\n<figure>{picture}<figcaption>{sentence}</figcaption></figure>"
