# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""What the MONAI Label server has every request checked for before its own code sees it.

Our app is made while the server starts, before it answers anybody. It then puts a :class:`RequestGuard` in front of
MONAI Label's FastAPI application, in the place of its CORS middleware, and :func:`checked_user` in the place of the
function that all its routes but the page of the API itself ask who the user is.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Collection
from typing import Any
from urllib.parse import unquote

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware import Middleware
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse
from monailabel.config import settings
from monailabel.endpoints.user.auth import User, get_current_user, oauth2_scheme
from monailabel.interfaces.exception import ImageNotFoundException, LabelNotFoundException, MONAILabelException
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.others.generic import device_map

from monai_anomalyclip.label.checked_datastores import CheckedArchive, CheckedFolder, told_to_the_client
from monai_anomalyclip.label.request_guard import RequestGuard
from monai_anomalyclip.label.request_values import check_info, check_options, json_object, plain_name

__all__ = ["checked_user", "devices", "guard_server", "max_bytes"]

_MIB = 2**20
_MAX_UPLOAD_MIB = 2048
_NAMES = ("image", "id", "label", "tag")  # query parameters that MONAI Label makes paths of
_JSON_FIELDS = ("params", "info", "wsi")
_MOST_LINES = 100_000


def max_bytes(conf: dict[str, str]) -> int:
    """The largest request, and the largest contents of an archive, as ``--conf max_upload_mib`` says.

    Raises:
        ValueError: it is no positive whole number.
    """
    given = str(conf.get("max_upload_mib") or _MAX_UPLOAD_MIB)
    if not given.isdecimal() or int(given) == 0:
        raise ValueError(f"--conf max_upload_mib must be a positive whole number, got {given!r}.")
    return int(given) * _MIB


def devices() -> list[str]:
    """Names of the devices that there are, as /info/ lists and as torch has them."""
    return list(dict.fromkeys(["cpu", *device_map(), *device_map().values()]))


def guard_server(application: FastAPI, conf: dict[str, str]) -> None:
    """Have the server check every request, from now on.

    Args:
        application: MONAI Label's.
        conf: options of the command line; ``hosts`` are further names of the server and ``origins`` those of web pages
            that may use it, each with commas between them, ``max_upload_mib`` is the limit of a request. (MONAI
            Label's own MONAI_LABEL_CORS_ORIGINS keeps version 0.8.5 from starting.)

    Raises:
        ValueError: an option has no such value.
    """
    hosts, origins = (
        [entry.strip().rstrip("/") for entry in conf.get(name, "").split(",") if entry.strip()]
        for name in ("hosts", "origins")
    )
    limit = max_bytes(conf)
    RequestGuard(application, hosts, origins, limit)  # says what is wrong with them before anything is changed
    cors = Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"])
    guard = Middleware(RequestGuard, hosts=hosts, origins=origins, max_bytes=limit)
    application.user_middleware[:] = [guard, *([cors] if origins else [])]
    application.max_body_size = limit  # of what comes without its length, too
    application.dependency_overrides[get_current_user] = checked_user
    application.add_exception_handler(MONAILabelException, _answer_to_the_client)
    application.add_exception_handler(RequestValidationError, _answer_to_the_client)
    # It makes a second app beside the first, whose background tasks would then wait for the server that waits for them.
    application.router.routes[:] = [route for route in application.routes if getattr(route, "path", "") != "/reload"]
    application.middleware_stack = application.build_middleware_stack()


async def checked_user(
    request: Request, token: str = Depends(oauth2_scheme) if settings.MONAI_LABEL_AUTH_ENABLE else ""
) -> User:
    """Who asks, once it was looked at what they ask for.

    Raises:
        HTTPException: status 400, 403 or 404, with a sentence.
    """
    user: User = await get_current_user(token)
    path = (
        request.scope["path"]
        .removeprefix(request.scope.get("root_path", ""))
        .removeprefix(settings.MONAI_LABEL_API_STR)
    )
    section = path.strip("/").partition("/")[0]
    with told_to_the_client():
        query = _query(request)
        form, content = await _body(request, section)
        instance = app_instance()
        own = {name: value for name, value in request.path_params.items() if name in ("model", "method", "strategy")}
        _check_offered(instance, section, own)
        groups = {"train": instance._trainers, "scoring": instance._scoring_methods}.get(path.strip("/"), ())
        for name, options in content.items():
            _check_content(name, options, own, section, groups)
        _check_route(instance, section, path, request, query, form)
    return user


