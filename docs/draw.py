"""Draw the SVG pictures in docs/images from their text: boxes on a grid, and arrows between them.

python docs/draw.py           draw each docs/images/NAME.txt as NAME.svg
python docs/draw.py --check   change nothing; exit 1 and name the pictures that are out of date
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

IMAGES = Path(__file__).parent / "images"
WIDTH, HEIGHT = 244, 72
GAP_X, GAP_Y = 184, 84
MARGIN = 16
TEXT_WIDTH = 6.6
"""Average width of a letter of a label, in pixels."""
HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" \
font-family="system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif">
<title>{title}</title>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">\
<path d="M0 0 L8 4 L0 8 z" fill="#475569"/></marker></defs>
<rect width="{width}" height="{height}" rx="10" fill="#ffffff"/>
"""


@dataclass(frozen=True, slots=True)
class Box:
    """One box: its position on the grid and its lines, the title first."""

    column: int
    row: int
    lines: tuple[str, ...]

    @property
    def center(self) -> tuple[float, float]:
        """The middle of the box, in pixels."""
        return MARGIN + self.column * (WIDTH + GAP_X) + WIDTH / 2, MARGIN + self.row * (HEIGHT + GAP_Y) + HEIGHT / 2

    def edge_towards(self, other: Box) -> tuple[float, float]:
        """Return the point at which a line to the middle of the other box leaves this box."""
        (x, y), (to_x, to_y) = self.center, other.center
        dx, dy = to_x - x, to_y - y
        scale = min(WIDTH / 2 / abs(dx) if dx else 1.0, HEIGHT / 2 / abs(dy) if dy else 1.0)
        return x + dx * scale, y + dy * scale


def read(text: str) -> tuple[dict[str, Box], list[tuple[str, str, str]]]:
    """Return the boxes by name, and the arrows, of a picture's text. Raises ValueError for any other line."""
    boxes: dict[str, Box] = {}
    arrows: list[tuple[str, str, str]] = []
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "box":
            name, column, row, label = rest.split(maxsplit=3)
            boxes[name] = Box(int(column), int(row), tuple(part.strip() for part in label.split("|")))
        elif kind == "arrow":
            begin, end, label = rest.split(maxsplit=2)
            arrows.append((begin, end, label))
        elif line and not line.startswith("#"):
            message = f"neither a box nor an arrow: {line!r}"
            raise ValueError(message)
    return boxes, arrows


def draw(text: str, *, title: str) -> str:
    """Return the SVG of a picture's text."""
    boxes, arrows = read(text)
    width = 2 * MARGIN + WIDTH + max(box.column for box in boxes.values()) * (WIDTH + GAP_X)
    height = 2 * MARGIN + HEIGHT + max(box.row for box in boxes.values()) * (HEIGHT + GAP_Y)
    lines, labels = [], []
    for begin, end, label in arrows:
        (x1, y1), (x2, y2) = boxes[begin].edge_towards(boxes[end]), boxes[end].edge_towards(boxes[begin])
        style = 'stroke="#475569" stroke-width="1.5" marker-end="url(#head)"'
        lines.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" {style}/>')
        x, y, wide = (x1 + x2) / 2, (y1 + y2) / 2, len(label) * TEXT_WIDTH + 8
        labels.append(
            f'<rect x="{x - wide / 2:.1f}" y="{y - 9:.1f}" width="{wide:.1f}" height="18" fill="#ffffff"/>'
            f'<text x="{x:.1f}" y="{y + 4:.1f}" font-size="12" text-anchor="middle" fill="#334155">{escape(label)}</text>'
        )
    parts = [*lines, *labels, *(part for box in boxes.values() for part in _box_parts(box))]
    return HEAD.format(width=width, height=height, title=escape(title)) + "\n".join(parts) + "\n</svg>\n"


def _box_parts(box: Box) -> Iterator[str]:
    x, y = box.center
    yield (
        f'<rect x="{x - WIDTH / 2:.1f}" y="{y - HEIGHT / 2:.1f}" width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#eff6ff" stroke="#1d4ed8"/>'
    )
    top = y - 10 * (len(box.lines) - 1) + 5
    for number, line in enumerate(box.lines):
        style = 'font-size="15" font-weight="600" fill="#0f172a"' if number == 0 else 'font-size="12" fill="#334155"'
        yield f'<text x="{x:.1f}" y="{top + 20 * number:.1f}" {style} text-anchor="middle">{escape(line)}</text>'


def main(arguments: Sequence[str]) -> int:
    """Draw the pictures, or check them; return the exit code."""
    stale = False
    for source in sorted(IMAGES.glob("*.txt")):
        picture, svg = source.with_suffix(".svg"), draw(source.read_text(), title=source.stem.capitalize())
        if not picture.exists() or picture.read_text() != svg:
            stale = True
            sys.stderr.write(f"{picture.name}: {'out of date; run `make docs`' if '--check' in arguments else 'drawn'}\n")
            if "--check" not in arguments:
                picture.write_text(svg)
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
