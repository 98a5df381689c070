"""Addresses: hide the secrets in them, and query those of this machine."""

import ipaddress
import re
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

SECRETS: tuple[re.Pattern[str], ...] = tuple(
    map(
        re.compile,
        (
            # User and password in an address, up to the last @ before the path; a slash in either
            # is written %2F. As a path, an address has one slash.
            r"(?<=://)[^/\s'\"<>]*@|(?<=:/)[^/\s'\"<>]+@",
            # Signatures and tokens in an address; of this machine's own, the token is what
            # `headstart up` prints for its user.
            r"(?i)://(?!127\.0\.0\.1[:/]|localhost[:/])[^\s'\"<>]*[?&](?:x-amz-(?:signature|credential"
            r"|security-token)|sig|signature|token|access_token|api_?key|key|password|secret)="
            r"(?P<it>(?!\*\*\*)[^&\s'\"#<>]+)",
            # Keys of Amazon, Prefect, GitHub, Hugging Face and Google, by their form.
            r"\b(?P<it>(?:AKIA|ASIA)[A-Z0-9]{16}|pn[ub]_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{30,}"
            r"|hf_[A-Za-z0-9]{30,}|AIza[A-Za-z0-9_-]{35})",
            # Headers, as they stand in a request or in a mapping.
            r"(?i)\bauthorization['\"]?\s*[:=]\s*['\"]?(?P<it>(?:basic|bearer|token)\s+[^\s'\",}]+)",
            r"(?i)custom_headers['\"]?\s*[:=]\s*['\"]?(?P<it>\{[^}]*\})",
            # Variables and fields: PREFECT_API_KEY, aws_secret_access_key, …_TOKEN, …_PASSWORD.
            r"(?i)\b[a-z0-9]+(?:_[a-z0-9]+)*_(?:key|secret|token|password|auth_string)['\"]?\s*[=:]\s*"
            r"['\"]?(?P<it>(?!\*\*\*)[^\s'\",}]{6,})",
            r"(?i)\b(?:password|passwd|secret)=(?P<it>(?!\*\*\*)[^\s'\",}&]+)",
        ),
    )
)
"""What may not be shown: of what matches what is called ``it``, or all."""
_HIDDEN = "***"
_THIS_MACHINE = ("127.0.0.1", "localhost")


def without_secrets(text: str) -> str:
    """Return an address, or a text with addresses in it, as it may be shown.

    Returns:
        It without the users and the passwords in the addresses, and with stars for other secrets.
    """
    for pattern in SECRETS:
        found = pattern.sub(_hide, text)
        while found != text:  # an address may have several
            text, found = found, pattern.sub(_hide, found)
    return text


def _hide(found: re.Match[str]) -> str:
    if "it" not in found.groupdict():
        return ""
    start, end = (place - found.start() for place in found.span("it"))
    return found[0][:start] + _HIDDEN + found[0][end:]


def open_url(url: str, timeout_s: float) -> Any:
    """Ask for a page; of this machine past the proxy that the environment may name.

    A proxy would look for this machine's own addresses on itself.

    Args:
        url: Address to ask, without user and password.
        timeout_s: Seconds to wait for each part of the answer.

    Returns:
        The answer, as `urllib.request.urlopen` gives it.

    Raises:
        OSError: Nobody answers at the address.
        urllib.error.HTTPError: The answer is an error; an OSError too.
        ValueError: `url` is not a valid address.
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
