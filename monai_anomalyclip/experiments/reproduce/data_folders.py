# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Where the images of an experiment come from: data sets below one folder, or the demonstration's phantoms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from monai_anomalyclip.atomic_file import replaced_when_complete
from monai_anomalyclip.data import load_datalist
from monai_anomalyclip.data.datasets import make_datalist, write_datalist
from monai_anomalyclip.experiments.reproduce.tables import INDUSTRIAL_PHANTOMS

__all__ = [
    "FOLDER_NAMES",
    "DataFolder",
    "ImageSet",
    "ImageSource",
    "NotFoundError",
    "PhantomSource",
    "Purpose",
    "of_class",
]

Purpose = Literal["training", "testing"]
"""What images are for: to tune, or to test."""

FOLDER_NAMES: dict[str, tuple[str, ...]] = {
    "mvtec": ("mvtec_anomaly_detection", "MVTec AD"),
    "visa": ("VisA_20220922",),
    "btad": ("BTech_Dataset_transformed",),
    "sdd": ("KolektorSDD",),
    "dagm": ("DAGM_KaggleUpload",),
    "cvc-clinicdb": ("ClinicDB",),
    "cvc-colondb": ("ColonDB",),
    "kvasir": ("Kvasir-SEG",),
    "endo": ("EndoTect_2020_Segmentation_Test_Dataset",),
    "headct": ("head-ct-hemorrhage",),
    "covid-19": ("COVID-19_Radiography_Database",),
}
"""Names of folders beside the data set's own, which is compared without case and punctuation."""


class NotFoundError(Exception):
    """Data or prompts that are not there; the message says what was looked for."""


@dataclass(frozen=True)
class ImageSet:
    """Images to tune or to test on.

    Args:
        datalist: file with one section, absolute paths or paths relative to its folder.
        images: their number.
        anomalous: how many of them are anomalous.
        classes: their classes, sorted.
        notes: sentences about what differs from the paper's data, and what does not fit.
    """

    datalist: Path
    images: int
    anomalous: int
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


class ImageSource(Protocol):
    """Finds images and prompts by the name of a data set."""

    def find(self, name: str, purpose: Purpose) -> ImageSet:
        """Images to tune or test on.

        Raises:
            NotFoundError: there are none of this name.
        """

    def prompts(self, tuned_on: str) -> Path:
        """Prompts that were tuned elsewhere.

        Raises:
            NotFoundError: there are none.
        """

    def original(self, name: str) -> Path:
        """A datalist with the data set's published parts: normal images under "training", others under "testing".

        Raises:
            NotFoundError: there are none of this name.
        """

    def image_net_weights(self) -> Path:
        """Weights of the backbone of methods that learn from normal images.

        Raises:
            NotFoundError: there are none.
        """


class DataFolder:
    """Data sets below one folder, each as a datalist or as it was unpacked.

    A data set NAME is, in this order, ``NAME.json``, a folder of its name or of one of :data:`FOLDER_NAMES` with a
    ``datalist.json``, or such a folder in the set's original layout. The auxiliary mix may also be made of its two
    parts directly below. Given prompts are ``prompts/NAME.pt``, ``.safetensors`` or ``.pth``, NAME being what they were
    tuned on.

    Args:
        root: the folder.
        output: folder to write datalists into.

    Raises:
        NotADirectoryError: there is no such folder.
    """

    def __init__(self, root: Path, output: Path) -> None:
        if not root.is_dir():
            raise NotADirectoryError(f"There is no folder '{root}': give the one that holds the data sets.")
        self.root = root
        self.output = output

    def find(self, name: str, purpose: Purpose) -> ImageSet:
        """Images to tune or test on; see :class:`ImageSource`."""
        own = next((path for path in sorted(self.root.glob("*.json")) if path.stem.casefold() == name), None)
        folder = self._folder(name)
        if own is None and folder is not None and (folder / "datalist.json").is_file():
            own = folder / "datalist.json"
        if own is not None:
            entries, notes = _read(own, purpose)
            return _write(self.output / f"{name}-{purpose}.json", purpose, entries, notes)
        if folder is None and name == "colondb-endo":
            folder = self.root
        if folder is None:
            names = ", ".join((name, *FOLDER_NAMES.get(name, ())))
            raise NotFoundError(f"there is no datalist {name}.json and no folder of the names {names}")
        return self._from_layout(name, folder, purpose)

    def prompts(self, tuned_on: str) -> Path:
        """Prompts that were tuned elsewhere; see :class:`ImageSource`."""
        names = [f"prompts/{tuned_on}{suffix}" for suffix in (".pt", ".safetensors", ".pth")]
        for name in names:
            if (self.root / name).is_file():
                return self.root / name
        raise NotFoundError(f"there are no prompts {names[0]}, .safetensors or .pth")

    def original(self, name: str) -> Path:
        """A datalist with the data set's published parts; see :class:`ImageSource`."""
        folder = self._folder(name)
        for own in (self.root / f"{name}.json", *([folder / "datalist.json"] if folder is not None else [])):
            if own.is_file() and {"training", "testing"} <= set(json.loads(own.read_text(encoding="utf-8-sig"))):
                return own
        if folder is None:
            raise NotFoundError(
                f"{name}: there is no folder of it, and no datalist {name}.json with normal images under 'training'"
            )
        file = self.output / f"{name}-original.json"
        try:
            listing = make_datalist(name, folder, split="original")
        except (OSError, ValueError) as error:
            raise NotFoundError(f"{name}: {str(error).rstrip('.')}") from error
        write_datalist(listing, file, overwrite=True)
        return file

    def image_net_weights(self) -> Path:
        """``weights/wide_resnet50_2*``, in any of torch's formats; see :class:`ImageSource`."""
        found = sorted((self.root / "weights").glob("wide_resnet50_2*"))
        if not found:
            raise NotFoundError("there are no ImageNet weights weights/wide_resnet50_2*.pth or .safetensors")
        return found[0]

    def _folder(self, name: str) -> Path | None:
        wanted = {_plain(known) for known in (name, *FOLDER_NAMES.get(name, ()))}
        return next(
            (path for path in sorted(self.root.iterdir()) if path.is_dir() and _plain(path.name) in wanted), None
        )

    def _from_layout(self, name: str, folder: Path, purpose: Purpose) -> ImageSet:
        file = self.output / f"{name}-{purpose}.json"
        if file.is_file():  # pictures of KolektorSDD that were cut keep their time, and with it their cached features
            try:
                entries, notes = _read(file, purpose)
                return _image_set(file, entries, notes)
            except (OSError, ValueError):  # the data have moved
                file.unlink()
        try:
            listing = make_datalist(name, folder, split=purpose)
        except (OSError, ValueError) as error:
            raise NotFoundError(str(error).rstrip(".")) from error
        write_datalist(listing, file)
        entries, notes = _read(file, purpose)
        return _image_set(file, entries, notes)


