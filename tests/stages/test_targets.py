"""What `nfpi targets` lists."""

from __future__ import annotations

from .conftest import ROOT, call


def test_all_targets_are_listed(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert call("targets", "--preset", "demo") == 0
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in capsys.readouterr().out.splitlines()}
    assert {"table1", "figure1", "claims", "all", "benchmark"} <= set(rows)
    assert rows["all"] == ["all tables and figures, and the claims"]
    assert rows["accuracy_against_weight"][0].endswith("(made with table2)")
