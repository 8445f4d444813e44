rule collect:
    """Collect the metrics of the runs of a table."""
    input:
        metrics=inputs.metrics_of_table,
    output:
        **plan.outputs(Collect, "metrics", name="{table}"),
    log:
        jobs.log("collect", "metrics/{table}"),
    benchmark:
        jobs.benchmark("collect", "metrics/{table}")
    localrule: True
    conda:
        ENVIRONMENT
    threads: jobs.threads("collect")
    resources:
        **jobs.resources("collect"),
    params:
        **declarations.of(Collect),
        root=plan.layout.root,
        folder=subpath(output.metrics, parent=True),
    message:
        "Collect the metrics of {wildcards.table}{params.changed}"
    shell:
        "exec nfpi --log {log:q} collect {params.settings:q} {params.execution:q}"
        " --root {params.root:q} --output {params.folder:q}"


rule table:
    """Write a table of metrics beside the paper's numbers."""
    input:
        **plan.outputs(Collect, "metrics", name="{table}"),
        predictions=inputs.predictions_of_table,
        reference=REFERENCE,
    output:
        **targets.table("{table}"),
    log:
        jobs.log("table", "tables/{table}"),
    benchmark:
        jobs.benchmark("table", "tables/{table}")
    localrule: True
    conda:
        ENVIRONMENT
    threads: jobs.threads("table")
    resources:
        **jobs.resources("table"),
    params:
        **declarations.of(MakeTable),
        root=plan.layout.root,
        folder=subpath(output.csv, parent=True),
    message:
        "Write {wildcards.table}{params.changed}"
    shell:
        "exec nfpi --log {log:q} table {params.settings:q} {params.execution:q}"
        " --metrics {input.metrics:q} --root {params.root:q} --reference {input.reference:q}"
        " --output {params.folder:q}"
