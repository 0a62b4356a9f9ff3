# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Normal images of one's own as the reference that other images are compared with."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from tqdm import tqdm

from monai_anomalyclip.reference.bank_growth import Taken, bank_of, encode_alike, take_in, thin
from monai_anomalyclip.reference.comparison import (
    Comparison,
    RankedNormal,
    calibration_of,
    compare,
    description_of,
    notes_on,
)
from monai_anomalyclip.reference.conformal import ConformalScores, pixel_threshold
from monai_anomalyclip.reference.encoder_choice import encoder_like, make_encoder
from monai_anomalyclip.reference.encoders import EncoderIdentity, PatchEncoder
from monai_anomalyclip.reference.memory_bank import MemoryBank
from monai_anomalyclip.reference.normal_facts import (
    Framing,
    NormalFacts,
    as_unit_image,
    facts_of_image,
    known_modalities,
    make_alike,
    modality_of,
    preset_of,
    refuse_other_preset,
)
from monai_anomalyclip.reference.normals import NormalImage
from monai_anomalyclip.reference.reference_file import ReferenceContent, read_reference, write_reference
from monai_anomalyclip.transforms.anomaly_map import resize_anomaly_map

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["NormalReference"]

CAPACITY = 192  # images' worth of patches that a bank holds at most: with the default encoder 59 MB on disk

_FINE = 4  # how much finer than the patches' grid maps are looked at for a pixel threshold
_FINISH_EVERY = 200  # images after which an unfinished reference is kept


