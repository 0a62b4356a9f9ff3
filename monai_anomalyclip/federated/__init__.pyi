# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0

from .job import federated_recipe, simulate, write_initial_prompts
from .site import FederatedSite, SiteSettings

__all__ = ["FederatedSite", "SiteSettings", "federated_recipe", "simulate", "write_initial_prompts"]
