"""Pictures: turned upright, plain RGB, without metadata; broken, huge and foreign files are set aside."""

import io
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin

from srgpt.sources.pictures import UnusableError, look_at, read_picture, scaled, smaller, without_metadata

LIMIT = 1_000_000
Tag = ExifTags.Base


def pixels(width=48, height=32, seed=0):
    """Smooth colours with structure at every scale, so that cuts and turns show."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def encoded(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def exif_with(tags=None, details=None, gps=None):
    exif = Image.Exif()
    exif.update(tags or {})
    exif.get_ifd(ExifTags.IFD.Exif).update(details or {})
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(gps or {})
    return exif


def read(data, **limits):
    return read_picture(data, "a.jpg", **{"max_pixels": LIMIT, **limits})


def stored(picture):
    return Image.open(io.BytesIO(picture.encoded()))


def refused(data, **limits):
    with pytest.raises(UnusableError) as caught:
        read(data, **limits)
    assert not re.search(r"0x[0-9a-f]{6}", caught.value.detail), "a memory address is not reproducible"
    return caught.value.reason


def attempt(data):
    try:
        return read(data)
    except UnusableError as error:
        return error


# What stays, what is encoded anew --------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_plain_file_keeps_its_bytes(form):
    data = encoded(pixels(), form)
    picture = read(data)
    assert picture.encoded() == data
    assert (picture.size, picture.original, picture.turned, picture.intrinsics) == (
        (48, 32),
        (48, 32),
        False,
        None,
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_turns_the_pixels(form, orientation):
    options = {"exif": exif_with({Tag.Orientation: orientation})}
    if form == "TIFF":
        options = {"tiffinfo": TiffImagePlugin.ImageFileDirectory_v2()}
        options["tiffinfo"][Tag.Orientation] = orientation
    data = encoded(pixels(), form, **options)
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened).convert("RGB")).astype(int)
    picture = read(data)
    result = stored(picture)
    assert picture.turned == (orientation > 1)
    assert result.size == ((32, 48) if orientation > 4 else (48, 32))
    assert result.getexif().get(Tag.Orientation, 1) == 1
    assert np.abs(np.asarray(result).astype(int) - expected).max() <= (12 if result.format == "JPEG" else 0)
    assert result.format == ("JPEG" if form in ("JPEG", "WEBP") else "PNG")
    assert look_at(data, "a", max_pixels=LIMIT).size == result.size


def test_an_orientation_that_does_not_exist_turns_nothing():
    data = encoded(pixels(), "JPEG", exif=exif_with({Tag.Orientation: 77}))
    assert not read(data).turned


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_no_metadata_is_carried(form, orientation):
    secret = "Ada Lovelace"
    exif = exif_with(
        {Tag.Orientation: orientation, Tag.Artist: secret},
        {Tag.UserComment: secret.encode()},
        {ExifTags.GPS.GPSLatitude: (51.0, 30.0, 26.0), ExifTags.GPS.GPSProcessingMethod: secret.encode()},
    )
    options = {"exif": exif}
    if form == "JPEG":
        options |= {"comment": secret, "xmp": b"<x:xmpmeta>" + secret.encode()}
    if form == "PNG":
        from PIL.PngImagePlugin import PngInfo

        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_text("Author", secret)
    data = encoded(pixels(), form, **options) + b"appended: " + secret.encode()
    assert secret.encode() in data
    picture = read(data)
    assert secret.encode() not in picture.encoded()
    assert b"Exif" not in picture.encoded()
    assert not stored(picture).getexif()


def test_metadata_goes_without_another_encoding():
    plain = encoded(pixels(), "JPEG", quality=60)
    tagged = encoded(pixels(), "JPEG", quality=60, exif=exif_with({Tag.Artist: "A"}), comment="c")
    assert read(tagged).encoded() == plain


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0, "restart_marker_blocks": 2}]
)
def test_all_kinds_of_jpeg_keep_their_pixels(options):
    data = encoded(pixels(160, 120), "JPEG", exif=exif_with({Tag.Artist: "A"}), **options)
    own = without_metadata(data, "JPEG")
    assert len(own) < len(data)
    assert (np.asarray(Image.open(io.BytesIO(own))) == np.asarray(Image.open(io.BytesIO(data)))).all()


def test_the_second_picture_of_a_phone_goes():
    data = encoded(pixels(), "MPO", save_all=True, append_images=[pixels(seed=1)])
    picture = read(data)
    assert stored(picture).format == "JPEG"
    assert picture.data is not None
    assert len(picture.data) < 0.7 * len(data)


def test_colour_profiles_stay():
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for form in ("JPEG", "PNG"):
        for orientation in (1, 3):
            exif = exif_with({Tag.Orientation: orientation})
            picture = read(encoded(pixels(), form, icc_profile=profile, exif=exif))
            assert stored(picture).info["icc_profile"] == profile


# Pixels of every kind ---------------------------------------------------------------------------------------


def test_transparent_pixels_lie_on_white():
    image = pixels().convert("RGBA")
    image.putalpha(Image.fromarray(np.tile(np.array([0, 255], np.uint8), (32, 24))))
    values = np.asarray(stored(read(encoded(image, "PNG"))))
    assert (values[:, ::2] == 255).all()
    assert (values[:, 1::2] == np.asarray(pixels())[:, 1::2]).all()


def test_a_transparent_palette_lies_on_white():
    image = Image.fromarray(np.tile(np.array([0, 1], np.uint8), (8, 4)))
    image = image.convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50])
    values = np.asarray(stored(read(encoded(image, "PNG", transparency=0))))
    assert (values[:, ::2] == 255).all()
    assert (values[:, 1::2] == (200, 100, 50)).all()


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "CMYK"])
def test_other_modes_become_rgb(mode):
    form = "TIFF" if mode == "CMYK" else "PNG"
    image = pixels().convert(mode)
    picture = read(encoded(image, form))
    assert (stored(picture).mode, picture.form) == ("RGB", "PNG")
    assert (np.asarray(stored(picture)) == np.asarray(image.convert("RGB"))).all()


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_jpegs_become_rgb_jpegs(mode):
    picture = read(encoded(pixels().convert(mode), "JPEG", quality=95))
    assert (stored(picture).mode, stored(picture).format, picture.data) == ("RGB", "JPEG", None)
    expected = np.asarray(pixels().convert(mode).convert("RGB")).astype(int)
    assert np.abs(np.asarray(stored(picture)) - expected).mean() < 4


def test_16_bit_grey_keeps_its_upper_bits():
    values = np.linspace(0, 65535, 48 * 32).reshape(32, 48).astype(np.uint16)
    for form in ("PNG", "TIFF"):
        result = np.asarray(stored(read(encoded(Image.fromarray(values), form))))
        assert (result == (values >> 8)[..., None]).all()


def test_16_bit_colour_is_stored_with_8():
    values = np.random.default_rng(0).integers(0, 65535, (4, 5, 3)).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    data = png(5, 4, 16, 2, zlib.compress(rows))
    picture = read(data)
    assert picture.data is None
    assert (np.asarray(stored(picture)) == values >> 8).all()


def test_pixels_without_a_white_are_unsupported():
    assert refused(encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF")) == "unsupported-pixels"
    assert refused(encoded(Image.fromarray(np.full((4, 4), 10**6, np.int32)), "TIFF")) == "unsupported-pixels"


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_of_an_animation_the_first_picture_counts(form, options):
    data = encoded(pixels(), form, save_all=True, append_images=[pixels(seed=1)], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 2
    result = stored(read(data))
    assert getattr(result, "n_frames", 1) == 1
    assert np.abs(np.asarray(result).astype(int) - np.asarray(pixels())).max() <= (
        12 if form == "WEBP" else 0
    )


# Size --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(200, 100), (100, 200), (200, 1), (64, 64), (65, 64)])
def test_a_larger_picture_is_scaled_down(size):
    picture = read(encoded(pixels(*size), "PNG"), max_side=64)
    assert max(picture.size) == 64
    assert picture.size == smaller(size, 64) == stored(picture).size
    assert picture.size[1] == pytest.approx(64 * size[1] / max(size), abs=1)
    assert (picture.data is not None) == (max(size) <= 64)


def test_scaling_keeps_the_corners_of_the_view():
    """The outer edges of the picture are seen under the same angles (pixel centres at integers)."""
    before, after = (100.0, 110.0, 60.0, 30.0), scaled((100.0, 110.0, 60.0, 30.0), (120, 80), (60, 20))
    for edge, size, to in ((-0.5, 0, 0), (119.5, 120, 60), (79.5, 80, 20)):
        axis = 1 if size == 80 else 0
        moved = edge if edge < 0 else to - 0.5
        assert (edge - before[2 + axis]) / before[axis] == pytest.approx(
            (moved - after[2 + axis]) / after[axis]
        )


# Intrinsics --------------------------------------------------------------------------------------------------


def focal(details, size=(48, 32), orientation=1, **limits):
    exif = exif_with({Tag.Orientation: orientation}, details)
    return read(encoded(pixels(*size), "JPEG", exif=exif), **limits).intrinsics


def test_35_mm_equivalent():
    """Over the diagonal: a full-frame picture of 36 x 24 mm at 36 mm sees its width under 2 atan(1/2)."""
    assert focal({Tag.FocalLengthIn35mmFilm: 36}) == pytest.approx((48, 48, 23.5, 15.5))


SENSOR = {
    Tag.FocalLength: 5.0, Tag.FocalPlaneXResolution: 96.0, Tag.FocalPlaneYResolution: 64.0,
    Tag.FocalPlaneResolutionUnit: 3, Tag.ExifImageWidth: 48, Tag.ExifImageHeight: 32,
}  # fmt: skip


def test_focal_length_and_the_sensors_resolution():
    assert focal(SENSOR) == pytest.approx((48, 32, 23.5, 15.5))
    inches = SENSOR | {Tag.FocalPlaneResolutionUnit: 2, Tag.FocalPlaneXResolution: 243.84}
    assert focal(inches)[0] == pytest.approx(48)


def test_a_picture_that_was_scaled_since():
    assert focal(SENSOR | {Tag.ExifImageWidth: 96, Tag.ExifImageHeight: 64}) == pytest.approx(
        (24, 16, 23.5, 15.5)
    )


@pytest.mark.parametrize("orientation", range(1, 9))
def test_intrinsics_turn_with_the_pixels(orientation):
    turned = orientation > 4
    expected = (32, 48, 15.5, 23.5) if turned else (48, 32, 23.5, 15.5)
    assert focal(SENSOR, orientation=orientation) == pytest.approx(expected)


def test_intrinsics_scale_with_the_pixels():
    assert focal({Tag.FocalLengthIn35mmFilm: 36}, (96, 64), max_side=48) == pytest.approx(
        (48, 48, 23.5, 15.5)
    )


@pytest.mark.parametrize(
    "details",
    [
        {},
        {Tag.FocalLengthIn35mmFilm: 0},
        {Tag.FocalLengthIn35mmFilm: 65535},
        {Tag.FocalLengthIn35mmFilm: 1},
        {Tag.FocalLengthIn35mmFilm: "wide"},
        {Tag.FocalLengthIn35mmFilm: 36, Tag.ExifImageWidth: 48, Tag.ExifImageHeight: 48},
        {Tag.FocalLength: 5.0},
        SENSOR | {Tag.FocalPlaneResolutionUnit: 9},
        SENSOR | {Tag.FocalPlaneXResolution: TiffImagePlugin.IFDRational(1, 0)},
        {k: v for k, v in SENSOR.items() if k != Tag.ExifImageWidth},
    ],
)
def test_what_exif_does_not_credibly_say_is_not_guessed(details):
    assert focal(details) is None


# Broken files ------------------------------------------------------------------------------------------------


def png(width, height, depth, colour, data):
    def chunk(kind, content):
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty-file"),
        (b"hello", "unsupported-format"),
        (b"GIF89a" + bytes(100), "unsupported-format"),
        (b"\0\0\0\x18ftypheic" + bytes(100), "unsupported-format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unsupported-format"),
        (b"\xff\xd8\xff\xe0" + bytes(10), "unreadable-image"),
        (png(8, 8, 8, 2, b"no zlib"), "unreadable-image"),
        (png(30_000, 30_000, 8, 2, zlib.compress(b"")), "decompression-bomb"),
        (png(1001, 1000, 8, 2, zlib.compress(b"")), "decompression-bomb"),
    ],
)
def test_what_cannot_be_read_is_set_aside(data, reason):
    assert refused(data) == reason
    with pytest.raises(UnusableError) as caught:
        look_at(data, "a.jpg", max_pixels=LIMIT)
    assert caught.value.reason == reason


def test_a_bomb_is_not_inflated():
    """20,000 x 20,000 pixels of one colour in 400 kB: refused by its header."""
    import tracemalloc

    rows = zlib.compressobj(9)
    data = b"".join(rows.compress(bytes(60_001)) for _ in range(2000)) + rows.flush()
    tracemalloc.start()
    assert refused(png(20_000, 20_000, 8, 2, data), max_pixels=89_478_485) == "decompression-bomb"
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


SOUND = {
    "JPEG": encoded(pixels(), "JPEG", exif=exif_with({Tag.Orientation: 1, Tag.Make: "x"}, SENSOR)),
    "progressive": encoded(pixels(), "JPEG", progressive=True),
    "PNG": encoded(pixels(), "PNG"),
    "WEBP": encoded(pixels(), "WEBP"),
    "TIFF": encoded(pixels(), "TIFF", compression="tiff_lzw"),
    "BMP": encoded(pixels(), "BMP"),
}


@settings(max_examples=150)
@given(kind=st.sampled_from(sorted(SOUND)), share=st.floats(0, 1, exclude_max=True))
def test_a_file_that_was_cut_off_is_set_aside_or_whole(kind, share):
    """Never half a picture: where the cut took nothing of the pixels, they are all there."""
    sound = SOUND[kind]
    data = sound[: int(share * len(sound))]
    picture = attempt(data)
    if isinstance(picture, UnusableError):
        assert picture.reason in {"empty-file", "unsupported-format", "truncated-image", "unreadable-image"}
        with pytest.raises(UnusableError):
            look_at(data, "a", max_pixels=LIMIT)
    else:
        assert (np.asarray(picture.image) == np.asarray(read(sound).image)).all()
        assert look_at(data, "a", max_pixels=LIMIT).size == picture.size


def test_a_photograph_cut_in_half_says_so():
    assert refused(SOUND["JPEG"][:-300]) == "truncated-image"
    assert refused(SOUND["PNG"][:-300]) == "truncated-image"


@settings(max_examples=200)
@given(
    kind=st.sampled_from(sorted(SOUND)),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8
    ),
)
def test_damage_is_set_aside_or_harmless(kind, changes):
    data = bytearray(SOUND[kind])
    for share, value in changes:
        data[int(share * len(data))] = value
    picture = attempt(bytes(data))
    if isinstance(picture, UnusableError):
        assert re.fullmatch(r"[a-z0-9-]+", picture.reason)
        assert "0x" not in picture.detail
    elif picture.data is not None:
        assert (np.asarray(stored(picture)) == np.asarray(picture.image)).all()
    else:
        assert stored(picture).size == picture.size


@settings(max_examples=100)
@given(st.binary(max_size=300), st.sampled_from(["JPEG", "PNG"]))
def test_the_metadata_parser_survives_anything(data, form):
    own = without_metadata(data, form)
    assert own is None or len(own) <= len(data)
    without_metadata(SOUND[form][:40] + data, form)
