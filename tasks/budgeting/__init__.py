"""The best model within a time budget: candidates, their order, and their results.

Read `recipes` first: what can be trained, and which candidates are one change away from the best;
then `choosing`. `folds` and `average` are stages of their own. `headstart.flows.trials` makes
recipes.
"""
