rule table:
    """Write a table of metrics beside the paper's numbers."""
    input:
        unpack(planning.inputs(MakeTable)),
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
        **planning.params(MakeTable),
    message:
        "Write {wildcards.table}{params.changed}"
    shell:
        "exec nfpi --log {log:q} table {params.settings:q} {params.execution:q} {params.paths:q}"
