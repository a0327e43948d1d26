"""The area of an outline's surface, as a mesh of triangles between its voxels and those around it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spicula.core.volume import Mask


def surface_area_mm2(mask: Mask) -> float:
    """Area of the mesh that marching cubes draws halfway between voxels inside and outside.

    Beyond the mask's box nothing is inside, so that the ends are closed. On a mask the surface has stairs: the area of
    a ball comes out about 8 % too large, however fine the voxels are.

    Args:
        mask: A region, on any grid.

    Returns:
        mm2; 0 for an empty mask.

    References:
        Lorensen & Cline 1987, doi:10.1145/37402.37422. Where two opposite corners of a face are inside, they are
        joined, as by Lewiner et al. 2003, doi:10.1080/10867651.2003.10487582, in scikit-image, whose areas these are.

    Example:
        >>> from spicula.core.geometry import Geometry
        >>> grid = Geometry.from_axes((1, 1, 1), (1.0, 1.0, 1.0))
        >>> round(surface_area_mm2(Mask(np.ones((1, 1, 1), bool), grid)), 3)  # eight triangles around one voxel
        1.732
    """
    inside = np.pad(mask.array_zyx, 1).astype(np.uint8)
    low, high = slice(None, -1), slice(1, None)
    code = np.zeros(tuple(n - 1 for n in inside.shape), dtype=np.uint8)
    for corner in range(8):
        code |= inside[tuple(high if corner >> axis & 1 else low for axis in (2, 1, 0))] << corner
    counts = np.bincount(code.ravel(), minlength=256)
    return float(counts @ _areas(mask.geometry.affine_lps[:3, :3]))


def _areas(steps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Area of the triangles in each of the 256 kinds of cube, ``[256]`` mm2; ``steps`` has its edges as columns."""
    vertices = np.array([_middle(edge) for edge in range(12)] + [(0.5, 0.5, 0.5)]) @ steps.T
    areas = np.zeros(256)
    for kind, row in enumerate(_TRIANGLES.split()):
        corners = vertices[[int(edge, 13) for edge in row.strip("-")]].reshape(-1, 3, 3)
        sides = corners[:, 1:] - corners[:, :1]
        areas[kind] = np.linalg.norm(np.cross(sides[:, 0], sides[:, 1]), axis=1).sum() / 2
    return areas


