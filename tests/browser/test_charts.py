"""The chart of a lineage, in a real browser: what is drawn is what the store holds."""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.track.store import Store

Serve = Callable[..., str]

DRAWN = "() => document.querySelector('.chart-count')?.textContent.length > 0"
TRACES = """() => document.querySelector('.chart-plot').data.map(({x, y, uid, opacity, yaxis, line, marker, text}) => ({
  x: Array.from(x), y: Array.from(y), uid, opacity, yaxis, text,
  width: line?.width, colour: line?.color, symbols: marker?.symbol,
}))"""
LAYOUT = "() => JSON.parse(JSON.stringify(document.querySelector('.chart-plot').layout))"


@pytest.fixture(scope="module")
def family_url(serve: Serve, family: Path) -> str:
    return serve(family)


@pytest.fixture(scope="module")
def million_url(serve: Serve, million: Path) -> str:
    return serve(million)


def open_chart(page: Any, address: str) -> None:
    page.goto(address)
    page.wait_for_function(DRAWN)


def traces(page: Any, kind: str, axis: str = "y") -> list[dict[str, Any]]:
    """The traces of one kind ("raw", "over", "bad", "forks") in one panel, ancestors' first."""
    return [trace for trace in page.evaluate(TRACES) if trace["uid"].endswith(kind) and trace["yaxis"] == axis]


def call(page: Any, module: str, function: str, *arguments: Any) -> Any:
    """A function of one of the page's modules; arguments and result travel as JSON."""
    script = """async ([module, name, given]) => {
      const result = (await import(`/static/${module}.js`))[name](...given);
      return ArrayBuffer.isView(result) ? Array.from(result) : result;
    }"""
    return page.evaluate(script, [module, function, list(arguments)])


