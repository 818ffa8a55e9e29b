"""The sample package, installed beside this environment. Its own tests are not collected here: ours run them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.sample import install

collect_ignore = ["acme_pay"]


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("installed"))
