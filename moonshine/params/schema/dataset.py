"""The section `dataset` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from moonshine.params.schema.values import Count, Md5, Name, PathBelow, Section, Sha256, Url

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
