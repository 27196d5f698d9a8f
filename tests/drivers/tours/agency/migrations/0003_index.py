from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("agency", "0002_more")]
    operations = [AddIndexConcurrently("Agent", models.Index(fields=["made"], name="agent_made"))]
