rule prepare_data:
    """Download or read a data set, split it, and write it in the on-disk format that all stages read."""
    input:
        sources.check_files,
    output:
        **plan.outputs(PrepareData, SPLITS),
    log:
        jobs.log("prepare_data", SPLITS),
    benchmark:
        jobs.benchmark("prepare_data", SPLITS)
    wildcard_constraints:
        dataset=inputs.dataset_pattern(encoded=False),
    priority: jobs.priority("prepare_data")
    localrule: True
    conda:
        ENVIRONMENT
    threads: jobs.threads("prepare_data")
    resources:
        **jobs.resources("prepare_data"),
    params:
        **declarations.of(PrepareData),
        content=sources.compute_content_token,
        downloads=plan.downloads,
        folder=subpath(output.train_images, ancestor=2),
    message:
        "Prepare {wildcards.dataset}/{wildcards.splits}{params.changed}"
    shell:
        "exec nfpi --log {log:q} prepare-data {params.settings:q} {params.execution:q}"
        " --download-folder {params.downloads:q} --output {params.folder:q}"


rule encode_data:
    """Split the image files of a data set, encode them by an autoencoder, and write their latents."""
    input:
        sources.check_files,
    output:
        **plan.outputs(EncodeData, SPLITS),
    log:
        jobs.log("encode_data", SPLITS),
    benchmark:
        jobs.benchmark("encode_data", SPLITS)
    wildcard_constraints:
        dataset=inputs.dataset_pattern(encoded=True),
    priority: jobs.priority("encode_data")
    conda:
        ENVIRONMENT
    threads: jobs.threads("encode_data")
    resources:
        **jobs.resources("encode_data"),
    params:
        **declarations.of(EncodeData),
        content=sources.compute_content_token,
        downloads=plan.downloads,
        folder=subpath(output.train_images, ancestor=2),
    message:
        "Encode {wildcards.dataset}/{wildcards.splits}{params.changed}"
    shell:
        "exec nfpi --log {log:q} encode-data {params.settings:q} {params.execution:q}"
        " --workers {threads} --download-folder {params.downloads:q} --output {params.folder:q}"


rule download_weights:
    """Download published weights, since the machines that train may have no internet access."""
    output:
        **{
            name: f"{plan.downloads}/{file}"
            for name, file in DownloadWeights.get_output_files(model="{model}").items()
        },
    log:
        f"{plan.downloads}/{{model}}.log",
    benchmark:
        f"{plan.downloads}/{{model}}.tsv"
    wildcard_constraints:
        model=inputs.published_model_pattern(),
    priority: jobs.priority("prepare_data")
    localrule: True
    conda:
        ENVIRONMENT
    threads: jobs.threads("prepare_data")
    resources:
        **jobs.resources("prepare_data"),
    params:
        **declarations.of(DownloadWeights),
        folder=subpath(output.weights, parent=True),
    message:
        "Download the weights of {wildcards.model}{params.changed}"
    shell:
        "exec nfpi --log {log:q} download-weights {params.settings:q} {params.execution:q}"
        " --output {params.folder:q}"
