"""The doors of the service, one module a noun. A new noun adds its blueprint here."""

from handlers.docs import docs
from handlers.health import health
from handlers.hiring import hiring
from handlers.reports import reports
from handlers.uploads import uploads
from handlers.users import users

BLUEPRINTS = (health, docs, users, hiring, uploads, reports)
