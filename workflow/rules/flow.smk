rule import_model:
    """Import a model that was trained elsewhere, if it fits the data set and was not trained on its test images."""
    input:
        **plan.splits("train", "test"),
        published=inputs.imported_files,
    output:
        **plan.outputs(ImportModel, FLOW_RUN),
    log:
        jobs.log("import_model", FLOW_RUN),
    benchmark:
        jobs.benchmark("import_model", FLOW_RUN)
    wildcard_constraints:
        prior=OWN,
    priority: jobs.priority("prepare_data")
    localrule: True
    conda:
        ENVIRONMENT
    threads: jobs.threads("prepare_data")
    resources:
        **jobs.resources("prepare_data"),
    params:
        **declarations.of(ImportModel),
        data=subpath(input.train_images, ancestor=2),
        model=inputs.imported_model,
        folder=subpath(output.config, ancestor=2),
    message:
        "Import {wildcards.flow} for {wildcards.dataset}: λ = {wildcards.weight}, seed {wildcards.seed}{params.changed}"
    shell:
        "exec nfpi --log {log:q} import-model {params.settings:q} {params.execution:q}"
        " --data {params.data:q} --output {params.folder:q} {params.model:q}"


rule start_flow:
    """Initialise a flow and its Gaussians and train up to the fit; all λ and methods share the result."""
    input:
        **plan.splits("train", "validation"),
    output:
        **plan.outputs(StartFlow, INITIAL),
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
        **declarations.of(StartFlow),
        data=subpath(input.train_images, ancestor=2),
        devices=jobs.devices("start_flow"),
        folder=subpath(output.state, parent=True),
    message:
        "Initialise {wildcards.flow} on {wildcards.dataset}: initial Gaussians {wildcards.start}, seed {wildcards.seed}"
        "{params.changed}"
    shell:
        "exec nfpi --log {log:q} start-flow {params.settings:q} {params.execution:q}"
        " --devices {params.devices} --data {params.data:q} --output {params.folder:q}"


rule train_flow:
    """Continue the training of a flow from its initial state, with Gaussians that are fixed or learned with the flow."""
    input:
        **plan.splits("train", "validation"),
        state=plan.initial_file("state"),
        initial=plan.initial_file("prior"),
        complete=plan.initial_file("manifest"),
        prior=inputs.prior_of_training("prior"),
        fitted=inputs.prior_of_training("manifest"),
    output:
        **plan.outputs(TrainFlow, FLOW_RUN),
    log:
        jobs.log("train_flow", FLOW_RUN),
    benchmark:
        jobs.benchmark("train_flow", FLOW_RUN)
    wildcard_constraints:
        prior=inputs.trained_prior_pattern(),
    priority: jobs.priority("train_flow")
    conda:
        ENVIRONMENT
    threads: jobs.threads("train_flow")
    resources:
        **jobs.resources("train_flow"),
    params:
        **declarations.of(TrainFlow),
        data=subpath(input.train_images, ancestor=2),
        initial=subpath(input.state, parent=True),
        devices=jobs.devices("train_flow"),
        folder=subpath(output.history, parent=True),
    message:
        "Train {wildcards.flow} on {wildcards.dataset}: {wildcards.prior}, λ = {wildcards.weight}, seed {wildcards.seed}"
        "{params.changed}"
    shell:
        "exec nfpi --log {log:q} train-flow {params.settings:q} {params.execution:q}"
        " --devices {params.devices} --data {params.data:q} --initial {params.initial:q}"
        " --prior {input.prior:q} --output {params.folder:q}"
