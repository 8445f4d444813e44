rule import_model:
    """Import a model that was trained elsewhere, if it fits the data set and was not trained on its test images."""
    input:
        unpack(planning.inputs(ImportModel)),
    output:
        **resolved.layout.list_files(FLOW_RUN, ImportModel.outputs),
    log:
        jobs.log("import_model", FLOW_RUN),
    benchmark:
        jobs.benchmark("import_model", FLOW_RUN)
    wildcard_constraints:
        prior=OWN,
    priority: jobs.priority("import_model")
    localrule: True
    conda:
        ENVIRONMENT
    threads: jobs.threads("import_model")
    resources:
        **jobs.resources("import_model"),
    params:
        **planning.params(ImportModel),
    message:
        "Import {wildcards.flow} for {wildcards.dataset}: {params.weight}, seed {wildcards.seed}{params.changed}"
    shell:
        "exec nfpi --log {log:q} import-model {params.settings:q} {params.execution:q} {params.paths:q}"


rule start_flow:
    """Initialise a flow and its Gaussians and train up to the fit; all λ and methods share the result."""
    input:
        unpack(planning.inputs(StartFlow)),
    output:
        **resolved.layout.list_files(INITIAL, StartFlow.outputs),
    log:
        jobs.log("start_flow", INITIAL),
    benchmark:
        jobs.benchmark("start_flow", INITIAL)
    priority: jobs.priority("start_flow")
    conda:
        ENVIRONMENT
    threads: jobs.threads("start_flow")
    resources:
        **jobs.resources("start_flow"),
    params:
        **planning.params(StartFlow),
        devices=jobs.devices("start_flow"),
    message:
        "Initialise {wildcards.flow} on {wildcards.dataset}: initial Gaussians {wildcards.start}, seed {wildcards.seed}"
        "{params.changed}"
    shell:
        "exec nfpi --log {log:q} start-flow {params.settings:q} {params.execution:q}"
        " --devices {params.devices} {params.paths:q}"


rule train_flow:
    """Continue the training of a flow from its initial state, with Gaussians that are fixed or learned with the flow."""
    input:
        unpack(planning.inputs(TrainFlow)),
    output:
        **resolved.layout.list_files(FLOW_RUN, TrainFlow.outputs),
    log:
        jobs.log("train_flow", FLOW_RUN),
    benchmark:
        jobs.benchmark("train_flow", FLOW_RUN)
    wildcard_constraints:
        prior=patterns.made_by(TrainFlow, "prior"),
    priority: jobs.priority("train_flow")
    conda:
        ENVIRONMENT
    threads: jobs.threads("train_flow")
    resources:
        **jobs.resources("train_flow"),
    params:
        **planning.params(TrainFlow),
        devices=jobs.devices("train_flow"),
    message:
        "Train {wildcards.flow} on {wildcards.dataset}: {wildcards.prior}, {params.weight}, seed {wildcards.seed}"
        "{params.changed}"
    shell:
        "exec nfpi --log {log:q} train-flow {params.settings:q} {params.execution:q}"
        " --devices {params.devices} {params.paths:q}"
