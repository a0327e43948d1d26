"""A store in one file and back: every row, every file, between SQLite and PostgreSQL, whatever is killed or damaged."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Text, cast, insert, select, text

from spicula.core.errors import InputError, OfflineError
from spicula.dicom.deidentify import KEY_FILE, secret_of
from spicula.pipelines.archives import FILE as ARCHIVES_FILE
from spicula.pipelines.backup import BACKUP_ASIDE, MANIFEST, SUMS, Manifest, backup
from spicula.pipelines.restore import RESTORE_ASIDE, restore
from spicula.pipelines.upkeep import check, remove_study, sweep, usage
from spicula.pipelines.workplace import Workplace, open_workplace
from spicula.store.studies import NewInstance
from spicula.store.tables import FINDINGS, JOBS, METADATA

OLD = time.time() - 7 * 86_400


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request) -> str | None:
    return None if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.fixture
def place(tmp_path, url):
    with open_workplace(tmp_path / "store", url=url) as place:
        yield fill(place)


@pytest.fixture
def sqlite(tmp_path):
    with open_workplace(tmp_path / "store") as place:
        yield fill(place)


def add_study(place: Workplace, uid: str, *, instances: int = 3, size: int = 1000) -> None:
    for number in range(instances):
        file = place.folder.parent / f"{uid}.{number}.dcm"
        file.write_bytes(hashlib.sha256(f"{uid}{number}".encode()).digest() * (size // 32))
        new = NewInstance(
            {"study_uid": uid, "patient_id": f"P{uid[-1]}", "patient_name": "Ævar^Øst", "origin": "upload"},
            {"series_uid": f"{uid}.1", "modality": "CT", "number": 1, "slice_thickness_mm": 0.1 + 0.2},
            {"sop_instance_uid": f"{uid}.1.{number}", "sop_class_uid": "1.2", "transfer_syntax_uid": "1.2.1"},
        )
        place.studies.add(file, new)
        file.unlink()


def add_analysis(place: Workplace, name: str, uid: str) -> None:
    folder = place.folder / "analyses" / name
    (folder / "pictures").mkdir(parents=True)
    (folder / "report.html").write_text(f"<p>{name} ü</p>")
    (folder / "pictures" / "1 a.png").write_bytes(name.encode() * 100)
    record = {"findings": [{"n": 1, "p": 0.1, "text": 'it\'s "ü" 🫁', "none": None, "list": [1, 2.5, [True]]}]}
    place.findings.keep_analysis(name, study_uid=uid, series_uid=f"{uid}.1", record=record, folder=f"analyses/{name}")


def fill(place: Workplace) -> Workplace:
    """A store with something in every table, NULLs and JSON nulls among it."""
    for uid in ("1.2.1", "1.2.2", "1.2.3"):
        add_study(place, uid)
        add_analysis(place, f"a{uid[-1]}", uid)
    (finding,) = place.findings.of_study("1.2.1")
    place.findings.change(finding.id, seen=1, by="ada", state="rejected")
    place.findings.add(study_uid="1.2.2", series_uid="1.2.2.1", content={"n": 9}, by="ada")
    user = place.users.add("ada", role="admin", password="correct horse battery")
    place.users.add("sso", role="reader", subject="someone")
    place.users.begin(user, kind="token", label="a program")
    done = place.queue.ask("analyze", "1.2.1", {"study_uid": "1.2.1"}, by="ada")
    job = place.queue.take("me")
    assert job is not None
    assert job.id == done.id
    place.queue.end(job, "me", {"findings": 1})
    place.queue.ask("analyze", "1.2.2", {"study_uid": "1.2.2"}, by="ada")
    place.audit.note("ada", "study.open", object="1.2.1")
    place.audit.note("ada", "study.open", object="1.2.2", detail={"n": 1})
    (place.folder / ARCHIVES_FILE).write_text("# none\n")
    return place


def rows(place: Workplace) -> dict[str, list[tuple[object, ...]]]:
    """All rows, JSON as the text that it is stored as."""
    found = {}
    with place.engine.connect() as connection:
        for table in METADATA.sorted_tables:
            columns = [cast(c, Text) if str(c.type) == "JSON" else c for c in table.columns]
            found[table.name] = [
                tuple(row) for row in connection.execute(select(*columns).order_by(*table.primary_key))
            ]
    return found


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("store.sqlite")
    }


def left(folder: Path) -> list[Path]:
    return [path for prefix in (BACKUP_ASIDE, RESTORE_ASIDE) for path in folder.rglob(f"{prefix}*")]


@pytest.mark.parametrize("into", ["sqlite", "postgresql"])
def test_a_restored_store_is_the_store_row_by_row_and_file_by_file(place, new_database, tmp_path, into) -> None:
    told: list[tuple[int, int]] = []
    made = backup(place, tmp_path / "out" / "b.zip", progress=lambda *done: told.append(done))
    assert told[-1] == (made.files, made.files) == (15, 15)
    assert made.rows["studies"] == 3
    assert made.bytes == sum(len(content) for name, content in files(place.folder).items() if "/" in name)
    before = rows(place)
    assert all(before.values())
    target = None if into == "sqlite" else new_database()
    assert restore(tmp_path / "out" / "b.zip", tmp_path / "new" / "store", target) == made
    with open_workplace(tmp_path / "new" / "store", url=target) as restored:
        assert rows(restored) == before
        assert files(restored.folder) == files(place.folder)
        assert list(check(restored)) == []
        ada = restored.users.with_password("ada", "correct horse battery")
        assert ada is not None
        assert ada.role == "admin"
        restored.audit.note("ada", "after")
        assert restored.audit.list(limit=1)[0]["id"] == len(before["audit"]) + 1
        assert restored.queue.take("you") is not None
        add_study(restored, "1.2.4")
    assert left(tmp_path) == []


def test_a_backup_is_for_its_owner_and_for_any_tool(sqlite, tmp_path) -> None:
    secret_of(sqlite.folder)
    made = backup(sqlite, tmp_path / "b.zip")
    assert stat.S_IMODE((tmp_path / "b.zip").stat().st_mode) == 0o600
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        archive.extractall(tmp_path / "seen")
    done = subprocess.run(["sha256sum", "-c", "--quiet", SUMS], cwd=tmp_path / "seen", check=False)
    assert done.returncode == 0
    assert not (tmp_path / "seen" / KEY_FILE).exists()
    assert not made.key
    study = json.loads((tmp_path / "seen" / "tables" / "studies.jsonl").read_text().splitlines()[0])
    assert study["patient_name"] == "Ævar^Øst"
    assert study["deidentified"] is False
    assert Manifest(**json.loads((tmp_path / "seen" / MANIFEST).read_text())) == made


def test_the_key_comes_along_only_if_asked_for(sqlite, tmp_path) -> None:
    secret = secret_of(sqlite.folder)
    assert backup(sqlite, tmp_path / "b.zip", key=True).key
    restore(tmp_path / "b.zip", tmp_path / "new")
    assert secret_of(tmp_path / "new") == secret
    assert stat.S_IMODE((tmp_path / "new" / KEY_FILE).stat().st_mode) == 0o600


def test_rows_alone(sqlite, tmp_path) -> None:
    made = backup(sqlite, tmp_path / "b.zip", files=False)
    assert (made.files, made.bytes) == (0, 0)
    restore(tmp_path / "b.zip", tmp_path / "new")
    with open_workplace(tmp_path / "new") as restored:
        assert rows(restored) == rows(sqlite)
        assert sum("missing" in told for told in check(restored)) == 9 + 3


def test_an_empty_store_and_an_empty_folder(tmp_path) -> None:
    with open_workplace(tmp_path / "store") as place:
        backup(place, tmp_path / "b.zip")
    (tmp_path / "new").mkdir()
    restore(tmp_path / "b.zip", tmp_path / "new")
    with open_workplace(tmp_path / "new") as restored:
        assert restored.studies.list().total == 0


def test_a_backup_of_a_store_in_use_is_of_one_moment(place, url, new_database, tmp_path) -> None:
    stop, failed = threading.Event(), []

    def write() -> None:
        try:
            with open_workplace(place.folder, url=url) as other:
                number = 0
                while not stop.is_set():
                    number += 1
                    uid = f"1.3.{number}"
                    add_study(other, uid, instances=4)
                    add_analysis(other, f"w{number}", uid)
                    if number > 3:
                        remove_study(other, f"1.3.{number - 3}")
        except Exception as error:
            failed.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(4):
            time.sleep(0.2)
            backup(place, tmp_path / f"{number}.zip")
    finally:
        stop.set()
        writer.join()
    assert not failed
    for number in range(4):
        target = new_database() if url and number == 0 else None
        restore(tmp_path / f"{number}.zip", tmp_path / f"new{number}", target)
        with open_workplace(tmp_path / f"new{number}", url=target) as restored:
            assert list(check(restored)) == []
            for row in restored.studies.list(limit=1000).rows:
                known = {str(one["file"]) for one in restored.studies.instances(f"{row['study_uid']}.1")}
                assert known <= set(files(restored.folder))


KILLED = """
import sys, time
from pathlib import Path
from spicula.pipelines.backup import backup
from spicula.pipelines.restore import restore
from spicula.pipelines.workplace import open_workplace
what, store, archive, database = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4] or None
def progress(done, whole):
    if done == whole // 2:
        print("half", flush=True)
        time.sleep(600)
