"""The typed schema of params.yaml: every key, its type and its range.

The schema checks and never fills in: a value that can change a result is either required or None, and what None
means is decided by the code that uses it, which the stages declare. Only `machine` has defaults, for nothing in it
changes a result. So an edit of this file makes no trained network stale.
"""

from pathlib import PurePath
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from moonshine.models.conv_spec import parse_conv
from moonshine.models.names import check_architecture, is_torchvision_resnet, wide_resnet_shape
from moonshine.params.urls import check_url
from moonshine.project.rows import Row

# Names become folders, DVC parameters and Snakemake wildcards: no dots, slashes or blanks.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Epoch = Count
Share = Annotated[float, Field(gt=0, le=1)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Url = Annotated[str, AfterValidator(check_url)]
SlurmName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.,-]*$", max_length=200)]
Md5 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]

Source = Literal["digits", "fashion_mnist", "cifar10", "cifar100", "imagenet", "imagenette", "folder"]
DATA_FILES: dict[str, tuple[str, ...]] = {
    "digits": (),
    "fashion_mnist": ("train_images", "train_labels", "val_images", "val_labels"),
    "cifar10": ("archive",),
    "cifar100": ("archive",),
    "imagenet": ("train", "validation", "devkit"),
    "imagenette": ("archive",),
    "folder": (),
}
"""Source -> the roles of the files that it is made from, as `dataset.files` names them."""
PHOTOGRAPHS = ("imagenet", "imagenette", "folder")
"""Sources of large images, which are kept as JPEG."""
GREY = ("digits", "fashion_mnist")
CLASSES = {"digits": 10, "fashion_mnist": 10, "imagenette": 10}
"""Of the sources whose files cannot have other ones."""
DIGITS = 1797
"""Images of the source digits."""


class Section(BaseModel):
    """Unknown keys are errors, and so are values of another type: no "1e-3" for 0.001, no true for 1."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def _one_line(text: str) -> str:
    if not text.strip() or text.splitlines() != [text]:
        raise ValueError(f"must be one line that is not blank, found {text!r}")
    return text


Line = Annotated[str, AfterValidator(_one_line)]
"""A cell of a table or a heading."""


def _path(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError(f"must be a path without control characters, found {text!r}")
    return text


def _downloads(path: str) -> str:
    """Files there get names and contents from params.yaml, which must not put them into ~/.ssh or among the code."""
    if not PurePath(path).name.endswith("downloads"):
        raise ValueError(f"{path!r} must end in downloads, as in /disk/downloads")
    return path


FilePath = Annotated[str, AfterValidator(_path)]
UrlOrPath = Annotated[FilePath, AfterValidator(lambda text: check_url(text) if ":" in text else text)]


class DataFile(Section):
    """A file that a data set is made from, with exactly one checksum."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    url: Url | None = None
    """Where it can be downloaded by anybody."""
    sha256: Sha256 | None = None
    md5: Md5 | None = None
    content_sha256: Sha256 | None = None
    """Of what a .gz file holds, for files that are compressed differently in different places."""

    @model_validator(mode="after")
    def _is_pinned_once(self) -> "DataFile":
        if sum(checksum is not None for checksum in (self.sha256, self.md5, self.content_sha256)) != 1:
            raise ValueError("needs exactly one of sha256, md5 and content_sha256")
        return self


class Evaluation(Section):
    """How photographs are looked at when errors are measured: scaled, then the central square of `dataset.size`."""

    resize: Count
    """Shorter side in pixels."""


