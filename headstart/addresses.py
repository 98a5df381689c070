"""Addresses: what of them may be shown, and how this machine's own are asked."""

import ipaddress
import re
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

_USER = re.compile(r"(?<=://)[^/\s]*@")
"""User and password, up to the last @ before the path; a slash in either is written %2F."""
_THIS_MACHINE = ("127.0.0.1", "localhost")


def without_password(text: str) -> str:
    """Return an address, or a text with addresses in it, as it may be shown.

    Args:
        text: The address or the text.

    Returns:
        It without the users and the passwords in the addresses.
    """
    return _USER.sub("", text)


def open_url(url: str, timeout_s: float) -> Any:
    """Ask for a page; of this machine past the proxy that the environment may name.

    A proxy would look for this machine's own addresses on itself.

    Args:
        url: Of the page; no user and password in it.
        timeout_s: Seconds to wait for each part of the answer.

    Returns:
        The answer, as `urllib.request.urlopen` gives it.

    Raises:
        OSError: Nobody answers.
        urllib.error.HTTPError: The answer is an error; an OSError too.
        ValueError: It is no address.
    """
    if not _is_here(url):
        return urllib.request.urlopen(url, timeout=timeout_s)
    past_proxies = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return past_proxies.open(url, timeout=timeout_s)


def past_the_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that send what is for this machine past a proxy.

    Args:
        environment: All variables; what they say of other machines is kept.

    Returns:
        no_proxy, and NO_PROXY with the same value, since some programs read only one of them and
        others one before the other.
    """
    given = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    names = [name.strip() for name in given.split(",")]
    missing = [] if "*" in names else [name for name in _THIS_MACHINE if name not in names]
    value = ",".join(([given] if given else []) + missing)
    return {"no_proxy": value, "NO_PROXY": value}


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
