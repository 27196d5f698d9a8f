"""Agents and what they do."""

from django.contrib.postgres.fields import ArrayField
from django.db import models


class Agent(models.Model):
    name = models.CharField(max_length=50, unique=True)
    tags = ArrayField(models.TextField(), default=list)
    more = models.JSONField(default=dict)
    made = models.DateTimeField(auto_now_add=True)

    class Meta:
        indexes = [models.Index(fields=["made"], name="agent_made")]


class Step(models.Model):
    agent = models.ForeignKey(Agent, models.CASCADE, related_name="steps")
    cost = models.DecimalField(max_digits=8, decimal_places=2, default=0)
