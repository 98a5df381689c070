"""The stages of the pipeline, in data order.

Each package's ``stage.py`` is thin: it opens what earlier stages made, calls the modules that do
the work, and says what came out. What a stage's result depends on is all in its key function.
"""

from headstart.tasks.auditing.pictures import stage as pictures
from headstart.tasks.auditing.stage import stage as audit
from headstart.tasks.bottlenecks.stage import stage as bottlenecks
from headstart.tasks.dataset.stage import stage as dataset
from headstart.tasks.evaluation.stage import stage as evaluation
from headstart.tasks.export.stage import stage as export
from headstart.tasks.head.stage import stage as head
from headstart.tasks.ranking.baseline import stage as baseline
from headstart.tasks.ranking.pace import stage as pace
from headstart.tasks.ranking.stage import stage as scores
from headstart.tasks.surveying.stage import anatomy, measurements
from headstart.tasks.views.stage import stage as views

__all__ = [
    "anatomy",
    "audit",
    "baseline",
    "bottlenecks",
    "dataset",
    "evaluation",
    "export",
    "head",
    "measurements",
    "pace",
    "pictures",
    "scores",
    "views",
]