@pytest.fixture(scope="module")
def quiet_page(browser: Any, family_url: str) -> Any:
    """A page without a chart, for calling functions of the modules."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{family_url}/compare")
    page.wait_for_selector(".empty")
    yield page
    context.close()


def test_a_lineage_is_one_chart_with_the_ancestors_part_dimmed(page: Any, family_url: str) -> None:
    open_chart(page, f"{family_url}/r/demo-1")
    inherited, own = traces(page, "raw")
    # The root logs every 5 steps; the fork's own first point is 405, which the ancestors' line reaches to.
    assert inherited["x"] == [float(step) for step in range(0, 406, 5)]
    assert own["x"] == [float(step) for step in range(405, 1001, 5)]
    assert inherited["y"][0] == pytest.approx(9.0)
    assert own["y"][-1] == pytest.approx(0.5 + 8 / 21)
    assert inherited["opacity"] < own["opacity"] == 1
    assert inherited["colour"] == own["colour"]
    (fork,) = traces(page, "forks")
    assert fork["x"] == [400.0]
    assert fork["text"] == ["demo-1 forks demo-0"]
    titles = [note["text"] for note in page.evaluate(LAYOUT)["annotations"]]
    assert titles == ["loss", "lr", "grad_norm"]
    assert "201 of 201 points shown" in page.inner_text(".chart-count")


@pytest.mark.slow
def test_hiding_inherited_parts_and_the_url_keep_the_view(page: Any, family_url: str) -> None:
    open_chart(page, f"{family_url}/r/demo-1")
    page.get_by_label("inherited parts").uncheck()
    page.wait_for_function("() => document.querySelector('.chart-count').textContent.includes('120 of 120')")
    assert len(traces(page, "raw")) == 1
    page.get_by_label("log y").check()
    page.get_by_label("Horizontal axis").select_option("own")
    page.get_by_label("Smoothing").fill("50")
    page.wait_for_url("**/r/demo-1?*smooth=50*")
    address = page.url
    for part in ("inherited=0", "logy=1", "x=own", "smooth=50"):
        assert part in address
    page.wait_for_function("() => document.querySelector('.chart-plot').data[0].x[0] === 5")
    before = page.evaluate(TRACES)
    open_chart(page, address)
    assert page.evaluate(TRACES) == before
    assert page.get_by_label("log y").is_checked()
    assert page.evaluate(LAYOUT)["yaxis"]["type"] == "log"
    # Smoothed or not, the raw line is there, thinner and under the other.
    (raw,), (over,) = traces(page, "raw"), traces(page, "over")
    assert raw["y"] == pytest.approx([0.5 + 8 / (1 + step / 50) for step in range(405, 1001, 5)])
    assert raw["width"] < over["width"]


@pytest.mark.slow
def test_time_as_the_axis(page: Any, family_url: str) -> None:
    open_chart(page, f"{family_url}/r/demo-0?x=time&metric=loss")
    (raw,) = traces(page, "raw")
    # The fixture's points are a second apart; the page's clock is set to UTC.
    assert raw["x"] == [1_770_000_000_000.0 + 1000 * index for index in range(201)]
    page.get_by_label("Horizontal axis").select_option("elapsed")
    page.wait_for_function("() => document.querySelector('.chart-plot').layout.xaxis.type === 'linear'")
    page.wait_for_function("() => document.querySelector('.chart-plot').data[0].x[0] === 0")
    assert traces(page, "raw")[0]["x"][-1] == pytest.approx(200 / 60)
    assert page.evaluate(LAYOUT)["xaxis"]["title"]["text"] == "minutes since the start"


@pytest.mark.slow
def test_values_that_are_not_finite_are_marked_and_counted(page: Any, family_url: str) -> None:
    open_chart(page, f"{family_url}/r/demo-4")
    (raw,) = traces(page, "raw")
    assert raw["y"] == [5, 4, None, None, None, 3]
    bad = next(trace for trace in page.evaluate(TRACES) if trace["uid"].endswith("bad"))
    assert bad["x"] == [2, 3, 4]
    assert bad["symbols"] == ["x", "triangle-up", "triangle-down"]
    assert bad["text"] == ["NaN", "\u221e", "\u2212\u221e"]
    assert "3 not finite" in page.evaluate(LAYOUT)["annotations"][0]["text"]
    assert "6 of 6 points" in page.inner_text(".chart-count")


@pytest.mark.slow
def test_plotly_shows_names_as_text(page: Any, family_url: str) -> None:
    open_chart(page, f"{family_url}/r/demo-0")
    hostile = [
        "<b>bold</b>",
        '<a href="https://example.org">link</a>',
        '<img src=x onerror="window.pwned=1">',
        "%{y} {x} &lt;",
        "a\nb\x01",
    ]
    script = """async (texts) => {
      const { plotlyText } = await import('/static/dom.js');
      const shown = [];
      for (const text of texts) {
        const node = document.createElement('div');
        document.body.append(node);
        const annotations = [{text: plotlyText(text), x: 1, y: 1}];
        await Plotly.newPlot(node, [{x: [1], y: [1]}], {annotations, title: {text: plotlyText(text)}});
        const note = node.querySelector('.annotation-text');
        const markup = node.querySelectorAll('.annotation-text a, .gtitle a, img, .annotation-text tspan[style*=bold]');
        shown.push([note.textContent, markup.length]);
        node.remove();
      }
      return [shown, window.pwned ?? null];
    }"""
    shown, pwned = page.evaluate(script, hostile)
    assert shown == [[text.replace("\n", " ").replace("\x01", " "), 0] for text in hostile]
    assert pwned is None


@pytest.mark.slow
def test_a_spike_among_a_million_points_is_seen(page: Any, million_url: str) -> None:
    image = pytest.importorskip("PIL.Image")
    open_chart(page, f"{million_url}/r/big-1?metric=loss")
    assert max(value for trace in traces(page, "raw") for value in trace["y"] if value is not None) == 40
    area = page.locator(".chart-plot .nsewdrag").first.bounding_box()
    shot = np.asarray(image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    # Between the heights 20 and 35 there is nothing but the spike: in which columns is there colour, not grey?
    top, bottom = (round(area["y"] + area["height"] * share) for share in (0.25, 0.45))
    part = shot[top:bottom, round(area["x"]) : round(area["x"] + area["width"])]
    columns = np.flatnonzero((np.ptp(part, axis=2) > 30).all(axis=0))
    assert 1 <= len(columns) <= 4
    # The axis has 0.8 % of air at both ends.
    assert columns.mean() / area["width"] == pytest.approx((0.700001 + 0.008) / 1.016, abs=0.003)


@pytest.mark.slow
def test_zooming_reads_the_exact_points(page: Any, million_url: str, million: Path) -> None:
    open_chart(page, f"{million_url}/r/big-1?metric=loss")
    text = page.inner_text(".chart-count")
    assert "1,000,000 points" in text
    assert "buckets" in text
    page.evaluate("history.replaceState(null, '', '?metric=loss&from=699990.5&to=700010.5')")
    page.goto(page.url)
    page.wait_for_function("() => document.querySelector('.chart-count')?.textContent.includes('20 of 1,000,000')")
    with Store.open(million, read_only=True) as store:
        truth = store.series("big-1", "loss", first=699_990 * 10**6, last=700_011 * 10**6)
    drawn = {x: y for trace in traces(page, "raw") for x, y in zip(trace["x"], trace["y"], strict=True)}
    inside = {
        p // 10**6: v for p, v in zip(truth.positions, truth.values, strict=True) if 699_991 <= p // 10**6 <= 700_010
    }
    assert {x: y for x, y in drawn.items() if 699_990.5 <= x <= 700_010.5} == inside
    assert drawn[700_001] == 40


@pytest.mark.slow
def test_box_wheel_and_double_click(page: Any, million_url: str) -> None:
    open_chart(page, f"{million_url}/r/big-1?metric=loss")
    area = page.locator(".chart-plot .nsewdrag").first.bounding_box()
    x, y = area["x"] + area["width"] * 0.5, area["y"] + area["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y, steps=4)
    page.mouse.up()
    page.wait_for_url("**from=*")
    page.wait_for_function("() => document.querySelector('.chart-count').textContent.includes('this range')")
    first, last = page.evaluate(LAYOUT)["xaxis"]["range"]
    # 60 pixels of the axis, which spans a million steps and its air.
    assert last - first == pytest.approx(60 / area["width"] * 1_016_000, rel=0.05)
    page.keyboard.down("Control")
    for _ in range(4):
        page.mouse.wheel(0, -200)
    page.keyboard.up("Control")
    page.wait_for_function(f"() => document.querySelector('.chart-plot').layout.xaxis.range[1] < {last}")
    page.mouse.dblclick(x, y)
    page.wait_for_function("() => document.querySelector('.chart-plot').layout.xaxis.range[0] < 0")
    page.wait_for_function("() => !location.search.includes('from=')")


@pytest.mark.slow
def test_runs_side_by_side(page: Any, family_url: str) -> None:
    open_chart(page, f"{family_url}/compare?runs=demo-0,demo-1,demo-2")
    assert len({trace["colour"] for trace in traces(page, "raw")}) == 3
    legend = page.locator(".legend-item")
    assert legend.count() == 3
    assert legend.nth(2).inner_text() == "<b>bold</b> & {fine} (demo-2)"
    before = {trace["uid"]: trace["colour"] for trace in traces(page, "raw")}
    page.get_by_label("Show demo-0").uncheck()
    page.wait_for_function("() => document.querySelectorAll('.legend-item.off').length === 1")
    colours = "document.querySelector('.chart-plot').data.map(({line}) => line?.color).filter(Boolean)"
    page.wait_for_function(f"() => new Set({colours}).size === 2")
    for trace in traces(page, "raw"):
        assert before[trace["uid"]] == trace["colour"]
    page.wait_for_url("**off=demo-0*")
    cells = page.locator("td.changed").all_inner_texts()
    assert cells == ["0.001", "64"]


# Parts of the modules, against numbers worked by hand.


@pytest.mark.slow
def test_ema_by_hand(quiet_page: Any) -> None:
    # Points one width apart: each weighs 1/e of the next.
    e = math.exp(-1)
    got = call(quiet_page, "smoothing", "ema", [0, 1, 2], [1, 3, 5], 1)
    assert got == pytest.approx([1, (e + 3) / (e + 1), (e * e + 3 * e + 5) / (e * e + e + 1)])
    got = call(quiet_page, "smoothing", "ema", [0, 1, 2], [1, None, 5], 1)
    assert got[0] == 1
    assert math.isnan(got[1])
    assert got[2] == pytest.approx((e * e + 5) / (e * e + 1))


@pytest.mark.slow
def test_the_window_keeps_a_slope_and_averages_noise(quiet_page: Any) -> None:
    x = list(range(20))
    line = [3 - 2 * at for at in x]
    assert call(quiet_page, "smoothing", "windowLine", x, line, 6) == pytest.approx(line)
    # Amid even spacing it is the mean of the window: here of five points.
    noisy = [0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0]
    got = call(quiet_page, "smoothing", "windowLine", list(range(11)), noisy, 4)
    assert got[3:8] == pytest.approx([2, 2, 2, 2, 2])


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    values=st.lists(st.one_of(st.floats(-1e6, 1e6), st.just(math.nan), st.just(math.inf)), min_size=1, max_size=40),
    width=st.floats(0.5, 50),
)
def test_smoothing_stays_finite_and_within_reach(quiet_page: Any, values: list[float], width: float) -> None:
    script = """async ([values, width]) => {
      const { ema } = await import('/static/smoothing.js');
      return Array.from(ema(values.map((_, i) => i), values, width));
    }"""
    got = quiet_page.evaluate(script, [values, width])
    finite = [value for value in values if math.isfinite(value)]
    for value, smooth in zip(values, got, strict=True):
        assert math.isfinite(smooth) == math.isfinite(value)
        if math.isfinite(smooth):
            # Rounding aside, an average lies among what it averages.
            slack = 1e-9 * max(abs(item) for item in finite) + 1e-9
            assert min(finite) - slack <= smooth <= max(finite) + slack


@pytest.mark.slow
def test_a_curve_is_read_from_its_bytes(quiet_page: Any) -> None:
    header = json.dumps(
        {"kind": "points", "num": 2, "columns": ["x", "value"], "first_x": 1, "finite_max": "inf"}
    ).encode()
    header += b" " * (-(4 + len(header)) % 8)
    blob = struct.pack("<I", len(header)) + header + struct.pack("<4d", 1.0, 2.5, -3.0, math.inf)
    script = """async (bytes) => {
      const { readCurve } = await import('/static/api.js');
      const { header, columns } = readCurve(new Uint8Array(bytes).buffer);
      return [header.kind, header.finite_max, Array.from(columns.x), Array.from(columns.value)];
    }"""
    assert quiet_page.evaluate(script, list(blob)) == ["points", math.inf, [1.0, 2.5], [-3.0, math.inf]]


@pytest.mark.slow
def test_a_line_through_buckets_visits_every_extreme(quiet_page: Any) -> None:
    buckets = {"kind": "buckets", "first": [0, 10, 20], "last": [9, 19, 29]}
    rising = buckets | {"low": [1, 2, 5], "high": [4, 40, 5], "middle": [2.5, 21, 5]}
    line = call(quiet_page, "curve_data", "rawLine", rising, {"from": 0, "to": 3})
    # From 4 the nearer end of the second bucket is 2; the third is a single value.
    assert line == {"x": [0, 9, 10, 19, 20], "y": [1, 4, 2, 40, 5]}
    falling = buckets | {"low": [5, 3, 1], "high": [9, 6, 2], "middle": [7, 4.5, 1.5]}
    line = call(quiet_page, "curve_data", "rawLine", falling, {"from": 0, "to": 3})
    assert line["y"] == [9, 5, 6, 3, 2, 1]


@pytest.mark.slow
def test_of_forks_that_lie_close_the_nearest_ancestors_is_marked(quiet_page: Any) -> None:
    forks = [{"run": f"r-{x}", "x": x} for x in (0, 5, 9, 10, 20, 95)]
    marked = call(quiet_page, "curve_data", "markedForks", forks, [1, 50], 4)
    assert [fork["x"] for fork in marked] == [20, 10, 5]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 200), min_size=1, max_size=28, unique=True))
def test_runs_on_one_chart_look_different(quiet_page: Any, numbers: list[int]) -> None:
    script = """async (ids) => [...(await import('/static/curve_data.js')).looksOf(ids)]"""
    looks = dict(quiet_page.evaluate(script, [f"run-{number}" for number in numbers]))
    assert len({(look["colour"], look["dash"]) for look in looks.values()}) == len(numbers)


@pytest.mark.slow
def test_what_is_shown_at_first(quiet_page: Any) -> None:
    def chosen(*names: str) -> Any:
        return call(quiet_page, "curve_data", "defaultMetrics", list(names))

    assert chosen("grad_norm", "lr", "train/loss", "validation/loss") == ["train/loss", "lr", "grad_norm"]
    assert chosen("accuracy", "system/cpu_percent") == ["accuracy"]
    assert chosen("system/cpu_percent") == []
    assert chosen("train/learning_rate", "eval_loss", "train/grad_norm") == [
        "eval_loss",
        "train/learning_rate",
        "train/grad_norm",
    ]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(blacklist_categories=["Cs"]), max_size=8), max_size=5))
def test_lists_survive_the_url(quiet_page: Any, items: list[str]) -> None:
    script = """async (items) => {
      const { viewState } = await import('/static/view_state.js');
      let text = '';
      const state = viewState((query) => (text = query.toString()), '');
      state.set('metric', items, ['the fallback']);
      state.flush();
      return viewState(() => {}, `?${text}`).getList('metric', ['the fallback']);
    }"""
    assert quiet_page.evaluate(script, items) == items


@pytest.mark.slow
def test_a_later_zoom_ends_the_reading_for_an_earlier_one(page: Any, million_url: str) -> None:
    open_chart(page, f"{million_url}/r/big-1?metric=loss")
    failed: list[str] = []
    page.on("requestfailed", lambda request: failed.append(request.url))

    def slowly(route: Any) -> None:
        page.wait_for_timeout(300)
        route.continue_()

    page.route("**/curve?*first=*", slowly)
    zoom = "(from) => Plotly.relayout(document.querySelector('.chart-plot'), {'xaxis.range': [from, from + 1000]})"
    page.evaluate(zoom, 100_000)
    page.wait_for_timeout(200)
    page.evaluate(zoom, 800_000)
    page.wait_for_function("() => document.querySelector('.chart-count').textContent.includes('1,001 of 1,000,000')")
    xs = [x for trace in traces(page, "raw") for x in trace["x"]]
    assert min(xs) >= 799_990
    assert max(xs) <= 801_010
    assert len(failed) == 1
    assert "first=99999" in failed[0]
