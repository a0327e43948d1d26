"""Analyze one chest CT and print its findings.   python examples/analyze_scan.py PATH"""

import sys

from spicula import analyze


def main(path: str) -> None:
    analysis = analyze(path)
    for finding in analysis.findings:
        risk = analysis.predictions_of(finding.id)["malignancy"]
        x, y, z = finding.center_xyz_mm
        print(f"{finding.id}: ({x:.1f}, {y:.1f}, {z:.1f}) mm LPS, malignancy {risk.probability:.2f} {risk.interval}")


if __name__ == "__main__":
    main(sys.argv[1])
