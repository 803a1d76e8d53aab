"""Pages of HTML and LaTeX, read as strictly as a program that shows them may."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_EMPTY = {"meta", "br", "img", "link"}


class Page(HTMLParser):
    """A page of HTML: the names and attributes of its elements, the open ones, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: set[tuple[str, str]] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes |= {(name, value or "") for name, value in attrs}
        self.open += [] if tag in _EMPTY else [tag]

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.text += data


def commands(latex: str) -> set[str]:
    """The commands of a page of LaTeX, whose braces, rows and signs are in order.

    Raises:
        AssertionError: a brace is open, a sign would be a command, or a row has another number of cells.
    """
    columns = 0
    for line in latex.splitlines():
        code = re.sub(r"(?<!\\)((?:\\\\)*)%.*", r"\1", line)
        bare = re.sub(r"\\[^a-zA-Z]|(?<=\{)[\[\]*](?=\})", " ", code)
        assert not re.search(r"[#~`^<>|\"\[\]]", bare.replace("$^{", "$ {")), line
        assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0, line
        if found := re.match(r"\\begin\{tabular\}\{(\w+)\}", code):
            columns = len(found[1])
        elif code.rstrip().endswith(r"\\"):
            assert bare.count("&") == columns - 1, line
            assert not re.match(r"\s*[*\[]", code), line
        else:
            assert "&" not in bare, line
    return set(re.findall(r"\\([a-zA-Z]+)", re.sub(r"\\[^a-zA-Z]", " ", latex)))
