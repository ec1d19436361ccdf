"""Draws results as SVG: the same size and style each time, and readable on light and on dark pages."""

from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

GREY = "#858b93"
OURS, BARE, OTHERS = "#3b8eea", "#a5abb3", "#d98e3a"
LINES = [OURS, OTHERS]

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "unread",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"], GREY),
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.frameon": False,
}


def draw(results: Path, modules: dict[str, dict]) -> None:
    """Draws what there are results for."""
    rows = [row for module in modules.values() for row in module["rows"]]
    with matplotlib.rc_context(STYLE):
        for name, draw_one in (("ceiling", _ceiling), ("peers", _peers), ("scale", _scale), ("live", _live)):
            figure = draw_one(rows)
            if figure:
                figure.savefig(results / f"{name}.svg", transparent=True, metadata={"Date": None})
                plt.close(figure)


def _ceiling(rows: list[dict]) -> plt.Figure | None:
    """Each endpoint beside the bare handler of the same request and reply."""
    rows = [row for row in rows if "endpoint" in row["facts"]]
    if not rows:
        return None
    counts = sorted({row["facts"]["connections"] for row in rows})
    figure, panels = plt.subplots(1, len(counts), figsize=(9, 4), sharey=True, layout="constrained", squeeze=False)
    for panel, connections in zip(panels[0], counts, strict=True):
        some = [row for row in rows if row["facts"]["connections"] == connections]
        ours = [row for row in some if row["name"] == "unread"]
        bare = [row for row in some if row["name"] == "ceiling"]
        places = range(len(ours))
        panel.barh(
            [p - 0.2 for p in places], [r["median"] / 1000 for r in bare], 0.38, color=BARE, label="bare actix-web"
        )
        bars = panel.barh(
            [p + 0.2 for p in places], [r["median"] / 1000 for r in ours], 0.38, color=OURS, label="unread"
        )
        panel.bar_label(bars, [f"{row['ratio']:.2f}" for row in ours], padding=3)
        panel.margins(x=0.1)
        panel.set_yticks(list(places), [row["facts"]["endpoint"] for row in ours])
        panel.set_title(f"{connections} connections")
        panel.set_xlabel("thousand requests/s; the number is the ratio")
    panels[0][0].invert_yaxis()
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def _peers(rows: list[dict]) -> plt.Figure | None:
    """The same read by others."""
    rows = [row for row in rows if "peer" in row["facts"]]
    if not rows:
        return None
    figure, panel = plt.subplots(figsize=(9, 3), layout="constrained")
    colours = [OURS if row["name"] == "unread" else OTHERS for row in rows]
    bars = panel.barh([row["name"] for row in rows], [(row["median"] or 0) / 1000 for row in rows], 0.7, color=colours)
    ours = next(row["median"] for row in rows if row["name"] == "unread")
    labels = [f"{row['median'] / ours:.2f}" if row["runs"] else "not measured here" for row in rows]
    panel.bar_label(bars, labels, padding=3)
    panel.invert_yaxis()
    panel.margins(x=0.1)
    panel.set_title("Tencent's total; peers without authentication, limit and metrics")
    panel.set_xlabel("thousand requests/s; the number is the ratio to unread")
    return figure


def _scale(rows: list[dict]) -> plt.Figure | None:
    """Throughput, and CPU per request of the busiest process, by the number of processes."""
    rows = [row for row in rows if "figure" in row["facts"]]
    if not rows:
        return None
    figure, panels = plt.subplots(2, 2, figsize=(9, 6), layout="constrained")
    for column, what in enumerate(["pods", "masters"]):
        some = [row for row in rows if what in row["facts"]]
        rate, busiest = panels[0][column], panels[1][column]
        _curves(rate, some, what, "throughput", 1000)
        rate.set_title(
            {"pods": "pods (one worker each) on one Redis", "masters": "masters of a cluster, one pod"}[what]
        )
        rate.set_ylabel("thousand requests/s")
        _curves(busiest, some, what, "CPU of the busiest", 1)
        busiest.set_title(f"CPU of the busiest of the {what}")
        busiest.set_ylabel("µs/request")
        busiest.set_xlabel(what)
    figure.legend(*panels[1][0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def _live(rows: list[dict]) -> plt.Figure | None:
    """From an event to the screen by watchers, and the memory of a stream, beside those of peers."""
    times = [row for row in rows if "screen" in row["facts"]]
    held = [row for row in rows if "held" in row["facts"]]
    if not times or not held:
        return None
    layout = [["one of them", "all of them"], ["held", "held"]]
    figure, panels = plt.subplot_mosaic(layout, figsize=(9, 7), height_ratios=[5, 3], layout="constrained")
    for whom in layout[0]:
        panel = panels[whom]
        some = [row for row in times if row["facts"]["to"] == f"a message to {whom}"]
        # p99 lies behind p50.
        for percentile, alpha in (("p99", 0.4), ("p50", 1)):
            shown = [row for row in some if row["facts"]["percentile"] == percentile]
            names = [f"{row['facts']['screen']}; {row['facts']['watchers']:,}" for row in shown]
            colours = [OURS if row["facts"]["screen"] == "unread" else OTHERS for row in shown]
            bars = panel.barh(names, [row["median"] for row in shown], 0.7, color=colours, alpha=alpha)
            if percentile == "p99":
                panel.bar_label(bars, [f"{row['median']:.3g}" for row in shown], padding=3)
        panel.invert_yaxis()
        panel.margins(x=0.15)
        panel.set_title(f"event to screen, a message to {whom}")
        panel.set_xlabel("ms: p50, behind it p99, with its number")
    panels["all of them"].tick_params(labelleft=False)
    panel = panels["held"]
    names = [row["facts"]["label"] for row in held]
    colours = [OURS if row["facts"]["held"] == "unread" else OTHERS for row in held]
    bars = panel.barh(names, [row["median"] / 1024 for row in held], 0.7, color=colours)
    panel.bar_label(bars, [f"{row['median'] / 1024:.1f}" for row in held], padding=3)
    panel.invert_yaxis()
    panel.margins(x=0.1)
    panel.set_title("memory for a stream, by how many there are and how often they have shown a number")
    panel.set_xlabel("KiB")
    return figure


def _curves(panel: Axes, rows: list[dict], what: str, figure: str, unit: float) -> None:
    rows = [row for row in rows if row["facts"]["figure"] == figure]
    workloads = list(dict.fromkeys(row["facts"]["workload"] for row in rows))
    for colour, workload in zip(LINES, workloads, strict=True):
        curve = sorted(
            (row["facts"][what], row["median"] / unit) for row in rows if row["facts"]["workload"] == workload
        )
        counts, values = zip(*curve, strict=True)
        panel.plot(counts, values, marker="o", color=colour, label=workload)
        if figure == "CPU of the busiest":
            evenly = [values[0] / count for count in counts]
            panel.plot(counts, evenly, ":", color=colour, alpha=0.7, label=f"{workload}, shared evenly")
    panel.set_xticks(sorted({row["facts"][what] for row in rows}))
    panel.set_ylim(bottom=0)
