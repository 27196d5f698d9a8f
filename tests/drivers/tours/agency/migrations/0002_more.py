from django.db import migrations, models


def first(apps, editor):
    apps.get_model("agency", "Agent").objects.using(editor.connection.alias).create(
        name="the first"
    )


class Migration(migrations.Migration):
    dependencies = [("agency", "0001_initial")]
    operations = [
        migrations.AddField("Agent", "more", models.JSONField(default=dict)),
        migrations.RunPython(first, migrations.RunPython.noop),
    ]
