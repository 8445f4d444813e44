import pandas as pd
import pytest
from matplotlib.figure import Figure

from nfpi.figures import Drawn, drawn, save_drawn


def line() -> Figure:
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 3, 2])
    return figure


def test_pictures_and_table_are_written_and_nothing_else(tmp_path):
    save_drawn(Drawn({"a.b": line(), "c": line()}, pd.DataFrame({"x": [1]})), tmp_path / "new", "name")
    files = {file.name: file.read_bytes() for file in (tmp_path / "new").iterdir()}
    assert set(files) == {"a.b.png", "a.b.pdf", "c.png", "c.pdf", "name.csv"}
    assert files["c.png"].startswith(b"\x89PNG")
    assert files["c.pdf"].startswith(b"%PDF")
    assert files["name.csv"] == b"x\n1\n"


def test_files_of_a_figure_are_always_the_same(tmp_path):
    figure = line()
    for folder, drawn_figure in (("once", figure), ("again", figure), ("anew", line())):
        save_drawn(Drawn({"figure": drawn_figure}), tmp_path / folder, "figure")
    for suffix in ("png", "pdf"):
        first, *others = ((tmp_path / folder / f"figure.{suffix}").read_bytes() for folder in ("once", "again", "anew"))
        assert others == [first, first]
        assert b"CreationDate" not in first


def test_a_fault_leaves_the_files_of_before(tmp_path, monkeypatch):
    save_drawn(Drawn({"a": line(), "b": line()}), tmp_path, "a")
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}

    def render_once(figure: Figure, suffix: str) -> bytes:
        if suffix == "pdf":
            raise RuntimeError("no memory")
        return b"new"

    monkeypatch.setattr(drawn, "render_figure", render_once)
    with pytest.raises(RuntimeError, match="no memory"):
        save_drawn(Drawn({"a": line(), "b": line()}), tmp_path, "a")
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
