rule prepare:
    input:
        code("prepare"),
        f"moonshine/{SOURCES.format(source=PARAMS.dataset.source)}",
    output:
        manifest="data/{dataset}/manifest.json",
        train="data/{dataset}/train.arrow",
        val="data/{dataset}/val.arrow",
    log:
        "logs/prepare/{dataset}.log",
    resources:
        **resources_of("prepare"),
    params:
        dataset=config["dataset"],
    shell:
        "python -m moonshine prepare"


# Data that must not leave the machine: DVC hashes it where it lies and never copies it to a cache or remote.
use rule prepare as prepare_licensed with:
    output:
        manifest="data/{licensed}/manifest.json",
        train="data/{licensed}/train.arrow",
        val="data/{licensed}/val.arrow",
    log:
        "logs/prepare/{licensed}.log",
