"""The whole of params.yaml."""

from typing import Annotated, Any

from pydantic import Field

from moonshine.models.architecture import architecture_of
from moonshine.params.schema.dataset import Dataset
from moonshine.params.schema.machine import Machine
from moonshine.params.schema.methods import Distil, Method
from moonshine.params.schema.networks import TEACHER, Checkpoint, Network
from moonshine.params.schema.recipe import Recipe
from moonshine.params.schema.results import AttentionMaps, Quantise, Table
from moonshine.params.schema.search import Search
from moonshine.params.schema.values import Line, Name, Section
from moonshine.project.records import Architecture
from moonshine.project.rows import Row


class Params(Section):
    """The whole of params.yaml: one experiment."""

    experiment: Name
    """Name of the folders below `models/` and `results/`: lower-case letters, digits, `-` and `_`."""
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
    """Every network is trained once per seed. If left out, `[0, 1, 2]`."""
    dataset: Dataset
    """The data set that `prepare` makes."""
    recipe: Recipe
    """How networks are trained. `networks` and `methods` may change parts of it for some rows."""
    networks: dict[Name, Network]
    """Name -> architecture. Names follow the rules of `experiment`."""
    teacher: str
    """The model that students learn from: `train/<network>/seed<k>` or `fetch/<network>`."""
    methods: dict[Name, Method]
    """Name -> a way to distil. If left out, `{}`."""
    fetch: dict[Name, Checkpoint]
    """Network -> a published checkpoint: the rows `fetch/<network>`. If left out, `{}`."""
    fetch_teacher: dict[Name, Checkpoint] = {}  # dvc.yaml has the same default
    """The same for a teacher that was trained on other classes than those of the data set. Its model is called
    `fetch/<network>` too. It is not evaluated and is in no table, and only its attention can be transferred."""
    train: list[Name]
    """Networks trained on the labels alone: the rows `train/<network>`. If left out, all that are neither in `fetch`
    nor begin with the teacher's weights."""
    train_from_teacher: list[Name]
    """The same for networks with `init: teacher`, which need the teacher's model: further rows `train/<network>`. If
    left out, all networks with `init: teacher`."""
    distil: Distil
    """Students and methods: the rows `distil/<method>/<network>`. If left out, all networks but the teacher's, with all
    methods."""
    distil_more: Distil
    """The same for further methods that only some networks are distilled with. If left out, both lists are empty."""
    search: dict[Name, Search] = {}  # dvc.yaml has the same default
    """Name -> a search for the convolutions of a network's residual blocks ([BlockSwap](search.md))."""
    titles: dict[str, Line]
    """Row -> its title in tables and figures. A row without a title is shown by its name. If left out, `{}`."""
    tables: Annotated[list[Table], Field(min_length=1)]
    """The tables of the results page. The stage declares their folder as an output, and git keeps no empty
    folder. If left out, one table of all rows with `parameters`, `macs`, `top1` and, for more than five classes,
    `top5`."""
    attention_maps: AttentionMaps
    """The figure of where networks look. If left out, its keys are chosen as described below."""
    quantise: dict[str, Quantise] = {}  # dvc.yaml has the same default
    """Row of `train` or `distil` -> how it is quantised to int8 and measured again, such as `{train/resnet18: {}}`."""
    quantise_fetch: dict[Name, Quantise] = {}  # dvc.yaml has the same default
    """Network of `fetch` -> the same for a published network."""
    machine: Machine = Machine()
    """Settings that differ between machines. A change makes nothing stale."""

    @property
    def rows(self) -> list[Row]:
        """Every row of the experiment: fetched, trained and distilled ones."""
        fetched = [Row("fetch", network) for network in self.checkpoints]
        trained = [Row("train", network) for network in (*self.train, *self.train_from_teacher)]
        distilled = [
            Row("distil", network, method)
            for group in (self.distil, self.distil_more)
            for method in group.methods
            for network in group.networks
        ]
        return fetched + trained + distilled

    @property
    def evaluated_rows(self) -> list[Row]:
        """The rows whose errors are measured: all but teachers for other classes."""
        return [row for row in self.rows if row.stage != "fetch" or row.network in self.fetch]

    @property
    def quantised_rows(self) -> dict[Row, Quantise]:
        """The rows that are also measured in int8, and how they are quantised."""
        published = {Row("fetch", network): settings for network, settings in self.quantise_fetch.items()}
        return published | {Row.parse(name): settings for name, settings in self.quantise.items()}

    @property
    def checkpoints(self) -> dict[str, Checkpoint]:
        """Network -> its published checkpoint, of `fetch` or `fetch_teacher`."""
        return {**self.fetch, **self.fetch_teacher}

    def checkpoint_key(self, network: str) -> str:
        """Where params.yaml has one of `checkpoints`, such as `fetch.resnet34`."""
        return f"{'fetch' if network in self.fetch else 'fetch_teacher'}.{network}"

    @property
    def used_methods(self) -> list[str]:
        """The methods that students are distilled with."""
        return list(dict.fromkeys([*self.distil.methods, *self.distil_more.methods]))

    def recipe_of(self, row: Row) -> Recipe:
        """How the row is trained: `recipe`, changed by the network's own recipe and then by the method's.

        Raises ValidationError if they do not fit together, which `read_params` reports.
        """
        settings = self.recipe.model_dump()
        for place in self._places(row):
            settings |= self.own_recipes[place]
        return Recipe.model_validate(settings)

    def recipe_key(self, row: Row, key: str) -> str:
        """Where params.yaml has a value of the row's recipe, such as `networks.resnet34.recipe.lr` or `recipe.lr`."""
        places = ["recipe", *(place for place in self._places(row) if key in self.own_recipes[place])]
        return f"{places[-1]}.{key}"

    def _places(self, row: Row) -> list[str]:
        """The keys of `own_recipes` that belong to the row; the last wins."""
        places = [f"networks.{row.network}.recipe", f"methods.{row.method}.recipe"]
        return [place for place in places if place in self.own_recipes]

    @property
    def own_recipes(self) -> dict[str, dict[str, Any]]:
        """What networks and methods change in the recipe, by place, such as `networks.resnet34.recipe`."""
        own = {f"networks.{name}.recipe": network.recipe for name, network in self.networks.items()}
        own |= {f"methods.{name}.recipe": method.recipe for name, method in self.methods.items()}
        return {place: recipe.model_dump(exclude_none=True) for place, recipe in own.items() if recipe}

    def training_size(self, row: Row) -> int:
        """Side, in pixels, of the square images that the row is trained on."""
        return self.recipe_of(row).augmentation.crop_size or self.dataset.size

    def title(self, row: Row) -> str:
        return self.titles.get(row.name, row.name)

    @property
    def shown_models(self) -> dict[str, str]:
        """The three models whose attention the results page shows, by role."""
        shown = self.attention_maps
        return {"teacher": self.teacher, "scratch": shown.scratch, "distilled": shown.distilled}

    def architecture(self, network: str) -> Architecture:
        """The description of one of `networks`, for images of the data set."""
        checkpoint = self.fetch_teacher.get(network)
        classes = (checkpoint and checkpoint.classes) or self.dataset.classes
        return architecture_of(self.networks[network], classes, self.dataset.channels)

    def search_architecture(self, name: str) -> Architecture:
        """The description of the architecture of one of `search`, with the standard convolution in all blocks."""
        return architecture_of(self.search[name], self.dataset.classes, self.dataset.channels)

    @property
    def seeded_rows(self) -> list[Row]:
        """The rows that are trained here, with one network per seed."""
        return [row for row in self.rows if row.stage != "fetch"]

    def seeds_of(self, row: Row) -> list[int | None]:
        """One for each network of the row; a single None for a fetched row, which has no seed."""
        return [None] if row.stage == "fetch" else [*self.seeds]

    def needs_teacher(self, row: Row) -> bool:
        """Whether the teacher's model decides the bytes of a row's networks."""
        return row.stage == "distil" or (row.stage == "train" and self.networks[row.network].init == TEACHER)

    @property
    def teacher_has_other_classes(self) -> bool:
        """Whether the teacher was trained on other classes than those of the data set."""
        return any(self.teacher == f"fetch/{network}" for network in self.fetch_teacher)

    @property
    def attention_students(self) -> list[str]:
        """The networks of each group with a method that transfers attention."""
        learning = [
            group.networks
            for group in (self.distil, self.distil_more)
            if any(name in self.methods and self.methods[name].groups for name in group.methods)
        ]
        return list(dict.fromkeys(network for networks in learning for network in networks))
