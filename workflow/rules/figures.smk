for name, figure in plan.config.figures.items():

    rule:
        name:
            f"draw_{name}"
        input:
            unpack(inputs.files_of_figure(name)),
        output:
            **{
                key: (
                    report(
                        file,
                        caption="../report/figure.rst",
                        category="Figures",
                        labels={"figure": key.removesuffix("_png")},
                    )
                    if key.endswith("_png")
                    else file
                )
                for key, file in targets.figure(name).items()
            },
        log:
            jobs.log("figure", f"figures/{name}"),
        benchmark:
            jobs.benchmark("figure", f"figures/{name}")
        localrule: figure.is_quick
        conda:
            ENVIRONMENT
        threads: jobs.threads("figure")
        resources:
            **jobs.resources("figure", gpu=None if figure.uses_gpu else 0),
        params:
            name=name,
            figure=params.figure(name),
            files=params.files_of_figure(name),
            reads=params.settings_read_by_figure(name),
            code=params.code_of_figure(name),
            caption=params.caption(name),
            extensions=params.extension_options,
            folder=subpath(output[0], parent=True),
        message:
            f"Draw {figure.title or name}"
        shell:
            "exec nfpi --log {log:q} figure --name {params.name:q} --figure {params.figure:q} --files {params.files:q}"
            " --reads {params.reads:q} {params.extensions:q} --output {params.folder:q}"
