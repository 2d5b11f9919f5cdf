"""Reports, beside an independent reader of the files they come from."""

import csv
import io
from collections import Counter, defaultdict
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from tests.conftest import ROOT, serve, shown_by_psql

FILES = {"departments": "departments.csv", "jobs": "jobs.csv", "employees": "hired_employees.csv"}
FOLDERS = [ROOT / "tests" / "hiring", ROOT.parent / "shared" / "data" / "hiring"]


@pytest.fixture(scope="module")
def house(module_database):
    with serve(module_database) as service:
        yield service


@pytest.fixture
def load(house):
    """Empty the tables and fill them with these files: load({"departments": b"…", …})."""

    def fill(files: dict[str, bytes]) -> None:
        with psycopg.connect(house.database) as connection:
            connection.execute("truncate departments, jobs, employees, uploads cascade")
        for table, content in files.items():
            assert house.post(f"/upload/{table}", files={"file": content}).status_code == 200

    return fill


def rows(folder: Path, table: str) -> list[list[str]]:
    with (folder / FILES[table]).open(newline="") as file:
        return [row for row in csv.reader(file) if all(row)]


def hired(folder: Path, year: int) -> list[tuple[str, str, int]]:
    """Department, job and quarter of everybody hired in a year."""
    found = []
    for _, _, moment, department, job in rows(folder, "employees"):
        when = datetime.fromisoformat(moment).astimezone(UTC)
        if when.year == year:
            found.append((department, job, (when.month - 1) // 3))
    return found


def expected_quarters(folder: Path, year: int) -> list[list[str]]:
    departments, jobs = dict(rows(folder, "departments")), dict(rows(folder, "jobs"))
    counts: dict = defaultdict(lambda: [0, 0, 0, 0])
    for department, job, quarter in hired(folder, year):
        counts[departments[department], jobs[job]][quarter] += 1
    order = sorted(counts, key=lambda key: (key[0].lower(), key[0], key[1].lower(), key[1]))
    return [[*key, *map(str, counts[key])] for key in order]


def expected_media(folder: Path, year: int) -> list[list[str]]:
    departments = dict(rows(folder, "departments"))
    counts = Counter(department for department, _, _ in hired(folder, year))
    mean = sum(counts.values()) / len(departments)
    above = sorted((-count, int(id)) for id, count in counts.items() if count > mean)
    return [[str(id), departments[str(id)], str(-count)] for count, id in above]


@pytest.mark.parametrize("year", [2020, 2021, 2022])
@pytest.mark.parametrize("folder", FOLDERS, ids=["sample", "real"])
def test_reports_equal_those_of_an_independent_reader(house, load, folder, year):
    if not folder.exists():
        pytest.skip(f"{folder} is not here")
    load({table: (folder / file).read_bytes() for table, file in FILES.items()})
    for name, header, expected in (
        ("quarter", ["department", "job", "Q1", "Q2", "Q3", "Q4"], expected_quarters(folder, year)),
        ("media", ["id", "department", "hired"], expected_media(folder, year)),
    ):
        download = house.get(f"/requirements/{name}?year={year}")
        assert download.headers["Content-Type"] == "text/csv; charset=utf-8"
        assert download.headers["Content-Disposition"] == f'attachment; filename="{name}-{year}.csv"'
        assert [*csv.reader(io.StringIO(download.text))] == [header, *expected]
        answer = house.get(f"/requirements/{name}?year={year}", headers={"Accept": "application/json"}).json()
        assert [[str(value) for value in item.values()] for item in answer["items"]] == expected
        assert answer["next"] is None


def test_names_are_in_order_whatever_the_case(house, load):
    departments = ["b", "A", "a", "B", "Éa", "é", "_", "Z"]
    load(
        {
            "departments": "\n".join(f"{id},{name}" for id, name in enumerate(departments, 1)).encode(),
            "jobs": b"1,x\n2,X",
            "employees": "\n".join(
                f"{id},N,2021-01-01,{(id + 1) // 2},{id % 2 + 1}" for id in range(1, 2 * len(departments) + 1)
            ).encode(),
        }
    )
    answer = house.get("/requirements/quarter?year=2021", headers={"Accept": "application/json"}).json()
    found = [(item["department"], item["job"]) for item in answer["items"]]
    assert found == sorted(found, key=lambda key: (key[0].lower(), key[0], key[1].lower(), key[1]))
    assert len(found) == 16


def test_quarters_are_in_utc_and_departments_without_hires_count(house, load):
    load(
        {
            "departments": b"1,One\n2,Two\n3,None\n4,Nil",
            "jobs": b"1,Job",
            "employees": b"1,A,2021-12-31T23:30:00-02:00,1,1\n2,B,2022-04-01T01:00:00+02:00,1,1\n3,C,2022-05-01,2,1",
        }
    )
    text = house.get("/requirements/quarter?year=2022").text
    assert text == "department,job,Q1,Q2,Q3,Q4\r\nOne,Job,2,0,0,0\r\nTwo,Job,0,1,0,0\r\n"
    assert house.get("/requirements/media?year=2022").text == "id,department,hired\r\n1,One,2\r\n2,Two,1\r\n"
    assert house.get("/requirements/media?year=1999").text == "id,department,hired\r\n"


def test_a_year_must_be_given_and_be_one(house):
    assert house.get("/requirements/quarter").status_code == 400
    for year in ("abc", "0", "10000", "-1", "٢٠٢١", "2021.0"):
        assert house.get("/requirements/media", params={"year": year}).status_code == 422
    for year in (1, 9999):
        assert house.get(f"/requirements/quarter?year={year}").status_code == 200


def test_psql_prints_the_bodies_of_the_service(house, load):
    load({table: (FOLDERS[0] / file).read_bytes() for table, file in FILES.items()})
    for name in ("quarter", "media"):
        answer = house.get(f"/requirements/{name}?year=2021", headers={"Accept": "application/json"})
        assert shown_by_psql(house, f"reports.{name}", year=2021) == answer.text


def test_a_formula_is_neutral_on_csv_only_if_asked_for(house, load):
    names = ["=1+1", "+1", "-1", "@SUM(A1)", "1+1", "'=1"]
    load({"departments": "\n".join(f"{id},{name}" for id, name in enumerate(names, 1)).encode()})
    csv_only = {"Accept": "text/csv"}

    def column(query: str) -> list[str]:
        answer = house.get(f"/departments?fields=department{query}", headers=csv_only)
        return [row[0] for row in csv.reader(io.StringIO(answer.text))][1:]

    assert column("") == column("&formulas=kept") == names
    assert column("&formulas=neutral") == ["'=1+1", "'+1", "'-1", "'@SUM(A1)", "1+1", "'=1"]
    items = house.get("/departments?formulas=neutral").json()["items"]
    assert [item["department"] for item in items] == names
    assert house.get("/departments?formulas=gone").status_code == 422
