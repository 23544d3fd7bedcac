"""The builder of `closureInfo`: the paths of a closure, and what `nix-store --load-db` reads about them."""

from __future__ import annotations

import json
import os
from pathlib import Path

attributes = json.loads(Path(os.environ.get("NIX_ATTRS_JSON_FILE", ".attrs.json")).read_text())
out = Path(attributes["outputs"]["out"])
paths = sorted(attributes["closure"], key=lambda one: one["path"])
out.mkdir()
(out / "store-paths").write_text("".join(f"{one['path']}\n" for one in paths))
lines: list[object] = []
for one in paths:
    digest = str(one["narHash"]).removeprefix("sha256:")
    lines += [one["path"], digest, one["narSize"], "", len(one["references"]), *one["references"]]
(out / "registration").write_text("".join(f"{line}\n" for line in lines))
