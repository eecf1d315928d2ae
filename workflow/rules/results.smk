rule evaluate_fetch:
    input:
        code("evaluate"),
        VALIDATION_DATA,
        model="models/{experiment}/fetch/{network}.safetensors",
    output:
        predictions="models/{experiment}/predictions/fetch/{network}.parquet",
        metrics="results/{experiment}/metrics/fetch/{network}.json",
        confusion="results/{experiment}/confusion/fetch/{network}.csv",
        scores="results/{experiment}/scores/fetch/{network}.json",
    log:
        "logs/{experiment}/evaluate/fetch/{network}.log",
    wildcard_constraints:
        network=one_of(PARAMS.fetch),
    threads: PARAMS.recipe.threads
    resources:
        **resources_of("evaluate"),
    params:
        threads=PARAMS.recipe.threads,
    shell:
        "python -m moonshine evaluate fetch/{wildcards.network:q}"


rule evaluate_train:
    input:
        code("evaluate"),
        VALIDATION_DATA,
        models=expand(
            "models/{{experiment}}/train/{{network}}/seed{seed}.safetensors",
            seed=SEEDS,
        ),
    output:
        predictions=directory("models/{experiment}/predictions/train/{network}"),
        metrics=report(
            "results/{experiment}/metrics/train/{network}.json",
            caption="../report/metrics.rst",
            category="Metrics",
            labels={"row": "train/{network}"},
        ),
        confusion="results/{experiment}/confusion/train/{network}.csv",
        scores="results/{experiment}/scores/train/{network}.json",
    log:
        "logs/{experiment}/evaluate/train/{network}.log",
    wildcard_constraints:
        network=one_of(PARAMS.train),
    threads: PARAMS.recipe.threads
    resources:
        **resources_of("evaluate"),
    params:
        seeds=SEEDS,
        threads=PARAMS.recipe.threads,
    shell:
        "python -m moonshine evaluate train/{wildcards.network:q}"


use rule evaluate_train as evaluate_train_from_teacher with:
    wildcard_constraints:
        network=one_of(PARAMS.train_from_teacher),


rule evaluate_distil:
    input:
        code("evaluate"),
        VALIDATION_DATA,
        models=expand(
            "models/{{experiment}}/distil/{{method}}/{{network}}/seed{seed}.safetensors",
            seed=SEEDS,
        ),
    output:
        predictions=directory(
            "models/{experiment}/predictions/distil/{method}/{network}"
        ),
        metrics=report(
            "results/{experiment}/metrics/distil/{method}/{network}.json",
            caption="../report/metrics.rst",
            category="Metrics",
            labels={"row": "distil/{method}/{network}"},
        ),
        confusion="results/{experiment}/confusion/distil/{method}/{network}.csv",
        scores="results/{experiment}/scores/distil/{method}/{network}.json",
    log:
        "logs/{experiment}/evaluate/distil/{method}/{network}.log",
    wildcard_constraints:
        method=one_of(PARAMS.distil.methods),
    threads: PARAMS.recipe.threads
    resources:
        **resources_of("evaluate"),
    params:
        seeds=SEEDS,
        threads=PARAMS.recipe.threads,
    shell:
        "python -m moonshine evaluate distil/{wildcards.method:q}/{wildcards.network:q}"


use rule evaluate_distil as evaluate_distil_more with:
    wildcard_constraints:
        method=one_of(PARAMS.distil_more.methods),


rule compare:
    input:
        code("compare"),
        predictions=predictions(),
    output:
        pairs="results/{experiment}/comparison/pairs.csv",
        fidelity="results/{experiment}/comparison/fidelity.csv",
    log:
        "logs/{experiment}/compare.log",
    resources:
        **resources_of("compare"),
    params:
        seeds=SEEDS,
        fetch=config["fetch"],
        train=config["train"],
        train_from_teacher=config["train_from_teacher"],
        distil=config["distil"],
        distil_more=config["distil_more"],
        teacher=PARAMS.teacher,
    shell:
        "python -m moonshine compare"


rule quantise:
    input:
        code("quantise"),
        DATA,
        models=expand(
            "models/{{experiment}}/{{row}}/seed{seed}.safetensors", seed=SEEDS
        ),
    output:
        networks=directory("models/{experiment}/int8/{row}"),
        metrics=report(
            "results/{experiment}/metrics/int8/{row}.json",
            caption="../report/metrics.rst",
            category="Metrics",
            labels={"row": "{row}, int8"},
        ),
    log:
        "logs/{experiment}/quantise/{row}.log",
    threads: PARAMS.recipe.threads
    resources:
        **resources_of("quantise"),
    params:
        seeds=SEEDS,
        settings=lambda wildcards: config["quantise"][wildcards.row],
        threads=PARAMS.recipe.threads,
    shell:
        "python -m moonshine quantise {wildcards.row:q}"


