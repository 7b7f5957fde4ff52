"""Charts as pictures, pages and text: what is drawn, and that data stays data."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from thalweg.errors import ConfigError
from thalweg.report.chart import Chart, Line, Mark, chart_text, write_charts

RISE = Line(name="rise", x=[0, 1, 2, 3], y=[0.0, 1.0, 2.0, 3.0])


def chart(*lines: Line, title: str = "A title", marks: tuple[Mark, ...] = (), log_y: bool = False) -> Chart:
    return Chart(title=title, x_label="tokens", y_label="loss", lines=lines or (RISE,), marks=marks, log_y=log_y)


def test_a_terminal_chart_is_plain_text_of_the_asked_width() -> None:
    text = chart_text(chart(RISE), width=60, height=15)
    assert "\x1b" not in text
    assert "A title" in text
    assert "rise" in text
    assert len(text.splitlines()) == 15
    assert max(map(len, text.splitlines())) <= 60


def test_a_terminal_chart_leaves_out_what_cannot_be_drawn() -> None:
    line = Line(name="broken", x=[0, 1, 2, 3], y=[math.nan, -1.0, 1.0, math.inf])
    text = chart_text(chart(RISE, line, log_y=True))
    assert "broken" in text
    # Nothing drawable at all is an empty chart, no error.
    assert "A title" in chart_text(chart(Line(name="none", x=[0.0], y=[math.nan])))


@pytest.mark.parametrize("ending", [".png", ".svg", ".html"])
def test_charts_are_written_by_the_ending(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"chart{ending}"
    hostile = "<script>alert(1)</script> $x^2$"
    write_charts(
        [chart(RISE, Line(name=hostile, x=[0, 1], y=[1, 0]), title=hostile, marks=(Mark(position=1, text=hostile),))]
        * 2,
        path,
    )
    content = path.read_bytes()
    if ending == ".png":
        assert content.startswith(b"\x89PNG")
        return
    assert b"<script>alert(1)" not in content
    if ending == ".html":
        assert len(re.findall(rb'class="plotly-graph-div"', content)) == 2
        assert not re.findall(rb'<script[^>]+src="http', content), "a page holds all that it needs"


def test_a_picture_shows_the_line(tmp_path: Path) -> None:
    from matplotlib.colors import to_rgb
    from matplotlib.image import imread

    path = tmp_path / "chart.png"
    write_charts([chart(Line(name="", x=[0, 1], y=[0, 1], colour="#ff0000"))], path)
    pixels = imread(path)[..., :3].reshape(-1, 3)
    assert (abs(pixels - to_rgb("#ff0000")).max(axis=1) < 0.02).sum() > 100


@pytest.mark.parametrize("name", ["chart.pdf", "chart", "nowhere/chart.png"])
def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"chart"):
        write_charts([chart()], tmp_path / name)