class Dataset(Section):
    """What `prepare` makes below data/<name>/."""

    name: Name
    """Folder below data/; two preparations of one source need two names."""
    source: Source
    """Where the images come from."""
    classes: Count
    channels: Count
    size: Count
    """Number of classes and colour channels, side in pixels that networks see; small images are resized to it."""
    validation: Count | None = None
    """Images held out for validation, stratified by class, where the source has no split of its own."""
    training: Count | None = None
    """Training images kept, stratified by class, where the source has more than are wanted."""
    files: dict[str, DataFile] | None = None
    """The files that the source is made from, by their roles."""
    evaluation: Evaluation | None = None
    """Required for photographs."""
    resize: Count | None = None
    """Shorter side to which larger photographs are scaled when they are prepared; None keeps them as they are."""
    shared: list[Name]
    licensed: list[Name]
    """The name is in one of them: data that DVC may cache and push, or data that stays where it is. Lists, because
    DVC makes its stages from lists."""

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> "Dataset":
        roles = DATA_FILES[self.source]
        found = self.files or {}
        if set(found) != set(roles):
            wanted = f"exactly {', '.join(roles)}" if roles else "no files"
            raise ValueError(f"files: {self.source} needs {wanted}, found {', '.join(found) or 'none'}")
        if self.validation and self.source != "digits":
            raise ValueError(f"validation: {self.source} has a validation split of its own")
        if self.source == "digits" and self.validation and not 10 <= self.validation <= DIGITS - 10:
            raise ValueError(f"validation: {self.validation} of {DIGITS} digits; both splits need ten, one a class")
        return self

    @model_validator(mode="after")
    def _images_are_the_sources(self) -> "Dataset":
        channels = 1 if self.source in GREY else 3
        if self.channels != channels:
            raise ValueError(f"channels: {self.channels}, but {self.source} has {channels}")
        if self.source in CLASSES and self.classes != CLASSES[self.source]:
            raise ValueError(f"classes: {self.classes}, but {self.source} has {CLASSES[self.source]}")
        if self.training and self.training < self.classes:
            raise ValueError(f"training: {self.training} images, but {self.classes} classes")
        return self

    @model_validator(mode="after")
    def _photographs_are_scaled(self) -> "Dataset":
        if self.source not in PHOTOGRAPHS:
            if self.evaluation or self.resize:
                raise ValueError(f"evaluation, resize: for photographs, not for {self.source}")
            return self
        if not self.evaluation:
            raise ValueError(f"evaluation: missing, {self.source} has photographs of any size")
        if self.training:
            raise ValueError(f"training: not for {self.source}")
        for key, side in (("evaluation.resize", self.evaluation.resize), ("resize", self.resize)):
            if side and side < self.size:
                raise ValueError(f"{key}: {side} is less than size {self.size}")
        return self

    @model_validator(mode="after")
    def _shared_or_licensed(self) -> "Dataset":
        if self.shared + self.licensed != [self.name]:
            raise ValueError(f"shared, licensed: one must be [{self.name}], the other []")
        return self


class Augmentation(Section):
    """What is drawn anew for each training image in each epoch."""

    pad: Annotated[int, Field(ge=0)] | None = None
    """Pixels of black border to pad with before a random crop of the original size (small images)."""
    flip: bool
    """Mirror every other image."""
    crop_scale: Annotated[list[Share], Field(min_length=2, max_length=2)] | None = None
    """Smallest and largest share of a photograph's area that a random crop takes."""

    @model_validator(mode="after")
    def _scale_ascends(self) -> "Augmentation":
        if self.crop_scale and self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError(f"crop_scale: {self.crop_scale[0]} is more than {self.crop_scale[1]}")
        return self


class Recipe(Section):
    """How every network of the experiment is trained: SGD with momentum and a stepwise learning rate."""

    epochs: Epoch
    batch_size: Count
    """Global, over all processes."""
    lr: Annotated[float, Field(gt=0)]
    lr_steps: list[Epoch]
    """The learning rate is multiplied by `lr_factor` after each of these epochs."""
    lr_factor: Annotated[float, Field(gt=0, le=1)]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    weight_decay: Annotated[float, Field(ge=0)]
    augmentation: Augmentation
    precision: Literal["float32", "bfloat16", "float16"]
    compile: bool
    """Compile the training step with torch.compile."""
    threads: Count
    """CPU threads of one process. Another number rounds differently, so it is part of the recipe."""
    processes: Count | None = None
    """Processes that share each batch, one for each GPU; None is one. Another number rounds differently, too."""

    @model_validator(mode="after")
    def _steps_ascend_within_training(self) -> "Recipe":
        if sorted(set(self.lr_steps)) != self.lr_steps:
            raise ValueError("lr_steps: must ascend")
        if self.lr_steps and self.lr_steps[-1] >= self.epochs:
            raise ValueError(f"lr_steps: {self.lr_steps[-1]} is not before the last of {self.epochs} epochs")
        return self

    @model_validator(mode="after")
    def _every_process_gets_images(self) -> "Recipe":
        if self.processes and self.processes > self.batch_size:
            raise ValueError(f"processes: {self.processes} cannot share a batch of {self.batch_size}")
        return self


