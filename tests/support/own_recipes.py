"""The toy experiment with rows that are trained in ways of their own."""

from typing import Any

from tests.support.project import toy_params


def own_recipes() -> dict[str, Any]:
    """A teacher with one epoch; three students, of which two share batches although their learning rates differ."""
    params = toy_params()
    thin = params["networks"]["teacher"]
    params["networks"] = {
        "teacher": {**thin, "recipe": {"epochs": 1, "lr": 0.02, "lr_steps": []}},
        "student": params["networks"]["student"],
        "slow": {**thin, "recipe": {"lr": 0.01, "lr_steps": []}},
        "small": {**thin, "recipe": {"images": 150, "batch_size": 50, "augmentation": {"flip": False}}},
    }
    params["methods"]["at"]["recipe"] = {"images": 300}
    params["methods"]["kd"] = {"alpha": 0.5, "temperature": 4.0}
    params["distil"] = {"networks": ["student", "slow"], "methods": ["at"]}
    params["distil_more"] = {"networks": ["small"], "methods": ["kd"]}
    return params
