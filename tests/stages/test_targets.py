"""What `nfpi targets` lists."""

from __future__ import annotations

from .conftest import ROOT, call


def test_all_targets_are_listed_with_the_time_where_it_is_known(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    times = tmp_path / "demo/benchmarks/digits/mef/initial/data/seed=0/start_flow.tsv"
    times.parent.mkdir(parents=True)
    times.write_text("s\tmax_rss\n600\t1\n")
    assert call("targets", "--preset", "demo", "--config", f'{{"results": "{tmp_path}"}}') == 0
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in capsys.readouterr().out.splitlines()}
    assert {"table1", "figure1", "claims", "all", "costs"} <= set(rows)
    assert rows["all"] == ["all tables and figures, and the claims", "10 min"]
    assert rows["accuracy_against_weight"][0].endswith("(made with table2)")
