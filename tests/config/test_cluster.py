"""What jobs ask for, here and on a cluster."""

from __future__ import annotations

import pytest

from nfpi.config.cluster import Cluster, Resources, compute_job_resources, count_job_threads

ON_GPU = Resources(gpu=1, threads=8, mem_mb=16000, runtime=60)
ON_CPU = Resources(threads=4, mem_mb=8000, runtime=30)


def test_without_a_cluster_nothing_is_asked_of_one():
    assert compute_job_resources("evaluate", ON_GPU, None) == {"gpu": 1, "local_gpu": 1, "mem_mb": 16000, "runtime": 60}
    assert compute_job_resources("fit_prior", ON_CPU, None) == {"mem_mb": 8000, "runtime": 30}


@pytest.mark.parametrize(("attempt", "times"), [(1, 1), (2, 2), (3, 3), (4, 3), (9, 3)])
@pytest.mark.parametrize("cluster", [None, Cluster()])
def test_what_begins_anew_asks_for_more_each_time(cluster, attempt, times):
    asked = compute_job_resources("evaluate", ON_GPU, cluster, attempt)
    assert (asked["mem_mb"], asked["runtime"]) == (16000 * times, 60 * times)


@pytest.mark.parametrize("stage", ["encode_data", "train_flow", "generate", "augment", "train_classifier"])
def test_what_goes_on_from_a_checkpoint_asks_for_the_same(stage):
    assert compute_job_resources(stage, ON_GPU, Cluster(), 1) == compute_job_resources(stage, ON_GPU, Cluster(), 5)


def test_no_job_asks_for_more_than_the_limit():
    line = Resources(gpu=1, runtime=800)
    assert compute_job_resources("evaluate", line, Cluster(max_runtime=1200), 2)["runtime"] == 1200
    assert compute_job_resources("evaluate", line, Cluster(qos={"long": 1000}), 2)["runtime"] == 1000
    assert compute_job_resources("evaluate", Resources(runtime=800), Cluster(qos={"long": 1000}), 2)["runtime"] == 1600
    both = Cluster(max_runtime=1200, qos={"short": 120, "long": 6000})
    assert compute_job_resources("evaluate", line, both, 2)["runtime"] == 1200


@pytest.mark.parametrize(
    ("minutes", "attempt", "qos"), [(1, 1, "short"), (120, 1, "short"), (121, 1, "long"), (100, 2, "long")]
)
def test_the_shortest_qos_that_suffices_is_taken(minutes, attempt, qos):
    cluster = Cluster(qos={"long": 1200, "short": 120})
    assert compute_job_resources("evaluate", Resources(gpu=1, runtime=minutes), cluster, attempt)["qos"] == qos


def test_jobs_without_gpus_ask_for_none_and_nothing_that_goes_with_them():
    cluster = Cluster(
        account="a@gpu", cpu_account="a@cpu", partition="gpus", constraint="big", qos={"long": 1200}, cores_per_gpu=10
    )
    asked = {"slurm_account": "a@cpu", "cpus_per_task": 4, "mem_mb": 8000, "runtime": 30}
    assert compute_job_resources("fit_prior", ON_CPU, cluster) == asked
    assert compute_job_resources("fit_prior", ON_CPU, Cluster(account="a"))["slurm_account"] == "a"


def test_cores_come_with_the_gpus():
    line = Resources(gpu=4, threads=8)
    assert count_job_threads(line, Cluster(cores_per_gpu=10)) == 40
    assert count_job_threads(line, Cluster()) == count_job_threads(line, None) == 8
    asked = compute_job_resources("evaluate", line, Cluster(cores_per_gpu=10))
    assert (asked["cpus_per_task"], asked["gres"]) == (40, "gpu:4")


def test_memory_that_comes_with_the_cores_is_not_asked_for():
    assert compute_job_resources("evaluate", ON_GPU, Cluster(ask_memory=False))["mem_mb"] == 0


def test_what_leaves_a_checkpoint_is_warned_before_its_limit():
    cluster = Cluster(options="--hint=nomultithread", warn_seconds=300)
    warned = compute_job_resources("train_flow", ON_GPU, cluster)
    assert warned["slurm_extra"] == "--hint=nomultithread --signal=TERM@300"
    assert compute_job_resources("evaluate", ON_GPU, cluster)["slurm_extra"] == "--hint=nomultithread"
    assert "slurm_extra" not in compute_job_resources("train_flow", ON_GPU, Cluster(warn_seconds=0))


def test_an_account_may_stand_in_a_variable(monkeypatch):
    monkeypatch.setenv("NFPI_TEST_PROJECT", "abc")
    assert Cluster(account="$NFPI_TEST_PROJECT@v100").account == "abc@v100"
