"""The dataset in Croissant, the vocabulary by which others' tools load it.

MLCommons, "Croissant Format Specification 1.0" (http://mlcommons.org/croissant/1.0).
"""

import json
from importlib.resources import files
from typing import Any

from semforensics.params import PackageDatasetParams

_TEMPLATE = json.loads(files(__package__).joinpath("templates/croissant.json").read_text("utf-8"))
COLUMNS: dict[str, str] = _TEMPLATE["columns"]
"""Of the manifest, with their meaning."""
_NUMBERS = ("width_px", "height_px")


def describe_dataset(
    params: PackageDatasetParams, licences: list[str], manifest_sha256: str
) -> dict[str, Any]:
    """Describe a packaged dataset as JSON-LD; its `manifest.csv`, of this hash, has COLUMNS."""
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"images/{name}",
            "name": name,
            "description": meaning,
            "dataType": "sc:Integer" if name in _NUMBERS else "sc:Text",
            "source": {"fileObject": {"@id": "manifest"}, "extract": {"column": name}},
        }
        for name, meaning in COLUMNS.items()
    ]
    manifest = {
        "@type": "cr:FileObject",
        "@id": "manifest",
        "name": "manifest.csv",
        "description": "One line per image",
        "contentUrl": "manifest.csv",
        "encodingFormat": "text/csv",
        "sha256": manifest_sha256,
    }
    images = {
        "@type": "cr:RecordSet",
        "@id": "images",
        "name": "images",
        "description": "All images; their pixels lie at `file`, beside this description",
        "field": fields,
    }
    return {
        "@context": _TEMPLATE["context"],
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": params.name,
        "description": params.description,
        "license": licences,
        "url": params.url,
        "version": params.version,
        "datePublished": params.date,
        "creator": {"@type": "sc:Organization", "name": params.creator},
        "citeAs": params.attribution,
        "distribution": [manifest],
        "recordSet": [images],
    }
