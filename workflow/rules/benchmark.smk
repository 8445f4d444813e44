rule benchmark:
    """Measure the maths against plain versions of it, each as a ratio within one run."""
    output:
        csv=f"{RESULTS.as_posix()}/benchmark/benchmark.csv",
        markdown=f"{RESULTS.as_posix()}/benchmark/benchmark.md",
    log:
        f"{RESULTS.as_posix()}/benchmark/benchmark.log",
    benchmark:
        f"{RESULTS.as_posix()}/benchmark/job.tsv"
    conda:
        "../../environment.yml"
    threads: threads_of("benchmark")
    resources:
        **resources_of("benchmark"),
    params:
        folder=subpath(output.csv, parent=True),
    message:
        "Measure speed and memory"
    shell:
        "exec nfpi benchmark --output {params.folder:q} > {log:q} 2>&1"
