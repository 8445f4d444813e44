rule evaluate:
    """Classify real images with a flow (NF-Acc, top-5, ECE), measure its bits/dim, and how it follows its prior."""
    input:
        **plan.splits("train", "validation", "test"),
        **plan.model(),
        history=inputs.if_trained(inputs.file_of_training("history")),
        trained=inputs.if_trained(inputs.file_of_training("manifest")),
        statistics=inputs.if_trained(plan.initial_file("statistics")),
        complete=inputs.if_trained(plan.initial_file("manifest")),
        unknown=inputs.unknown_images,
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
        **declarations.of(Evaluate),
        data=subpath(input.test_images, ancestor=2),
        model=subpath(input.config, parent=True),
        training=inputs.options_of_training,
        unknown=inputs.options_of_unknown,
        folder=subpath(output.metrics, parent=True),
    message:
        "Evaluate {wildcards.flow} on {wildcards.dataset}: {wildcards.prior}, λ = {wildcards.weight},"
        " seed {wildcards.seed}{params.changed}"
    shell:
        "exec nfpi --log {log:q} evaluate {params.settings:q} {params.execution:q}"
        " --data {params.data:q} --model {params.model:q} {params.training:q} {params.unknown:q}"
        " --output {params.folder:q}"
