"""The service described for programs: an OpenAPI 3.1 document, its schemas those of the records.

Source:
    OpenAPI Specification 3.1.0, https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.core.labels import NEITHER, UNSURE
from app.core.records import schemas_of, values_of
from app.data.decode import SUFFIXES
from app.inference.bundle_format import NOVELTY, Bundle
from app.inference.prediction import Prediction
from app.serving.uploads import BYTES, FORM, Limits

Values = dict[str, Any]

PLACE = "#/components/schemas/"
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
    """What the classifier knows, and what may be asked."""

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


def document(bundle: Bundle, limits: Limits) -> Values:
    """Return the document of a service that answers with this bundle."""
    classes = bundle.classes
    schemas = schemas_of((Answers, Error, Status, Model), PLACE)
    schemas["Prediction"]["properties"]["label"] = {"enum": [*classes, NEITHER, UNSURE, None]}
    refusals = {status: _json(text, "Error") for status, text in REFUSALS.items()}
    refusals["429"]["headers"] = {
        "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}
    }
    answers = _json("An answer for each photo, in their order.", "Answers")
    answers["content"]["application/json"]["example"] = {"answers": _example(classes)}
    heat_map = {
        "description": "The photo; what speaks for the class is in colour, the rest grey.",
        "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
    }
    figures = {
        "description": "Prometheus's text format.",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    }
    ready = {
        "200": _json("It is ready.", "Status"),
        "503": _json("It is ending, or no decoder is free.", "Error"),
    }
    no_photo = {"422": _json("The file is no photo.", "Error")}
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
            {"200": heat_map, **refusals, **no_photo},
        ),
        "/v1/model": _get("model", {"200": _json("What holds here.", "Model")}),
        "/healthz": _get("alive", {"200": _json("The process lives.", "Status")}),
        "/readyz": _get("ready", ready),
        "/metrics": _get("metrics", {"200": figures}),
    }
    about = {
        "title": "What photos show",
        "version": "1",
        "description": f"Says of photos whether they show {', '.join(classes)}, or none of them. "
        "Nothing that is sent is kept.",
    }
    return {
        "openapi": "3.1.0",
        "info": about,
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _get(name: str, responses: Values) -> Values:
    return {"get": {"operationId": name, "responses": responses}}


def _post(name: str, description: str, responses: Values) -> Values:
    photo = {"type": "string", "format": "binary"}
    photos = {"type": "array", "items": photo, "minItems": 1}
    form = {"type": "object", "properties": {"photos": photos}, "required": ["photos"]}
    bare = {"schema": {**photo, "minLength": 1}}
    body = {"required": True, "content": {FORM: {"schema": form}, BYTES: bare, "image/*": bare}}
    operation = {"operationId": name, "description": description, "requestBody": body}
    return {"post": {**operation, "responses": responses}}


def _json(description: str, record: str) -> Values:
    content = {"application/json": {"schema": {"$ref": PLACE + record}}}
    return {"description": description, "content": content}


def _example(classes: Sequence[str]) -> list[Values]:
    rest = len(classes) - 1
    probabilities = dict.fromkeys(classes, 0.06 / rest) | {classes[0]: 0.94}
    return [
        values_of(one)
        for one in (
            Prediction("one.jpg", classes[0], probabilities, 0.03, None),
            Prediction("car.jpg", NEITHER, probabilities, 0.98, None),
            Prediction("notes.txt", None, None, None, "not a photo: text"),
        )
    ]
