rule fit_prior:
    """Fit the Gaussians of all classes to the statistics of the training latents."""
    input:
        statistics=plan.initial_file("statistics"),
        initial=plan.initial_file("prior"),
        complete=plan.initial_file("manifest"),
    output:
        **plan.outputs(FitPrior, FIT),
    log:
        jobs.log("fit_prior", FLOW_RUN),
    benchmark:
        jobs.benchmark("fit_prior", FLOW_RUN)
    wildcard_constraints:
        prior=inputs.fitted_prior_pattern(),
    priority: jobs.priority("fit_prior")
    conda:
        ENVIRONMENT
    threads: jobs.threads("fit_prior")
    resources:
        **jobs.resources("fit_prior"),
    params:
        **declarations.of(FitPrior),
        initial=subpath(input.initial, parent=True),
        folder=subpath(output.prior, parent=True),
    message:
        "Fit the Gaussians of {wildcards.flow} on {wildcards.dataset}: {wildcards.prior}, λ = {wildcards.weight},"
        " seed {wildcards.seed}{params.changed}"
    shell:
        "exec nfpi --log {log:q} fit-prior {params.settings:q} {params.execution:q}"
        " --initial {params.initial:q} --output {params.folder:q}"


rule refit_prior:
    """Estimate the Gaussians of a trained flow again, from the latents of its training images."""
    input:
        **plan.splits("train"),
        config=inputs.file_of_training("config"),
        weights=inputs.file_of_training("weights"),
        trained=inputs.file_of_training("manifest"),
    output:
        **plan.outputs(RefitPrior, FLOW_RUN),
    log:
        jobs.log("refit_prior", FLOW_RUN),
    benchmark:
        jobs.benchmark("refit_prior", FLOW_RUN)
    wildcard_constraints:
        prior=inputs.refitted_prior_pattern(),
    priority: jobs.priority("augment")
    conda:
        ENVIRONMENT
    threads: jobs.threads("evaluate")
    resources:
        **jobs.resources("evaluate"),
    params:
        **declarations.of(RefitPrior),
        data=subpath(input.train_images, ancestor=2),
        model=subpath(input.config, parent=True),
        folder=subpath(output.config, ancestor=2),
    message:
        "Estimate the Gaussians of {wildcards.flow} on {wildcards.dataset} again: {wildcards.prior},"
        " λ = {wildcards.weight}, seed {wildcards.seed}{params.changed}"
    shell:
        "exec nfpi --log {log:q} refit-prior {params.settings:q} {params.execution:q}"
        " --data {params.data:q} --model {params.model:q} --output {params.folder:q}"