def _middle(edge: int) -> tuple[float, float, float]:
    """Middle (z, y, x) of a cube's edge: edges 0 to 3 run along z, 4 to 7 along y, 8 to 11 along x."""
    ends = [float(edge >> 1 & 1), float(edge & 1)]
    ends.insert(edge // 4, 0.5)
    return ends[0], ends[1], ends[2]


_TRIANGLES = (
    "- 408 158 405501 924 928820 482812592521 925215201 395 943403853830 391198 409039013 534432 538308320 814124132 "
    "301203 06a 84aa46 a16156806865 15a56a546 2696a904909a 6a2a92a89 260a060a1018581854945492420 26a2a1921591 3956a0 "
    "85a3a5a36963694 809690963a363a1 139619469a16 50405a3a5a36263 3252a5a85a26 0486a212a213 26a12a321 a71 "
    "0a4a74184147 a78875 a70740754 a71249 91819727972a0a2 59727972a4a2a48 75907920970a 73a39a51a5a9 "
    "0a171a173135953598489840801 3979a798a 739794a740a4 514a414a272a273 185a70307032 8a7287327482 0a7307203 061167 "
    "841471467 068658675 475674 726279197914041 671961891269 480925652567 592652756 736963690509051 185439347674 "
    "980790670973 739479674 736263051504 7c6c1686168252825cc3273cc51 7c670c078387834c4332cc2604c 732726 2b6 "
    "60b08b42b4b8 158b62 425b525b161b160 49669b 0868b689b 48616861b5b1b59 9b5b05015b60 2969563b6365 "
    "3b262b260204840489598953932 82928616861b3b1 294b63036301 b63653645 b63365605085 64836813863b 3b6036130 a0bb02 "
    "2b4b84ba8 a1b5b1b52825280 ba14b1541b42 4909a09ba 9a89ba 04891519aba9 a159a5ba9 a3b3a505a509290 942538b838ba "
    "280829a1b3b1 acba2c2a414a419c9113cc3b29c 4505b0ba053b 853b83a8b acbc0b4b0b4383438cc13a1cc80 a13a3b b72712a62a21 "
    "042408180a101a767a76b2b6026 5b7b52825286a68 0a672b274547 4a6a41914197b79 a6071b8b1b89 597b79a484a6 "
    "bc9c69096905a505acc75b7cca6 351539293b232b676b67a1a7317 0a69421853b7 b7362a9a2a98 942a60b73 3b761a165456 "
    "851b73a60 ac8c78387834b434bcc64a6ccb7 73ba60 71b12b102 2b44b8b78718 0282787582b7 42b74b547 1070979b7904 "
    "b718b19b8 bc9b4c4b070b078c8775cc5948c b75b59 b73195912021 3b7294185 8c983c38707870bcb002cc293bc 9423b7 "
    "5c4c34b434b070b07cc1051cc73 18573b 80473b b73 7b3 408b37 35b58bb817b1 43534b0b4b07170 b27247937974 "
    "938783870b070b2 173b373b2329492945854581513 3597b121b120 7b55b9 94b0b4b07870785 7b1b81b98 017907b97094 24b47b457 "
    "208728578b27 b24b487b8178 17b21b012 6b0b307a0703 87a78343834b6b4 18081535173137bab7ba606a10a 7a1b36563654 "
    "29392404260206aba6ab737b23b 26ba373a989a 26b59304817a 5936b27a1 96b69050905a7a5 69496b85a7a5 17ab060b898b "
    "6c4ca414a41979197ccb96bcc7a 6b2a07470745 7c5cb525b52868286cca87acc6b 4807a16b2 a176b2 1a33ab b0a0b434b438183 "
    "5838b38ab 540b50ab035b b2a4a2a41914193 183938b0a0b2 35982428bab8 bcac3a5a3a5090509cc20b2cc93 1a5a95ab9 "
    "851409a909ab a98b9a 940a90b9a ab1b414514b2 bcab1c1b525b528c8220cc0a18c b248b4ab8 0ab0b2 b36306310 46863831836b "
    "6b3635065805 6b3563465 6b2349430103 9c8c28682861b161bcc3193ccb2 26b048359 359b26 b950b51056b0 "
    "6c468c861b161b5c5bb9cc9485c 806b8698b 94696b 5c452c25b1b5b16c6110cc0426c 85126b 48026b b26 372276 "
    "607870783438342 617168286825352 617160352425 379749764 890970760793 593814741476 6c763c369096905c5001cc1735c "
    "952562576 294508056765 761691981629 6c7c2797279141914cc0160cc42 745764 608568765 481741647 601617 a07037023 "
    "a87827237842 7a1058503230 4c541c14a2a4a27c7223cc3517c 3799747a4a04 937a9789a 17a359048 59317a 57970902907a "
    "7c579c972a272a4c4aa8cc8594c 8c9c19791972a272acc0280cca1 17a942 7a0470574 7a8785 17a804 7a1 62a21a231 "
    "a60284821312 235a258a52a6 4c5c05a505a363a36cc2342cc60 3191696491a6 9c890c09636963aca331cc180ac "
    "ac8a5c5a363a369c9664cc4859c 5930a6 62aa21291951 0a6185294 a629a28a9 0a6429 51a65a456 8510a6 48a4a6 60a 031023 "
    "184214312 358038230 354342 049309103 931918 804593 935 295125021 518942 298280 294 045051 518 048 - "
)
"""For each kind of cube (bit ``4 z + 2 y + x`` set: that corner is inside) its triangles, three edges (base 13) each;
12 is the middle of the cube. Drawn up by looking at the meshes that scikit-image 0.26 gives for single cubes."""
