"""The doors of the service, one module a noun. A new noun adds its blueprint here."""

from handlers.audios import audios
from handlers.backups import backups
from handlers.batches import batches
from handlers.comments import comments
from handlers.docs import docs
from handlers.events import events
from handlers.health import health
from handlers.hiring import hiring
from handlers.history import history
from handlers.milestones import milestones
from handlers.notifications import notifications
from handlers.operations import operations
from handlers.page import page
from handlers.projects import projects
from handlers.reports import reports
from handlers.restores import restores
from handlers.tasks import tasks
from handlers.uploads import uploads
from handlers.users import users
from handlers.userstories import userstories

BLUEPRINTS = (
    health,
    docs,
    page,
    users,
    audios,
    projects,
    milestones,
    userstories,
    tasks,
    comments,
    history,
    events,
    notifications,
    hiring,
    uploads,
    batches,
    reports,
    backups,
    restores,
    operations,
)
