rule start_flow:
    """Initialise a flow and its Gaussians and train up to the fit: what all λ and all methods share."""
    input:
        **splits("train", "validation"),
    output:
        state=f"{START}/state.safetensors",
        prior=f"{START}/prior.safetensors",
        statistics=f"{START}/statistics.safetensors",
        history=f"{START}/log.csv",
    log:
        log_of("start_flow", START),
    benchmark:
        benchmark_of("start_flow", START)
    conda:
        "../../environment.yml"
    threads: threads_of("start_flow")
    resources:
        **resources_of("start_flow"),
    params:
        data=subpath(input.train_images, ancestor=2),
        flow=settings("flow"),
        training=settings_to_run("training"),
        compared=settings("training", without=NOT_OF_START | NO_RESULT),
        devices=devices_of("start_flow"),
        folder=subpath(output.state, parent=True),
    message:
        "Start a flow on {wildcards.dataset}: initial Gaussians {wildcards.start}, seed {wildcards.seed}"
    shell:
        "exec nfpi start-flow --data {params.data:q} --flow {params.flow:q} --training {params.training:q}"
        " --start {wildcards.start} --seed {wildcards.seed} --devices {params.devices}"
        " --output {params.folder:q} > {log:q} 2>&1"


rule train_flow:
    """Train a flow on from its start, under fixed Gaussians or learning them along."""
    input:
        **splits("train", "validation"),
        state=start_file("state.safetensors"),
        prior=prior_of_training,
    output:
        flow=f"{LEAF}/flow.safetensors",
        prior=f"{LEAF}/prior.safetensors",
        history=f"{LEAF}/log.csv",
    log:
        log_of("train_flow", LEAF),
    benchmark:
        benchmark_of("train_flow", LEAF)
    conda:
        "../../environment.yml"
    threads: threads_of("train_flow")
    resources:
        **resources_of("train_flow"),
    params:
        data=subpath(input.train_images, ancestor=2),
        training=settings_to_run("training"),
        compared=settings("training", without=NO_RESULT),
        devices=devices_of("train_flow"),
        learning=learning,
        folder=subpath(output.flow, parent=True),
    message:
        "Train a flow on {wildcards.dataset}: {wildcards.prior}, λ = {wildcards.lam}, seed {wildcards.seed}"
    shell:
        "exec nfpi train-flow --data {params.data:q} --state {input.state:q} --prior {input.prior:q}"
        " --training {params.training:q} {params.learning:q} --devices {params.devices}"
        " --output {params.folder:q} > {log:q} 2>&1"
