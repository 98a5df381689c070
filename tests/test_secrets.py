"""Secrets of the user's: hidden in whatever is shown, and written nowhere."""

from pathlib import Path

import fsspec
import pytest
from typer.testing import CliRunner

from headstart.addresses import without_secrets
from headstart.cli import app
from headstart.errors import RecordError
from tests.pipeline import QUICK, Pipeline

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


def test_nothing_that_a_run_writes_or_prints_has_a_secret(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "PREFECT_API_KEY": f"pnu_{SECRET}",
        "PREFECT_CLIENT_CUSTOM_HEADERS": f'{{"Authorization": "Bearer {SECRET}"}}',
        "HEADSTART_MIRROR": str(tmp_path / "mirror"),
    }.items():
        monkeypatch.setenv(name, value)
    place, out = f"memory://KEY:{SECRET}@{tmp_path.name}/prefix", tmp_path / "run"
    settings = [
        part for one in (*QUICK, f"backbone.name={pipeline.backbone}") for part in ("--set", one)
    ]
    arguments = [str(pipeline.images), *settings, "--store", place, "--out", str(out)]
    result = CliRunner().invoke(app, ["train", *arguments])
    assert result.exit_code == 0, result.output
    assert SECRET not in result.output + result.stderr
    for command in ("plan", "why"):
        told = CliRunner().invoke(app, [command, *arguments[:-2]])
        assert told.exit_code == 0, told.output
        assert SECRET not in told.output + told.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {out / "run.json", out / "config.yaml", out / "report.html"} <= set(files)
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert [path for path in files if SECRET in str(path)] == []
    fsspec.filesystem("memory").rm(f"/KEY:{SECRET}@{tmp_path.name}", recursive=True)