class PhantomSource:
    """The demonstration's phantoms: industrial ones to tune on, one data set per medical family to test on.

    Args:
        datalist: what :func:`monai_anomalyclip.demo.phantom_sets.write_datalist` wrote.
        output: folder to write datalists into.
    """

    def __init__(self, datalist: Path, output: Path) -> None:
        self.datalist = datalist
        self.output = output

    def find(self, name: str, purpose: Purpose) -> ImageSet:
        """Images to tune or test on; see :class:`ImageSource`."""
        entries = load_datalist(self.datalist, purpose)
        if name != INDUSTRIAL_PHANTOMS:
            entries = [entry for entry in entries if entry["class"] == name]
        found = _write(self.output / f"{name}-{purpose}.json", purpose, entries, ())
        return replace(found, classes=())  # names of families are no words for a prompt

    def prompts(self, tuned_on: str) -> Path:
        """There are none; see :class:`ImageSource`."""
        raise NotFoundError(f"there are no prompts that were tuned on {tuned_on} elsewhere")

    def original(self, name: str) -> Path:
        """There are none; see :class:`ImageSource`."""
        raise NotFoundError(f"{name}: phantoms have no published parts")

    def image_net_weights(self) -> Path:
        """There are none; see :class:`ImageSource`."""
        raise NotFoundError("there are no ImageNet weights with the phantoms")


def of_class(images: ImageSet, name: str) -> ImageSet:
    """The images of one class, as a datalist beside that of all.

    Args:
        images: of several classes, to test on.
        name: one of ``images.classes``.
    """
    entries = [entry for entry in load_datalist(images.datalist, "testing") if str(entry.get("class", "")) == name]
    number = images.classes.index(name) + 1  # a class's name may be no name for a file
    return _write(images.datalist.with_name(f"{images.datalist.stem}-class-{number}.json"), "testing", entries, ())


def _is_anomalous(entry: dict[str, Any]) -> bool:
    return bool(entry.get("image_label", entry.get("label")))


def _plain(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def _read(file: Path, purpose: Purpose) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Entries to tune or test on, and the file's own notes.

    The paper tunes on the test part. A list to tune on is that of training where it holds anomalies, else of testing.
    """
    content = json.loads(file.read_text(encoding="utf-8-sig"))
    section: str = purpose
    if purpose == "training" and not any(map(_is_anomalous, content.get("training", ()))):
        section = "testing"
    if purpose == "testing" and "testing" not in content and "training" in content:
        section = "training"  # the same images: the purpose was named when the list was made
    return load_datalist(file, section), tuple(content.get("notes", ()))


def _write(file: Path, section: str, entries: Sequence[dict[str, Any]], notes: tuple[str, ...]) -> ImageSet:
    file.parent.mkdir(parents=True, exist_ok=True)
    with replaced_when_complete(file) as unfinished:
        unfinished.write_text(json.dumps({section: entries, "notes": notes}, indent=1) + "\n", encoding="utf-8")
    return _image_set(file, entries, notes)


def _image_set(file: Path, entries: Sequence[dict[str, Any]], notes: tuple[str, ...]) -> ImageSet:
    anomalous = sum(map(_is_anomalous, entries))
    classes = sorted({str(entry.get("class", "")) for entry in entries} - {""})
    return ImageSet(file.resolve(), len(entries), anomalous, tuple(classes), notes)
