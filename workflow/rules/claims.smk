if plan.config.claims:

    rule judge_claims:
        """Judge the claims of the preset by the metrics of the runs that they compare."""
        input:
            metrics=inputs.metrics_of_claims,
            predictions=inputs.predictions_of_claims,
            reference=REFERENCE,
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
            **declarations.of(JudgeClaims),
            root=plan.layout.root,
            folder=subpath(output.csv, parent=True),
        message:
            "Judge the claims{params.changed}"
        shell:
            "exec nfpi --log {log:q} claims {params.settings:q} {params.execution:q}"
            " --root {params.root:q} --reference {input.reference:q} --output {params.folder:q}"
