"""What every test has: shapes checked as they are written, one seed, few threads, and the files beside the checkout."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest
from hypothesis import HealthCheck, settings

# Every annotation of the package is checked while the tests run, and only then: users pay nothing for it.
# This must come before the first import of clearhead.
jaxtyping.install_import_hook("clearhead", "beartype.beartype")

import torch  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent

settings.register_profile("here", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("here"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

torch.set_num_threads(1)  # the tensors are small, and threads that wait for one another cost ten times what they save


@pytest.fixture(autouse=True)
def seed() -> None:
    """Each test draws the same weights, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def as_a_user() -> Iterator[None]:
    """Annotations unchecked, as they are outside the tests: what is refused here is refused by the package itself."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of models and data beside the checkout; a test that needs it is skipped where it is not."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here: it holds the models and data that this test reads")
    return folder
