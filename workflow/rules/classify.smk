rule train_classifier:
    """Train a classifier on generated images."""
    input:
        **plan.splits("train", "validation"),
        **plan.generated_images(),
        published=inputs.given_weights,
    output:
        **plan.outputs(TrainClassifier, CANDIDATE),
    log:
        jobs.log("train_classifier", CANDIDATE),
    benchmark:
        jobs.benchmark("train_classifier", CANDIDATE)
    priority: jobs.priority("train_classifier")
    conda:
        ENVIRONMENT
    threads: jobs.threads("train_classifier")
    resources:
        **jobs.resources("train_classifier"),
    params:
        **declarations.of(TrainClassifier),
        data=subpath(input.train_images, ancestor=2),
        generated=subpath(input.generated_images, parent=True),
        folder=subpath(output.model, parent=True),
    message:
        "Train {wildcards.classifier} for {wildcards.dataset}: {wildcards.flow}, {wildcards.prior},"
        " λ = {wildcards.weight}, seed {wildcards.seed}, temperature {wildcards.temperature}"
        "{params.changed}"
    shell:
        "exec nfpi --log {log:q} train-classifier {params.settings:q} {params.execution:q}"
        " --data {params.data:q} --generated {params.generated:q}"
        " --output {params.folder:q}"


rule test_classifier:
    """Choose the temperature whose classifier is best on the validation split, and test this classifier (CNN-Acc)."""
    input:
        **plan.splits("validation", "test"),
        models=inputs.candidate_files("model"),
        candidates=inputs.candidate_files("metrics"),
        complete=inputs.candidate_files("manifest"),
    output:
        **plan.outputs(TestClassifier, GENERATED_CLASSIFIER),
    log:
        jobs.log("test_classifier", GENERATED_CLASSIFIER),
    benchmark:
        jobs.benchmark("test_classifier", GENERATED_CLASSIFIER)
    priority: jobs.priority("test_classifier")
    conda:
        ENVIRONMENT
    threads: jobs.threads("test_classifier")
    resources:
        **jobs.resources("test_classifier"),
    params:
        **declarations.of(TestClassifier),
        data=subpath(input.test_images, ancestor=2),
        candidates=inputs.candidate_folders,
        folder=subpath(output.metrics, parent=True),
    message:
        "Test the best {wildcards.classifier} for {wildcards.dataset}: {wildcards.flow}, {wildcards.prior},"
        " λ = {wildcards.weight}, seed {wildcards.seed}{params.changed}"
    shell:
        "exec nfpi --log {log:q} test-classifier {params.settings:q} {params.execution:q}"
        " --data {params.data:q} --output {params.folder:q} {params.candidates:q}"


rule train_classifier_on_real:
    """Train a classifier on real images, with or without standard and latent augmentations."""
    input:
        **plan.splits("train", "validation"),
        augmented=inputs.augmented_images,
        fine_tuned=inputs.weights_to_fine_tune,
        published=inputs.published_weights,
    output:
        **plan.outputs(TrainClassifier, TRAINED_CLASSIFIER),
    log:
        jobs.log("train_classifier", REAL_CLASSIFIER),
    benchmark:
        jobs.benchmark("train_classifier", REAL_CLASSIFIER)
    priority: jobs.priority("train_classifier")
    conda:
        ENVIRONMENT
    threads: jobs.threads("train_classifier")
    resources:
        **jobs.resources("train_classifier"),
    params:
        **declarations.of(TrainClassifier),
        data=subpath(input.train_images, ancestor=2),
        files=inputs.options_of_real_classifier,
        folder=subpath(output.model, parent=True),
    message:
        "Train {wildcards.classifier} on {wildcards.dataset}: augmentation {wildcards.augmentation},"
        " {wildcards.source}, seed {wildcards.seed}{params.changed}"
    shell:
        "exec nfpi --log {log:q} train-classifier {params.settings:q} {params.execution:q}"
        " --data {params.data:q} {params.files:q} --output {params.folder:q}"


rule test_classifier_on_real:
    """Test a classifier trained on real images."""
    input:
        **plan.splits("validation", "test"),
        **plan.trained_classifier(),
        unknown=inputs.unknown_images,
    output:
        **plan.outputs(TestClassifier, REAL_CLASSIFIER),
    log:
        jobs.log("test_classifier", REAL_CLASSIFIER),
    benchmark:
        jobs.benchmark("test_classifier", REAL_CLASSIFIER)
    priority: jobs.priority("test_classifier")
    conda:
        ENVIRONMENT
    threads: jobs.threads("test_classifier")
    resources:
        **jobs.resources("test_classifier"),
    params:
        **declarations.of(TestClassifier),
        data=subpath(input.test_images, ancestor=2),
        candidate=subpath(input.model, parent=True),
        unknown=inputs.options_of_unknown,
        folder=subpath(output.metrics, parent=True),
    message:
        "Test {wildcards.classifier} on {wildcards.dataset}: augmentation {wildcards.augmentation},"
        " {wildcards.source}, seed {wildcards.seed}{params.changed}"
    shell:
        "exec nfpi --log {log:q} test-classifier {params.settings:q} {params.execution:q}"
        " --data {params.data:q} --output {params.folder:q} {params.candidate:q} {params.unknown:q}"


rule measure_samples:
    """Measure the images that a classifier was trained on, by the same classifier trained on real images."""
    input:
        **plan.splits("train", "test"),
        **plan.reference_classifier(),
        **plan.classifier_of_generated(),
        generated=inputs.generated_files,
        published=inputs.inception_weights,
    output:
        **plan.outputs(MeasureSamples, MEASURED_SAMPLES),
    log:
        jobs.log("measure_samples", MEASURED_SAMPLES),
    benchmark:
        jobs.benchmark("measure_samples", MEASURED_SAMPLES)
    priority: jobs.priority("test_classifier")
    conda:
        ENVIRONMENT
    threads: jobs.threads("test_classifier")
    resources:
        **jobs.resources("test_classifier"),
    params:
        **declarations.of(MeasureSamples, augmentation=REFERENCE_AUGMENTATION),
        data=subpath(input.test_images, ancestor=2),
        reference=subpath(input.reference, parent=True),
        tested=subpath(input.metrics, parent=True),
        generated=inputs.generated_folders,
        folder=subpath(output.metrics, parent=True),
    message:
        "Measure images generated by {wildcards.flow} for {wildcards.dataset}: {wildcards.prior},"
        " λ = {wildcards.weight}, seed {wildcards.seed}, by {wildcards.classifier}{params.changed}"
    shell:
        "exec nfpi --log {log:q} measure-samples {params.settings:q} {params.execution:q}"
        " --data {params.data:q} --reference {params.reference:q} --tested {params.tested:q}"
        " --output {params.folder:q} {params.generated:q}"
