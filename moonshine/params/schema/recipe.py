"""How networks are trained: the section `recipe` of params.yaml, and what networks and methods change in it."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from moonshine.params.schema.values import Count, Epoch, Section, Share

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
