"""The charts at /requirements, in a real browser."""

import pytest

from tests.browser import CHROMIUM, tab
from tests.conftest import ROOT, serve, wait_for

FILES = {"departments": "departments.csv", "jobs": "jobs.csv", "employees": "hired_employees.csv"}


@pytest.fixture(scope="module")
def house(module_database):
    with serve(module_database) as service:
        yield service


def fill(house):
    for table, file in FILES.items():
        content = (ROOT / "tests" / "hiring" / file).read_bytes()
        assert house.post(f"/upload/{table}", files={"file": content}).status_code == 200


def test_the_reports_behind_the_charts(house):
    assert house.get("/requirements/years").json() == {"items": [], "next": None}
    fill(house)
    years = [item["year"] for item in house.get("/requirements/years").json()["items"]]
    known = {int(item["datetime"][:4]) for item in house.get("/employees?limit=1000").json()["items"]}
    assert years == sorted(known, reverse=True)
    accept = {"Accept": "application/json"}
    items = house.get(f"/requirements/departments?year={years[0]}", headers=accept).json()["items"]
    assert {item["id"] for item in items} == {item["id"] for item in house.get("/departments").json()["items"]}
    above = house.get(f"/requirements/media?year={years[0]}", headers=accept).json()["items"]
    mean = sum(item["hired"] for item in items) / len(items)
    assert above == [item for item in items if item["hired"] > mean]
    csv = house.get(f"/requirements/departments?year={years[0]}")
    assert csv.text.splitlines()[0] == "id,department,hired"


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here: apt install chromium")
def test_a_year_is_drawn_and_a_click_shows_a_department_alone(house):
    fill(house)
    accept = {"Accept": "application/json"}
    year = house.get("/requirements/years").json()["items"][0]["year"]
    items = house.get(f"/requirements/departments?year={year}", headers=accept).json()["items"]
    quarters = house.get(f"/requirements/quarter?year={year}", headers=accept).json()["items"]
    with tab() as browser:
        browser.open(f"{house.url}/requirements")
        wait_for(lambda: browser.shows(f"hired in {year}"))

        def drawn(chart: str) -> list:
            return browser.evaluate(f"Chart.getChart('{chart}').data.datasets.map((set) => set.data)")

        assert browser.evaluate("Chart.getChart('departments').data.labels") == [item["department"] for item in items]
        assert drawn("departments") == [[item["hired"] for item in items]]
        assert drawn("quarters") == [[sum(row[f"Q{n}"] for row in quarters) for n in (1, 2, 3, 4)]]
        assert sum(map(sum, drawn("jobs"))) == sum(item["hired"] for item in items)
        painted = "Array.from(document.querySelectorAll('canvas'), (canvas) => canvas.getContext('2d')"
        painted += ".getImageData(0, 0, canvas.width, canvas.height).data.some((byte) => byte))"
        assert browser.evaluate(painted) == [True, True, True]

        first = items[0]["department"]
        bar = "Chart.getChart('departments').getDatasetMeta(0).data[0].getCenterPoint()"
        canvas = "document.getElementById('departments').getBoundingClientRect()"
        at = browser.evaluate(f"(() => {{ const b = {bar}, c = {canvas}; return [c.x + b.x, c.y + b.y] }})()")
        for kind in ("mousePressed", "mouseReleased"):
            browser.send("Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1)
        wait_for(lambda: browser.shows(f"By quarter: {first}"))
        own = [row for row in quarters if row["department"] == first]
        assert drawn("quarters") == [[sum(row[f"Q{n}"] for row in own) for n in (1, 2, 3, 4)]]

        browser.evaluate("document.getElementById('year').append(new Option('1999', '1999'))")
        browser.evaluate("document.getElementById('year').value = '1999'; document.getElementById('year').onchange()")
        wait_for(lambda: browser.shows("Nobody was hired in 1999."))
        assert browser.evaluate("location.search") == "?year=1999"
        assert browser.evaluate("document.getElementById('media-csv').href").endswith("media?year=1999")
        assert browser.errors == []


def test_the_charts_take_nothing_from_elsewhere(house):
    answer = house.get("/requirements?year=2021")
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert "://" not in answer.text
    assert house.get("/page/chart.js").status_code == house.get("/page/requirements.js").status_code == 200
    assert house.get("/requirements?year=x").status_code == 422
