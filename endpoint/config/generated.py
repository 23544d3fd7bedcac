"""Everything of the checkout that is made from the schemas: `make reference` writes it."""

from __future__ import annotations

from pathlib import Path

from endpoint.config.argument_specs import argument_specs
from endpoint.config.bundle import EDITOR_FOLDER, FILES, PARTS, bundled, for_editors, json_text, names
from endpoint.config.nix_options import PATH as NIX_OPTIONS
from endpoint.config.nix_options import nix_options
from endpoint.config.reference import reference, row
from endpoint.config.schemas import SUFFIX, load_schema
from endpoint.config.template_schema import NAME as TEMPLATE
from endpoint.config.template_schema import template_schema

PAGES = "docs/reference"
ROLES = "ansible/roles"
EDITOR_SCHEMAS = f"schemas/{EDITOR_FOLDER}"


def generated() -> dict[str, str]:
    """Every such file by its path in the checkout, with the text that it must have."""
    template = template_schema()
    files = {f"schemas/{TEMPLATE}{SUFFIX}": json_text(template)}
    pages = sorted({*names(), TEMPLATE} - PARTS)
    for name in pages:
        document = for_editors(template_schema() if name == TEMPLATE else bundled(name))
        files[f"{EDITOR_SCHEMAS}/{name}{SUFFIX}"] = json_text(document)
        files[f"{PAGES}/{name}.md"] = reference(name)
    files[f"{PAGES}/README.md"] = _index(pages, template["title"])
    files |= {f"{ROLES}/{role}/meta/argument_specs.yml": text for role, text in argument_specs().items()}
    files[NIX_OPTIONS] = nix_options()
    return files


def write_generated(checkout: Path) -> None:
    """Write all of `generated` below `checkout`, and remove what nothing makes any more."""
    # First, as other schemas refer to it.
    (checkout / f"schemas/{TEMPLATE}{SUFFIX}").write_text(json_text(template_schema()), encoding="utf-8")
    load_schema.cache_clear()
    files = {checkout / path: text for path, text in generated().items()}
    for folder in (checkout / PAGES, checkout / EDITOR_SCHEMAS):
        folder.mkdir(parents=True, exist_ok=True)
        for stale in set(folder.iterdir()) - files.keys():
            stale.unlink()
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _index(pages: list[str], template_title: str) -> str:
    titles = {name: template_title if name == TEMPLATE else bundled(name)["title"] for name in pages}
    lines = [
        "<!-- Made from schemas/ by `make reference`; change the schemas instead. -->",
        "",
        "# Reference",
        "",
        "One page for each kind of file that an administrator writes, made from the schemas that check it.",
        "",
        row(["page", "file"]),
        "|---|---|",
        *(row([f"[{titles[name]}]({name}.md)", FILES.get(name, name)]) for name in pages),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    write_generated(Path(__file__).resolve().parents[2])
