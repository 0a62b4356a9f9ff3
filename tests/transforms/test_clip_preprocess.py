# SPDX-FileCopyrightText: monai_anomalyclip authors
# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image

from monai_anomalyclip.transforms import (
    CLIPMaskPreprocess,
    CLIPMaskPreprocessd,
    CLIPMaskPreprocessDict,
    CLIPPreprocess,
    CLIPPreprocessd,
    CLIPPreprocessDict,
    clip_normalize_resize,
)
from monai_anomalyclip.transforms.clip_preprocess import antialiasing_device

MEAN = np.array(OPENAI_DATASET_MEAN, dtype=np.float64).reshape(3, 1, 1)
STD = np.array(OPENAI_DATASET_STD, dtype=np.float64).reshape(3, 1, 1)


def unit(normalized: torch.Tensor | np.ndarray) -> np.ndarray:
    """Undo the normalisation."""
    return np.asarray(normalized, dtype=np.float64) * STD + MEAN


def gray_ramp(maximum: int, side: int = 8) -> np.ndarray:
    return np.linspace(0, maximum, side * side).round().reshape(side, side)


@pytest.fixture(scope="module")
def published(data_dir: Path) -> dict[str, np.ndarray]:
    with np.load(data_dir / "preprocess.npz") as file:
        return {key: file[key] for key in file.files}


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("kind", ["pil", "uint8", "float", "float64", "inverse", "uint8 tensor", "batch function"])
def test_reproduces_the_published_preprocessing(published: dict[str, np.ndarray], index: int, kind: str) -> None:
    image = published[f"image_{index}"]
    array = np.ascontiguousarray(image.transpose(2, 0, 1))
    as_float = array.astype(np.float32) / 255
    preprocess = CLIPPreprocess(84)
    result = {
        "pil": lambda: preprocess(Image.fromarray(image)),
        "uint8": lambda: preprocess(array),
        "float": lambda: preprocess(as_float),
        "float64": lambda: preprocess(array / 255),
        "inverse": lambda: preprocess(torch.from_numpy(array) * (1 / 255)),
        "uint8 tensor": lambda: preprocess(torch.from_numpy(array)),
        "batch function": lambda: clip_normalize_resize(torch.from_numpy(as_float)[None], (84, 84))[0],
    }[kind]()
    assert result.shape == (3, 84, 84)
    assert result.dtype == torch.float32
    assert np.abs(unit(result) - unit(published[f"tensor_{index}"])).max() < 1e-6
    assert torch.equal(result, preprocess(Image.fromarray(image)))


def test_pictures_and_other_images_share_a_batch() -> None:
    rng = np.random.default_rng(0)
    picture = torch.from_numpy(rng.integers(0, 256, (1, 30, 20)).astype(np.float32)) / 255
    volume_slice = torch.from_numpy(rng.random((1, 30, 20), dtype=np.float32))
    result = clip_normalize_resize(torch.stack([volume_slice, picture, volume_slice, picture]), (12, 14))
    assert result.shape == (4, 3, 12, 14)
    for index, image in enumerate((volume_slice, picture, volume_slice, picture)):
        assert torch.equal(result[index], clip_normalize_resize(image, (12, 14)))
    exact = clip_normalize_resize(volume_slice.double().float(), (12, 14))
    eight_bits = clip_normalize_resize((volume_slice * 255).round() / 255, (12, 14))
    assert 0 < float((exact - eight_bits).abs().max()) < 0.05  # in levels of 8 bits nothing but pictures is resized


def test_bicubic_overshoot_is_clamped() -> None:
    checks = torch.zeros(1, 20, 20)
    checks[:, :, ::5] = 1
    values = unit(CLIPPreprocess(67)(checks))
    assert values.min() > -1e-6
    assert values.max() < 1 + 1e-6


def test_aspect_is_squashed_and_size_may_be_a_pair() -> None:
    image = np.zeros((3, 20, 40), dtype=np.uint8)
    image[0, :, 20:] = 255
    assert CLIPPreprocess(16)(image).shape == (3, 16, 16)
    result = unit(CLIPPreprocess([10, 30])(image))
    assert result.shape == (3, 10, 30)
    np.testing.assert_allclose(result[0, :, :13], 0, atol=1e-6)
    np.testing.assert_allclose(result[0, :, 17:], 1, atol=1e-6)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_pil_modes_give_the_same_picture(mode: str) -> None:
    # Saturated colours (or black and white) survive every mode; the size is kept, so no resize blurs the check.
    colours = [(0, 0, 0), (255, 255, 255)]
    if mode not in ("1", "L", "LA", "La", "PA"):
        colours += [(255, 0, 0), (0, 0, 255)]
    rgb = np.array(colours, dtype=np.uint8)[np.arange(64).reshape(8, 8) % len(colours)]
    image = Image.fromarray(rgb)
    image = {
        "La": lambda: image.convert("LA").convert("La"),
        "PA": lambda: image.convert("P").convert("PA"),
    }.get(mode, lambda: image.convert(mode))()
    assert image.mode == mode
    expected = rgb.transpose(2, 0, 1) / 255
    np.testing.assert_allclose(unit(CLIPPreprocess(8)(image)), expected, atol=2.1 / 255)