def _query(request: Request) -> dict[str, str]:
    query = dict(request.query_params)
    if len(request.query_params.multi_items()) != len(query):
        raise ValueError("A parameter of the address is given more than once.")
    return query


async def _body(request: Request, section: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Fields of a form, and JSON objects by the name of their field, which is empty for a body of JSON."""
    if section == "proxy":  # the archive's to look at
        return {}, {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        body = await request.body()
        return {}, {"": json_object(body, "The body")} if body else {}
    fields = await request.form()
    form = dict(fields)
    if section != "session" and len(fields.multi_items()) != len(form):
        raise ValueError("A field of the form is given more than once.")
    for _, value in fields.multi_items():
        if not isinstance(value, str):
            _check_upload(value.filename)
    content = {
        name: json_object(form[name], name) for name in _JSON_FIELDS if isinstance(form.get(name), str) and form[name]
    }
    return form, content


def _check_upload(filename: str | None) -> None:
    """Clients send whole paths, of which MONAI Label takes the last part, or that one's suffixes."""
    last = re.split(r"[/\\]", filename or "")[-1]
    plain_name(last, "The file's name")


def _check_offered(instance: Any, section: str, own: dict[str, str]) -> None:
    offers: dict[str, dict[str, Any]] = {
        "infer": instance._infers,
        "batch": instance._infers,
        "model": instance._infers,
        "train": instance._trainers,
        "scoring": instance._scoring_methods,
        "activelearning": instance._strategies,
    }
    for kind, name in own.items():
        if section in offers and name not in offers[section]:
            raise HTTPException(status_code=404, detail=f"There is no such {kind}: /info/ lists them.")


def _check_content(
    name: str, content: dict[str, Any], own: dict[str, str], section: str, groups: Collection[str]
) -> None:
    if name == "info":
        check_info(content)
        return
    for kind in ("model", "method", "strategy"):
        if section != "datastore" and kind in content and content[kind] != own.get(kind):
            raise ValueError(f"{kind!r} is part of the address, not an option.")
    if section == "datastore":
        check_options({key: content[key] for key in ("label_info",) if key in content}, devices())
        return
    check_options(content, devices())
    # Those of whole slides hold further ones, and where all models are trained, each has its own by its name.
    inner = [*groups, *(["params"] if section == "infer" else [])]
    for options in [content[key] for key in inner if content.get(key)]:
        if not isinstance(options, dict):
            raise ValueError(f"Options must be a JSON object, got {str(options)[:60]!r}.")
        check_options(options, devices())


def _check_route(
    instance: Any, section: str, path: str, request: Request, query: dict[str, str], form: dict[str, Any]
) -> None:
    if section == "datastore":
        _check_datastore(instance.datastore(), path, request.method, query)
    elif section == "infer":
        _check_infer(instance, request.path_params.get("model"), query, form)
    elif section == "session" and "session_id" in request.path_params:
        _check_session(instance, request.path_params["session_id"], "image" in query)
    elif section == "model" and request.method in ("PUT", "DELETE"):
        raise HTTPException(status_code=403, detail="Prompts are replaced by tuning (/train/), or in the app's folder.")
    elif section == "logs":
        _check_logs(path, query)
    elif section in ("ohif", "proxy"):
        _check_path(instance, section, path)


def _check_datastore(store: Any, path: str, method: str, query: dict[str, str]) -> None:
    part = path.strip("/").removeprefix("datastore").strip("/")
    adds = method == "PUT" and part in ("", "image")
    image = next((query[name] for name in ("image", "id", "label") if name in query), None)
    for name in _NAMES:
        if query.get(name):
            plain_name(query[name], name)
    if image is not None and not adds:
        _check_image(store, image)
    labels = isinstance(store, CheckedArchive | CheckedFolder) and image is not None and "tag" in query
    if labels and method != "PUT" and not store.has_label(image, query["tag"]):
        raise HTTPException(status_code=404, detail="There is no label of this image and tag.")
    check_sum = query.get("check_sum")
    if check_sum is not None and not re.fullmatch(r"((SHA256|SHA512|MD5):)?[0-9a-fA-F]{32,128}", check_sum, re.ASCII):
        raise ValueError("check_sum must be hexadecimal digits, with SHA256:, SHA512: or MD5: before them.")


def _check_infer(instance: Any, model: str | None, query: dict[str, str], form: dict[str, Any]) -> None:
    session, image = query.get("session_id"), query.get("image")
    store = instance.datastore()
    if "label" in form:
        raise ValueError("The models of this app take no label: send the image alone.")
    segmentation = query.get("output") == "dicom_seg"
    if segmentation and not (image and isinstance(store, CheckedArchive)):
        raise ValueError("There are DICOM segmentations of an archive's series only: ask for output=image.")
    if query.get("output") in ("image", "dicom_seg") and not instance._infers[model].makes_file:
        raise ValueError("This model's result is no file: ask for output=json.")
    if session:
        _check_session(instance, session, False)
    if image and (segmentation or not session):  # with a session, Slicer sends what its user calls the volume
        _check_image(store, image)
    if not (image or session or form.get("file")):
        raise ValueError("Name an image (image=), or send one (file=).")


def _check_image(store: Any, image: str) -> None:
    if isinstance(store, CheckedArchive | CheckedFolder):
        store.check_image(image)
    else:
        plain_name(image, "The image")


def _check_session(instance: Any, session_id: str, download: bool) -> None:
    sessions = instance.sessions()
    session = sessions.get_session(session_id, update_ts=False) if sessions is not None else None
    if session is None or (download and os.path.isdir(session.image)):
        what = "session" if session is None else "single file in this session"
        raise HTTPException(status_code=404, detail=f"There is no such {what}: make a new session.")


def _check_logs(path: str, query: dict[str, str]) -> None:
    if path.strip("/") == "logs/gpu" and shutil.which("nvidia-smi") is None:
        raise HTTPException(status_code=404, detail="There is no nvidia-smi here.")
    for name in ("lines", "refresh"):
        if not re.fullmatch(r"-?[0-9]{1,6}", query.get(name, "0"), re.ASCII) or int(query.get(name, 0)) > _MOST_LINES:
            raise ValueError(f"{name} must be a whole number, at most {_MOST_LINES}.")


def _check_path(instance: Any, section: str, path: str) -> None:
    inner = path.partition(section)[2].lstrip("/")
    decoded = inner
    for _ in range(4):  # what is encoded more than once may be decoded once more on its way
        decoded = unquote(decoded)
    parts = re.split(r"[/\\]", decoded)
    if ".." in parts or "." in parts or not decoded.isprintable():
        raise ValueError("The path must not hold '.' or '..' parts.")
    if section == "proxy" and not str(instance.studies).startswith(("http://", "https://")):
        raise HTTPException(status_code=404, detail="The studies are a folder: there is no archive to ask.")
    if section == "ohif" and decoded.strip("/") == "assets":
        raise HTTPException(status_code=404, detail="This is a folder.")


async def _answer_to_the_client(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return JSONResponse({"detail": f"{where}: {first['msg']}."}, status_code=422)
    if isinstance(error, ImageNotFoundException | LabelNotFoundException):
        return JSONResponse({"detail": "There is no such image or label."}, status_code=404)
    return JSONResponse({"detail": str(getattr(error, "msg", "The request cannot be answered."))}, status_code=400)