rule quantise_fetch:
    input:
        code("quantise"),
        DATA,
        model="models/{experiment}/fetch/{network}.safetensors",
    output:
        network="models/{experiment}/int8/fetch/{network}.onnx",
        metrics="results/{experiment}/metrics/int8/fetch/{network}.json",
    log:
        "logs/{experiment}/quantise/fetch/{network}.log",
    wildcard_constraints:
        network=one_of(PARAMS.quantise_fetch),
    threads: PARAMS.recipe.threads
    resources:
        **resources_of("quantise"),
    params:
        settings=lambda wildcards: config["quantise_fetch"][wildcards.network],
        threads=PARAMS.recipe.threads,
    shell:
        "python -m moonshine quantise fetch/{wildcards.network:q}"


rule attention_maps:
    input:
        code("attention_maps"),
        VALIDATION_DATA,
        teacher=f"models/{{experiment}}/{PARAMS.teacher}.safetensors",
        scratch=f"models/{{experiment}}/{PARAMS.attention_maps.scratch}.safetensors",
        distilled=f"models/{{experiment}}/{PARAMS.attention_maps.distilled}.safetensors",
    output:
        report(
            "results/{experiment}/attention-maps/maps.svg",
            caption="../report/attention_maps.rst",
            category="Attention maps",
            labels={"theme": "light", "format": "svg"},
        ),
        report(
            "results/{experiment}/attention-maps/maps.png",
            caption="../report/attention_maps.rst",
            category="Attention maps",
            labels={"theme": "light", "format": "png"},
        ),
        report(
            "results/{experiment}/attention-maps/maps-dark.svg",
            caption="../report/attention_maps.rst",
            category="Attention maps",
            labels={"theme": "dark", "format": "svg"},
        ),
        report(
            "results/{experiment}/attention-maps/maps-dark.png",
            caption="../report/attention_maps.rst",
            category="Attention maps",
            labels={"theme": "dark", "format": "png"},
        ),
        "results/{experiment}/attention-maps/distances.json",
    log:
        "logs/{experiment}/attention_maps.log",
    threads: PARAMS.recipe.threads
    resources:
        **resources_of("attention_maps"),
    params:
        teacher=PARAMS.teacher,
        attention_maps=config["attention_maps"],
        titles=config["titles"],
        threads=PARAMS.recipe.threads,
    shell:
        "python -m moonshine attention-maps"


rule report:
    input:
        code("report"),
        maps=multiext(
            "results/{experiment}/attention-maps/",
            "maps.svg",
            "maps-dark.svg",
            "distances.json",
        ),
        curves=trained("results/{experiment}/curves/train/{network}/seed{seed}.csv")
        + trained(
            "results/{experiment}/curves/train/{network}/seed{seed}.csv",
            PARAMS.train_from_teacher,
        )
        + distilled(
            "results/{experiment}/curves/distil/{method}/{network}/seed{seed}.csv"
        )
        + distilled(
            "results/{experiment}/curves/distil/{method}/{network}/seed{seed}.csv",
            PARAMS.distil_more,
        ),
        comparison=multiext(
            "results/{experiment}/comparison/", "fidelity.csv", "pairs.csv"
        ),
        confusion=evaluated_rows("results/{experiment}/confusion/{row}.csv"),
        latency=lambda wildcards: measured_latencies(latency_folder),
        metrics=evaluated_rows("results/{experiment}/metrics/{row}.json")
        + quantised("results/{experiment}/metrics/int8/{row}.json")
        + fetched(
            "results/{experiment}/metrics/int8/fetch/{network}.json",
            PARAMS.quantise_fetch,
        ),
        searches=expand(
            "results/{{experiment}}/search/{search}.json", search=PARAMS.search
        ),
    output:
        page="results/{experiment}/README.md",
        web_page=report(
            "results/{experiment}/report.html",
            caption="../report/page.rst",
            category="Results page",
            labels={"experiment": "{experiment}"},
        ),
        headline="results/{experiment}/headline.json",
        tables=report(
            directory("results/{experiment}/tables"),
            patterns=["{table}.csv"],
            caption="../report/table.rst",
            category="Tables",
            labels={"table": "{table}"},
        ),
        figures=report(
            directory("results/{experiment}/figures"),
            patterns=["{figure}.svg"],
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        "logs/{experiment}/report.log",
    resources:
        **resources_of("report"),
    params:
        seeds=SEEDS,
        fetch=config["fetch"],
        train=config["train"],
        train_from_teacher=config["train_from_teacher"],
        distil=config["distil"],
        distil_more=config["distil_more"],
        titles=config["titles"],
        tables=config["tables"],
        attention_maps=config["attention_maps"],
        teacher=PARAMS.teacher,
        networks=config["networks"],
        methods=config["methods"],
        recipe=config["recipe"],
        dataset=config["dataset"],
    shell:
        "python -m moonshine report"
