"""Django: migrations, the ORM, transactions, iterators, with persistent connections.

Its settings and connections belong to a thread, and a thread is a client here. Each has its
own schema, by `search_path` in the options.
"""

import threading

import django
from django.conf import settings

import transcript as t

CONNECTIONS = {
    f"client_{number}": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": t.DATABASE,
        "USER": t.USER,
        "PASSWORD": t.PASSWORD,
        "HOST": t.HOST,
        "PORT": t.PORT,
        "CONN_MAX_AGE": 600,
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {
            "options": f"-c search_path={t.Transcript(number).schema} -c statement_timeout=20s"
        },
    }
    for number in range(t.CLIENTS)
}
settings.configure(
    DATABASES={"default": CONNECTIONS["client_0"], **CONNECTIONS},
    INSTALLED_APPS=[
        "django.contrib.contenttypes",
        "django.contrib.auth",
        "django.contrib.sessions",
        "django.contrib.postgres",
        "agency",
    ],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
    TIME_ZONE="Europe/Berlin",
    SECRET_KEY="of a test",
)


django.setup()

from agency.models import Agent, Step  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.contrib.sessions.backends.db import SessionStore  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import IntegrityError, close_old_connections, connections, transaction  # noqa: E402
from django.db.models import Count, F, Q, Sum  # noqa: E402


# Django's migrations keep what they look at in module globals: one client migrates at a time.
MIGRATING = threading.Lock()


def tour(seen):
    db = f"client_{seen.number}"
    c = connections[db]
    with c.cursor() as cursor:
        cursor.execute(f"drop schema if exists {seen.schema} cascade")
        cursor.execute(f"create schema {seen.schema}")
    with MIGRATING:
        call_command("migrate", database=db, verbosity=0)
        seen.say(
            "nothing to do", call_command("makemigrations", check=True, dry_run=True, verbosity=0)
        )
    seen.say(
        "tables",
        sorted(name for name in c.introspection.table_names() if not name.startswith("auth")),
    )
    agents, steps = Agent.objects.using(db), Step.objects.using(db)
    orm(seen, db, agents, steps)
    transactions(seen, db, agents)
    iterators(seen, db, agents)
    requests(seen, db)
    connections.close_all()


def orm(seen, db, agents, steps):
    agents.bulk_create(
        [Agent(name=f"agent {n}", tags=["a", str(n)], more={"n": n}) for n in range(80)],
        batch_size=30,
    )
    for agent in agents.all()[:10]:
        agent.steps.create(cost="1.50")
    found = (
        agents.filter(more__n__lt=12)
        .annotate(count=Count("steps"), cost=Sum("steps__cost"))
        .order_by("more__n")
    )
    seen.say("annotated", [(a.name, a.count, a.cost, a.tags) for a in found])
    seen.say(
        "filtered", agents.filter(Q(name__icontains="AGENT 7") | Q(tags__contains=["5"])).count()
    )
    seen.say("updated", agents.filter(more__n__gte=70).update(tags=["late"], more=F("more")))
    seen.say(
        "got",
        agents.get_or_create(name="agent 1")[1],
        agents.update_or_create(name="new", defaults={"tags": ["x"]})[1],
    )
    seen.say(
        "prefetched",
        [len(a.steps.all()) for a in agents.prefetch_related("steps").order_by("pk")[:3]],
    )
    seen.say(
        "raw",
        [a.name for a in agents.raw("select * from agency_agent where name = %s", ["agent 3"])],
    )
    seen.say("deleted", agents.filter(name="agent 2").delete()[0])
    for turn in range(8):
        seen.say("same query", agents.filter(more__n=turn).values_list("name", "tags").first())
    seen.say("explain", "agency_agent" in agents.filter(name="x").explain())
    User.objects.db_manager(db).create_user("tourist", password="x")
    seen.say("user", User.objects.using(db).get(username="tourist").check_password("x"))


def transactions(seen, db, agents):
    with transaction.atomic(using=db):
        agents.create(name="outer")
        try:
            with transaction.atomic(using=db):
                agents.create(name="inner")
                agents.create(name="outer")
        except IntegrityError as error:
            seen.say("unique", str(error).splitlines()[0])
        seen.say("locked", agents.select_for_update(skip_locked=True).get(name="outer").name)
    seen.say("kept", agents.filter(name__in=["outer", "inner"]).count())
    done = []
    try:
        with transaction.atomic(using=db):
            transaction.on_commit(lambda: done.append("never"), using=db)
            agents.create(name="never")
            raise KeyError
    except KeyError:
        seen.say("rolled back", agents.filter(name="never").count(), done)
    with transaction.atomic(using=db, durable=True):
        transaction.on_commit(lambda: done.append("done"), using=db)
    seen.say("on commit", done)
    with transaction.atomic(using=db):
        point = transaction.savepoint(using=db)
        agents.create(name="by hand")
        transaction.savepoint_rollback(point, using=db)
    with connections[db].cursor() as cursor:
        cursor.execute("show timezone")
        seen.say("timezone", cursor.fetchone())
        cursor.execute("show search_path")
        seen.say("path", cursor.fetchone())


def iterators(seen, db, agents):
    seen.say("in a transaction", in_transaction(db, agents))
    # A cursor WITH HOLD outside of a transaction, as Django does it by default.
    seen.say("outside", sum(1 for _ in agents.iterator(chunk_size=20)))
    with connections[db].cursor() as cursor:
        cursor.executemany(
            "insert into agency_step(agent_id, cost) select min(id), %s from agency_agent",
            [(n,) for n in range(5)],
        )
        seen.say("many", cursor.rowcount)


def in_transaction(db, agents):
    with transaction.atomic(using=db):
        return sum(1 for _ in agents.iterator(chunk_size=20))


def requests(seen, db):
    """Requests one after the other over a persistent connection that is checked first."""
    for turn in range(6):
        close_old_connections()
        session = SessionStore()
        session.model.objects.using(db).update_or_create(
            session_key=f"key{turn}",
            defaults={"session_data": "x", "expire_date": "2030-01-01T00:00:00Z"},
        )
        seen.say("sessions", session.model.objects.using(db).count())
    seen.say("usable", connections[db].is_usable())


t.run(tour)
