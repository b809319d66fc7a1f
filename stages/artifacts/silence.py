"""No usage statistics: libraries that report their use to their makers are told not to before any of them is imported.

Only what reports of its own accord is named. Names of models that a command is asked to fetch do reach the hub, and
questions the endpoint that a command is given; nothing else leaves the machine.
"""

from __future__ import annotations

import os

# Ray tells of each start; huggingface_hub adds the system to each request and has a call for statistics, which
# transformers, datasets and peft use too; several libraries heed the last one.
SILENT = {"RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}


def send_no_statistics() -> None:
    """Tells the libraries of this process and of those it starts; also against what the surroundings say."""
    os.environ.update(SILENT)
