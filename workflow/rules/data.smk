rule prepare_data:
    """Download or read a data set, split it, and write it in the on-disk format that all stages read."""
    input:
        unpack(planning.inputs(PrepareData)),
    output:
        **resolved.layout.list_files(SPLITS, PrepareData.outputs),
    log:
        jobs.log("prepare_data", SPLITS),
    benchmark:
        jobs.benchmark("prepare_data", SPLITS)
    wildcard_constraints:
        dataset=patterns.made_by(PrepareData, "dataset"),
    priority: jobs.priority("prepare_data")
    localrule: True
    conda:
        ENVIRONMENT
    threads: jobs.threads("prepare_data")
    resources:
        **jobs.resources("prepare_data"),
    params:
        **planning.params(PrepareData),
    message:
        "Prepare {wildcards.dataset}/{wildcards.splits}{params.changed}"
    shell:
        "exec nfpi --log {log:q} prepare-data {params.settings:q} {params.execution:q} {params.paths:q}"


rule encode_data:
    """Split the image files of a data set, encode them by an autoencoder, and write their latents."""
    input:
        unpack(planning.inputs(EncodeData)),
    output:
        **resolved.layout.list_files(SPLITS, EncodeData.outputs),
    log:
        jobs.log("encode_data", SPLITS),
    benchmark:
        jobs.benchmark("encode_data", SPLITS)
    wildcard_constraints:
        dataset=patterns.made_by(EncodeData, "dataset"),
    priority: jobs.priority("encode_data")
    conda:
        ENVIRONMENT
    threads: jobs.threads("encode_data")
    resources:
        **jobs.resources("encode_data"),
    params:
        **planning.params(EncodeData),
    message:
        "Encode {wildcards.dataset}/{wildcards.splits}{params.changed}"
    shell:
        "exec nfpi --log {log:q} encode-data {params.settings:q} {params.execution:q} --workers {threads} {params.paths:q}"


rule extract_features:
    """Write the features that a trained classifier computes of the images of another data set."""
    input:
        unpack(planning.inputs(ExtractFeatures)),
    output:
        **resolved.layout.list_files(SPLITS, ExtractFeatures.outputs),
    log:
        jobs.log("extract_features", SPLITS),
    benchmark:
        jobs.benchmark("extract_features", SPLITS)
    wildcard_constraints:
        dataset=patterns.made_by(ExtractFeatures, "dataset"),
    priority: jobs.priority("extract_features")
    conda:
        ENVIRONMENT
    threads: jobs.threads("extract_features")
    resources:
        **jobs.resources("extract_features"),
    params:
        **planning.params(ExtractFeatures),
    message:
        "Compute the features of {wildcards.dataset}/{wildcards.splits}{params.changed}"
    shell:
        "exec nfpi --log {log:q} extract-features {params.settings:q} {params.execution:q} {params.paths:q}"


rule download_weights:
    """Download published weights, since the machines that train may have no internet access."""
    input:
        unpack(planning.inputs(DownloadWeights)),
    output:
        **{
            name: f"{resolved.downloads}/{file}"
            for name, file in DownloadWeights.get_output_files(model="{model}").items()
        },
    log:
        f"{resolved.downloads}/{{model}}.log",
    benchmark:
        f"{resolved.downloads}/{{model}}.tsv"
    wildcard_constraints:
        model=patterns.published_models(),
    priority: jobs.priority("prepare_data")
    localrule: True
    conda:
        ENVIRONMENT
    threads: jobs.threads("prepare_data")
    resources:
        **jobs.resources("prepare_data"),
    params:
        **planning.params(DownloadWeights),
    message:
        "Download the weights of {wildcards.model}{params.changed}"
    shell:
        "exec nfpi --log {log:q} download-weights {params.settings:q} {params.execution:q} {params.paths:q}"
