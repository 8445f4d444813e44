rule train_classifier:
    """Train a ResNet18 on generated images."""
    input:
        **splits("train", "validation"),
        **images_in(GENERATED, "generated_"),
    output:
        model=f"{CLASSIFIER}/model.safetensors",
        metrics=f"{CLASSIFIER}/metrics.json",
        history=f"{CLASSIFIER}/log.csv",
    log:
        log_of("train_classifier", CLASSIFIER),
    benchmark:
        benchmark_of("train_classifier", CLASSIFIER)
    conda:
        "../../environment.yml"
    threads: threads_of("train_classifier")
    resources:
        **resources_of("train_classifier"),
    params:
        data=subpath(input.train_images, ancestor=2),
        generated=subpath(input.generated_images, parent=True),
        classifier=settings_to_run("resnet18"),
        compared=settings("resnet18", without=NO_RESULT),
        folder=subpath(output.model, parent=True),
    message:
        "Train a ResNet18 for {wildcards.dataset}: {wildcards.prior}, λ = {wildcards.lam},"
        " seed {wildcards.seed}, temperature {wildcards.temperature}"
    shell:
        "exec nfpi train-classifier --data {params.data:q} --generated {params.generated:q}"
        " --classifier {params.classifier:q} --seed {wildcards.seed} --output {params.folder:q} > {log:q} 2>&1"


rule test_classifier:
    """Pick the temperature whose ResNet18 is best on the validation split, and test that one (CNN-Acc)."""
    input:
        **splits("test"),
        models=candidate_files("model.safetensors"),
        metrics=candidate_files("metrics.json"),
    output:
        metrics=f"{LEAF}/resnet18/metrics.json",
    log:
        log_of("test_classifier", LEAF),
    benchmark:
        benchmark_of("test_classifier", LEAF)
    conda:
        "../../environment.yml"
    threads: threads_of("test_classifier")
    resources:
        **resources_of("test_classifier"),
    params:
        data=subpath(input.test_images, ancestor=2),
        candidates=candidates,
    message:
        "Test the best ResNet18 for {wildcards.dataset}: {wildcards.prior}, λ = {wildcards.lam},"
        " seed {wildcards.seed}"
    shell:
        "exec nfpi test-classifier --data {params.data:q} --output {output.metrics:q} {params.candidates:q}"
        " > {log:q} 2>&1"
