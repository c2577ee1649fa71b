"""Reference models draw their first weights from torch's own generator: every test begins it anew, whatever ran before."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same weights in any order of the tests."""
    torch.manual_seed(0)
