"""Predict malignancy and traits of known nodules.   python examples/score_nodules.py NODULES.csv"""

import sys

from spicula import score


def main(table: str) -> None:
    for row in score(table):
        print(row["pid"], row["nodule_id"], row["probability"] or row["error"])


if __name__ == "__main__":
    main(sys.argv[1])
