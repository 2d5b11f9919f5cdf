"""The page at /, in a real browser: changes come live, history is readable, the way back is a button."""

import psycopg
import pytest

from tests.browser import CHROMIUM, tab
from tests.conftest import wait_for

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium here: apt install chromium")


@pytest.fixture(scope="module")
def browser():
    with tab() as found:
        yield found


@pytest.fixture
def story(service, unique):
    project = service.post("/projects", json={"name": unique("project")}).json()
    return service.post(f"/projects/{project['id']}/userstories", json={"subject": "As it was"}).json()


def live(browser, service, query=""):
    browser.errors.clear()
    browser.open(f"{service.url}/{query}")
    wait_for(lambda: browser.evaluate("document.getElementById('state')?.textContent") == "live")


def test_a_change_appears_by_itself_as_a_readable_diff(browser, service, story):
    live(browser, service, f"?project={story['project_id']}")
    service.patch(f"/userstories/{story['id']}", json={"subject": "<b>As it is</b>", "version": 1})
    wait_for(lambda: browser.shows("<b>As it is</b>"))
    change = "document.querySelector('#changes li')"
    assert browser.evaluate(f"{change}.querySelector('del').textContent") == "As it was"
    assert browser.evaluate(f"{change}.querySelector('ins').textContent") == "<b>As it is</b>"
    assert browser.evaluate(f"{change}.querySelector('.actor').textContent") == "anonymous"
    with psycopg.connect(service.database, application_name="psql") as connection:
        connection.execute("update userstories set points = 5 where id = %s", [story["id"]])
    wait_for(lambda: browser.shows("(psql)"))
    assert browser.evaluate("document.querySelectorAll('#changes li').length") == 2
    assert browser.errors == []


def test_an_event_turns_processed_before_ones_eyes(browser, service):
    live(browser, service, "?obj_type=event")
    made = service.post("/events", json={"user_id": "ann", "description": "Look."}).json()
    wait_for(lambda: browser.shows(f"event {made['event_id']}"))
    with psycopg.connect(service.database, application_name="notifier") as connection:
        connection.execute("update events set status = 'Processed' where id = %s", [made["event_id"]])
    wait_for(lambda: browser.evaluate("document.querySelector('#changes li ins')?.textContent") == "Processed")
    browser.evaluate("document.querySelector('#changes a').click()")
    wait_for(lambda: browser.evaluate("document.querySelectorAll('#history li').length") == 2)
    assert browser.errors == []


def test_a_click_opens_the_history_and_a_button_goes_back(browser, service, story):
    live(browser, service, f"?project={story['project_id']}")
    path = f"/userstories/{story['id']}"
    service.patch(path, json={"subject": "Second", "version": 1})
    wait_for(lambda: browser.shows("Second"))
    browser.evaluate("document.querySelector('#changes a').click()")
    wait_for(lambda: browser.evaluate("document.querySelectorAll('#history li').length") == 2)
    assert browser.evaluate("document.getElementById('title').textContent") == f"userstory {story['id']}"
    browser.evaluate("document.querySelector('#history button').click()")
    wait_for(lambda: browser.shows("It is as it was in version 1 again, as version 3."))
    assert service.get(path).json()["subject"] == "As it was"
    wait_for(lambda: browser.evaluate("document.querySelectorAll('#history li').length") == 3)
    assert browser.errors == []


def test_a_revert_over_a_version_that_moved_on_says_so(browser, service, story):
    path = f"/userstories/{story['id']}"
    service.patch(path, json={"subject": "Second", "version": 1})
    live(browser, service, f"?obj_type=nothing#userstory/{story['id']}")
    wait_for(lambda: browser.evaluate("document.querySelectorAll('#history button').length") == 1)
    service.patch(path, json={"subject": "Third", "version": 2})
    browser.evaluate("document.querySelector('#history button').click()")
    wait_for(lambda: browser.shows("The object is at version 3."))
    assert service.get(path).json()["subject"] == "Third"


def test_the_filter_is_kept_in_the_address(browser, service, story):
    live(browser, service)
    browser.evaluate("document.forms.filter.elements.obj_type.value = 'task'; document.forms.filter.requestSubmit()")
    wait_for(lambda: browser.evaluate("location.search") == "?obj_type=task")
    wait_for(lambda: browser.evaluate("document.getElementById('state')?.textContent") == "live")
    service.patch(f"/userstories/{story['id']}", json={"subject": "Unseen", "version": 1})
    service.post(f"/userstories/{story['id']}/tasks", json={"subject": "Seen"})
    wait_for(lambda: browser.evaluate("document.querySelectorAll('#changes li').length") == 1)
    assert browser.shows("task")


@pytest.mark.parametrize("project", ["0", "00", "-1", "1.5", "1e3", "x", "9" * 19, "١"])
def test_a_filter_that_can_be_none_leads_to_no_problem(browser, service, project):
    live(browser, service)
    browser.evaluate(
        f"document.forms.filter.elements.project.value = '{project}'; document.forms.filter.requestSubmit()"
    )
    assert browser.evaluate("document.forms.filter.checkValidity()") is False
    assert browser.evaluate("location.search") == ""
    assert service.get("/", params={"project": project}).status_code == 422


def test_a_filter_of_spaces_is_none(browser, service):
    live(browser, service)
    browser.evaluate("document.forms.filter.elements.obj_type.value = '  '; document.forms.filter.requestSubmit()")
    wait_for(lambda: browser.evaluate("document.getElementById('state')?.textContent") == "live")
    assert browser.evaluate("location.search") == ""


def test_the_page_takes_nothing_from_elsewhere(service):
    answer = service.get("/")
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")
    assert "://" not in answer.text
    for path in ("/page/page.js", "/page/page.css"):
        assert service.get(path).status_code == 200
    assert service.get("/page/page.py").status_code == 404
