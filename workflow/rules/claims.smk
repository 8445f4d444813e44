if plan.config.claims:

    rule judge_claims:
        """Judge the claims of the preset by the metrics of the runs that they compare."""
        input:
            metrics=inputs.metrics_of_claims,
            predictions=inputs.predictions_of_claims,
            reference=REFERENCE,
        output:
            **{
                name: (
                    report(file, caption="../report/claims.rst", category="Claims", labels={"form": name})
                    if name in ("html", "png")
                    else file
                )
                for name, file in targets.claims().items()
            },
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
            claims=params.claims,
            tables=params.tables_of_claims,
            rows=params.rows_of_claims,
            seeds=params.seeds,
            code=params.code_of_claims,
            root=plan.layout.root,
            extensions=params.extension_options,
            folder=subpath(output.csv, parent=True),
        message:
            "Judge the claims"
        shell:
            "exec nfpi --log {log:q} claims --claims {params.claims:q} --tables {params.tables:q} --rows {params.rows:q}"
            " --seeds {params.seeds:q} --root {params.root:q} --reference {input.reference:q} {params.extensions:q}"
            " --output {params.folder:q}"
