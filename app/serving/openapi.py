"""The service described for programs: an OpenAPI 3.1 document with examples.

Source:
    OpenAPI Specification 3.1.0, https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.core.labels import NEITHER, UNSURE
from app.data.decode import SUFFIXES
from app.inference.bundle_format import CONFIDENCE, NOVELTY, Bundle
from app.serving.uploads import BYTES, FORM, Limits

Values = dict[str, Any]

REFUSALS = {
    "400": "The body is no photo and no whole form with files.",
    "403": "The request comes from another site's page.",
    "408": "The body did not come within the time limit.",
    "413": "The body is too large, or holds too many files.",
    "415": "The body is of another type.",
    "421": "The host is not one of this service's names.",
    "429": "Too much is waiting; ask again after the seconds in Retry-After.",
    "500": "The service failed.",
    "503": "The process that decoded a photo ended; ask again.",
    "504": "There was no answer within the time limit.",
}


def model_values(bundle: Bundle, min_confidence: float, limits: Limits) -> Values:
    """Return what ``/v1/model`` says of the classifier, and of what may be asked."""
    return {
        "classes": list(bundle.classes),
        "image_size": bundle.image_size,
        "thresholds": {CONFIDENCE: min_confidence, NOVELTY: bundle.thresholds[NOVELTY]},
        "limits": {
            "body_bytes": limits.body,
            "files": limits.files,
            "seconds": limits.seconds,
            "photos_waiting": limits.queue,
        },
        "suffixes": sorted(SUFFIXES),
    }


def document(bundle: Bundle, limits: Limits) -> Values:
    """Return the document of a service that answers with this bundle."""
    classes = bundle.classes
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "What photos show",
            "version": "1",
            "description": f"Says of photos whether they show {', '.join(classes)}, or none of "
            "them. Nothing that is sent is kept.",
        },
        "paths": {
            "/v1/predict": {"post": _predict(classes, limits)},
            "/v1/explain": {"post": _explain()},
            "/v1/model": {
                "get": _get("model", "What the classifier knows, and the limits.", _ref("Model"))
            },
            "/healthz": {"get": _get("alive", "Whether the process lives.", _ref("Status"))},
            "/readyz": {
                "get": {
                    **_get("ready", "Whether to send requests here.", _ref("Status")),
                    "responses": {
                        "200": _json("It is ready.", _ref("Status")),
                        "503": _json("It is ending, or no decoder is free.", _ref("Error")),
                    },
                }
            },
            "/metrics": {
                "get": {
                    "operationId": "metrics",
                    "summary": "Numbers for Prometheus.",
                    "responses": {
                        "200": {
                            "description": "Prometheus's text format.",
                            "content": {"text/plain": {"schema": {"type": "string"}}},
                        }
                    },
                }
            },
        },
        "components": {"schemas": _schemas(classes)},
    }


def _predict(classes: Sequence[str], limits: Limits) -> Values:
    return {
        "operationId": "predict",
        "summary": "Say what photos show.",
        "description": f"Up to {limits.files} photos and {limits.body:,} bytes at once. One that "
        "cannot be read gets an answer with its error; the others get theirs.",
        "requestBody": _body(),
        "responses": {
            "200": _json(
                "An answer for each photo, in their order.",
                _ref("Answers"),
                {"answers": _answers(classes)},
            ),
            **_refusals(),
        },
    }


def _explain() -> Values:
    return {
        "operationId": "explain",
        "summary": "Show which places of a photo speak for its likeliest class.",
        "description": "A form with one file, or one photo as it is.",
        "requestBody": _body(),
        "responses": {
            "200": {
                "description": "The photo; what speaks for the class is in colour, the rest grey.",
                "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
            },
            **_refusals(),
            "422": _json("The file is no photo.", _ref("Error"), {"error": "not a photo: text"}),
        },
    }


def _body() -> Values:
    photo = {"type": "string", "format": "binary"}
    photos = {"type": "array", "items": photo, "minItems": 1}
    form = {"type": "object", "properties": {"photos": photos}, "required": ["photos"]}
    return {
        "required": True,
        "content": {
            FORM: {"schema": form},
            BYTES: {"schema": {**photo, "minLength": 1}},
            "image/*": {"schema": {**photo, "minLength": 1}},
        },
    }


def _refusals() -> Values:
    error = {"error": "expected a photo; received none; send a file or a form with files"}
    responses = {
        status: _json(text, _ref("Error"), error if status == "400" else None)
        for status, text in REFUSALS.items()
    }
    responses["429"]["headers"] = {
        "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}
    }
    return responses


def _get(name: str, summary: str, schema: Values) -> Values:
    return {
        "operationId": name,
        "summary": summary,
        "responses": {"200": _json(summary, schema)},
    }


def _json(description: str, schema: Values, example: Values | None = None) -> Values:
    content = {"schema": schema, **({"example": example} if example else {})}
    return {"description": description, "content": {"application/json": content}}


def _ref(name: str) -> Values:
    return {"$ref": f"#/components/schemas/{name}"}


def _answers(classes: Sequence[str]) -> list[Values]:
    rest = len(classes) - 1
    probabilities = dict.fromkeys(classes, 0.06 / rest) | {classes[0]: 0.94}
    sure: Values = {"probabilities": probabilities, "novelty": 0.03, "error": None}
    nothing: Values = {"label": None, "probabilities": None, "novelty": None}
    return [
        {"path": "one.jpg", "label": classes[0], **sure},
        {"path": "car.jpg", "label": NEITHER, **sure, "novelty": 0.98},
        {"path": "notes.txt", **nothing, "error": "not a photo: text"},
    ]


def _schemas(classes: Sequence[str]) -> Values:
    number = {"type": "number", "minimum": 0, "maximum": 1}
    text = {"type": "string"}
    return {
        "Answers": _object({"answers": {"type": "array", "items": _ref("Prediction")}}),
        "Prediction": _object(
            {
                "path": {**text, "description": "The file's name, without folders."},
                "label": {
                    "enum": [*classes, NEITHER, UNSURE, None],
                    "description": f"{NEITHER}: unlike the photos that were learned from; "
                    f"{UNSURE}: no class is likely enough; null: see error.",
                },
                "probabilities": {
                    "oneOf": [_object(dict.fromkeys(classes, number)), {"type": "null"}],
                    "description": "By class, adding up to 1, as if it showed one of them.",
                },
                "novelty": {
                    **number,
                    "type": ["number", "null"],
                    "description": f"The higher the stranger; above 0.5 the label is {NEITHER}.",
                },
                "error": {
                    "type": ["string", "null"],
                    "description": "Why there is no answer; null where there is one.",
                },
            }
        ),
        "Error": _object({"error": text}),
        "Status": _object({"status": text}),
        "Model": _object(
            {
                "classes": {"type": "array", "items": text},
                "image_size": {"type": "integer"},
                "thresholds": _object({CONFIDENCE: number, NOVELTY: number}),
                "limits": _object(
                    {
                        "body_bytes": {"type": "integer"},
                        "files": {"type": "integer"},
                        "seconds": {"type": "number"},
                        "photos_waiting": {"type": "integer"},
                    }
                ),
                "suffixes": {"type": "array", "items": text},
            }
        ),
    }


def _object(properties: Values) -> Values:
    return {"type": "object", "properties": properties, "required": list(properties)}
