"""Which architectures exist, without importing torch, so that a mistyped one is refused at once."""

from moonshine.suggest import suggest

RESNETS = ("resnet18", "resnet34")


def check_architecture(name: str) -> None:
    """Raise ValueError with a suggestion where `name` is no architecture that can be built."""
    if name not in RESNETS:
        raise ValueError(f'arch: "{name}" is no architecture{suggest(name, RESNETS)}')