class Network(Section):
    """One architecture; `None` is what the architecture's authors chose."""

    arch: str
    """A classification network of torchvision by its name there, or `wrn-<depth>-<width>`."""
    conv: str | None = None
    """The cheap convolution that replaces the 3x3 ones behind the stem, spelled as in the paper."""
    block: Literal["basic", "single"] | None = None
    """Wide ResNets: two convolutions a block or one; None is one for B and BG, else two, as in the paper."""
    channels: Annotated[list[Count], Field(min_length=4, max_length=4)] | None = None
    """torchvision's ResNets: width of each of the four groups; the stem has the first group's."""
    stem: Literal["3x3"] | None = None
    """torchvision's ResNets: `3x3` is one 3x3 convolution of stride 1 and no pooling, for small images."""
    points: Annotated[list[str], Field(min_length=1)] | None = None
    """Modules whose outputs' attention is transferred, by their paths; None is the ends of the family's stages."""

    @model_validator(mode="after")
    def _names_are_known(self) -> "Network":
        check_architecture(self.arch)
        if self.conv is not None:
            parse_conv(self.conv)
        return self

    @model_validator(mode="after")
    def _settings_belong_to_the_architecture(self) -> "Network":
        if self.block is not None and not wide_resnet_shape(self.arch):
            raise ValueError(f"block: only wide ResNets (wrn-40-2) have a choice of blocks, {self.arch} has not")
        for key in ("channels", "stem"):
            if getattr(self, key) is not None and not is_torchvision_resnet(self.arch):
                raise ValueError(f"{key}: only torchvision's ResNets can be changed so, {self.arch} is none")
        if self.points and len(set(self.points)) != len(self.points):
            raise ValueError("points: one is named twice")
        return self


class Method(Section):
    """A way to distil: attention transfer (beta, groups), knowledge distillation (alpha, temperature), or both."""

    beta: Annotated[float, Field(ge=0)] | list[Annotated[float, Field(ge=0)]] | None = None
    """Weight of the attention loss, one for all groups or one for each."""
    groups: Annotated[list[Count], Field(min_length=1)] | None = None
    """Attention points of teacher and student that are paired, counted from 1: for ResNets the groups of blocks."""
    form: Literal["mean-square", "norm"] | None = None
    """Of the attention loss: the AT authors' code (None as well), or the paper's equation."""
    first_epoch: Epoch | None = None
    last_epoch: Epoch | None = None
    """Epochs, counted from 1, in which the attention loss is added; None is the first or the last of all."""

    alpha: Annotated[float, Field(ge=0, le=1)] | None = None
    """Weight of the knowledge loss; the cross-entropy with the labels has 1 - alpha."""
    temperature: Annotated[float, Field(gt=0)] | None = None
    """Logits of teacher and student are divided by it."""

    @model_validator(mode="after")
    def _knowledge_distillation_is_whole(self) -> "Method":
        if (self.alpha is None) != (self.temperature is None):
            raise ValueError("knowledge distillation needs both alpha and temperature")
        if self.alpha is None and self.beta is None and self.groups is None:
            raise ValueError("needs beta and groups (attention transfer), alpha and temperature (knowledge), or all")
        return self

    @model_validator(mode="after")
    def _attention_transfer_is_whole(self) -> "Method":
        if self.beta is None and self.groups is None:
            for key in ("form", "first_epoch", "last_epoch"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key}: belongs to attention transfer, which needs beta and groups")
            return self
        if self.beta is None or self.groups is None:
            raise ValueError("attention transfer needs both beta and groups")
        if isinstance(self.beta, list) and len(self.beta) != len(self.groups):
            raise ValueError(f"beta: {len(self.beta)} values for {len(self.groups)} groups")
        if len(set(self.groups)) != len(self.groups):
            raise ValueError("groups: one is named twice")
        if self.first_epoch and self.last_epoch and self.first_epoch > self.last_epoch:
            raise ValueError(f"first_epoch: {self.first_epoch} is after last_epoch {self.last_epoch}")
        return self


class Checkpoint(Section):
    """A published network: a file of PyTorch that holds its state dict."""

    url: UrlOrPath
    """https, or a path on this machine."""
    sha256: Sha256


