import django.contrib.postgres.fields
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    operations = [
        migrations.CreateModel(
            "Agent",
            [
                (
                    "id",
                    models.BigAutoField(
                        primary_key=True, serialize=False, auto_created=True, verbose_name="ID"
                    ),
                ),
                ("name", models.CharField(max_length=50, unique=True)),
                (
                    "tags",
                    django.contrib.postgres.fields.ArrayField(models.TextField(), default=list),
                ),
                ("made", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            "Step",
            [
                (
                    "id",
                    models.BigAutoField(
                        primary_key=True, serialize=False, auto_created=True, verbose_name="ID"
                    ),
                ),
                ("agent", models.ForeignKey("agency.Agent", models.CASCADE, related_name="steps")),
                ("cost", models.DecimalField(max_digits=8, decimal_places=2, default=0)),
            ],
        ),
    ]
