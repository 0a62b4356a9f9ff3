# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What the page asks the server for."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, Field

from monai_anomalyclip import RESEARCH_USE_ONLY
from monai_anomalyclip.app.accepted import export_accepted
from monai_anomalyclip.app.findings import Decision, Review, StaleReviewError, find_regions
from monai_anomalyclip.app.intake import Intake, RefusedUploadError
from monai_anomalyclip.app.studies import Runner, Study, Workplace
from monai_anomalyclip.writers.finished import InputState
from monai_anomalyclip.writers.html_report import script, style, template
from monai_anomalyclip.writers.output_folder import preview_path
from monai_anomalyclip.writers.report import describe
from monai_anomalyclip.writers.tables import ranked_records

__all__ = ["Routes"]

_HERE = Path(__file__).parent
_LONGEST_TITLE = 120


class NewStudy(BaseModel):
    """A study to be made; with a path of this machine it is scored at once."""

    title: Annotated[str, Field(max_length=_LONGEST_TITLE)] = ""
    path: Annotated[str, Field(max_length=4000)] = ""
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    preset: Annotated[str, Field(pattern=r"^[a-z-]{0,20}$")] = ""


class Decided(BaseModel):
    """A decision of the page."""

    name: str
    finding: int
    verdict: Annotated[str, Field(pattern="^(accepted|rejected|open)$")]
    note: Annotated[str, Field(max_length=2000)] = ""
    revision: int


