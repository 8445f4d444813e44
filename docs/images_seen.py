"""Draw NF-Acc of the recorded flows against the images that they have seen, for docs/replication.md."""

import json
from pathlib import Path

import pandas as pd
from matplotlib.lines import Line2D

from nfpi.figures.style import CLASS_COLOURS, COLUMN_WIDTH, LEGEND_HEIGHT, PANEL_HEIGHT, RESOLUTION, new_figure

EVIDENCE = Path(__file__).parent / "evidence"
OUTPUT = Path("results/pictures/images_seen.png")
WEIGHTS = {"fashion_mnist": ("Fashion-MNIST", 3e4), "cifar10": ("CIFAR-10", 3e5)}
"""By data set: its title and the λ of the claims."""
SERIES = {
    "fpi": ("fixed-point iteration", CLASS_COLOURS[0]),
    "gmm_means": ("means by gradient, Σ = I", CLASS_COLOURS[4]),
    "baseline-random": ("random means, Σ = I, fixed", CLASS_COLOURS[3]),
    "baseline-identity": ("class means of the untrained flow, Σ = I, λ = 0", CLASS_COLOURS[1]),
    "baseline": ("Gaussians of the untrained flow, λ = 0", CLASS_COLOURS[2]),
}
"""By prior: its label and colour."""
MARKERS = {
    "all images, batches of 32": "s",
    "500 images a class, batches of 16 to 64": "^",
    "500 images a class, batches of 128": "o",
}


def read_flows() -> pd.DataFrame:
    """Read data set, prior, refitted, size (key of MARKERS), images seen and accuracy (%) of the series' flows."""
    rows = []
    for file in sorted(EVIDENCE.glob("*/runs.csv")):
        runs = pd.read_csv(file)
        runs = runs[runs["classifier"].isna() & runs["dataset"].isin(WEIGHTS)]
        for (data, prior, weight), of_row in runs.groupby(["dataset", "prior", "lambda"]):
            way, _, refit = prior.partition("+")
            if way not in SERIES or weight not in (0, WEIGHTS[data][1]):
                continue
            for _, run in of_row.groupby(["flow", "seed"]):
                made = json.loads(run["record"].dropna().iloc[0])["settings"]
                training = made["training"]
                if made["flow"]["kind"] != "glow" and not training.get("posterior_weight"):
                    seen = made["step"] * training["batch_size"]
                    all_images, few, many = MARKERS
                    of_class = few if training["batch_size"] <= 64 else many
                    size = of_class if seen < 1e4 * training["epochs"] else all_images
                    accuracy = run.loc[run["metric"] == "nf_acc", "value"].iloc[0]
                    rows.append((data, way, bool(refit), size, seen, accuracy))
    return pd.DataFrame(rows, columns=["data", "prior", "refitted", "size", "seen", "accuracy"]).drop_duplicates()


if __name__ == "__main__":
    flows = read_flows()
    with new_figure(1.4 * PANEL_HEIGHT + LEGEND_HEIGHT, 2 * COLUMN_WIDTH) as figure:
        for axes, (data, (title, _)) in zip(figure.subplots(1, 2), WEIGHTS.items(), strict=True):
            groups = flows[flows["data"] == data].groupby(["prior", "refitted", "size"])
            for (prior, refitted, size), points in groups:
                colour = SERIES[prior][1]
                face = "none" if refitted else colour
                axes.plot(
                    "seen", "accuracy", MARKERS[size], data=points, color=colour, markerfacecolor=face, markersize=4
                )
            of_pixels = pd.read_csv(EVIDENCE / f"{data}_small/runs.csv").query(
                "classifier == 'qda' and metric == 'top1'"
            )
            level = of_pixels["value"].mean()
            axes.axhline(level, color="0.6", linestyle=":", linewidth=1, zorder=0)
            axes.set(title=title, xscale="log", xlabel="images seen", ylabel="NF-Acc (%)", xlim=(3.5e4, 7e5))
            axes.set_xticks([], minor=True)
            axes.set_xticks([5e4, 1e5, 2e5, 5e5], ["50 000", "100 000", "200 000", "500 000"])
        handles = [Line2D([], [], color=colour, marker="o", ls="", label=label) for label, colour in SERIES.values()]
        handles += [Line2D([], [], color="0.4", marker=marker, ls="", label=size) for size, marker in MARKERS.items()]
        handles.append(Line2D([], [], color="0.4", marker="o", ls="", mfc="none", label="Gaussians estimated again"))
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUTPUT, dpi=RESOLUTION)
