"""Secrets of the user's: hidden in whatever is shown, and written nowhere."""

import pytest

from headstart.addresses import without_secrets
from headstart.errors import RecordError

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"s3://KEY:{SECRET}@bucket/prefix", "s3://bucket/prefix"),
        (f"s3:/KEY:{SECRET}@bucket/prefix", "s3:/bucket/prefix"),
        (f"cannot read 'https://user:{SECRET}@host/x'", "cannot read 'https://host/x'"),
        (
            f"https://host/a?X-Amz-Signature={SECRET}&X-Amz-Credential={SECRET}&c=3",
            "https://host/a?X-Amz-Signature=***&X-Amz-Credential=***&c=3",
        ),
        (f"https://host/blob?sv=1&sig={SECRET}", "https://host/blob?sv=1&sig=***"),
        ("InvalidAccessKeyId: AKIAIOSFODNN7EXAMPLE", "InvalidAccessKeyId: ***"),
        (f"{{'Authorization': 'Bearer {SECRET}'}}", "{'Authorization': '***'}"),
        (f"authorization: Basic {SECRET}", "authorization: ***"),
        (f"PREFECT_API_KEY=pnu_{SECRET}", "PREFECT_API_KEY=***"),
        (f"PREFECT_SERVER_API_AUTH_STRING=me:{SECRET}", "PREFECT_SERVER_API_AUTH_STRING=***"),
        (f'PREFECT_CLIENT_CUSTOM_HEADERS={{"x": "{SECRET}"}}', "PREFECT_CLIENT_CUSTOM_HEADERS=***"),
        (f"aws_secret_access_key: '{SECRET}'", "aws_secret_access_key: '***'"),
        (f"key hf_{SECRET} refused", "key *** refused"),
    ],
)
def test_a_secret_is_hidden_and_what_stands_around_it_is_not(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
    assert without_secrets(shown) == shown
    error = RecordError("it failed", text, text)
    assert SECRET not in f"{error} {error.to_dict()}"


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:4200/?token=the-one-that-up-prints",
        "/photos/me@home/cat.jpg",
        "head.seed=1 is no key: choose another",
        "the token is missing: open the address",
        "num_tokens=123456",
    ],
)
def test_what_is_no_secret_is_shown(text: str) -> None:
    assert without_secrets(text) == text
