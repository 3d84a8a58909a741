"""Pages as files that need no network: templates with their style and plotly.js inside."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, cast

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from raysearch.report.places import choice_text, value_text
from raysearch.report.tables import count_text, duration_text
from raysearch.store.names import REPLACEMENT


@cache
def _templates() -> Environment:
    """Everything that a template prints is escaped, pictures excepted; a name that it was not given is an error."""
    environment = Environment(
        loader=PackageLoader("raysearch.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    cast(dict[str, Any], environment.filters).update(
        choice=choice_text,
        count=count_text,
        duration=duration_text,
        number=lambda value: f"{value:,}",
        per_cent=lambda share: f"{share:.0%}",
        sentence=sentence,
        value=value_text,
    )
    return environment


def sentence(line: str) -> str:
    """A line of the console as a sentence of a page."""
    return line[0].upper() + line[1:] + "."


def render(template: str, **values: object) -> str:
    """The page that a file of ``templates`` makes of these values.

    What of a name is no text (Python holds it as a lone surrogate) becomes U+FFFD: UTF-8 has no place for it.
    """
    page = _templates().get_template(template).render(plotly_js=Markup(get_plotlyjs()), **values)
    return re.sub("[\ud800-\udfff]", REPLACEMENT, page)


def picture(figure: go.Figure, *, name: str) -> Markup:
    """A figure as a part of a page; ``name`` is its id there. Its labels are escaped where they are made: plotly reads tags."""
    return Markup(
        figure.to_html(
            full_html=False, include_plotlyjs=False, div_id=name, config={"displayModeBar": False, "responsive": True}
        )
    )