class Distil(Section):
    """The distilled rows: every method with every network."""

    networks: list[Name]
    methods: list[Name]


class Published(Section):
    """A published column that stands beside the measured ones."""

    name: Line
    source: str
    values: dict[str, dict[Literal["top1", "top5"], float]]
    """For each row its errors in per cent."""


class Table(Section):
    """One table of the results page."""

    name: Name
    title: Line
    caption: str
    """Markdown, as the sources of published columns are."""
    rows: Annotated[list[str], Field(min_length=1)]
    columns: Annotated[list[Literal["top1", "top5", "parameters", "learnable", "macs", "size"]], Field(min_length=1)]
    published: list[Published] = []


class AttentionMaps(Section):
    """The picture of where the teacher and two students look, and the students that the index of results shows."""

    scratch: str
    distilled: str
    """Models, named as the teacher is."""
    images: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=12)]
    """Positions of validation images in the prepared data, counted from 0."""


class Job(Section):
    """What a cluster reserves for one job of a stage; the rest is as the cluster or the profile says."""

    partition: SlurmName | None = None
    account: SlurmName | None = None
    """One name, or several with commas; they become arguments of sbatch."""
    minutes: Count | None = None
    """Time limit. A training that needs more is submitted again and goes on."""
    memory_mb: Count | None = None


class Machine(Section):
    """What differs from machine to machine and changes no result; no stage declares it."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 300.0
    """At most so much work is lost when a run is killed."""
    checkpoint_steps: Count | None = None
    """Save after so many steps as well."""
    raw_data: dict[Source, FilePath] = {}
    """Source -> the folder where its files lie on this machine; they are only read."""
    downloads: Annotated[FilePath, AfterValidator(_downloads)] = "downloads"
    """Folder that keeps what was downloaded; several checkouts may share one."""
    download_seconds: Annotated[float, Field(gt=0)] = 30.0
    """A server that is silent for so long counts as gone."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that decode photographs; None is one for each CPU."""
    jobs: dict[Literal["prepare", "fetch", "train", "distil", "evaluate", "attention_maps", "report"], Job] = {}
    """What a cluster reserves for each job of these stages."""
    folders: list[FilePath] = []
    """More folders that containers must see, where links in data/ or in DVC's cache lead."""


class Params(Section):
    """The whole of params.yaml: one experiment."""

    experiment: Name
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
    dataset: Dataset
    recipe: Recipe
    networks: dict[Name, Network]
    teacher: str
    methods: dict[Name, Method]
    fetch: dict[Name, Checkpoint]
    train: list[Name]
    distil: Distil
    distil_more: Distil
    """The same once more, for methods that not every network of `distil` is to be distilled with."""
    titles: dict[str, Line]
    tables: Annotated[list[Table], Field(min_length=1)]
    """At least one: of none the stage would declare a folder that is empty, which git does not keep."""
    attention_maps: AttentionMaps
    machine: Machine = Machine()

    @property
    def rows(self) -> list[Row]:
        """Every row of the experiment: what is fetched, what is trained, what is distilled."""
        fetched = [Row("fetch", network) for network in self.fetch]
        trained = [Row("train", network) for network in self.train]
        distilled = [
            Row("distil", network, method)
            for group in (self.distil, self.distil_more)
            for method in group.methods
            for network in group.networks
        ]
        return fetched + trained + distilled

    def title(self, row: Row) -> str:
        return self.titles.get(row.name, row.name)

    @property
    def shown_models(self) -> dict[str, str]:
        """The three models whose attention the results page shows, by their roles."""
        shown = self.attention_maps
        return {"teacher": self.teacher, "scratch": shown.scratch, "distilled": shown.distilled}

    @property
    def seeded_rows(self) -> list[Row]:
        """The rows that are trained here, a network for each seed."""
        return [row for row in self.rows if row.stage != "fetch"]

    @property
    def attention_students(self) -> list[str]:
        """The networks that learn attention maps: those of a group with a method that transfers attention."""
        learning = [
            group.networks
            for group in (self.distil, self.distil_more)
            if any(name in self.methods and self.methods[name].groups for name in group.methods)
        ]
        return list(dict.fromkeys(network for networks in learning for network in networks))
