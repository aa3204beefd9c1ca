"""Draw what bench/run.py measured: phases by case, and how time grows.

usage: plot.py RESULTS.json PICTURE (.png, .svg, .pdf)
"""
import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

PHASES = {"encode": "#e0a458", "denoise": "#3d6b99", "decode": "#7fb28a",
          "compress": "#b05d5d"}   # planning takes less than a line's width
AXES = {"batch": ("#3d6b99", "o"), "size": ("#b05d5d", "s"), "threads": ("#5f8f6b", "^")}
GREY = "#555555"


def draw_phases(ax, result):
    """A bar a case: medians of the phases, then the total's median and 95th percentile."""
    cases = result["cases"]
    for y, case in enumerate(cases):
        left = 0
        for phase, colour in PHASES.items():
            width = case["p50"][phase]
            ax.barh(y, width, left=left, height=0.55, color=colour,
                    label=phase if y == 0 else None)
            left += width
        p50, p95 = case["p50"]["total"], case["p95"]["total"]
        ax.errorbar(p50, y, xerr=[[0], [p95 - p50]], color=GREY, capsize=5, lw=1.4)
        ax.text(p95, y, f"  {p50:.2f} s", va="center", color=GREY, fontsize=9)
    ax.set_yticks(range(len(cases)), [f"{c['case']}\n{c['steps']} steps" for c in cases])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.18 * max(c["p95"]["total"] for c in cases))
    ax.set_xlabel("seconds a picture: medians; whisker to the total's 95th percentile")
    ax.set_title(f"{result['title']}, {cases[0]['size']}x{cases[0]['size']}", loc="left")
    ax.legend(frameon=False, ncols=len(PHASES), loc="upper center",
              bbox_to_anchor=(0.5, -0.17))


def draw_scaling(ax, result):
    """Time and axis as multiples of the first point's; dashed: proportional work."""
    for s in result["scaling"]:
        colour, marker = AXES[s["axis"]]
        rows = s["rows"]
        x = [r["x"] / rows[0]["x"] for r in rows]
        y = [r["best"] / rows[0]["best"] for r in rows]
        span = f"{s['axis']} {rows[0]['x']}-{rows[-1]['x']}"
        if s["fit"]:
            span += f": time ~ {s['axis']}$^{{{s['fit'][1]:.2f}}}$"
        ax.plot(x, y, color=colour, marker=marker, label=span)
        ax.plot(x, [v ** s["ideal"] for v in x], color=colour, ls="--", lw=0.9, alpha=0.6)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=2)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%gx"))
    ax.set_xlabel("batch, side in pixels, threads: times the first one")
    ax.set_ylabel("time")
    ax.set_title("scaling; dashed: proportional work", loc="left")
    ax.legend(frameon=False)
    ax.grid(alpha=0.25)


def main(source, target):
    with open(source) as f:
        told = json.load(f)
    models = list(told["models"].values())
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(len(models), 2, figsize=(13, 4.6 * len(models)), squeeze=False,
                                width_ratios=[1.25, 1], layout="constrained")
    for row, result in zip(axes, models):
        draw_phases(row[0], result)
        draw_scaling(row[1], result)
    host = told["host"]
    figure.suptitle(f"darkroom on {host['device']} ({host['platform']} {host['driver']})",
                    x=0.01, ha="left", color=GREY, fontsize=9)
    figure.savefig(target, dpi=130)


if __name__ == "__main__":
    main(*sys.argv[1:])
