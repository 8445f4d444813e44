"""Check what `.ci/run` made of preset demo with short.yaml: `python .ci/check_results.py FOLDER`."""

import sys
from pathlib import Path
from typing import cast

import pandas as pd

from nfpi.config.experiments import FIGURES, FigureSettings

ROWS = {"table2": 2, "table4": 2, "table5": 2, "table6": 2, "table7": 1, "table9": 3, "table10": 1}
SMALLEST_FIGURE = 5000
"""bytes; a smaller file shows nothing"""


def check_tables(folder: Path, expected: dict[str, int]) -> dict[str, pd.DataFrame]:
    """Print all tables; their rows must be there, with a result each.

    Args:
        folder: folder of the tables.
        expected: number of rows by table.

    Returns:
        the tables by name.
    """
    tables = {path.stem: pd.read_csv(path) for path in sorted(folder.glob("*.csv"))}
    for name, table in tables.items():
        print((folder / f"{name}.md").read_text(encoding="utf-8"))
        expect((table["status"] == "ok").all(), f"{name}: a result in every row", table["status"].tolist())
    rows = {name: len(table) for name, table in tables.items()}
    expect(rows == expected, f"rows {expected} in {folder}", rows)
    return tables


def check_accuracies(table: pd.DataFrame) -> None:
    """The repulsion must help over λ = 0 in Table 2."""
    baseline, best = (table[chosen].iloc[0]["nf_acc"] for chosen in (table["lambda"] == 0, table["best"]))
    expect(best >= 98, "table2: NF-Acc of at least 98 % at the best λ", f"{best:.2f}")
    expect(best - baseline >= 2, "table2: at least 2 points above λ = 0", f"{best - baseline:.2f}")


def check_figures(folder: Path) -> None:
    """All figures must be drawn."""
    drawn = {path.name for path in folder.iterdir() if path.stat().st_size > SMALLEST_FIGURE}
    settings = {name: cast(type[FigureSettings], FIGURES[name].settings) for name in FIGURES}
    pictures = [picture for name, figure in settings.items() for picture in figure.picture_names(name)]
    missing = {f"{picture}.{suffix}" for picture in pictures for suffix in ("png", "pdf")} - drawn
    expect(not missing, "every figure as png and pdf", f"none of {sorted(missing)}")


def expect(fulfilled: bool, expected: str, received: object) -> None:
    """End the process with a line if something is not as expected."""
    if not fulfilled:
        sys.exit(f"check_results: expected {expected}, received {received}")


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    check_accuracies(check_tables(folder / "tables", ROWS)["table2"])
    check_figures(folder / "figures")