@pytest.mark.filterwarnings("error")
def test_palette_with_transparency_keeps_its_colours() -> None:
    image = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) % 2, mode="P")
    image.putpalette([10, 200, 30, 250, 120, 0])
    file = io.BytesIO()
    image.save(file, "PNG", transparency=b"\x00\x80")
    file.seek(0)
    opened = Image.open(file)
    assert opened.mode == "P"
    result = unit(CLIPPreprocess(8)(opened))
    np.testing.assert_allclose(result[:, 0, 0] * 255, [10, 200, 30], atol=1e-3)
    np.testing.assert_allclose(result[:, 0, 1] * 255, [250, 120, 0], atol=1e-3)


def test_alpha_is_dropped_as_clip_does() -> None:
    rgba = np.full((8, 8, 4), 0, dtype=np.uint8)
    rgba[..., 0] = 200
    for image in (Image.fromarray(rgba), rgba.transpose(2, 0, 1)):
        np.testing.assert_allclose(unit(CLIPPreprocess(8)(image))[:, 4, 4] * 255, [200, 0, 0], atol=1e-3)


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_16_bit_gray_is_scaled_not_clipped(mode: str) -> None:
    ramp = gray_ramp(65535)
    dtype = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode]
    image = Image.frombytes(mode, (8, 8), ramp.astype(dtype).tobytes())
    np.testing.assert_allclose(unit(CLIPPreprocess(8)(image)), np.tile(ramp / 65535, (3, 1, 1)), atol=1e-6)


def test_16_bit_png_and_tiff_from_disk(tmp_path: Path) -> None:
    ramp = gray_ramp(65535).astype(np.uint16)
    for name in ("gray.png", "gray.tif"):
        Image.fromarray(ramp).save(tmp_path / name)
        with Image.open(tmp_path / name) as image:
            np.testing.assert_allclose(unit(CLIPPreprocess(8)(image))[1], ramp / 65535, atol=1e-6)


@pytest.mark.parametrize(("maximum", "scale"), [(1, 1), (200, 255), (4000, 65535)])
def test_float_pil_images_use_the_smallest_scale_that_holds_them(maximum: int, scale: int) -> None:
    ramp = np.linspace(0, maximum, 64, dtype=np.float32).reshape(8, 8)
    np.testing.assert_allclose(unit(CLIPPreprocess(8)(Image.fromarray(ramp)))[2], ramp / scale, atol=1e-6)


@pytest.mark.parametrize("image", [np.float32(-3), np.float32(70000), np.float32("nan"), np.int32(70000), np.int32(-1)])
def test_deep_gray_out_of_range_is_refused(image: np.generic) -> None:
    with pytest.raises(ValueError, match=r"must hold values in 0\.\.65535, got \["):
        CLIPPreprocess(8)(Image.fromarray(np.full((8, 8), image)))


def test_exif_rotation_is_applied() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown rotated by 90 degrees clockwise
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "PNG", exif=exif)
    file.seek(0)
    expected = np.rot90(rgb, k=-1).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(unit(CLIPPreprocess(8)(Image.open(file))), expected, atol=1e-6)
    file.seek(0)
    marked = CLIPMaskPreprocess(8)(Image.open(file))
    np.testing.assert_array_equal(marked[0], np.rot90(rgb.any(axis=-1), k=-1))


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_uint16_arrays_of_either_byte_order(dtype: str) -> None:
    ramp = gray_ramp(65535)
    result = CLIPPreprocess(8)(ramp.astype(dtype)[None])
    np.testing.assert_allclose(unit(result), np.tile(ramp / 65535, (3, 1, 1)), atol=1e-6)


def test_flipped_view_is_taken() -> None:
    image = np.random.default_rng(0).random((1, 8, 8))[:, ::-1]
    np.testing.assert_allclose(unit(CLIPPreprocess(8)(image))[0], image[0], atol=1e-6)


