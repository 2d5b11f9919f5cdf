"""How gunicorn serves the plain Flask peer."""

worker_class = "gthread"
threads = 10
loglevel = "warning"
