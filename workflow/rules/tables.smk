localrules:
    collect,
    table,


rule collect:
    """Gather the metrics of exactly the runs that a table is made from."""
    input:
        metrics=metrics_of,
    output:
        metrics=f"{ROOT}/metrics/{{table}}.csv",
    log:
        log_of("collect", f"{ROOT}/metrics/{{table}}"),
    benchmark:
        benchmark_of("collect", f"{ROOT}/metrics/{{table}}")
    conda:
        "../../environment.yml"
    threads: threads_of("collect")
    resources:
        **resources_of("collect"),
    params:
        root=subpath(output.metrics, ancestor=2),
    message:
        "Collect the metrics of {wildcards.table}"
    shell:
        "exec nfpi collect --root {params.root:q} --output {output.metrics:q} {input.metrics:q} > {log:q} 2>&1"


rule table:
    """Write a table beside the paper's numbers."""
    input:
        metrics=f"{ROOT}/metrics/{{table}}.csv",
        reference="workflow/reference/paper.csv",
    output:
        csv=report(
            f"{ROOT}/tables/{{table}}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        markdown=f"{ROOT}/tables/{{table}}.md",
        latex=f"{ROOT}/tables/{{table}}.tex",
    log:
        log_of("table", f"{ROOT}/tables/{{table}}"),
    benchmark:
        benchmark_of("table", f"{ROOT}/tables/{{table}}")
    conda:
        "../../environment.yml"
    threads: threads_of("table")
    resources:
        **resources_of("table"),
    params:
        table=table_settings,
        priors=table_priors,
        folder=subpath(output.csv, parent=True),
    message:
        "Write {wildcards.table}"
    shell:
        "exec nfpi table --name {wildcards.table} --metrics {input.metrics:q} --reference {input.reference:q}"
        " --table {params.table:q} --priors {params.priors:q} --output {params.folder:q} > {log:q} 2>&1"
