"""What students minimise, and which networks are distilled with it."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from moonshine.params.schema.recipe import OwnRecipe
from moonshine.params.schema.values import Count, Epoch, Name, Section


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


class Distil(Section):
    """Every one of `networks` is distilled with every one of `methods`."""

    networks: list[Name]
    """Students. If left out of `distil`, all networks but the teacher's."""
    methods: list[Name]
    """Methods with which each of these students is distilled. If left out of `distil`, all that `distil_more` does not
    have."""
