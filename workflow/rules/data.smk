rule prepare:
    input:
        code("prepare"),
        f"moonshine/{SOURCES.format(**config['dataset'])}",
    output:
        manifest="data/{dataset}/manifest.json",
        train="data/{dataset}/train.arrow",
        val="data/{dataset}/val.arrow",
    log:
        "logs/prepare/{dataset}.log",
    params:
        dataset=config["dataset"],
    shell:
        "python -m moonshine prepare"