if what == "backup":
    with open_workplace(store, url=database) as place:
        backup(place, archive, progress=progress)
else:
    restore(archive, store, database, progress=progress)
"""


def killed(what: str, store: Path, archive: Path, database: str | None) -> None:
    """Begin, and kill in the middle."""
    command = [sys.executable, "-c", KILLED, what, str(store), str(archive), database or ""]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        os.kill(process.pid, signal.SIGKILL)


def age(folder: Path) -> None:
    for path in left(folder):
        os.utime(path, (OLD, OLD))


def test_a_killed_backup_leaves_nothing_half(place, url, tmp_path) -> None:
    (tmp_path / "out").mkdir()
    killed("backup", place.folder, tmp_path / "out" / "b.zip", url)
    assert not (tmp_path / "out" / "b.zip").exists()
    assert len(left(tmp_path)) == 2
    backup(place, tmp_path / "out" / "b.zip")
    assert len(left(tmp_path)) == 2  # too young to be sure that nobody holds them
    age(tmp_path)
    backup(place, tmp_path / "out" / "c.zip")
    assert left(tmp_path) == []
    restore(tmp_path / "out" / "b.zip", tmp_path / "new")
    with open_workplace(tmp_path / "new") as restored:
        assert rows(restored) == rows(place)


def test_a_killed_restore_leaves_no_store(sqlite, url, tmp_path) -> None:
    backup(sqlite, tmp_path / "b.zip")
    killed("restore", tmp_path / "r" / "new", tmp_path / "b.zip", url)
    assert not (tmp_path / "r" / "new").exists()
    age(tmp_path / "r")
    restore(tmp_path / "b.zip", tmp_path / "r" / "new", url)
    assert left(tmp_path / "r") == []
    with open_workplace(tmp_path / "r" / "new", url=url) as restored:
        assert rows(restored) == rows(sqlite)


def test_a_backup_never_takes_the_place_of_anything(sqlite, tmp_path) -> None:
    (tmp_path / "b.zip").write_text("the last one")
    with pytest.raises(InputError, match="a new name"):
        backup(sqlite, tmp_path / "b.zip")
    with pytest.raises(InputError, match="within the store"):
        backup(sqlite, sqlite.folder / "instances" / "b.zip")
    assert (tmp_path / "b.zip").read_text() == "the last one"


@pytest.mark.parametrize("harm", ["missing", "damaged"])
def test_a_store_that_is_not_whole_is_told_and_not_backed_up(sqlite, tmp_path, harm) -> None:
    path = sqlite.studies.path(sqlite.studies.instance("1.2.2.1.1"))
    path.unlink() if harm == "missing" else path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(InputError, match="spicula store check"):
        backup(sqlite, tmp_path / "b.zip")
    assert not (tmp_path / "b.zip").exists()
    assert left(tmp_path) == []
    assert any("1.2.2.1.1" in told for told in check(sqlite))


def test_a_store_that_is_there_is_not_written_over(sqlite, new_database, tmp_path) -> None:
    backup(sqlite, tmp_path / "b.zip")
    with pytest.raises(InputError, match="new or empty"):
        restore(tmp_path / "b.zip", sqlite.folder)
    target = new_database()
    with open_workplace(tmp_path / "other", url=target):
        pass
    with pytest.raises(InputError, match="tables of a store"):
        restore(tmp_path / "b.zip", tmp_path / "new", target)
    assert not (tmp_path / "new").exists()
    with pytest.raises(OfflineError):
        restore(tmp_path / "b.zip", tmp_path / "new", "postgresql://nobody@127.0.0.1:1/none")
    assert not (tmp_path / "new").exists()


Change = Callable[[dict[str, bytes]], None]


def changed(archive: Path, out: Path, change: Change, *, sums: bool) -> Path:
    """The same zip with other members; with sums that fit again if asked for."""
    with zipfile.ZipFile(archive) as source:
        members = {name: source.read(name) for name in source.namelist()}
    change(members)
    if sums:
        told = ((hashlib.sha256(content).hexdigest(), name) for name, content in members.items() if name != SUMS)
        members[SUMS] = "".join(f"{digest}  {name}\n" for digest, name in told).encode()
    with zipfile.ZipFile(out, "w") as target:
        for name, content in members.items():
            target.writestr(zipfile.ZipInfo(name), content)
    return out


def first(members: dict[str, bytes], start: str) -> str:
    return next(name for name in members if name.startswith(start))


def manifest(**values: object) -> Change:
    def change(members: dict[str, bytes]) -> None:
        members[MANIFEST] = json.dumps({**json.loads(members[MANIFEST]), **values}).encode()

    return change


@pytest.mark.parametrize(
    ("change", "sums", "told"),
    [
        (lambda m: m.update({first(m, "instances/"): b"other"}), False, "damaged"),
        (lambda m: m.update({first(m, "instances/"): b"other"}), True, "no file of instance"),
        (lambda m: m.pop(first(m, "instances/")), False, "damaged"),
        (lambda m: m.pop(first(m, "instances/")), True, "no file of instance"),
        (lambda m: m.pop("tables/audit.jsonl"), True, "other tables"),
        (lambda m: m.update({"tables/audit.jsonl": b""}), True, "another number of rows"),
        (lambda m: m.update({"tables/audit.jsonl": b"{\n{\n{"}), True, "damaged"),
        (lambda m: m.update({"tables/studies.jsonl": m["tables/studies.jsonl"][:-9] + b"\n"}), True, "damaged"),
        (lambda m: m.update({"tables/series.jsonl": m["tables/series.jsonl"].replace(b'"1.2.1"', b'"9"')}), True,
         "damaged"),
        (lambda m: m.update({"instances/../../evil": b"x"}), True, "a name that no backup has"),
        (lambda m: m.update({"/tmp/evil": b"x"}), True, "a name that no backup has"),
        (lambda m: m.update({"store.sqlite": b"x"}), True, "a name that no backup has"),
        (lambda m: m.update({"more.txt": b"x"}), False, "does not name"),
        (lambda m: m.pop(SUMS), False, "expected a backup"),
        (lambda m: m.pop(MANIFEST), True, "expected a backup"),
        (manifest(format=2), True, "update Spicula"),
        (manifest(revision="9999"), True, "later version"),
        (manifest(more=1), True, "damaged"),
        (lambda m: m.update({MANIFEST: b"[]"}), True, "damaged"),
    ],
)  # fmt: skip
def test_a_damaged_or_hostile_archive_is_refused_whole(sqlite, tmp_path, change, sums, told) -> None:
    backup(sqlite, tmp_path / "b.zip")
    (tmp_path / "in").mkdir()
    bad = changed(tmp_path / "b.zip", tmp_path / "bad.zip", change, sums=sums)
    with pytest.raises(InputError, match=told):
        restore(bad, tmp_path / "in" / "new")
    assert list((tmp_path / "in").iterdir()) == []
    assert not list(tmp_path.rglob("evil"))
    assert not Path("/tmp/evil").exists()


def test_a_backup_of_an_earlier_version_is_brought_up_to_date(sqlite, tmp_path) -> None:
    backup(sqlite, tmp_path / "b.zip")

    def earlier(members: dict[str, bytes]) -> None:
        manifest(revision="0001")(members)
        told = [json.loads(line) for line in members["tables/studies.jsonl"].splitlines()]
        lines = [json.dumps({name: one for name, one in row.items() if name != "newest_at"}) for row in told]
        members["tables/studies.jsonl"] = "".join(f"{line}\n" for line in lines).encode()

    old = changed(tmp_path / "b.zip", tmp_path / "old.zip", earlier, sums=True)
    restore(old, tmp_path / "new")
    with open_workplace(tmp_path / "new") as restored:
        assert {**rows(restored), "studies": []} == {**rows(sqlite), "studies": []}
        for row in restored.studies.list().rows:
            assert row == {
                **sqlite.studies.get(row["study_uid"]),
                "newest_at": row["received_at"],
                "series": 1,
                "instances": 3,
            }
        assert list(check(restored)) == []


def test_rows_that_do_not_fit_leave_no_table_and_no_folder(sqlite, postgres_url, tmp_path) -> None:
    backup(sqlite, tmp_path / "b.zip")

    def orphan(members: dict[str, bytes]) -> None:
        members["tables/series.jsonl"] = members["tables/series.jsonl"].replace(b'"1.2.1"', b'"9"')

    bad = changed(tmp_path / "b.zip", tmp_path / "bad.zip", orphan, sums=True)
    with pytest.raises(InputError, match="do not fit"):
        restore(bad, tmp_path / "new", postgres_url)
    assert not (tmp_path / "new").exists()
    restore(tmp_path / "b.zip", tmp_path / "new", postgres_url)


def test_a_cut_or_flipped_archive_is_refused(sqlite, tmp_path) -> None:
    backup(sqlite, tmp_path / "b.zip")
    whole = (tmp_path / "b.zip").read_bytes()
    for cut in (0, 10, 3000, -1):
        (tmp_path / "cut.zip").write_bytes(whole[:cut])
        with pytest.raises(InputError):
            restore(tmp_path / "cut.zip", tmp_path / "new")
    for at in range(0, len(whole) - 2000, len(whole) // 15):
        flipped = bytearray(whole)
        flipped[at] ^= 0xFF
        (tmp_path / "flipped.zip").write_bytes(flipped)
        try:
            restore(tmp_path / "flipped.zip", tmp_path / f"new{at}")
        except InputError:
            assert not (tmp_path / f"new{at}").exists()
        else:  # a time or a mode, on which nothing depends
            assert files(tmp_path / f"new{at}") == files(sqlite.folder)
    with pytest.raises(InputError, match="no such file"):
        restore(tmp_path / "none.zip", tmp_path / "new")


def test_a_removed_study_leaves_no_file_of_it(sqlite) -> None:
    for folder in ("results/1.2.1/x", f"exports/{hashlib.sha256(b'1.2.1').hexdigest()[:32]}"):
        (sqlite.folder / folder).mkdir(parents=True)
        (sqlite.folder / folder / "report.html").write_text("Ævar")
    others = {name for name in files(sqlite.folder) if name.startswith(("analyses/a2", "analyses/a3"))}
    assert remove_study(sqlite, "1.2.1") == 3
    now = files(sqlite.folder)
    assert others <= set(now)
    assert not [name for name in now if name.startswith(("analyses/a1", "results", "exports"))]
    assert len([name for name in now if name.startswith("instances")]) == 6
    assert list(check(sqlite)) == []
    with pytest.raises(InputError):
        remove_study(sqlite, "1.2.1")


def test_what_was_left_is_swept_and_what_is_wanted_stays(sqlite) -> None:
    folder = sqlite.folder
    upload = folder / "uploads" / "wanted"
    lost = [
        folder / "analyses" / "lost",
        folder / "uploads" / "lost",
        folder / ".spicula-lost",
        folder / "results" / "9",
    ]
    open_job = sqlite.queue.ask("import", "x", {"source": str(upload / "f.zip")}, by="ada")
    stay = [upload, folder / ".spicula-young", folder / "analyses" / open_job.id, folder / f".spicula-{open_job.id}"]
    for path in (*lost, *stay):
        path.mkdir(parents=True)
        if "young" not in path.name:
            os.utime(path, (OLD, OLD))
    (folder / "instances" / "zz").mkdir()
    (folder / "instances" / "zz" / "old.dcm").write_bytes(b"x")
    os.utime(folder / "instances" / "zz" / "old.dcm", (OLD, OLD))
    (folder / "instances" / "zz" / "young.dcm").write_bytes(b"x")
    assert [told.split()[0] for told in check(sqlite)] == ["1", "4"]
    swept = sweep(sqlite)
    assert (swept.instances, swept.folders) == (1, 4)
    assert not any(path.exists() for path in lost)
    assert all(path.exists() for path in stay)
    assert (folder / "instances" / "zz" / "young.dcm").exists()
    assert list(check(sqlite)) == []


def test_usage_counts_what_the_quota_counts(place) -> None:
    told = usage(place)
    assert told.rows["instances"] == 9
    assert told.bytes == place.studies.bytes_used() == 9 * 992
    assert told.free_bytes > 0


def test_null_and_the_null_of_json_stay_apart(sqlite, tmp_path) -> None:
    with sqlite.engine.begin() as connection:
        connection.execute(text("UPDATE audit SET detail = NULL WHERE id = 1"))
        connection.execute(text("UPDATE audit SET detail = 'null' WHERE id = 2"))
    backup(sqlite, tmp_path / "b.zip")
    restore(tmp_path / "b.zip", tmp_path / "new")
    with open_workplace(tmp_path / "new") as restored:
        assert rows(restored)["audit"] == rows(sqlite)["audit"]


def test_many_rows(sqlite, tmp_path) -> None:
    row = {"kind": "analyze", "task": {}, "state": "done", "created_at": "x", "created_by": "ada", "not_before": "x"}
    with sqlite.engine.begin() as connection:
        more = [{**row, "id": f"{n}", "key": f"{n}", **({"message": "m"} if n % 2 else {})} for n in range(3000)]
        for one in more:
            connection.execute(insert(JOBS).values(one))
    backup(sqlite, tmp_path / "b.zip", files=False)
    restore(tmp_path / "b.zip", tmp_path / "new")
    with open_workplace(tmp_path / "new") as restored:
        assert rows(restored) == rows(sqlite)
        with restored.engine.connect() as connection:
            assert len(connection.execute(select(FINDINGS.c.content)).all()) == 4
