rule benchmark:
    """Measure speed and memory relative to reference implementations, which are timed in the same run."""
    output:
        **plan.shared_outputs(Benchmark, "benchmark"),
    log:
        f"{plan.resolved.results.as_posix()}/benchmark/benchmark.log",
    benchmark:
        f"{plan.resolved.results.as_posix()}/benchmark/job.tsv"
    conda:
        ENVIRONMENT
    threads: jobs.threads("benchmark")
    resources:
        **jobs.resources("benchmark"),
    params:
        folder=subpath(output.csv, parent=True),
    message:
        "Measure speed and memory"
    shell:
        "exec nfpi --log {log:q} benchmark --output {params.folder:q}"
