for name, figure in resolved.config.figures.items():

    rule:
        name:
            f"draw_{name}"
        input:
            unpack(planning.inputs(MakeFigure, name=name)),
        output:
            **targets.figure(name),
        log:
            jobs.log("figure", f"figures/{name}"),
        benchmark:
            jobs.benchmark("figure", f"figures/{name}")
        localrule: figure.is_quick
        conda:
            ENVIRONMENT
        threads: jobs.threads("figure")
        resources:
            **jobs.resources("figure", **({} if figure.uses_gpu else {"gpu": 0})),
        params:
            **planning.params(MakeFigure, name=name),
        message:
            f"Draw {figure.title or name}" "{params.changed}"
        shell:
            "exec nfpi --log {log:q} figure {params.settings:q} {params.execution:q} {params.paths:q}"
