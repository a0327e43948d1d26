"""Changes of an index in a folder: each is whole or not at all.

Vectors are on the disk before the data base says so. A process that is killed in the middle loses nothing that was
acknowledged and leaves at most an unused end of the file of vectors, or a file that no data base names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from spicula.core.embedding import Embeddings, Facts
from spicula.core.errors import InputError
from spicula.retrieval.facts import checked_facts, facts_checksum
from spicula.retrieval.queries import checked_embeddings, no_such
from spicula.retrieval.records import Record, delete_rows, insert_records, renumber, rows_of, rows_where
from spicula.retrieval.store import State, Store, add_fields
from spicula.retrieval.vectors import Vectors, open_vectors, vector_checksums, vectors_name, write_vectors

_BLOCK = 16_384


def put(store: Store, embeddings: Embeddings, facts: Sequence[Facts], *, there: bool) -> None:
    """Add findings, or put others in the place of those that are there.

    Args:
        store: The data base.
        embeddings: Their vectors.
        facts: What is known of each.
        there: Whether they have to be there already; otherwise they must not.

    Raises:
        InputError: See :meth:`spicula.retrieval.index.Index.add`; nothing is changed then.
    """
    with store.writing() as change:
        checked_embeddings(embeddings, change.state.dimensions, change.state.fingerprint)
        kept, new = checked_facts(embeddings.finding_ids, facts, change.state.fields)
        found = rows_of(change.connection, embeddings.finding_ids)
        if there and len(found) < len(embeddings):
            raise no_such([one for one in embeddings.finding_ids if one not in found], store.folder)
        if not there and found:
            what = f"{store.folder}: finding {next(iter(found))}"
            raise InputError(what, got="there already", hint="update changes what is there")
        state = add_fields(change.connection, change.state, new)
        _append(store.folder, state, embeddings.vectors)
        delete_rows(change.connection, sorted(found.values()))
        sums = vector_checksums(embeddings.vectors)
        numbered = enumerate(zip(embeddings.finding_ids, sums, kept, strict=True), start=state.rows)
        made = (Record(row, one, crc, facts_checksum(one, known), known) for row, (one, crc, known) in numbered)
        insert_records(change.connection, state.fields, made)
        more = len(embeddings)
        change.state = replace(state, rows=state.rows + more, findings=state.findings + more - len(found))


def take_out(store: Store, finding_ids: Sequence[str]) -> None:
    """Remove findings; their vectors stay in the file until it is compacted.

    Raises:
        InputError: An id that is not there; nothing is changed then.
    """
    wanted = list(dict.fromkeys(finding_ids))
    with store.writing() as change:
        found = rows_of(change.connection, wanted)
        if len(found) < len(wanted):
            raise no_such([one for one in wanted if one not in found], store.folder)
        delete_rows(change.connection, sorted(found.values()))
        change.state = replace(change.state, findings=change.state.findings - len(wanted))


def compact(store: Store) -> None:
    """Take off the disk what belongs to no finding: write vectors and data base anew without gaps.

    The new file counts from the moment the data base names it; what a process left that was killed is taken away.
    Vectors without gaps stay as they are.

    Raises:
        InputError: It cannot be written; nothing is changed then.
    """
    with store.writing() as change:
        state = change.state
        path = store.folder / vectors_name(state.generation)
        old = open_vectors(path, state.rows, state.dimensions)
        _remove_others(path)
        whole = state.rows == state.findings and path.stat().st_size == old.nbytes
        if not whole:
            rows = rows_where(change.connection, "1", ())
            blocks = (old[rows[start : start + _BLOCK]] for start in range(0, rows.size, _BLOCK))
            _write(store.folder / vectors_name(state.generation + 1), 0, blocks)
            renumber(change.connection, rows)
            change.state = replace(state, generation=state.generation + 1, rows=int(rows.size))
    if not whole:
        path.unlink(missing_ok=True)
    store.vacuum()


def _append(folder: Path, state: State, vectors: Vectors) -> None:
    """Put vectors behind those that count; files of other generations, left by a killed process, are removed."""
    path = folder / vectors_name(state.generation)
    open_vectors(path, state.rows, state.dimensions)  # whole, or nothing may be put behind it
    _remove_others(path)
    _write(path, state.rows, [vectors])


def _remove_others(path: Path) -> None:
    """Remove all files of vectors but one, while nobody else changes the index."""
    for other in path.parent.glob("vectors-*.f32"):
        if other != path:
            other.unlink(missing_ok=True)


def _write(path: Path, row: int, blocks: Iterable[Vectors]) -> None:
    try:
        write_vectors(path, row, blocks)
    except OSError as error:
        hint = "nothing was changed; see to space and rights, and try again"
        raise InputError(f"{path}: cannot be written", got=error.strerror, hint=hint) from error
