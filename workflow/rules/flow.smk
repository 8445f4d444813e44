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
        data=subpath(input.train_images, ancestor=2),
        flow=params.flow,
        code=params.code("flow"),
        training=params.training,
        compared=params.initial_state_settings,
        devices=jobs.devices("start_flow"),
        extensions=params.extension_options,
        folder=subpath(output.state, parent=True),
    message:
        "Initialise {wildcards.flow} on {wildcards.dataset}: initial Gaussians {wildcards.start}, seed {wildcards.seed}"
    shell:
        "exec nfpi --log {log:q} start-flow --data {params.data:q} --flow {params.flow:q} --training"
        " {params.training:q}"
        " --start {wildcards.start} --seed {wildcards.seed} --devices {params.devices} {params.extensions:q}"
        " --output {params.folder:q}"


rule train_flow:
    """Continue the training of a flow from its initial state, with Gaussians that are fixed or learned with the flow."""
    input:
        **plan.splits("train", "validation"),
        state=plan.initial_file("state"),
        initial=plan.initial_file("prior"),
        complete=plan.initial_file("manifest"),
        prior=inputs.prior_of_training,
        fitted=inputs.manifest_of_prior,
    output:
        **plan.outputs(TrainFlow, FLOW_RUN),
    log:
        jobs.log("train_flow", FLOW_RUN),
    benchmark:
        jobs.benchmark("train_flow", FLOW_RUN)
    priority: jobs.priority("train_flow")
    conda:
        ENVIRONMENT
    threads: jobs.threads("train_flow")
    resources:
        **jobs.resources("train_flow"),
    params:
        data=subpath(input.train_images, ancestor=2),
        initial=subpath(input.state, parent=True),
        prior=params.prior_options,
        run=params.run,
        code=params.code("flow", "learned_prior"),
        training=params.training,
        compared=params.training_result_settings,
        devices=jobs.devices("train_flow"),
        extensions=params.extension_options,
        folder=subpath(output.history, parent=True),
    message:
        "Train {wildcards.flow} on {wildcards.dataset}: {wildcards.prior}, λ = {wildcards.weight}, seed {wildcards.seed}"
    shell:
        "exec nfpi --log {log:q} train-flow --data {params.data:q} --initial {params.initial:q} {params.prior:q}"
        " --identity {params.run:q}"
        " --training {params.training:q} --devices {params.devices} {params.extensions:q}"
        " --output {params.folder:q}"
