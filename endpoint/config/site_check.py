"""What is wrong with a site document beyond its form, and with the files that it names: for `Examiner`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from endpoint.config.examine import KINDS, named_files
from endpoint.config.faults import Fault
from endpoint.config.parse import Document
from endpoint.config.report import located
from endpoint.config.site_document import Site
from endpoint.config.site_mapping import check_mappings
from endpoint.config.site_options import archive_faults, option_faults
from endpoint.config.site_pam import pam_faults
from endpoint.config.site_places import place_faults
from endpoint.config.site_templates import check_templates

if TYPE_CHECKING:
    from endpoint.config.examine import Examiner


def check_site(examiner: Examiner, document: Document, path: Path) -> None:
    """Add to the examiner's reports all that is wrong, whether or not the document fits its schema."""
    site = Site.of(document, path.parent)
    faults = [*place_faults(site), *option_faults(site), *pam_faults(site)]
    if examiner.follow:
        faults += [*archive_faults(site, needed=examiner.applied), *_files(examiner, site, document)]
    examiner.found(path, located(faults, str(path), document.position))
    check_templates(examiner, site, document, path)
    check_mappings(examiner, site, document, path)


def _files(examiner: Examiner, site: Site, document: Document) -> list[Fault]:
    """Report on each file that is named, but for templates, which are tried as their endpoints have them."""
    missing = []
    for place, file, kind in named_files(document.data, "site"):
        if place[0] == "endpoints" and place[1] not in site.present:
            continue
        named = site.folder / file
        if not named.exists():
            missing.append(Fault(place, f"the file {file} is not there"))
        elif kind in KINDS and kind != "template":
            examiner.file(named, kind)
    return missing
