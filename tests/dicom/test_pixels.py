"""The same pixels in every transfer syntax."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from spicula.core.errors import InputError
from spicula.core.volume import Volume
from spicula.dicom import pixels
from spicula.dicom.pixels import DECODERS, stored_values, why_undecodable, within_bits_stored
from spicula.dicom.reader import read_series
from spicula.dicom.series import find_series, select_series

gdcm = pytest.importorskip("gdcm", exc_type=ImportError)

JPEG = "1.2.840.10008.1.2.4"
NATIVE = ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"]
BY_GDCM = {
    "1.2.840.10008.1.2.5": gdcm.TransferSyntax.RLELossless,
    f"{JPEG}.57": gdcm.TransferSyntax.JPEGLosslessProcess14,
    f"{JPEG}.70": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    f"{JPEG}.80": gdcm.TransferSyntax.JPEGLSLossless,
    f"{JPEG}.90": gdcm.TransferSyntax.JPEG2000Lossless,
}
LOSSY_BY_GDCM = {
    f"{JPEG}.50": gdcm.TransferSyntax.JPEGBaselineProcess1,
    f"{JPEG}.51": gdcm.TransferSyntax.JPEGExtendedProcess2_4,
}
BY_PYDICOM = [f"{JPEG}.80", f"{JPEG}.90", "1.2.840.10008.1.2.5"]


def by_gdcm(syntax: int) -> Callable[[Path], None]:
    """Let gdcm rewrite a file in a transfer syntax."""

    def convert(path: Path) -> None:
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(path))
        assert writer.Write()

    return convert


def read(path: Path) -> Volume:
    return read_series(select_series(find_series(path)))


def twelve_bits(dataset: Any, index: int) -> None:
    dataset.BitsStored, dataset.HighBit = 12, 11


def eight_bits(dataset: Any, index: int) -> None:
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = (np.frombuffer(dataset.PixelData, np.uint16) // 16).astype(np.uint8).tobytes()


def stored(ct: Any, kind: str = "u2") -> NDArray[Any]:
    return ct.stored((3, 40, 48)).astype(kind)  # type: ignore[no-any-return]


@pytest.mark.parametrize("uid", NATIVE)
def test_uncompressed(ct: Any, tmp_path: Path, uid: str) -> None:
    def change(dataset: Any, index: int) -> None:
        dataset.file_meta.TransferSyntaxUID = uid
        if UID(uid) == "1.2.840.10008.1.2.2":
            values = np.frombuffer(dataset.PixelData, "<i2")
            dataset.PixelData = values.astype(">i2").tobytes()

    values = stored(ct, "i2")
    ct.write(tmp_path, values, change=change)
    volume = read(tmp_path)
    np.testing.assert_array_equal(volume.array_zyx, values - 1024)
    assert volume.acquisition.transfer_syntax_uid == uid


@pytest.mark.parametrize("kind", ["u2", "i2"])
@pytest.mark.parametrize("uid", BY_GDCM)
def test_lossless_encoded_by_gdcm(ct: Any, tmp_path: Path, uid: str, kind: str) -> None:
    values = stored(ct, kind)
    for path in ct.write(tmp_path, values):
        by_gdcm(BY_GDCM[uid])(path)
    volume = read(tmp_path)
    assert volume.acquisition.transfer_syntax_uid == uid
    np.testing.assert_array_equal(volume.array_zyx, values.astype(int) - 1024)


@pytest.mark.parametrize("uid", BY_PYDICOM)
def test_lossless_encoded_by_pydicom(ct: Any, tmp_path: Path, uid: str) -> None:
    values = stored(ct, "i2")
    values[0, 0, :5] = -2000, -1, 0, 1, 3071
    ct.write(tmp_path, values, change=lambda dataset, index: dataset.compress(uid, generate_instance_uid=False))
    np.testing.assert_array_equal(read(tmp_path).array_zyx, values - 1024)


@pytest.mark.parametrize("uid", LOSSY_BY_GDCM)
def test_lossy_jpeg_agrees_with_simpleitk_and_nearly_with_the_original(ct: Any, tmp_path: Path, uid: str) -> None:
    bits = 8 if uid.endswith(".50") else 12

    def change(dataset: Any, index: int) -> None:
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = (8, 8, 7) if bits == 8 else (16, 12, 11)

    values = (stored(ct) // (16 if bits == 8 else 1)).astype("u1" if bits == 8 else "u2")
    for path in ct.write(tmp_path, values, change=change):
        by_gdcm(LOSSY_BY_GDCM[uid])(path)
    array = read(tmp_path).array_zyx
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    np.testing.assert_array_equal(array, sitk.GetArrayFromImage(reader.Execute()))
    assert np.abs(array - (values.astype(int) - 1024)).mean() < 0.02 * 2**bits


def test_near_lossless_jpeg_ls_is_within_its_error(ct: Any, tmp_path: Path) -> None:
    values = stored(ct, "u2")
    ct.write(
        tmp_path,
        values,
        change=lambda dataset, index: (
            twelve_bits(dataset, index),
            dataset.compress(f"{JPEG}.81", jls_error=3, generate_instance_uid=False),
        ),
    )
    error = np.abs(read(tmp_path).array_zyx - (values.astype(int) - 1024))
    assert 0 < error.max() <= 3


def test_lossy_jpeg_2000_is_close(ct: Any, tmp_path: Path) -> None:
    values = stored(ct, "u2")
    ct.write(
        tmp_path,
        values,
        change=lambda dataset, index: (
            twelve_bits(dataset, index),
            dataset.compress(f"{JPEG}.91", j2k_cr=[4], generate_instance_uid=False),
        ),
    )
    error = np.abs(read(tmp_path).array_zyx - (values.astype(int) - 1024))
    assert 0 < error.mean() < 20


@pytest.mark.parametrize("uid", [f"{JPEG}.90", f"{JPEG}.80", "1.2.840.10008.1.2.5"])
def test_compressed_frames_of_enhanced_ct(ct: Any, tmp_path: Path, uid: str) -> None:
    values = stored(ct, "i2")
    dataset = ct.enhanced(values, ct.Layout())
    ct.save(dataset, tmp_path / "plain" / "multi")
    dataset.compress(uid, generate_instance_uid=False)
    ct.save(dataset, tmp_path / "packed" / "multi")
    np.testing.assert_array_equal(read(tmp_path / "packed").array_zyx, read(tmp_path / "plain").array_zyx)


def test_files_of_several_syntaxes_make_one_volume(ct: Any, tmp_path: Path) -> None:
    values = stored(ct, "i2")

    def change(dataset: Any, index: int) -> None:
        if index:
            dataset.compress(BY_PYDICOM[index - 1], generate_instance_uid=False)

    ct.write(tmp_path, values, change=change)
    np.testing.assert_array_equal(read(tmp_path).array_zyx, values - 1024)


def ramp() -> NDArray[Any]:
    """The image in the streams below: rows and columns of a slanted plane."""
    y, x = np.meshgrid(np.arange(40), np.arange(48), indexing="ij")
    return 500 + 40 * y + 7 * x


HTJ2K = {  # made once by OpenJPH 0.14 (ITK's module for it) from ramp(), and ramp() - 1000 for the signed ones
    "unsigned": base64.b64decode(
        "/0//UQApQAAAAAAwAAAAKAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAAABDwEB/1AACAACAAAADP9SAAwAAgABAAUEBEAB/1wAEyCQ"
        "mJigmJigmJigmJiYkJCY/2QAFwABT3BlbkpQSCBWZXIgMC4xNC4wLv+QAAoAAAAAAO8AAf+TwAAVgDX89/gq/Qf4AoG0AMAACSAA"
        "BNAAARgAS3QAbfsAAjQAgAMAwAAKiAABOH7fgI/gi3YAbWsAJHdVAMAACqgAAV7ee+/cAjpwAncAbNmyZcuW7fQY3jGBvrgAwAAK"
        "6AABbUAACQDu7u7u7vP4p6enp8J5ALIymUwmk8lkMpns/0wCEB79iEB79iEB7L8A/3AEAMAAFrwAAXXAJEmSJEmSJPn9f8Cnp6en"
        "p6enp6dCfwBOx3Ecx3Ecx3Ecx3Ecx3Ecx3H+/31wBCB79hCB79hCB79hCB79hCB79hCB7LsB/9k="
    ),
    "signed": base64.b64decode(
        "/0//UQApQAAAAAAwAAAAKAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAAABjwEB/1AACAACAAAADP9SAAwAAgABAAUEBEAB/1wAEyCQ"
        "mJigmJigmJigmJiYkJCY/2QAFwABT3BlbkpQSCBWZXIgMC4xNC4wLv+QAAoAAAAAAPQAAf+TwAAVQAX0cYk88ADDlADAAAkgAATQ"
        "AAEYAEt0AG37AAI0AIADAMAACogAATh+34CP4It2AG1rACR3VQDAAAqoAAFfAAARgN5779wCOnACdwBs2bJly5bt9BjeMYG+uAD8"
        "AwDAAAroAAFtQAAJAO7u7u7u8/inp6enwnkAsjKZTCaTyWQymez/TAIQHv2IQHv2IQHsvwD/cAQAwAAWvAABdcAkSZIkSZIk+f1/"
        "wKenp6enp6enp0J/AE7HcRzHcRzHcRzHcRzHcRzHcf7/fXAEIHv2EIHv2EIHv2EIHv2EIHv2EIHsuwH/2Q=="
    ),
    "lossy": base64.b64decode(
        "/0//UQApQAAAAAAwAAAAKAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAAABjwEB/1AACAACAAAAK/9SAAwAAgABAAUEBEAA/1wAIyK/"
        "GL7qvuq+vLcAtwC24q9Mr0yvZJgDmAOYRp/Sn9KfYf9kABcAAU9wZW5KUEggVmVyIDAuMTQuMC7/kAAKAAAAAAHhAAH/k8AAAKw9"
        "dkRAMSCkLALGtADAAACeAAAE8AAAIwc84AKLdABZmZUAwjQAgAMAwAABacAAAV8AAARgAgJDhrDLrkAhsfsFBbhhAPm4ABj+HYb9"
        "DsO/+wCEA362AMADAMAAAt2AAAXYQAACMETCMJ6eYGEJwjCenmBhCeMJ7A50/yaBxhWESZsAkiySLJIskiySLJIsA8kDyQPJA8kD"
        "yQPJtEkb2tAmbWjzAz3k9zwHkBjjGghA0L8A/AMAwAALpIAAF6LAAAkAUqLINEVGkWmKjCLTFBlFpikyikzzc/ElfyV/JX8lfhCv"
        "C38AtmEbtmEbtmEbtmEbtmEbtmEba6BcA8o1UNZAuQbKGijXQFkD5Rooa6BcA2UNlA/YQgFOmQgFOmQgFN0ADk1rk1rk0LcB/3AE"
        "AMAAC7SAABeyAGTGDM6YwRkzOGMGZ8zgjBmcMYMzZnDGDM6Y/X4/5JX8lfyV/JX8lfyV/JX8lfyV/iuLeQGmMcYYY4wxxhhjjDHG"
        "GGM2iBuIG8QGcYPYIG4QG8QNYoO4QWwQN4gN4gaxQdwgNogbxAZxg9ggbhAbxAH/eWEICnTEICnTEICnTEICnTEICnTEICm6Sa0S"
        "a0Sa0Sa0Sa0SajkC/9k="
    ),
}


@pytest.mark.parametrize(
    ("uid", "stream"),
    [(f"{JPEG}.201", "unsigned"), (f"{JPEG}.201", "signed"), (f"{JPEG}.202", "signed"), (f"{JPEG}.203", "lossy")],
)
def test_high_throughput_jpeg_2000(ct: Any, tmp_path: Path, uid: str, stream: str) -> None:
    def change(dataset: Any, index: int) -> None:
        dataset.PixelData = encapsulate([HTJ2K[stream]])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = uid

    expected = ramp() - (0 if stream == "unsigned" else 1000)
    values = np.broadcast_to(expected.astype("u2" if stream == "unsigned" else "i2"), (3, 40, 48))
    ct.write(tmp_path, values, change=change)
    error = np.abs(read(tmp_path).array_zyx - (expected - 1024))
    assert error.max() <= (3 if stream == "lossy" else 0)


@pytest.mark.parametrize("uid", [f"{JPEG}.100", f"{JPEG}.102", "1.2.3.4.5"])
def test_unsupported_syntax_is_named_with_what_helps(ct: Any, tmp_path: Path, uid: str) -> None:
    def change(dataset: Any, index: int) -> None:
        dataset.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
        dataset["PixelData"].VR = "OB"
        dataset.set_original_encoding(False, True)
        dataset.file_meta.TransferSyntaxUID = uid

    ct.write(tmp_path, change=change)
    with pytest.raises(InputError, match=rf"transfer syntax .*{uid}.*not supported.*Hint: convert"):
        read(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(data=st.data())
def test_broken_streams_bring_no_other_error(ct: Any, tmp_path: Path, data: st.DataObject) -> None:
    """A stream that a decoder still reads gives other pixels; one that it does not is refused."""
    uid = data.draw(st.sampled_from([*BY_GDCM, *LOSSY_BY_GDCM]), label="uid")
    folder = tmp_path / uid
    if not folder.exists():
        for path in ct.write(folder, stored(ct), change=twelve_bits if uid not in LOSSY_BY_GDCM else eight_bits):
            by_gdcm((BY_GDCM | LOSSY_BY_GDCM)[uid])(path)
    path = min(folder.iterdir())
    whole = path.read_bytes()
    start = whole.index(b"\xe0\x7f\x10\x00")
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4), label="flips")):
        bit = data.draw(st.integers(8 * start, 8 * len(content) - 1), label="bit")
        content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(content[: data.draw(st.integers(start, len(content)), label="length")]))
    try:
        assert read(folder).array_zyx.shape == (3, 40, 48)
    except InputError:
        pass
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("uid", [uid for uid, plugins in DECODERS.items() if plugins != ("",)])
def test_missing_decoder_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, uid: str) -> None:
    class NoDecoder:
        available_plugins: tuple[str, ...] = ()

    assert not why_undecodable(uid)
    monkeypatch.setattr(pixels, "get_decoder", lambda uid: NoDecoder)
    reason = why_undecodable(uid)
    assert uid in reason
    assert "Hint: pip install py" in reason
    assert "libjpeg-libjpeg" not in reason


def test_no_pixels_at_all(ct: Any) -> None:
    dataset = ct.slice(ct.stored()[0], ct.Layout(), place=0, number=1)
    del dataset.PixelData
    with pytest.raises(InputError, match=r"here: Pixel Data \(7FE0,0010\): got nothing"):
        next(stored_values(dataset, "here"))


@pytest.mark.parametrize(("stored_bits", "high"), [(12, 11), (12, 15), (12, 13), (16, 15), (8, 7)])
@pytest.mark.parametrize("signed", [False, True])
def test_bits_around_the_pixel_are_cut_off(ct: Any, stored_bits: int, high: int, signed: bool) -> None:
    dataset = ct.slice(ct.stored()[0], ct.Layout(), place=0, number=1)
    dataset.BitsStored, dataset.HighBit = stored_bits, high
    low = -(2 ** (stored_bits - 1)) if signed else 0
    values = np.random.default_rng(0).integers(low, low + 2**stored_bits, (20, 20))
    shift = high + 1 - stored_bits
    packed = (values % 2**stored_bits) << shift
    noise = np.random.default_rng(1).integers(0, 2**16, (20, 20)) & ~((2**stored_bits - 1) << shift)
    array = (packed | noise).astype(np.uint16).view(np.int16 if signed else np.uint16)
    np.testing.assert_array_equal(within_bits_stored(array, dataset), values)


@pytest.mark.parametrize(("stored_bits", "high"), [(0, 0), (17, 16), (12, 10), (12, 16)])
def test_impossible_bits_are_refused(ct: Any, stored_bits: int, high: int) -> None:
    dataset = ct.slice(ct.stored()[0], ct.Layout(), place=0, number=1)
    dataset.BitsStored, dataset.HighBit = stored_bits, high
    with pytest.raises(InputError, match="bits stored"):
        within_bits_stored(np.zeros((2, 2), np.uint16), dataset)
