rule fetch:
    input:
        code("fetch"),
        f"data/{DATASET}/manifest.json",
    output:
        model="models/{experiment}/fetch/{network}.safetensors",
        record="models/{experiment}/records/fetch/{network}.json",
    log:
        "logs/{experiment}/fetch/{network}.log",
    wildcard_constraints:
        network=one_of(PARAMS.fetch),
    resources:
        **resources_of("fetch"),
    params:
        checkpoint=lambda wildcards: config["fetch"][wildcards.network],
        network=lambda wildcards: config["networks"][wildcards.network],
    shell:
        "python -m moonshine fetch {wildcards.network:q}"


# A teacher for other classes, of which DVC makes a stage of its own: it is not evaluated.
use rule fetch as fetch_teacher with:
    wildcard_constraints:
        network=one_of(PARAMS.fetch_teacher),
    params:
        checkpoint=lambda wildcards: config["fetch_teacher"][wildcards.network],
        network=lambda wildcards: config["networks"][wildcards.network],


rule train:
    input:
        code("train"),
        DATA,
    output:
        model="models/{experiment}/train/{network}/seed{seed}.safetensors",
        record="models/{experiment}/records/train/{network}/seed{seed}.json",
        curve=report(
            "results/{experiment}/curves/train/{network}/seed{seed}.csv",
            caption="../report/curve.rst",
            category="Curves",
            labels={"row": "train/{network}", "seed": "{seed}"},
        ),
    log:
        "logs/{experiment}/train/{network}/seed{seed}.log",
    wildcard_constraints:
        network=one_of(PARAMS.train),
    threads: PARAMS.recipe.threads * PROCESSES
    resources:
        **resources_of("train"),
    params:
        recipe=config["recipe"],
        network=lambda wildcards: config["networks"][wildcards.network],
    shell:
        "python -m moonshine train {wildcards.network:q} --seed {wildcards.seed:q}"


# Networks that begin with the teacher's weights, of which DVC makes a stage of its own.
use rule train as train_from_teacher with:
    input:
        code("train"),
        DATA,
        teacher=f"models/{{experiment}}/{PARAMS.teacher}.safetensors",
    wildcard_constraints:
        network=one_of(PARAMS.train_from_teacher),


rule distil:
    input:
        code("distil"),
        DATA,
        teacher=f"models/{{experiment}}/{PARAMS.teacher}.safetensors",
    output:
        model="models/{experiment}/distil/{method}/{network}/seed{seed}.safetensors",
        record="models/{experiment}/records/distil/{method}/{network}/seed{seed}.json",
        curve=report(
            "results/{experiment}/curves/distil/{method}/{network}/seed{seed}.csv",
            caption="../report/curve.rst",
            category="Curves",
            labels={"row": "distil/{method}/{network}", "seed": "{seed}"},
        ),
    log:
        "logs/{experiment}/distil/{method}/{network}/seed{seed}.log",
    wildcard_constraints:
        method=one_of(PARAMS.distil.methods),
    threads: PARAMS.recipe.threads * PROCESSES
    resources:
        **resources_of("distil"),
    params:
        recipe=config["recipe"],
        network=lambda wildcards: config["networks"][wildcards.network],
        method=lambda wildcards: config["methods"][wildcards.method],
    shell:
        "python -m moonshine distil {wildcards.method:q}/{wildcards.network:q} --seed {wildcards.seed:q}"


# Methods for some networks only, of which DVC makes a stage of its own.
use rule distil as distil_more with:
    wildcard_constraints:
        method=one_of(PARAMS.distil_more.methods),


# Convolutions for a network, which a person adopts: nothing here depends on it.
rule search:
    input:
        code("search"),
        TRAINING_DATA,
        latency=lambda wildcards: measured_latencies(block_latency_folder),
    output:
        "results/{experiment}/search/{search}.json",
    log:
        "logs/{experiment}/search/{search}.log",
    threads: PARAMS.recipe.threads
    resources:
        **resources_of("search"),
    params:
        search=lambda wildcards: config["search"][wildcards.search],
        augmentation=config["recipe"]["augmentation"],
        threads=PARAMS.recipe.threads,
    shell:
        "python -m moonshine search {wildcards.search:q}"
