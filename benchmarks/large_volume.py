# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
"""Time and memory of a whole run over one large CT: DICOM in; NIfTI, DICOM objects, pictures and report out.

A CT of noise is written, and the command line scores it with the demonstration bundle (its prompts are not tuned: speed
and memory do not depend on them) in a process of its own. A run over three slices shows what the program itself takes.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from pydicom import Dataset, FileDataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

BUNDLE = Path(__file__).parents[1] / "bundles" / "anomalyclip_demo"
NETWORK = {"prompt_length": 12, "deep_prompt_depth": 4, "deep_prompt_length": 4}  # of the bundle's configuration
MEBIBYTE = 2**20
EXAMPLES = """examples:
  python benchmarks/large_volume.py                               300 slices of 512 x 512, a minute or two on a CPU
  python benchmarks/large_volume.py --slices 1000 --outputs default,pm,sc --json large.json
"""


def make_ct(folder: Path, slices: int, size: int) -> None:
    """A regular axial CT of so many files, size x size pixels each, a bright ball in noise."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).normal(0, 20, (size, size))
    row, column = np.indices((size, size)) - size / 2
    series, study, space = (generate_uid(entropy_srcs=[name, str(slices)]) for name in ("series", "study", "space"))
    for index in range(slices):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[series, str(index)])
        header = FileDataset(None, Dataset(), b"\0" * 128, meta, False, True)
        header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        header.StudyInstanceUID, header.SeriesInstanceUID, header.FrameOfReferenceUID = study, series, space
        header.Modality, header.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
        header.PatientID = header.PatientName = header.PatientBirthDate = header.PatientSex = ""
        header.StudyDate = header.StudyTime = header.StudyID = header.AccessionNumber = ""
        header.InstanceNumber = index + 1
        header.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        header.ImagePositionPatient, header.PixelSpacing, header.SliceThickness = [0, 0, index], [0.7, 0.7], 1
        header.Rows = header.Columns = size
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
        header.RescaleSlope, header.RescaleIntercept = 1, 0
        ball = row**2 + column**2 + (index - slices / 2) ** 2 < (size / 6) ** 2
        header.PixelData = (np.roll(noise, 7 * index) + 100 * ball).astype("<i2").tobytes()
        header.save_as(folder / f"{index:05d}.dcm", enforce_file_format=True)


def run_counted(inputs: Path, output: Path, prompts: Path, *options: str) -> dict[str, Any]:
    """Run the command line here; count how often the text side was encoded, and the slices that were shown at once."""
    from monai_anomalyclip.cli import main as command
    from monai_anomalyclip.demo.network import demo_network
    from monai_anomalyclip.networks import AnomalyCLIP, PromptLearner

    demo_network(**NETWORK).save_prompts(prompts, overwrite=True)
    encodings, batches = 0, []
    encode: Callable[..., Any] = PromptLearner.forward
    predict: Callable[..., Any] = AnomalyCLIP.predict

    def counted_encode(*values: Any) -> Any:
        nonlocal encodings
        encodings += 1
        return encode(*values)

    def counted_predict(network: AnomalyCLIP, images: Any) -> Any:
        batches.append(len(images))
        return predict(network, images)

    arguments = ["predict", str(inputs), "-o", str(output), "--bundle", str(BUNDLE), "--prompts", str(prompts)]
    begun = time.perf_counter()
    with (
        mock.patch.object(PromptLearner, "forward", counted_encode),
        mock.patch.object(AnomalyCLIP, "predict", counted_predict),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        status = command([*arguments, *options])
    seconds = time.perf_counter() - begun
    (record,) = json.loads((output / "results.json").read_text())["inputs"]
    return {
        "status": status,
        "slices": record["frames"],
        "seconds": seconds,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "text_encodings": encodings,
        "batches": len(batches),
        "largest_batch": max(batches),
        "timings": record["timings"],
    }


def run_apart(*values: Any) -> dict[str, Any]:
    """:func:`run_counted` in a process of its own, a fork of one that has imported MONAI and done nothing else."""
    apart = multiprocessing.get_context("forkserver")
    apart.set_forkserver_preload(["monai.bundle", "monai.engines", "highdicom", "matplotlib.pyplot", "open_clip"])
    with apart.Pool(1) as pool:
        return pool.apply(run_counted, values)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--size", type=int, default=512, help="rows and columns of a slice")
    parser.add_argument("--outputs", default="default", help="as for predict")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args(arguments)
    figures = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for what, slices in (("small", 3), ("large", options.slices)):
            make_ct(folder / what, slices, options.size if what == "large" else 64)
            paths = (folder / what, folder / f"{what} out", folder / "p.pt")
            figures[what] = run_apart(*paths, "--outputs", options.outputs)
    large, base = figures["large"], figures["small"]["peak_mib"]
    volume = 4 * options.slices * options.size**2 / MEBIBYTE
    timings = ", ".join(f"{key[:-2]} {value:.1f} s" for key, value in large["timings"].items())
    print(
        f"{large['slices']} slices of {options.size} x {options.size} ({volume:.0f} MiB as float32): "
        f"{large['seconds']:.1f} s ({timings}); "
        f"peak {large['peak_mib']:.0f} MiB, {large['peak_mib'] - base:.0f} MiB more than over a small input, "
        f"{(large['peak_mib'] - base) / volume:.1f} times the volume. {large['batches']} batches of at most "
        f"{large['largest_batch']} slices, text side encoded {large['text_encodings']} time(s)."
    )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return int(large["status"] != 0)


if __name__ == "__main__":
    sys.exit(main())
