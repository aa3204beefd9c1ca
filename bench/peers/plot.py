"""Draw what bench/peers/run.py measured: a group of bars a work, as parts of the best peer's.

usage: plot.py PEERS.json PICTURE (.png, .svg, .pdf)
"""
import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

SYSTEMS = {"darkroom": "#3d6b99", "torch": "#e0a458", "openvino": "#7fb28a"}
NAMES = {"torch": "PyTorch, diffusers", "openvino": "OpenVINO"}
GREY = "#555555"
HEIGHT = 0.26


def text(value, unit):
    if unit == "bytes":
        return f"{value / 2**30:.2f} GiB"
    return f"{value:.2f} s" if value < 100 else f"{value:.0f} s"


def draw(ax, rows):
    for y, row in enumerate(rows):
        unit = "bytes" if "ours_bytes" in row else "s"
        values = {"darkroom": row[f"ours_{unit}"], **row["peers"]}
        best = min(row["peers"].values())
        for i, (system, colour) in enumerate(SYSTEMS.items()):
            if system not in values:
                continue
            at = y + (i - 1) * HEIGHT
            ax.barh(at, values[system] / best, height=HEIGHT * 0.9, color=colour)
            ax.text(values[system] / best, at, " " + text(values[system], unit), va="center",
                    color=GREY, fontsize=8)
    ax.axvline(1, color=GREY, lw=0.9, ls="--")
    ax.set_yticks(range(len(rows)), [f"{r['work']}\n{r['ratio']:.2f} of the best peer"
                                     for r in rows])
    ax.invert_yaxis()
    ax.set_xlabel("time or memory, as a part of the best peer's; less is better")
    ax.legend([plt.Rectangle((0, 0), 1, 1, color=c) for c in SYSTEMS.values()],
              [NAMES.get(s, s) for s in SYSTEMS], frameon=False, loc="lower right")


def main(source, target):
    with open(source) as f:
        told = json.load(f)
    rows = [r for r in told["rows"] if r["peers"]]
    if not rows:
        sys.exit(f"{source} has no peers to draw")
    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, ax = plt.subplots(figsize=(9, 1 + 0.95 * len(rows)), layout="constrained")
    draw(ax, rows)
    about = told["machine"]
    figure.suptitle(f"Stable Diffusion 1.5's shapes on {about['cores']} cores of {about['cpu']}: "
                    + ", ".join(f"{p} {about[p]}" for p in ("torch", "openvino") if p in about),
                    x=0.01, ha="left", color=GREY, fontsize=9)
    figure.savefig(target, dpi=130)


if __name__ == "__main__":
    main(*sys.argv[1:])
