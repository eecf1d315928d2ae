"""`moonshine search`: BlockSwap's search for the convolution of each residual block (Turner et al., ICLR 2020)."""

from moonshine.data.loading import open_images
from moonshine.images.store import read_manifest
from moonshine.models.arithmetic import make_deterministic
from moonshine.params import Params
from moonshine.project import artefacts
from moonshine.runs.identity import latencies_identity
from moonshine.runs.search_folder import open_search
from moonshine.runtime import signals
from moonshine.runtime.device import choose_device
from moonshine.runtime.files import write_text
from moonshine.runtime.progress import say
from moonshine.search.network import CandidateNetwork
from moonshine.search.ranking import Ranking, first_batch
from moonshine.search.result import as_text, found
from moonshine.search.sampling import LATENCY, sample
from moonshine.search.space import budget_of, search_space


def search(params: Params, name: str) -> None:
    """Write results/<experiment>/search/<name>.json: the best candidate by the search's criterion, and all of them.

    The file also says what it was made for, which `checks.made_for` compares. Raises ParamsError (exit code 2) for a
    budget that cannot be met, DataError (3) for a budget of latency without latencies, and Interrupted, once the
    potentials so far are saved, if it is stopped.
    """
    settings, recipe, title = params.search[name], params.recipe, f"search {name}"
    make_deterministic(recipe.threads)
    networks, table = search_space(params, name)
    budget = budget_of(params, name)
    choices, draws = sample(table, budget, settings.candidates, settings.seed, f"search.{name}", signals.poll)
    rate = f"{len(choices):,} of {draws:,} networks drawn ({100 * len(choices) / draws:.2g} %)"
    say(f"{title}: {rate} have {budget.cost} of {budget}")
    folder = artefacts.data_folder(params.dataset.name)
    potentials = None
    if settings.criterion == "fisher":
        ranking = Ranking(title, open_search(params, name), settings.candidates)
        if not ranking.finished:
            device = choose_device(params.machine.device, params.machine.trainings_per_gpu)
            images = open_images(folder, "train", device, params.machine.workers)
            batch, labels = first_batch(images, recipe.augmentation, settings.seed, settings.batch)
            candidates, positions = CandidateNetwork(networks, device), choices.tolist()
            ranking.complete(
                lambda candidate: candidates.become(positions[candidate], settings.seed, candidate),
                batch,
                labels,
                params.machine,
            )
        potentials = ranking.potentials
    result = found(settings.criterion, table, choices, draws, potentials)
    made_for = {
        **latencies_identity(params, name),
        "search": settings.model_dump(exclude_none=True),
        "network": params.search_architecture(name),
        "pool": [*table.pool],
        "recipe": {"augmentation": recipe.augmentation.model_dump(), "threads": recipe.threads},
        "dataset": {
            "name": params.dataset.name,
            "split": "train",
            "sha256": read_manifest(folder)["splits"]["train"]["sha256"],
        },
    }
    path = artefacts.search(params.experiment, name)
    write_text(path, as_text({**made_for, **result}))
    potential = "" if potentials is None else f", Fisher potential {result['potential']:.6g}"
    latency = f", {result[LATENCY]:.4g} ms" if LATENCY in result else ""
    say(
        f"{path}: candidate {result['candidate']:,}{potential}, {result['parameters']:,} parameters, "
        f"{result['macs']:,} MACs, {result['activations']:,} activations{latency}: {' '.join(result['convs'])}"
    )
