# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""The script that NVIDIA FLARE starts at each site: prompts are received, tuned and their change is sent, in a loop."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from monai_anomalyclip.federated.site import FederatedSite, SiteSettings

__all__ = ["SITE_VARIABLE", "main"]

SITE_VARIABLE = "MONAI_ANOMALYCLIP_SITE"
logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Take part in a job until it ends.

    Args:
        arguments: ``--epochs N``; ``--site FILE`` where the environment variable that names the site's file is not
            set: it wins, so that a job cannot name another one.

    Raises:
        ValueError: no file describes the site, or what was received is not the network's whole state dict.
    """
    import nvflare.client as flare

    parser = argparse.ArgumentParser()
    parser.add_argument("--site", type=Path)
    parser.add_argument("--epochs", type=int, default=1)
    given = parser.parse_args(arguments)
    described = os.environ.get(SITE_VARIABLE) or given.site
    if not described:
        raise ValueError(f"No file describes this site: name it in the environment variable {SITE_VARIABLE}.")
    flare.init()
    site = FederatedSite(SiteSettings.read(described), flare.get_site_name(), given.epochs)
    while flare.is_running():
        received = flare.receive()
        if received is None:
            break
        change, steps = site.tune(received.params or {}, float((received.meta or {}).get("fedprox_mu", 0.0)))
        size = sum(value.nbytes for value in change.values())
        logger.info(f"{size} bytes in {len(change)} tensors after {steps} steps.")
        flare.send(
            flare.FLModel(
                params=change,
                params_type=flare.ParamsType.DIFF,
                meta={"NUM_STEPS_CURRENT_ROUND": steps},
            )
        )


if __name__ == "__main__":
    main()
