rule evaluate:
    """Classify real images with a flow (NF-Acc, top-5, ECE), measure its bits/dim, and how it follows its prior."""
    input:
        unpack(planning.inputs(Evaluate)),
    output:
        **resolved.layout.list_files(FLOW_RUN, Evaluate.outputs),
    log:
        jobs.log("evaluate", FLOW_RUN),
    benchmark:
        jobs.benchmark("evaluate", FLOW_RUN)
    conda:
        ENVIRONMENT
    threads: jobs.threads("evaluate")
    resources:
        **jobs.resources("evaluate"),
    params:
        **planning.params(Evaluate),
    message:
        "Evaluate {wildcards.flow} on {wildcards.dataset}: {wildcards.prior}, {params.weight},"
        " seed {wildcards.seed}{params.changed}"
    shell:
        "exec nfpi --log {log:q} evaluate {params.settings:q} {params.execution:q} {params.paths:q}"
