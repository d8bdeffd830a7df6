"""The OpenAPI document and the service against each other: generated requests, right and wrong."""

import subprocess
import sys

import pytest
from served import served, tiny_bundle

from app.inference.predictor import Classifier
from app.serving.uploads import Limits

pytestmark = pytest.mark.slow


def test_generated_requests_are_answered_as_the_document_says(tmp_path):
    """No 5xx, no undocumented status or body; all checks but one.

    That one wants every body that fits the schema to be accepted, but bytes need not be a photo.
    """
    pytest.importorskip("schemathesis")
    program = "from schemathesis.cli import schemathesis; schemathesis()"
    bundle = tiny_bundle(tmp_path / "bundle")
    with served(Classifier(bundle), Limits(files=5, body=200_000)) as (address, service):
        flags = ["--exclude-checks", "positive_data_acceptance", "--max-examples", "60"]
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                program,
                "run",
                f"{address}/openapi.json",
                "--seed",
                "1",
                *flags,
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        asked = service.metrics.text().decode()
    assert done.returncode == 0, done.stdout[-5000:]
    assert "Tested: 6" in done.stdout
    for status in (200, 400, 415):
        assert f'route="/v1/predict",status="{status}"' in asked
