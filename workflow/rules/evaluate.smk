rule evaluate:
    """Classify real images with a flow (NF-Acc, top-5, ECE) and measure its bits/dim."""
    input:
        **plan.splits("validation", "test"),
        **plan.model(),
        history=plan.fill_path(f"{FLOW_RUN}/log.csv"),
    output:
        **plan.outputs(Evaluate, FLOW_RUN),
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
        data=subpath(input.test_images, ancestor=2),
        model=subpath(input.config, parent=True),
        run=params.run,
        evaluation=params.evaluation,
        metrics=params.metric_options,
        code=params.code("flow", "metrics"),
        extensions=params.extension_options,
        folder=subpath(output.metrics, parent=True),
    message:
        "Evaluate {wildcards.flow} on {wildcards.dataset}: {wildcards.prior}, λ = {wildcards.weight},"
        " seed {wildcards.seed}"
    shell:
        "exec nfpi --log {log:q} evaluate --data {params.data:q} --model {params.model:q} --history {input.history:q}"
        " --identity {params.run:q} --evaluation {params.evaluation:q} {params.metrics:q} {params.extensions:q}"
        " --output {params.folder:q}"
