"""Agents whose tasks are views of Django, each in one `atomic()`, called as a WSGI server does."""

import io
import os

import django
import httpx
from crew import DRIVER_OPTIONS, MODEL, MODEL_HEADERS, QUESTION, work_in_threads
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.db import models, transaction
from django.http import HttpResponse
from django.urls import path

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": os.environ["PGDATABASE"],
            "USER": os.environ["PGUSER"],
            "PASSWORD": os.environ["PGPASSWORD"],
            "HOST": os.environ["PGHOST"],
            "PORT": os.environ["PGPORT"],
            "OPTIONS": DRIVER_OPTIONS,
        }
    },
)
django.setup()
model = httpx.Client(headers=MODEL_HEADERS, timeout=60)


class Account(models.Model):
    id = models.IntegerField(primary_key=True)
    email = models.TextField()

    class Meta:
        app_label, db_table, managed = "product", "accounts", False


class Step(models.Model):
    id = models.BigAutoField(primary_key=True)
    agent = models.IntegerField()
    answer = models.TextField()

    class Meta:
        app_label, db_table, managed = "product", "steps", False


@transaction.atomic
def answer(request, number):
    account = Account.objects.get(pk=number)
    said = model.post(MODEL, json={**QUESTION, "user": account.email}).raise_for_status()
    Step.objects.create(agent=number, answer=said.json()["text"])
    return HttpResponse("done")


urlpatterns = [path("answer/<int:number>", answer)]
application = WSGIHandler()


def task(number):
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": f"/answer/{number}",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.input": io.BytesIO(),
        "wsgi.url_scheme": "http",
    }
    told = []
    response = application(environ, lambda status, headers: told.append(status))
    body = b"".join(response)
    response.close()
    if told != ["200 OK"]:
        raise RuntimeError(f"the view answered {told}: {body[:200]!r}")


work_in_threads(task)
