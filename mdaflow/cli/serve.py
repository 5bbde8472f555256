"""`mdaflow serve`: the LMTP server."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mdaflow import Config, ConfigError, Courier, open_site, read_config
from mdaflow.app import log

from .common import config_option

if TYPE_CHECKING:
    from mdaflow.app.identities import Identities
    from mdaflow.app.inflight import InFlight


@click.command("serve")
@config_option
def command(config: str | None) -> int:
    """Take mail by LMTP and deliver it, until SIGTERM. SIGHUP reads the configuration again."""
    from mdaflow.app.rehearse import fetch, rehearse
    from mdaflow.serve.master import serve

    settings = read_config(config)
    try:
        log.set_up(settings.log, tell=True)
    except OSError as error:
        raise ConfigError((f"log: {settings.log.to}: {error.strerror}",)) from error
    rehearse()
    fetch(settings)
    return serve(settings, _courier, lambda: _again(config))


def _courier(config: Config, inflight: InFlight, identities: Identities | None) -> Courier:
    site = open_site(config, inflight=inflight, identities=identities)
    if identities is not None and config.has_accounts:
        from mdaflow.app.walls import hide_homes

        hide_homes(site)
    return Courier(site)


def _again(config: str | None) -> Config:
    from mdaflow.app.rehearse import fetch

    settings = read_config(config)
    fetch(settings)
    log.set_up(settings.log, tell=True)
    return settings
