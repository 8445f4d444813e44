if resolved.config.claims:

    rule judge_claims:
        """Judge the claims of the preset by the metrics of the runs that they compare."""
        input:
            unpack(planning.inputs(JudgeClaims)),
        output:
            **targets.claims(),
        log:
            jobs.log("claims", "claims"),
        benchmark:
            jobs.benchmark("claims", "claims")
        localrule: True
        conda:
            ENVIRONMENT
        threads: jobs.threads("table")
        resources:
            **jobs.resources("table"),
        params:
            **planning.params(JudgeClaims),
        message:
            "Judge the claims{params.changed}"
        shell:
            "exec nfpi --log {log:q} claims {params.settings:q} {params.execution:q} {params.paths:q}"
