"""Changes of the process's configuration. `tests/conftest.py` restores it after each test."""

from dataclasses import replace
from typing import Any

from services.core import configuration
from services.core.configuration import Configuration
from settings import Settings


def configure(settings: Settings | None = None, **changed: Any) -> None:
    """Use these settings (default: those of a test), with some values of the `Configuration` changed."""
    if settings is None:
        settings = Settings(_env_file=None, environment="test")  # type: ignore[call-arg]  # a parameter of pydantic's
    configuration.use(replace(Configuration.of(settings), **changed))


def change(**values: Any) -> None:
    """Change some values of the current configuration."""
    configuration.use(replace(configuration.current(), **values))


def change_environment(**values: Any) -> None:
    """Change some values of the environment that channels and processors run in."""
    change(environment=replace(configuration.current().environment, **values))
