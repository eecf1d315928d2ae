"""Which URLs files may come from: https, or plain http from this machine."""

import re
from urllib.parse import urlsplit

LOOPBACK = ("localhost", "127.0.0.1")


def check_url(url: str) -> str:
    """Return `url` if it is https://HOST/..., or http with a host of LOOPBACK; otherwise raise ValueError.

    It is parsed, not matched: the host of http://localhost:80@example.org/ is example.org. Characters that programs
    read differently (blanks, backslashes, anything but ASCII) are refused.
    """
    if re.search(r"[^!-~]|\\", url):
        raise ValueError(f"{url!r} has characters that a URL must encode, as %20")
    try:
        address = urlsplit(url)
        host, _ = address.hostname, address.port
    except ValueError as error:  # a port that is not a number, brackets around something that is not an address
        raise ValueError(f"{url} is not a URL ({error})") from None
    if "@" in address.netloc:
        raise ValueError(f"{url} has a user name before the host; remove everything up to the @")
    if not host or not (address.scheme == "https" or (address.scheme == "http" and host in LOOPBACK)):
        raise ValueError(f"{url} must start with https://HOST/; http is for {' and '.join(LOOPBACK)} only")
    return url
