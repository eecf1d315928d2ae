"""Weight files that params.yaml pins by address and checksum."""

from pathlib import Path
from urllib.parse import urlsplit

from moonshine.errors import DataError
from moonshine.params.schema import Machine, PinnedFile
from moonshine.runtime.files import sha256


def pinned_file(pin: PinnedFile, machine: Machine, key: str) -> Path:
    """The checked file: a local one where it is, a remote one downloaded once, under a name with its hash.

    Raises DataError (exit code 3) if it is missing or not the pinned one; `key` is where params.yaml has the pin.
    """

    def check(path: Path) -> None:
        if (found := sha256(path)) != pin.sha256:
            is_page = path.read_bytes()[:64].lstrip().startswith(b"<")
            raise DataError(
                f"{pin.url}: has sha256 {found}, params.yaml pins {pin.sha256}"
                f"{' (an HTML page)' if is_page else ''}; the file is {path}"
            )

    if "://" not in pin.url:
        path = Path(pin.url).expanduser()
        if not path.is_file():
            raise DataError(f"{path}: no such file; correct {key}.url in params.yaml")
    else:
        name = Path(urlsplit(pin.url).path).name[-200:]  # without a signature, which may be long
        path = Path(machine.downloads).expanduser() / f"{pin.sha256[:16]}-{name}"
        if not path.exists():
            from moonshine.inputs.download import download  # which most trainings do without

            download(pin.url, path, check, machine.download_seconds)
            return path
    check(path)
    return path