def test_metatensor_keeps_its_metadata_and_its_place_in_space() -> None:
    affine = torch.tensor([[0.0, 2, 0, 5], [3, 0, 0, -7], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.float64)
    image = MetaTensor(torch.rand(3, 20, 30), affine=affine, meta={"filename_or_obj": "a.png"})
    for result in (CLIPPreprocess(10)(image), CLIPMaskPreprocess(10)(image[:1])):
        assert isinstance(result, MetaTensor)
        assert result.meta["filename_or_obj"] == "a.png"
        for before, after in (((-0.5, -0.5), (-0.5, -0.5)), ((19.5, 29.5), (9.5, 9.5))):  # outer corners stay
            torch.testing.assert_close(
                result.affine @ torch.tensor([*after, 0, 1], dtype=torch.float64),
                affine @ torch.tensor([*before, 0, 1], dtype=torch.float64),
            )
    torch.testing.assert_close(image.affine, affine)
    assert type(CLIPPreprocess(10)(image.as_tensor())) is torch.Tensor


@pytest.mark.parametrize("shape", [(2, 8, 8), (5, 8, 8), (8, 8, 3), (8, 8), (1, 3, 8, 8), (3, 0, 8)])
def test_wrong_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Expected a picture \(C, H, W\).*got shape"):
        CLIPPreprocess(8)(np.zeros(shape, dtype=np.uint8))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((1, 8, 8), 254.0), r"in \[0, 1\], got \[254, 254\]"),
        (np.full((1, 8, 8), -0.5, dtype=np.float32), r"in \[0, 1\], got \[-0\.5, -0\.5\]"),
        (np.full((1, 8, 8), np.nan), "NaN or infinite"),
        (np.full((1, 8, 8), np.inf), "NaN or infinite"),
        (np.zeros((1, 8, 8), dtype=np.int16), "int16"),
        (np.zeros((1, 8, 8), dtype=bool), "bool"),
    ],
)
def test_wrong_values_are_refused(image: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CLIPPreprocess(8)(image)


@pytest.mark.parametrize("size", [0, -3, (8, 0), (1, 2, 3), 8.5, "8"])
def test_wrong_image_sizes_are_refused(size: object) -> None:
    for transform in (CLIPPreprocess, CLIPMaskPreprocess):
        with pytest.raises(ValueError, match="image_size must be"):
            transform(size)


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("kind", ["pil", "uint8", "bool", "float with channel"])
def test_masks_reproduce_the_published_preprocessing(published: dict[str, np.ndarray], index: int, kind: str) -> None:
    mask = published[f"mask_{index}"]
    given = {
        "pil": Image.fromarray(mask),
        "uint8": mask,
        "bool": torch.from_numpy(mask > 0),
        "float with channel": (mask / 255 * 0.001)[None],
    }[kind]
    result = CLIPMaskPreprocess(84)(given)
    assert result.shape == (1, 84, 84)
    assert result.dtype == torch.float32
    assert set(result.unique().tolist()) == {0.0, 1.0}
    assert (result.numpy() == published[f"mask_tensor_{index}"]).mean() >= 0.999


def test_masks_of_random_blobs_equal_pil() -> None:
    rng = np.random.default_rng(1)
    for height, width in ((50, 131), (84, 84), (301, 97)):
        mask = rng.random((height, width)) > 0.6
        pil = Image.fromarray(mask.astype(np.uint8) * 255).resize((84, 84), Image.Resampling.BILINEAR)
        expected = np.asarray(pil) / 255 > 0.5
        assert (CLIPMaskPreprocess(84)(mask)[0].numpy() == expected).mean() >= 0.999


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
def test_any_colour_in_any_mode_marks_an_anomaly(mode: str) -> None:
    marked = np.zeros((8, 8), dtype=bool)
    marked[2:4, 5] = True
    if mode == "P":
        image = Image.fromarray(np.where(marked, 7, 3).astype(np.uint8), mode="P")
        palette = [0] * 768
        palette[21:24] = [0, 0, 1]  # index 7 is the faintest blue, which a conversion to gray would lose; 3 is black
        image.putpalette(palette)
    elif mode in ("RGB", "RGBA", "CMYK"):
        image = Image.fromarray((marked[..., None] * [0, 0, 1]).astype(np.uint8)).convert(mode)
    elif mode in ("I;16", "I", "F"):
        dtype, value = {"I;16": (np.uint16, 300), "I": (np.int32, 70000), "F": (np.float32, 0.001)}[mode]
        image = Image.fromarray((marked * value).astype(dtype))
    else:
        image = Image.fromarray(marked.astype(np.uint8) * 255).convert(mode)
    assert image.mode == mode
    np.testing.assert_array_equal(CLIPMaskPreprocess(8)(image)[0], marked)


def test_fully_transparent_pixels_mark_nothing() -> None:
    rgba = np.full((8, 8, 4), 255, dtype=np.uint8)
    rgba[:, :4, 3] = 0
    np.testing.assert_array_equal(CLIPMaskPreprocess(8)(Image.fromarray(rgba))[0], rgba[..., 3] > 0)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((3, 8, 8)), r"mask \(H, W\) or \(1, H, W\), got shape \(3, 8, 8\)"),
        (np.zeros(8), "got shape"),
        (np.full((8, 8), np.nan), "NaN"),
    ],
)
def test_wrong_masks_are_refused(mask: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CLIPMaskPreprocess(8)(mask)


def test_dictionary_forms() -> None:
    assert CLIPPreprocessDict is CLIPPreprocessd
    assert CLIPMaskPreprocessDict is CLIPMaskPreprocessd
    image = np.random.default_rng(0).integers(0, 256, (3, 9, 7), dtype=np.uint8)
    item = {"image": image, "label": image[0] > 128, "class": "bottle"}
    result = CLIPMaskPreprocessd("label", 8)(CLIPPreprocessd("image", 8)(item))
    torch.testing.assert_close(result["image"], CLIPPreprocess(8)(image))
    torch.testing.assert_close(result["label"], CLIPMaskPreprocess(8)(image[0] > 128))
    assert result["class"] == "bottle"
    assert item["image"] is image

    normal = {"image": image}
    assert CLIPMaskPreprocessd("label", 8, allow_missing_keys=True)(normal) == normal
    with pytest.raises(KeyError, match="label"):
        CLIPMaskPreprocessd("label", 8)(normal)


def test_real_frames_in_every_mode_they_come_in(real_data: Path) -> None:
    frames = [path for path in (real_data / "frames").rglob("*") if path.suffix.lower() in (".png", ".jpg", ".tif")]
    assert frames
    for path in frames[:: max(1, len(frames) // 20)]:
        with Image.open(path) as image:
            values = unit(CLIPPreprocess(84)(image))
        assert values.shape == (3, 84, 84)
        assert np.ptp(values) > 0.1


def torch_can_on_a_gpu(before: tuple[int, int], after: tuple[int, int], taps: int) -> bool:
    """As torch's ``upsample_gen2d_aa_out_cuda_template`` reckons, with the 48 KiB and 32 lanes of NVIDIA's GPUs."""

    def window(old: int, new: int) -> int:
        scale = np.float32(old) / np.float32(new)
        return 1 + 2 * int(np.ceil(np.float32(taps * 0.5 * scale if scale >= 1 else taps * 0.5)))

    high, wide = window(before[0], after[0]), window(before[1], after[1])
    rows = int((49_152 / 4 - wide * 32) / (high * 33))  # towards 0, as in C
    if rows < 0:  # as an unsigned number it is huge, and so is what it asks for
        return False
    block = min(256 // 32, 2 ** max(0, rows.bit_length() - 1))
    shared = 4 * (wide * 32 + high * block + high * block * 32)
    covered = min(65_535, -(-after[0] // block)) * block  # what lies below is left as it is, without an error
    return shared <= 49_152 and covered >= after[0]


EDGES = [  # the last that it can do, and the first that it cannot, for bicubic windows
    (((24_346, 24_346), (518, 518)), ((24_347, 24_347), (518, 518))),
    (((47_138, 600), (518, 518)), ((47_139, 600), (518, 518))),
    (((600, 48_433), (518, 518)), ((600, 48_434), (518, 518))),
    (((518, 518), (12, 12)), ((518, 518), (11, 11))),
    (((518, 518), (65_535, 300)), ((518, 518), (65_536, 300))),
]


@pytest.mark.parametrize(("possible", "impossible"), EDGES)
def test_a_gpu_gets_what_its_kernel_can_resize(
    possible: tuple[tuple[int, int], tuple[int, int]], impossible: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    gpu, cpu = torch.device("cuda:1"), torch.device("cpu")
    assert antialiasing_device(gpu, *possible) == gpu
    assert torch_can_on_a_gpu(*possible, 4)
    assert antialiasing_device(gpu, *impossible) == cpu
    # In half of the window and in more rows than a block's one it can go further, which no picture is worth.
    assert not torch_can_on_a_gpu(*impossible, 4) or impossible[1][0] > 65_535
    assert antialiasing_device(cpu, *possible) == antialiasing_device(cpu, *impossible) == cpu


def test_no_size_that_a_gpu_gets_is_beyond_its_kernel() -> None:
    numbers, gpu, chosen = random.Random(0), torch.device("cuda"), []
    for _ in range(20_000):
        before, after = ((int(10 ** numbers.uniform(0, 6)), int(10 ** numbers.uniform(0, 6))) for _ in range(2))
        if antialiasing_device(gpu, before, after) == gpu:
            chosen.append(True)
            assert torch_can_on_a_gpu(before, after, 4), (before, after)
            assert torch_can_on_a_gpu(before, after, 2), (before, after)
        else:
            chosen.append(False)
            assert not torch_can_on_a_gpu(before, after, 4) or after[0] > 65_535, (before, after)
    assert 0.2 < np.mean(chosen) < 0.8
