"""`mdaflow serve`: the LMTP server."""

from __future__ import annotations

import click

from mdaflow.app import log
from mdaflow.app.build import build
from mdaflow.app.config import Config
from mdaflow.app.load import read
from mdaflow.app.pipeline import Courier
from mdaflow.errors import ConfigError

from .common import config_option


@click.command("serve")
@config_option
def command(config: str | None) -> int:
    """Take mail by LMTP and deliver it, until SIGTERM. SIGHUP reads the configuration again."""
    from mdaflow.app.rehearse import rehearse
    from mdaflow.serve.master import serve

    settings = read(config)
    try:
        log.set_up(settings.log)
    except OSError as error:
        raise ConfigError((f"log: {settings.log.to}: {error.strerror}",)) from error
    rehearse()
    return serve(settings, lambda current: Courier(build(current)), lambda: _again(config))


def _again(config: str | None) -> Config:
    settings = read(config)
    log.set_up(settings.log)
    return settings
