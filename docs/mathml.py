"""MkDocs hook: equations become MathML when the site is built, so that pages load no script."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_EQUATION = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **kwargs: Any) -> str:
    """The page with its equations converted."""

    def mathml(match: re.Match[str]) -> str:
        block = match[2] == "["
        return convert(html.unescape(match[3]).strip(), display="block" if block else "inline")

    return _EQUATION.sub(mathml, content)
