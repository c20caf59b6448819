"""Waiting for what happens a moment later, without guessing how long."""

from __future__ import annotations

import time
import urllib.error
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(look: Callable[[], T], deadline_s: float = 10) -> T:
    """What `look` returns, once it neither fails nor returns nothing."""
    end = time.monotonic() + deadline_s
    while True:
        try:
            if found := look():
                return found
        except (urllib.error.HTTPError, AssertionError):
            if time.monotonic() > end:
                raise
        if time.monotonic() > end:
            raise AssertionError(f"nothing came within {deadline_s} s")
        time.sleep(0.02)