class Routes:
    """The answers.

    Args:
        place: of all studies.
        runner: what scores them.
        most_bytes: as for :class:`Intake`.
        most_files: likewise.
    """

    def __init__(self, place: Workplace, runner: Runner, most_bytes: int, most_files: int) -> None:
        self.place, self.runner, self.limits = place, runner, (most_bytes, most_files)
        self._intakes: dict[str, Intake] = {}
        self._reviews: dict[str, Review] = {}

    def add_to(self, application: FastAPI) -> None:
        """Add all of them to an application."""
        study = "/api/studies/{key}"
        for method, path, answer in (
            ("GET", "/", self.page),
            ("GET", "/app.js", self.code),
            ("GET", "/app.css", self.look),
            ("GET", "/api/studies", self.studies),
            ("POST", "/api/studies", self.new),
            ("PUT", f"{study}/files", self.receive),
            ("POST", f"{study}/start", self.start),
            ("POST", f"{study}/stop", self.stop),
            ("DELETE", study, self.remove),
            ("GET", study, self.study),
            ("GET", f"{study}/preview", self.preview),
            ("GET", f"{study}/findings", self.findings),
            ("PUT", f"{study}/review", self.decide),
            ("GET", f"{study}/accepted.zip", self.accepted),
        ):
            application.add_api_route(path, answer, methods=[method], response_model=None)

    def page(self) -> Response:
        text = template("app.html.jinja", "monai_anomalyclip.app").render(notice=RESEARCH_USE_ONLY)
        return Response(text, media_type="text/html")

    def code(self) -> Response:
        own = (_HERE / "app.js").read_text(encoding="utf-8")
        return Response(script("viewer").text + own, media_type="text/javascript")

    def look(self) -> Response:
        own = (_HERE / "app.css").read_text(encoding="utf-8")
        return Response(style("report", "viewer").text + own, media_type="text/css")

    def studies(self) -> Any:
        found = sorted(self.place.studies.values(), key=lambda study: study.record.created, reverse=True)
        return [_short(study) for study in found]

    def new(self, wanted: NewStudy) -> Any:
        words = [] if wanted.threshold is None else ["--threshold", str(wanted.threshold)]
        words += ["--preset", wanted.preset] if wanted.preset else []
        if wanted.path:
            path = Path(wanted.path).expanduser()
            if not path.is_absolute() or not path.exists():
                raise HTTPException(400, "There is no such file or folder on this machine: give its whole path.")
            if path.resolve().is_relative_to(self.place.folder) or self.place.folder.is_relative_to(path.resolve()):
                raise HTTPException(400, "This folder holds what this page keeps: name the folder of the images.")
            study = self.place.new(wanted.title or path.name, str(path.resolve()), tuple(words))
            self.runner.add(study)
        else:
            study = self.place.new(wanted.title or "Study", "", tuple(words))
        return _short(study)

    async def receive(self, key: str, path: str, request: Request) -> Any:
        study = self._find(key)
        if study.record.state != "receiving":
            raise HTTPException(409, "This study is complete: make another one.")
        intake = self._intakes.get(key)
        if intake is None:
            intake = self._intakes[key] = Intake.resumed(study.sent, *self.limits)
        stream = None
        try:
            stream = intake.open(path)
            async for piece in request.stream():
                intake.write(stream, piece)
        except RefusedUploadError as error:
            raise HTTPException(413, str(error)) from None
        finally:
            if stream is not None:
                stream.close()
        return {"files": intake.files, "bytes": intake.received}

    def start(self, key: str) -> Any:
        study = self._find(key)
        if study.record.state in ("queued", "running"):
            raise HTTPException(409, "This study is being scored already.")
        if not study.record.path and not (study.sent.is_dir() and any(study.sent.iterdir())):
            raise HTTPException(400, "There are no files yet.")
        self._intakes.pop(key, None)
        self.runner.add(study)
        return _short(study)

    def stop(self, key: str) -> Any:
        study = self._find(key)
        if study.record.state in ("queued", "running"):
            self.runner.stop(study)
        return _short(study)

    def remove(self, key: str) -> Any:
        study = self._find(key)
        if study.record.state in ("queued", "running"):
            raise HTTPException(409, "Stop this study first.")
        for kept in (self._intakes, self._reviews):
            kept.pop(key, None)
        self.place.remove(study)
        return {}

    def study(self, key: str) -> Any:
        study = self._find(key)
        states = study.states()
        shown = {name: state.shown() for name, state in states.items() if state and state.state != "unfinished"}
        ranks = {record.name: rank for rank, record in enumerate(ranked_records(filter(None, shown.values())), start=1)}
        review = self._review(study)
        labels = study.record.labels
        inputs = [
            {**_input(name, states[name], ranks.get(name), review), "label": labels.get(name, "")}
            for name in study.record.names
        ]
        inputs.sort(key=lambda row: (row["rank"] is None, row["rank"] or 0))
        made = next((state.made_with for state in states.values() if state and state.made_with), None)
        return {
            **_short(study),
            "inputs": inputs,
            "revision": review.revision,
            "folder": str(study.results),
            "caution": made.model.caution if made else "",
        }

    def preview(self, key: str, name: str) -> Response:
        study = self._find(key)
        self._state(study, name)
        path = preview_path(study.results, name)
        if not path.is_file():
            raise HTTPException(404, "There is no preview of this input.")
        return FileResponse(path, media_type="application/json")

    def findings(self, key: str, name: str) -> Any:
        study = self._find(key)
        state = self._state(study, name)
        found = find_regions(study.results, state)
        review = self._review(study)
        decisions = review.decisions(state)
        regions = [
            {**region.model_dump(), **decisions.get(region.number, Decision()).model_dump()} for region in found.regions
        ]
        return {"regions": regions, "others": found.others, "revision": review.revision}

    def decide(self, key: str, decided: Decided) -> Any:
        study = self._find(key)
        state = self._state(study, decided.name)
        if decided.finding not in {region.number for region in find_regions(study.results, state).regions}:
            raise HTTPException(404, "There is no such finding.")
        decision = Decision.model_validate({"verdict": decided.verdict, "note": decided.note})
        try:
            revision = self._review(study).decide(state, decided.finding, decision, decided.revision)
        except StaleReviewError as error:
            raise HTTPException(409, str(error)) from None
        return {"revision": revision}

    async def accepted(self, key: str) -> Response:
        study = self._find(key)
        if not (study.results / "results.json").is_file():
            raise HTTPException(409, "There are no results yet.")
        archive = await asyncio.to_thread(export_accepted, study, self._review(study))
        title = re.sub(r"[^A-Za-z0-9_-]+", "_", study.record.title).strip("_") or "study"
        return FileResponse(archive, media_type="application/zip", filename=f"{title}_accepted.zip")

    def _find(self, key: str) -> Study:
        study = self.place.studies.get(key)
        if study is None:
            raise HTTPException(404, "There is no such study.")
        return study

    def _state(self, study: Study, name: str) -> InputState:
        state = study.state(name) if name in study.record.names else None
        if state is None or state.state != "finished" or state.refused or state.record is None:
            raise HTTPException(404, "There is no result of this input yet.")
        return state

    def _review(self, study: Study) -> Review:
        key = study.record.id
        if key not in self._reviews:
            self._reviews[key] = Review(study.folder / "review.json")
        return self._reviews[key]


def _short(study: Study) -> dict[str, Any]:
    states = study.states()
    kinds = [state.state for state in states.values() if state is not None]
    record = study.record
    return {
        "id": record.id,
        "title": record.title,
        "created": record.created,
        "state": record.state,
        "message": record.message,
        "sent": not record.path,
        "total": len(record.names),
        "finished": kinds.count("finished"),
        "failed": kinds.count("failed"),
    }


def _input(name: str, state: InputState | None, rank: int | None, review: Review) -> dict[str, Any]:
    record = None if state is None or state.state == "unfinished" else state.shown()
    row: dict[str, Any] = {"name": name, "rank": rank, "status": "waiting", "what": "", "reason": ""}
    if state is None or record is None:
        return row
    if record.status != "ok":
        return {**row, "status": "failed", "reason": record.reason}
    text = describe(record)
    verdicts = [decision.verdict for decision in review.decisions(state).values()]
    return {
        **row,
        "status": "done",
        "what": text.what,
        "score": text.score,
        "margin": text.margin,
        "peak": text.peak,
        "above": text.above,
        "warnings": list(record.warnings),
        "accepted": verdicts.count("accepted"),
        "rejected": verdicts.count("rejected"),
    }
