"""Health: the service says how it is, and what it does."""


def test_a_ready_service_says_so(service):
    assert service.get("/health/live").json() == {"status": "live"}
    told = service.get("/health/ready").json()
    told.pop("feed_seconds", None)  # as long as somebody of another test listens
    assert told == {"status": "ready"}


def test_ping_tells_the_time_in_utc(service):
    assert service.get("/ping").json()["now"].endswith("Z")
