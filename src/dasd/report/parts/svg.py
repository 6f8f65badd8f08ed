"""How does a drawing become part of the page? Matplotlib draws in stand-in colours, which turn into the page's CSS variables:
one drawing serves light and dark. Text stays text in the page's own font.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import matplotlib
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from dasd.report.data.rollouts import inert

SMALL = (300, 190)  # in points; a point is about a pixel of the page
WIDE = (400, 245)

_NAMES = ("ink", "muted", "rule", "card", "accent", "before", "attract", "repel", "violet", "rose")
COLORS = {name: f"#f1e2{index:02x}" for index, name in enumerate(_NAMES)}  # stand-ins, one a CSS variable

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "dasd",
    "font.size": 10.5,
    "text.color": COLORS["ink"],
    "axes.labelcolor": COLORS["muted"],
    "axes.edgecolor": COLORS["rule"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.labelsize": 10.5,
    "grid.color": COLORS["rule"],
    "grid.linewidth": 0.7,
    "xtick.color": COLORS["rule"],
    "ytick.color": COLORS["rule"],
    "xtick.labelcolor": COLORS["muted"],
    "ytick.labelcolor": COLORS["muted"],
    "ytick.major.size": 0,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
}


def draw(name: str, label: str, paint: Callable[..., None], size: tuple[int, int] = SMALL, rows: int = 1) -> Markup:
    """An inline SVG of `rows` axes, one below the other, that `paint` fills; `name` starts its ids, `label` is read aloud."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), layout="constrained")
        paint(*figure.subplots(rows, 1, squeeze=False)[:, 0])
        buffer = io.StringIO()
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # savefig would draw twice
    return Markup(_for_page(buffer.getvalue(), name, label))


def _for_page(svg: str, name: str, label: str) -> str:
    """Without prolog, metadata and namespaces, which HTML does not need; ids prefixed; colours and font of the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", svg, flags=re.DOTALL)
    opening, rest = svg.split(">", 1)
    view = re.search(r'viewBox="[^"]*"', opening)
    svg = f'<svg {view[0] if view else ""} role="img" aria-label="{inert(label)}">{rest}'
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)  # matplotlib before 3.9
    svg = re.sub(r" ?font-family: [^;\"]*;?", "", svg)
    for variable, color in COLORS.items():
        svg = svg.replace(color, f"var(--{variable})")
    return re.sub(r"\s*\n\s*", " ", svg).strip()
