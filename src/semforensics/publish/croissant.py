"""The dataset in Croissant, the vocabulary by which others' tools load it.

MLCommons, "Croissant Format Specification 1.0" (http://mlcommons.org/croissant/1.0).
"""

import json
from pathlib import Path
from typing import Any

import pandas as pd

from semforensics.params import PackageDatasetParams

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
_NUMBERS = ("width_px", "height_px")
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
_MEANINGS = {
    "file": "Path of the image; empty where only a reference is published",
    "class": "real or fake",
    "sha256": "Of the image file",
    "width_px": "Width in pixels",
    "height_px": "Height in pixels",
    "split": "train, test or validation",
    "group": "Sample and area of a real; images of one group may overlap",
    "generator": "That drew the fake",
    "seed": "Of the fake",
    "checkpoint_sha256": "Of the generator's weights",
    "micrograph": "That the crop was cut from",
    "micrograph_sha256": "Of that file",
    "source": "Where it comes from",
    "licence": "Under which it is published",
    "protocol": "How it was split",
}


def describe_dataset(
    params: PackageDatasetParams, manifest: pd.DataFrame, manifest_sha256: str
) -> dict[str, Any]:
    """Describe a packaged dataset as JSON-LD.

    Args:
        params: Title, version, who made it.
        manifest: Its rows.
        manifest_sha256: Of the written file.
    """
    fields = [
        {
            "@type": "cr:Field",
            "@id": f"images/{name}",
            "name": name,
            "description": _MEANINGS[name],
            "dataType": "sc:Integer" if name in _NUMBERS else "sc:Text",
            "source": {"fileObject": {"@id": "manifest"}, "extract": {"column": name}},
        }
        for name in manifest.columns
    ]
    licences = sorted(set(manifest["licence"]))
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": params.name,
        "description": params.description,
        "license": licences,
        "url": params.url,
        "version": params.version,
        "datePublished": params.date,
        "creator": {"@type": "sc:Organization", "name": params.creator},
        "citeAs": params.attribution,
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "manifest",
                "name": "manifest.csv",
                "description": "One line per image",
                "contentUrl": "manifest.csv",
                "encodingFormat": "text/csv",
                "sha256": manifest_sha256,
            },
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "images",
                "name": "images",
                "description": "All images; their pixels lie at `file`, beside this description",
                "field": fields,
            }
        ],
    }


def write_description(description: dict[str, Any], path: Path) -> None:
    """Write the description."""
    path.write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n")
