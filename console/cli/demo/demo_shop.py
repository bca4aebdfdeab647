"""The configuration of a demo that keeps its servers: a copy of the example shop with more jobs, two more groups of launchers, and a broken
webhook.

Worker and console read the copy again when it changes. To make requests escalate within seconds, the demo briefly shortens the times in
approvals.yaml. It changes no folder of the user.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from console.cli.demo.job_variants import VARIANTS
from console.cli.files import replace_text
from justenough.adapters.configuration.example_shop import example_shop

NORMAL_TIMES = ("15m", "1h", "4h")
"""How long each tier has to decide, as in the example shop."""
APPROVALS = """\
# The example shop's tiers. Support leads and those with break-glass may launch jobs, too.
roles: {{launch: [ops, support-leads, break-glass], read: [auditors], break_glass: [break-glass]}}
tiers:
  1: {{name: owner, approvers: [support-leads], quorum: 1, respond_within: {}}}
  2: {{name: security, approvers: [security], quorum: 1, respond_within: {}}}
  3: {{name: chief, approvers: [chiefs], quorum: 2, respond_within: {}}}
"""
WEBHOOK = "status-page"
WEBHOOK_SECRET = f"kv/data/je/webhooks/{WEBHOOK}"
TRIGGERS = f"""\
  weekly-figures: {{cron: "0 6 * * 1", timezone: Europe/Berlin, job: jobs/daily-figures.yaml}}

# Nothing listens there, so every delivery fails and is tried again.
webhooks:
  - {{name: {WEBHOOK}, url: "http://127.0.0.1:1027/hooks", events: [job.ended], signing_secret: {WEBHOOK_SECRET}, allow_private: true}}
"""
PROVISION = f"""\
  - {{path: {WEBHOOK_SECRET}, once: true, data: {{data: {{secret: "whsec_${{random}}"}}}}}}
"""


@dataclass(frozen=True)
class DemoShop:
    folder: Path

    def create(self) -> Path:
        """Copy the example shop, add to it, and return the folder. An existing copy stays unchanged."""
        if self.folder.exists():
            return self.folder
        # With the mode of the stack's home: other users can pass through it, but cannot list it.
        self.folder.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        partial = self.folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(example_shop(), partial, ignore=shutil.ignore_patterns("__pycache__"))
        for name, text in (("triggers.yaml", TRIGGERS), ("catalog.yaml", PROVISION)):
            with (partial / name).open("a", encoding="utf-8") as file:
                file.write(text)
        (partial / "approvals.yaml").write_text(APPROVALS.format(*NORMAL_TIMES))
        for name, variant in VARIANTS.items():
            spec = yaml.safe_load((partial / "jobs" / f"{variant.base}.yaml").read_text())
            (partial / "jobs" / f"{name}.yaml").write_text(yaml.safe_dump(variant.apply(spec, name=name), sort_keys=False))
        return partial.rename(self.folder)

    def set_times(self, times: tuple[str, str, str]) -> bool:
        """Set how long each tier has to decide; return whether that changed anything."""
        file = self.folder / "approvals.yaml"
        text = APPROVALS.format(*times)
        if file.read_text() == text:
            return False
        # In one step, because worker and console may read it at any moment.
        replace_text(file, text)
        return True

    def signing_secret_of(self, trigger: str) -> str:
        """Return the path in Vault of the secret with which a trigger's events are signed."""
        triggers: Mapping[str, Mapping[str, str]] = yaml.safe_load((self.folder / "triggers.yaml").read_text())["triggers"]
        return triggers[trigger]["signing_secret"]
