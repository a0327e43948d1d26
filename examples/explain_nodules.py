"""Ask words of the nodules of one chest CT.   python examples/explain_nodules.py PATH WORD..."""

import sys

from spicula import explain


def main(path: str, *words: str) -> None:
    for said in explain(path, words).words:
        for answer in said.requested:
            remark = "" if answer.learned else " (not among the words it learned)"
            print(f"{said.finding_id}: {answer.asked} {answer.probability:.2f}{remark}")


if __name__ == "__main__":
    main(*sys.argv[1:])
