"""The service described for programs: an OpenAPI 3.1 document, its schemas those of the records.

Source:
    OpenAPI Specification 3.1.0, https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.core.labels import NEITHER, UNSURE
from app.core.records import schemas_of, values_of
from app.data.decode import SUFFIXES
from app.inference.bundle_format import NOVELTY, Bundle
from app.inference.prediction import Prediction, failed_prediction
from app.serving.uploads import BYTES, FORM, Limits

Values = dict[str, Any]

PLACE = "#/components/schemas/"
BINARY = {"type": "string", "format": "binary"}
REFUSALS = {
    "400": "The body is no photo and no whole form with files.",
    "403": "The request comes from another site's page.",
    "408": "The body did not come within the time limit.",
    "413": "The body is too large, or holds too many files.",
    "415": "The body is of another type, or compressed (Content-Encoding).",
    "421": "The host is not one of this service's names.",
    "429": "Too much is waiting; send it again after the seconds in Retry-After.",
    "500": "The service failed.",
    "503": "The process that decoded a photo ended; send it again.",
    "504": "There was no answer within the time limit.",
}


@dataclass(frozen=True)
class Answers:
    """An answer for each photo, in their order."""

    answers: list[Prediction]


@dataclass(frozen=True)
class Error:
    """Why there is no answer."""

    error: str


@dataclass(frozen=True)
class Status:
    """How the service is."""

    status: str


@dataclass(frozen=True)
class Thresholds:
    """The probability below which an answer is unsure, the novelty above which it is neither."""

    confidence: float
    novelty: float


@dataclass(frozen=True)
class RequestLimits:
    """What one request may hold and take, and how many photos may wait."""

    body_bytes: int
    files: int
    seconds: float
    photos_waiting: int


@dataclass(frozen=True)
class Model:
    """What the classifier knows, and what it takes."""

    classes: tuple[str, ...]
    image_size: int
    thresholds: Thresholds
    limits: RequestLimits
    suffixes: list[str]


def model_values(bundle: Bundle, min_confidence: float, limits: Limits) -> Values:
    """Return what ``/v1/model`` says."""
    about = Model(
        bundle.classes,
        bundle.image_size,
        Thresholds(min_confidence, bundle.thresholds[NOVELTY]),
        RequestLimits(limits.body, limits.files, limits.seconds, limits.queue),
        sorted(SUFFIXES),
    )
    return dict(values_of(about))


def document(bundle: Bundle, limits: Limits, prefix: str = "") -> Values:
    """Return the document of a service that answers with this bundle, below the path ``prefix``."""
    first, *others = bundle.classes
    schemas = schemas_of((Answers, Error, Status, Model), PLACE)
    schemas["Prediction"]["properties"]["label"] = {
        "enum": [*bundle.classes, NEITHER, UNSURE, None]
    }
    probabilities = {first: 0.94, **dict.fromkeys(others, 0.06 / len(others))}
    example = Answers(
        [
            Prediction("one.jpg", first, probabilities, 0.03, None),
            Prediction("car.jpg", NEITHER, probabilities, 0.98, None),
            failed_prediction("notes.txt", "not a photo: text"),
        ]
    )
    answers = _json("An answer for each photo, in their order.", Answers)
    answers["content"]["application/json"]["example"] = values_of(example)
    heat_map = _content(
        "The photo; what speaks for the class is in colour, the rest grey.", "image/png", BINARY
    )
    refusals = {status: _json(text, Error) for status, text in REFUSALS.items()}
    refusals["429"]["headers"] = {
        "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}
    }
    not_ready = _json("It is ending, or no decoder is free.", Error)
    paths = {
        "/v1/predict": _post(
            "predict",
            f"Say what photos show: up to {limits.files} photos and {limits.body:,} bytes at once. "
            "One that cannot be read gets an answer with its error; the others get theirs.",
            {"200": answers, **refusals},
        ),
        "/v1/explain": _post(
            "explain",
            "Show which places of a photo speak for its likeliest class: of a form with one file, "
            "or of one photo as it is.",
            {"200": heat_map, **refusals, "422": _json("The file is no photo.", Error)},
        ),
        "/v1/model": _get("model", _json("What holds here.", Model)),
        "/healthz": _get("alive", _json("The process lives.", Status)),
        "/readyz": _get("ready", _json("It is ready.", Status), {"503": not_ready}),
        "/metrics": _get(
            "metrics", _content("Prometheus's text format.", "text/plain", {"type": "string"})
        ),
    }
    about = {
        "title": "What photos show",
        "version": "1",
        "description": f"Says of photos whether they show {', '.join(bundle.classes)}, or none of "
        "them. Nothing that is sent is kept.",
    }
    return {
        "openapi": "3.1.0",
        "info": about,
        "servers": [{"url": prefix or "/"}],
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _get(name: str, answer: Values, refusals: Values | None = None) -> Values:
    return {"get": {"operationId": name, "responses": {"200": answer, **(refusals or {})}}}


def _post(name: str, description: str, responses: Values) -> Values:
    photos = {"type": "array", "items": BINARY, "minItems": 1}
    form = {"type": "object", "properties": {"photos": photos}, "required": ["photos"]}
    bare = {"schema": {**BINARY, "minLength": 1}}
    body = {"required": True, "content": {FORM: {"schema": form}, BYTES: bare, "image/*": bare}}
    operation = {"operationId": name, "description": description, "requestBody": body}
    return {"post": {**operation, "responses": responses}}


def _json(description: str, record: type[Any]) -> Values:
    return _content(description, "application/json", {"$ref": PLACE + record.__name__})


def _content(description: str, media_type: str, schema: Values) -> Values:
    return {"description": description, "content": {media_type: {"schema": schema}}}