class NormalReference:
    """A bank of patch features of normal images: what is far from all of them is unlike them.

    Make one with :meth:`build` or :meth:`load`. It holds no image and no name, but features, sizes, thumbnails of 16 x
    16 pixels and keyed hashes of patients: treat the file as you treat the images.

    Args:
        encoder: makes the patch features.
        content: what :func:`~monai_anomalyclip.reference.reference_file.read_reference` reads.

    Raises:
        ValueError: the content was made with another encoder.

    Example::

        reference = NormalReference.build(normal_images)  # each (3, H, W) in [0, 1]
        reference.save("my_ct.reference")
        found = reference.score(image)
        print(found.score, found.p_value, found.sentence)
    """

    def __init__(self, encoder: PatchEncoder, content: ReferenceContent) -> None:
        if difference := content.encoder.difference(encoder.identity):
            raise ValueError(f"The reference does not fit this encoder: {difference}. Build it again, or give its own.")
        self.encoder = encoder
        self._content = content
        self._bank: MemoryBank | None = None

    @classmethod
    def build(
        cls,
        images: Iterable[Tensor | NormalImage],
        *,
        encoder: PatchEncoder | str = "efficientnet-lite0",
        groups: Sequence[str | None] | None = None,
        preset: str = "",
        alike: Sequence[str] = (),
        seed: int = 0,
        capacity: int = CAPACITY,
        coreset: bool = False,
        batch_size: int = 8,
        progress: bool = False,
        unfinished: str | Path | None = None,
    ) -> Self:
        """Make a reference.

        Images are read one after the other, so they may come from a generator. While they are no more than
        `capacity` all their patches are kept, after that a bounded number, chosen by `seed` and content alone. Time
        grows with their number, memory does not.

        Args:
            images: normal ones, each (3, H, W) or (1, H, W), float in [0, 1] or uint8.
            encoder: makes the features, or its name (see :func:`~monai_anomalyclip.reference.make_encoder`).
            groups: whose each image is, such as the patient; images of a group are left out together wherever an
                image is compared with the others. None for an image that stands alone.
            preset: how the intensities were scaled; by default as the first image's meta says. All images, and those
                that are compared later, must agree.
            alike: "framing" and "brightness", to cut dark frames off and to stretch gray values: other figures come
                out, see docs/explanation/conformal.md.
            seed: of the choice of patches.
            capacity: images' worth of patches that are kept, at least 48.
            coreset: keep patches that are far from each other in place of random ones.
            batch_size: images of one size that are encoded at a time.
            progress: show a progress bar.
            unfinished: file in which an interrupted run leaves what it had, and from which the next goes on.

        Raises:
            ValueError: there is no image, an image is odd (the message says which), or an argument is out of range.
        """
        if capacity < 48:
            raise ValueError(f"capacity={capacity} must be at least 48 images, so that 32 can be kept whole.")
        maker = make_encoder(encoder) if isinstance(encoder, str) else encoder
        make_alike(torch.zeros(1, 1, 1), tuple(alike))  # refuses unknown words
        settings: dict[str, Any] = {
            "preset": preset,
            "modality": "",
            "alike": sorted(alike),
            "seed": seed,
            "capacity": capacity,
            "coreset": coreset,
        }
        content = ReferenceContent(maker.identity, settings, secrets.token_bytes(32))
        if unfinished is not None and Path(unfinished).is_file():
            earlier = read_reference(unfinished)
            ours, theirs = ({**one.settings, "preset": "", "modality": ""} for one in (content, earlier))
            if ours == theirs and not earlier.encoder.difference(maker.identity):
                content = earlier
        reference = cls(maker, content)
        reference.add(images, groups, batch_size=batch_size, progress=progress, unfinished=unfinished)
        if not content.facts:
            raise ValueError("There is no normal image: a reference needs at least one (32 are recommended).")
        return reference

    def add(
        self,
        images: Iterable[Tensor | NormalImage],
        groups: Sequence[str | None] | None = None,
        *,
        batch_size: int = 8,
        progress: bool = False,
        unfinished: str | Path | None = None,
    ) -> Taken:
        """Take more normal images in; the result equals a reference of all of them.

        Args:
            images: see :meth:`build`; those that are there already are passed over.
            groups: see :meth:`build`.
            batch_size: see :meth:`build`.
            progress: show a progress bar.
            unfinished: see :meth:`build`.

        Raises:
            ValueError: an image is odd or was scaled by another preset; those before it are taken in.
        """
        taken = Taken()
        self._bank = None
        self._content.leave_one_out = None
        total = len(images) if isinstance(images, Sequence) else None
        if groups is not None and total is not None and len(groups) != total:
            raise ValueError(f"There are {total} images but {len(groups)} groups.")
        bar = tqdm(total=total, desc="Encoding normals", unit="image", disable=not progress)
        try:
            for features, facts in encode_alike(self.encoder, self._fresh(images, groups, taken, bar), batch_size):
                take_in(self._content, features, facts)
                taken.new += 1
                if unfinished is not None and taken.new % _FINISH_EVERY == 0:
                    write_reference(self._content, unfinished)
        except BaseException:
            if unfinished is not None and taken.new:
                write_reference(self._content, unfinished)
            raise
        finally:
            bar.close()
            thin(self._content)
        return taken

    def save(self, path: str | Path) -> None:
        """Write it as one safetensors file, whatever the suffix; an existing file is replaced."""
        self.bank  # noqa: B018 - with the distances among the normals
        write_reference(self._content, path)

    @classmethod
    def load(cls, path: str | Path, *, encoder: PatchEncoder | None = None, weights: str | Path | None = None) -> Self:
        """Read what :meth:`save` wrote.

        Args:
            path: the file.
            encoder: the one that it was made with; by default it is made from the file's description.
            weights: of that encoder, where they are not those of a package.

        Raises:
            FileNotFoundError: there is no such file.
            ImportError: the encoder's package is not installed.
            ValueError: the file is damaged or something else, or was made with another encoder.
        """
        content = read_reference(path)
        return cls(encoder if encoder is not None else encoder_like(content.encoder, weights), content)

    @property
    def identity(self) -> EncoderIdentity:
        """Of the encoder."""
        return self._content.encoder

    @property
    def settings(self) -> dict[str, Any]:
        """``preset``, ``alike``, ``seed``, ``capacity`` and ``coreset``."""
        return dict(self._content.settings)

    @property
    def n_images(self) -> int:
        """Number of normal images."""
        return len(self._content.facts)

    @property
    def n_groups(self) -> int:
        """Number of patients or other groups; an image without one counts as its own."""
        return len({one.group for one in self._content.facts})

    @property
    def bank(self) -> MemoryBank:
        """The patches, on the encoder's device; made, and compared with each other, when it is first asked for."""
        if self._bank is None or self._bank.device != self.encoder.device:
            self._bank = bank_of(self._content, self.encoder)
        if self._content.leave_one_out is None:
            self._content.leave_one_out = self._bank.leave_one_out()
        return self._bank

    @property
    def leave_one_out(self) -> Tensor:
        """Patch distances (w, patches) of the whole images to other groups; infinite where there is no other."""
        self.bank  # noqa: B018
        assert self._content.leave_one_out is not None
        return self._content.leave_one_out

    @property
    def calibration(self) -> ConformalScores:
        """Scores of the normals, each found without its own group.

        Raises:
            ValueError: there is one group only.
        """
        if self.n_groups < 2:
            raise ValueError("One normal image, or one patient, cannot be compared with others: add some.")
        return calibration_of(self._content, self.leave_one_out)

    def score(self, image: Tensor, *, group: str | None = None) -> Comparison:
        """Compare one image.

        An image that is itself among the normals, or whose patient is, is compared with the others only.

        Args:
            image: (3, H, W) or (1, H, W), float in [0, 1] or uint8; a MetaTensor's meta ``intensity`` is checked.
            group: whose it is, as it was given for the normals.

        Raises:
            ValueError: another shape, NaN, values out of range, another preset, or nothing to compare with.
        """
        unit, facts, part = self._prepared(image, group)
        features = self.encoder(part[0][None])[0]
        found = compare(self._content, self.bank, features, facts, part[1], (unit.shape[1], unit.shape[2]))
        own, theirs = modality_of(image), known_modalities(self._content.settings)
        if own and theirs and own not in theirs:
            names = ", ".join(theirs)
            said = f"Its modality is {own}, that of the reference's normals {names}: they are not of one kind."
            return replace(found, doubts={**found.doubts, "modality": said})
        return found

    @property
    def lacks_group_scores(self) -> bool:
        """Whether whole volumes can get no p-value yet, because not all slices of the normal ones are kept."""
        content = self._content
        groups = {one.group for one in content.facts}
        kept = len(content.whole) == len(content.facts)
        return not kept and len(groups) < len(content.facts) and not groups <= set(content.group_scores)

    def score_groups(self, images: Iterable[NormalImage], *, progress: bool = False) -> None:
        """Find the largest score of each patient's or volume's images, for the p-values of whole volumes.

        It is needed where not all images are kept whole (more than `capacity`), and encodes them once more.

        Args:
            images: the same as were taken in; those of groups that were scored are passed over.
            progress: show a progress bar.

        Raises:
            ValueError: an image is odd.
        """
        known, found = set(self._content.group_scores), dict(self._content.group_scores)
        for given in tqdm(images, desc="Scoring normals", unit="image", disable=not progress):
            group = facts_of_image(as_unit_image(given.image), given.group, self._content.salt).group
            if group not in known:
                score = self.score(given.image, group=given.group).score
                found[group] = max(score, found.get(group, 0.0))
        self._content.group_scores = found

    def score_batch(self, images: Tensor, groups: Sequence[str | None] | None = None) -> list[Comparison]:
        """Compare several images of one size, (B, 3, H, W) or (B, 1, H, W); see :meth:`score`."""
        whose = [None] * len(images) if groups is None else list(groups)
        return [self.score(image, group=group) for image, group in zip(images, whose, strict=True)]

    def predict(self, images: Tensor) -> dict[str, Tensor]:
        """Maps and scores alone, in the form of the networks' ``predict``.

        Args:
            images: (B, 3, H, W) or (B, 1, H, W), float in [0, 1] or uint8, not normalised.

        Returns:
            ``anomaly_map`` (B, 1, H, W) and ``anomaly_score`` (B,), in [0, 1].
        """
        found = self.score_batch(images)
        return {
            "anomaly_map": torch.stack([one.anomaly_map for one in found]),
            "anomaly_score": torch.tensor([one.score for one in found]),
        }

    def rank_normals(self) -> list[RankedNormal]:
        """The normals, each compared with the others, the farthest first: the odd one among them for a person to judge.

        Of more images than the capacity those that are kept whole are ranked.

        Raises:
            ValueError: there is one group only.
        """
        calibration = self.calibration
        ranked = []
        for position, index in enumerate(self._content.whole):
            score = float(calibration.scores[position])
            others = calibration.without([calibration.groups[position]])
            digest = self._content.facts[index].digest
            ranked.append(RankedNormal(index, score, others.p_value(score), digest))
        return sorted(ranked, key=lambda one: (-one.score, one.index))

    def pixel_threshold(self, rate: float) -> float:
        """Map value from which at most this share of the normals' pixels is flagged, each map found without its group.

        Raises:
            ValueError: fewer than four normals or two groups, or a rate out of range.
        """
        self.calibration  # noqa: B018 - refuses one group
        rows, columns = self.encoder.grid
        maps = self.leave_one_out.reshape(-1, 1, rows, columns)
        fine = resize_anomaly_map(maps, (_FINE * rows, _FINE * columns)).numpy()
        return pixel_threshold(fine[:, 0], rate)

    def notes(self) -> list[str]:
        """Sentences on what a person should know of the normals, see :func:`notes_on`."""
        return notes_on(self._content)

    def describe(self) -> dict[str, Any]:
        """What it is, as JSON values, without anything of the images."""
        return description_of(self._content)

    def _fresh(
        self,
        images: Iterable[Tensor | NormalImage],
        groups: Sequence[str | None] | None,
        taken: Taken,
        bar: Any,
    ) -> Iterator[tuple[Tensor, NormalFacts]]:
        """The images that are not there yet, ready to be encoded, and their facts."""
        known = {one.digest for one in self._content.facts}
        for number, given in enumerate(images):
            image, group = (given.image, given.group) if isinstance(given, NormalImage) else (given, None)
            if groups is not None:
                group = groups[number]
            bar.update()
            try:
                _, facts, part = self._prepared(image, group)
            except ValueError as error:
                raise ValueError(f"Normal image {number + 1}: {error}") from error
            if facts.digest in known:
                taken.known += 1
                continue
            known.add(facts.digest)
            if not self._content.settings["preset"]:
                self._content.settings["preset"] = preset_of(image)
            modalities = {*known_modalities(self._content.settings), modality_of(image)} - {""}
            self._content.settings["modality"] = "/".join(sorted(modalities))
            yield part[0], facts

    def _prepared(self, image: Tensor, group: str | None) -> tuple[Tensor, NormalFacts, tuple[Tensor, Framing]]:
        unit = as_unit_image(image)
        refuse_other_preset(preset_of(image), self._content.settings["preset"])
        part = make_alike(unit, tuple(self._content.settings["alike"]))
        return unit, facts_of_image(unit, group, self._content.salt), part
