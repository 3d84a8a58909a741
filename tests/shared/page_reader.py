"""What a written page holds, as a browser would find it."""

import json
import re
from html.parser import HTMLParser


class Page(HTMLParser):
    """Text, element ids, table rows and everything that a browser would fetch."""

    VOID = ("meta", "link", "img", "br", "hr", "input")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open, self.ids, self.fetched, self.text, self.rows = [], set(), [], [], []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.ids.add(values.get("id"))
        url = values.get("src") or (tag == "link" and values.get("href"))
        if url and not url.startswith("data:"):  # a picture that the page holds itself
            self.fetched.append(url)
        if tag == "tr":
            self.rows.append([])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open:
            self.rows[-1].append(data)
        if not {"script", "style"} & set(self.open):
            self.text.append(data)


def figures(html: str) -> dict[str, dict[str, dict]]:
    """Traces of each picture by name, as plotly.js gets them."""
    calls = re.finditer(r'Plotly\.newPlot\(\s*"(\w+)",\s*(\[)', html)
    decoder = json.JSONDecoder()
    return {call[1]: {t.get("name", ""): t for t in decoder.raw_decode(html, call.start(2))[0]} for call in calls}
