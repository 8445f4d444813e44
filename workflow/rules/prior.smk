rule fit_prior:
    """Fit the Gaussians of all classes to the statistics of the training latents."""
    input:
        unpack(planning.inputs(FitPrior)),
    output:
        **resolved.layout.list_files(FIT, FitPrior.outputs),
    log:
        jobs.log("fit_prior", FIT),
    benchmark:
        jobs.benchmark("fit_prior", FIT)
    wildcard_constraints:
        prior=patterns.made_by(FitPrior, "prior"),
    priority: jobs.priority("fit_prior")
    conda:
        ENVIRONMENT
    threads: jobs.threads("fit_prior")
    resources:
        **jobs.resources("fit_prior"),
    params:
        **planning.params(FitPrior),
    message:
        "Fit the Gaussians of {wildcards.flow} on {wildcards.dataset}: {wildcards.prior}, {params.weight},"
        " seed {wildcards.seed}{params.changed}"
    shell:
        "exec nfpi --log {log:q} fit-prior {params.settings:q} {params.execution:q} {params.paths:q}"


rule refit_prior:
    """Estimate the Gaussians of a trained flow again, from the latents of its training images."""
    input:
        unpack(planning.inputs(RefitPrior)),
    output:
        **resolved.layout.list_files(FLOW_RUN, RefitPrior.outputs),
    log:
        jobs.log("refit_prior", FLOW_RUN),
    benchmark:
        jobs.benchmark("refit_prior", FLOW_RUN)
    wildcard_constraints:
        prior=patterns.made_by(RefitPrior, "prior"),
    priority: jobs.priority("refit_prior")
    conda:
        ENVIRONMENT
    threads: jobs.threads("refit_prior")
    resources:
        **jobs.resources("refit_prior"),
    params:
        **planning.params(RefitPrior),
    message:
        "Estimate the Gaussians of {wildcards.flow} on {wildcards.dataset} again: {wildcards.prior},"
        " {params.weight}, seed {wildcards.seed}{params.changed}"
    shell:
        "exec nfpi --log {log:q} refit-prior {params.settings:q} {params.execution:q} {params.paths:q}"
