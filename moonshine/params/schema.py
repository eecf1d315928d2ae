"""The typed schema of params.yaml: every key, its type and its range.

The schema checks and never fills in: a value that can change a result is either required or None, and the code that
uses it, which the stages declare, decides what None means. Only `machine` has defaults, because nothing in it changes a
result. So an edit of this file makes no trained network stale. What files in experiments/ may leave out is in
defaults.py, and `moonshine use` writes it into params.yaml.

The docstring below each key is its text in docs/parameters.md, which `make docs` writes.
"""

import re
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    Tag,
    model_serializer,
    model_validator,
)

from moonshine.models.architecture import architecture_of
from moonshine.models.conv_spec import parse_conv
from moonshine.models.names import check_architecture, is_torchvision_resnet, wide_resnet_shape
from moonshine.params.urls import check_url
from moonshine.project.records import Architecture
from moonshine.project.rows import Row

# Names become folders, DVC parameters and Snakemake wildcards: no dots, slashes or blanks.
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=60)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Epoch = Count
Share = Annotated[float, Field(gt=0, le=1)]
LearningRate = Annotated[float, Field(gt=0)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
WeightDecay = Annotated[float, Field(ge=0)]
ClassWeights = Literal["balanced"]
Schedule = Literal["steps", "cosine", "linear"]
Optimizer = Literal["sgd", "nesterov", "adamw"]
WarmupEpochs = Annotated[int, Field(ge=0, lt=2**31)]
LowestLearningRate = Annotated[float, Field(ge=0)]
GradientNorm = Annotated[float, Field(gt=0)]
LabelSmoothing = Annotated[float, Field(ge=0, lt=1)]
AverageDecay = Annotated[float, Field(ge=0, lt=1)]
MixingAlpha = Annotated[float, Field(ge=0.05, le=1000)]
"""Of much smaller ones, torch's float32 draws underflow: both gamma variates are 0, and their share becomes 0.5."""
Precision = Literal["float32", "tf32", "bfloat16", "float16"]
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
"""Source -> the roles of the files that it is made from, the keys of `dataset.files`."""
JPEG_SOURCES = ("imagenet", "imagenette", "folder")
"""Sources of JPEG images, which are stored compressed, as they are in the source."""
GREY = ("digits", "fashion_mnist")
CLASSES = {"digits": 10, "fashion_mnist": 10, "imagenette": 10}
"""Number of classes of the sources whose files fix it."""
DIGITS = 1797
"""Number of images of the source digits."""


class Section(BaseModel):
    """Unknown keys are errors, and so are values of the wrong type, such as "1e-3" for 0.001 or true for 1."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


NOT_OF_XML = re.compile(r"[^\t\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that no SVG file may have."""


def _one_line(text: str) -> str:
    if not text.strip() or text.splitlines() != [text]:
        raise ValueError(f"must be one line that is not blank, found {text!r}")
    if character := NOT_OF_XML.search(text):
        raise ValueError(f"must not contain the control character {character[0]!r}, found {text!r}")
    return text


Line = Annotated[str, AfterValidator(_one_line)]
"""A cell of a table, or a heading."""


def _path(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError(f"must be a path without control characters, found {text!r}")
    return text


def _downloads(path: str) -> str:
    """Names and contents of the files come from params.yaml, which must not write into ~/.ssh or over code."""
    if not PurePath(path).name.endswith("downloads"):
        raise ValueError(f"{path!r} must end in downloads, as in /disk/downloads")
    return path


FilePath = Annotated[str, AfterValidator(_path)]


def _below(text: str) -> str:
    path = PurePath(text)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"must be the path of a file below the folder of images, found {text!r}")
    return text


PathBelow = Annotated[FilePath, AfterValidator(_below)]
UrlOrPath = Annotated[FilePath, AfterValidator(lambda text: check_url(text) if ":" in text else text)]


class DataFile(Section):
    """A file that a data set is made from, with exactly one checksum."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """File name: letters, digits, `.`, `_` and `-`."""
    url: Url | None = None
    """Where anyone can download the file."""
    sha256: Sha256 | None = None
    """Checksum of the file. Exactly one of `sha256`, `md5` and `content_sha256` is required."""
    md5: Md5 | None = None
    """Checksum of the file."""
    content_sha256: Sha256 | None = None
    """sha256 of the content of a .gz file, for files that are compressed differently in different places."""

    @model_validator(mode="after")
    def _is_pinned_once(self) -> "DataFile":
        if sum(checksum is not None for checksum in (self.sha256, self.md5, self.content_sha256)) != 1:
            raise ValueError("needs exactly one of sha256, md5 and content_sha256")
        return self


class Evaluation(Section):
    """How JPEG images are preprocessed when errors are measured."""

    resize: Count
    """Shorter side, in pixels, to which an image is scaled before the central square of `dataset.size` is cropped."""


class Dataset(Section):
    """What `prepare` makes in `data/<name>/`."""

    name: Name
    """Folder below `data/`. Two preparations of one source need two names. If left out, the experiment's name."""
    source: Source
    """Where the images come from. `imagenet`, `imagenette` and `folder` have JPEG images, the others small images."""
    classes: Count
    """Number of classes. If left out, that of the source; for `folder`, its folders
    of classes are counted; labels in a CSV file or in Parquet shards are not."""
    channels: Count
    """Number of colour channels: 1 for `digits` and `fashion_mnist`, 3 for the others; 1 or 3 for `folder`, whose
    images are converted to grey or to RGB. If left out, 1 for `digits` and `fashion_mnist`, otherwise 3."""
    size: Count
    """Side, in pixels, of the square images that networks see. Small images are resized to it."""
    validation: Count | None = None
    """Number of images held out for validation, stratified by class; 360 if left out. Only for `digits`."""
    validation_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of each class held out for validation, at least one image; 0.2 if left out. Only for `folder`, and only if
    the images have no validation split of their own."""
    labels: PathBelow | None = None
    """CSV file with the columns `path`, `label` and, optionally, `split`, if folders do not show the classes. Its path
    and those in it are relative to `machine.raw_data.folder`. Only for `folder`."""
    exif_orientation: bool | None = None
    """Whether photographs are turned upright by the EXIF orientation that cameras store, which `moonshine predict` then
    does as well. If left out, their pixels are used as stored. Only for `folder`."""
    training: Count | None = None
    """Number of training images to keep, stratified by class, for small images; all if left out. At least as many
    images as there are classes must be kept, and at least as many left out. The validation split stays whole."""
    files: dict[str, DataFile] | None = None
    """Role -> a file that the source is made from. The files in `experiments/` list those of each source. Left out for
    `imagenet` if its images are not in the published archives ([layouts](data.md#imagenet))."""
    evaluation: Evaluation | None = None
    """How JPEG images are preprocessed when errors are measured. Not allowed for small images. If left out, JPEG
    images are scaled to `size` * 256 / 224, rounded."""
    resize: Count | None = None
    """Shorter side, in pixels, to which larger JPEG images are scaled once, during preparation. If left out, they stay
    as they are."""
    # lists, because DVC makes its stages from lists
    shared: list[Name]
    """`[<name>]`, or `[]` if the data set is licensed. A shared data set goes to DVC's cache and remotes with the
    rest. If left out, the opposite of `licensed`."""
    licensed: list[Name]
    """`[<name>]`, or `[]` if the data set is shared. A licensed data set stays in its folder, where DVC hashes it; it
    is never copied or pushed. If left out, the opposite of `shared`. If both are left out, `folder` and `imagenet` are
    licensed and other sources are shared: your own images are not pushed unless you write `shared: [<name>]`."""

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> "Dataset":
        roles = DATA_FILES[self.source]
        found = self.files or {}
        is_unpacked = self.source == "imagenet" and self.files is None
        if set(found) != set(roles) and not is_unpacked:
            wanted = f"exactly {', '.join(roles)}" if roles else "no files"
            raise ValueError(f"files: {self.source} needs {wanted}, found {', '.join(found) or 'none'}")
        if self.validation and self.source != "digits":
            instead = "use validation_share" if self.source == "folder" else "it has a validation split of its own"
            raise ValueError(f"validation: not for {self.source}; {instead}")
        for key in ("validation_share", "labels", "exif_orientation"):
            if getattr(self, key) is not None and self.source != "folder":
                raise ValueError(f"{key}: only for the source folder, not for {self.source}")
        if self.source == "digits" and self.validation and not 10 <= self.validation <= DIGITS - 10:
            raise ValueError(
                f"validation: {self.validation} of {DIGITS} digits; both splits need at least ten, one per class"
            )
        return self

    @model_validator(mode="after")
    def _images_are_the_sources(self) -> "Dataset":
        if self.source == "folder":
            if self.channels not in (1, 3):
                raise ValueError(f"channels: {self.channels}; must be 1, for grey, or 3")
        elif self.channels != (channels := 1 if self.source in GREY else 3):
            raise ValueError(f"channels: {self.channels}, but {self.source} has {channels}")
        if self.source in CLASSES and self.classes != CLASSES[self.source]:
            raise ValueError(f"classes: {self.classes}, but {self.source} has {CLASSES[self.source]}")
        if self.training and self.training < self.classes:
            raise ValueError(f"training: {self.training} images, but {self.classes} classes")
        return self

    @model_validator(mode="after")
    def _jpeg_images_are_scaled(self) -> "Dataset":
        if self.source not in JPEG_SOURCES:
            if self.evaluation or self.resize:
                raise ValueError(f"evaluation, resize: for JPEG images, not for {self.source}")
            return self
        if not self.evaluation:
            raise ValueError(f"evaluation: missing; the JPEG images of {self.source} have any size")
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
    """Random changes, drawn for each training image in each epoch."""

    pad: Annotated[int, Field(ge=0)] | None = None
    """Width, in pixels, of the black border that is added before a random crop of the original size. For small images;
    no crop if left out."""
    flip: bool
    """Random horizontal flip (p = 0.5). If left out, `false` for `digits`, `true` for the other sources."""
    crop_scale: Annotated[list[Share], Field(min_length=2, max_length=2)] | None = None
    """Smallest and largest share of the area that a random crop takes, for JPEG images; not allowed for small ones. If
    left out, `[0.08, 1.0]`."""
    crop_size: Count | None = None
    """Side, in pixels, to which random crops of JPEG images are scaled, for training at another resolution than that of
    `dataset.size`, which is used if left out. Validation, costs and attention maps stay at `dataset.size`."""
    trivial_augment: bool | None = None
    """Whether TrivialAugment changes each image, after crop and flip; `false` if left out."""
    cutout: Count | None = None
    """Side, in pixels, of a square that is erased from each image; no cutout if left out."""
    random_erasing: Share | None = None
    """Probability with which a random rectangle is erased from an image; no random erasing if left out."""
    mixup: MixingAlpha | None = None
    """alpha of mixup, which replaces images by weighted means of two; no mixup if left out. With both `mixup` and
    `cutmix`, each batch gets one of them, with equal probability."""
    cutmix: MixingAlpha | None = None
    """alpha of cutmix, which pastes a box of another image into each image; no cutmix if left out."""

    @property
    def mixes(self) -> bool:
        """Whether images, and with them labels, are mixed."""
        return self.mixup is not None or self.cutmix is not None

    @model_serializer(mode="wrap")
    def _without_later_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A later key that is left out changes neither the identity of runs from before it nor their results pages."""
        first = ("pad", "flip", "crop_scale")
        return {key: value for key, value in dump(self).items() if key in first or value is not None}

    @model_validator(mode="after")
    def _scale_ascends(self) -> "Augmentation":
        if self.crop_scale and self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError(f"crop_scale: {self.crop_scale[0]} is more than {self.crop_scale[1]}")
        return self


def _ascending(steps: list[int]) -> list[int]:
    if sorted(set(steps)) != steps:
        raise ValueError("must ascend")
    return steps


LearningRateSteps = Annotated[list[Epoch], AfterValidator(_ascending)]


class MisfitError(ValueError):
    """A key that does not fit another one of the same recipe, which may be in another place of params.yaml."""

    def __init__(self, key: str, other: str, reason: str):
        super().__init__(f"{key}: {reason}")
        self.key, self.other, self.reason = key, other, reason


class Recipe(Section):
    """How networks are trained.

    `Params.recipe_of` gives that of a row, with what `networks` and `methods` change in it.
    """

    epochs: Epoch
    """Number of passes over the training images."""
    batch_size: Count
    """Images per step, summed over all processes. The last batch, or a process's share of it, must not be a single
    image if batch norm would then see one value per channel."""
    lr: LearningRate
    """Learning rate at the start, or after the warm-up."""
    schedule: Schedule | None = None
    """How the learning rate changes: by `steps`, as `lr_steps` has it; or, at every step of the optimiser, along half a
    `cosine` or in a `linear` way from `lr` to `lr_min` at the end of training. `steps` if left out."""
    lr_steps: LearningRateSteps
    """Epochs, counted from 1, after each of which the learning rate is multiplied by `lr_factor`. `[]` keeps it
    constant, and is required for other schedules than `steps`. If left out, `[]` for those, otherwise after 30, 60 and
    90 % of the epochs, rounded down."""
    lr_factor: Share
    """Factor by which the learning rate changes at each of `lr_steps`; without these, it has no effect. If left out,
    0.1."""
    lr_min: LowestLearningRate | None = None
    """Learning rate to which `cosine` and `linear` fall; 0 if left out."""
    warmup_epochs: WarmupEpochs | None = None
    """First epochs in which the learning rate rises linearly, at every step, from a hundredth of its value. `cosine`
    and `linear` fall after them; `lr_steps` are counted from the start of training. 0 if left out."""
    optimizer: Optimizer | None = None
    """PyTorch's SGD, the same with Nesterov momentum, or AdamW. `sgd` if left out."""
    momentum: Momentum
    """Momentum of SGD. For `adamw`, beta1; its beta2 is 0.999. If left out, 0.9."""
    weight_decay: WeightDecay
    """Weight decay, as PyTorch's optimiser defines it: added to the gradient by SGD, decoupled in AdamW, where it
    usually has to be larger. If left out, 0.0001."""
    norm_weight_decay: WeightDecay | None = None
    """Weight decay of the weights and biases of normalisation layers, usually 0. Biases of other layers have
    `weight_decay`. The same as `weight_decay` if left out."""
    clip_grad_norm: GradientNorm | None = None
    """Largest L2 norm of the gradient of all parameters; a longer gradient is scaled down to it. Not limited if left
    out."""
    augmentation: Augmentation
    """Random changes to the training images. If left out, `flip` and `crop_scale` as below for JPEG images; for small
    images, `flip` and a `pad` of an eighth of their size, rounded down."""
    images: Count | None = None
    """Number of training images to train on; all if left out. They are the first of a fixed order, the same for every
    seed, so a larger number adds images to those of a smaller one. Each class has its share to
    within one image, and a class whose share is less than one image has one. At least as many images as there are
    classes are needed."""
    class_weights: ClassWeights | None = None
    """`balanced` multiplies the cross-entropy of each image by images / (classes * images of its class), counted over
    the images that are trained on, so that each class counts as much as any other. Not weighted if left out."""
    label_smoothing: LabelSmoothing | None = None
    """Share of the target that is spread evenly over all classes in the cross-entropy with the labels, also in that of
    a student. The validation loss is not smoothed. 0 if left out."""
    ema_decay: AverageDecay | None = None
    """Decay, per step, of an exponential moving average of the weights and of batch norm's statistics, such as 0.999.
    The average is what is validated and published. 0, which is no average, if left out."""
    zero_init_residual: bool | None = None
    """Whether the weight of the last batch norm of each residual block is 0 at the start of training. For torchvision's
    ResNets without `init`. `false` if left out."""
    precision: Precision
    """Precision of the forward and backward pass. `float32` has 23 bits of mantissa everywhere; `tf32` lets GPUs of
    NVIDIA's Ampere generation or later round the factors in convolutions and matrix products to 10 bits, which is
    faster, and is `float32` on a CPU. `float16` uses loss scaling; a batch whose loss overflows is skipped
    and left out of the epoch's means. Attention maps are always computed in float32. If left out, `float32`."""
    compile: bool
    """Compile the networks, including the teacher, with torch.compile. Compiling takes a minute or two per training
    process. On a CPU, steps of small networks are then up to a tenth faster and need up to a quarter more memory.
    If left out, `false`."""
    threads: Count
    """CPU threads per process. Another number rounds differently, so it is part of the recipe, and the engines reserve
    that many. If left out, 1."""
    processes: Count | None = None
    """Processes that share each batch, one per GPU; 1 if left out. Another number rounds differently, and each process
    has its own batch norm statistics."""

    @model_validator(mode="after")
    def _schedule_is_within_training(self) -> "Recipe":
        warmup = self.warmup_epochs or 0
        if self.schedule in ("cosine", "linear") and self.lr_steps:
            raise MisfitError("lr_steps", "schedule", f"must be [] with the {self.schedule} schedule")
        if self.lr_steps and self.lr_steps[-1] >= self.epochs:
            reason = f"{self.lr_steps[-1]} is not before the last of {self.epochs} epochs"
            raise MisfitError("lr_steps", "epochs", reason)
        if warmup >= self.epochs:
            raise MisfitError("warmup_epochs", "epochs", f"{warmup} is not less than the {self.epochs} epochs")
        if self.lr_steps and self.lr_steps[0] <= warmup:
            reason = f"{self.lr_steps[0]} is not after the {warmup} warm-up epochs"
            raise MisfitError("lr_steps", "warmup_epochs", reason)
        return self

    @model_validator(mode="after")
    def _lowest_learning_rate_is_reached(self) -> "Recipe":
        if self.lr_min and self.schedule in (None, "steps"):
            raise MisfitError("lr_min", "schedule", "has no effect on the steps schedule")
        if self.lr_min and self.lr_min > self.lr:
            raise MisfitError("lr_min", "lr", f"{self.lr_min:g} is more than the learning rate {self.lr:g}")
        return self

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> "Recipe":
        if self.optimizer == "nesterov" and not self.momentum:
            raise MisfitError("momentum", "optimizer", "must be more than 0 for the nesterov optimizer")
        return self

    @model_validator(mode="after")
    def _every_process_gets_images(self) -> "Recipe":
        if self.processes and self.processes > self.batch_size:
            raise MisfitError("processes", "batch_size", f"{self.processes} cannot share a batch of {self.batch_size}")
        return self


class OwnRecipe(Section):
    """What is different from `recipe` in the training of one network, or with one method."""

    epochs: Epoch | None = None
    """Instead of `recipe.epochs`. If the steps of the learning rate are not before the last epoch, `lr_steps` must be
    given here too."""
    batch_size: Count | None = None
    """Instead of `recipe.batch_size`."""
    lr: LearningRate | None = None
    """Instead of `recipe.lr`."""
    schedule: Schedule | None = None
    """Instead of `recipe.schedule`. If that has `lr_steps` and this is not `steps`, `lr_steps: []` must be given
    here too."""
    lr_steps: LearningRateSteps | None = None
    """Instead of `recipe.lr_steps`, all of them."""
    lr_factor: Share | None = None
    """Instead of `recipe.lr_factor`."""
    lr_min: LowestLearningRate | None = None
    """Instead of `recipe.lr_min`."""
    warmup_epochs: WarmupEpochs | None = None
    """Instead of `recipe.warmup_epochs`."""
    optimizer: Optimizer | None = None
    """Instead of `recipe.optimizer`."""
    momentum: Momentum | None = None
    """Instead of `recipe.momentum`."""
    weight_decay: WeightDecay | None = None
    """Instead of `recipe.weight_decay`."""
    norm_weight_decay: WeightDecay | None = None
    """Instead of `recipe.norm_weight_decay`."""
    clip_grad_norm: GradientNorm | None = None
    """Instead of `recipe.clip_grad_norm`."""
    augmentation: Augmentation | None = None
    """Instead of `recipe.augmentation`, with all its keys."""
    images: Count | None = None
    """Instead of `recipe.images`."""
    class_weights: ClassWeights | None = None
    """Instead of `recipe.class_weights`."""
    label_smoothing: LabelSmoothing | None = None
    """Instead of `recipe.label_smoothing`."""
    ema_decay: AverageDecay | None = None
    """Instead of `recipe.ema_decay`."""
    zero_init_residual: bool | None = None
    """Instead of `recipe.zero_init_residual`."""
    precision: Precision | None = None
    """Instead of `recipe.precision`; for a distilled row, that of its teacher's forward pass too."""
    compile: bool | None = None
    """Instead of `recipe.compile`; for a distilled row, its teacher is compiled too."""

    @model_validator(mode="before")
    @classmethod
    def _what_engines_reserve_is_common(cls, keys: Any) -> Any:
        for key in ("threads", "processes"):
            if isinstance(keys, dict) and key in keys:
                raise ValueError(f"{key}: must be the same for all rows, because engines reserve it; set recipe.{key}")
        return keys


class PinnedFile(Section):
    """A file with weights, such as a PyTorch checkpoint or a safetensors file."""

    url: UrlOrPath
    """Where the file is: an https address, or a path on this machine."""
    sha256: Sha256
    """Checksum of the file. If left out for a path, it is computed when the experiment becomes the current one; for an
    address, it is required."""


TEACHER = "teacher"
"""The word for `init` that stands for the weights of the experiment's teacher."""


def _kind_of_init(value: Any) -> str:
    return "init[word]" if isinstance(value, str) else "init[file]"


Init = Annotated[
    Annotated[Literal["teacher"], Tag("init[word]")] | Annotated[PinnedFile, Tag("init[file]")],
    Discriminator(_kind_of_init),
]


class Network(Section):
    """One architecture. What is left out is as the architecture's authors chose it."""

    arch: str
    """A classification network of torchvision by its torchvision name (`resnet34`, `vgg16_bn`, `mobilenet_v2`), or a
    wide ResNet, `wrn-<depth>-<width>`."""
    conv: str | None = None
    """The cheap convolution that replaces each 3x3 convolution after the stem, spelled as in the paper; `S`, which
    replaces nothing, if left out."""
    block: Literal["basic", "single"] | None = None
    """Only for wide ResNets: blocks of two convolutions (`basic`) or of one (`single`). If left out, as in the paper:
    `single` for B and BG, otherwise `basic`."""
    channels: Annotated[list[Count], Field(min_length=4, max_length=4)] | None = None
    """Only for torchvision's ResNets: width of `layer1` to `layer4`. The stem has the width of `layer1`."""
    stem: Literal["3x3"] | None = None
    """Only for torchvision's ResNets: one 3x3 convolution of stride 1 without pooling, for small images. If left out,
    torchvision's own stem."""
    points: Annotated[list[str], Field(min_length=1)] | None = None
    """Modules whose outputs' attention is compared, as paths such as `features.13`. If left out, the ends of the stages
    of ResNets (all kinds), VGG, DenseNet, RegNet, ShuffleNet, ConvNeXt and MobileNetV2; other families need `points`
    for attention transfer."""
    recipe: OwnRecipe | None = None
    """Keys of `recipe` that are different for this network, in all its rows."""
    init: Init | None = None
    """Where the weights begin before training; random if left out. A file must have all tensors but the classifier
    head, which begins as without `init`. `teacher` takes all tensors that have the same name and shape in the teacher's
    model; a network with it is trained without the teacher's loss by `train_from_teacher`, not by `train`."""

    @model_validator(mode="after")
    def _names_are_known(self) -> "Network":
        check_architecture(self.arch)
        if self.conv is not None:
            parse_conv(self.conv)
        return self

    @model_validator(mode="after")
    def _settings_belong_to_the_architecture(self) -> "Network":
        if self.block is not None and not wide_resnet_shape(self.arch):
            raise ValueError(f"block: only valid for wide ResNets such as wrn-40-2, not for {self.arch}")
        for key in ("channels", "stem"):
            if getattr(self, key) is not None and not is_torchvision_resnet(self.arch):
                raise ValueError(f"{key}: only valid for torchvision's ResNets, not for {self.arch}")
        if self.points and len(set(self.points)) != len(self.points):
            raise ValueError("points: duplicate entry")
        return self


class Dist(Section):
    """DIST (Huang et al. 2022): correlations of the student's probabilities with the teacher's."""

    beta: Annotated[float, Field(ge=0)]
    """Weight of the loss between the classes of an image. If left out, 2."""
    gamma: Annotated[float, Field(ge=0)]
    """Weight of the loss between the images of a batch, class by class. If left out, 2."""
    temperature: Annotated[float, Field(gt=0)]
    """Temperature by which the logits of teacher and student are divided; the losses are multiplied by its square. If
    left out, 1."""

    @model_validator(mode="after")
    def _has_an_effect(self) -> "Dist":
        if not self.beta and not self.gamma:
            raise ValueError("beta, gamma: must not both be 0")
        return self


class Dkd(Section):
    """DKD (Zhao et al. 2022): the label's probability and the other classes among themselves, apart."""

    alpha: Annotated[float, Field(ge=0)]
    """Weight of the loss of the label against all other classes."""
    beta: Annotated[float, Field(ge=0)]
    """Weight of the loss of the other classes among themselves."""
    temperature: Annotated[float, Field(gt=0)]
    """Temperature by which the logits of teacher and student are divided; the losses are multiplied by its square."""
    warmup_epochs: Epoch | None = None
    """Number of epochs over which both weights grow to their full size; full from the start if left out."""

    @model_validator(mode="after")
    def _has_an_effect(self) -> "Dkd":
        if not self.alpha and not self.beta:
            raise ValueError("alpha, beta: must not both be 0")
        return self


class Ttm(Section):
    """TTM and WTTM (Zheng and Yang 2024): the teacher alone is softened."""

    weight: Annotated[float, Field(gt=0)]
    """Weight of the loss."""
    exponent: Annotated[float, Field(gt=0)]
    """Exponent g of the teacher's probabilities: a temperature of 1 / g on the teacher alone."""
    weighted: bool | None = None
    """Whether images on which the teacher is undecided count more, which is WTTM. If left out, they do not."""


class Method(Section):
    """What a student minimises: the cross-entropy with the labels and one or more losses against its teacher."""

    beta: Annotated[float, Field(ge=0)] | list[Annotated[float, Field(ge=0)]] | None = None
    """Weight of the attention loss: one for all `groups`, or a list with one for each. The loss is a mean over the
    positions of the map, so smaller maps need a smaller beta."""
    groups: Annotated[list[Count], Field(min_length=1)] | None = None
    """Attention points of teacher and student that are compared, counted from 1. For ResNets, 1 is `layer1`. If left
    out of a method with `beta`, all of the teacher's."""
    form: Literal["mean-square", "norm"] | None = None
    """Form of the attention loss. `mean-square`, as in the code of the authors of attention transfer, is used if left
    out. `norm`, as in the paper's equation, is the L2 norm of the difference, averaged over the batch, and needs
    another beta."""
    first_epoch: Epoch | None = None
    """First epoch, counted from 1, in which the attention loss is added; 1 if left out."""
    last_epoch: Epoch | None = None
    """Last epoch in which the attention loss is added; the last of all if left out."""

    alpha: Annotated[float, Field(ge=0)] | None = None
    """Weight of the distillation loss; the cross-entropy with the labels has 1 - alpha. Above 1 only with
    `cross_entropy`."""
    temperature: Annotated[float, Field(gt=0)] | None = None
    """Temperature T by which the logits of teacher and student are divided."""

    cross_entropy: Annotated[float, Field(ge=0)] | None = None
    """Weight of the cross-entropy with the labels. If left out, 1 - alpha in a method with `alpha`, otherwise 1."""
    standardise_logits: bool | None = None
    """Whether all losses that compare logits (`alpha`, `dist`, `dkd`, `ttm`) compare them with mean 0 and standard
    deviation 1 for each image. If left out, they do not."""
    dist: Dist | None = None
    """Adds the losses of DIST."""
    dkd: Dkd | None = None
    """Adds the losses of DKD."""
    ttm: Ttm | None = None
    """Adds the loss of TTM or WTTM."""

    recipe: OwnRecipe | None = None
    """Keys of `recipe` that are different with this method. They win over those of the network."""

    @model_validator(mode="after")
    def _knowledge_distillation_is_whole(self) -> "Method":
        if (self.alpha is None) != (self.temperature is None):
            raise ValueError("knowledge distillation needs both alpha and temperature")
        if self.alpha is not None and self.alpha > 1 and self.cross_entropy is None:
            raise ValueError(
                f"alpha: must be at most 1, found {self.alpha:g}, because the cross-entropy has 1 - alpha; or set its "
                "weight, cross_entropy"
            )
        return self

    @model_validator(mode="after")
    def _has_a_loss(self) -> "Method":
        if not self.uses_logits and self.beta is None and self.groups is None:
            raise ValueError(
                "needs beta and groups (attention transfer), alpha and temperature (knowledge distillation), dist, dkd "
                "or ttm"
            )
        if self.standardise_logits and not self.uses_logits:
            raise ValueError("standardise_logits: no loss compares logits; add alpha, dist, dkd or ttm")
        betas = self.beta if isinstance(self.beta, list) else [self.beta]
        others = (self.alpha, *betas, self.dist, self.dkd, self.ttm)
        if self.cross_entropy == 0 and not any(others):
            raise ValueError("cross_entropy: 0, like the weights of all other losses, so there is nothing to minimise")
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
            raise ValueError("groups: duplicate entry")
        if self.first_epoch and self.last_epoch and self.first_epoch > self.last_epoch:
            raise ValueError(f"first_epoch: {self.first_epoch} is after last_epoch {self.last_epoch}")
        return self

    @property
    def uses_logits(self) -> bool:
        """Whether a loss compares logits, for which teacher and student must have the same classes."""
        return any(loss is not None for loss in (self.alpha, self.dist, self.dkd, self.ttm))

    @property
    def weight_of_labels(self) -> float:
        """Weight of the cross-entropy with the labels; `distillation.objective.Distillation` decides it likewise."""
        return 1 - (self.alpha or 0) if self.cross_entropy is None else self.cross_entropy

    @model_validator(mode="after")
    def _labels_count(self) -> "Method":
        for key in ("label_smoothing", "class_weights"):
            if not self.weight_of_labels and getattr(self.recipe, key, None):
                raise ValueError(f"recipe.{key}: has no effect, because the cross-entropy with the labels has weight 0")
        return self

    @property
    def objective(self) -> dict[str, Any]:
        """The keys that are set, without `recipe`: the arguments of `distillation.objective.Distillation`."""
        return self.model_dump(exclude={"recipe"}, exclude_none=True)


class Normalisation(Section):
    """How images are normalised for a network: (pixel / 255 - mean) / std, for each channel."""

    mean: list[Annotated[float, Field(ge=0, le=1)]]
    """Mean of each channel, on a scale of 0 to 1."""
    std: list[Annotated[float, Field(gt=0, le=1)]]
    """Standard deviation of each channel, on the same scale."""


class Checkpoint(PinnedFile):
    """A published network: a PyTorch checkpoint or a safetensors file with its state dict."""

    normalisation: Normalisation | None = None
    """How the network was trained to see images. The data set's normalisation if left out."""
    classes: Count | None = None
    """Number of classes of the network, which are not those of the data set. Required in `fetch_teacher`, not allowed
    in `fetch`."""


class Distil(Section):
    """Every one of `networks` is distilled with every one of `methods`."""

    networks: list[Name]
    """Students. If left out of `distil`, all networks but the teacher's."""
    methods: list[Name]
    """Methods with which each of these students is distilled. If left out of `distil`, all that `distil_more` does not
    have."""


class Published(Section):
    """A column of published values."""

    name: Line
    """Name of the column."""
    source: str
    """Where the values were published: inline Markdown."""
    values: dict[str, dict[Literal["top1", "top5"], float]]
    """Row -> its errors in per cent."""


class Table(Section):
    """One table of the results page."""

    name: Name
    """Name of the table's files."""
    title: Line
    """Heading of the table."""
    caption: str
    """A sentence that explains the table to an outsider: inline Markdown without HTML."""
    rows: Annotated[list[str], Field(min_length=1)]
    """Rows, in order."""
    columns: Annotated[
        list[Literal["top1", "top5", "balanced_error", "parameters", "learnable", "macs", "size"]],
        Field(min_length=1),
    ]
    """Columns, in order: `top1` and `top5` are errors in per cent, `balanced_error` is the mean of the top-1 errors of
    all classes, `parameters` counts batch norm's running statistics, `learnable` does not, `size` is that of the model
    file."""
    compare: str | None = None
    """Row of the experiment that errors are compared with. If left out, distilled networks are compared with the same
    network trained on the labels alone."""
    published: list[Published] = []
    """Columns of published values, next to the measured ones."""


class AttentionMaps(Section):
    """The figure of where the teacher and two students look. The index of results shows the same students."""

    scratch: str
    """Model of a student trained without a teacher, named as `teacher` is: one of `train` or `fetch`. If left out, the
    network of `distilled`, or the teacher if that network was only distilled."""
    distilled: str
    """Model of a distilled student, usually the same network. It may be one of `train` or `fetch` if nothing is
    distilled. If left out, the first student that is in `train` or `fetch` too, preferably one with cheap convolutions
    that learned by attention transfer."""
    images: Annotated[list[Annotated[int, Field(ge=0)]], Field(max_length=12)]
    """Validation images to draw, by position in the prepared data, counted from 0. `[]` draws none, for example because
    they may not be published; the distances are measured all the same. If left out, `[]` for licensed data, otherwise
    a few."""


class Job(Section):
    """What a cluster reserves for one job of a stage. What is left out is as the cluster or the profile sets it."""

    partition: SlurmName | None = None
    """Partition to submit to."""
    account: SlurmName | None = None
    """Account to charge. `partition` and `account` are one name, or several separated by commas; they become arguments
    of sbatch."""
    minutes: Count | None = None
    """Time limit, in minutes. A training that needs more is submitted again and resumes."""
    memory_mb: Count | None = None
    """Memory, in MB."""
    cpus: Count | None = None
    """CPUs. If left out, `recipe.threads` for each process; with JPEG images and `device: cuda`, at least 12 for each
    GPU of a training, evaluation or drawing of attention maps, because CPUs decode the images."""


class Machine(Section):
    """Settings that differ between machines; no stage declares them, so a change makes nothing stale."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU if there is one, and refuses to run if torch cannot use it; `cuda` requires one."""
    trainings_per_gpu: Count = 1
    """Jobs that may use one GPU at the same time; more than one is meant for small networks, which alone leave it idle
    between kernels."""
    checkpoint_seconds: Annotated[float, Field(gt=0)] = 300.0
    """Time between checkpoints, in seconds: the most work that a kill can cost."""
    checkpoint_steps: Count | None = None
    """Also save a checkpoint every so many steps."""
    raw_data: dict[Source, FilePath] = {}
    """Source -> the folder of its `files` on this machine, such as `{cifar10: /data/cifar}`. It is only read."""
    downloads: Annotated[FilePath, AfterValidator(_downloads)] = "downloads"
    """Folder for downloaded files; several checkouts may share one. Its name must end in `downloads`, so that a
    params.yaml from somebody else cannot write elsewhere."""
    download_seconds: Annotated[float, Field(gt=0)] = 30.0
    """Time, in seconds, after which a silent server counts as unreachable."""
    workers: Annotated[int, Field(ge=0)] | None = None
    """Processes that decode JPEG images. If left out, one per usable CPU in `prepare`; otherwise one per CPU in this
    process's share, at most 16, and no more than fit into `/dev/shm`
    ([CPUs that load images](gpu-workstation.md#cpus-that-load-images))."""
    jobs: dict[Literal["prepare", "fetch", "train", "distil", "evaluate", "attention_maps", "report"], Job] = {}
    """Stage -> what a cluster reserves for each of its jobs."""
    folders: list[FilePath] = []
    """Further folders that containers must see, for example the targets of links in `data/` or in DVC's cache."""


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
    titles: dict[str, Line]
    """Row -> its title in tables and figures. A row without a title is shown by its name. If left out, `{}`."""
    tables: Annotated[list[Table], Field(min_length=1)]
    """The tables of the results page. The stage declares their folder as an output, and git keeps no empty
    folder. If left out, one table of all rows with `parameters`, `macs`, `top1` and, for more than five classes,
    `top5`."""
    attention_maps: AttentionMaps
    """The figure of where networks look. If left out, its keys are chosen as described below."""
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

    @property
    def seeded_rows(self) -> list[Row]:
        """The rows that are trained here, with one network per seed."""
        return [row for row in self.rows if row.stage != "fetch"]

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
