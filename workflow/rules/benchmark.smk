BENCHMARK = f"{resolved.results.as_posix()}/benchmark"


rule benchmark:
    """Measure speed and memory relative to reference implementations, which are timed in the same run."""
    output:
        csv=f"{BENCHMARK}/benchmark.csv",
        markdown=f"{BENCHMARK}/benchmark.md",
        scaling=f"{BENCHMARK}/scaling.csv",
        png=f"{BENCHMARK}/scaling.png",
        pdf=f"{BENCHMARK}/scaling.pdf",
    log:
        f"{BENCHMARK}/benchmark.log",
    benchmark:
        f"{BENCHMARK}/job.tsv"
    conda:
        ENVIRONMENT
    threads: jobs.threads("benchmark")
    resources:
        **jobs.resources("benchmark"),
    params:
        script=shorten_path(ROOT / "benchmarks/run.py"),
        folder=subpath(output.csv, parent=True),
    message:
        "Measure speed and memory"
    shell:
        "exec python {params.script:q} --output {params.folder:q} >{log:q} 2>&1"
